"""Acknowledgements, window and credit of WebSockets (PROTOCOL.md 1)."""

import json

import pytest

from clients import Web, publish
from node import wait_until

COUNT = 200


def text_bytes(item):
    """What the window counts: the object's text as it came."""
    return len(item.raw)


def fill(node, topic, count=COUNT, size=10):
    with Web(node) as web:
        for number in [web.request({"pub": {"topic": topic, "data": {"i": i, "fill": "x" * size}}})
                       for i in range(count)]:
            assert "ok" in web.answer(number)


def quiet(web):
    """All that has been sent so far has come: a request is answered behind it. What came, but for answers."""
    number = web.request({"hello": {}})
    came = []
    while True:
        item = web.event()
        if item.get("id") == number:
            return came
        if "id" not in item:
            came.append(item)


def messages(items):
    return [item for item in items if "msg" in item]


def numbers(items):
    return [item["msg"]["data"]["i"] for item in messages(items)]


def take(web, count):
    return [web.next_item("msg") for _ in range(count)]


def test_numbers_stand_outside_and_count_a_connection(node):
    fill(node, "a/1", 3)
    with Web(node) as web:
        web.subscribe("a/+", "earliest", ack=True)
        web.subscribe("a/1", "earliest", ack=True)
        web.subscribe("#", "earliest")
        came = take(web, 9)
        numbered = [item for item in came if "n" in item]
        assert [item["n"] for item in numbered] == list(range(1, 7))
        assert sorted(item.get("sub", "") for item in numbered) == [""] * 3 + ["a/+"] * 3
        assert all(item.get("sub") == "#" for item in came if "n" not in item)
        assert all("n" not in item["msg"] for item in came)
        web.post({"ack": {"n": 6}})
        assert all("live" in item for item in quiet(web)), "no answer"


def test_an_acknowledgement_beyond_what_was_sent_is_refused(node):
    fill(node, "a", 2)
    with Web(node) as web:
        web.subscribe("a", "earliest", ack=True)
        take(web, 2)
        for n in (3, 2 ** 53 - 1):
            web.post({"ack": {"n": n}})
            assert web.next("err")["code"] == "bad_request"
        for n in (2, 2, 1, 0):  # all harmless: acknowledged already
            web.post({"ack": {"n": n}})
        assert messages(quiet(web)) == []


@pytest.mark.parametrize("live", [False, True], ids=["replay", "live"])
def test_a_window_of_messages_is_never_exceeded(node, live):
    if not live:
        fill(node, "a")
    with Web(node, hello={"window": {"msgs": 10}}) as web:
        web.subscribe("a", "earliest", ack=True)
        if live:
            fill(node, "a")
        open_, got = 0, []
        while len(got) < COUNT:
            item = web.next_item("msg")
            got.append(item["msg"]["data"]["i"])
            open_ += 1
            assert open_ <= 10, "the window is exceeded"
            if open_ == 10:
                assert messages(quiet(web)) == [], "the window is exceeded"
                web.post({"ack": {"n": item["n"]}})
                open_ = 0
        assert got == list(range(COUNT)), "each one once, in order"


def test_a_window_of_bytes_is_never_exceeded(node):
    fill(node, "a", COUNT, size=100)
    with Web(node, hello={"window": {"bytes": 2000}}) as web:
        web.subscribe("a", "earliest", ack=True)
        got, open_ = [], 0
        while len(got) < COUNT:
            batch = messages(quiet(web))
            if not batch:
                continue
            got += numbers(batch)
            open_ += sum(map(text_bytes, batch))
            assert open_ <= 2000, "the window is exceeded"
            if open_ > 1700:
                web.post({"ack": {"n": batch[-1]["n"]}})
                open_ = 0
        assert got == list(range(COUNT))


def test_a_full_window_admits_one_larger_message(node):
    publish(node, "a", json.dumps({"i": 0, "fill": "x" * 5000}).encode())
    publish(node, "a", json.dumps({"i": 1, "fill": "x" * 5000}).encode())
    with Web(node, hello={"window": {"msgs": 100, "bytes": 1000}}) as web:
        web.subscribe("a", "earliest", ack=True)
        first = web.next_item("msg")
        assert messages(quiet(web)) == []
        web.post({"ack": {"n": first["n"]}})
        assert web.next_item("msg")["n"] == 2


def test_credit_is_for_what_has_no_number(node):
    fill(node, "a", 30)
    with Web(node, hello={"window": {"msgs": 5}}) as web:
        web.subscribe("a", "earliest")
        assert numbers(take(web, 5)) == list(range(5))
        assert messages(quiet(web)) == []
        web.post({"ack": {"n": 0}})
        web.post({"credit": {"bytes": 10 ** 6}})  # of what is not bounded: no use, no harm
        assert messages(quiet(web)) == []
        web.post({"credit": {"msgs": 7}})
        assert numbers(take(web, 7)) == list(range(5, 12))
        assert messages(quiet(web)) == []
        web.post({"credit": {"msgs": 100}})
        assert numbers(take(web, 18)) == list(range(12, 30))


def test_the_window_is_shared_by_all_subscriptions(node):
    with Web(node, hello={"window": {"msgs": 4}}) as web:
        web.subscribe("a", ack=True)
        web.subscribe("+")
        fill(node, "a", 10)
        took = 0
        got = {"a": [], "+": []}
        while len(got["a"]) + len(got["+"]) < 20:
            item = web.next_item("msg")
            took += 1
            assert took <= 4
            got[item.get("sub", "a")].append(item["msg"]["data"]["i"])
            took -= 1
            web.post({"ack": {"n": item["n"]}} if "n" in item else {"credit": {"msgs": 1}})
        assert got == {"a": list(range(10)), "+": list(range(10))}


def test_a_window_of_nothing_waits_for_credit(node):
    with Web(node, hello={"window": {"msgs": 0}}) as web:
        web.subscribe("a")
        fill(node, "a", 3)
        assert messages(quiet(web)) == []
        web.post({"credit": {"msgs": 3}})
        assert numbers(take(web, 3)) == [0, 1, 2]


def test_retained_messages_count_too(node):
    for i in range(5):
        publish(node, f"r/{i}", json.dumps({"i": i}).encode(), "-H", "Tidegate-Retain: 1")
    with Web(node, hello={"window": {"msgs": 2}}) as web:
        web.subscribe("r/+", ack=True)
        got = []
        while len(got) < 5:
            item = web.next_item("msg")
            assert item["msg"]["retained"]
            got.append(item["msg"]["data"]["i"])
            assert len(got) % 2 == 1 or messages(quiet(web)) == []
            if len(got) % 2 == 0:
                web.post({"ack": {"n": item["n"]}})
        assert got == list(range(5))


HOSTILE = [{"credit": {"msgs": 2 ** 53 - 1}}, {"credit": {"msgs": 2 ** 53}}, {"credit": {"msgs": -1}},
           {"credit": {"bytes": 2 ** 64}}, {"credit": {"msgs": 1e3}}, {"credit": []}, {"credit": {}}, {"ack": {"n": -1}},
           {"ack": {"n": 2 ** 63}}, {"ack": {"n": "1"}}, {"ack": {}}, {"ack": [1]}]


@pytest.mark.parametrize("item", HOSTILE, ids=json.dumps)
def test_hostile_numbers(node, item):
    with Web(node, hello={"window": {"msgs": 5}}) as web:
        web.post(item)
        assert web.next("err")["code"] == "bad_request"
        web.subscribe("a")
        fill(node, "a", 6)
        assert numbers(take(web, 5)) == list(range(5))
        assert messages(quiet(web)) == [], "the window is what it was"


def test_a_window_comes_once(node):
    with Web(node, hello={"window": {"msgs": 5}}) as web:
        assert web.ask({"hello": {"window": {"msgs": 6}}})["err"]["code"] == "conflict"
        assert "ok" in web.ask({"hello": {}})


def test_unsubscribing_leaves_the_credit_to_acknowledge(node):
    fill(node, "a", 10)
    with Web(node, hello={"window": {"msgs": 5}}) as web:
        web.subscribe("a", "earliest", ack=True)
        take(web, 5)
        assert "ok" in web.ask({"unsub": {"topic": "a"}})
        web.subscribe("a", "earliest", ack=True)
        assert messages(quiet(web)) == []
        web.post({"ack": {"n": 5}})
        assert [item["n"] for item in take(web, 5)] == [6, 7, 8, 9, 10]


def test_unacknowledged_messages_are_bounded(make_node):
    node = make_node({"limit.ws_unacked": 20})
    fill(node, "a")
    with Web(node) as web:
        web.subscribe("a", "earliest", ack=True)
        got = []
        while len(got) < COUNT:
            batch = take(web, 20)
            assert messages(quiet(web)) == []
            assert node.metric('tidegate_messages_unacknowledged{proto="ws"}') == 20
            got += numbers(batch)
            web.post({"ack": {"n": batch[-1]["n"]}})
        assert got == list(range(COUNT))
        fill(node, "a", 5)
        take(web, 5)
    wait_until(lambda: node.metric('tidegate_messages_unacknowledged{proto="ws"}') == 0, "nothing open")


def test_a_client_that_never_acknowledges_costs_bounded_memory(make_node):
    """It reads everything and acknowledges nothing: only a place in the log remains of what it has not got."""
    node = make_node({"limit.ws_unacked": 100})
    with Web(node) as web:
        web.subscribe("a/#", "live", ack=True)
        for _ in range(5):
            fill(node, "a/b", 500, size=1000)
        take(web, 100)
        assert messages(quiet(web)) == []
        assert node.metric("tidegate_outbound_queue_bytes") == 0
        assert node.metrics()["tidegate_subscriptions_behind"] == 1
        web.post({"ack": {"n": 100}})
        assert [item["n"] for item in take(web, 100)] == list(range(101, 201))
