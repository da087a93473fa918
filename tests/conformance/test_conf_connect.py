"""CONNECT and CONNACK, 3.1 and 3.2 of both standards; and MQIsdp, MQTT 3.1."""

import time

import pytest

from mqtt_wire import BYE, PING, PUBACK, PUBCOMP, PUBLISH, PUBREC, SUBACK, Wire, connect, packet, puback, publish
from mqtt_wire import pubrel, subscribe, text, user
from node import spans, wait_until
from speak import ALL, OASIS, client, ended, hear, hear_all, present, refused, send_once, will
from test_mqtt_five import connack_props

SETTINGS = {"mqtt.connect_timeout_ms": 60000, "out.stall_ms": 60000}

# --- the first packet, and a second -----------------------------------------------------------------------------

FIRST = {"PINGREQ": PING, "PUBLISH": publish("t", b"x"), "PUBLISH QoS 1": publish("t", b"x", 1, 7), "SUBSCRIBE": subscribe(7, "t"),
         "PUBACK": puback(7), "DISCONNECT": BYE, "AUTH": packet(0xF0), "CONNACK": b"\x20\x02\0\0"}


@pytest.mark.parametrize("what", FIRST)
def test_the_first_packet_is_connect(node, what):
    with Wire(node, connected=False) as wire:
        wire.send(FIRST[what])
        assert wire.rest() == b""


@ALL
def test_a_second_connect(node, version, name):
    with client(node, version, name) as wire:
        wire.send(connect(version, name) + publish(name, b"never", 1, 7, version))
        ended(wire, 0x82)


# --- protocol name, level, flags --------------------------------------------------------------------------------

@pytest.mark.parametrize("protocol", ["MQTT ", "mqtt", "MQT", "HTTP", ""])
def test_another_protocol(node, protocol):
    refused(node, connect(4, "c", name=protocol) if protocol else packet(0x10, b"\0\0\x04\x02\0\0" + text("c")), 4, 1)


@pytest.mark.parametrize("level", [0, 1, 2, 3, 6, 7, 0x83, 0x84, 255])
def test_a_level_that_is_not_spoken(node, level):
    refused(node, connect(4, "c", level=level), 4, 1)


@OASIS
def test_the_reserved_connect_flag(node, version):
    refused(node, connect(version, "c", 0x03), version, 0x81 if version == 5 else None)


WRONG_CONNECTS = {
    "will QoS 3": lambda v: connect(v, "c", 0x1E, rest=will("w", b"x", v)),
    "will QoS without a will": lambda v: connect(v, "c", 0x0A),
    "will retain without a will": lambda v: connect(v, "c", 0x22),
    "a will that is not announced": lambda v: connect(v, "c", 0x02, rest=will("w", b"x", v)),
    "a will announced and missing": lambda v: connect(v, "c", 0x06),
    "will topic alone": lambda v: connect(v, "c", 0x06, rest=(b"\0" if v == 5 else b"") + text("w")),
    "user name announced and missing": lambda v: connect(v, "c", 0x82),
    "user name not announced": lambda v: connect(v, "c", 0x02, rest=text("u")),
    "password announced and missing": lambda v: connect(v, "c", 0xC2, rest=text("u")),
    "password not announced": lambda v: connect(v, "c", 0x82, rest=text("u") + text("p")),
    "no client identifier": lambda v: packet(0x10, text("MQTT") + bytes([v, 2, 0, 0]) + b"\0" * (v == 5)),
    "identifier behind the will": lambda v: packet(0x10, text("MQTT") + bytes([v, 6, 0, 0]) + b"\0" * (v == 5)
                                                   + will("w", b"x", v) + b"\0\x09c"),
}


@OASIS
@pytest.mark.parametrize("what", WRONG_CONNECTS)
def test_a_connect_that_does_not_conform(node, version, what):
    """3.1.1: closed without CONNACK. 5.0: 0x81, and closed. What stands behind it is not looked at."""
    refused(node, WRONG_CONNECTS[what](version) + publish("t", b"x", 1, 7, version), version, 0x81 if version == 5 else None)


def test_a_password_without_a_user_name(node):
    """3.1.1 forbids it; 5.0 does not: there it is a password that nobody has."""
    refused(node, connect(4, "c", 0x42, rest=text("p")), 4, None)
    refused(node, connect(5, "c", 0x42, rest=text("p")), 5, 0x86)


@OASIS
def test_the_fields_in_their_order(node, version, name):
    """Identifier, will properties, topic, payload; then name and password, which nobody has here."""
    with Wire(node, 5, name + "h") as hearer:
        hearer.subscribe(name)
        wire = client(node, version, name, flags=0x06, rest=will(name, b"payload", version))
        wire.close()
        assert hearer.message().payload == b"payload"
    refused(node, connect(version, name, 0xC6, rest=will(name, b"x", version) + text("u") + text("p")), version,
            0x86 if version == 5 else 4)


# --- sessions ---------------------------------------------------------------------------------------------------

@ALL
def test_clean_start_discards(node, version, name):
    with client(node, version, name, clean=False) as wire:
        wire.subscribe((name, 2))
    with Wire(node, 5, name + "s") as speaker:
        send_once(speaker, name, b"owed", 2)
    with client(node, version, name, clean=True, keep_s=0) as wire:
        assert not present(wire)
        wire.ping()
        assert wire.quiet(0)
        with Wire(node, 5, name + "s") as speaker:
            send_once(speaker, name, b"more", 1)
        wire.ping()
        assert wire.quiet(0)
    with client(node, version, name, clean=False) as wire:  # the clean session has left nothing either
        assert not present(wire)


@ALL
def test_a_session_goes_on(node, version, name):
    with client(node, version, name, clean=False) as wire:
        assert not present(wire)
        wire.subscribe((name + "/1", 1), (name + "/2", 2))
    with Wire(node, 5, name + "s") as speaker:
        for i in range(20):
            send_once(speaker, f"{name}/{1 + i % 2}", b"%d" % i, 2)
    with client(node, version, name, clean=False) as wire:
        assert present(wire) == (version > 3)  # 3.1 has no such flag
        heard = hear_all(wire, b"19")
        for qos in (1, 2):
            assert [m.payload for m in heard if m.qos == qos] == [b"%d" % i for i in range(qos - 1, 20, 2)]
    with client(node, version, name, clean=False) as wire:
        wire.ping()
        assert wire.quiet(0)


def test_no_expiry_interval_is_none(node, name):
    """3.1.2.11.2: absent or 0, the session ends with the connection, also with Clean Start 0."""
    for props in (b"", b"\x11\0\0\0\0"):
        with Wire(node, 5, name, flags=0, props=props) as wire:
            assert not present(wire)
            wire.subscribe(name)


@ALL
def test_retained_messages_outlive_sessions(node, version, name):
    with client(node, version, name, keep_s=0) as wire:
        wire.subscribe(name)
        send_once_retained(wire, name)
    with client(node, version, name, keep_s=0) as wire:
        wire.subscribe((name, 0))
        assert wire.message().payload == b"kept"


def send_once_retained(wire, topic):
    wire.send(publish(topic, b"kept", 0, version=wire.version, flags=0x01))
    assert wire.message().payload == b"kept"


# --- wills ------------------------------------------------------------------------------------------------------

@ALL
@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("retain", [0, 1])
def test_a_will(node, version, name, qos, retain):
    """Published when the connection ends without DISCONNECT, as a retained message or not, and once."""
    with Wire(node, 5, name + "h") as hearer:
        hearer.subscribe((name, 2 | 0x08))  # retain as published
        for _ in range(2):
            client(node, version, name, keep_s=0, flags=0x06 | qos << 3 | retain << 5,
                   rest=will(name, b"gone", version)).close()
            message = hear(hearer)
            assert (message.payload, message.qos, message.retained) == (b"gone", qos, bool(retain))
        client(node, version, name, keep_s=0).close()  # the will of before has gone with its session
        hearer.ping()
        assert hearer.quiet(0)
    with Wire(node, 5, name + "late") as late:
        late.subscribe(name)
        late.ping() if not retain else late.message()
        assert late.quiet(0)


@ALL
def test_no_will(node, version, name):
    """After DISCONNECT, and for whoever had none."""
    with Wire(node, 5, name + "h") as hearer:
        hearer.subscribe(name)
        wire = client(node, version, name, keep_s=0, flags=0x06, rest=will(name, b"gone", version))
        wire.send(BYE)
        assert wire.rest() == b""
        client(node, version, name, keep_s=0).close()
        with Wire(node, 5, name + "m") as marker:
            send_once(marker, name, b"marker", 1)
        assert hear(hearer).payload == b"marker"


def test_a_will_s_user_properties_keep_their_order(node, name):
    sent = user("z", "1") + user("a", "2") + user("z", "3") + user("a", "2")
    with Wire(node, 5, name + "h") as hearer:
        hearer.subscribe((name, 0))
        client(node, 5, name, keep_s=0, flags=0x06, rest=will(name, b"gone", 5, sent)).close()
        assert hearer.message().props == sent


def test_no_will_of_a_session_that_came_back(node, name):
    """The delay is an hour: only the end of the session could let the will out, or a mistake."""
    options = {"flags": 0x04, "rest": will(name, b"gone", 5, b"\x18\0\0\x0e\x10")}
    with Wire(node, 5, name + "h") as hearer:
        hearer.subscribe(name)
        client(node, 5, name, False, 7200, **options).close()
        with client(node, 5, name, False, 7200) as wire:
            assert present(wire)
            wire.send(BYE)
            assert wire.rest() == b""
        with Wire(node, 5, name + "m") as marker:
            send_once(marker, name, b"marker", 1)
        assert hear(hearer).payload == b"marker"


def test_a_will_leaves_when_the_session_ends_before_its_delay(node, name):
    """Clean Start ends it: the will goes at once, not after the hour."""
    with Wire(node, 5, name + "h") as hearer:
        hearer.subscribe(name)
        client(node, 5, name, False, 7200, flags=0x04, rest=will(name, b"gone", 5, b"\x18\0\0\x0e\x10")).close()
        with client(node, 5, name, True, 0) as wire:
            assert not present(wire)
            assert hear(hearer).payload == b"gone"


# --- client identifiers -----------------------------------------------------------------------------------------

LETTERS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


@ALL
def test_identifiers_that_must_be_allowed(node, version):
    for identifier in ("x", LETTERS[:23], LETTERS[23:46], LETTERS[39:], LETTERS, "\u00fc \u2603/+#"):
        with Wire(node, version, identifier) as wire:
            wire.ping()


def test_no_identifier(node):
    refused(node, connect(4, "", 0x00), 4, 2)
    refused(node, connect(3, "", 0x02), 3, 2)
    with Wire(node, 4, "") as one, Wire(node, 4, "") as other:  # each has its own: none takes the other over
        one.ping()
        other.ping()
        assert one.connack == b"\x00\x00"


def test_assigned_identifiers(node, name):
    """5.0: unique, told, and from then on as good as any."""
    seen = set()
    for _ in range(5):
        with Wire(node, 5, "", props=b"\x11\0\0\x0e\x10") as wire:
            assigned = connack_props(wire)[0x12]
            wire.subscribe(name)
            wire.ping()
        assert assigned and assigned not in seen
        seen.add(assigned)
    with Wire(node, 5, assigned, flags=0, props=b"\x11\0\0\0\0") as wire:
        assert present(wire)
    with Wire(node, 5, name) as wire:
        assert 0x12 not in connack_props(wire)


def test_the_identifier_is_the_session_s(node, name):
    with client(node, 5, name + "A", clean=False) as wire:
        wire.subscribe(name)
    for other in (name + "a", name + "A ", name + "A\u0301"):
        with client(node, 5, other, clean=False, keep_s=0) as wire:
            assert not present(wire)
    with client(node, 5, name + "A", clean=False, keep_s=0) as wire:
        assert present(wire)


# --- CONNACK ----------------------------------------------------------------------------------------------------

@ALL
def test_connack_comes_first_and_once(node, version, name):
    """Whatever is sent behind CONNECT, and also to a session that is owed something."""
    with client(node, version, name, clean=False) as wire:
        wire.subscribe(name)
    with Wire(node, 5, name + "s") as speaker:
        send_once(speaker, name, b"owed", 1)
    with Wire(node, version, connected=False) as wire:
        props = b"\x11\0\0\0\x09" if version == 5 else b""
        wire.send(connect(version, name, 0x00, props=props) + publish(name, b"x", 1, 7, version)
                  + subscribe(8, name + "/t", version=version) + PING)
        kinds = [wire.packet()[0] >> 4 for _ in range(6)]
        assert kinds[0] == 2 and sorted(kinds) == sorted([2, PUBLISH, PUBLISH, PUBACK, SUBACK, 13])


@ALL
def test_connack_in_bytes(node, version, name):
    """Flags and success; in 5.0 the properties that PROTOCOL.md names, each once."""
    with Wire(node, version, name, keep_alive=10) as wire:
        assert wire.connack[:2] == b"\x00\x00"
        if version < 5:
            assert len(wire.connack) == 2
        else:
            found = connack_props(wire)
            # All qualities, retaining, wildcards and identifiers are there, so nothing says that they are not.
            assert not {0x24, 0x25, 0x28, 0x29, 0x13, 0x15, 0x16, 0x1A, 0x1C, 0x1F} & set(found)
            assert found[0x21] > 0 and found[0x27] > 0 and found[0x22] > 0


@OASIS
def test_nothing_behind_a_refusal_is_looked_at(node, version, name):
    with Wire(node, 5, name + "h") as hearer:
        hearer.subscribe(name + "/#")
        refused(node, connect(version, name, 0x82, rest=text("u")) + publish(name + "/t", b"never", 1, 7, version)
                + subscribe(8, name, version=version), version, 0x86 if version == 5 else 4)
        with Wire(node, 5, name + "m") as marker:
            send_once(marker, name + "/m", b"marker", 1)
        assert hear(hearer).payload == b"marker"


# --- two connections, one identifier ----------------------------------------------------------------------------

@ALL
@pytest.mark.parametrize("kept", [False, True])
def test_a_second_connection_takes_over(node, version, name, kept):
    first = client(node, version, name, clean=not kept)
    first.subscribe(name)
    with client(node, version, name, clean=not kept) as second:
        ended(first, 0x8E)
        assert present(second) == (kept and version > 3)
        second.ping()
    first.close()


@ALL
@pytest.mark.parametrize("kept", [False, True])
def test_takeover_of_a_socket_that_nobody_reads(node, version, name, kept):
    """The old client is dead to the world: its window is shut, and what it is owed fills its queue. The new one has it
    all the same, and the old one's socket is let go of although it never says a word."""
    old = client(node, version, name, clean=not kept, receive_buffer=4096)
    old.subscribe((name, 1))
    with Wire(node, 5, name + "s") as speaker:
        for number in range(1, 41):
            send_once(speaker, name, bytes(100000), 1, number=number)
        before = node.metric("tidegate_connections", "mqtt")
        with client(node, version, name, clean=not kept) as new:
            assert present(new) == (kept and version > 3)
            wait_until(lambda: node.metric("tidegate_connections", "mqtt") == before, "the old connection to be gone", 30)
            if not kept:
                new.ping()
    old.close()


# --- keep alive -------------------------------------------------------------------------------------------------

@ALL
@spans(1, 3, 10)
def test_silence_of_one_and_a_half_times(node, version, name, span):
    """Not before; a client that pings is not ended. (When exactly: unit.mqtt.conn, where the test owns the clock.)"""
    began = time.monotonic()
    with Wire(node, version, name, keep_alive=span) as silent, Wire(node, version, name + "p", keep_alive=span) as pinging:
        while silent.quiet(0.2):
            pinging.ping()
        ended(silent, 0x8D)
        assert time.monotonic() - began > 1.49 * span
        pinging.ping()


def test_server_keep_alive(node, name):
    """Told when another than the client's holds; else the client's holds."""
    for asked, told in ((0, 3600), (10, None), (3600, None), (3601, 3600), (65535, 3600)):
        with Wire(node, 5, name, keep_alive=asked) as wire:
            assert connack_props(wire).get(0x13) == told


# --- MQTT 3.1 ---------------------------------------------------------------------------------------------------

def test_mqisdp(node, name):
    """3.1: connects, all qualities, retained; its levels and names are its own."""
    with Wire(node, 3, name) as wire:
        assert wire.connack == b"\x00\x00"
        assert wire.subscribe((name, 2)) == b"\x02"
        for qos in (0, 1, 2):
            wire.send(publish(name, b"%d" % qos, qos, 9, 3))
        kinds, heard = set(), []
        while len(heard) < 3 or kinds != {PUBACK, PUBREC, PUBCOMP}:
            first, body = wire.packet()
            kinds |= {first >> 4} & {PUBACK, PUBREC, PUBCOMP}
            if first >> 4 == PUBREC:
                wire.send(pubrel(9))
            if first >> 4 == PUBLISH:
                heard.append(body[-1:])
        assert heard == [b"0", b"1", b"2"]
    refused(node, connect(3, name, name="MQTT"), 3, 1)  # level 3 is MQIsdp's
    refused(node, connect(3, name, name="MQIsdp", level=4), 3, 1)


def test_mqisdp_may_repeat_with_dup(node, name):
    """3.1: SUBSCRIBE, UNSUBSCRIBE and PUBREL have QoS 1 and, sent again, DUP."""
    with Wire(node, 3, name) as wire:
        for first in (0x82, 0x8A):
            assert wire.subscribe((name, 1), first=first) == b"\x01"
        send_once(wire, name + "/q", b"x", 2)
        wire.send(packet(0x6A, b"\0\x09"))
        assert wire.expect(PUBCOMP) == b"\0\x09"
