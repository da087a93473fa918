"""Wills, topic aliases, subscription identifiers and reason strings (MQTT 3.1.1 and 5.0), by hand and with real
clients."""

import signal
import struct
import subprocess
import time

import pytest

from clients import WAIT_S, MosquittoSub, Web, history, need, paho_client, publish as api_publish
from mqtt_wire import BYE, PING, PUBACK, PUBLISH, End, Message, Wire, connect, packet, properties, publish, read_varint
from mqtt_wire import subscribe, text, user
from node import wait_until

VERSIONS = pytest.mark.parametrize("version", [3, 4, 5])
LOOPS = pytest.mark.parametrize("loops", [1, 2])
SPREAD = {"node.loops": 2, "log.partitions": 4}


def will_rest(topic, payload, version, props=b""):
    return (properties(props) if version == 5 else b"") + text(topic) + text(payload)


def with_will(node, version, client, topic, payload=b"gone", qos=1, retain=False, props=b"", flags=0, **more):
    return Wire(node, version, client, flags=0x06 | qos << 3 | retain << 5 | flags,
                rest=will_rest(topic, payload, version, props), **more)


def property_walk(raw):
    """[(id, value)] of a PUBLISH, PUBACK ...: numbers as int, texts as bytes, pairs as tuples."""
    sizes = {0x01: 1, 0x02: 4, 0x23: 2, 0x11: 4, 0x13: 2, 0x21: 2, 0x22: 2, 0x24: 1, 0x25: 1, 0x27: 4, 0x28: 1,
             0x29: 1, 0x2A: 1}
    place, found = 0, []

    def string():
        nonlocal place
        length, = struct.unpack_from(">H", raw, place)
        place += 2 + length
        return raw[place - length:place]

    while place < len(raw):
        number = raw[place]
        place += 1
        if number == 0x0B:
            value, place = read_varint(raw, place)
        elif number in sizes:
            value = int.from_bytes(raw[place:place + sizes[number]], "big")
            place += sizes[number]
        elif number == 0x26:
            value = (string(), string())
        else:
            value = string()
        found.append((number, value))
    return found


def prop(message, number):
    return [value for name, value in property_walk(message.props) if name == number]


def connack_props(wire):
    length, place = read_varint(wire.connack, 2)
    return dict(property_walk(wire.connack[place:place + length]))


# --- wills ------------------------------------------------------------------------------------------------------

def lose(wire):
    wire.socket.close()


def reset(wire):
    wire.socket.setsockopt(1, 13, struct.pack("ii", 1, 0))  # SO_LINGER 0
    wire.socket.close()


def violate(wire):
    wire.send(b"\x30\xff\xff\xff\xff\xff")


def connect_again(wire):
    wire.send(connect(wire.version, "again"))


ENDS = {"the socket closes": lose, "a reset": reset, "a malformed packet": violate, "a second CONNECT": connect_again}


@LOOPS
@VERSIONS
@pytest.mark.parametrize("end", ENDS)
def test_a_will_leaves_at_any_end_but_disconnect(make_node, version, end, loops):
    """3.1.2.5, MQTT-3.1.2-8."""
    node = make_node({"node.loops": loops, "log.partitions": 4})
    with Wire(node, 5, "hears") as hearer:
        hearer.subscribe(("w/#", 1))
        for qos in (0, 1):
            ENDS[end](with_will(node, version, f"dies{qos}", f"w/{qos}", b"gone%d" % qos, qos))
            message = hearer.message()
            assert (message.topic, message.payload, message.qos) == (f"w/{qos}", b"gone%d" % qos, qos)
            assert not message.retained
        hearer.ping()
    assert [item["topic"] for item in history(node, "w/0")] == ["w/0"]  # durable, also with QoS 0


@VERSIONS
def test_no_will_after_disconnect(make_node, version):
    """MQTT-3.1.2-10, MQTT-3.14.4-3."""
    node = make_node(SPREAD)
    with Wire(node, 5, "hears") as hearer:
        hearer.subscribe("w/#")
        wire = with_will(node, version, "leaves", "w/x")
        wire.send(BYE)
        assert wire.rest() == b""
        if version == 5:
            for reason, published in ((0x04, True), (0x80, True), (0x97, True), (0x00, False)):
                wire = with_will(node, 5, "leaves", "w/%02x" % reason)
                wire.send(packet(0xE0, bytes([reason])))
                assert wire.rest() == b""
                if published:
                    assert hearer.message().topic == "w/%02x" % reason
        hearer.ping()


@LOOPS
@VERSIONS
def test_a_will_leaves_when_the_keep_alive_ends_and_at_a_takeover(make_node, version, loops):
    """MQTT-3.1.2-24 (3.1.1), MQTT-3.1.4-3."""
    node = make_node({"node.loops": loops, "log.partitions": 4})
    with Wire(node, 5, "hears") as hearer:
        hearer.subscribe("w/#")
        silent = with_will(node, version, "silent", "w/silent", keep_alive=1)
        assert hearer.message().topic == "w/silent"
        silent.rest()
        first = with_will(node, version, "twice", "w/first")
        second = with_will(node, version, "twice", "w/second")
        assert hearer.message().topic == "w/first"
        first.rest()
        hearer.ping()
        second.send(BYE)
        second.rest()
        hearer.ping()


def test_a_stopping_node_publishes_wills(make_node):
    node = make_node(SPREAD)
    wires = [with_will(node, version, f"c{version}{number}", f"w/{version}/{number}", b"stopped")
             for version in (3, 4, 5) for number in range(20)]
    node.stop()
    node.restart()
    topics = set()
    for version in (3, 4, 5):
        for number in range(20):
            topics |= {item["topic"] for item in history(node, f"w/{version}/{number}")}
    assert len(topics) == len(wires)
    assert node.metric("tidegate_connections", "mqtt") == 0


def test_a_retained_will(make_node):
    """MQTT-3.1.2-17: it is what a later subscriber finds."""
    node = make_node(SPREAD)
    with_will(node, 4, "state", "state/x", b"offline", retain=True).socket.close()
    wait_until(lambda: history(node, "state/x"), "the will to be there")
    with Wire(node, 5, "late") as late:
        late.subscribe("state/+")
        message = late.message()
        assert message.retained and message.payload == b"offline"


def test_the_properties_of_a_will(make_node):
    node = make_node(SPREAD)
    props = (b"\x01\x01" + b"\x02\x00\x00\x00\x64" + b"\x03" + text("text/plain") + b"\x08" + text("answers")
             + b"\x09" + text(b"\0\xff") + user("b", "1") + user("a", "2") + user("b", "3"))
    with Wire(node, 5, "hears") as hearer, Web(node) as web:
        hearer.subscribe("w/#")
        web.subscribe("w/#")
        with_will(node, 5, "dies", "w/props", "gr\u00fc\u00df".encode(), props=props).socket.close()
        found = property_walk(hearer.message().props)
        assert (0x01, 1) in found and (0x03, b"text/plain") in found and (0x08, b"answers") in found
        assert (0x09, b"\0\xff") in found
        assert [value for name, value in found if name == 0x26] == [(b"b", b"1"), (b"a", b"2"), (b"b", b"3")]
        assert 95 <= dict(found)[0x02] <= 100  # it begins when the will is published
        item = web.next("msg")
        assert item["text"] == "gr\u00fc\u00df" and item["type"] == "text/plain"


@pytest.mark.parametrize("what,topic,payload,props,code5,code3", [
    ("$ topic", "$SYS/x", b"x", b"", 0x87, 5),
    ("too long a topic", "t" * 1025, b"x", b"", 0x90, 3),
    ("too large", "w", bytes(2049), b"", 0x97, 3),
    ("no UTF-8", "w", b"\xff", b"\x01\x01", 0x99, None),
    ("tg-key twice", "w", b"x", user("tg-key", "a") * 2, 0x82, None),
    ("half an identity", "w", b"x", user("tg-seq", "1"), 0x83, None),
])
def test_a_will_that_would_not_be_taken_is_refused_at_connect(make_node, what, topic, payload, props, code5, code3):
    node = make_node({"limit.message_bytes": 2048})
    for version, code in ((5, code5), (4, code3), (3, code3)):
        if code is None:
            continue
        with Wire(node, version, connected=False) as wire:
            wire.send(connect(version, "c", 0x06, rest=will_rest(topic, payload, version, props)))
            got = wire.rest()
            assert got[0] == 0x20 and got[3] == code, f"{what}: {got.hex()}"
    assert node.metric("tidegate_messages_received_total", "mqtt") == 0


def test_wills_of_real_clients(make_node):
    node = make_node(SPREAD)
    with MosquittoSub(node, "w/#", qos=1) as hearer:
        for version in ("mqttv31", "mqttv311", "mqttv5"):
            with MosquittoSub(node, "x", "-V", version, "--will-topic", f"w/{version}", "--will-payload", version,
                              "--will-qos", "1"):
                pass  # killed: no DISCONNECT
            assert hearer.next() == (f"w/{version}", version.encode())
        for version in (4, 5):
            client = paho_client(f"paho{version}", version)
            client.will_set(f"w/paho{version}", b"paho", 1)
            client.connect("127.0.0.1", node.ports["mqtt"])
            client.loop_start()
            wait_until(client.is_connected, "paho to be connected")
            client.loop_stop()
            client.socket().close()
            assert hearer.next() == (f"w/paho{version}", b"paho")


# --- topic aliases ----------------------------------------------------------------------------------------------

def alias(number):
    return b"\x23" + struct.pack(">H", number)


def test_aliases_of_the_client(make_node):
    """3.3.2.3.4: a name and its alias, then the alias alone; a new name takes it over."""
    node = make_node({**SPREAD, "mqtt.topic_aliases": 5})
    with Wire(node, 5, "hears") as hearer, Wire(node, 5, "speaks") as speaker:
        assert connack_props(speaker)[0x22] == 5
        hearer.subscribe("a/#")
        assert speaker.publish("a/one", b"1", 1, alias(1)) == 0
        assert speaker.publish("", b"2", 2, alias(1)) == 0
        assert speaker.publish("a/five", b"3", 3, alias(5)) == 0
        assert speaker.publish("", b"4", 4, alias(5)) == 0
        assert speaker.publish("a/two", b"5", 5, alias(1)) == 0
        assert speaker.publish("", b"6", 6, alias(1)) == 0
        got = sorted((m.payload, m.topic) for m in (hearer.message() for _ in range(6)))
        assert got == [(b"1", "a/one"), (b"2", "a/one"), (b"3", "a/five"), (b"4", "a/five"), (b"5", "a/two"),
                       (b"6", "a/two")]
        # A message that is refused still says what its alias is.
        assert speaker.publish("$SYS/x", b"x", 7, alias(2)) == 0x87
        assert speaker.publish("", b"x", 8, alias(2)) == 0x87
    for bad, code in ((alias(6), 0x94), (alias(65535), 0x94)):
        with Wire(node, 5, "bad") as wire:
            wire.send(publish("a/x", b"x", 1, 1, 5, bad))
            assert wire.disconnect_code() == code
    with Wire(node, 5, "bad") as wire:  # of another connection (MQTT-3.3.2-7), so it stands for nothing
        wire.send(publish("", b"x", 1, 1, 5, alias(1)))
        assert wire.disconnect_code() == 0x82
    wait_until(lambda: node.metric("tidegate_connections", "mqtt") == 0, "the connections to be gone")


def test_no_aliases_when_the_setting_says_so(make_node):
    node = make_node({"mqtt.topic_aliases": 0})
    with Wire(node, 5, "c", props=b"\x22\x00\x10") as wire, Wire(node, 5, "bad") as bad:
        assert 0x22 not in connack_props(wire)
        wire.subscribe("a/long/topic")
        for number in range(3):
            assert bad.publish("a/long/topic", b"x", number + 1) == 0
            assert wire.message().topic == "a/long/topic"
        bad.send(publish("a", b"x", 1, 1, 5, alias(1)))
        assert bad.disconnect_code() == 0x94


@pytest.mark.parametrize("qos", [0, 1])
def test_aliases_to_the_client(make_node, qos):
    """MQTT-3.1.2-26, -27: only to a client that allows them, and not above its maximum."""
    node = make_node({**SPREAD, "mqtt.topic_aliases": 16})
    with Wire(node, 5, "allows", props=b"\x22\x00\x03") as wire, Wire(node, 5, "not") as other, \
            Wire(node, 5, "speaks") as speaker:
        wire.subscribe(("al/#", qos))
        other.subscribe(("al/#", qos))
        names, saved, got = {}, 0, {}
        for number in range(200):
            topic = f"al/a/long/topic/{number // 10 % 5}"
            assert speaker.publish(topic, b"%d" % number, number + 1) == 0
        for _ in range(200):
            message = wire.message()
            numbers = prop(message, 0x23)
            if numbers:
                assert 1 <= numbers[0] <= 3
                if message.topic:
                    names[numbers[0]] = message.topic
                else:
                    saved += 1
            topic = message.topic or names[numbers[0]]
            assert topic == f"al/a/long/topic/{int(message.payload) // 10 % 5}"
            plain = other.message()
            assert plain.topic and not prop(plain, 0x23)
        assert saved > 0


# --- subscription identifiers -----------------------------------------------------------------------------------

@LOOPS
@pytest.mark.parametrize("qos", [0, 1])
def test_subscription_identifiers(make_node, loops, qos):
    """3.3.2.3.8, MQTT-3.3.4-3 to -5: each filter delivers for itself, its copy carries its own identifier."""
    node = make_node({"node.loops": loops, "log.partitions": 4})
    with Wire(node, 5, "hears") as hearer, Wire(node, 5, "other") as other, Wire(node, 5, "speaks") as speaker:
        assert 0x29 not in connack_props(hearer)  # absent: they are available
        hearer.subscribe(("s/+", qos), ("s/#", qos), props=b"\x0b\x01")
        hearer.subscribe(("s/x", qos), props=b"\x0b\xff\xff\xff\x7f")
        hearer.subscribe(("#", qos))
        other.subscribe(("s/x", qos))
        for number in range(20):
            assert speaker.publish("s/x", b"%d" % number, number + 1) == 0
            found = sorted(prop(hearer.message(), 0x0B) for _ in range(4))
            assert found == [[], [1], [1], [268435455]]
            assert prop(other.message(), 0x0B) == []
        # Replaced: the new identifier, or none.
        hearer.send(subscribe(3, ("s/x", qos), props=b"\x0b\x07"))
        hearer.expect(9)
        assert speaker.publish("s/x", b"x") == 0
        assert sorted(prop(hearer.message(), 0x0B) for _ in range(4)) == [[], [1], [1], [7]]


def test_a_retained_message_carries_the_identifier(make_node):
    node = make_node()
    api_publish(node, "kept", b"x", "-H", "Tidegate-Retain: 1")
    with Wire(node, 5, "hears") as hearer:
        hearer.subscribe("kept", props=b"\x0b\x2a")
        message = hearer.message()
        assert message.retained and prop(message, 0x0B) == [42]


def test_paho_with_aliases_and_identifiers(make_node):
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties
    node = make_node(SPREAD)
    heard = []
    client = paho_client("hears", 5)
    client.on_message = lambda _, __, message: heard.append(message)
    allows = Properties(PacketTypes.CONNECT)
    allows.TopicAliasMaximum = 0
    allows.UserProperty = [("a", "b")]
    client.connect("127.0.0.1", node.ports["mqtt"], properties=allows)
    client.loop_start()
    wait_until(client.is_connected, "paho to be connected")
    marked = Properties(PacketTypes.SUBSCRIBE)
    marked.SubscriptionIdentifier = 5
    subscribed = []
    client.on_subscribe = lambda *arguments: subscribed.append(arguments)
    client.subscribe("p/#", options=None, qos=1, properties=marked)
    wait_until(lambda: subscribed, "the subscription")
    named = Properties(PacketTypes.PUBLISH)
    named.TopicAlias = 1
    client.publish("p/x", b"1", 1, properties=named)
    client.publish("p/x", b"2", 1)
    wait_until(lambda: len(heard) == 2, "both messages")
    assert all(message.properties.SubscriptionIdentifier == [5] for message in heard)
    client.disconnect()
    client.loop_stop()


# --- reason strings ---------------------------------------------------------------------------------------------

def test_reason_strings(make_node):
    """3.4.2.2.2, MQTT-3.1.2-29: only when the client wants them, and never above its packet size."""
    policy = '[{"filter": "fast/#", "store": false}]'
    node = make_node({"topics": policy})
    for props, told in ((b"", True), (b"\x17\x01", True), (b"\x17\x00", False), (b"\x27\x00\x00\x00\x20", False)):
        with Wire(node, 5, "c", props=props) as wire:
            wire.send(publish("fast/x", b"x", 1, 7, flags=0x03))
            body = wire.expect(PUBACK)
            assert body[:3] == b"\x00\x07\x83"
            strings = [value for name, value in property_walk(body[4:]) if name == 0x1F]
            assert strings == ([b"the topic is not stored: nothing is retained or remembered there"] if told else [])
            wire.ping()
