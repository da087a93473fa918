"""Every byte that a client may send, and the reaction that the standard names (PROTOCOL.md 4).

A table of sequences. Each runs twice: in one piece, and byte by byte, as no reaction may depend on how TCP cut the
stream. After each, a healthy client is still served; at the end nothing is left of them: connections, descriptors,
memory. Section numbers are those of MQTT 5.0, or of 3.1.1 where the row's version is 3 or 4."""

import os
import random
import socket
import struct
import time

import pytest

from mqtt_wire import BYE, PING, PONG, End, Wire, bare, bare_stream, connect, packet, properties, publish, puback, subscribe, text
from mqtt_wire import unsubscribe, user
from node import PATIENCE, wait_until

LOOPS = pytest.mark.parametrize("loops", [1, 2])

# --- the reactions ----------------------------------------------------------------------------------------------

CLOSED = ("closed", b"")  # without a word


def said(*pieces):
    """Exactly these bytes, and the connection closes."""
    return ("closed", b"".join(pieces))


def bye(code):
    """DISCONNECT with this code; a reason string may follow; then it closes."""
    return said(bytes([0xE0, 0x01, code]))


def connack5(code):
    """A CONNACK with this code; properties may follow; then it closes."""
    return ("connack5", code)


def connack3(code):
    return said(bytes([0x20, 0x02, 0x00, code]))


def answer(*pieces):
    """These packets, with or without a reason string, and the connection goes on."""
    return ("open", b"".join(pieces))


def suback(*codes, version=5):
    return answer(packet(0x90, b"\x00\x07" + (b"\x00" if version == 5 else b"") + bytes(codes)))


def acked(code=0):
    return answer(packet(0x40, b"\x00\x07" + (bytes([code]) if code else b"")))


GOES_ON = answer()
ACCEPTED = ("accepted", None)

RECEIVE_MAX, PACKET_MAX, EXPIRY, ALIAS = b"\x21\x00\x0a", b"\x27\x00\x00\x10\x00", b"\x11\x00\x00\x00\x0a", b"\x23\x00\x01"
LONG = "t" * 1025
DEEP = "/".join(["l"] * 33)


def will(topic, version, payload=b"w"):
    return (b"\x00" if version == 5 else b"") + text(topic) + text(payload)


# --- the table: what, section, version of the connection (None: no CONNECT yet), bytes, reaction ----------------

BEFORE = [
    ("PINGREQ before CONNECT", "3.1.0-1", PING, CLOSED),
    ("PUBLISH before CONNECT", "3.1.0-1", publish("t", b"x"), CLOSED),
    ("SUBSCRIBE before CONNECT", "3.1.0-1", subscribe(7, "t"), CLOSED),
    ("DISCONNECT before CONNECT", "3.1.0-1", BYE, CLOSED),
    ("packet type 0", "2.1.2", b"\x00\x00", CLOSED),
    ("AUTH before CONNECT", "3.15", packet(0xF0), CLOSED),
    ("CONNACK from a client", "2.1.2", b"\x20\x02\x00\x00", CLOSED),
    ("CONNECT with flags", "2.1.3", b"\x11" + connect()[1:], CLOSED),
    ("HTTP", "2.1.3", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", CLOSED),
    ("TLS ClientHello", "2.1.3", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", CLOSED),
    ("remaining length of five bytes", "1.5.5", b"\x10\xff\xff\xff\xff\x7f", CLOSED),
    ("remaining length not minimal", "1.5.5", b"\x10\x80\x80\x00", CLOSED),
    ("CONNECT of 268 MB announced", "3.2.2.3.6", b"\x10\xff\xff\xff\x7f", CLOSED),
    ("CONNECT without a body", "3.1.2", packet(0x10), CLOSED),
    ("another protocol name", "3.1.2-1", connect(4, "c", name="MQTX"), connack3(1)),
    ("protocol name in small letters", "3.1.2-1", connect(4, "c", name="mqtt"), connack3(1)),
    ("protocol level 6", "3.1.2-2", connect(4, "c", level=6), connack3(1)),
    ("protocol level 0", "3.1.2-2", connect(4, "c", level=0), connack3(1)),
    ("MQIsdp with level 4", "3.1.2-2", connect(4, "c", name="MQIsdp"), connack3(1)),
    ("MQTT with level 3", "3.1.2-2", connect(4, "c", level=3), connack3(1)),
    ("3.1.1 reserved connect flag", "3.1.2-3", connect(4, "c", 0x03), CLOSED),
    ("5.0 reserved connect flag", "3.1.2-3", connect(5, "c", 0x03), connack5(0x81)),
    ("3.1.1 will QoS 3", "3.1.2-14", connect(4, "c", 0x1E, rest=will("w", 4)), CLOSED),
    ("5.0 will QoS 3", "3.1.2-12", connect(5, "c", 0x1E, rest=will("w", 5)), connack5(0x81)),
    ("3.1.1 will QoS without a will", "3.1.2-13", connect(4, "c", 0x0A), CLOSED),
    ("5.0 will QoS without a will", "3.1.2-11", connect(5, "c", 0x0A), connack5(0x81)),
    ("5.0 will retain without a will", "3.1.2-13", connect(5, "c", 0x22), connack5(0x81)),
    ("3.1.1 will", "3.1.2.5", connect(4, "c", 0x06, rest=will("w", 4)), ACCEPTED),
    ("5.0 will", "3.1.2.5", connect(5, "c", 0x06, rest=will("w", 5)), ACCEPTED),
    ("5.0 will to $SYS", "PROTOCOL.md", connect(5, "c", 0x06, rest=will("$SYS/x", 5)), connack5(0x87)),
    ("5.0 will with a topic alias", "2.2.2.2", connect(5, "c", 0x06, rest=properties(ALIAS) + will("w", 4)),
     connack5(0x81)),
    ("5.0 will delay twice", "3.1.3.2.2",
     connect(5, "c", 0x06, rest=properties(b"\x18\0\0\0\x01" * 2) + will("w", 4)), connack5(0x82)),
    ("3.1.1 wildcard in the will topic", "4.7.1-1", connect(4, "c", 0x06, rest=will("w/#", 4)), CLOSED),
    ("5.0 wildcard in the will topic", "4.7.0-1", connect(5, "c", 0x06, rest=will("w/+", 5)), connack5(0x90)),
    ("will payload missing", "3.1.3", connect(4, "c", 0x06, rest=text("w")), CLOSED),
    ("3.1.1 password without user name", "3.1.2-22", connect(4, "c", 0x42, rest=text("p")), CLOSED),
    ("3.1.1 user name", "3.2.2.3", connect(4, "c", 0x82, rest=text("u")), connack3(4)),
    ("3.1.1 user name and password", "3.2.2.3", connect(4, "c", 0xC2, rest=text("u") + text("p")), connack3(4)),
    ("5.0 password alone", "3.2.2.2", connect(5, "c", 0x42, rest=text("p")), connack5(0x86)),
    ("5.0 user name", "3.2.2.2", connect(5, "c", 0x82, rest=text("u")), connack5(0x86)),
    ("user name announced and missing", "3.1.3", connect(4, "c", 0x82), CLOSED),
    ("3.1.1 without clean session", "3.1.2.4", connect(4, "c", 0x00), ACCEPTED),
    ("3.1 without clean session", "3.1", connect(3, "c", 0x00), ACCEPTED),
    ("3.1.1 no identifier, not clean", "3.1.3-8", connect(4, "", 0x00), connack3(2)),
    ("3.1 no identifier", "3.1", connect(3, ""), connack3(2)),
    ("3.1.1 no identifier", "3.1.3-6", connect(4, ""), ACCEPTED),
    ("5.0 no identifier", "3.1.3-6", connect(5, ""), ACCEPTED),
    ("5.0 not clean: there is nothing to resume", "3.1.2.4", connect(5, "c", 0x00), ACCEPTED),
    ("5.0 session expiry", "3.1.2.11.2", connect(5, "c", props=EXPIRY), ACCEPTED),
    ("5.0 identifier of 65,535 bytes", "3.1.3.1", connect(5, "c" * 65535), ACCEPTED),
    ("5.0 authentication method", "3.1.2.11.9", connect(5, "c", props=b"\x15" + text("SCRAM-SHA-1")), connack5(0x8C)),
    ("5.0 authentication data alone", "3.1.2.11.10", connect(5, "c", props=b"\x16" + text("x")), connack5(0x82)),
    ("5.0 receive maximum 0", "3.1.2.11.3", connect(5, "c", props=b"\x21\x00\x00"), connack5(0x82)),
    ("5.0 receive maximum twice", "3.1.2.11.3", connect(5, "c", props=RECEIVE_MAX * 2), connack5(0x82)),
    ("5.0 maximum packet size 0", "3.1.2.11.4", connect(5, "c", props=b"\x27\0\0\0\0"), connack5(0x82)),
    ("5.0 maximum packet size twice", "3.1.2.11.4", connect(5, "c", props=PACKET_MAX * 2), connack5(0x82)),
    ("5.0 request problem information 2", "3.1.2.11.7", connect(5, "c", props=b"\x17\x02"), connack5(0x82)),
    ("5.0 property of another packet", "2.2.2.2", connect(5, "c", props=ALIAS), connack5(0x81)),
    ("5.0 unknown property", "2.2.2.2", connect(5, "c", props=b"\x7f\x00"), connack5(0x81)),
    ("5.0 property cut off", "2.2.2", connect(5, "c", props=b"\x21\x00"), connack5(0x81)),
    ("5.0 property length past the end", "2.2.2.1", packet(0x10, text("MQTT") + b"\x05\x02\0\0\x7f" + text("c")),
     connack5(0x81)),
    ("5.0 identifier is not UTF-8", "1.5.4", connect(5, b"\xff\xfe"), connack5(0x81)),
    ("5.0 identifier with U+0000", "1.5.4-2", connect(5, b"a\0b"), connack5(0x81)),
    ("5.0 identifier with a surrogate", "1.5.4-1", connect(5, b"\xed\xa0\x80"), connack5(0x81)),
    ("3.1.1 identifier is not UTF-8", "1.5.3-1", connect(4, b"\xc0\x80"), CLOSED),
    ("3.1.1 a byte too much", "3.1.3", connect(4, "c", rest=b"x"), CLOSED),
    ("5.0 a byte too much", "3.1.3", connect(5, "c", rest=b"x"), connack5(0x81)),
    ("identifier longer than the packet", "3.1.3", packet(0x10, text("MQTT") + b"\x04\x02\0\0\x00\x09abc"), CLOSED),
]

AFTER5 = [
    ("second CONNECT", "3.1.0-2", connect(5, "again"), bye(0x82)),
    ("second CONNECT, of an unknown level", "3.1.0-2", connect(5, "again", level=9), bye(0x82)),
    ("second CONNECT, of 3.1 without identifier", "3.1.0-2", connect(3, ""), bye(0x82)),
    ("second CONNECT, malformed", "3.1.0-2", connect(5, b"\xff"), bye(0x82)),
    ("packet type 0", "2.1.2", b"\x00\x00", bye(0x81)),
    ("CONNACK from a client", "2.1.2", b"\x20\x03\0\0\0", bye(0x82)),
    ("SUBACK from a client", "2.1.2", packet(0x90, b"\0\x07\0\0"), bye(0x82)),
    ("UNSUBACK from a client", "2.1.2", packet(0xB0, b"\0\x07\0\0"), bye(0x82)),
    ("PINGRESP from a client", "2.1.2", PONG, bye(0x82)),
    ("AUTH without a method in CONNECT", "4.12", packet(0xF0, b"\x18\x04\x15" + text("m")), bye(0x82)),
    ("PINGREQ with flags", "2.1.3", b"\xc1\x00", bye(0x81)),
    ("PINGREQ with a body", "3.12", b"\xc0\x01x", bye(0x81)),
    ("remaining length of five bytes", "1.5.5", b"\x30\x80\x80\x80\x80\x01", bye(0x81)),
    ("remaining length not minimal", "1.5.5-1", b"\xc0\x80\x00", bye(0x81)),
    ("packet of 268 MB announced", "3.2.2-15", b"\x30\xff\xff\xff\x7f", bye(0x95)),
    ("PUBLISH QoS 3", "3.3.1-4", publish("t", flags=0x06), bye(0x81)),
    ("PUBLISH QoS 0 with DUP", "3.3.1-2", publish("t", flags=0x08), bye(0x81)),
    ("PUBLISH retained", "3.3.1.3", publish("bytes/kept", b"x", 1, 7, flags=0x03), acked()),
    ("PUBLISH retained, QoS 2", "4.3.3", publish("bytes/kept", b"x", 2, 7, flags=0x05), answer(b"\x50\x02\0\x07")),
    ("PUBLISH QoS 2", "4.3.3", publish("t", b"x", 2, 7), answer(b"\x50\x02\0\x07")),
    ("PUBLISH with identifier 0", "2.2.1-3", publish("t", b"x", 1, 0), bye(0x82)),
    ("PUBLISH, QoS 1, DUP", "3.3.1.1", publish("bytes/dup", b"x", 1, 7, flags=0x0A), acked()),
    ("PUBLISH without a body", "3.3.2", packet(0x30), bye(0x81)),
    ("PUBLISH cut off in the topic", "3.3.2.1", packet(0x30, b"\x00\x09abc"), bye(0x81)),
    ("PUBLISH cut off before the identifier", "3.3.2.2", packet(0x32, text("t") + b"\x00"), bye(0x81)),
    ("PUBLISH without property length", "3.3.2.3.1", packet(0x30, text("t")), bye(0x81)),
    ("PUBLISH to nowhere", "3.3.2.1", publish("", b"x"), bye(0x82)),
    ("topic alias 0", "3.3.2-8", publish("t", props=b"\x23\0\0"), bye(0x94)),
    ("topic alias over the maximum", "3.3.2-9", publish("t", props=b"\x23\x00\x21"), bye(0x94)),
    ("topic alias that was not set", "3.3.2.3.4", publish("", props=ALIAS), bye(0x82)),
    ("topic alias twice", "3.3.2.3.4", publish("t", props=ALIAS * 2), bye(0x82)),
    ("topic alias", "3.3.2-12", publish("bytes/alias", b"x", 1, 7, props=ALIAS), acked()),
    ("PUBLISH to +", "3.3.2-2", publish("a/+/b", b"x"), bye(0x90)),
    ("PUBLISH to #", "3.3.2-2", publish("a/#", b"x", 1, 7), bye(0x90)),
    ("PUBLISH: topic is not UTF-8", "1.5.4", publish(b"a\xff", b"x"), bye(0x81)),
    ("PUBLISH: topic of five byte UTF-8", "1.5.4", publish(b"\xf8\x88\x80\x80\x80", b"x"), bye(0x81)),
    ("PUBLISH: topic with overlong UTF-8", "1.5.4", publish(b"a\xc0\xaf", b"x"), bye(0x81)),
    ("PUBLISH: topic with U+0000", "1.5.4-2", publish(b"a\0", b"x"), bye(0x81)),
    ("PUBLISH with subscription identifier", "3.3.4-6", publish("t", props=b"\x0b\x01"), bye(0x82)),
    ("response topic with a wildcard", "3.3.2-14", publish("t", props=b"\x08" + text("a/#")), bye(0x82)),
    ("payload format 2", "3.3.2.3.2", publish("t", props=b"\x01\x02"), bye(0x82)),
    ("message expiry twice", "3.3.2.3.3", publish("t", props=b"\x02\0\0\0\x09" * 2), bye(0x82)),
    ("property of another packet", "2.2.2.2", publish("t", props=RECEIVE_MAX), bye(0x81)),
    ("user property cut off", "2.2.2", publish("t", props=b"\x26\x00\x01a\x00\x05b"), bye(0x81)),
    ("payload that is not the UTF-8 it says", "3.3.2.3.2", publish("t", b"\xff", 1, 7, props=b"\x01\x01"), acked(0x99)),
    ("payload that is not the JSON it says", "PROTOCOL.md", publish("t", b"{", 1, 7, props=b"\x03" + text("application/json")),
     acked(0x99)),
    ("PUBLISH to $SYS", "PROTOCOL.md", publish("$SYS/x", b"x", 1, 7), acked(0x87)),
    ("PUBLISH to $SYS, QoS 0", "PROTOCOL.md", publish("$SYS/x", b"x"), GOES_ON),
    ("PUBLISH to a topic too long", "limit.topic_bytes", publish(LONG, b"x", 1, 7), acked(0x90)),
    ("PUBLISH to a topic too deep", "limit.topic_levels", publish(DEEP, b"x", 1, 7), acked(0x90)),
    ("PUBLISH larger than a message may be", "limit.message_bytes", publish("t", bytes(2048 + 1), 1, 7), acked(0x97)),
    ("tg-seq without tg-producer", "PROTOCOL.md", publish("t", b"x", 1, 7, props=user("tg-seq", "1")), acked(0x83)),
    ("tg-deliver-at is not in this build", "PROTOCOL.md", publish("t", b"x", 1, 7, props=user("tg-deliver-at", "1")), acked(0x83)),
    ("PUBACK with identifier 0", "2.2.1-3", puback(0), bye(0x82)),
    ("PUBACK of nothing", "4.3.2", puback(9), GOES_ON),
    ("PUBACK with a code of SUBACK", "3.4.2.1", packet(0x40, b"\0\x07\x01"), bye(0x82)),
    ("PUBACK with flags", "2.1.3", b"\x42\x02\0\x07", bye(0x81)),
    ("PUBACK of one byte", "3.4.2", packet(0x40, b"\0"), bye(0x81)),
    ("PUBREL with wrong flags", "3.6.1-1", packet(0x60, b"\0\x07"), bye(0x81)),
    ("PUBREC of nothing", "4.3.3", packet(0x50, b"\0\x07"), answer(b"\x62\x03\0\x07\x92")),
    ("PUBREL of nothing", "4.3.3", packet(0x62, b"\0\x07"), answer(b"\x70\x03\0\x07\x92")),
    ("PUBCOMP of nothing", "4.3.3", packet(0x70, b"\0\x07"), GOES_ON),
    ("SUBSCRIBE with wrong flags", "3.8.1-1", subscribe(7, "t", first=0x80), bye(0x81)),
    ("SUBSCRIBE with identifier 0", "2.2.1-3", subscribe(0, "t"), bye(0x82)),
    ("SUBSCRIBE to nothing", "3.8.3-2", subscribe(7), bye(0x82)),
    ("SUBSCRIBE QoS 3", "3.8.3.1", subscribe(7, ("t", 3)), bye(0x82)),
    ("SUBSCRIBE reserved bits", "3.8.3-5", subscribe(7, ("t", 0x40)), bye(0x81)),
    ("SUBSCRIBE retain handling 3", "3.8.3.1", subscribe(7, ("t", 0x30)), bye(0x82)),
    ("SUBSCRIBE QoS 2", "3.8.4-8", subscribe(7, ("t", 2)), suback(2)),
    ("SUBSCRIBE subscription identifier 0", "3.8.2.1.2", subscribe(7, "t", props=b"\x0b\x00"), bye(0x82)),
    ("SUBSCRIBE subscription identifier", "3.8.2.1.2", subscribe(7, "t", props=b"\x0b\x05"), suback(1)),
    ("SUBSCRIBE subscription identifier twice", "3.8.2.1.2", subscribe(7, "t", props=b"\x0b\x05" * 2), bye(0x82)),
    ("SUBSCRIBE shared", "4.8.2", subscribe(7, "$share/g/t", "t"), suback(1, 1)),
    ("SUBSCRIBE shared, no filter", "4.8.2-1", subscribe(7, "$share/g", "$share/g/"), suback(0x8F, 0x8F)),
    ("SUBSCRIBE shared, a name with a wildcard", "4.8.2-2", subscribe(7, "$share/a+/t", "$share/#/t"), suback(0x8F, 0x8F)),
    ("SUBSCRIBE shared, no local", "3.8.3-4", subscribe(7, ("$share/g/t", 0x05)), bye(0x82)),
    ("SUBSCRIBE # not last", "4.7.1-1", subscribe(7, "#/a", "t"), suback(0x8F, 1)),
    ("SUBSCRIBE + within a level", "4.7.1-2", subscribe(7, "a+", "a/b+/c", "a#"), suback(0x8F, 0x8F, 0x8F)),
    ("SUBSCRIBE to an empty filter", "4.7.3-1", subscribe(7, ""), suback(0x8F)),
    ("SUBSCRIBE to a filter too long", "limit.topic_bytes", subscribe(7, LONG), suback(0x8F)),
    ("SUBSCRIBE to another's inbox", "PROTOCOL.md", subscribe(7, "$user/u/#"), suback(0x87)),
    ("SUBSCRIBE to other $ topics", "PROTOCOL.md", subscribe(7, "$SYS", "$SYSTEM/#", "$/+"), suback(0x83, 0x83, 0x83)),
    ("SUBSCRIBE to the past of $SYS", "PROTOCOL.md", subscribe(7, "$SYS/#", props=user("tg-from", "earliest")), suback(0x83)),
    ("SUBSCRIBE to $SYS that is not there", "PROTOCOL.md", subscribe(7, "$SYS/none/+"), suback(1)),
    ("SUBSCRIBE: filter is not UTF-8", "3.8.3-1", subscribe(7, b"\xff"), bye(0x81)),
    ("SUBSCRIBE without options", "3.8.3", packet(0x82, b"\0\x07\0" + text("t")), bye(0x81)),
    ("SUBSCRIBE tg-mode", "PROTOCOL.md", subscribe(7, "t", props=user("tg-mode", "latest")), suback(0x83)),
    ("SUBSCRIBE tg-from nonsense", "PROTOCOL.md", subscribe(7, "t", props=user("tg-from", "yesterday")), suback(0x83)),
    ("SUBSCRIBE tg-from twice", "PROTOCOL.md",
     subscribe(7, "t", props=user("tg-from", "live") + user("tg-from", "live")), bye(0x82)),
    ("SUBSCRIBE tg-from of another epoch", "PROTOCOL.md",
     subscribe(7, "t", props=user("tg-from", "000000010000.0000000000000001")), suback(0x83)),
    ("PUBLISH tg-key twice", "PROTOCOL.md",
     publish("bytes/key", b"x", 1, 7, props=user("tg-key", "a") + user("tg-key", "a")), bye(0x82)),
    ("PUBLISH tg-key too long", "limit.topic_bytes",
     publish("bytes/key", b"x", 1, 7, props=user("tg-key", "k" * 1025)), acked(0x97)),
    ("PUBLISH tg-key as long as may be", "limit.topic_bytes",
     publish("bytes/key", b"x", 1, 7, props=user("tg-key", "k" * 1024)), acked()),
    ("SUBSCRIBE to 1,025 filters", "limits", subscribe(7, *["t"] * 1025), bye(0x95)),
    ("SUBSCRIBE to 1,001 filters", "limit.subscriptions", subscribe(7, *[f"s/{i}" for i in range(1001)]),
     suback(*[1] * 1000, 0x97)),
    ("UNSUBSCRIBE with wrong flags", "3.10.1-1", unsubscribe(7, "t", first=0xA0), bye(0x81)),
    ("UNSUBSCRIBE with identifier 0", "2.2.1-3", unsubscribe(0, "t"), bye(0x82)),
    ("UNSUBSCRIBE from nothing", "3.10.3-2", unsubscribe(7), bye(0x82)),
    ("UNSUBSCRIBE of what is not there", "3.11.3", unsubscribe(7, "t", "#/x"), answer(packet(0xB0, b"\0\x07\0\x11\x11"))),
    ("DISCONNECT", "3.14", BYE, CLOSED),
    ("DISCONNECT with will", "3.14.2.1", packet(0xE0, b"\x04"), CLOSED),
    ("DISCONNECT: unspecified error", "3.14.2.1", packet(0xE0, b"\x80\x00"), CLOSED),
    ("DISCONNECT with flags", "3.14.1-1", b"\xe1\x00", bye(0x81)),
    ("DISCONNECT with a code that is none", "3.14.2.1", packet(0xE0, b"\x01"), bye(0x82)),
    ("DISCONNECT with a server's code", "3.14.2.1", packet(0xE0, b"\x8e"), bye(0x82)),
    ("DISCONNECT with a session expiry", "3.14.2.2.2", packet(0xE0, b"\x00" + properties(EXPIRY)), bye(0x82)),
    ("packets after DISCONNECT", "3.14.4", BYE + publish("bytes/late", b"x"), CLOSED),
]

AFTER311 = [
    ("second CONNECT", "3.1.0-2", connect(4, "again"), CLOSED),
    ("AUTH", "2.2.1", packet(0xF0), CLOSED),
    ("PINGRESP from a client", "2.2.1", PONG, CLOSED),
    ("PUBLISH retained", "3.3.1.3", publish("bytes/kept", b"x", 1, 7, version=4, flags=0x03), acked()),
    ("PUBLISH QoS 2", "4.3.3", publish("t", b"x", 2, 7, 4), answer(b"\x50\x02\0\x07")),
    ("PUBLISH QoS 3", "3.3.1-4", publish("t", version=4, flags=0x06), CLOSED),
    ("PUBLISH with identifier 0", "2.3.1-1", publish("t", b"x", 1, 0, 4), CLOSED),
    ("PUBLISH to #", "3.3.2-2", publish("#", b"x", version=4), CLOSED),
    ("PUBLISH to nowhere", "4.7.3-1", publish("", b"x", version=4), CLOSED),
    ("PUBLISH: topic with U+0000", "1.5.3-2", publish(b"a\0", b"x", version=4), CLOSED),
    ("PUBLISH to $SYS", "3.3.5-2", publish("$SYS/x", b"x", 1, 7, 4), CLOSED),
    ("PUBLISH larger than a message may be", "limit.message_bytes", publish("t", bytes(2048 + 1), 1, 7, 4), CLOSED),
    ("PUBLISH QoS 1", "4.3.2", publish("bytes/q1", b"x", 1, 7, 4), acked()),
    ("packet of 268 MB announced", "limits", b"\x30\xff\xff\xff\x7f", CLOSED),
    ("PUBACK of nothing", "4.3.2", puback(9), GOES_ON),
    ("PUBACK with a reason", "3.4", packet(0x40, b"\0\x07\x00"), CLOSED),
    ("SUBSCRIBE with 5.0 options", "3-8.3-4", subscribe(7, ("t", 0x04), version=4), CLOSED),
    ("SUBSCRIBE QoS 3", "3-8.3-4", subscribe(7, ("t", 3), version=4), CLOSED),
    ("SUBSCRIBE shared, and a wrong filter", "3.9.3", subscribe(7, "$share/g/t", "$share/g", "a#", "t", version=4),
     suback(1, 0x80, 0x80, 1, version=4)),
    ("SUBSCRIBE to nothing", "3.8.3-3", subscribe(7, version=4), CLOSED),
    ("UNSUBSCRIBE of what is not there", "3.10.4-5", unsubscribe(7, "t", version=4), answer(b"\xb0\x02\0\x07")),
    ("DISCONNECT", "3.14", BYE, CLOSED),
    ("DISCONNECT with a body", "3.14", packet(0xE0, b"\x00"), CLOSED),
]

AFTER31 = [
    ("PUBLISH QoS 1", "3.3", publish("bytes/q1", b"x", 1, 7, 3), acked()),
    ("SUBSCRIBE", "3.8", subscribe(7, "t", ("u", 0), version=3), suback(1, 0, version=3)),
    ("SUBSCRIBE to a wrong filter: 3.1 has no code", "3.9", subscribe(7, "a#", version=3), CLOSED),
    ("PUBLISH retained", "3.3", publish("bytes/kept", b"x", 1, 7, version=3, flags=0x03), acked()),
    ("PINGREQ", "3.12", PING, answer(PONG)),
]

TABLE = [(what, section, version, data, want)
         for version, rows in ((None, BEFORE), (5, AFTER5), (4, AFTER311), (3, AFTER31))
         for what, section, data, want in rows]
SLOWLY_BYTES_MAX = 300  # longer ones are cut into a few pieces instead
SETTINGS = {"limit.message_bytes": 2048, "mqtt.connect_timeout_ms": 60000}


def test_the_table_is_long_enough():
    assert len(TABLE) >= 80


# --- running a row ----------------------------------------------------------------------------------------------

def send_in_pieces(wire, data):
    size = 1 if len(data) <= SLOWLY_BYTES_MAX else len(data) // 16 + 1
    try:
        for place in range(0, len(data), size):
            wire.send(data[place:place + size])
    except OSError:
        pass  # refused before the end, which is what the row wants; what came back is looked at


def reaction(wire, version, data, want, slowly):
    """None, or what was wrong."""
    kind, expected = want
    try:
        send_in_pieces(wire, data) if slowly else wire.send(data)
        if kind == "closed":
            got = bare_stream(wire.rest()) if version == 5 else wire.rest()
            return None if got == expected else f"{got[:80].hex()} and closed"
        if kind == "connack5":
            got = wire.rest()
            ok = got[:1] == b"\x20" and len(got) >= 5 and got[1] == len(got) - 2 and got[2:4] == bytes([0, expected])
            return None if ok else f"{got[:80].hex()} and closed"
        if kind == "accepted":
            first, body = wire.packet()
            wire.ping()
            return None if first == 0x20 and body[1:2] == b"\0" and body[0] < 2 else f"{first:02x} {body[:80].hex()}"
        got = b""
        while len(got) < len(expected):
            first, body = wire.packet()
            got += packet(first, bare(first >> 4, body) if version == 5 else body)
        wire.ping()
        return None if got == expected else f"{got[:80].hex()} and open"
    except End:
        return f"{wire.kept[:80].hex()} and closed"
    except (AssertionError, TimeoutError, OSError) as error:
        return repr(error)


class Healthy:
    """A client that behaves, and expects to be served whatever others do."""

    def __init__(self, node):
        self.wire = Wire(node, 5, "healthy")
        assert self.wire.subscribe("healthy/+") == b"\x01"
        self.count = 0

    def check(self):
        self.count += 1
        payload = b"%d" % self.count
        self.wire.send(publish("healthy/x", payload, 1, 1))
        kinds = set()
        for _ in range(2):
            first, body = self.wire.packet()
            kinds.add(first >> 4)
            if first >> 4 == 3:
                assert body.endswith(payload), body
                place = 2 + len("healthy/x")
                self.wire.send(puback(struct.unpack_from(">H", body, place)[0]))
        assert kinds == {3, 4}


def descriptors(node):
    return len(os.listdir(f"/proc/{node.pid}/fd"))


def all_gone(node, connections=1):
    wait_until(lambda: node.metric("tidegate_connections", "mqtt") == connections, "all connections to be gone")


@LOOPS
@pytest.mark.deadline(240)
def test_each_sequence_gets_the_reaction_of_the_standard(make_node, loops):
    node = make_node({**SETTINGS, "node.loops": loops})
    healthy = Healthy(node)
    wrong = []

    def run(rows, slowly):
        for what, section, version, data, want in rows:
            with Wire(node, version or 5, "row", connected=version is not None) as wire:
                problem = reaction(wire, version, data, want, slowly)
            if problem:
                pace = "byte by byte" if slowly else "at once"
                wrong.append(f"{version or '-'} {what} ({section}, {pace}): {problem} instead of {want}")
            healthy.check()

    run(TABLE, False)
    all_gone(node)
    fds, rss = descriptors(node), node.rss_bytes()
    run(TABLE, True)
    run(TABLE, False)
    assert not wrong, "\n".join(wrong)
    all_gone(node)
    wait_until(lambda: descriptors(node) <= fds, "the descriptors to be closed")
    assert node.metrics()["tidegate_subscriptions"] == 1
    assert node.metrics()["tidegate_outbound_queue_bytes"] == 0
    assert node.metrics()["tidegate_publishes_open"] == 0
    if PATIENCE == 1:  # a sanitizer keeps freed memory
        assert node.rss_bytes() < rss + (8 << 20)


@LOOPS
def test_half_packets_and_then_silence_or_the_end(make_node, loops):
    node = make_node({**SETTINGS, "node.loops": loops})
    healthy = Healthy(node)
    whole = publish("half/t", b"never", 1, 7, props=user("a", "b"))
    for cut in range(1, len(whole)):
        with Wire(node) as wire:
            wire.send(whole[:cut])
            if cut % 2:
                wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
        if cut % 8 == 0:
            healthy.check()
    hello = connect(5, "half")
    for cut in range(0, len(hello)):
        with Wire(node, connected=False) as wire:
            wire.send(hello[:cut])
    all_gone(node)
    healthy.check()
    assert node.metric("tidegate_messages_received_total", "mqtt") == healthy.count


@LOOPS
def test_no_connect_no_connection(make_node, loops):
    node = make_node({"node.loops": loops, "mqtt.connect_timeout_ms": 300})
    silent = Wire(node, connected=False)
    half = Wire(node, connected=False)
    half.send(connect(5, "x")[:-1])
    good = Wire(node)
    assert silent.rest() == b"" and half.rest() == b""
    good.ping()  # the time-out is for those without CONNECT only
    assert node.metric("tidegate_disconnects_total", "timeout") == 2


@LOOPS
@pytest.mark.parametrize("version", [3, 4, 5])
def test_connect_subscribe_publish_in_one_segment(make_node, loops, version):
    """3.1.4: a client need not wait for CONNACK."""
    node = make_node({"node.loops": loops, "log.partitions": 4})
    for round_number in range(20):
        with Wire(node, version, connected=False) as wire:
            wire.send(connect(version, f"pipe{round_number}") + subscribe(1, "pipe/#", version=version)
                      + b"".join(publish("pipe/t", b"%d" % i, 1, i + 1, version) for i in range(5)) + PING)
            assert wire.packet()[0] == 0x20
            acks, messages, pong, suback_first = [], [], False, None
            while len(acks) < 5 or len(messages) < 5 or not pong or suback_first is None:
                first, body = wire.packet()
                if first >> 4 == 9:
                    suback_first = not messages
                elif first >> 4 == 4:
                    acks.append(struct.unpack(">H", body[:2])[0])
                elif first >> 4 == 13:
                    pong = True
                else:
                    messages.append(body[-1:])
                    place = 2 + len("pipe/t")
                    wire.send(puback(struct.unpack_from(">H", body, place)[0]))
            assert acks == [1, 2, 3, 4, 5]
            assert messages == [b"0", b"1", b"2", b"3", b"4"]
            wire.send(BYE)
            assert wire.rest() == b""


def test_pipelined_behind_a_refused_connect_is_not_stored(make_node):
    node = make_node(SETTINGS)
    with Wire(node, connected=False) as wire:
        wire.send(connect(5, "c", 0x82, rest=text("u")) + publish("t", b"x", 1, 7))
        got = wire.rest()
        assert got[0] == 0x20 and got[3] == 0x86 and len(got) == got[1] + 2
    assert node.metric("tidegate_messages_received_total", "mqtt") == 0


def test_a_sender_of_pings_who_reads_nothing_is_bounded(make_node):
    node = make_node({"out.bytes_max": 65536, "out.stall_ms": 1000})
    healthy = Healthy(node)
    with Wire(node, receive_buffer=4096) as wire:
        wire.socket.settimeout(0.2)
        sent = 0
        deadline = time.monotonic() + 60 * PATIENCE
        try:
            while time.monotonic() < deadline:
                try:
                    sent += wire.socket.send(PING * 8192)
                except TimeoutError:
                    assert node.metrics()["tidegate_outbound_queue_bytes"] < 1 << 20
                    healthy.check()
        except OSError:
            pass  # closed for want of progress
        assert time.monotonic() < deadline
    all_gone(node)


@LOOPS
@pytest.mark.deadline(180)
def test_random_bytes(make_node, loops):
    """Mutations of good packets: whatever happens, others are served and nothing is left."""
    node = make_node({**SETTINGS, "node.loops": loops, "mqtt.connect_timeout_ms": 5000})
    healthy = Healthy(node)
    dice = random.Random(20240607)
    for round_number in range(400):
        _, _, version, data, _ = TABLE[dice.randrange(len(TABLE))]
        stream = bytearray(connect(version or 5, "") * (version is not None) + data[:4096] + PING + data[:4096])
        for _ in range(dice.choice([1, 1, 2, 8])):
            stream[dice.randrange(len(stream))] = dice.randrange(256)
        with Wire(node, connected=False) as wire:
            try:
                wire.send(bytes(stream))
                if dice.random() < 0.5:
                    wire.socket.shutdown(socket.SHUT_WR)
                    wire.rest()
            except OSError:
                pass
        if round_number % 20 == 0:
            healthy.check()
    healthy.check()
    all_gone(node)
    assert node.metrics()["tidegate_subscriptions"] == 1
