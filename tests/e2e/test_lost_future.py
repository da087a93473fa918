"""A folder that was put back by hand to an older state: whoever has seen what the log lost is told so, and is never
served from a place that means something else now."""

import shutil

from clients import Web, curl, history, publish
from mqtt_wire import Wire, user


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
