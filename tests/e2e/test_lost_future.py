"""A folder that was put back by hand to an older state: whoever has seen what the log lost is told so, and is never
served from a place that means something else now."""

import shutil

import pytest

from clients import Web, curl, history, publish
from mqtt_wire import Wire, user
from node import wait_until
from tokens import make


def order(position):
    return int(position.rsplit(".", 1)[1], 16)


def put_back(node):
    """The node as it was after three messages, and the positions of the three that it has lost."""
    kept = [publish(node, "t/1", b"kept").json()["pos"] for _ in range(3)]
    node.stop()
    copy = node.data.with_name("copy")
    shutil.copytree(node.data, copy)
    node.restart()
    lost = [publish(node, "t/1", b"lost").json()["pos"] for _ in range(8)]
    with Web(node) as web:
        place = web.subscribe("t/+")["pos"]
    node.stop()
    shutil.rmtree(node.data)
    copy.rename(node.data)
    node.restart()
    return kept, lost, place


def test_a_position_of_a_lost_future(node):
    kept, lost, place = put_back(node)
    for start in (lost[-1], place):
        for more in ("", "&reverse=1"):
            error = curl(node.api(f"/v1/history/t/1?from={start}{more}"), check=410).json()
            assert error["code"] == "position_gone"
            assert [m["pos"] for m in history(node, "t/1", error["earliest"])] == kept
        assert curl(node.api(f"/v1/retained/t/1?from={start}"), check=410).json()["code"] == "position_gone"
        with Web(node) as web:
            for reverse in (False, True):
                query = {"topic": "t/1", "from": {"after": [start]}, "reverse": reverse}
                assert web.ask({"get": query})["err"]["code"] == "position_gone"
    with Web(node) as web, Wire(node, 5, "mqtt") as wire:
        for topic in ("t/1", "t/+"):
            ok = web.subscribe(topic, {"after": [lost[-1]]})
            gap = web.next("gap")
            assert gap["why"] == "epoch" and gap["topic"] == topic and ok["replay"] == 0
            assert order(gap["to"]) == order(lost[-1])
            assert gap["count"] == 1, "nobody knows how many they were"
            assert "live" in web.event()
        assert wire.subscribe("t/1", props=user("tg-from", lost[-1])) == b"\x01"
        new = publish(node, "t/1", b"new").json()["pos"]
        assert order(new) == order(gap["from"]), "from the end on"
        assert [web.next()["pos"] for _ in range(2)] == [new, new]
        assert wire.message().payload == b"new"
    # What lies below the end is nobody's loss.
    with Web(node) as web:
        assert web.subscribe("t/1", {"after": [kept[-1]]})["replay"] == 1
        assert web.next()["pos"] == new


def lost(node, topic):
    """Positions that this log does not have: right behind its end, and far behind it."""
    lane, last = publish(node, topic, b"0").json()["pos"].rsplit(".", 1)
    return f"{lane}.{int(last, 16) + 64:016x}", f"{lane}.{2**63 - 1:016x}"


def replayed(web):
    """Positions of what comes until `live`; a gap is none."""
    items = []
    while "live" not in (item := web.event()):
        items += [] if "id" in item else [item]
    return [item["msg"]["pos"] for item in items]


@pytest.mark.parametrize("far", [0, 1])
def test_what_comes_after_a_lost_future_is_owed(make_node, far):
    """Whoever resumed behind the end of the log is told so once; from then on his session is as any other."""
    node = make_node({"session.save_ms": "20ms"})
    with Web(node, hello={}) as web:
        web.subscribe("t/1", ack=True)
        token = web.hello["session"]
        web.abort()
    with Web(node, hello={"session": token, "after": {"t/1": [lost(node, "t/1")[far]]}}) as web:
        assert web.hello["resumed"] and web.next("gap")["why"] == "epoch"
        web.next_item("live")
        sent = [publish(node, "t/1", data).json()["pos"] for data in (b"1", b"2", b"3")]
        came = [web.next_item("msg") for _ in range(3)]
        assert [item["msg"]["pos"] for item in came] == sent
        web.post({"ack": {"n": 1}})
        web.abort()
    with Web(node, hello={"session": token}) as web:
        assert web.hello["resumed"] and replayed(web) == sent[1:]


def test_an_inbox_is_not_read_into_a_lost_future(node):
    """What his devices have acknowledged is all that counts as seen by the user, wherever one of them began."""
    def send(text):
        return curl(node.api("/v1/users/ann/messages"), data=text).json()["pos"]

    hello = {"token": make(node, "ann"), "inbox": True}
    lane, last = send(b"0").rsplit(".", 1)
    beyond = f"{lane}.{int(last, 16) + 4096:016x}"
    with Web(node, hello={**hello, "after": {"$user/ann/#": [beyond]}}) as web:
        assert web.next("gap")["why"] == "epoch"
        sent = [send(text) for text in (b"1", b"2")]
        assert [web.next_item("msg")["n"] for _ in sent] == [1, 2]
        web.post({"ack": {"n": 1}})
        wait_until(lambda: curl(node.api("/v1/users/ann")).json()["inbox"] == {"pos": sent[0], "unread": 1},
                   "the cursor at what was acknowledged")
    with Web(node, hello=hello) as web:
        assert replayed(web) == sent[1:]
