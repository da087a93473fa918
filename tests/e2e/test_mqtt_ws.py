"""MQTT over WebSocket: its bytes once more, in frames (whole, and cut into three bytes each), and what frames
may do to it."""

import functools
import ssl
import struct

import pytest

from test_mqtt_bytes import *  # noqa: F401,F403 (the tests; first, for the names below that are others)

import mqtt_wire
from clients import Web, mosquitto_pub, paho_client
from mqtt_carrier import BINARY, CLOSE, CONTINUATION, PING, TEXT, Carrier, frame, upgrade
from node import wait_until


del test_a_sender_of_pings_who_reads_nothing_is_bounded  # noqa: F821 (fills a socket: frames would be cut)


@pytest.fixture(params=["frames", "cut", "tls"])
def make_node(make_node, certificates, request):
    def make(settings=None, **options):
        extra = certificates.settings() if request.param == "tls" else {}
        node = make_node({**extra, **(settings or {})}, **options)
        node.tls = certificates.client() if extra else None
        node.carrier = functools.partial(Carrier, cut=3 if request.param == "cut" else 0)
        return node
    return make


@pytest.fixture
def carried(node):
    with node.connect("mqtt") as opened:
        yield opened


CONNECT = mqtt_wire.connect(5, "x")
CONNACK = 0x20


def close_code(wire):
    while wire.recv(1):
        pass
    return wire.close_code


def test_paho(make_node, certificates):
    """transport="websockets", both versions: publish, subscribe, large payloads."""
    node = make_node()
    big = bytes(range(256)) * 2000
    for version in (4, 5):
        got = []
        client = paho_client("", version, transport="websockets")
        if node.tls:
            client.tls_set(str(certificates.pem("server-ca")))
        client.on_connect = lambda c, *_: c.subscribe("paho/#", 1)
        client.on_subscribe = lambda c, *_: (c.publish("paho/big", big, 1), c.publish("paho/small", b"s", 1))
        client.on_message = lambda c, _, m: got.append((m.topic, m.payload))
        client.connect("127.0.0.1", node.port("http"))
        client.loop_start()
        wait_until(lambda: len(got) == 2, "both messages")
        assert got == [("paho/big", big), ("paho/small", b"s")]
        client.disconnect()
        client.loop_stop()
    wait_until(lambda: node.metric("tidegate_connections", "mqtt") == 0, "both to be gone")


def test_the_same_messages_at_every_door(node):
    with mqtt_wire.Wire(node) as wire, Web(node) as web:
        wire.subscribe(("a/#", 1))
        web.subscribe("a/#")
        web.ask({"pub": {"topic": "a/1", "text": "web"}})
        mosquitto_pub(node, "a/2", b"tcp")
        wire.send(mqtt_wire.publish("a/3", b"frames", 1, 7))
        kinds = {}
        while len(kinds) < 4:
            first, body = wire.packet()
            if first >> 4 == mqtt_wire.PUBLISH:
                message = mqtt_wire.Message(first, body, 5)
                kinds[message.topic] = message.payload
                wire.send(mqtt_wire.puback(message.number))
            else:
                kinds[first >> 4] = body[:2]
        assert kinds == {"a/1": b"web", "a/2": b"tcp", "a/3": b"frames", mqtt_wire.PUBACK: struct.pack(">H", 7)}
        assert [web.next()["text"] for _ in range(3)] == ["web", "tcp", "frames"]


@pytest.mark.parametrize("data, code", [
    (frame(CONNECT, TEXT), 1003), (frame(b"", TEXT), 1003),
    (frame(CONNECT[:5], TEXT, final=False), 1003),
    (b"\x82\x05hello", 1002), (b"\xc2\x80aaaa", 1002), (b"\x83\x80aaaa", 1002), (frame(CONNECT, CONTINUATION), 1002),
    (frame(b"a", BINARY, final=False) + frame(b"b"), 1002), (frame(b"a" * 126, PING), 1002),
    (frame(b"", PING, final=False), 1002), (b"\x82\xfe\x00\x05aaaa", 1002),
    (frame(struct.pack("!H", 1000), CLOSE), 1000), (frame(b"", CLOSE), 1005), (frame(struct.pack("!H", 1005), CLOSE), 1002),
    (frame(b"\x03", CLOSE), 1002), (frame(b"\x03\xe8\xff", CLOSE), 1007)])
def test_frames_that_end_it(node, carried, data, code):
    carried.socket.sendall(data)
    assert close_code(carried) == code
    with mqtt_wire.Wire(node):
        pass


@pytest.mark.parametrize("after", [b"", frame(CONNECT)])
def test_what_came_before_a_broken_frame_counts(carried, after):
    carried.socket.sendall(frame(CONNECT) + b"\x82\x05hello" + after)
    assert close_code(carried) == 1002


def test_packets_in_fragments_with_pings_between(carried):
    parts = [CONNECT[at:at + 2] for at in range(0, len(CONNECT), 2)]
    data = b""
    for number, part in enumerate(parts):
        data += frame(part, CONTINUATION if number else BINARY, final=number == len(parts) - 1)
        data += frame(b"%d" % number, PING)
    carried.socket.sendall(data)
    assert carried.recv(100)[0] == CONNACK
    carried.socket.sendall(frame(b"", BINARY) + frame(mqtt_wire.PING + mqtt_wire.PING))
    assert carried.recv(100) == mqtt_wire.PONG * 2
    assert carried.pongs and carried.pongs[-1] == b"%d" % (len(parts) - 1)


def test_the_end_of_mqtt_is_a_close_frame(carried):
    carried.sendall(CONNECT)
    assert carried.recv(100)[0] == CONNACK
    carried.sendall(mqtt_wire.BYE)
    assert close_code(carried) == 1000


def node_socket(node):
    """Of the HTTP port, without a carrier."""
    carrier, node.carrier = node.carrier, None
    try:
        return node.connect("http")
    finally:
        node.carrier = carrier


@pytest.mark.parametrize("protocol, status", [("mqtt", 101), ("mqttv3.1, mqtt", 101), ("mqtt, tidegate.v1.json", 101),
                                              ("tidegate.v1.json, mqtt", 400), ("other", 400)])
def test_subprotocols(node, protocol, status):
    with node_socket(node) as raw:
        raw.sendall(upgrade(protocol=protocol))
        assert raw.recv(12) == b"HTTP/1.1 %d" % status


def test_no_upgrade(node):
    with node_socket(node) as raw:
        raw.sendall(b"GET /mqtt HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert raw.recv(12) == b"HTTP/1.1 426"


def test_foreign_origin(node):
    with node_socket(node) as raw:
        raw.sendall(upgrade().replace(b"\r\n\r\n", b"\r\nOrigin: https://evil.example\r\n\r\n"))
        assert raw.recv(12) == b"HTTP/1.1 403"


def test_frames_before_the_101(node):
    """Refused, as at /ws: the connection ends, and CONNECT is not answered."""
    with node_socket(node) as raw:
        raw.sendall(upgrade() + frame(CONNECT))
        said = b""
        try:
            while data := raw.recv(1000):
                said += data
        except (ConnectionError, ssl.SSLError):
            pass
        assert b"\x82" not in said
    with mqtt_wire.Wire(node):
        pass


def test_silence_ends(make_node):
    node = make_node({"mqtt.connect_timeout_ms": 300})
    with node.connect("mqtt") as wire:
        assert close_code(wire) in (1000, None)
    wait_until(lambda: node.metric("tidegate_connections", "mqtt") == 0, "it to be gone")


def test_anonymous_clients_that_are_not_taken(make_node):
    node = make_node({"auth.anonymous": "never"})
    with node.connect("mqtt") as wire:
        wire.sendall(CONNECT)
        assert wire.recv(100)[3] in (0x86, 0x87)


def test_a_slow_reader_of_large_messages_who_pings(make_node):
    """Each partial write is a chance for a pong to land within a frame."""
    node = make_node({"out.bytes_max": "256K"})
    count, size = 200, 30_000
    with mqtt_wire.Wire(node, receive_buffer=4096) as slow, Web(node) as web:
        slow.subscribe(("big", 1))
        waiting = [web.request({"pub": {"topic": "big", "text": f"{n:06d}" + "x" * size}}) for n in range(count)]
        for number in range(count):
            slow.socket.socket.sendall(frame(b"%d" % number, PING))
            assert slow.message().payload == f"{number:06d}".encode() + b"x" * size
        for number in waiting:
            assert "ok" in web.answer(number)
        slow.send(mqtt_wire.PING)
        assert slow.expect(mqtt_wire.PINGRESP) == b"" and slow.socket.pongs
