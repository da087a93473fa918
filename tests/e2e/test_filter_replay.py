"""Replays of filters with wildcards: by the lists of their topics where these are few, and what they bring is the same."""

import pytest

from clients import Web, curl
from mqtt_wire import Wire, user


def batch(node, topics):
    lines = "".join(f'{{"topic":"{topic}","text":"{number}"}}\n' for number, topic in enumerate(topics))
    fields = ("-H", "Content-Type: application/x-ndjson")
    assert curl(node.api("/v1/publish"), "-X", "POST", *fields, data=lines.encode()).json()["failed"] == 0


def replay(node, text):
    """(topics that come before `live`, what `ok` said would come)"""
    with Web(node) as web:
        ok = web.subscribe(text, "earliest")
        topics = []
        while (item := web.event()) and "live" not in item:
            if "msg" in item:  # else the answer, in its place
                topics.append(item["msg"]["topic"])
        return topics, ok["replay"]


@pytest.mark.parametrize("names", ["16M", 0])
def test_few_topics_among_many(make_node, names):
    node = make_node({"log.names_bytes": names, "log.partitions": 1, "log.segment_bytes": 65536})
    often, rare = [f"often/{number % 40}" for number in range(900)], ["rare/a", "rare/b"]
    batch(node, often[:500] + rare + often[500:])
    assert replay(node, "rare/+") == (rare, 2)
    assert replay(node, "rare/+") == (rare, 2)
    # New names among what has come since.
    batch(node, ["rare/c"] + often + ["rare/a"])
    assert replay(node, "rare/#") == ([*rare, "rare/c", "rare/a"], 4)
    assert replay(node, "rare/+") == ([*rare, "rare/c", "rare/a"], 4)
    assert replay(node, "+/7")[0] == [topic for topic in often + often if topic == "often/7"]
    assert len(replay(node, "#")[0]) == 1804
    by_lists = node.metric("tidegate_log_filter_records_total", "lists")
    assert (by_lists > 1000) == bool(names)
    assert (node.metric("tidegate_log_names_bytes") > 0) == bool(names)
    with Wire(node) as wire:
        wire.subscribe("rare/+", props=user("tg-from", "earliest"))
        assert [wire.message().topic for _ in range(4)] == [*rare, "rare/c", "rare/a"]
        wire.ping()
    node.kill9()
    node.restart()
    for _ in range(2):
        assert replay(node, "rare/+") == ([*rare, "rare/c", "rare/a"], 4)
