"""GET /v1/drops: who did not get what, and why."""

import json

from clients import Web, curl, publish
from mqtt_wire import UNSUBACK, Wire, publish as publish_packet, unsubscribe, user
from node import wait_until
from test_lag import order


def drops(node):
    return curl(node.api("/v1/drops")).json()


def test_who_did_not_get_what(make_node):
    node = make_node({"node.loops": 2, "log.partitions": 2, "limit.drops": 5,
                      "topics": json.dumps([{"filter": "short", "ttl_ms": "50ms"}])})
    assert drops(node) == {"drops": [], "evicted": 0}
    first = publish(node, "short", b"1").json()["pos"]
    last = publish(node, "short", b"2").json()["pos"]
    publish(node, "long", b"3")
    wait_until(lambda: curl(node.api("/v1/history/short")).json()["messages"] == [], "them to expire")
    with Wire(node, 5, "the client") as wire, Web(node) as web:
        wire.subscribe("#", props=user("tg-from", "earliest"))
        assert wire.message().topic == "long"
        web.subscribe("short", "earliest")
        web.next("live")
        told = {drop["name"]: drop for drop in drops(node)["drops"]}
        assert set(told) == {"the client", ""}
        for name, topic in (("the client", "#"), ("", "short")):
            drop = told[name]
            assert (drop["topic"], drop["why"], drop["count"]) == (topic, "expired", 2)
            assert (drop["from"], drop["to"]) == (first, last)
            assert 0 < drop["first"] <= drop["last"] and drop["session"].isdigit()
        assert told[""]["session"] != told["the client"]["session"]
        wire.send(unsubscribe(9, "#"))
        assert wire.expect(UNSUBACK)[3] == 0
        # There is an end to what is kept, a loop.
        for number in range(30):
            topic = f"gone/{number}"
            publish(node, topic, b"x", "-H", "Tidegate-Ttl-Ms: 1")
            wait_until(lambda: curl(node.api(f"/v1/history/{topic}")).json()["messages"] == [], "it to expire")
            web.subscribe(topic, "earliest")
            web.next("live")
    page = drops(node)
    assert 5 <= len(page["drops"]) <= 10 and page["evicted"] + len(page["drops"]) == 32
    assert node.metric("tidegate_messages_dropped_total", "expired") == 34
    assert curl(node.api("/v1/drops/x"), check=404)


def test_a_flood_is_one_entry(make_node):
    node = make_node({"out.bytes_max": 4096})
    with Wire(node, 5, "slow", receive_buffer=4096) as slow, Wire(node, 5, "filler") as filler:
        slow.subscribe(("flood", 0))
        while node.metric("tidegate_messages_dropped_total", "queue_full") < 1000:
            filler.send(publish_packet("flood", b"x" * 1000) * 200)
            end = filler.publish("sync", b"")
            assert end == 0
        filler.ping()
        entry, = drops(node)["drops"]
        assert (entry["name"], entry["topic"], entry["why"]) == ("slow", "flood", "queue_full")
        assert entry["count"] == node.metric("tidegate_messages_dropped_total", "queue_full")
        assert order(entry["from"]) < order(entry["to"])


def test_no_ledger(make_node):
    node = make_node({"limit.drops": 0})
    publish(node, "t", b"1", "-H", "Tidegate-Ttl-Ms: 1")
    wait_until(lambda: curl(node.api("/v1/history/t")).json()["messages"] == [], "it to expire")
    with Web(node) as web:
        web.subscribe("t", "earliest")
        web.next("live")
    assert drops(node) == {"drops": [], "evicted": 0}
    assert node.metric("tidegate_messages_dropped_total", "expired") == 1
