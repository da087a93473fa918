"""What the server is as a client (MQTT-7.0.0-1): its bridges connect to a server by hand that looks at each byte."""

import json
import socket
import struct
import time

import pytest

from clients import WAIT_S, curl
from mqtt_wire import DISCONNECT, PUBACK, PUBLISH, Message, Wire, packet, puback, publish, read_varint, text
from node import wait_until

CONNECT, SUBSCRIBE, PINGREQ = 1, 8, 12
VERSIONS = pytest.mark.parametrize("version", [4, 5])
KEEP_ALIVE_S = 5  # the least that a bridge takes
OUT, IN = ({"filter": "#", "direction": "out", "local_prefix": "up/", "remote_prefix": "there/"},
           {"filter": "#", "direction": "in", "local_prefix": "down/", "remote_prefix": "orders/"})
BY_REQUEST = {CONNECT: 0x10, SUBSCRIBE: 0x82, PUBACK: 0x40, PINGREQ: 0xC0, DISCONNECT: 0xE0}


class Served(Wire):
    """A connection of the bridge's, from the server's side. Each packet is looked at when it is read."""

    def __init__(self, listener, version):
        self.version, self.kept, self.open = version, b"", set()
        self.socket, _ = listener.accept()
        self.socket.settimeout(WAIT_S)

    def packet(self):
        first, body = super().packet()
        kind = first >> 4
        if kind == PUBLISH:
            self.look_at_publish(first, body)
        else:
            assert first == BY_REQUEST.get(kind), f"{first:02x}: a packet that no client sends, or flags that are reserved (2.1.3)"
            # 2.2.3, 3.14: identifiers that are not 0; nothing behind what belongs there
            assert kind != PINGREQ or body == b""
            assert kind not in (SUBSCRIBE, PUBACK) or body[:2] != b"\0\0"
            assert kind != PUBACK or len(body) == 2 or self.version == 5
        return first, body

    def look_at_publish(self, first, body):
        message = Message(first, body, self.version)
        assert message.qos < 3 and (message.qos or not message.dup), f"{first:02x} (3.3.1.1, 3.3.1.2)"
        assert message.topic and not set("+#\0") & set(message.topic)  # 3.3.2.1
        assert not message.qos or message.number
        assert message.dup or message.number not in self.open, f"identifier {message.number} is in use (2.2.1-3)"
        if message.qos:
            self.open.add(message.number)

    def expect(self, kind):
        """Pings may come at any time."""
        while True:
            first, body = self.packet()
            if first >> 4 == kind:
                return body if kind != PUBLISH else Message(first, body, self.version)
            assert first >> 4 == PINGREQ, f"packet {first:02x} {body[:64].hex()} instead of type {kind}"
            self.send(b"\xd0\x00")

    def acknowledge(self, message):
        self.open.discard(message.number)
        self.send(puback(message.number))

    def connected(self, present=0, props=b""):
        self.connect = Asked(self.expect(CONNECT), self.version)
        self.send(packet(0x20, bytes([present, 0]) + (bytes([len(props)]) + props if self.version == 5 else b"")))
        return self

    def subscribed(self):
        """(filter, options) of its one filter"""
        body = self.expect(SUBSCRIBE)
        rest = body[3 + body[2]:] if self.version == 5 else body[2:]
        length, = struct.unpack_from(">H", rest)
        assert len(rest) == 3 + length, "one filter"
        self.send(packet(0x90, body[:2] + (b"\0" if self.version == 5 else b"") + b"\x01"))
        return rest[2:-1].decode(), rest[-1]


class Asked:
    """A CONNECT, read to its last byte."""

    def __init__(self, body, version):
        assert body[:8] == b"\0\x04MQTT" + bytes([version]) + body[7:8]
        self.flags, self.keep_alive = body[7], struct.unpack_from(">H", body, 8)[0]
        place = 10
        self.props = b""
        if version == 5:
            length, place = read_varint(body, place)
            self.props, place = body[place:place + length], place + length
        assert self.flags & 0x01 == 0, "the reserved flag (3.1.2.3)"
        assert self.flags & 0x3C == 0, "no will, and nothing of one (3.1.2.5 to 3.1.2.7)"
        self.texts = []
        for _ in range(1 + bool(self.flags & 0x80) + bool(self.flags & 0x40)):
            length, = struct.unpack_from(">H", body, place)
            self.texts.append(body[place + 2:place + 2 + length])
            place += 2 + length
        assert place == len(body), "nothing behind the payload (3.1.3)"


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(WAIT_S)
        yield listener


def several(doors, *topics, **more):
    """Settings of a node with a bridge to each of these servers."""
    bridges = [{"name": f"b{version}", "host": "127.0.0.1", "port": door.getsockname()[1], "version": {4: "3.1.1", 5: "5"}[version],
                "retry_min_ms": 20, "retry_max_ms": 100, **more} for version, door in doors.items()]
    return {"node.id": "n", "bridges": json.dumps(bridges),
            "bridge_topics": json.dumps([{"bridge": bridge["name"], **topic} for bridge in bridges for topic in topics])}


def bridged(make_node, listener, version, *topics, **more):
    return make_node(several({version: listener}, *topics, **more))


def tell(node, *numbers):
    for number in numbers:
        curl(node.api("/v1/publish/up/n"), data=b"%d" % number)


@VERSIONS
def test_connect_of_a_bridge(make_node, listener, tmp_path, version):
    (tmp_path / "secret").write_text("open sesame\n")
    bridged(make_node, listener, version, OUT, user="ali", password_file=str(tmp_path / "secret"), client_id="site", keep_alive_s=17,
            inflight=3)
    with Served(listener, version) as wire:
        wire.connected()
        # Clean Start 0, with user name and password, in this order (3.1.3); Session Expiry and Receive Maximum, each once
        assert wire.connect.flags == 0xC0 and wire.connect.keep_alive == 17
        assert wire.connect.texts == [b"site", b"ali", b"open sesame"]
        if version == 5:
            assert sorted((wire.connect.props[:5], wire.connect.props[-3:])) == [b"\x11\xff\xff\xff\xff", b"\x21\x00\x03"] or \
                sorted((wire.connect.props[:3], wire.connect.props[-5:])) == [b"\x11\xff\xff\xff\xff", b"\x21\x00\x03"]
            assert len(wire.connect.props) == 8


@VERSIONS
def test_a_bridge_sends_again_what_was_not_acknowledged(make_node, listener, version):
    """At least once and in the first order; what was acknowledged does not come again. Not as 4.4 says it: a bridge keeps
    no packet identifiers, so these are new ones, and without DUP (PROTOCOL.md 7)."""
    node = bridged(make_node, listener, version, OUT, inflight=3)
    with Served(listener, version) as wire:
        wire.connected()
        tell(node, *range(6))
        sent = [wire.expect(PUBLISH) for _ in range(3)]  # no more than were asked for at once
        assert [m.payload for m in sent] == [b"0", b"1", b"2"] and not any(m.dup for m in sent)
        assert {m.qos for m in sent} == {1} and {m.topic for m in sent} == {"there/n"}
        wire.acknowledge(sent[0])
        assert wire.expect(PUBLISH).payload == b"3"
        wait_until(lambda: node.metric("tidegate_bridge_messages_total", '"out"') == 1, "the acknowledgement")
    with Served(listener, version) as wire:
        wire.connected(present=1)
        got = []
        while len(got) < 5:
            message = wire.expect(PUBLISH)
            got.append(message.payload)
            wire.acknowledge(message)
        assert got == [b"1", b"2", b"3", b"4", b"5"]
        wait_until(lambda: node.metric("tidegate_bridge_messages_total", '"out"') == 6, "all to be acknowledged")
        assert wire.quiet(0.2)


@VERSIONS
def test_a_bridge_acknowledges_each_message_once(make_node, listener, version):
    """4.6: in the order in which they came; DUP and RETAIN change nothing of it, QoS 0 is not acknowledged."""
    node = bridged(make_node, listener, version, IN)
    with Served(listener, version) as wire:
        wire.connected()
        name, options = wire.subscribed()
        assert name == "orders/#" and options & 0xC0 == 0 and options & 0x03 == 1 and (version == 5 or options == 1)
        numbers = [7, 65535, 1, 300]
        for place, number in enumerate(numbers):
            wire.send(publish(f"orders/{place}", b"x", 1, number, version, flags=0x0B if place == 1 else None))
            wire.send(publish(f"orders/{place}", b"zero", 0, version=version))
        for number in numbers:
            assert struct.unpack(">H", wire.expect(PUBACK)[:2])[0] == number
        assert wire.quiet(0.2)
        # In one segment, the last in two: packets are not aligned with anything.
        data = b"".join(publish("orders/many", b"%d" % number, 1, number, version) for number in range(10, 20))
        wire.send(data[:-1])
        for number in range(10, 19):
            assert struct.unpack(">H", wire.expect(PUBACK)[:2])[0] == number
        wire.send(data[-1:])
        assert struct.unpack(">H", wire.expect(PUBACK)[:2])[0] == 19
        assert len(curl(node.api("/v1/history/down/many?from=earliest")).json()["messages"]) == 10


def test_a_bridge_pings(make_node):
    """3.1.2.10: something is sent within the keep alive. A server that does not answer is given up (4.8: the connection
    is of no use), and comes to be tried again."""
    with socket.create_server(("127.0.0.1", 0)) as old, socket.create_server(("127.0.0.1", 0)) as new:
        doors = {4: old, 5: new}
        for door in doors.values():
            door.settimeout(WAIT_S)
        make_node(several(doors, OUT, keep_alive_s=KEEP_ALIVE_S))
        begun = time.monotonic()
        wires = [Served(door, version).connected() for version, door in doors.items()]
        for wire in wires:
            assert wire.connect.keep_alive == KEEP_ALIVE_S
            assert wire.packet() == (0xC0, b"")
            assert time.monotonic() - begun > 0.5 * KEEP_ALIVE_S, "a ping too many"
        for wire in wires:  # no answer
            Served(doors[wire.version], wire.version).connected().close()
            wire.close()


MALFORMED = {
    "a type that is reserved": b"\x00\x00",
    "a CONNECT": b"\x10\x00",
    "a length of five bytes": b"\x30\x80\x80\x80\x80\x01",
    "a topic beyond its packet": b"\x30\x04\x00\x09ab",
    "QoS 3": packet(0x36, text("orders/a") + b"\0\x01" + b"\0"),
    "a SUBSCRIBE": packet(0x82, b"\0\x01" + b"\0" + text("a") + b"\0"),
}


@pytest.mark.parametrize("what", MALFORMED)
@VERSIONS
def test_a_bridge_gives_up_a_server_that_does_not_speak_mqtt(make_node, listener, version, what):
    """4.8, 4.13: the connection it came on ends, nothing of it is taken, and another is made."""
    node = bridged(make_node, listener, version, IN)
    with Served(listener, version) as wire:
        wire.connected()
        wire.subscribed()
        wire.send(MALFORMED[what])
        try:
            rest = wire.rest()
        except ConnectionError:
            rest = b""
        assert rest[:1] in (b"", b"\xe0"), f"{rest.hex()} instead of the end"
    with Served(listener, version) as wire:
        wire.connected()
        wire.subscribed()
        wire.send(publish("orders/good", b"x", 1, 1, version))
        assert wire.expect(PUBACK)[:2] == b"\0\x01"
    assert curl(node.api("/v1/history/down/a?from=earliest")).json()["messages"] == []
