"""Once, when asked: a publish that carries a producer and a sequence, or an Idempotency-Key, is stored once however
often it is sent, at whatever door, across kill -9 and across retention."""

import random
import threading
import time

import pytest

from clients import MosquittoSub, Web, curl, history, need, publish
from log_tool import log
from mqtt_wire import Wire, publish as publish_packet, user
from node import wait_until
from test_policies import topics
from test_retention import SETTINGS, turn_over
from test_sync import disk  # noqa: F401 (a fixture)

CONFLICT = 0x83


def web_put(web, topic, producer, seq, data=1):
    return web.ask({"pub": {"topic": topic, "data": data, "producer": producer, "seq": seq}})


def mqtt_props(producer, seq):
    return user("tg-producer", producer) + user("tg-seq", str(seq))


def with_key(node, topic, key, data, *arguments, check=200):
    return publish(node, topic, data, "-H", f"Idempotency-Key: {key}", *arguments, check=check).json()


def values(node, topic):
    return [int(message.get("text", message.get("data"))) for message in history(node, topic)]


def counted(node):
    """received = stored + duplicate + refused + open"""
    received, stored, duplicates, refused, open_now = (node.metric(f"tidegate_{name}") for name in (
        "messages_received_total", "messages_stored_total", "duplicates_total", "messages_refused_total", "publishes_open"))
    assert received == stored + duplicates + refused + open_now
    return int(duplicates)


# --- each door -------------------------------------------------------------------------------------------------

def test_websocket(node):
    with Web(node) as web:
        assert "producer" in web.ask({"hello": {}})["ok"]["features"]
        first = web_put(web, "a", "p", 17)["ok"]
        assert first["dup"] is False
        assert web_put(web, "a", "p", 17, data=2)["ok"] == {"pos": first["pos"], "dup": True}
        assert web_put(web, "a", "p", 3)["ok"]["dup"] is False, "late ones are legal"
        assert web_put(web, "a", "q", 17)["ok"]["dup"] is False
        assert web_put(web, "b", "p", 17)["err"]["code"] == "conflict"
        web.post({"pub": {"topic": "a", "data": 1, "producer": "p", "seq": 17}})  # without id: no answer, nothing stored
        web.post({"pub": {"topic": "b", "data": 1, "producer": "p", "seq": 17}})
        assert web.next("err")["code"] == "conflict"
    assert [message["data"] for message in history(node, "a")] == [1, 1, 1]
    assert all(set(message) == {"topic", "pos", "ts", "data"} for message in history(node, "a"))
    assert history(node, "b") == []
    assert counted(node) == 2 and node.metric("tidegate_messages_refused_total", "conflict") == 2


def test_mqtt(node):
    wire = Wire(node)
    assert wire.publish("a", b"1", 1, mqtt_props("p", 9007199254740991)) == 0
    assert wire.publish("a", b"1", 2, mqtt_props("p", 9007199254740991)) == 0
    assert wire.publish("b", b"1", 3, mqtt_props("p", 9007199254740991)) == CONFLICT
    for bad in (user("tg-producer", "p"), user("tg-seq", "1"), mqtt_props("", 1), mqtt_props("p", -1), mqtt_props("p", "01"),
                mqtt_props("p", 1 << 53), mqtt_props("p" * 256, 1), mqtt_props("p", "")):
        assert wire.publish("a", b"1", 4, bad) == CONFLICT, bad
    wire.publish("a", b"2", 5, user("own", "x") + mqtt_props("p", 1))
    assert [(message["text"], message.get("props")) for message in history(node, "a")] == [("1", None), ("2", {"own": "x"})]
    assert counted(node) == 1
    wire.close()


def test_mqtt_qos_0(node):
    wire = Wire(node)
    for _ in range(3):
        wire.send(publish_packet("a", b"1", props=mqtt_props("p", 1)))
    wire.publish("a", b"2", 1)
    assert values(node, "a") == [1, 2]
    assert counted(node) == 2
    wire.close()


def test_mqtt_identity_given_twice_is_a_protocol_error(node):
    wire = Wire(node)
    wire.send(publish_packet("a", b"1", 1, 7, props=mqtt_props("p", 1) + user("tg-seq", "2")))
    assert wire.disconnect_code() == 0x82
    wire.close()


def test_http(node):
    assert "publish.idempotency_key" in curl(node.api("/v1/capabilities")).json()["features"]
    first = with_key(node, "a", "k", b"1")
    assert first["dup"] is False
    again = {**first, "dup": True}
    assert with_key(node, "a", "k", b"1") == again
    assert with_key(node, "a", '"k"', b"1") == again, "quoted = unquoted"
    assert with_key(node, "a", "k", b"1", "-H", "Tidegate-Wait: accepted") == again
    assert with_key(node, "a", "k", b"1", "-H", "Tidegate-Ttl-Ms: 1000") == again
    assert with_key(node, "b", "k", b"2")["dup"] is False, "a key is one topic's"
    for other in ([b"2"], [b"1", "-H", "Content-Type: application/json"], [b"1", "-H", "Tidegate-Key: x"],
                  [b"1", "-H", "Tidegate-Retain: 1"]):
        problem = with_key(node, "a", "k", *other, check=422)
        assert problem["code"] == "conflict" and problem["title"] == "Unprocessable Content"
    for bad in ('""', '"k', "k" * 256):
        assert with_key(node, "a", bad, b"1", check=400)["code"] == "bad_request"
    assert len(history(node, "a")) == 1 and len(history(node, "b")) == 1
    assert counted(node) == 4 and node.metric("tidegate_messages_refused_total", "conflict") == 4


def test_a_key_may_be_the_longest(node):
    assert with_key(node, "a", "k" * 255, b"1")["dup"] is False
    assert with_key(node, "a", '"' + "k" * 255 + '"', b"1")["dup"] is True


def test_a_duplicate_is_not_delivered_and_not_retained_again(node):
    with MosquittoSub(node, "a") as sub, Web(node) as web:
        for _ in range(3):
            web.ask({"pub": {"topic": "a", "data": 1, "producer": "p", "seq": 1, "retain": True}})
        web.ask({"pub": {"topic": "a", "data": 2, "retain": True}})
        web.ask({"pub": {"topic": "a", "data": 1, "producer": "p", "seq": 1, "retain": True}})
        web.ask({"pub": {"topic": "a", "data": 3}})
        assert [sub.next()[1] for _ in range(3)] == [b"1", b"2", b"3"]
    assert curl(node.api("/v1/retained/a")).json()["messages"][0]["data"] == 2


def test_what_is_not_stored_cannot_be_stored_once(make_node):
    """Accepting the identity and not keeping it would be a promise that is not kept."""
    node = make_node(topics({"filter": "cursor/#", "store": False}))
    with Web(node) as web:
        assert web_put(web, "cursor/1", "p", 1)["err"]["code"] == "unsupported"
    wire = Wire(node)
    assert wire.publish("cursor/1", b"1", 1, mqtt_props("p", 1)) == 0x83
    wire.close()
    assert with_key(node, "cursor/1", "k", b"1", check=501)["code"] == "unsupported"


@pytest.mark.parametrize("settings", [{}, {"node.loops": 3, "log.partitions": 4}])
def test_retries_race_over_doors(make_node, settings):
    """The same identity at two doors and from many connections at once: one is stored, all have the same position."""
    node = make_node(settings)
    webs, wires = [Web(node) for _ in range(4)], [Wire(node) for _ in range(4)]
    for seq in range(30):
        topic = f"race/{seq % 5}"
        requests = [web.request({"pub": {"topic": topic, "data": seq, "producer": "p", "seq": seq}}) for web in webs]
        assert [wire.publish(topic, b"%d" % seq, 1, mqtt_props("p", seq)) for wire in wires] == [0] * 4
        answers = [web.answer(number)["ok"] for web, number in zip(webs, requests)]
        assert len({answer["pos"] for answer in answers}) == 1
        assert sum(not answer["dup"] for answer in answers) <= 1
    for topic in range(5):
        assert values(node, f"race/{topic}") == list(range(topic, 30, 5))
    assert counted(node) == 30 * 7
    for client in webs + wires:
        client.close()


def test_below_the_window_is_a_conflict(node):
    with Web(node) as web:
        numbers = [web.request({"pub": {"topic": "a", "data": n, "producer": "p", "seq": n}}) for n in range(1025)]
        assert not any(web.answer(number)["ok"]["dup"] for number in numbers)
        assert web_put(web, "a", "p", 1)["ok"]["dup"] is True
        assert web_put(web, "a", "p", 0)["err"]["code"] == "conflict"
    node.kill9()
    node.restart()
    with Web(node) as web:
        assert web_put(web, "a", "p", 1)["ok"]["dup"] is True
        assert web_put(web, "a", "p", 0)["err"]["code"] == "conflict"


# --- durable ---------------------------------------------------------------------------------------------------

def test_a_duplicate_is_answered_when_the_original_is_durable(make_node, disk):  # noqa: F811
    node = make_node(environment=disk.environment)
    web, other = Web(node), Web(node)
    disk.hold()
    first = web.request({"pub": {"topic": "a", "data": 1, "producer": "p", "seq": 1}})
    wait_until(disk.is_held, "a sync to be under way")
    again = other.request({"pub": {"topic": "a", "data": 1, "producer": "p", "seq": 1}})
    running = threading.Thread(target=publish, args=(node, "a", b"2", "-H", "Idempotency-Key: k"), daemon=True)
    running.start()
    # The node has taken it: a repetition of a key that still runs is told so.
    wait_until(lambda: node.metric("tidegate_messages_received_total", "http") == 1, "the key's first publish")
    problem = with_key(node, "a", "k", b"2", check=409)
    assert problem["code"] == "conflict" and problem["retry_ms"] > 0
    assert with_key(node, "a", "k", b"3", check=422)["code"] == "conflict"
    assert first not in web.answers and again not in other.answers, "answered before the original is durable"
    disk.release()
    position = web.answer(first)["ok"]["pos"]
    assert other.answer(again)["ok"] == {"pos": position, "dup": True}
    running.join()
    assert with_key(node, "a", "k", b"2")["dup"] is True
    assert len(history(node, "a")) == 2
    web.close(), other.close()


# --- kill -9 ---------------------------------------------------------------------------------------------------

class Stubborn(threading.Thread):
    """Publishes 0, 1, 2 ... to a topic and sends each again until it is acknowledged, whatever happens to the node."""

    def __init__(self, node, door, stop):
        super().__init__(daemon=True)
        self.node, self.door, self.stop = node, door, stop
        self.topic, self.acknowledged, self.client, self.faults = f"once/{door}", 0, None, []
        self.dups = 0

    def send_mqtt(self, n):
        self.client = self.client or Wire(self.node)
        code = self.client.publish(self.topic, b"%d" % n, 1, mqtt_props("by-mqtt", n))
        return None if code == 0 else f"PUBACK {code:#x}"

    def send_ws(self, n):
        self.client = self.client or Web(self.node)
        answer = web_put(self.client, self.topic, "by-ws", n, data=n)
        self.dups += answer.get("ok", {}).get("dup", False)
        return None if "ok" in answer else answer

    def send_http(self, n):
        answer = curl(self.node.api(f"/v1/publish/{self.topic}"), "-H", f"Idempotency-Key: n-{n}", data=b"%d" % n, check=None)
        if answer.status in (409, 503):
            raise ConnectionError("again")
        self.dups += answer.status == 200 and answer.json()["dup"]
        return None if answer.status == 200 else answer.body

    def run(self):
        while not self.stop.is_set():
            try:
                fault = getattr(self, f"send_{self.door}")(self.acknowledged)
            except Exception:  # the node is down, or was while this was under way: the same again
                self.drop()
                time.sleep(0.01)
                continue
            if fault:
                self.faults.append((self.acknowledged, fault))
                return
            self.acknowledged += 1
        self.drop()

    def drop(self):
        client, self.client = self.client, None
        try:
            if client:
                client.abort() if isinstance(client, Web) else client.close()
        except Exception:
            pass


@pytest.mark.deadline(240)
@pytest.mark.parametrize("settings", [{}, {"log.partitions": 3, "node.loops": 2}])
def test_kill_9_and_retries_until_acknowledged(make_node, settings):
    need("curl")
    node = make_node(settings, keep_ports=True)
    stop, dice = threading.Event(), random.Random(7)
    clients = [Stubborn(node, door, stop) for door in ("mqtt", "ws", "http")]
    for client in clients:
        client.start()
    for _ in range(8):
        before = [client.acknowledged for client in clients]
        wait_until(lambda: all(client.acknowledged > n + 3 or client.faults for client, n in zip(clients, before)),
                   "each client to go on")
        time.sleep(dice.uniform(0, 0.1))
        node.kill9()
        node.restart()
    stop.set()
    for client in clients:
        client.join(60)
        assert not client.faults, client.faults
        kept = values(node, client.topic)
        # The last one may have been stored without the client hearing of it.
        want = list(range(client.acknowledged))
        assert kept in (want, want + [client.acknowledged]), f"{client.door}: each exactly once, in order"


def test_a_restart_knows_what_is_stored(make_node):
    node = make_node({"log.partitions": 2})
    with Web(node) as web:
        first = [web_put(web, f"t/{n}", "p", n)["ok"]["pos"] for n in range(10)]
    key = with_key(node, "k", "key", b"1")
    for stop in (node.kill9, node.stop, node.kill9):
        stop()
        node.restart()
        with Web(node) as web:
            assert [web_put(web, f"t/{n}", "p", n)["ok"] for n in range(10)] == [
                {"pos": position, "dup": True} for position in first]
        assert with_key(node, "k", "key", b"1") == {**key, "dup": True}
        assert with_key(node, "k", "key", b"2", check=422)
        assert node.metric("tidegate_dedup_producers") >= 1 and node.metric("tidegate_dedup_keys") == 1


# --- retention and limits --------------------------------------------------------------------------------------

@pytest.mark.deadline(180)
def test_what_is_known_survives_the_segments_it_was_learnt_from(make_node):
    node = make_node(SETTINGS)
    with Web(node) as web:
        numbers = [web.request({"pub": {"topic": "a", "data": n, "producer": "p", "seq": n}}) for n in range(1100)]
        first = [web.answer(number)["ok"]["pos"] for number in numbers]
    key = with_key(node, "k", "key", b"1")
    for turn in range(2):  # the second time it is the notes that go
        turn_over(node, 2)
        assert history(node, "a") == [] and node.metric("tidegate_log_notes_total") > 0
        if turn == 0:
            node.kill9()
            node.restart()
        with Web(node) as web:
            for n in (76, 500, 1099):
                assert web_put(web, "a", "p", n)["ok"] == {"pos": first[n], "dup": True}
            assert web_put(web, "a", "p", 75)["err"]["code"] == "conflict"
            assert web_put(web, "b", "p", 500)["err"]["code"] == "conflict"
        assert with_key(node, "k", "key", b"1") == {**key, "dup": True}
        assert with_key(node, "k", "key", b"2", check=422)
    assert history(node, "a") == []


def test_over_the_limits_the_longest_idle_is_forgotten(make_node):
    node = make_node({"dedup.producers": 2, "dedup.max": 3})
    with Web(node) as web:
        for producer in "abc":
            web_put(web, "t", producer, 1)
        assert [web_put(web, "t", producer, 1)["ok"]["dup"] for producer in "cba"] == [True, True, False]
    for n in range(4):
        with_key(node, "t", f"k{n}", b"1")
    assert [with_key(node, "t", f"k{n}", b"1")["dup"] for n in (3, 2, 1, 0)] == [True, True, True, False]
    assert node.metric("tidegate_dedup_forgotten_total") == 4
    assert node.metric("tidegate_dedup_producers") == 2 and node.metric("tidegate_dedup_keys") == 3


def test_the_memory_is_limited(make_node):
    node = make_node({"dedup.bytes": "20K"})
    with Web(node) as web:
        numbers = [web.request({"pub": {"topic": "t", "data": 1, "producer": f"p{n}", "seq": 1}}) for n in range(300)]
        assert all("ok" in web.answer(number) for number in numbers)
        assert web_put(web, "t", "p299", 1)["ok"]["dup"] is True
    assert node.metric("tidegate_dedup_bytes") <= 20 << 10 and node.metric("tidegate_dedup_forgotten_total") > 0


def test_a_key_is_kept_for_its_time(make_node):
    node = make_node({"dedup.keep_ms": "1s"})
    with_key(node, "t", "k", b"1")
    wait_until(lambda: not with_key(node, "t", "k", b"1")["dup"], "the key to be forgotten")
    assert len(history(node, "t")) == 2


def test_an_exported_log_is_imported_with_what_it_knows(make_node, tmp_path):
    node = make_node()
    with Web(node) as web:
        web_put(web, "a", "p", 17)
    with_key(node, "a", "k", b"1")
    node.stop()
    file, copy = tmp_path / "export", tmp_path / "copy"
    file.write_text(log("export", data=node.data).out)
    assert "imported 2 messages" in log("import", file, data=copy).out
    other = make_node(data=copy)
    with Web(other) as web:
        assert web_put(web, "a", "p", 17)["ok"]["dup"] is True
    assert with_key(other, "a", "k", b"1")["dup"] is True
    assert with_key(other, "a", "k", b"2", check=422)
