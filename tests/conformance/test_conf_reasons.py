"""Every reason code of MQTT 5.0 that the server sends, in its packet, provoked (reasons.py has the table, and those that it
never sends)."""

import pytest

from mqtt_wire import CONNACK, DISCONNECT, PUBACK, PUBCOMP, PUBREC, PUBREL, SUBACK, UNSUBACK, Wire
from mqtt_wire import connect, publish, pubrec, pubrel, read_varint, subscribe, text, unsubscribe, user, varint
from reasons import SENT, pairs
from speak import CODES, client, send_once, will

SETTINGS = {"limit.publish_open": 4, "limit.subscriptions": 5, "limit.message_bytes": 2048, "mqtt.topic_aliases": 4,
            "limit.sessions_bytes": 2048, "limit.shared_groups": 0}
KINDS = {"CONNACK": CONNACK, "PUBACK": PUBACK, "PUBREC": PUBREC, "PUBREL": PUBREL, "PUBCOMP": PUBCOMP, "SUBACK": SUBACK,
         "UNSUBACK": UNSUBACK, "DISCONNECT": DISCONNECT}
HERE = pairs(row for row in SENT if row[3] == "here")
LONG = "t" * 1025
HALF = user("tg-seq", "1")


def with_will(topic, payload=b"x", props=b""):
    return connect(5, "c", 0x06, rest=will(topic, payload, 5, props))


CONNECTS = {
    0x00: connect(5, "c"),
    0x81: connect(5, "c", 0x03),
    0x82: connect(5, "c", props=b"\x21\0\0"),
    0x83: connect(5, "c", props=user("tg-pos", "1")),
    0x85: connect(5, "$bridge/x"),
    0x86: connect(5, "c", 0xC2, rest=text("nobody") + text("wrong")),
    0x87: with_will("$SYS/x"),
    0x8C: connect(5, "c", props=b"\x15" + text("SCRAM-SHA-1")),
    0x90: with_will("a/#"),
    0x97: with_will("w", bytes(2049)),
    0x99: with_will("w", b"\xff", b"\x01\x01"),
}
PUBLISHES = {
    0x00: ("t", b"x", b""),
    0x83: ("t", b"x", HALF),
    0x87: ("$SYS/x", b"x", b""),
    0x90: (LONG, b"x", b""),
    0x97: ("t", bytes(2049), b""),
    0x99: ("t", b"\xff", b"\x01\x01"),
}
SUBSCRIBES = {
    0x00: [("t", 0)],
    0x01: [("t", 1)],
    0x02: [("t", 2)],
    0x83: ["$nothing/x"],
    0x87: ["$user/other/#"],
    0x8F: ["a#"],
    0x97: [f"many/{number}" for number in range(6)],
    0x9E: ["$share/group/t"],
}
ENDS = {
    0x81: b"\x00\x00",
    0x82: connect(5, "again"),
    0x90: publish("a/#", b"x"),
    0x93: b"".join(publish("t", b"x", 2, number) for number in range(1, 6)),
    0x94: publish("t", b"x", props=b"\x23\0\x05"),
    0x95: b"\x30" + varint(200000000),
}


def connack(node, code, name):
    with Wire(node, 5, connected=False) as wire:
        wire.send(CONNECTS[code])
        yield wire.expect(CONNACK)[1]


def published(qos):
    def answer(node, code, name):
        topic, payload, props = PUBLISHES[code]
        with Wire(node, 5, name) as wire:
            wire.send(publish(topic, payload, qos, 7, props=props))
            yield short(wire.expect(PUBACK if qos == 1 else PUBREC))
            wire.ping()
    return answer


def short(body):
    """An acknowledgement without a code says 0x00 (3.4.2.1)."""
    return body[2] if len(body) > 2 else 0


def pubrel_of(node, code, name):
    with Wire(node, 5, name) as wire, Wire(node, 5, name + "s") as speaker:
        wire.subscribe((name, 2))
        send_once(speaker, name, b"x", 2)
        number = wire.message().number
        wire.send(pubrec(number if code == 0 else number + 1))
        yield short(wire.expect(PUBREL))


def pubcomp_of(node, code, name):
    with Wire(node, 5, name) as wire:
        wire.send(publish(name, b"x", 2, 7))
        wire.expect(PUBREC)
        wire.send(pubrel(7 if code == 0 else 8))
        yield short(wire.expect(PUBCOMP))


def codes(body):
    length, place = read_varint(body, 2)
    return body[place + length:]


def suback(node, code, name):
    with Wire(node, 5, name) as wire:
        wire.send(subscribe(7, *SUBSCRIBES[code]))
        yield codes(wire.expect(SUBACK))[-1]
        wire.ping()


def unsuback(node, code, name):
    with Wire(node, 5, name) as wire:
        wire.subscribe((name, 0))
        wire.send(unsubscribe(7, name if code == 0 else name + "x"))
        yield codes(wire.expect(UNSUBACK))[-1]


def disconnect(node, code, name):
    with client(node, 5, name, keep_s=1 if code == 0x97 else 0) as wire:
        if code in ENDS:
            wire.send(ENDS[code])
        elif code == 0x8E:
            Wire(node, 5, name).close()
        else:
            assert code == 0x97  # over limit.sessions_bytes
            for number in range(5):
                wire.send(subscribe(7, (f"{name}/{number}/" + "x" * 600, 0)))
        first, body = wire.packet()
        while first >> 4 in (PUBREC, SUBACK):
            first, body = wire.packet()
        assert first == 0xE0, f"{first:02x} {body[:64].hex()} instead of DISCONNECT"
        yield body[0] if body else 0
        assert wire.rest() == b""


ANSWERS = {"CONNACK": connack, "PUBACK": published(1), "PUBREC": published(2), "PUBREL": pubrel_of, "PUBCOMP": pubcomp_of,
           "SUBACK": suback, "UNSUBACK": unsuback, "DISCONNECT": disconnect}


@pytest.mark.parametrize("kind, code", HERE, ids=[f"{kind} {code:#04x}" for kind, code in HERE])
def test_every_reason_code_in_its_situation(node, name, kind, code):
    assert code in CODES[KINDS[kind]]
    for got in ANSWERS[kind](node, code, name):
        assert got == code, f"{got:#04x} instead of {code:#04x}"
