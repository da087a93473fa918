"""Sessions of WebSockets: what a client has acknowledged survives its connection and the node (PROTOCOL.md 1)."""

import json
import random
import re
import threading

import pytest

from clients import Closed, Web, publish
from node import wait_until

SOON = {"session.save_ms": "20ms"}


def resume(node, token, **hello):
    return Web(node, hello={"session": token, **hello})


def data(item):
    message = item["msg"]
    return message["data"] if "data" in message else int(message["text"])


def take(web, count):
    return [web.next_item("msg") for _ in range(count)]


def quiet(web):
    """All that has been sent so far has come: a request is answered behind it."""
    number = web.request({"unsub": {"topic": "nothing/of/that/name"}})
    came = []
    while True:
        item = web.event()
        if item.get("id") == number:
            return came
        if "id" not in item:
            came.append(item)


def messages(items):
    return [item for item in items if "msg" in item]


def writes(node):
    return node.metrics()['tidegate_session_writes_total{result="ok"}']


def acknowledge(node, web, n):
    """Until it is durable."""
    before = writes(node)
    web.post({"ack": {"n": n}})
    wait_until(lambda: writes(node) > before, "the acknowledgement to be durable")


def test_hello_names_a_session(node):
    with Web(node, hello={}) as web, Web(node, hello={}) as other:
        assert re.fullmatch("[0-9a-f]{32}", web.hello["session"])
        assert web.hello["session"] != other.hello["session"]
        assert web.hello["resumed"] is False and web.hello["lost"] == []
        assert web.ask({"hello": {}})["ok"]["session"] == web.hello["session"]
        assert "session" in web.hello["features"]
    assert node.metrics()["tidegate_sessions"] == 0, "nothing durable was wanted"


@pytest.mark.parametrize("end", ["abort", "kill9", "stop"])
def test_resumes_after_what_was_acknowledged(make_node, end):
    node = make_node(SOON)
    web = Web(node, hello={})
    web.subscribe("a/+", ack=True)
    web.subscribe("b", ack=True)
    for i in range(10):
        publish(node, f"a/{i % 3}", str(i).encode())
    for i in range(10):
        publish(node, "b", str(i).encode())
    came = take(web, 20)
    acknowledge(node, web, came[11]["n"])
    acked = {("a/+" if "sub" in item else "b", data(item)) for item in came[:12]}
    {"abort": web.abort, "kill9": node.kill9, "stop": node.stop}[end]()
    if end != "abort":
        node.restart()
    publish(node, "b", b"10")
    with resume(node, web.hello["session"]) as again:
        assert again.hello["resumed"] is True and again.hello["lost"] == []
        assert again.hello["session"] == web.hello["session"]
        came, live = [], set()
        while len(came) < 9 or len(live) < 2:
            item = again.event()
            came += [item] if "msg" in item else []
            live |= {item["live"]["topic"]} if "live" in item else set()
        assert live == {"a/+", "b"}
        assert [item["n"] for item in came] == list(range(1, 10)), "numbers are of the connection"
        got = {name: [data(item) for item in came if ("sub" in item) == (name == "a/+")] for name in ("a/+", "b")}
        for name, last in (("a/+", 10), ("b", 11)):
            assert got[name] == [i for i in range(last) if (name, i) not in acked], name


def test_ok_of_a_sub_comes_when_the_record_has_it(make_node):
    """Killed at once after the ok: the filter is there, and begins where it began."""
    node = make_node()
    token = None
    for round_ in range(5):
        web = resume(node, token) if token else Web(node, hello={})
        assert web.hello["resumed"] is (token is not None), "the session is there"
        token = web.hello["session"]
        web.subscribe(f"t/{round_}", "live", ack=True)
        node.kill9()
        node.restart()
        for topic in range(round_ + 1):
            publish(node, f"t/{topic}", str(round_).encode())
    with resume(node, token) as web:
        got = {}
        for _ in range(5 + 4 + 3 + 2 + 1):
            item = web.next_item("msg")
            got.setdefault(item["msg"]["topic"], []).append(data(item))
        assert got == {f"t/{i}": list(range(i, 5)) for i in range(5)}


def test_unsub_is_durable(make_node):
    node = make_node()
    web = Web(node, hello={})
    web.subscribe("a", ack=True)
    web.subscribe("b", ack=True)
    assert web.ask({"unsub": {"topic": "a"}})["ok"] == {"topic": "a"}
    node.kill9()
    node.restart()
    publish(node, "a", b"1")
    publish(node, "b", b"2")
    with resume(node, web.hello["session"]) as again:
        assert again.hello["lost"] == []
        assert data(again.next_item("msg")) == 2
        assert messages(quiet(again)) == []


def test_closing_with_1000_ends_the_session(node):
    web = Web(node, hello={})
    web.subscribe("a", ack=True)
    assert node.metrics()["tidegate_sessions"] == 1
    web.close()
    wait_until(lambda: node.metrics()["tidegate_sessions"] == 0, "the record to go")
    with resume(node, web.hello["session"]) as again:
        assert again.hello["resumed"] is False and again.hello["session"] != web.hello["session"]


def test_what_cannot_be_resumed_is_lost(node):
    web = Web(node, hello={})
    web.subscribe("acked", ack=True)
    web.subscribe("plain")
    position = web.subscribe("placed/+")["pos"]
    web.abort()
    wait_until(lambda: node.metrics()['tidegate_connections{proto="ws"}'] == 0, "the node to notice")
    for topic in ("acked", "plain", "placed/1", "new"):
        publish(node, topic, b"1")
    stranger = "0000000a0000.0000000000000001"
    after = {"placed/+": [position], "new": position, "other/epoch": [stranger], "no/#/filter": [position],
             "$user/x": [position]}
    with resume(node, web.hello["session"], after=after) as again:
        assert again.hello["resumed"] is True
        assert sorted(again.hello["lost"]) == ["$user/x", "no/#/filter", "other/epoch", "plain"]
        came = take(again, 3)
        assert sorted(item["msg"]["topic"] for item in came) == ["acked", "new", "placed/1"]
        assert [item["msg"]["topic"] for item in came if "n" in item] == ["acked"]


def test_after_without_a_session(node):
    for i in range(4):
        publish(node, "a", str(i).encode())
        publish(node, "b", str(i).encode())
    with Web(node) as web:
        web.subscribe("#", "earliest")
        came = take(web, 8)
    place = {topic: [item["msg"]["pos"] for item in came if item["msg"]["topic"] == topic] for topic in "ab"}
    with Web(node, hello={"after": {"a": [place["a"][0], place["a"][2]], "b": place["b"][1]}}) as web:
        assert web.hello["resumed"] is False and web.hello["lost"] == []
        came = take(web, 3)
        assert sorted((item["msg"]["topic"], data(item)) for item in came) == [("a", 3), ("b", 2), ("b", 3)]


def test_after_moves_an_acknowledged_filter_forward_only(node):
    web = Web(node, hello={})
    web.subscribe("a", ack=True)
    for i in range(6):
        publish(node, "a", str(i).encode())
    came = take(web, 6)
    web.post({"ack": {"n": 3}})
    web.abort()
    with resume(node, web.hello["session"], after={"a": came[4]["msg"]["pos"]}) as again:
        assert data(again.next_item("msg")) == 5
        again.abort()
    with resume(node, web.hello["session"], after={"a": came[0]["msg"]["pos"]}) as again:
        assert data(again.next_item("msg")) >= 3


BAD = [{"session": 5}, {"session": None, "after": []}, {"after": {"a": []}}, {"after": {"a": [1]}}, {"after": {"a": {}}},
       {"after": {"a": ["no position"]}}, {"after": {"a": ["x"] * 129}}]


@pytest.mark.parametrize("hello", BAD, ids=lambda hello: json.dumps(hello)[:40])
def test_bad_hello(node, hello):
    with Web(node) as web:
        assert web.ask({"hello": hello})["err"]["code"] == "bad_request"
        assert "ok" in web.ask({"hello": {}})


@pytest.mark.parametrize("token", ["", "x", "0" * 31, "0" * 32, "0" * 33, "f" * 1000, "G" * 32, "\u0000" * 32, "é" * 16])
def test_a_token_that_nobody_knows(node, token):
    with resume(node, token) as web:
        assert web.hello["resumed"] is False and web.hello["lost"] == []
        assert web.hello["session"] != token and len(web.hello["session"]) == 32
        web.subscribe("a", ack=True)
        publish(node, "a", b"1")
        assert web.next_item("msg")["n"] == 1


def test_ten_thousand_filters_in_after(make_node):
    node = make_node({"limit.subscriptions": 50})
    with Web(node) as web:
        position = web.subscribe("x")["pos"]
    after = {f"f/{i}": [position] for i in range(10000)}
    with Web(node, hello={"after": after}) as web:
        assert len(web.hello["lost"]) == 10000 - 50
        alive = sorted(set(after) - set(web.hello["lost"]))
        publish(node, alive[7], b"1")
        assert web.next_item("msg")["msg"]["topic"] == alive[7]
    too_many = {f"f/{i}": "x" for i in range(16385)}
    with Web(node) as web:
        assert web.ask({"hello": {"after": too_many}})["err"]["code"] == "bad_request"


def test_session_and_after_are_for_the_first_hello(node):
    with Web(node, hello={}) as web:
        for hello in ({"session": "0" * 32}, {"after": {"a": "x"}}):
            assert web.ask({"hello": hello})["err"]["code"] == "conflict"


def test_requests_behind_hello_wait_for_it(node):
    web = Web(node, hello={})
    web.subscribe("a", ack=True)
    publish(node, "a", b"1")
    web.abort()
    again = Web(node)
    again.post_text("\n".join(json.dumps(item) for item in [
        {"id": 101, "hello": {"session": web.hello["session"]}}, {"id": 102, "unsub": {"topic": "a"}},
        {"id": 103, "pub": {"topic": "a", "data": 2}}]))
    assert again.answer(101)["ok"]["resumed"] is True
    assert again.answer(102)["ok"] == {"topic": "a"}
    assert "ok" in again.answer(103)
    again.close()


@pytest.mark.parametrize("loops", [1, 3])
def test_a_second_connection_takes_the_session_over(make_node, loops):
    node = make_node({"node.loops": loops, "log.partitions": 4, **SOON})
    first = Web(node, hello={})
    first.subscribe("a/+", ack=True)
    token, holders = first.hello["session"], [first]
    for round_ in range(6):
        publish(node, f"a/{round_}", str(round_).encode())
        came = take(holders[-1], 1)
        holders.append(resume(node, token))
        assert holders[-1].hello["resumed"] is True
        bye = holders[-2].next("bye")
        assert bye["code"] == 4204
        assert holders[-2].close_code() == 4204
        assert data(take(holders[-1], 1)[0]) == data(came[0]), "it was not acknowledged"
        acknowledge(node, holders[-1], 1)
    for web in holders:
        web.close()


def test_two_at_once_leave_one(make_node):
    """Many connections ask for the session at the same time, on different loops: one has it at the end."""
    node = make_node({"node.loops": 3, "log.partitions": 4, **SOON})
    first = Web(node, hello={})
    first.subscribe("a", ack=True)
    token = first.hello["session"]
    for _ in range(3):
        webs = [Web(node) for _ in range(6)]
        numbers = [web.request({"hello": {"session": token}}) for web in webs]
        wait_until(lambda: sum(web.closed is None for web in webs) == 1, "all but one to be closed")
        last = next((web, number) for web, number in zip(webs, numbers) if web.closed is None)
        assert last[0].answer(last[1])["ok"]["resumed"] is True
        assert all(web.closed.code == 4204 for web in webs if web.closed)
        publish(node, "a", b"1")
        assert data(last[0].next_item("msg")) == 1
        acknowledge(node, last[0], 1)
        first.abort()
        for web in webs:
            web.abort()


def test_a_session_expires(make_node):
    node = make_node({"session.expiry_ms": "300ms"})
    web = Web(node, hello={})
    web.subscribe("a", ack=True)
    # as long as a connection has it, it does not: several times its expiry goes by
    before = writes(node)
    wait_until(lambda: writes(node) >= before + 6, "the record to be refreshed")
    publish(node, "a", b"1")
    assert data(web.next_item("msg")) == 1
    web.abort()
    wait_until(lambda: node.metrics()["tidegate_sessions"] == 0, "the session to expire")
    with resume(node, web.hello["session"]) as again:
        assert again.hello["resumed"] is False


def test_a_token_of_another_nodes_data(make_node, tmp_path):
    one, other = make_node(), make_node()
    web = Web(one, hello={})
    web.subscribe("a", ack=True)
    web.abort()
    with resume(other, web.hello["session"]) as again:
        assert again.hello["resumed"] is False


def test_the_token_is_not_in_the_log(make_node):
    node = make_node()
    web = Web(node, hello={})
    web.subscribe("a", ack=True)
    web.abort()
    node.stop()
    token = web.hello["session"].encode()
    kept = b"".join(path.read_bytes() for path in node.data.rglob("*") if path.is_file())
    assert b"$session/" in kept
    assert token not in kept and bytes.fromhex(token.decode()) not in kept


def test_records_are_not_messages(make_node):
    node = make_node()
    web = Web(node, hello={})
    everything = Web(node)
    everything.subscribe("#", "earliest")
    web.subscribe("a", ack=True)
    for filter_ in ("$session/#", "$session/+"):
        assert everything.ask({"sub": {"topic": filter_}})["err"]["code"] == "unsupported"
    assert everything.ask({"pub": {"topic": "$session/x", "data": 1}})["err"]["code"] == "forbidden"
    assert everything.ask({"get": {"topic": "$session/x"}})["err"]["code"] == "unsupported"
    with Web(node) as late:
        late.subscribe("#", "earliest")
        assert messages(quiet(late)) == []
        late.subscribe("+/#")
        assert messages(quiet(late)) == []
    assert messages(quiet(everything)) == []
    metrics = node.metrics()
    assert metrics["tidegate_retained_messages"] == 0 and metrics["tidegate_sessions"] == 1
    web.close()
    everything.close()


def test_limits(make_node):
    node = make_node({"limit.sessions": 2, "limit.session_bytes": 256})
    webs = [Web(node, hello={}) for _ in range(3)]
    for web in webs[:2]:
        web.subscribe("a", ack=True)
    answer = webs[2].ask({"sub": {"topic": "a", "ack": True}})
    assert answer["err"]["code"] == "quota_exceeded"
    publish(node, "a", b"1")
    assert data(webs[0].next_item("msg")) == 1
    assert messages(quiet(webs[2])) == [], "what was refused is not subscribed"
    # one goes: there is room
    webs[0].close()
    wait_until(lambda: node.metrics()["tidegate_sessions"] == 1, "the record to go")
    webs[2].subscribe("a", ack=True)
    # too many filters for one record
    answers = [webs[1].ask({"sub": {"topic": f"{i}/" + "x" * 40, "ack": True}}) for i in range(10)]
    refused = [answer["err"]["code"] for answer in answers if "err" in answer]
    assert refused and set(refused) == {"quota_exceeded"}
    for web in webs[1:]:
        web.close()


def test_limit_of_bytes(make_node):
    node = make_node({"limit.sessions_bytes": 300})
    with Web(node, hello={}) as web, Web(node, hello={}) as other:
        web.subscribe("a", ack=True)
        assert other.ask({"sub": {"topic": "a", "ack": True}})["err"]["code"] == "quota_exceeded"


def test_saved_after_so_many(make_node):
    node = make_node({"session.save_count": 5, "session.save_ms": "1h"})
    web = Web(node, hello={})
    web.subscribe("a", ack=True)
    before = writes(node)
    for i in range(12):
        publish(node, "a", str(i).encode())
    for item in take(web, 12):
        web.post({"ack": {"n": item["n"]}})
    wait_until(lambda: writes(node) > before, "the fifth acknowledgement to be durable")
    node.kill9()
    node.restart()
    publish(node, "a", b"12")
    with resume(node, web.hello["session"]) as again:
        assert data(again.next_item("msg")) >= 5


def test_retained_messages_come_until_they_are_acknowledged(make_node):
    node = make_node(SOON)
    for i in range(6):
        publish(node, f"r/{i}", str(i).encode(), "-H", "Tidegate-Retain: 1")
    web = Web(node, hello={"window": {"msgs": 4}})
    web.subscribe("r/#", ack=True)
    assert [data(item) for item in take(web, 4)] == [0, 1, 2, 3]
    acknowledge(node, web, 3)
    node.kill9()
    node.restart()
    publish(node, "r/7", b"7")
    again = resume(node, web.hello["session"])
    came = take(again, 7)
    assert [data(item) for item in came] == [0, 1, 2, 3, 4, 5, 7], "the walk begins again"
    assert [item["msg"].get("retained", False) for item in came] == [True] * 6 + [False]
    acknowledge(node, again, 7)
    again.abort()
    with resume(node, web.hello["session"]) as third:
        assert third.next("live")["topic"] == "r/#"
        assert messages(quiet(third)) == [], "all was acknowledged"


def test_replacing_a_kept_filter(make_node):
    node = make_node()
    web = Web(node, hello={})
    web.subscribe("a", ack=True)
    web.subscribe("b", ack=True)
    web.subscribe("a")  # not acknowledged any more
    node.kill9()
    node.restart()
    publish(node, "a", b"1")
    publish(node, "b", b"2")
    with resume(node, web.hello["session"]) as again:
        assert again.hello["lost"] == ["a"]
        assert data(again.next_item("msg")) == 2


@pytest.mark.deadline(180)
def test_records_survive_retention(make_node):
    node = make_node({"log.segment_bytes": 65536, "log.retention_bytes": 131072, **SOON})
    web = Web(node, hello={})
    web.subscribe("kept", ack=True)
    publish(node, "kept", b"0")
    acknowledge(node, web, web.next_item("msg")["n"])
    web.abort()
    wait_until(lambda: node.metrics()['tidegate_connections{proto="ws"}'] == 0, "the node to notice")
    with Web(node) as filler:
        def fill():
            for number in [filler.request({"pub": {"topic": "fill", "text": "x" * 1000}}) for _ in range(100)]:
                assert "ok" in filler.answer(number)
            return node.metrics()["tidegate_log_trimmed_segments_total"] >= 5
        wait_until(fill, "the record's segment to be removed", 60)
    node.kill9()
    node.restart()
    publish(node, "kept", b"1")
    with resume(node, web.hello["session"]) as again:
        assert again.hello["resumed"] is True
        assert data(again.next_item("msg")) == 1


class Consumer(threading.Thread):
    """A client that takes everything, acknowledges in steps, and calls again whenever its connection ends."""

    def __init__(self, node, seed):
        super().__init__(daemon=True)
        self.node, self.random = node, random.Random(seed)
        self.got, self.acked, self.token, self.error = [], -1, None, None
        self.wanted, self.done = None, threading.Event()
        self.connections = 0

    def run(self):
        try:
            while not self.done.is_set():
                self.connection()
        except BaseException as error:  # seen by the test
            self.error = error
            self.done.set()

    def open(self):
        while not self.done.is_set():
            try:
                web = Web(self.node)
            except (OSError, ConnectionError, TimeoutError):
                continue
            except Exception as error:
                if type(error).__module__.startswith("websockets"):
                    continue
                raise
            try:
                answer = web.ask({"hello": {"session": self.token} if self.token else {}})["ok"]
                if self.token is None:
                    web.subscribe("a/+", "earliest", ack=True)
                    self.token = answer["session"]
                else:
                    assert answer["resumed"] is True and answer["lost"] == []
                return web
            except Closed:
                web.abort()
        return None

    def connection(self):
        web = self.open()
        if not web:
            return
        self.connections += 1
        last, since = -1, 0
        try:
            while not self.done.is_set():
                item = web.event(1)
                assert "gap" not in item, item
                if "msg" not in item:
                    continue
                i = data(item)
                assert last < 0 or i == last + 1, f"{i} after {last}"
                assert last >= 0 or i <= self.acked + 1, f"{i} is the first, {self.acked} was acknowledged: a hole"
                last = i
                self.got.append(i)
                since += 1
                if since >= self.random.randint(1, 40):
                    web.post({"ack": {"n": item["n"]}})
                    self.acked, since = max(self.acked, i), 0
                if self.wanted is not None and i >= self.wanted:
                    self.done.set()
                if self.random.random() < 0.002:
                    break
        except Closed:
            pass
        except AssertionError as error:
            if "nothing came within" not in str(error):
                raise
        finally:
            try:
                web.abort()
            except Exception:  # a socket that the node's end has closed already
                pass


@pytest.mark.deadline(240)
def test_at_least_once_across_disconnects_and_kill9(make_node):
    node = make_node({"session.save_ms": "50ms", "session.save_count": 20}, keep_ports=True)
    consumer = Consumer(node, 1)
    consumer.start()
    numbers, stored = iter(range(10 ** 6)), []
    for round_ in range(4):
        web = Web(node)
        try:
            pending = []
            for _ in range(400):
                i = next(numbers)
                pending.append((i, web.request({"pub": {"topic": f"a/{i % 5}", "data": i}})))
                if len(pending) > 20:
                    first, number = pending.pop(0)
                    assert "ok" in web.answer(number)
                    stored.append(first)
            for first, number in pending:
                assert "ok" in web.answer(number)
                stored.append(first)
        finally:
            web.abort()
        if round_ < 3:
            node.kill9()
            node.restart()
    stored.append(next(numbers))
    consumer.wanted = stored[-1]
    publish(node, "a/0", str(stored[-1]).encode())
    assert consumer.done.wait(120), f"waited in vain for {stored[-1]}, {consumer.got[-1:]} came last"
    consumer.join(60)
    assert consumer.error is None, consumer.error
    assert sorted(set(consumer.got)) == stored, "each acknowledged publish was delivered"
    assert consumer.connections >= 4
