"""QoS 2 in both directions (MQTT 5.0 and 3.1.1, 4.3.3), within a connection: by hand and with real clients."""

import random
import struct

import pytest

from clients import WAIT_S, MosquittoSub, Web, history, mosquitto_pub
from mqtt_wire import PUBCOMP, PUBLISH, PUBREC, PUBREL, BYE, Message, Wire, bare_stream, packet
from mqtt_wire import publish, pubcomp, pubrec, pubrel
from node import wait_until
from test_mqtt import Paho

VERSIONS = pytest.mark.parametrize("version", [3, 4, 5])
LOOPS = pytest.mark.parametrize("loops", [1, 2])
SPREAD = {"node.loops": 2, "log.partitions": 4}


def number_of(body):
    return struct.unpack_from(">H", body)[0]


def publish2(wire, topic, payload, number, **more):
    """The whole exchange; the codes of PUBREC and PUBCOMP."""
    wire.send(publish(topic, payload, 2, number, wire.version, **more))
    body = wire.expect(PUBREC)
    assert number_of(body) == number
    code = body[2] if len(body) > 2 else 0
    if code >= 0x80:
        return code, None
    wire.send(pubrel(number))
    body = wire.expect(PUBCOMP)
    assert number_of(body) == number
    return code, body[2] if len(body) > 2 else 0


def finish(wire, message):
    """The receiver's half, after the PUBLISH."""
    wire.send(pubrec(message.number))
    first, body = wire.packet()
    assert first == 0x62 and number_of(body) == message.number, f"{first:02x} {body.hex()}"
    wire.send(pubcomp(message.number))


@LOOPS
@VERSIONS
def test_there_and_back(make_node, version, loops):
    node = make_node({"node.loops": loops, "log.partitions": 4})
    with Wire(node, version, "hears") as hearer, Wire(node, version, "speaks") as speaker:
        assert hearer.subscribe(("q/#", 2)) == b"\x02"
        for number in range(1, 50):
            assert publish2(speaker, f"q/{number % 7}", b"%d" % number, number) == (0, 0)
            message = hearer.message(acknowledge=False)
            assert (message.qos, message.payload) == (2, b"%d" % number)
            finish(hearer, message)
        hearer.ping()
        wait_until(lambda: node.metric("tidegate_messages_unacknowledged", "mqtt") == 0, "no flights")


@VERSIONS
def test_the_lower_of_both_qualities(make_node, version):
    """3.8.4-8 (5.0), 3.8.4-6 (3.1.1)."""
    node = make_node(SPREAD)
    with Wire(node, version, "hears") as hearer, Wire(node, version, "speaks") as speaker:
        assert hearer.subscribe(("q/0", 0), ("q/1", 1), ("q/2", 2)) == b"\x00\x01\x02"
        for granted in range(3):
            speaker.send(publish(f"q/{granted}", b"x", 0, 0, version))
            assert hearer.message().qos == 0
            assert speaker.publish(f"q/{granted}", b"x", 1) == 0
            assert hearer.message().qos == min(granted, 1)
            assert publish2(speaker, f"q/{granted}", b"x", 2) == (0, 0)
            message = hearer.message(acknowledge=granted == 1)
            assert message.qos == granted
            if granted == 2:
                finish(hearer, message)
        hearer.ping()


@VERSIONS
def test_a_repetition_is_stored_once(make_node, version):
    """MQTT-4.3.3-10 (5.0), MQTT-4.3.3-2 (3.1.1): until PUBREL the identifier means the same message."""
    node = make_node(SPREAD)
    with Wire(node, version, "speaks") as speaker:
        for number in (7, 8, 65535):
            once = publish(f"once/{number}", b"x", 2, number, version)
            again = bytes([once[0] | 0x08]) + once[1:]
            speaker.send(once + again)  # before the PUBREC: one PUBREC answers both
            assert number_of(speaker.expect(PUBREC)) == number
            for _ in range(3):
                speaker.send(again)
                assert number_of(speaker.expect(PUBREC)) == number
            speaker.send(pubrel(number))
            assert number_of(speaker.expect(PUBCOMP)) == number
            speaker.send(pubrel(number))  # and again: it was lost, for all the client knows
            body = speaker.expect(PUBCOMP)
            assert body == struct.pack(">H", number) + (b"\x92" if version == 5 else b"")
            assert len(history(node, f"once/{number}")) == 1
            assert publish2(speaker, f"once/{number}", b"y", number) == (0, 0)  # a new message
            assert [item["text"] for item in history(node, f"once/{number}")] == ["x", "y"]
        speaker.ping()


def test_pubrecs_come_in_the_order_of_the_publishes(make_node):
    """MQTT-4.6.0-3, whatever lane and loop is first; and PUBACKs among them."""
    node = make_node(SPREAD)
    dice = random.Random(4)
    with Wire(node, 5, "order") as wire:
        for _ in range(4):
            numbers = dice.sample(range(1, 65536), 1000)
            qualities = [dice.choice([1, 2]) for _ in numbers]
            wire.send(b"".join(publish(f"o/{dice.randrange(500)}", b"x" * dice.randrange(300), qos, number)
                               for number, qos in zip(numbers, qualities)))
            for number, qos in zip(numbers, qualities):
                first, body = wire.packet()
                assert (first >> 4, number_of(body)) == (PUBREC if qos == 2 else 4, number)
            released = [number for number, qos in zip(numbers, qualities) if qos == 2]
            dice.shuffle(released)
            wire.send(b"".join(pubrel(number) for number in released))
            for number in released:  # in the order of the PUBRELs
                assert wire.expect(PUBCOMP) == struct.pack(">H", number)


def test_pubrels_come_in_the_order_of_the_pubrecs(make_node):
    """MQTT-4.6.0-4."""
    node = make_node(SPREAD)
    with Wire(node, 5, "hears") as hearer, Wire(node, 5, "speaks") as speaker:
        hearer.subscribe(("q/#", 2))
        speaker.send(b"".join(publish(f"q/{number}", b"x", 1, number) for number in range(1, 101)))
        for number in range(1, 101):
            speaker.expect(4)
        speaker.send(b"".join(publish(f"q/{number}", b"x", 2, number) for number in range(1, 101)))
        for number in range(1, 101):
            speaker.expect(PUBREC)
        two = []
        for _ in range(200):
            message = hearer.message()
            if message.qos == 2:
                two.append(message.number)
        assert len(two) == 100 and len(set(two)) == 100
        two.reverse()
        hearer.send(b"".join(pubrec(number) for number in two))
        assert [number_of(hearer.expect(PUBREL)) for _ in two] == two
        hearer.send(b"".join(pubcomp(number) for number in two))
        hearer.ping()


def test_receive_maximum_counts_until_pubcomp(make_node):
    """4.9, both ways; MQTT-3.3.4-7, -9."""
    node = make_node({"limit.publish_open": 4})
    with Wire(node, 5, "hears", props=b"\x21\x00\x03") as hearer, Wire(node, 5, "speaks") as speaker:
        hearer.subscribe(("q", 2))
        for number in range(1, 5):
            speaker.send(publish("q", b"%d" % number, 2, number))
            speaker.expect(PUBREC)
        got = [hearer.message(acknowledge=False) for _ in range(3)]
        hearer.send(b"".join(pubrec(message.number) for message in got))
        for message in got:
            assert number_of(hearer.expect(PUBREL)) == message.number
        hearer.ping()  # PUBREC gives nothing back
        hearer.send(pubcomp(got[1].number))
        fourth = hearer.message(acknowledge=False)
        assert fourth.payload == b"4" and fourth.number not in (got[0].number, got[2].number)
        hearer.send(pubrec(fourth.number, b"\x83"))  # an error does (MQTT-4.3.3-4), and there is no PUBREL
        assert publish2_over(speaker)
        assert hearer.message(acknowledge=False).payload == b"5"


def publish2_over(speaker):
    """Four are open; a repetition is none more, a fifth is one too many."""
    speaker.send(publish("q", b"4", 2, 4, flags=0x0C))
    assert number_of(speaker.expect(PUBREC)) == 4
    speaker.send(pubrel(2))
    assert number_of(speaker.expect(PUBCOMP)) == 2
    speaker.send(publish("q", b"5", 2, 5))
    assert number_of(speaker.expect(PUBREC)) == 5
    speaker.send(publish("q", b"6", 1, 6))
    return speaker.disconnect_code() == 0x93


@VERSIONS
def test_acknowledgements_of_nothing_and_of_another_quality(make_node, version):
    node = make_node(SPREAD)
    with Wire(node, version, "c") as wire, Wire(node, version, "speaks") as speaker:
        wire.subscribe(("one", 1), ("two", 2))
        wire.send(pubrec(9))
        assert wire.packet() == (0x62, b"\x00\x09" + (b"\x92" if version == 5 else b""))
        wire.send(pubcomp(9))
        wire.send(pubrel(9))
        assert wire.packet() == (0x70, b"\x00\x09" + (b"\x92" if version == 5 else b""))
        wire.ping()
        assert speaker.publish("one", b"x") == 0
        message = wire.message(acknowledge=False)
        wire.send(pubrec(message.number))
        assert bare_stream(wire.rest()) == (b"\xe0\x01\x82" if version == 5 else b"")
    for early in (lambda n: packet(0x40, struct.pack(">H", n)), pubcomp):
        with Wire(node, version, "c") as wire, Wire(node, version, "speaks") as speaker:
            wire.subscribe(("two", 2))
            assert publish2(speaker, "two", b"x", 1) == (0, 0)
            wire.send(early(wire.message(acknowledge=False).number))
            assert bare_stream(wire.rest()) == (b"\xe0\x01\x82" if version == 5 else b"")


def test_what_is_refused_is_told_in_pubrec(make_node):
    node = make_node({"limit.message_bytes": 2048, "limit.retained": 1})
    with Wire(node, 5, "c") as wire:
        for number in range(1, 4):
            assert publish2(wire, "$SYS/x", b"x", 7) == (0x87, None)  # its identifier is free again
        assert publish2(wire, "t", bytes(2049), 7) == (0x97, None)
        assert publish2(wire, "t", b"\xff", 7, props=b"\x01\x01") == (0x99, None)
        assert publish2(wire, "r/1", b"x", 7, flags=0x05) == (0, 0)
        assert publish2(wire, "r/2", b"x", 7, flags=0x05) == (0x97, None)
        assert publish2(wire, "t", b"x", 7) == (0, 0)
    for version in (3, 4):
        with Wire(node, version, "c") as wire:
            wire.send(publish("r/2", b"x", 2, 7, version, flags=0x05))
            assert wire.rest() == b""


def test_a_retained_message_with_quality_2(make_node):
    node = make_node(SPREAD)
    with Wire(node, 5, "speaks") as speaker, Wire(node, 5, "late") as late:
        assert publish2(speaker, "kept", b"x", 1, flags=0x05) == (0, 0)
        late.subscribe(("kept", 2))
        message = late.message(acknowledge=False)
        assert message.qos == 2 and message.retained
        finish(late, message)
        late.ping()


@pytest.mark.parametrize("version", ["mqttv31", "mqttv311", "mqttv5"])
def test_mosquitto(make_node, version):
    node = make_node(SPREAD)
    with MosquittoSub(node, "m/#", "-V", version, qos=2) as subscriber, Web(node) as web:
        web.subscribe("m/#")
        for number in range(20):
            mosquitto_pub(node, f"m/{number}", b"%d" % number, "-V", version, qos=2)
            assert subscriber.next() == (f"m/{number}", b"%d" % number)
            assert web.next("msg")["topic"] == f"m/{number}"
        mosquitto_pub(node, "m/large", random.Random(1).randbytes(1 << 20), "-V", version, qos=2)
        assert len(subscriber.next()[1]) == 1 << 20


@pytest.mark.parametrize("version", [4, 5])
def test_paho(make_node, version):
    node = make_node(SPREAD)
    with Paho(node, version, "hears") as subscriber, Paho(node, version, "speaks") as publisher:
        subscriber.subscribe("p/#", qos=2)
        sent = [publisher.publish("p/x", b"%d" % number, 2) for number in range(500)]
        for token in sent:
            token.wait_for_publish(WAIT_S)
        got = [subscriber.next() for _ in sent]
        assert [message.payload for message in got] == [b"%d" % number for number in range(500)]
        assert all(message.qos == 2 for message in got)
    wait_until(lambda: node.metric("tidegate_connections", "mqtt") == 0, "the clients to be gone")
