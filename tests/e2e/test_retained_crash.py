"""A kept session that is walking over retained messages when its node is killed goes on where it was."""

import struct

import pytest

from clients import publish as api_publish
from mqtt_wire import PUBLISH, PUBREL, Message, Wire, puback, pubcomp, pubrec
from node import wait_until
from test_mqtt_qos2 import publish2
from test_mqtt_sessions import SPREAD, keep, present

COUNT, WINDOW, LIFE = 60, 8, 22


class Reader:
    """What one client has got, over its connections. Messages with QoS 2 count when they are released."""

    def __init__(self):
        self.got, self.received = [], {}

    def take(self, wire, count):
        """So many more are settled, as far as the client knows."""
        until = len(self.got) + count
        while len(self.got) < until and len(set(self.got)) < COUNT:
            first, body = wire.packet()
            if first >> 4 == PUBLISH:
                self.message(wire, Message(first, body, wire.version))
            else:
                assert first >> 4 == PUBREL, f"{first:02x} {body.hex()}"
                number, = struct.unpack_from(">H", body)
                if number in self.received:
                    self.got.append(self.received.pop(number))
                wire.send(pubcomp(number))

    def message(self, wire, message):
        assert message.retained and message.topic == "r/" + message.payload.decode()
        if message.qos == 1:
            self.got.append(message.payload)
            wire.send(puback(message.number))
            return
        # 4.3.3: the same identifier before PUBREL is the same message.
        assert self.received.setdefault(message.number, message.payload) == message.payload
        wire.send(pubrec(message.number))


def keep_retained(node, qos):
    """By the API it is QoS 1."""
    if qos == 1:
        for number in range(COUNT):
            api_publish(node, f"r/{number}", b"%d" % number, "-H", "Tidegate-Retain: 1")
        return
    with Wire(node, 5) as speaker:
        for number in range(COUNT):
            assert publish2(speaker, f"r/{number}", b"%d" % number, 1, flags=0x05) == (0, 0)


@pytest.mark.parametrize("qos, version, save_ms", [(1, 5, 50), (2, 5, 50), (2, 4, 600000)])
def test_a_walk_goes_on_after_kill_9(make_node, qos, version, save_ms):
    """None is missing. With QoS 2 none comes twice, whenever the record was written last; with QoS 1 what was acknowledged
    since then may, and no more: when the record is written the walk does not begin again."""
    node = make_node({**SPREAD, "limit.inflight": WINDOW, "session.save_ms": save_ms, "log.segment_bytes": "1M"})
    keep_retained(node, qos)
    reader, wire = Reader(), keep(node, version)
    wire.subscribe(("r/#", qos))
    lives = 0
    while True:
        reader.take(wire, LIFE)
        if len(set(reader.got)) == COUNT:
            break
        if qos == 1:
            writes = node.metric("tidegate_session_writes_total")
            wait_until(lambda: node.metric("tidegate_session_writes_total") > writes, "a record that knows of them")
        node.kill9()
        wire.close()
        node.restart()
        wire = keep(node, version)
        assert present(wire)
        lives += 1
        assert lives < 20, reader.got
    assert lives >= 2 and set(reader.got) == {b"%d" % number for number in range(COUNT)}
    assert len(reader.got) <= COUNT + (lives * (LIFE + WINDOW) if qos == 1 else 0)
    wire.close()
