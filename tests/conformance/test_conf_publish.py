"""PUBLISH and its acknowledgements, qualities of service, order: 3.3 to 3.7, 4.3 to 4.6 and 4.9 of both standards."""

import struct
import time

import pytest

from mqtt_wire import PING, PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL, Message, Wire, packet, puback, pubcomp, publish
from mqtt_wire import pubrec, pubrel, text, unsubscribe, user, varint
from node import spans, wait_until
from speak import ALL, OASIS, client, ended, hear, hear_all, present, send_once
from test_mqtt_five import prop, property_walk

SETTINGS = {"limit.publish_open": 20, "mqtt.topic_aliases": 4, "limit.message_bytes": 4096}


def number_of(body):
    return struct.unpack(">H", body[:2])[0]


def marked(node, name, hearer, topic):
    """Nothing was sent to that topic before this."""
    with Wire(node, 5, name + "m") as marker:
        send_once(marker, topic, b"marker", 1)
    assert hear(hearer).payload == b"marker"


# --- 3.3.1: DUP, QoS, RETAIN ------------------------------------------------------------------------------------

@ALL
def test_dup_is_not_passed_on(node, version, name):
    with Wire(node, version, name) as wire, Wire(node, 5, name + "s") as speaker:
        wire.subscribe((name, 2))
        for qos in (1, 2):
            send_once(speaker, name, b"x", qos, dup=True)
            message = hear(wire)
            assert (message.qos, message.dup) == (qos, False)


@OASIS
def test_dup_with_qos_0(node, version):
    with Wire(node, version) as wire:
        wire.send(publish("t", b"x", version=version, flags=0x08))
        ended(wire, 0x81)


@ALL
def test_qos_3(node, version, name):
    with Wire(node, version, name) as wire:
        wire.send(publish("t", b"\0\1x", version=version, flags=0x06))
        ended(wire, 0x81)


@ALL
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_retained(node, version, name, qos):
    """The last one of a topic, with its quality; told to who subscribes then, marked; replaced; removed by an empty one."""
    def kept(filter, options=2):
        with Wire(node, version, name + "late") as late:
            late.subscribe((filter, options))
            late.send(PING)
            found = []
            while True:
                first, body = late.packet()
                if first >> 4 == 13:
                    return found
                if first >> 4 == PUBLISH:
                    message = Message(first, body, version)
                    found.append((message.topic, message.payload, message.qos, message.retained))

    with Wire(node, version, name) as wire:
        send_once(wire, name + "/a", b"1", qos, retain=True)
        send_once(wire, name + "/b", b"other", qos, retain=True)
        send_once(wire, name + "/a", b"2", qos, retain=True)
        send_once(wire, name + "/a", b"not kept", qos)  # neither kept nor in the way
        settle(node, wire, name)
        assert kept(name + "/a") == [(name + "/a", b"2", qos, True)]
        assert sorted(kept(name + "/+")) == [(name + "/a", b"2", qos, True), (name + "/b", b"other", qos, True)]
        send_once(wire, name + "/a", b"", qos, retain=True)
        settle(node, wire, name)
        assert kept(name + "/+") == [(name + "/b", b"other", qos, True)]
        send_once(wire, name + "/b", b"", qos)  # without RETAIN it removes nothing
        settle(node, wire, name)
        assert kept(name + "/+") == [(name + "/b", b"other", qos, True)]


def settle(node, wire, name):
    """What was sent with QoS 0 before it is taken when this is acknowledged."""
    send_once(wire, name, b"", 1, number=77)


@ALL
def test_an_empty_retained_message_is_passed_on(node, version, name):
    with Wire(node, version, name) as wire, Wire(node, 5, name + "s") as speaker:
        wire.subscribe((name, 1))
        send_once(speaker, name, b"x", 1, retain=True)
        send_once(speaker, name, b"", 1, retain=True)
        got = hear(wire), hear(wire)
        assert [(m.payload, m.retained) for m in got] == [(b"x", False), (b"", False)]
        with Wire(node, version, name + "late") as late:
            late.subscribe((name, 1))
            late.ping()
            assert late.quiet(0)


def test_retain_handling(node, name):
    with Wire(node, 5, name + "s") as speaker:
        send_once(speaker, name, b"kept", 1, retain=True)

    def brings(wire, handling):
        wire.subscribe((name, 1 | handling << 4))
        wire.send(PING)
        first, body = wire.packet()
        if first == 0xD0:
            return False
        message = Message(first, body, 5)
        assert message.retained and message.payload == b"kept"
        wire.send(puback(message.number))
        assert wire.packet()[0] == 0xD0
        return True

    with Wire(node, 5, name) as wire:
        assert not brings(wire, 2)  # never
        assert not brings(wire, 1)  # it is there already
        assert brings(wire, 0)  # always
        assert brings(wire, 0)
        wire.send(unsubscribe(5, name))
        wire.packet()
        assert brings(wire, 1)  # it is new


@pytest.mark.parametrize("as_published", [False, True])
def test_retain_as_published(node, name, as_published):
    with Wire(node, 5, name) as wire, Wire(node, 5, name + "s") as speaker:
        wire.subscribe((name, 1 | as_published << 3))
        for retain in (True, False):
            send_once(speaker, name, b"x", 1, retain=retain)
            assert hear(wire).retained == (retain and as_published)


@pytest.mark.parametrize("version", [3, 4])
def test_retain_of_a_live_message_is_0(node, version, name):
    with Wire(node, version, name) as wire, Wire(node, 5, name + "s") as speaker:
        wire.subscribe((name, 1))
        send_once(speaker, name, b"x", 1, retain=True)
        assert not hear(wire).retained


# --- 3.3.2: topic name and properties ---------------------------------------------------------------------------

@ALL
@pytest.mark.parametrize("topic", ["#", "a/#", "+", "a/+/b", "a+", "a#b"])
def test_no_wildcards_in_a_topic_name(node, version, name, topic):
    with Wire(node, version, name) as wire:
        wire.send(publish(topic, b"x", 1, 7, version))
        ended(wire, 0x90)


@ALL
def test_a_topic_name_is_there(node, version, name):
    for data in (packet(0x30), packet(0x30, b"\0"), packet(0x30, b"\0\x05abc"), publish("", b"x", version=version)):
        with Wire(node, version, name) as wire:
            wire.send(data)
            ended(wire, 0x82 if data == publish("", b"x") else 0x81)


PROPS = {"payload format": b"\x01\x01", "content type": b"\x03" + text("text/plain; x=\u00fc"),
         "response topic": b"\x08" + text("answers/\u2603"), "correlation": b"\x09" + text(bytes(range(256))),
         "user properties": user("b", "1") + user("a", "2") + user("b", "1") + user("", "")}


@pytest.mark.parametrize("what", [*PROPS, "all"])
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_properties_pass_unaltered(node, name, what, qos):
    sent = PROPS.get(what) or b"".join(PROPS.values())
    with Wire(node, 5, name) as wire, Wire(node, 5, name + "s") as speaker, Wire(node, 5, name + "k") as late:
        wire.subscribe((name, 2))
        send_once(speaker, name, b"payload", qos, retain=True, props=sent)
        settle(node, speaker, name + "/settled")
        late.subscribe((name, 2))
        for receiver in (wire, late):
            message = hear(receiver)
            assert property_walk(message.props) == property_walk(sent)
            assert message.payload == b"payload"


@pytest.mark.parametrize("what, props, code", [
    ("response topic with a wildcard", b"\x08" + text("a/+"), 0x82), ("response topic empty", b"\x08\0\0", 0x82),
    ("payload format 2", b"\x01\x02", 0x82), ("alias 0", b"\x23\0\0", 0x94), ("alias too high", b"\x23\0\x05", 0x94),
    ("subscription identifier", b"\x0b\x01", 0x82), ("unknown", b"\x04\x01", 0x81),
    *[(f"{name} twice", value * 2, 0x82) for name, value in list(PROPS.items())[:4]],
    ("expiry twice", b"\x02\0\0\0\x09" * 2, 0x82), ("of CONNECT", b"\x21\0\x01", 0x81)])
def test_properties_that_may_not_be(node, what, props, code):
    with Wire(node, 5) as wire:
        wire.send(publish("t", b"x", 1, 7, props=props))
        ended(wire, code)


def test_every_alias_up_to_the_maximum(node, name):
    """MQTT-3.3.2-12; and no alias of one connection is known to the next (MQTT-3.3.2-7)."""
    with Wire(node, 5, name + "h") as hearer:
        hearer.subscribe((name + "/#", 0))
        with Wire(node, 5, name) as wire:
            for alias in range(1, 5):
                wire.send(publish(f"{name}/{alias}", b"first", props=b"\x23\0" + bytes([alias])))
            for alias in range(4, 0, -1):
                wire.send(publish("", b"again", props=b"\x23\0" + bytes([alias])))
            wire.send(publish(name + "/new", b"first", props=b"\x23\0\x01") + publish("", b"again", props=b"\x23\0\x01"))
            wire.ping()
        heard = [hearer.message() for _ in range(10)]
        assert [m.topic[len(name) + 1:] for m in heard] == ["1", "2", "3", "4", "4", "3", "2", "1", "new", "new"]
        assert all(m.props == b"" for m in heard)  # an alias is not passed on
        with Wire(node, 5, name) as wire:
            wire.send(publish("", b"x", props=b"\x23\0\x01"))
            ended(wire, 0x82)


@pytest.mark.parametrize("maximum", [0, 1, 2, 65535])
def test_aliases_of_the_server(node, name, maximum):
    """None unless the client allows them, none above its maximum (MQTT-3.1.2-26, -27, MQTT-3.3.2-11); each can be resolved."""
    props = b"\x22" + maximum.to_bytes(2, "big") if maximum else b""
    with Wire(node, 5, name, props=props) as wire, Wire(node, 5, name + "s") as speaker:
        wire.subscribe((name + "/#", 0))
        known = {}
        for i in range(12):
            send_once(speaker, f"{name}/topic{i % 3}", b"%d" % i, 1)
            message = wire.message()
            aliases = prop(message, 0x23)
            assert all(1 <= alias <= maximum for alias in aliases)
            if aliases and message.topic:
                known[aliases[0]] = message.topic
            assert (message.topic or known[aliases[0]]) == f"{name}/topic{i % 3}"


# --- 3.3.4, 4.3: who answers what -------------------------------------------------------------------------------

@ALL
def test_the_answer_of_each_quality(node, version, name):
    with Wire(node, version, name) as wire:
        wire.send(publish(name, b"x", 0, version=version) + PING)
        assert wire.packet()[0] == 0xD0  # none
        wire.send(publish(name, b"x", 1, 5, version))
        assert wire.packet() == (0x40, b"\0\x05")
        wire.send(publish(name, b"x", 2, 6, version))
        assert wire.packet() == (0x50, b"\0\x06")
        wire.send(pubrel(6))
        assert wire.packet() == (0x70, b"\0\x06")


@ALL
def test_the_server_sends_as_a_sender_must(node, version, name):
    """DUP 0, a free identifier each, PUBREL for a PUBREC and not the PUBLISH again, nothing again without a reconnect."""
    with Wire(node, version, name) as wire, Wire(node, 5, name + "s") as speaker:
        wire.subscribe((name, 2))
        seen = set()
        for i in range(6):
            send_once(speaker, name, b"%d" % i, i % 3)
            message = wire.message(acknowledge=False)
            assert (message.payload, message.qos, message.dup) == (b"%d" % i, i % 3, False)
            assert message.number not in seen
            if message.qos:
                seen.add(message.number)
            if message.qos == 2:
                for _ in range(2):  # a second PUBREC gets the same PUBREL
                    wire.send(pubrec(message.number))
                    assert number_of(wire.expect(PUBREL)) == message.number
        wire.ping()
        assert wire.quiet(0)


@ALL
def test_puback_frees_the_identifier(node, version, name):
    """The same identifier after PUBACK is a new message, DUP or not."""
    with Wire(node, 5, name + "h") as hearer, Wire(node, version, name) as wire:
        hearer.subscribe(name)
        for payload, dup in ((b"1", False), (b"2", True), (b"3", False)):
            send_once(wire, name, payload, 1, number=7, dup=dup)
        assert [hear(hearer).payload for _ in range(3)] == [b"1", b"2", b"3"]


@ALL
def test_qos_2_from_the_client(node, version, name):
    """Before PUBREL a repetition is answered and passed on to nobody; after PUBCOMP the identifier is new."""
    with Wire(node, 5, name + "h") as hearer, Wire(node, version, name) as wire:
        hearer.subscribe((name, 2))
        for turn in range(2):
            for dup in (False, True, True):
                wire.send(publish(name, b"%d" % turn, 2, 7, version, flags=dup << 3 | 4))
                assert wire.expect(PUBREC) == b"\0\x07"
            for _ in range(2):
                wire.send(pubrel(7))
                assert wire.expect(PUBCOMP)[:2] == b"\0\x07"
        assert [m.payload for m in hear_all(hearer, count=2)] == [b"0", b"1"]
        marked(node, name, hearer, name)


def test_a_refusal_frees_the_identifier(node, name):
    """MQTT-4.3.3-9: after PUBREC with 0x80 or more the same identifier is a new message."""
    with Wire(node, 5, name + "h") as hearer, Wire(node, 5, name) as wire:
        hearer.subscribe((name, 2))
        wire.send(publish(name, b"\xff", 2, 7, props=b"\x01\x01"))
        assert wire.expect(PUBREC)[:3] == b"\0\x07\x99"
        send_once(wire, name, b"good", 2, number=7)
        assert hear(hearer).payload == b"good"


@pytest.mark.parametrize("qos, answer", [(1, PUBACK), (2, PUBREC)])
def test_a_message_that_the_client_refuses(node, name, qos, answer):
    """MQTT-4.4.0-2: 0x80 or more is an acknowledgement, and it is not sent again; the identifier is free."""
    with client(node, 5, name, clean=False, props=b"\x21\0\x01") as wire, Wire(node, 5, name + "s") as speaker:
        wire.subscribe((name, qos))
        for payload in (b"1", b"2"):
            send_once(speaker, name, payload, qos)
        message = wire.message(acknowledge=False)
        wire.send(packet(answer << 4, struct.pack(">H", message.number) + b"\x83"))
        message = wire.message(acknowledge=False)  # so its place is free
        assert message.payload == b"2"
        wire.send(packet(answer << 4, struct.pack(">H", message.number) + b"\x97"))
        wire.ping()
    with client(node, 5, name, clean=False) as wire:
        assert present(wire)
        wire.ping()
        assert wire.quiet(0)


@ALL
@pytest.mark.parametrize("qos", [1, 2])
def test_what_was_not_acknowledged_comes_again(node, version, name, qos):
    """When the client comes back, with DUP, the same identifiers, in the order of the first time."""
    with client(node, version, name, clean=False) as wire, Wire(node, 5, name + "s") as speaker:
        wire.subscribe((name, qos))
        for i in range(5):
            send_once(speaker, name, b"%d" % i, qos)
        first = [wire.message(acknowledge=False) for _ in range(5)]
        assert not any(m.dup for m in first)
    with client(node, version, name, clean=False) as wire:
        again = hear_all(wire, b"4") if qos == 1 else [wire.message(acknowledge=False) for _ in range(5)]
        assert [(m.payload, m.number, m.dup) for m in again] == [(m.payload, m.number, True) for m in first]


@ALL
def test_pubrel_comes_again_and_not_publish(node, version, name):
    with client(node, version, name, clean=False) as wire, Wire(node, 5, name + "s") as speaker:
        wire.subscribe((name, 2))
        send_once(speaker, name, b"x", 2)
        message = wire.message()
        wire.send(pubrec(message.number))
        assert number_of(wire.expect(PUBREL)) == message.number
    for _ in range(2):
        with client(node, version, name, clean=False) as wire:
            assert number_of(wire.expect(PUBREL)) == message.number
    with client(node, version, name, clean=False) as wire:
        assert number_of(wire.expect(PUBREL)) == message.number
        wire.send(pubcomp(message.number))
        wire.ping()
    with client(node, version, name, clean=False) as wire:
        wire.ping()
        assert wire.quiet(0)


@spans(1, 4, 20)
def test_expiry_does_not_stop_a_handshake(node, name, span):
    """MQTT-4.3.3-7, -13: what was sent and has expired since goes on to PUBCOMP, also on another connection."""
    expiry, name = b"\x02\0\0\0" + bytes([span]), f"{name}-{span}"
    with client(node, 5, name, clean=False) as wire, Wire(node, 5, name + "s") as speaker:
        wire.subscribe((name, 2))
        speaker.send(publish(name, b"x", 2, 7, props=expiry))
        assert speaker.expect(PUBREC) == b"\0\x07"
        message = wire.message()
        began = time.monotonic()
        wait_until(lambda: time.monotonic() - began > span + 0.1, "the message to expire")
        speaker.send(pubrel(7))
        assert speaker.expect(PUBCOMP) == b"\0\x07"
        wire.send(pubrec(message.number))
        assert number_of(wire.expect(PUBREL)) == message.number
        wire.send(pubcomp(message.number))
        wire.ping()


# --- 4.6, 4.9, 3.3.4: order and windows -------------------------------------------------------------------------

@ALL
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_order(node, version, name, qos):
    with Wire(node, version, name) as wire, Wire(node, version, name + "s") as speaker:
        wire.subscribe((name, qos))
        speaker.send(b"".join(publish(name, b"%d" % i, 1, i + 1, version) for i in range(20)))
        assert [number_of(speaker.expect(PUBACK)) for _ in range(20)] == list(range(1, 21))
        send_once(speaker, name, b"end", 2, number=30)
        heard = hear_all(wire, b"end")
        assert [m.payload for m in heard] == [b"%d" % i for i in range(20)] + [b"end"]


@OASIS
def test_pubrecs_and_pubcomps_in_order(node, version, name):
    order = [9, 3, 12, 1, 7]
    with Wire(node, version, name) as wire:
        wire.send(b"".join(publish(name, b"x", 2, number, version) for number in order))
        assert [number_of(wire.expect(PUBREC)) for _ in order] == order
        wire.send(b"".join(pubrel(number) for number in order))
        assert [number_of(wire.expect(PUBCOMP)) for _ in order] == order


@OASIS
def test_pubrels_in_the_order_of_the_pubrecs(node, version, name):
    with Wire(node, version, name) as wire, Wire(node, 5, name + "s") as speaker:
        wire.subscribe((name, 2))
        for i in range(5):
            send_once(speaker, name, b"x", 2)
        numbers = [wire.message().number for _ in range(5)]
        order = [numbers[i] for i in (3, 0, 4, 1, 2)]
        wire.send(b"".join(pubrec(number) for number in order))
        assert [number_of(wire.expect(PUBREL)) for _ in order] == order


@pytest.mark.parametrize("qos", [1, 2])
def test_the_window_of_the_client(node, name, qos):
    """MQTT-3.3.4-9, -10, MQTT-4.9.0-1 to -3: two messages and no more, but everything else as if nothing were."""
    with Wire(node, 5, name, props=b"\x21\0\x02") as wire, Wire(node, 5, name + "s") as speaker:
        wire.subscribe((name, qos), (name + "/0", 0))
        for i in range(5):
            send_once(speaker, name, b"%d" % i, qos)
        out = [wire.message(acknowledge=False) for _ in range(2)]
        wire.ping()
        assert wire.quiet(0)
        send_once(speaker, name + "/0", b"no quality", 0)
        assert wire.message().payload == b"no quality"
        assert wire.subscribe(name + "/more") == b"\x01"
        assert wire.publish(name + "/else", b"x") == 0
        seen = [m.payload for m in out]
        while len(seen) < 5:
            message = out.pop(0)
            wire.send(puback(message.number) if qos == 1 else pubrec(message.number))
            if qos == 2:
                assert number_of(wire.expect(PUBREL)) == message.number
                wire.ping()  # PUBREC alone makes no room
                assert wire.quiet(0)
                wire.send(pubcomp(message.number))
            out.append(wire.message(acknowledge=False))
            seen.append(out[-1].payload)
        assert seen == [b"%d" % i for i in range(5)]


def test_our_window(node, name):
    """3.3.4: a client that sends more than the Receive Maximum of CONNACK. Refused ones are answered and make room."""
    with Wire(node, 5, name) as wire:
        for number in range(1, 21):
            wire.send(publish(name, b"x", 2, number))
        assert [number_of(wire.expect(PUBREC)) for _ in range(20)] == list(range(1, 21))
        wire.send(publish(name, b"x", 0) + PING)  # QoS 0 does not count
        assert wire.packet()[0] == 0xD0
        wire.send(pubrel(1))
        assert wire.expect(PUBCOMP) == b"\0\x01"
        wire.send(publish(name, b"x", 1, 30))
        assert wire.expect(PUBACK) == b"\0\x1e"
        wire.send(publish(name, b"\xff", 2, 31, props=b"\x01\x01"))
        assert wire.expect(PUBREC)[:3] == b"\0\x1f\x99"
        wire.send(publish(name, b"x", 2, 32))
        assert wire.expect(PUBREC) == b"\0\x20"
        wire.send(publish(name, b"x", 1, 33))
        ended(wire, 0x93)


def test_a_packet_over_our_maximum(node, name):
    with Wire(node, 5, name) as wire:
        wire.send(b"\x32" + varint(200000000))
        ended(wire, 0x95)


# --- 3.4 to 3.7 -------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", [PUBACK, PUBREC, PUBREL, PUBCOMP])
def test_codes_that_a_client_may_not_say(node, kind):
    """MQTT-3.4.2-1, MQTT-3.5.2-1, MQTT-3.6.2-1, MQTT-3.7.2-1."""
    for code in (0x01, 0x11, 0x8E, 0xFF, 0x10 if kind in (PUBACK, PUBREC) else 0x83):
        with Wire(node, 5) as wire:
            wire.send(packet(kind << 4 | (2 if kind == PUBREL else 0), b"\0\x07" + bytes([code])))
            ended(wire, 0x82)


def test_unknown_identifiers(node):
    with Wire(node, 5) as wire:
        wire.send(puback(9) + pubcomp(9) + pubrec(9))
        assert wire.packet() == (0x62, b"\0\x09\x92")
        wire.send(pubrel(9))
        assert wire.packet() == (0x70, b"\0\x09\x92")
        wire.ping()
    with Wire(node, 4, "unknown") as wire:
        wire.send(puback(9) + pubcomp(9) + pubrec(9))
        assert wire.packet() == (0x62, b"\0\x09")
        wire.send(pubrel(9))
        assert wire.packet() == (0x70, b"\0\x09")
        wire.ping()


# --- 3.3.5 and 4.5 ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("version", [3, 4])
def test_a_publish_that_is_not_permitted(node, version, name):
    """MQTT-3.3.5-2: a positive acknowledgement, or the end; it is the end."""
    with Wire(node, version, name) as wire:
        wire.send(publish("$SYS/" + name, b"x", 1, 7, version))
        assert wire.rest() == b""


@OASIS
def test_the_highest_quality_of_all_that_match(node, version, name):
    """MQTT-3.3.4-2, 3.1.1 MQTT-3.3.5-1. Each filter delivers for itself (3.3.4), so one of the copies has it."""
    with Wire(node, version, name) as wire, Wire(node, 5, name + "s") as speaker:
        wire.subscribe((name + "/#", 1), (name + "/x", 2), (name + "/+", 0))
        send_once(speaker, name + "/x", b"one", 2)
        assert sorted(message.qos for message in hear_all(wire, count=3)) == [0, 1, 2]


def test_subscription_identifiers(node, name):
    """MQTT-3.3.4-3, -5: each copy carries that of its filter, if it has one."""
    with Wire(node, 5, name) as wire, Wire(node, 5, name + "s") as speaker:
        wire.subscribe((name + "/#", 0), props=b"\x0b\x05")
        wire.subscribe((name + "/x", 0), props=b"\x0b" + varint(268435455), number=2)
        wire.subscribe((name + "/+", 0), number=3)
        send_once(speaker, name + "/x", b"one", 1)
        found = sorted(prop(wire.message(), 0x0B) for _ in range(3))
        assert found == [[], [5], [268435455]]
