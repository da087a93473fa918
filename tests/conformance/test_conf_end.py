"""PINGREQ, DISCONNECT, AUTH, errors: 3.12, 3.14, 3.15, 4.8, 4.12 and 4.13 of both standards."""

import pytest

from mqtt_wire import BYE, PING, Wire, connect, packet, properties, publish, subscribe, text, user
from speak import ALL, OASIS, client, ended, hear, present, refused, send_once, will
from test_mqtt_five import connack_props

METHOD = b"\x15" + text("SCRAM-SHA-256")
DATA = b"\x16" + text(b"first message")


@ALL
def test_ping(node, version, name):
    with Wire(node, version, name) as wire:
        wire.send(PING * 20)
        for _ in range(20):
            assert wire.packet() == (0xD0, b"")
        wire.send(b"\xc0\x01x")
        ended(wire, 0x81)


# --- DISCONNECT -------------------------------------------------------------------------------------------------

@ALL
def test_nothing_behind_disconnect(node, version, name):
    with Wire(node, 5, name + "h") as hearer, Wire(node, version, name) as wire:
        hearer.subscribe(name)
        wire.send(BYE + publish(name, b"never", 1, 7, version) + PING)
        assert wire.rest() == b""
        with Wire(node, 5, name + "m") as marker:
            send_once(marker, name, b"marker", 1)
        assert hear(hearer).payload == b"marker"


@OASIS
def test_flags_of_disconnect(node, version):
    for first in (b"\xe1\x00", b"\xe2\x00", b"\xef\x00"):
        with Wire(node, version) as wire:
            wire.send(first)
            ended(wire, 0x81)


def test_a_body_of_disconnect_before_5(node):
    with Wire(node, 4) as wire:
        wire.send(packet(0xE0, b"\x00"))
        assert wire.rest() == b""


GOOD = [0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99]


def test_codes_of_disconnect(node):
    """MQTT-3.14.2-1: of all 256 a client may say these, and the server closes; the others are against the protocol."""
    for code in range(256):
        with Wire(node) as wire:
            wire.send(packet(0xE0, bytes([code])))
            if code in GOOD:
                assert wire.rest() == b""
            else:
                ended(wire, 0x82)


def test_disconnect_decides_over_the_will(node, name):
    """MQTT-3.14.4-3: 0x00 and no will; any other code, and the will."""
    with Wire(node, 5, name + "h") as hearer:
        hearer.subscribe(name)
        for code in GOOD:
            wire = client(node, 5, name, keep_s=0, flags=0x06, rest=will(name, b"%d" % code, 5))
            wire.send(packet(0xE0, bytes([code])))
            assert wire.rest() == b""
            if code:
                assert hear(hearer).payload == b"%d" % code
        with Wire(node, 5, name + "m") as marker:
            send_once(marker, name, b"marker", 1)
        assert hear(hearer).payload == b"marker"


def test_disconnect_and_the_session(node, name):
    """3.14.2.2.2: the interval may be changed, to 0 too, but not from 0."""
    with client(node, 5, name, keep_s=600) as wire:
        wire.send(packet(0xE0, b"\x00" + properties(b"\x11\0\0\0\0")))
        assert wire.rest() == b""
    with client(node, 5, name, clean=False, keep_s=0) as wire:
        assert not present(wire)
        wire.send(packet(0xE0, b"\x00" + properties(b"\x11\0\0\0\x09")))
        ended(wire, 0x82)
    with client(node, 5, name, clean=False, keep_s=1) as wire:
        assert not present(wire)
        wire.send(packet(0xE0, b"\x00" + properties(b"\x11\0\0\x0e\x10" + user("a", "b") + b"\x1f" + text("bye"))))
        assert wire.rest() == b""
    with client(node, 5, name, clean=False, keep_s=0) as wire:
        assert present(wire)


def test_the_server_s_disconnect_has_no_session_expiry(node, name):
    """MQTT-3.14.2-2, in every DISCONNECT that tells a client of what it did."""
    for data in (connect(5, name), b"\x00\x00", publish("a/#", b"x"), subscribe(1, ("t", 3))):
        with client(node, 5, name) as wire:
            wire.send(data)
            rest = wire.rest()
            assert rest[0] == 0xE0 and (len(rest) <= 3 or rest[4] in (0x1F,))


# --- AUTH: there is no method yet, so every one is refused ------------------------------------------------------

def test_a_method_that_is_not_known(node):
    for props in (METHOD, METHOD + DATA, b"\x15" + text(""), b"\x15" + text("PLAIN") + DATA):
        refused(node, connect(5, "c", props=props), 5, 0x8C)


def test_what_comes_behind_a_refused_method_is_not_looked_at(node, name):
    with Wire(node, 5, name + "h") as hearer:
        hearer.subscribe(name)
        refused(node, connect(5, name, props=METHOD) + packet(0xF0, b"\x18" + properties(METHOD + DATA))
                + publish(name, b"never", 1, 7), 5, 0x8C)
        with Wire(node, 5, name + "m") as marker:
            send_once(marker, name, b"marker", 1)
        assert hear(hearer).payload == b"marker"


def test_data_without_a_method(node):
    refused(node, connect(5, "c", props=DATA), 5, 0x82)
    refused(node, connect(5, "c", props=METHOD * 2), 5, 0x82)


@pytest.mark.parametrize("what, data, code", [
    ("continue", packet(0xF0, b"\x18" + properties(METHOD + DATA)), 0x82),
    ("re-authenticate", packet(0xF0, b"\x19" + properties(METHOD)), 0x82),
    ("success, which is a server's", packet(0xF0, b"\x00" + properties(METHOD)), 0x82),
    ("nothing", packet(0xF0), 0x82), ("no method", packet(0xF0, b"\x18\x00"), 0x82), ("no properties", packet(0xF0, b"\x18"), 0x81),
    ("a code that is none", packet(0xF0, b"\x01" + properties(METHOD)), 0x82),
    ("method twice", packet(0xF0, b"\x18" + properties(METHOD * 2)), 0x82),
    ("flags", packet(0xF1, b"\x18" + properties(METHOD)), 0x81),
    ("a property of another packet", packet(0xF0, b"\x18" + properties(METHOD + b"\x21\0\x01")), 0x81)])
def test_auth_of_a_client_without_a_method(node, what, data, code):
    """MQTT-4.12.0-7."""
    with Wire(node) as wire:
        assert 0x15 not in connack_props(wire) and 0x16 not in connack_props(wire)  # MQTT-4.12.0-6
        wire.send(data)
        ended(wire, code)


@pytest.mark.parametrize("version", [3, 4])
def test_auth_is_unknown_before_5(node, version, name):
    with Wire(node, version, name) as wire:
        wire.send(packet(0xF0))
        assert wire.rest() == b""


# --- errors -----------------------------------------------------------------------------------------------------

@ALL
def test_a_violation_ends_its_connection_and_no_other(node, version, name):
    with Wire(node, version, name + "o") as other:
        other.subscribe((name, 0))
        for data in (b"\x00\x00", packet(0x82, b"\0"), publish("#", b"x", version=version), b"\xff\xff\xff\xff\xff\xff"):
            with Wire(node, version, name) as wire:
                wire.send(data)
                rest = wire.rest()
                assert rest[:1] == (b"\xe0" if version == 5 else b"")
            send_once(other, name, b"x", 0)
            assert other.message().payload == b"x"


def test_no_disconnect_before_connack(node):
    """MQTT-3.14.0-1: who was never connected gets a CONNACK with the reason, or nothing."""
    for data in (b"\x00\x00", PING, packet(0xF0), b"\x10\xff\xff\xff\xff\x7f", packet(0x82, b"\0\1\0")):
        with Wire(node, connected=False) as wire:
            wire.send(data)
            assert wire.rest() == b""
    with Wire(node, connected=False) as wire:
        wire.send(connect(5, "c", 0x03))
        assert wire.rest()[:1] == b"\x20"
