"""SUBSCRIBE, UNSUBSCRIBE and what topic filters match: 3.8 to 3.11, 4.5 and 4.7 of both standards."""

import struct

import pytest

from mqtt_wire import PUBACK, SUBACK, UNSUBACK, Message, Wire, puback, publish, subscribe, unsubscribe
from speak import ALL, CODES, OASIS, client, ended, hear, hear_all, send_once, unsubscribed

SETTINGS = {"limit.subscriptions": 20}


@ALL
def test_no_filter_at_all(node, version, name):
    for data in (subscribe(7, version=version), unsubscribe(7, version=version)):
        with Wire(node, version, name) as wire:
            wire.send(data)
            ended(wire, 0x82)


@OASIS
@pytest.mark.parametrize("options", [0x03, 0x04, 0x08, 0x10, 0x30, 0x40, 0x80, 0xC1])
def test_options_that_may_not_be(node, version, options):
    """3.1.1: only the quality is there. 5.0: QoS 3 and Retain Handling 3 are against the protocol, reserved bits malformed."""
    with Wire(node, version) as wire:
        wire.send(subscribe(7, ("t", options), version=version))
        if version == 5 and options in (0x04, 0x08, 0x10):
            assert wire.expect(SUBACK) == b"\x00\x07\x00\x00"
        else:
            ended(wire, 0x82 if options in (0x03, 0x30) else 0x81)


def test_no_local_of_a_shared_subscription(node):
    with Wire(node) as wire:
        wire.send(subscribe(7, ("$share/g/t", 0x05)))
        ended(wire, 0x82)


def test_no_local(node, name):
    """MQTT-3.8.3-3; other clients' messages come."""
    with Wire(node, 5, name) as wire, Wire(node, 5, name + "o") as other:
        wire.subscribe((name, 0x05))
        send_once(wire, name, b"own", 1)
        send_once(other, name, b"other", 1)
        assert hear(wire).payload == b"other"
        wire.ping()
        assert wire.quiet(0)


WRONG = ["#/a", "a/#/b", "a#", "a/b#", "+a", "a+", "a/b+/c", "a/+b", "##", "++", ""]
RIGHT = ["#", "+", "/", "a/#", "a/+", "+/+", "+/#", "/+", "+/a/+", "a//b", "a/+/#", "/#"]


@OASIS
def test_filters(node, version, name):
    """A code for each, in their order (MQTT-3.8.4-6, MQTT-3.9.3-1); wrong ones do no harm to the others."""
    mixed = [item for pair in zip(WRONG, RIGHT) for item in pair] + RIGHT[len(WRONG):]
    fail = 0x8F if version == 5 else 0x80
    with Wire(node, version, name) as wire:
        codes = wire.subscribe(*[(item, place % 3) for place, item in enumerate(mixed)])
        assert list(codes) == [fail if item in WRONG else place % 3 for place, item in enumerate(mixed)]
        assert set(codes) <= (CODES[SUBACK] if version == 5 else {0, 1, 2, 0x80})


@ALL
def test_a_suback_for_many(node, version, name):
    """As many SUBSCRIBEs, but for one SUBACK; what is over the limit fails, the others do not (MQTT-3.8.4-5)."""
    filters = [(f"{name}/{i}", i % 3) for i in range(20)]
    with Wire(node, version, name) as wire:
        assert list(wire.subscribe(*filters)) == [i % 3 for i in range(20)]
        with Wire(node, 5, name + "s") as speaker:
            for i in range(20):
                send_once(speaker, f"{name}/{i}", b"%d" % i, 2, number=i + 1)
        assert {m.payload: m.qos for m in hear_all(wire, count=20)} == {b"%d" % i: i % 3 for i in range(20)}
        if version > 3:
            assert list(wire.subscribe(name + "/20", (name + "/3", 2))) == [0x97 if version == 5 else 0x80, 2]


@ALL
@pytest.mark.parametrize("granted", [0, 1, 2])
def test_the_lower_of_both_qualities(node, version, name, granted):
    with Wire(node, version, name) as wire, Wire(node, 5, name + "s") as speaker:
        assert wire.subscribe((name, granted)) == bytes([granted])
        for qos in (0, 1, 2):
            send_once(speaker, name, b"x", qos)
            assert hear(wire).qos == min(qos, granted)


@ALL
def test_the_same_filter_again(node, version, name):
    """Replaces (MQTT-3.8.4-3): one copy, by the new options; retained ones come again; nothing is lost between."""
    with Wire(node, version, name) as wire, Wire(node, 5, name + "s") as speaker:
        send_once(speaker, name + "/kept", b"kept", 1, retain=True)
        wire.subscribe((name + "/#", 0))
        assert hear(wire).payload == b"kept"
        for i in range(10):
            speaker.send(publish(name + "/live", b"%d" % i, 1, i + 1))
            wire.send(subscribe(2, (name + "/#", 1), version=version))
        acks = [struct.unpack(">H", speaker.expect(PUBACK)[:2])[0] for _ in range(10)]
        assert acks == list(range(1, 11))
        send_once(speaker, name + "/live", b"end", 1)
        live, kept, subacks = [], 0, 0
        while not live or live[-1] != b"end":
            first, body = wire.packet()
            if first >> 4 == SUBACK:
                subacks += 1
                continue
            message = Message(first, body, version)
            if message.qos == 1:
                wire.send(puback(message.number))
            kept += message.payload == b"kept"
            live += [message.payload] if message.payload != b"kept" else []
        assert live == [b"%d" % i for i in range(10)] + [b"end"]
        assert kept >= 1


@OASIS
def test_unsubscribe(node, version, name):
    """Byte by byte (MQTT-3.10.4-1), a code for each in 5.0, in their order; answered also when nothing is there."""
    with Wire(node, version, name) as wire, Wire(node, 5, name + "s") as speaker:
        wire.subscribe((name + "/+", 0), (name + "/a", 0), (name + "/b", 0), number=1)
        codes = unsubscribed(wire, name + "/A", name + "/a", name + "/c", name + "/+/", name + "/#", name + "/a")
        assert codes == (b"\x11\x00\x11\x11\x11\x11" if version == 5 else b"")
        assert set(codes) <= CODES[UNSUBACK]
        send_once(speaker, name + "/a", b"1", 1)
        assert wire.message().payload == b"1"  # by the wildcard, and by it alone
        wire.ping()
        assert unsubscribed(wire, name + "/+") == (b"\x00" if version == 5 else b"")
        send_once(speaker, name + "/a", b"2", 1)
        send_once(speaker, name + "/b", b"3", 1)
        assert wire.message().payload == b"3"
        assert unsubscribed(wire, "never/there") == (b"\x11" if version == 5 else b"")


@ALL
@pytest.mark.parametrize("qos", [1, 2])
def test_unsubscribe_lets_what_is_under_way_come_to_its_end(node, version, name, qos):
    """MQTT-3.10.4-3: also across a reconnect."""
    with client(node, version, name, clean=False) as wire, Wire(node, 5, name + "s") as speaker:
        wire.subscribe((name, qos))
        send_once(speaker, name, b"under way", qos)
        message = wire.message(acknowledge=False)
        unsubscribed(wire, name)
        send_once(speaker, name, b"too late", qos)
        wire.ping()
    with client(node, version, name, clean=False) as wire:
        again = hear(wire)
        assert (again.payload, again.number, again.dup) == (b"under way", message.number, True)
        wire.ping()
        assert wire.quiet(0)


MATCHES = [("sport/tennis/player1/#", "sport/tennis/player1", True), ("sport/tennis/player1/#", "sport/tennis/player1/a/b", True),
           ("sport/#", "sport", True), ("#", "a", True), ("#", "/", True), ("sport/+", "sport", False), ("sport/+", "sport/", True),
           ("+/+", "/finance", True), ("/+", "/finance", True), ("+", "/finance", False), ("a/+/c", "a/b/c", True),
           ("a/+/c", "a/b/d", False), ("a/b", "A/b", False), ("a/b", "a/b/", False), ("a/b", "/a/b", False),
           ("a b/c", "a b/c", True), ("a//b", "a//b", True), ("a/b", "a//b", False), ("e\u0301", "\u00e9", False),
           ("\U0010ffff", "\U0010ffff", True), ("+/x", "\ufeff/x", True), ("a/+/+/d", "a///d", True)]


@ALL
def test_what_a_filter_matches(node, version, name):
    """4.7: levels, letters as they are, no normalisation. All rows at once; a marker tells when all has come."""
    for filter, topic, matches in MATCHES:
        with Wire(node, version, name) as wire:
            wire.subscribe((filter, 0), (name + "/marker", 0))
            wire.send(publish(topic, b"it", version=version) + publish(name + "/marker", b"marker", version=version))
            heard = hear_all(wire, b"marker")
            assert (topic in [m.topic for m in heard]) == matches, (filter, topic)


@ALL
@pytest.mark.parametrize("filter", ["#", "+/#", "+/monitor/x", "+/+/+", "/#"])
def test_wildcards_do_not_match_dollar(node, version, name, filter):
    """MQTT-4.7.2-1: nothing of $SYS or $user comes by a filter that begins with a wildcard, retained or live."""
    with Wire(node, version, name) as wire:
        assert wire.subscribe((filter, 0), (name, 0)) == b"\x00\x00"
        send_once(wire, name, b"marker", 0)
        assert all(not m.topic.startswith("$") for m in hear_all(wire, b"marker"))


@ALL
def test_clients_do_not_publish_to_dollar(node, version, name):
    """4.7.2: so that no client can use such names to speak with another."""
    with Wire(node, version, name) as wire:
        for topic in ("$SYS/broker/x", "$user/ann", "$anything", "$"):
            wire.send(publish(topic, b"x", 1, 7, version))
            if version < 5:
                assert wire.rest() == b""
                return
            assert wire.expect(PUBACK)[:3] == b"\0\x07\x87"


@OASIS
def test_the_longest_and_the_shortest_name(make_node, version, name):
    """MQTT-4.7.3-1, -3: one character; 65,535 bytes where limit.topic_bytes allows them."""
    node = make_node({"limit.topic_bytes": 65535})
    for topic in ("x", "y" * 65535):
        with Wire(node, version, name) as wire:
            wire.subscribe((topic, 1))
            send_once(wire, topic, b"", 0)
            assert wire.message().topic == topic


@ALL
def test_messages_are_kept_for_sessions_that_are_away(node, version, name):
    """MQTT-4.5.0-1 and 3.1.1 MQTT-3.1.2-5: QoS 1 and 2 of every subscription of the session."""
    with client(node, version, name, clean=False) as wire:
        wire.subscribe((name + "/+", 1), (name + "/2/#", 2))
    with Wire(node, 5, name + "s") as speaker:
        send_once(speaker, name + "/1", b"one", 1)
        send_once(speaker, name + "/2/x", b"two", 2)
        send_once(speaker, name + "/3/x", b"not subscribed", 2)
    with client(node, version, name, clean=False) as wire:
        heard = hear_all(wire, count=2)
        assert {(m.payload, m.qos, m.retained) for m in heard} == {(b"one", 1, False), (b"two", 2, False)}
        wire.ping()
        assert wire.quiet(0)
