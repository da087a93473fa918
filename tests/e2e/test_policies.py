"""Topic policies: what the configuration says of the topics below a filter."""

import json
import subprocess

import pytest

from clients import Web, curl, history, publish
from mqtt_wire import Wire, publish as publish_packet
from node import PROGRAM, spans, wait_until
from test_sync import QUIET_S, disk  # noqa: F401 (a fixture)


def topics(*items):
    return {"topics": json.dumps(list(items))}


UNSTORED = topics({"filter": "cursor/#", "store": False}, {"filter": "cursor/never/reached", "store": True})


def test_what_is_not_stored(make_node):
    node = make_node(UNSTORED)
    with Web(node) as web, Wire(node, 5, "sub") as wire, Wire(node, 5, "pub") as speaker:
        web.subscribe("#")
        assert wire.subscribe("cursor/+") == b"\x01"
        kept = publish(node, "other", b"1").json()["pos"]
        assert publish(node, "cursor/1", b"by http").json() == {"topic": "cursor/1", "stored": False, "dup": False}
        assert web.ask({"pub": {"topic": "cursor/2", "text": "by ws"}})["ok"] == {"stored": False, "dup": False}
        assert speaker.publish("cursor/3", b"by mqtt") == 0
        assert web.next()["pos"] == kept
        got = [web.next() for _ in range(3)]
        assert [(m["topic"], m["text"], m["stored"]) for m in got] == [
            ("cursor/1", "by http", False), ("cursor/2", "by ws", False), ("cursor/3", "by mqtt", False)]
        assert all("pos" not in message and message["ts"] > 0 for message in got)
        assert [wire.message().payload for _ in range(3)] == [b"by http", b"by ws", b"by mqtt"]
        # The log knows nothing of it, and nothing can be retained there.
        assert history(node, "cursor/1") == []
        answer = publish(node, "cursor/1", b"x", "-H", "Tidegate-Retain: 1", check=501)
        assert answer.json()["code"] == "unsupported"
        publish(node, "cursor/1", b"x", "-H", "Tidegate-Retain: 1", "-H", "Tidegate-Wait: accepted", check=501)
        assert web.ask({"pub": {"topic": "cursor/1", "text": "x", "retain": True}})["err"]["code"] == "unsupported"
        speaker.send(publish_packet("cursor/1", b"x", 1, 9, flags=0x03))
        assert speaker.packet()[1][2:3] == b"\x83"
        assert speaker.publish("cursor/1", b"") == 0, "still there"
    assert node.metric("tidegate_messages_unstored_total") == 4
    assert node.metric("tidegate_messages_refused_total", "unsupported") == 4
    node.stop()
    node.restart()
    with Web(node) as web:
        assert web.subscribe("#", "earliest")["replay"] == 1


def test_who_has_just_subscribed_gets_what_is_not_stored(make_node):
    """Over several loops and partitions a subscription becomes live piece by piece."""
    node = make_node({**UNSTORED, "node.loops": 3, "log.partitions": 4})
    with Wire(node, 5, "pub") as speaker:
        for number in range(100):
            with Wire(node, 5, "sub") as wire:
                wire.subscribe("cursor/#")
                assert speaker.publish(f"cursor/{number % 7}", b"%d" % number) == 0
                assert wire.message().payload == b"%d" % number
    assert node.metric("tidegate_messages_dropped_total") == 0


def test_delivered_when_it_is_durable(make_node, disk):  # noqa: F811
    node = make_node(topics({"filter": "pay/#", "deliver": "durable"}), environment=disk.environment)
    with Web(node) as web, Web(node) as late, Web(node) as sender:
        web.subscribe("#")
        publish(node, "pay/1", b"first")
        assert web.next()["text"] == "first"
        disk.hold()
        try:
            sender.post({"pub": {"topic": "now/1", "text": "before"}})
            assert web.next()["text"] == "before"
            sender.post({"pub": {"topic": "pay/1", "text": "held"}})
            sender.post({"pub": {"topic": "now/1", "text": "behind"}})
            wait_until(disk.is_held, "the disk to be held")
            with pytest.raises(AssertionError, match="nothing came"):
                web.event(QUIET_S)
            assert [m["text"] for m in history(node, "pay/1")] == ["first"]
            assert late.subscribe("#", "earliest")["replay"] == 2
            assert [late.next()["text"] for _ in range(2)] == ["first", "before"]
            assert "live" in late.event()
        finally:
            disk.release()
        for reader in (web, late):
            assert [reader.next()["text"] for _ in range(2)] == ["held", "behind"]
    assert [m["text"] for m in history(node, "pay/1")] == ["first", "held"]


def test_a_topic_gives_messages_an_end(make_node):
    node = make_node({**topics({"filter": "short/#", "ttl_ms": "500ms"}, {"filter": "hours/#", "ttl_ms": "2h"}), "log.partitions": 1})
    with Wire(node, 5, "sub") as wire:
        wire.subscribe("hours/#")
        publish(node, "hours/1", b"none")
        publish(node, "hours/1", b"long", "-H", "Tidegate-Ttl-Ms: 36000000")
        publish(node, "hours/1", b"short", "-H", "Tidegate-Ttl-Ms: 3600000")
        expiry = [wire.message().props[:5] for _ in range(3)]
        assert all(props[0] == 2 for props in expiry)
        assert all(hours * 3600 - 60 <= int.from_bytes(props[1:], "big") <= hours * 3600 for props, hours in zip(expiry, (2, 2, 1)))
    publish(node, "short/1", b"none")
    publish(node, "short/1", b"long", "-H", "Tidegate-Ttl-Ms: 3600000")
    publish(node, "long/1", b"long", "-H", "Tidegate-Ttl-Ms: 3600000")
    publish(node, "short/1", b"kept", "-H", "Tidegate-Retain: 1")
    wait_until(lambda: not history(node, "short/1"), "them to expire")
    assert curl(node.api("/v1/retained/short/1")).json()["messages"] == []
    assert len(history(node, "long/1")) == 1
    with Web(node) as web:
        web.subscribe("#", "earliest")
        gap = web.next("gap")
        assert gap["why"] == "expired" and gap["count"] == 2 and gap["topic"] == "#"
        assert web.next()["topic"] == "long/1"
        gap = web.event()["gap"]
        assert gap["why"] == "expired" and gap["count"] == 1 and gap["from"] == gap["to"]
        assert "live" in web.event()
    assert node.metric("tidegate_messages_dropped_total", "expired") == 3


@spans(1, 4, 15)
def test_a_topic_has_no_past_beyond_its_age(make_node, span):
    node = make_node(topics({"filter": "recent/+", "retention_ms": f"{span}s"}))
    publish(node, "recent/1", b"old", "-H", "Tidegate-Retain: 1")
    publish(node, "other/1", b"stays")

    def gone():
        return history(node, "recent/1") == []

    wait_until(gone, "it to be too old")
    new = publish(node, "recent/1", b"new").json()["pos"]
    with Web(node) as web:
        assert [m["pos"] for m in history(node, "recent/1")] == [new]
        for start in ("earliest", {"last": 5}, {"time": 1}):
            page = web.ask({"get": {"topic": "recent/1", "from": start}})["ok"]["messages"]
            assert [m["pos"] for m in page] == [new]
        web.subscribe("#", "earliest")
        assert [web.next()["topic"] for _ in range(2)] == ["other/1", "recent/1"]
        assert "live" in web.event()
        # What is retained is the topic's state, not its past.
        web.subscribe("recent/+")
        assert web.next()["text"] == "old"
    assert node.metric("tidegate_messages_dropped_total", "retention") == 1


def run(*arguments, environment=()):
    return subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, timeout=30, env=dict(environment))


def test_the_configuration_of_topics(tmp_path):
    path = tmp_path / "tidegate.yaml"
    path.write_text("topics:\n  - filter: a/#\n    ttl_ms: 5s\n  - filter: b\n    store: no\n")
    shown = run("config", "show", "--config", path).stdout
    assert "topics:\n  - filter: \"a/#\"\n    store: true\n    deliver: now\n    ttl_ms: 5s\n" in shown
    again = tmp_path / "again.yaml"
    again.write_text(shown)
    assert run("config", "show", "--config", again).stdout == shown
    one_line = '[{filter: "a/#", ttl_ms: 5s}, {filter: b, store: no}]'
    assert run("config", "show", "--set", f"topics={one_line}").stdout == shown
    assert run("config", "show", environment={"TIDEGATE_TOPICS": one_line}).stdout == shown
    for text, line, what in (
            ("topics:\n  - filter: a\n    stor: no\n", 3, 'did you mean "store"'),
            ("topics:\n  - filter: a/#/b\n", 2, "must be a topic filter"),
            ("topics:\n  - store: no\n", 2, "must be a topic filter"),
            ("topics:\n  - filter: a\n    store: no\n    deliver: durable\n", 2, "exclude each other"),
            ("topics:\n  - filter: a\n    store: no\n    retention_ms: 1s\n", 2, "leaves nothing"),
            ("topics:\n  - filter: a\n    deliver: later\n", 3, "now, durable")):
        path.write_text(text)
        checked = run("config", "check", "--config", path)
        assert checked.returncode == 78
        assert f"{path}:{line}: " in checked.stderr and what in checked.stderr, checked.stderr
