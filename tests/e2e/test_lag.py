"""limit.lag_messages: who falls too far behind goes on nearer to the present, and every message it missed is told or
at least counted."""

import json

from clients import publish
from mqtt_wire import BYE, PUBACK, Wire, puback, publish as publish_packet
from node import wait_until
from test_limits import StoppedWeb
from test_mqtt_sessions import keep, present

LIMIT = 1000
SETTINGS = {"limit.lag_messages": LIMIT, "out.bytes_max": 4096, "out.stall_ms": "60s", "limit.inflight": 20}


def order(position):
    return int(position.rsplit(".", 1)[1], 16)


def fill(node, count, size=2000):
    """Messages for the reader, each followed by one that is not for it; the last position of those for it."""
    with Wire(node, 5, "filler") as wire:
        for start in range(0, count, 50):
            wire.send((publish_packet("lag/yes", b"x" * size) + publish_packet("lag/no", b"y")) * 50)
            wire.publish("sync", b"")


def sent(node):
    return node.metric("tidegate_bytes_sent_total", "ws")


def test_a_stopped_reader(make_node):
    node = make_node(SETTINGS)
    slow = StoppedWeb(node, "lag/yes")
    total, before = 0, -1
    while sent(node) != before:  # until the sockets' buffers are full too
        before = sent(node)
        fill(node, 1000)
        total += 1000
    fill(node, 3000)
    total += 3000
    end = order(publish(node, "lag/yes", b"end").json()["pos"])
    got, gaps = [], []
    while not got or got[-1] != end:
        for line in slow.frame().split(b"\n"):
            item = json.loads(line)
            if "msg" in item:
                got.append(order(item["msg"]["pos"]))
            elif "gap" in item:
                gaps.append(item["gap"])
    slow.close()
    # A slow node may be behind before its reader stops, and then tells of that too; never for less than half the limit.
    assert gaps and {(gap["why"], gap["topic"]) for gap in gaps} == {("lag", "lag/yes")}
    missed = [(order(gap["from"]), order(gap["to"])) for gap in gaps]
    assert all(last - first + 1 >= LIMIT // 2 for first, last in missed)
    assert len(got) + sum(gap["count"] for gap in gaps) == total + 1, "all are there or counted"
    assert got == sorted(set(got))
    assert not [place for place in got for first, last in missed if first <= place <= last]
    assert end - missed[-1][1] <= LIMIT
    assert node.metric("tidegate_messages_dropped_total", "lag") == sum(gap["count"] for gap in gaps)


def test_mqtt_is_counted(make_node):
    node = make_node(SETTINGS)
    with Wire(node, 5, "slow") as slow, Wire(node, 5, "filler") as filler:
        slow.subscribe("lag/yes")
        numbers = []
        total = 2000
        for number in range(total):
            assert filler.publish("lag/yes", b"%d" % number) == 0
        while not numbers or numbers[-1] != total - 1:
            message = slow.message()
            numbers.append(int(message.payload))
            slow.send(puback(message.number))
        assert numbers == sorted(set(numbers)) and len(numbers) < total
        wait_until(lambda: node.metric("tidegate_messages_unacknowledged") == 0, "the acknowledgements to arrive")
        assert node.metric("tidegate_messages_dropped_total", "lag") == total - len(numbers)
        assert node.metric("tidegate_messages_delivered_total", "mqtt") == len(numbers)
    assert node.metric("tidegate_messages_offered_total") == total


def test_what_a_session_missed_while_it_was_away(make_node):
    """It has asked for no replay: the limit counts from where it was."""
    node = make_node(SETTINGS)
    with keep(node, 5, "away") as wire:
        assert wire.subscribe("lag/yes") == b"\x01"
        wire.send(BYE)
        assert wire.rest() == b""
    total = 3000
    with Wire(node, 5, "filler") as filler:
        for start in range(0, total, 100):
            filler.send(b"".join(publish_packet("lag/yes", b"%d" % number, qos=1, number=1 + number - start)
                                 for number in range(start, start + 100)))
            for _ in range(100):
                filler.expect(PUBACK)
    with keep(node, 5, "away") as wire:
        assert present(wire)
        numbers = []
        while not numbers or numbers[-1] != total - 1:
            message = wire.message()
            numbers.append(int(message.payload))
            if message.number:
                wire.send(puback(message.number))
        assert numbers == list(range(numbers[0], total)) and len(numbers) <= LIMIT
        wait_until(lambda: node.metric("tidegate_messages_dropped_total", "lag") == total - len(numbers), "the count")
