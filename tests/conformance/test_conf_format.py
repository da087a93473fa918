"""MQTT 3.1.1 and 5.0, chapters 1 and 2: strings, lengths, flags, packet identifiers."""

import struct

import pytest

from mqtt_wire import PONG, PUBACK, PUBCOMP, PUBREC, PUBREL, SUBACK, UNSUBACK, Message, Wire, connect, packet
from mqtt_wire import properties, publish, pubrec, pubrel, subscribe, text, unsubscribe, varint
from speak import ALL, OASIS, ended, refused, send_once, will

ILL = {"overlong": b"a\xc0\xaf", "surrogate": b"\xed\xa0\x80", "five bytes": b"\xf8\x88\x80\x80\x80",
       "cut off": b"a\xe2\x82", "lone": b"\x80", "U+0000": b"a\0b"}
PLACES = {
    "topic name": lambda bad, v: publish(bad, b"x", version=v),
    "topic filter": lambda bad, v: subscribe(7, bad, version=v),
    "filter to leave": lambda bad, v: unsubscribe(7, bad, version=v),
    "property name": lambda bad, v: publish("t", b"x", props=b"\x26" + text(bad) + text("v")),
    "property value": lambda bad, v: publish("t", b"x", props=b"\x26" + text("n") + text(bad)),
    "content type": lambda bad, v: publish("t", b"x", props=b"\x03" + text(bad)),
    "response topic": lambda bad, v: publish("t", b"x", props=b"\x08" + text(bad)),
    "reason string": lambda bad, v: packet(0xE0, b"\x00" + properties(b"\x1f" + text(bad))),
}
ONLY_5 = list(PLACES)[3:]


@OASIS
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("bad", ILL)
def test_ill_formed_text(node, version, place, bad):
    if version < 5 and place in ONLY_5:
        return
    with Wire(node, version) as wire:
        wire.send(PLACES[place](ILL[bad], version))
        ended(wire, 0x81)


@OASIS
@pytest.mark.parametrize("place", ["client identifier", "will topic", "user name"])
@pytest.mark.parametrize("bad", ILL)
def test_ill_formed_text_in_connect(node, version, place, bad):
    data = {"client identifier": connect(version, ILL[bad]),
            "will topic": connect(version, "c", 0x06, rest=will(ILL[bad], b"w", version)),
            "user name": connect(version, "c", 0x82, rest=text(ILL[bad]))}[place]
    refused(node, data, version, 0x81 if version == 5 else None)


@ALL
def test_a_byte_order_mark_stays(node, version, name):
    topic = "\ufeff" + name + "/\ufeffx"
    with Wire(node, version, name) as wire:
        wire.subscribe((topic, 0), (name + "/#", 0))
        wire.send(publish(name + "/x", b"other", version=version) + publish(topic, b"\xef\xbb\xbfpayload", version=version))
        assert wire.message().topic == name + "/x"
        message = wire.message()
        assert (message.topic, message.payload) == (topic, b"\xef\xbb\xbfpayload")
        wire.ping()


WRONG_FLAGS = {
    "PUBACK": b"\x42\x02\0\x07", "PUBREC": b"\x51\x02\0\x07", "PUBREL": b"\x60\x02\0\x07", "PUBREL 6": b"\x66\x02\0\x07",
    "PUBCOMP": b"\x78\x02\0\x07", "PINGREQ": b"\xc1\x00", "DISCONNECT": b"\xe8\x00", "reserved type": b"\x00\x00"}


@OASIS
@pytest.mark.parametrize("what", [*WRONG_FLAGS, "SUBSCRIBE", "UNSUBSCRIBE", "AUTH"])
def test_reserved_flags(node, version, what):
    data = {"SUBSCRIBE": subscribe(7, "t", version=version, first=0x80),
            "UNSUBSCRIBE": unsubscribe(7, "t", version=version, first=0xA3),
            "AUTH": b"\xf1\x00"}.get(what) or WRONG_FLAGS[what]
    with Wire(node, version) as wire:
        wire.send(data)
        ended(wire, 0x81)


@OASIS
def test_flags_of_connect(node, version):
    refused(node, b"\x11" + connect(version, "c")[1:], version, None)


@pytest.mark.parametrize("what", ["remaining length", "property length", "subscription identifier"])
def test_a_length_with_a_byte_too_many(node, what):
    data = {"remaining length": b"\xc0\x80\x00",
            "property length": packet(0x82, b"\0\x07\x80\x00" + text("t") + b"\x00"),
            "subscription identifier": subscribe(7, "t", props=b"\x0b\x85\x00")}[what]
    with Wire(node) as wire:
        wire.send(data)
        ended(wire, 0x81)


@OASIS
@pytest.mark.parametrize("bytes_in_all", [127, 128, 16383, 16384])
def test_our_lengths_are_as_short_as_can_be(node, version, name, bytes_in_all):
    """A PUBLISH of the server whose remaining length is that; the header is looked at as it came."""
    body = text(name) + (b"\x00" if version == 5 else b"")
    with Wire(node, version) as wire:
        wire.subscribe((name, 0))
        wire.send(publish(name, bytes(bytes_in_all - len(body)), version=version))
        while len(wire.kept) < 1 + len(varint(bytes_in_all)) + bytes_in_all:
            wire.fill()
        assert wire.kept == packet(0x30, body + bytes(bytes_in_all - len(body)))


@ALL
@pytest.mark.parametrize("what", ["PUBLISH QoS 1", "PUBLISH QoS 2", "SUBSCRIBE", "UNSUBSCRIBE"])
def test_identifier_zero(node, version, name, what):
    data = {"PUBLISH QoS 1": publish("t", b"x", 1, 0, version), "PUBLISH QoS 2": publish("t", b"x", 2, 0, version),
            "SUBSCRIBE": subscribe(0, "t", version=version), "UNSUBSCRIBE": unsubscribe(0, "t", version=version)}[what]
    with Wire(node, version, name) as wire:
        wire.send(data)
        ended(wire, 0x82)


@OASIS
def test_identifiers_of_the_server(node, version, name):
    """Not zero, none twice while it is in use, whatever the quality; none with QoS 0."""
    with Wire(node, version, name) as wire, Wire(node, version) as speaker:
        wire.subscribe((f"{name}/#", 2))
        for i in range(30):
            send_once(speaker, f"{name}/{i}", b"payload", i % 3, number=i + 1)
        open_ones, released = {}, set()
        while len(open_ones) + len(released) < 20 or released != {n for n, q in open_ones.items() if q == 2}:
            first, body = wire.packet()
            if first >> 4 == PUBREL:
                released.add(struct.unpack(">H", body[:2])[0])
                if len(open_ones) == 20 and len(released) == 10:
                    break
                continue
            message = Message(first, body, version)
            assert message.payload == b"payload"  # so nothing stands between the topic and it that should not
            if message.qos == 0:
                assert message.number == 0
                continue
            assert message.number != 0 and message.number not in open_ones
            open_ones[message.number] = message.qos
            if message.qos == 2:  # in use until PUBCOMP
                wire.send(pubrec(message.number))
        assert sorted(open_ones.values()) == [1] * 10 + [2] * 10


@ALL
@pytest.mark.parametrize("number", [1, 0x0100, 0x7FFF, 0xFFFF])
def test_an_answer_has_the_identifier_of_its_question(node, version, name, number):
    raw = struct.pack(">H", number)
    with Wire(node, version, name) as wire:
        assert wire.subscribe((name, 2), number=number) == b"\x02"
        wire.send(publish(name + "/q", b"x", 1, number, version))
        assert wire.expect(PUBACK) == raw
        wire.send(publish(name + "/q", b"x", 2, number, version))
        assert wire.expect(PUBREC) == raw
        wire.send(pubrel(number))
        assert wire.expect(PUBCOMP) == raw
        wire.send(unsubscribe(number, name, version=version))
        assert wire.expect(UNSUBACK)[:2] == raw


def test_no_properties_are_a_length_of_zero(node, name):
    with Wire(node) as wire:
        wire.send(subscribe(7, (name, 0)))
        assert wire.expect(SUBACK) == b"\x00\x07\x00\x00"
        wire.send(unsubscribe(8, "x") + publish(name, b"payload"))
        assert wire.expect(UNSUBACK) == b"\x00\x08\x00\x11"
        assert wire.packet() == (0x30, text(name) + b"\x00payload")


def test_a_packet_without_its_property_length(node):
    for data in (packet(0x30, text("t")), packet(0x82, b"\0\x07"), packet(0xA2, b"\0\x07")):
        with Wire(node) as wire:
            wire.send(data)
            ended(wire, 0x81)


@OASIS
def test_a_server_s_packets_are_not_a_client_s(node, version):
    for data in (b"\x20\x02\0\0" if version == 4 else b"\x20\x03\0\0\0", packet(0x90, b"\0\x07\0" + b"\0" * (version == 5)),
                 packet(0xB0, b"\0\x07" + b"\0\0" * (version == 5)), PONG):
        with Wire(node, version) as wire:
            wire.send(data)
            ended(wire, 0x82)
