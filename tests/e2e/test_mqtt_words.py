"""What an MQTT 5.0 client is told beside a code: reason strings, and response information. Bytes by hand."""

import pytest

from mqtt_wire import DISCONNECT, PUBACK, PUBREC, SUBACK, Wire, connect, packet, publish, puback, pubrel, read_varint
from mqtt_wire import subscribe, text, user
from node import Node
from test_mqtt_five import connack_props, property_walk

WORDS = 0x1F
NO_WORDS = b"\x17\x00"  # Request Problem Information 0
ALIAS_9 = b"\x23\x00\x09"


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    node = Node(tmp_path_factory.mktemp("words"),
                {"mqtt.topic_aliases": 8, "limit.subscriptions": 4, "limit.message_bytes": 2048,
                 "mqtt.response_information": "answers/%c"})
    node.data.parent.mkdir(exist_ok=True)
    yield node.start()
    node.check()


def told(first, body):
    """(code, reason string or None) of an answer of 5.0."""
    kind = first >> 4
    if kind == 2:
        code, place = body[1], 2
    elif kind == DISCONNECT:
        code, place = (body[0] if body else 0), 1
    elif kind == SUBACK:
        length, end = read_varint(body, 2)
        code, place = max(body[end + length:]), 2
    else:
        code, place = (body[2] if len(body) > 2 else 0), 3
    if len(body) <= place:
        return code, None
    length, start = read_varint(body, place)
    strings = [value for number, value in property_walk(body[start:start + length]) if number == WORDS]
    assert len(strings) < 2
    return code, strings[0].decode() if strings else None


# What is sent after CONNECT, the kind of the answer, its code, a part of what it says.
ANSWERS = {
    "PUBACK, topic": (publish("t" * 1025, b"x", 1, 7), PUBACK, 0x90, "limit.topic_bytes"),
    "PUBACK, size": (publish("t", bytes(2049), 1, 7), PUBACK, 0x97, "limit.message_bytes"),
    "PUBACK, format": (publish("t", b"\xff", 1, 7, props=b"\x01\x01"), PUBACK, 0x99, "payload format"),
    "PUBACK, tg-seq": (publish("t", b"x", 1, 7, props=user("tg-seq", "1")), PUBACK, 0x83, "tg-"),
    "PUBREC, format": (publish("t", b"\xff", 2, 7, props=b"\x01\x01"), PUBREC, 0x99, "payload format"),
    "SUBACK, filter": (subscribe(7, "t", "a#"), SUBACK, 0x8F, "filter"),
    "SUBACK, too many": (subscribe(7, *[f"s/{i}" for i in range(5)]), SUBACK, 0x97, "limit.subscriptions"),
    "SUBACK, tg-from": (subscribe(7, "t", props=user("tg-from", "nonsense")), SUBACK, 0x83, "tg-"),
    "DISCONNECT, alias": (publish("t", b"x", props=ALIAS_9), DISCONNECT, 0x94, "topic alias maximum"),
    "DISCONNECT, no alias": (publish("", b"x", props=b"\x23\x00\x01"), DISCONNECT, 0x82, "stands for no topic"),
    "DISCONNECT, second CONNECT": (connect(5, "x"), DISCONNECT, 0x82, "second CONNECT"),
    "DISCONNECT, AUTH": (packet(0xF0, b"\x18\x04\x15" + text("m")), DISCONNECT, 0x82, "AUTH"),
    "DISCONNECT, malformed": (subscribe(7, "t", first=0x80), DISCONNECT, 0x81, "SUBSCRIBE is malformed"),
    "DISCONNECT, a server's": (b"\xd0\x00", DISCONNECT, 0x82, "PINGRESP"),
    "DISCONNECT, size": (b"\x30\xff\xff\xff\x7f", DISCONNECT, 0x95, "maximum packet size"),
    "DISCONNECT, filters": (subscribe(7, *["t"] * 1025), DISCONNECT, 0x95, "too many filters"),
    "DISCONNECT, expiry": (packet(0xE0, b"\x00\x05\x11\x00\x00\x00\x09"), DISCONNECT, 0x82, "session expiry"),
}
SMALL = b"\x27\x00\x00\x00\x14"  # CONNACK and every answer fit into 20 bytes, but none with its words


@pytest.mark.parametrize("case", ANSWERS)
def test_reason_strings(shared, case):
    """Only if the client wants them, and only within its Maximum Packet Size (MQTT-3.1.2-29, MQTT-3.4.2-2 and so on)."""
    data, kind, code, part = ANSWERS[case]
    for props, wanted in ((b"", True), (b"\x17\x01", True), (NO_WORDS, False), (SMALL, False)):
        with Wire(shared, 5, "words", keep_alive=60, props=props) as wire:
            wire.send(data)
            first, body = wire.packet()
            assert first >> 4 == kind
            found, words = told(first, body)
            assert found == code, hex(found)
            assert (words is not None and part in words) if wanted else words is None, (props, words)


@pytest.mark.parametrize("props, wanted", [(b"", True), (NO_WORDS, False), (b"\x27\x00\x00\x00\x20", False)])
def test_a_refused_connect(shared, props, wanted):
    with Wire(shared, connected=False) as wire:
        wire.send(connect(5, "c", props=b"\x15" + text("SCRAM-SHA-1") + props))
        first, body = wire.packet()
        code, words = told(first, body)
        assert (first, code, words is not None) == (0x20, 0x8C, wanted)
        assert wire.rest() == b""


def test_an_answer_too_large_without_words_ends_the_connection(shared):
    """MQTT-3.1.2-24: a SUBACK of 40 codes for a client that takes packets of 30 bytes. It is never sent."""
    with Wire(shared, 5, "tiny", props=b"\x27\x00\x00\x00\x1e") as wire:
        wire.send(subscribe(7, *["t"] * 40) + b"\xc0\x00")
        assert wire.rest()[-3:] == b"\xe0\x01\x95"


def test_response_information(shared, make_node):
    """3.2.2.3.15, MQTT-3.1.2-28."""
    for props, told_it in ((b"", False), (b"\x19\x00", False), (b"\x19\x01", True)):
        with Wire(shared, 5, "device/7", props=props) as wire:
            assert connack_props(wire).get(0x1A) == (b"answers/device%2F7" if told_it else None)
    with Wire(shared, 4, "device/7") as wire:
        assert wire.connack == b"\x00\x00"
    # It is left out rather than making CONNACK larger than the client takes.
    with Wire(shared, 5, "device/7", props=b"\x19\x01\x27\x00\x00\x00\x20") as wire:
        assert 0x1A not in connack_props(wire)
        wire.ping()
    # Nobody stands for %u; and with nothing set there is nothing to tell.
    for value in ("answers/%u", ""):
        node = make_node({"mqtt.response_information": value})
        with Wire(node, 5, "c", props=b"\x19\x01") as wire:
            assert 0x1A not in connack_props(wire)


def test_the_payload_format_is_looked_at_only_when_the_setting_says_so(shared, make_node):
    """3.3.2.3.2: a server may check, and must pass it on unaltered (MQTT-3.3.2-4)."""
    node = make_node({"mqtt.check_payload_format": "false"})
    for where, code in ((shared, 0x99), (node, 0)):
        with Wire(where, 5, "pfi") as wire:
            wire.subscribe(("pfi/x", 0))
            assert wire.publish("pfi/x", b"\xff\xfe", props=b"\x01\x01") == code if code else True
            if not code:
                wire.send(publish("pfi/x", b"\xff\xfe", 1, 7, props=b"\x01\x01"))
                seen = {}
                while len(seen) < 2:
                    first, body = wire.packet()
                    assert first >> 4 == 3 or body == b"\x00\x07", body.hex(" ")
                    seen[first >> 4] = body
                assert seen[3] == text("pfi/x") + b"\x02\x01\x01" + b"\xff\xfe"
