"""What the conformance tests say again and again; see tests/e2e/mqtt_wire.py for the bytes."""

import pytest

from mqtt_wire import CONNACK, DISCONNECT, PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL, SUBACK, UNSUBACK, Message, Wire
from mqtt_wire import connect, packet, puback, pubcomp, publish, pubrec, pubrel, read_varint, text, unsubscribe

ALL = pytest.mark.parametrize("version", [3, 4, 5])
OASIS = pytest.mark.parametrize("version", [4, 5])  # 3.1.1 and 5.0

# 5.0, table 2-6: what a server may say in which packet.
CODES = {
    CONNACK: {0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95, 0x97, 0x99,
              0x9A, 0x9B, 0x9C, 0x9D, 0x9F},
    PUBACK: {0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99},
    PUBREC: {0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99},
    PUBREL: {0x00, 0x92},
    PUBCOMP: {0x00, 0x92},
    SUBACK: {0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2},
    UNSUBACK: {0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91},
    DISCONNECT: {0x00, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97,
                 0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2},
}


def ended(wire, code):
    """The server closes. Before 5.0 without a word; in 5.0 it says why first, with this code, and that is its last."""
    rest = wire.rest()
    if wire.version < 5:
        assert rest == b"", rest.hex()
        return
    assert rest[:1] == b"\xe0", f"{rest.hex()} instead of DISCONNECT"
    length, place = read_varint(rest, 1)
    assert place + length == len(rest), f"something behind DISCONNECT: {rest.hex()}"
    assert code in CODES[DISCONNECT]
    assert rest[place] == code, f"{rest[place]:#x} instead of {code:#x}"


def refused(node, data, version, code):
    """A CONNECT that is not taken. code: None, closed without a word. What is sent behind it is not looked at."""
    with Wire(node, version, connected=False) as wire:
        wire.send(data)
        if code is None:
            assert wire.rest() == b""
            return
        first, body = wire.packet()
        assert first == 0x20 and body[0] == 0 and body[1] == code, f"{first:02x} {body.hex()} instead of {code:#x}"
        assert code in CODES[CONNACK] if version == 5 else code <= 5
        assert wire.rest() == b""


def client(node, version, name, clean=True, keep_s=600, props=b"", **options):
    """Connected. clean: without the sessions of before; keep_s: how long it is kept (0: not at all)."""
    flags = 0x02 if clean else 0x00
    if version == 5:
        props = (b"\x11" + keep_s.to_bytes(4, "big") if keep_s else b"") + props
    elif not clean and not keep_s:
        raise ValueError("before 5.0 a session that is not clean is kept")
    return Wire(node, version, name, flags=options.pop("flags", flags), props=props, **options)


def present(wire):
    """Session Present of its CONNACK."""
    assert wire.connack[0] in (0, 1)
    return wire.connack[0] == 1


def send_once(wire, topic, payload=b"", qos=0, retain=False, number=9, props=b"", dup=False):
    """PUBLISH and its whole handshake."""
    wire.send(publish(topic, payload, qos, number, wire.version, props, flags=dup << 3 | qos << 1 | retain))
    if qos == 1:
        assert wire.expect(PUBACK)[:3] in (number.to_bytes(2, "big"), number.to_bytes(2, "big") + b"\x00")
    if qos == 2:
        assert wire.expect(PUBREC) == number.to_bytes(2, "big")
        wire.send(pubrel(number))
        assert wire.expect(PUBCOMP) == number.to_bytes(2, "big")


def hear(wire):
    """The next message, acknowledged to the end."""
    message = wire.message()
    if message.qos == 2:
        wire.send(pubrec(message.number))
        assert wire.expect(PUBREL)[:2] == message.number.to_bytes(2, "big")
        wire.send(pubcomp(message.number))
    return message


def hear_all(wire, last=None, count=None):
    """The messages up to the one with that payload, or so many, with all their handshakes, in whatever order these come."""
    heard, open_ones = [], set()
    while open_ones or (len(heard) < count if count else not heard or heard[-1].payload != last):
        first, body = wire.packet()
        if first >> 4 == PUBREL:
            open_ones.remove(body[:2])
            wire.send(packet(0x70, body[:2]))
            continue
        assert first >> 4 == PUBLISH, f"{first:02x} {body[:64].hex()}"
        message = Message(first, body, wire.version)
        heard.append(message)
        if message.qos == 1:
            wire.send(puback(message.number))
        if message.qos == 2:
            open_ones.add(message.number.to_bytes(2, "big"))
            wire.send(pubrec(message.number))
    return heard


def codes_of(wire, data, kind):
    """The codes of the SUBACK or UNSUBACK that answers."""
    wire.send(data)
    body = wire.expect(kind)
    if wire.version < 5:
        return body[2:]
    length, place = read_varint(body, 2)
    return body[place + length:]


def unsubscribed(wire, *filters, number=3):
    return codes_of(wire, unsubscribe(number, *filters, version=wire.version), UNSUBACK)


def will(topic, payload, version, props=b""):
    return (bytes([len(props)]) + props if version == 5 else b"") + text(topic) + text(payload)
