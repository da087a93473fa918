"""Hostile input at all doors, one table: what is sent, where, what must come back, and where that is written.

All rows run one after the other against one node, and after each a healthy client of every door is served. The table is
run three times; the memory after the first round is that after the last. Then who is slow: whoever says nothing, or half
of it, or a byte at a time, is ended by the time-out of its door. Then floods.

What is in a table elsewhere is not repeated here: every kind of MQTT packet with the reaction of 5.0, 3.1.1 and 3.1
(test_mqtt_bytes.py: 199 rows), heads and bodies at the private port (test_http_hostile.py: 69 rows), handshakes and
frames of WebSockets, requests in them (test_ws.py, test_mqtt_ws.py), TLS records and certificates (test_tls.py), bad
tokens (test_identity.py, test_keys.py) and rights (test_acl.py: 49 rows at every door)."""

import base64
import json
import socket
import ssl
import struct
import time

import pytest

from http_wire import request
from mqtt_carrier import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, frame, upgrade
from mqtt_wire import PING as MQTT_PING
from mqtt_wire import Wire as MqttWire
from mqtt_wire import connect, packet, properties, publish, subscribe, text, unsubscribe, user
from clients import WAIT_S
from node import PATIENCE, Node, spans, wait_until
from test_mqtt_bytes import ACCEPTED, CLOSED, acked, answer, bye, connack3, connack5, reaction, suback, will

HELLO = request(body=b"hello")
UPGRADE = upgrade("/ws", "tidegate.v1.json")

# --- reactions -------------------------------------------------------------------------------------------------
# MQTT: those of test_mqtt_bytes.py. HTTP: http(status, ...). WebSocket: ends(close code), says(error code or operation).


def http(*statuses, closed=False):
    """These answers in this order; an item may be a tuple: any of them. None: closed without an answer."""
    return ("http", statuses, closed)


def ends(code):
    return ("ends", code)


def says(*kinds):
    """One line for each: an error code, or "ok"; the connection goes on."""
    return ("says", kinds)


WAITS = ("waits", None)  # for the rest; the time-out of its door is below
SUB_FAILS = ("sub fails", None)  # a SUBACK of 0x80 or more, and it goes on
PONG_BYTES = b"\xd0\x00"


def line(item):
    return frame(item if isinstance(item, bytes) else json.dumps(item).encode(), TEXT)


def pub(value, topic=b'"h/t"'):
    return line(b'{"id":1,"pub":{"topic":%s,"data":%s}}' % (topic, value))


def get(path="/ws", fields="", version="HTTP/1.1", host="Host: 127.0.0.1\r\n"):
    return f"GET {path} {version}\r\n{host}{fields}\r\n".encode("latin-1")


HANDSHAKE = ("Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
             "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n")


def raw_frame(first, second, rest=b""):
    return bytes([first, second]) + rest


ALIAS = b"\x23\x00\x01"
DEEP_64 = b"[" * 62 + b"1" + b"]" * 62  # with the line's two objects: 64
DEEP_65 = b"[" * 65 + b"1" + b"]" * 65
EVENT = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "subject": "h/e"}


def post(body, content_type="application/json", target="/v1/publish/h/t", fields=""):
    return request(target, f"Content-Type: {content_type}\r\n{fields}", body if isinstance(body, bytes) else json.dumps(body).encode())


# --- the table: what, where it is written, bytes, reaction -----------------------------------------------------

API = [
    ("NUL in the path", "RFC 3986, 3.3", request("/v1/publish/h\0x", body=b"hello") + HELLO, http(400, closed=True)),
    ("NUL at the end of the path", "RFC 3986, 3.3", request("/v1/publish/h\0", body=b"hello"), http(400, closed=True)),
    ("NUL in the query", "RFC 3986, 3.4", request("/v1/publish?topic=h\0x", body=b"hello"), http(400, closed=True)),
    ("NUL before the query", "RFC 3986, 3.4", request("/v1/publish/h\0?topic=x", body=b"hello"), http(400, closed=True)),
    ("NUL in a value", "RFC 9110, 5.5", request(fields="X: a\0b\r\n") + HELLO, http(400, closed=True)),
    ("NUL in Host", "RFC 9110, 5.5", request(host="Host: localhost\0.evil.example\r\n", body=b"hello"), http(400, closed=True)),
    ("NUL in Content-Length", "RFC 9110, 5.5", request(fields="Content-Length: 5\x000\r\n") + b"hello", http(400, closed=True)),
    ("NUL in the version", "RFC 9112, 2.3", request(version="HTTP/1.1\0x", body=b"hello"), http(400, closed=True)),
    ("folded line", "RFC 9112, 5.2", request(fields="X: a\r\n b\r\n") + HELLO, http(400, closed=True)),
    ("folded line that hides a field", "RFC 9112, 5.2",
     request(fields="X: a\r\n Transfer-Encoding: chunked\r\n", body=b"hello"), http(400, closed=True)),
    ("folded Content-Length", "RFC 9112, 5.2", request(fields="Content-Length:\r\n 5\r\n") + b"hello", http(400, closed=True)),
    ("folded with a tab", "RFC 9112, 5.2", request(fields="X: a\r\n\tb\r\n", body=b"hello"), http(400, closed=True)),
    ("bare CR in a value", "RFC 9112, 2.2", request(fields="X: a\rTransfer-Encoding: chunked\r\n", body=b"hello") + HELLO,
     http(400, closed=True)),
    ("Transfer-Encoding behind a tab", "RFC 9112, 6.1", request(fields="Transfer-Encoding:\tchunked\r\n") + b"0\r\n\r\n" + HELLO,
     http(411, closed=True)),
    ("TRANSFER-ENCODING", "RFC 9110, 5.1", request(fields="TRANSFER-ENCODING: Chunked\r\n") + b"0\r\n\r\n" + HELLO,
     http(411, closed=True)),
    ("Transfer-Encoding without a value", "RFC 9112, 6.1", request(fields="Transfer-Encoding:\r\n", body=b"hello"), http(411)),
    ("Transfer-Encoding for a GET", "RFC 9112, 6.1",
     request("/healthz", "Transfer-Encoding: chunked\r\n", method="GET") + b"0\r\n\r\n" + HELLO, http(411, closed=True)),
    ("Content-Length in other digits", "RFC 9110, 8.6", request(fields="Content-Length: \xb2\r\n") + b"he", http(400)),
    ("Content-Length with a space within", "RFC 9110, 8.6", request(fields="Content-Length: 5 5\r\n") + b"hello", http(400)),
    ("Content-Length with zeros before", "RFC 9110, 8.6", request(fields="Content-Length: 0005\r\n") + b"hello", http((200, 400))),
    ("a request within the body", "RFC 9112, 6.3", request(body=HELLO) + request("/healthz", method="GET"), http(200, 200)),
    ("body of a HEAD", "RFC 9110, 9.3.2", request("/healthz", method="HEAD", body=b"GET"), http(400)),
    ("absolute target with another Host", "RFC 9112, 3.2.2",
     request("http://127.0.0.1/v1/publish/h", host="Host: evil.example\r\n", body=b"x"), http(200)),
    ("Host with a user", "RFC 9112, 3.2", request(host="Host: localhost@evil.example\r\n", body=b"x"), http(403)),
    ("Host with a path", "RFC 9112, 3.2", request(host="Host: localhost/evil\r\n", body=b"x"), http(403)),
    ("Host of all zeros", "PROTOCOL.md", request(host="Host: 0.0.0.0\r\n", body=b"x"), http(403)),
    ("Host as a number", "PROTOCOL.md", request(host="Host: 2130706433\r\n", body=b"x"), http(403)),
    ("two Origins", "RFC 6454, 7", request(fields="Origin: http://127.0.0.1\r\nOrigin: http://evil.example\r\n", body=b"x"), http(400)),
    ("Origin null", "RFC 6454, 7.3", request(fields="Origin: null\r\n", body=b"x"), http(403)),
    ("two Authorizations", "RFC 9110, 5.3",
     request(fields="Authorization: Bearer a\r\nAuthorization: Bearer b\r\n", body=b"x"), http(400)),
    ("Authorization of nothing", "RFC 6750, 2.1", request(fields="Authorization: Bearer \r\n", body=b"x"), http(401)),
    ("Basic that is no base64", "RFC 7617, 2", request(fields="Authorization: Basic =====\r\n", body=b"x"), http(401)),
    ("Basic without a colon", "RFC 7617, 2", request(fields="Authorization: Basic aGk=\r\n", body=b"x"), http(401)),
    ("Basic with NULs", "RFC 7617, 2",
     request(fields=f"Authorization: Basic {base64.b64encode(bytes(9) + b':' + bytes(9)).decode()}\r\n", body=b"x"), http(401)),
    ("Forwarded", "PROTOCOL.md", request(fields="Forwarded: for=1.2.3.4\r\n", body=b"x"), http(401)),
    ("compressed body (a bomb would be one)", "RFC 9110, 8.4",
     post(b"\x1f\x8b\x08" + bytes(100), fields="Content-Encoding: gzip\r\n"), http(415)),
    ("compressed twice", "RFC 9110, 8.4", post(b"x", fields="Content-Encoding: gzip, br\r\n"), http(415)),
    ("%00 in the path", "PROTOCOL.md", request("/v1/publish/h%00x", body=b"x"), http(400)),
    ("%00 in the query", "MQTT 5.0, 1.5.4-2", request("/v1/publish?topic=h%00x", body=b"x"), http(400)),
    ("%2F in the path", "PROTOCOL.md", request("/v1/publish/h%2fx", body=b"x"), http(400)),
    ("dots in the path", "PROTOCOL.md", request("/v1/publish/h/../../admin", body=b"x"), http(400)),
    ("dots in the path, encoded", "PROTOCOL.md", request("/v1/publish/h/%2e%2E/x", body=b"x"), http(400)),
    ("backslash", "RFC 3986, 2", request("/v1/publish/h\\..\\x", body=b"x"), http(200)),
    ("encoded twice stays encoded", "PROTOCOL.md", request("/v1/publish/h/%252e%252e", body=b"x"), http(200)),
    ("topic of overlong UTF-8", "RFC 3629, 3", request("/v1/publish?topic=h%C0%AF", body=b"x"), http(400)),
    ("topic with a surrogate", "RFC 3629, 3", request("/v1/publish?topic=%ED%A0%80", body=b"x"), http(400)),
    ("topic beyond U+10FFFF", "RFC 3629, 3", request("/v1/publish?topic=%F4%90%80%80", body=b"x"), http(400)),
    ("topic with a wildcard", "MQTT 5.0, 3.3.2-2", request("/v1/publish?topic=h%2F%23", body=b"x"), http(400)),
    ("topic twice", "PROTOCOL.md", request("/v1/publish?topic=a&topic=b", body=b"x"), http(400)),
    ("topic of 33 levels", "limit.topic_levels", request("/v1/publish?topic=" + "/".join("a" * 33), body=b"x"), http(400)),
    ("topic of 1,025 bytes", "limit.topic_bytes", request("/v1/publish?topic=" + "a" * 1025, body=b"x"), http(400)),
    ("to $SYS", "PROTOCOL.md", request("/v1/publish?topic=$SYS/x", body=b"x"), http(403)),
    ("to $share", "PROTOCOL.md", request("/v1/publish?topic=$share/g/x", body=b"x"), http(403)),
    ("JSON of 65 levels", "PROTOCOL.md", post(DEEP_65), http(400)),
    ("JSON of 60,000 levels", "PROTOCOL.md", post(b"[" * 60_000), http(400)),
    ("JSON with a lone surrogate", "RFC 8259, 8.2", post(b'"\\ud800"'), http(400)),
    ("JSON that is not UTF-8", "RFC 8259, 8.1", post(b'"\xff"'), http(400)),
    ("JSON with a byte order mark", "RFC 8259, 8.1", post(b"\xef\xbb\xbf{}"), http(400)),
    ("JSON number of 60,001 digits", "RFC 8259, 6", post(b"1" + b"0" * 60_000), http(200)),
    ("JSON numbers that are none", "RFC 8259, 6", post(b"[01, .5, +1, 0x1, NaN]"), http(400)),
    ("JSON and more", "RFC 8259, 2", post(b"{} {}"), http(400)),
    ("JSON with a NUL behind it", "RFC 8259, 2", post(b"{}\0"), http(400)),
    ("batch: messages twice", "PROTOCOL.md", post(b'{"messages":[],"messages":[]}', target="/v1/publish"), http(400)),
    ("batch: a member twice", "RFC 8259, 4", post(b'{"messages":[{"topic":"h/a","topic":"h/b","data":1}]}', target="/v1/publish"),
     http(400)),
    ("batch: topic with U+0000", "MQTT 5.0, 1.5.4-2", post({"messages": [{"topic": "h/\0", "data": 1}]}, target="/v1/publish"), http(400)),
    ("batch: 20,001 messages", "limit.batch_messages", post(b'{"messages":[' + b"1," * 20_000 + b"1]}", target="/v1/publish"),
     http(413)),
    ("batch: cut off", "RFC 8259", post(b'{"messages":[{"topic":"h/a","data":1}', target="/v1/publish"), http(400)),
    ("batch: sequence 2^53", "PROTOCOL.md",
     post({"messages": [{"topic": "h/a", "data": 1, "producer": "p", "seq": 2 ** 53}]}, target="/v1/publish"), http(400)),
    ("event: an attribute twice", "CloudEvents, 3.1",
     post(b'{"specversion":"1.0","id":"1","id":"2","source":"/s","type":"t","subject":"h/e"}', "application/cloudevents+json"), http(400)),
    ("event: an attribute with a line break in its name", "CloudEvents, 3.1",
     post({**EVENT, "a\r\nb": "x"}, "application/cloudevents+json"), http(400)),
    ("event: 49 attributes in the head", "PROTOCOL.md",
     post(b"x", "text/plain", fields="".join(f"ce-a{i}: x\r\n" for i in range(49))
          + "ce-specversion: 1.0\r\nce-id: 1\r\nce-source: s\r\nce-type: t\r\n"), http(400)),
    ("TTL of 2^53", "PROTOCOL.md", request(fields="Tidegate-Ttl-Ms: 9007199254740992\r\n", body=b"x"), http(400)),
    ("TTL of 0", "PROTOCOL.md", request(fields="Tidegate-Ttl-Ms: 0\r\n", body=b"x"), http(400)),
    ("key that is not UTF-8", "PROTOCOL.md", request(fields="Tidegate-Key: \xff\r\n", body=b"x"), http(400)),
    ("Idempotency-Key without its end quote", "RFC 9651, 3.3.3", request(fields='Idempotency-Key: "a\r\n', body=b"x"), http(400)),
    ("Idempotency-Key of 256 bytes", "PROTOCOL.md", request(fields=f"Idempotency-Key: {'k' * 256}\r\n", body=b"x"), http(400)),
    ("history from nowhere", "PROTOCOL.md", request("/v1/history/h/t?from=after:zz", method="GET"), http(400)),
    ("history of -1 messages", "PROTOCOL.md", request("/v1/history/h/t?max=-1", method="GET"), http(400)),
    ("history of 2^64 messages", "PROTOCOL.md", request("/v1/history/h/t?max=18446744073709551616", method="GET"), http(400)),
]

WS = [
    ("RSV2", "RFC 6455, 5.2", raw_frame(0xA1, 0x80, bytes(4)), ends(1002)),
    ("RSV3", "RFC 6455, 5.2", raw_frame(0x91, 0x80, bytes(4)), ends(1002)),
    ("RSV1 as if compressed (a bomb would be one)", "RFC 7692, 6", raw_frame(0xC1, 0x84, bytes(4) + b"\xaa\x02\x00\x00"), ends(1002)),
    ("RSV1 on a control frame", "RFC 6455, 5.2", raw_frame(0xC9, 0x80, bytes(4)), ends(1002)),
    ("RSV1 on a continuation", "RFC 6455, 5.2", frame(b"{", TEXT, False) + raw_frame(0xC0, 0x81, bytes(4) + b"}"), ends(1002)),
    ("all opcodes between", "RFC 6455, 5.2", raw_frame(0x87, 0x80, bytes(4)), ends(1002)),
    ("opcode 15", "RFC 6455, 5.2", raw_frame(0x8F, 0x80, bytes(4)), ends(1002)),
    ("a ping that is not masked", "RFC 6455, 5.1", raw_frame(0x89, 0x00), ends(1002)),
    ("a close that is not masked", "RFC 6455, 5.1", raw_frame(0x88, 0x02, b"\x03\xe8"), ends(1002)),
    ("fragmented close", "RFC 6455, 5.5", raw_frame(0x08, 0x82, bytes(4) + b"\x03\xe8"), ends(1002)),
    ("fragmented pong", "RFC 6455, 5.5", raw_frame(0x0A, 0x80, bytes(4)), ends(1002)),
    ("close of 126 bytes", "RFC 6455, 5.5", raw_frame(0x88, 0xFE, b"\x00\x7e" + bytes(4) + bytes(126)), ends(1002)),
    ("pong of 64 KB", "RFC 6455, 5.5", raw_frame(0x8A, 0xFF, struct.pack("!Q", 65536) + bytes(4)), ends(1002)),
    ("a continuation first", "RFC 6455, 5.4", frame(b"", CONTINUATION), ends(1002)),
    ("text within a fragmented text", "RFC 6455, 5.4", frame(b"{}", TEXT, False) + frame(b"{}", TEXT, False), ends(1002)),
    ("binary within a fragmented text", "RFC 6455, 5.4", frame(b"{}", TEXT, False) + frame(b"{}", BINARY), ends(1002)),
    ("64-bit length of 2^63 - 1", "RFC 6455, 5.2", raw_frame(0x81, 0xFF, b"\x7f" + b"\xff" * 7 + bytes(4)), ends(1009)),
    ("64-bit length of 2^32 + 2 is not 2", "RFC 6455, 5.2", raw_frame(0x81, 0xFF, struct.pack("!Q", (1 << 32) + 2) + bytes(4) + b"{}"),
     ends(1009)),
    ("16-bit length of 0", "RFC 6455, 5.2", raw_frame(0x81, 0xFE, b"\0\0" + bytes(4)), ends(1002)),
    ("64-bit length of 65,535", "RFC 6455, 5.2", raw_frame(0x81, 0xFF, struct.pack("!Q", 65535) + bytes(4)), ends(1002)),
    ("fragments that are together too large", "RFC 6455, 7.4.1",
     frame(b" " * 60_000, TEXT, False) + frame(b" " * 60_000, CONTINUATION, False), ends(1009)),
    ("UTF-8 that is broken over fragments", "RFC 6455, 8.1",
     frame(b'{"\xe2\x82', TEXT, False) + frame(b'\x28":1}', CONTINUATION), ends(1007)),
    ("UTF-8 that is cut by the last fragment", "RFC 6455, 8.1", frame(b"{}\xf0\x9f", TEXT, False) + frame(b"\x98", CONTINUATION), ends(1007)),
    ("UTF-8 that is whole over fragments", "RFC 6455, 8.1",
     frame(b'{"id":1,"sub":{"topic":"\xe2', TEXT, False) + frame(b"\x82", CONTINUATION, False) + frame(b'\xac"}}', CONTINUATION), says("ok")),
    ("a surrogate as UTF-8", "RFC 3629, 3", line(b'{"\xed\xa0\x80":1}'), ends(1007)),
    ("overlong UTF-8", "RFC 3629, 3", line(b'{"\xc0\x80":1}'), ends(1007)),
    ("beyond U+10FFFF", "RFC 3629, 3", line(b'{"\xf4\x90\x80\x80":1}'), ends(1007)),
    ("reason of a close broken", "RFC 6455, 8.1", frame(b"\x03\xe8\xe2\x82", CLOSE), ends(1007)),
    ("close with 0", "RFC 6455, 7.4", frame(b"\0\0", CLOSE), ends(1002)),
    ("close with 1004", "RFC 6455, 7.4.1", frame(struct.pack("!H", 1004), CLOSE), ends(1002)),
    ("close with 1006", "RFC 6455, 7.4.1", frame(struct.pack("!H", 1006), CLOSE), ends(1002)),
    ("close with 1015", "RFC 6455, 7.4.1", frame(struct.pack("!H", 1015), CLOSE), ends(1002)),
    ("close with 2999", "RFC 6455, 7.4.2", frame(struct.pack("!H", 2999), CLOSE), ends(1002)),
    ("close with 5000", "RFC 6455, 7.4.2", frame(struct.pack("!H", 5000), CLOSE), ends(1002)),
    ("close with 65535", "RFC 6455, 7.4.2", frame(b"\xff\xff", CLOSE), ends(1002)),
    ("close with a code of ours", "RFC 6455, 7.4.2", frame(struct.pack("!H", 4203), CLOSE), ends(4203)),
    ("close without a code", "RFC 6455, 7.1.5", frame(b"", CLOSE), ends(1005)),
    ("frames after a close", "RFC 6455, 5.5.1", frame(struct.pack("!H", 1000), CLOSE) + pub(b"1") + b"\xff" * 100, ends(1000)),
    ("close within a fragmented message", "RFC 6455, 5.4", frame(b"{", TEXT, False) + frame(struct.pack("!H", 1001), CLOSE), ends(1001)),
    ("JSON of 64 levels", "PROTOCOL.md", pub(DEEP_64), says("ok")),
    ("JSON of 67 levels", "PROTOCOL.md", pub(DEEP_65), says("bad_request")),
    ("JSON of 60,000 levels", "PROTOCOL.md", line(b"[" * 60_000), says("bad_request")),
    ("a lone surrogate in a topic", "RFC 8259, 8.2", pub(b"1", b'"h/\\ud800"'), says("bad_request")),
    ("surrogates the wrong way round", "RFC 8259, 8.2", pub(b"1", b'"h/\\udc00\\ud800"'), says("bad_request")),
    ("U+0000 in a topic", "MQTT 5.0, 1.5.4-2", pub(b"1", b'"h/\\u0000"'), says("bad_request")),
    ("a non-character in a topic", "MQTT 5.0, 1.5.4", pub(b"1", b'"h/\\uffff"'), says("ok")),
    ("a control character, raw", "RFC 8259, 7", pub(b"1", b'"h/\x01"'), says("bad_request")),
    ("a number of 30,000 digits", "RFC 8259, 6", pub(b"9" * 30_000), says("ok")),
    ("a number with an exponent of 10,000", "RFC 8259, 6", pub(b"1e10000"), says("ok")),
    ("an id of 2^53", "PROTOCOL.md", line(b'{"id":9007199254740992,"hello":{}}'), says("bad_request")),
    ("an id of -1", "PROTOCOL.md", line(b'{"id":-1,"hello":{}}'), says("bad_request")),
    ("an id of 1.0", "PROTOCOL.md", line(b'{"id":1.0,"hello":{}}'), says("bad_request")),
    ("an id twice", "RFC 8259, 4", line(b'{"id":1,"id":2,"hello":{}}'), says("bad_request")),
    ("an operation twice", "RFC 8259, 4", line(b'{"id":1,"pub":{"topic":"h/a","data":1},"pub":{"topic":"h/b","data":2}}'),
     says("bad_request")),
    ("two operations", "PROTOCOL.md", line(b'{"id":1,"pub":{"topic":"h/a","data":1},"sub":{"topic":"h/b"}}'), says("bad_request")),
    ("a topic twice", "RFC 8259, 4", line(b'{"id":1,"pub":{"topic":"h/a","topic":"#","data":1}}'), says("bad_request")),
    ("an operation that is no object", "PROTOCOL.md", line(b'{"id":1,"pub":[]}'), says("bad_request")),
    ("a topic that is no text", "PROTOCOL.md", pub(b"1", b'["h"]'), says("bad_request")),
    ("a topic with +", "MQTT 5.0, 3.3.2-2", pub(b"1", b'"h/+"'), says("bad_request")),
    ("a topic of 33 levels", "limit.topic_levels", pub(b"1", b'"' + b"a/" * 32 + b'a"'), says("bad_request")),
    ("a line that is a number", "PROTOCOL.md", line(b"1"), says("bad_request")),
    ("a line of NULs", "PROTOCOL.md", line(bytes(10)), says("bad_request")),
    ("a byte order mark", "RFC 8259, 8.1", line(b"\xef\xbb\xbf{}"), says("bad_request")),
    ("base64 with a line break", "RFC 4648, 3.1", line(b'{"id":1,"pub":{"topic":"h/a","b64":"aG\\nk="}}'), says("bad_request")),
    ("base64 that is not canonical", "RFC 4648, 3.5", line(b'{"id":1,"pub":{"topic":"h/a","b64":"aGl="}}'), says("bad_request")),
    ("an acknowledgement of what was never sent", "PROTOCOL.md", line(b'{"ack":{"n":9007199254740991}}'), says("bad_request")),
    ("credit without end", "PROTOCOL.md", line(b'{"credit":{"msgs":9007199254740991,"bytes":9007199254740991}}') * 3 + line(b"{}"), says("")),
    ("ten lines that are none", "PROTOCOL.md", line(b"\n".join([b"x"] * 10)), ends(4201)),
    ("a token that is none", "PROTOCOL.md", line({"id": 1, "hello": {"token": "a.b.c"}}), ends(4200)),
    ("a token of 60 KB", "PROTOCOL.md", line({"id": 1, "hello": {"token": "x" * 60_000}}), ends(4200)),
    ("a token with U+0000", "PROTOCOL.md", line({"id": 1, "hello": {"token": "a\0b"}}), ends(4200)),
]

HTTP = [
    ("NUL in the target", "RFC 3986", get("/ws\0x", HANDSHAKE), http(400, closed=True)),
    ("NUL in a value", "RFC 9110, 5.5", get(fields="X: a\0b\r\n" + HANDSHAKE), http(400, closed=True)),
    ("folded line", "RFC 9112, 5.2", get(fields="X: a\r\n b\r\n" + HANDSHAKE), http(400, closed=True)),
    ("two Hosts", "RFC 9112, 3.2", get(fields="Host: evil.example\r\n" + HANDSHAKE), http(400, closed=True)),
    ("two Origins", "RFC 6454, 7", get(fields="Origin: http://127.0.0.1\r\nOrigin: http://evil.example\r\n" + HANDSHAKE),
     http(403, closed=True)),
    ("two keys", "RFC 6455, 11.3.1", get(fields="Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n" + HANDSHAKE), http(400, closed=True)),
    ("two versions", "RFC 6455, 11.3.5", get(fields="Sec-WebSocket-Version: 8\r\n" + HANDSHAKE), http(426, closed=True)),
    ("compression is not taken", "RFC 7692, 5", get(fields="Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=8\r\n"
                                                    + HANDSHAKE), ("upgrade", b"permessage")),
    ("a token in the URL", "PROTOCOL.md", get("/ws?token=a.b.c", HANDSHAKE), http(400, closed=True)),
    ("a ticket that is none", "PROTOCOL.md", get("/ws?ticket=" + "x" * 100, HANDSHAKE), http((101,))),
    ("dots that lead to /ws", "RFC 3986, 5.2.4", get("/demo/../ws", HANDSHAKE), http(400, closed=True)),
    ("%2e%2e in a page", "RFC 3986, 6.2.2", get("/demo/%2e%2e/%2e%2e/etc/passwd"), http(400)),
    ("%00 in a page", "RFC 3986", get("/demo/index.html%00.js"), http(400)),
    ("a file outside", "RFC 3986", get("/demo//etc/passwd"), http(400)),
    ("HTTP/1.0 with keep-alive", "RFC 9112, 9.3", get("/demo/", "Connection: keep-alive\r\n", "HTTP/1.0"), http(200)),
    ("Range", "RFC 9110, 14.2", get("/demo/", "Range: bytes=0-,0-,0-,0-\r\n"), http(200)),
    ("a feed of nothing", "PROTOCOL.md", get("/sse"), http(400)),
    ("a feed with U+0000", "MQTT 5.0, 1.5.4-2", get("/sse?topic=h%00x"), http(400)),
    ("a feed of what is not UTF-8", "RFC 3629", get("/sse?topic=%ff"), http(400)),
    ("a poll of -1 ms", "PROTOCOL.md", get("/poll?topic=h&wait_ms=-1"), http(400)),
    ("a head of 40 KB", "RFC 6585, 5", get(fields="X: " + "a" * 40_000 + "\r\n"), http(431, closed=True)),
    ("a cookie of 7 KB", "RFC 6265", get(fields="Cookie: " + "a=b; " * 600 + "\r\n" + HANDSHAKE), http((101, 400, 431, None))),
    ("pipelined upgrade", "RFC 6455, 4.1", get("/demo/nothing") + get(fields=HANDSHAKE), http(404, 101)),
    ("MQTT on the HTTP port", "RFC 9112", connect(5, "x"), http(400, closed=True)),
    ("a frame instead of a request", "RFC 9112", frame(b"{}", TEXT), http(400, closed=True)),
]

MQTT_WS = [
    ("text", "MQTT 5.0, 6.0.0-1", frame(connect(5, "x"), TEXT), ends(1003)),
    ("MQTT behind a CONNECT in one frame, cut in the middle", "MQTT 5.0, 6.0.0-2", frame((connect(5, "") + MQTT_PING)[:-1]) + frame(b"\0"),
     ("bytes", b"\x20", PONG_BYTES)),
    ("RSV1", "RFC 6455, 5.2", raw_frame(0xC2, 0x80, bytes(4)), ends(1002)),
    ("not masked", "RFC 6455, 5.1", raw_frame(0x82, 2, MQTT_PING), ends(1002)),
    ("a frame of 2^62 bytes: MQTT is a stream, its packets have bounds", "MQTT 5.0, 6.0.0-2", raw_frame(0x82, 0xFF, b"\x40" + bytes(7) + bytes(4)), WAITS),
    ("close with 1006", "RFC 6455, 7.4.1", frame(struct.pack("!H", 1006), CLOSE), ends(1002)),
    ("fragmented ping", "RFC 6455, 5.5", raw_frame(0x09, 0x80, bytes(4)), ends(1002)),
    ("a packet before CONNECT", "MQTT 5.0, 3.1.0-1", frame(MQTT_PING), ends(1000)),
]

MQTT = [
    ("remaining length of four 0x80", "1.5.5", None, b"\x10\x80\x80\x80\x80", CLOSED),
    ("protocol name of 65,535 bytes", "3.1.2.1", None, packet(0x10, text(b"M" * 65535) + b"\x05\x02\0\0\0\0\0"), connack3(1)),
    ("protocol name with a NUL", "3.1.2.1", None, connect(4, "c", name="MQ\0T"), CLOSED),
    ("will delay over the session's end", "3.1.3.2.2", None,
     connect(5, "c", 0x06, rest=properties(b"\x18\xff\xff\xff\xff") + text("h/w") + text("w")), ACCEPTED),
    ("will with a U+0000 topic", "1.5.4-2", None, connect(5, "c", 0x06, rest=will(b"h/\0", 5)), connack5(0x81)),
    ("will topic of nothing", "4.7.3-1", None, connect(5, "c", 0x06, rest=will("", 5)), connack5(0x90)),
    ("will topic to an inbox", "PROTOCOL.md", None, connect(5, "c", 0x06, rest=will("$user/x", 5)), connack5(0x87)),
    ("will payload that is not the UTF-8 it says", "3.1.3.2.3", None,
     connect(5, "c", 0x06, rest=properties(b"\x01\x01") + text("h/w") + text(b"\xff")), connack5(0x99)),
    ("will properties past the end", "2.2.2.1", None, connect(5, "c", 0x06, rest=b"\xff\x7f" + text("w") + text("w")), connack5(0x81)),
    ("will, and nothing left for it", "3.1.3", None, connect(5, "c", 0x06), connack5(0x81)),
    ("identifier with a slash, a wildcard and $", "3.1.3.1", None, connect(5, "$share/#/+"), ACCEPTED),
    ("identifier of DEL and C1 controls", "1.5.4", None, connect(5, "a\x7f\x80"), ACCEPTED),
    ("identifier with a non-character", "1.5.4", None, connect(5, "a\ufffe"), ACCEPTED),
    ("user properties: 2,000", "3.1.2.11.8", None, connect(5, "c", props=user("a", "b") * 2000), ACCEPTED),
    ("topic alias maximum twice", "3.1.2.11.5", None, connect(5, "c", props=b"\x22\x00\x01" * 2), connack5(0x82)),
    ("session expiry twice", "3.1.2.11.2", None, connect(5, "c", props=b"\x11\0\0\0\1" * 2), connack5(0x82)),
    ("CONNECT but for a byte", "3.1.0-1", None, connect(5, "c")[:-1], WAITS),

    ("remaining length in five bytes, for PINGREQ", "1.5.5", 5, b"\xc0\x80\x80\x80\x80\x00", bye(0x81)),
    ("property length not minimal", "1.5.5-1", 5, packet(0x30, text("h/t") + b"\x80\x00" + b"x"), bye(0x81)),
    ("property length of five bytes", "1.5.5", 5, packet(0x30, text("h/t") + b"\xff\xff\xff\xff\x01"), bye(0x81)),
    ("content type twice", "3.3.2.3.9", 5, publish("h/t", props=(b"\x03" + text("a")) * 2), bye(0x82)),
    ("response topic twice", "3.3.2.3.5", 5, publish("h/t", props=(b"\x08" + text("a")) * 2), bye(0x82)),
    ("response topic with U+0000", "1.5.4-2", 5, publish("h/t", props=b"\x08" + text("a\0")), bye(0x81)),
    ("correlation data twice", "3.3.2.3.6", 5, publish("h/t", props=(b"\x09" + text("a")) * 2), bye(0x82)),
    ("correlation data past the end", "2.2.2", 5, publish("h/t", props=b"\x09\xff\xff"), bye(0x81)),
    ("property identifier of two bytes", "2.2.2.2", 5, publish("h/t", props=b"\x81\x00"), bye(0x81)),
    ("alias set anew by another topic", "3.3.2-12", 5,
     publish("h/a", props=ALIAS) + publish("h/b", props=ALIAS) + publish("", b"x", 1, 7, props=ALIAS), acked()),
    ("alias set by a topic that is refused", "3.3.2-8", 5, publish("$SYS/x", props=ALIAS) + publish("", b"x", 1, 7, props=ALIAS),
     acked(0x87)),
    ("alias of 65,535", "3.3.2-9", 5, publish("h/t", props=b"\x23\xff\xff"), bye(0x94)),
    ("topic of a single U+FEFF", "1.5.4-3", 5, publish("\ufeff", b"x", 1, 7), acked()),
    ("topic with a line break", "1.5.4", 5, publish("h/\n", b"x", 1, 7), acked()),
    ("topic with a non-character", "1.5.4", 5, publish("h/\uffff", b"x", 1, 7), acked()),
    ("topic with a surrogate pair in CESU-8", "1.5.4-1", 5, publish(b"h/\xed\xa0\xbd\xed\xb8\x80", b"x", 1, 7), bye(0x81)),
    ("topic /", "4.7.1-1", 5, publish("/", b"x", 1, 7), acked()),
    ("topic $", "PROTOCOL.md", 5, publish("$", b"x", 1, 7), acked(0x87)),
    ("publish to a shared filter", "PROTOCOL.md", 5, publish("$share/g/t", b"x", 1, 7), acked(0x87)),
    ("seq of 2^64", "PROTOCOL.md", 5, publish("h/t", b"x", 1, 7, props=user("tg-producer", "p") + user("tg-seq", str(2 ** 64))), acked(0x83)),
    ("two tg-seq", "PROTOCOL.md", 5, publish("h/t", b"x", 1, 7, props=user("tg-producer", "p") + user("tg-seq", "1") * 2), bye(0x82)),
    ("a packet identifier twice at once", "2.2.1", 5, publish("h/t", b"x", 2, 7) + publish("h/t", b"x", 2, 7), ("begins", b"\x50\x02\0\x07")),
    ("QoS 2: PUBREL, again and again", "4.3.3", 5, packet(0x62, b"\0\x07") * 3, answer(b"\x70\x03\0\x07\x92" * 3)),
    ("PUBACK for QoS 2", "4.3.3", 5, publish("h/t", b"x", 2, 7) + packet(0x40, b"\0\x07"), answer(b"\x50\x02\0\x07")),
    ("filter $share", "4.8.2", 5, subscribe(7, "$share"), SUB_FAILS),
    ("filter $share//t", "4.8.2-2", 5, subscribe(7, "$share//t"), SUB_FAILS),
    ("filter $share/+/t", "4.8.2-2", 5, subscribe(7, "$share/+/t"), SUB_FAILS),
    ("filter of 33 levels", "limit.topic_levels", 5, subscribe(7, "/".join("+" * 33)), suback(0x8F)),
    ("filter with U+0000", "1.5.4-2", 5, subscribe(7, "h/\0"), bye(0x81)),
    ("filter ##", "4.7.1-1", 5, subscribe(7, "##", "h/##", "#/", "+#", "++"), suback(0x8F, 0x8F, 0x8F, 0x8F, 0x8F)),
    ("the same filter 1,000 times", "3.8.4-3", 5, subscribe(7, *["h/same"] * 1000), suback(*[1] * 1000)),
    ("subscription identifier of five bytes", "3.8.2.1.2", 5, subscribe(7, "t", props=b"\x0b\xff\xff\xff\xff\x01"), bye(0x81)),
    ("UNSUBSCRIBE with U+0000", "1.5.4-2", 5, unsubscribe(7, "a\0"), bye(0x81)),
    ("UNSUBSCRIBE cut off", "3.10.3", 5, packet(0xA2, b"\0\x07\0\0\x05ab"), bye(0x81)),
    ("AUTH again", "4.12.1", 5, packet(0xF0, b"\x19\x00"), bye(0x82)),
    ("DISCONNECT with two reasons", "3.14.2.2.3", 5, packet(0xE0, b"\x00" + properties((b"\x1f" + text("a")) * 2)), bye(0x82)),
    ("PUBLISH within a CONNECT's property", "2.2.2.2", None, connect(5, "c", props=b"\x26" + text("a") + publish("t", b"x")), connack5(0x81)),
    ("3.1.1 PUBLISH with properties is payload", "3.3.3", 4, publish("h/t", b"x", 1, 7, 5), acked()),
    ("3.1.1 topic with a surrogate", "1.5.3-1", 4, publish(b"h/\xed\xa0\x80", b"x", version=4), CLOSED),
    ("3.1.1 overlong UTF-8", "1.5.3-1", 4, publish(b"h/\xc0\xaf", b"x", version=4), CLOSED),
]

TABLE = [(door, *row) for door, rows in (("api", API), ("ws", WS), ("http", HTTP), ("mqtt/ws", MQTT_WS)) for row in rows]
SETTINGS = {"limit.message_bytes": 65536, "mqtt.connect_timeout_ms": 60_000, "ws.hello_timeout_ms": 60_000}
RSS_BAND = 4 << 20  # what the log keeps in memory of its newest records is 1 MiB of it


def test_the_table_is_long_enough():
    assert len(TABLE) + len(MQTT) >= 200
    names = [(row[0], row[1]) for row in TABLE] + [("mqtt", row[0]) for row in MQTT]
    assert len(names) == len(set(names))


# --- running a row ---------------------------------------------------------------------------------------------

class Peer:
    """A socket, and what has come of it. `tls`: an SSLContext."""

    def __init__(self, node, port, before=b"", tls=None):
        self.socket = socket.create_connection(("127.0.0.1", node.ports[port]), timeout=WAIT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_hostname="127.0.0.1")
        self.kept, self.over = b"", False
        if before:
            self.send(before)
            head = self.until(lambda: b"\r\n\r\n" in self.kept)
            assert head.startswith(b"HTTP/1.1 101"), head
            self.kept = head.partition(b"\r\n\r\n")[2]

    def send(self, data):
        try:
            self.socket.sendall(data)
        except OSError:
            pass  # it may be closed before the end

    def until(self, condition):
        """Reads until the condition holds or the end has come; all that is there."""
        while not condition() and not self.over:
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                data = b""
            self.over = not data
            self.kept += data
        return self.kept

    def take(self, count):
        self.until(lambda: len(self.kept) >= count)
        if len(self.kept) < count:
            raise EOFError
        data, self.kept = self.kept[:count], self.kept[count:]
        return data

    def status(self, has_body=True):
        """Of the next HTTP answer; None: closed without one."""
        self.until(lambda: b"\r\n\r\n" in self.kept)
        head, _, self.kept = self.kept.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/"):
            return None
        lines = head.lower().split(b"\r\n")
        length = [int(field.split(b":")[1]) for field in lines if field.startswith(b"content-length:")]
        if has_body and length:
            self.take(length[0])
        return int(lines[0].split()[1])

    def frame(self):
        """(opcode, payload)"""
        head = self.take(2)
        assert head[0] & 0x70 == 0 and not head[1] & 0x80, head
        size = head[1]
        if size > 125:
            size, = struct.unpack("!H" if size == 126 else "!Q", self.take(2 if size == 126 else 8))
        return head[0] & 15, self.take(size)

    def close_code(self):
        """Of the close frame, and then it closes; None without one."""
        try:
            while (got := self.frame())[0] != CLOSE:
                pass
        except EOFError:
            return None
        self.send(frame(got[1][:2], CLOSE))
        self.until(lambda: False)
        return struct.unpack("!H", got[1][:2])[0] if got[1] else 1005

    def close(self):
        self.socket.close()

    __enter__ = lambda self: self
    __exit__ = lambda self, *_: self.close()


def run_http(peer, data, statuses, closed):
    peer.send(data)
    for number, want in enumerate(statuses):
        got = peer.status(not data.startswith(b"HEAD"))
        if got not in (want if isinstance(want, tuple) else (want,)):
            return f"answer {number}: {got}, {peer.kept[:100]}"
    if closed:
        peer.socket.settimeout(WAIT_S)
        rest = peer.until(lambda: b" 200 OK" in peer.kept)
        return f"then {rest[:100]}" if b" 200 OK" in rest else None
    return None


def run_says(peer, data, kinds):
    peer.send(data + frame(b"still there", PING))
    lines, wanted, ponged = [], sum(map(bool, kinds)), False
    while not ponged or len(lines) < wanted:  # an acknowledgement is as late as the disk
        opcode, payload = peer.frame()
        ponged |= opcode == PONG
        if opcode == TEXT:
            lines += [item for item in map(json.loads, payload.split(b"\n")) if item and "live" not in item]
    said = tuple(item["err"]["code"] if "err" in item else "ok" for item in lines) or ("",)
    return None if said == kinds else f"{lines}"


def run_row(node, door, data, want):
    """None, or what was wrong."""
    before = {"ws": UPGRADE, "mqtt/ws": upgrade()}.get(door, b"")
    kind = want[0]
    with Peer(node, "api" if door == "api" else "http", before) as peer:
        if kind == "http":
            return run_http(peer, data, want[1], want[2])
        if kind == "says":
            return run_says(peer, data, want[1])
        peer.send(data)
        if kind == "ends":
            code = peer.close_code()
            return None if code == want[1] else f"closed with {code}"
        if kind == "upgrade":
            head = peer.until(lambda: b"\r\n\r\n" in peer.kept)
            return None if head.startswith(b"HTTP/1.1 101") and want[1] not in head else f"{head}"
        if kind == "bytes":
            got = peer.frame()[1]
            while len(got) > 2 and not got.endswith(want[2]):
                got += peer.frame()[1]
            return None if got.startswith(want[1]) else f"{got}"
        assert want == WAITS
        return None


def run_mqtt(node, version, data, want):
    with MqttWire(node, version or 5, "row", connected=version is not None) as wire:
        if want == WAITS:
            return wire.send(data)
        if want[0] not in ("sub fails", "begins"):
            return reaction(wire, version, data, want, False)
        wire.send(data)
        first, body = wire.packet()
        wire.ping()
        good = packet(first, body) == want[1] if want[0] == "begins" else first == 0x90 and body[-1] >= 0x80
        return None if good else f"{first:02x} {body.hex()}"


class Healthy:
    """Clients that behave: what one publishes by HTTP, one gets by WebSocket and one by MQTT; whatever others do."""

    def __init__(self, node):
        self.mqtt = MqttWire(node, 5, "healthy")
        assert self.mqtt.subscribe(("healthy/+", 0)) == b"\x00"
        self.ws = Peer(node, "http", UPGRADE)
        self.ws.send(line({"id": 1, "sub": {"topic": "healthy/x"}}))
        self.ws.until(lambda: b'"live"' in self.ws.kept)
        self.ws.kept = b""
        self.api = Peer(node, "api")
        self.count = 0

    def check(self):
        self.count += 1
        payload = b"n%d" % self.count
        self.api.send(request("/v1/publish/healthy/x", "Tidegate-Wait: accepted\r\n", payload))
        assert self.api.status() == 202
        assert self.mqtt.message(False).payload == payload
        while (got := self.ws.frame())[0] == PING or got[1] == b"{}":
            if got[0] == PING:
                self.ws.send(frame(got[1], PONG))
        assert b'"text":"%s"' % payload in got[1], got

    def close(self):
        for peer in (self.mqtt, self.ws, self.api):
            peer.close()


def run_table(node, healthy):
    wrong = []

    def run(door, what, section, want, do):
        try:
            problem = do()
        except (AssertionError, OSError, EOFError) as error:
            problem = repr(error)
        if problem:
            wrong.append(f"{door}: {what} ({section}): {problem} instead of {want}")
        assert len(wrong) < 5, "\n".join(wrong)
        healthy.check()

    for door, what, section, data, want in TABLE:
        run(door, what, section, want, lambda: run_row(node, door, data, want))
    for what, section, version, data, want in MQTT:
        run(f"mqtt {version or '-'}", what, section, want, lambda: run_mqtt(node, version, data, want))
    assert not wrong, "\n".join(wrong)


def all_gone(node):
    """But the healthy ones, and the one that asks."""
    wait_until(lambda: [node.metric("tidegate_connections", door) for door in ("mqtt", "ws")] == [1, 1]
               and node.metric("tidegate_connections", "http") <= 2, "all connections to be gone")


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    node = Node(tmp_path_factory.mktemp("table"), SETTINGS).start()
    yield node
    node.check()


@pytest.mark.deadline(240)
def test_each_case_gets_its_reaction_and_leaves_nothing(shared):
    healthy = Healthy(shared)
    run_table(shared, healthy)
    all_gone(shared)
    rss = shared.rss_bytes()
    for last in (False, True):  # a leak grows each time; what is kept for later only once
        for _ in range(2 if PATIENCE == 1 else 1):
            run_table(shared, healthy)
        all_gone(shared)
        grown, rss = shared.rss_bytes() - rss, shared.rss_bytes()
        if PATIENCE > 1 or grown < RSS_BAND:  # a sanitizer keeps freed memory
            break
        assert not last, f"{grown >> 10} KiB more after two more rounds, and again"
    metrics = shared.metrics()
    assert metrics["tidegate_outbound_queue_bytes"] == 0 and metrics["tidegate_publishes_open"] == 0
    healthy.close()


# --- who is slow -----------------------------------------------------------------------------------------------

TIMEOUT_S = {"mqtt": 0.4, "mqtts": 0.4, "http": 0.4, "https": 0.4, "api": 1.0}
NAMELESS = HANDSHAKE + "X-Forwarded-For: 10.0.0.1\r\n"  # has to say who it is
CLIENT_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32)

# what, door, what comes before (True: TLS), at once, then again and again
SLOW = [
    ("nothing", "mqtt", None, b"", b""),
    ("half a CONNECT", "mqtt", None, connect(5, "half")[:9], b""),
    ("a CONNECT, byte by byte", "mqtt", None, b"\x10\xff\xff\x03", b"\x00"),
    ("a first byte", "mqtt", None, b"\x10", b""),
    ("nothing", "http", None, b"", b""),
    ("half a handshake", "http", None, UPGRADE[:60], b""),
    ("a handshake, byte by byte", "http", None, b"GET /ws HTTP/1.1\r\nX: ", b"a"),
    ("line breaks", "http", None, b"", b"\r\n"),
    ("fields without end", "http", None, b"GET / HTTP/1.1\r\n", b"X: y\r\n"),
    ("a WebSocket without hello", "http", get(fields=NAMELESS), b"", b""),
    ("a WebSocket with half a frame", "http", get(fields=NAMELESS), b"\x81\xfe", b""),
    ("a WebSocket with half a message", "http", get(fields=NAMELESS), frame(b'{"id":1,', TEXT, False), b""),
    ("a WebSocket of pings", "http", get(fields=NAMELESS), b"", frame(b"", PING)),
    ("a WebSocket of {}", "http", get(fields=NAMELESS), b"", line(b"{}")),
    # What need not say who it is has to say something all the same.
    ("an anonymous WebSocket of nothing", "http", UPGRADE, b"", b""),
    ("an anonymous WebSocket of pongs", "http", UPGRADE, b"", frame(b"", PONG)),
    ("an anonymous WebSocket of {}", "http", UPGRADE, b"", line(b"{}")),
    ("an anonymous WebSocket of blank lines", "http", UPGRADE, b"", frame(b"\n", TEXT)),
    ("an anonymous WebSocket with half a frame", "http", UPGRADE, b"\x81\xfe", b""),
    ("an anonymous WebSocket of a fragment", "http", UPGRADE, frame(b'{"id":1,', TEXT, False), frame(b" ", 0, False)),
    ("half an event stream's head", "http", None, b"GET /sse?topic=a HTTP/1.1\r\nHost: localhost\r\n", b""),
    ("TLS and half an upgrade by byte", "https", True, b"GET /mqtt HTTP/1.1\r\nUpgrade: w", b"e"),
    ("MQTT over WebSocket without CONNECT", "http", upgrade(), b"", b""),
    ("MQTT over WebSocket, half a CONNECT", "http", upgrade(), frame(connect(5, "half")[:9]), b""),
    ("MQTT over WebSocket, pings", "http", upgrade(), b"", frame(b"", PING)),
    ("MQTT over WebSocket, empty frames", "http", upgrade(), b"", frame(b"")),
    ("nothing", "api", None, b"", b""),
    ("half a request", "api", None, HELLO[:30], b""),
    ("a request, byte by byte", "api", None, b"POST /v1/publish/a HTTP/1.1\r\nX: ", b"a"),
    ("a body, byte by byte", "api", None, request(fields="Content-Length: 1000000\r\n"), b"a"),
    ("line breaks", "api", None, b"", b"\r\n"),
    ("no TLS", "mqtts", None, b"", b""),
    ("half a ClientHello", "mqtts", None, CLIENT_HELLO, b""),
    ("a ClientHello, byte by byte", "mqtts", None, CLIENT_HELLO, b"\x00"),
    ("TLS and no CONNECT", "mqtts", True, b"", b""),
    ("TLS and half a CONNECT", "mqtts", True, connect(5, "half")[:9], b""),
    ("no TLS", "https", None, b"", b""),
    ("half a ClientHello", "https", None, CLIENT_HELLO, b""),
    ("a ClientHello, byte by byte", "https", None, CLIENT_HELLO, b"\x00"),
    ("TLS and no request", "https", True, b"", b""),
    ("TLS and half a handshake", "https", True, UPGRADE[:60], b""),
    ("TLS and a handshake, byte by byte", "https", True, b"GET /ws HTTP/1.1\r\nX: ", b"a"),
]


class Slow:
    def __init__(self, node, row, tls):
        self.what, self.door, before, first, self.drip = row
        is_tls = before is True
        self.framed = isinstance(before, bytes)
        self.started, self.took = time.monotonic(), None
        self.peer = Peer(node, self.door, b"" if is_tls or not before else before, tls if is_tls else None)
        self.peer.send(first)
        self.peer.socket.setblocking(False)

    def step(self):
        """Reads what came; drips once more."""
        try:
            # A WebSocket is told by a close frame, and has five seconds to answer that.
            while (data := self.peer.socket.recv(65536)) and not (self.framed and b"\x88" in data):
                pass
            self.took = time.monotonic() - self.started
        except (BlockingIOError, ssl.SSLWantReadError):
            if self.drip:
                self.peer.send(self.drip)
        except OSError:
            self.took = time.monotonic() - self.started


@spans(1, 4, 12)
def test_no_connection_stays_beyond_the_timeout_of_its_door(make_node, certificates, span):
    """All of them at once, beside one of each kind that behaves."""
    due_ms = int(400 * span)
    node = make_node({**certificates.settings(), "mqtt.connect_timeout_ms": due_ms, "ws.hello_timeout_ms": due_ms,
                      "api.timeout_ms": int(1000 * span)})
    healthy = Healthy(node)
    tls = certificates.client()
    slow = [Slow(node, row, tls) for row in SLOW]
    wait_until(lambda: [each.step() for each in slow if each.took is None] == [], "all of them to be ended")
    for each in slow:
        due = TIMEOUT_S[each.door] * span
        # What is wrong from its first byte may be ended at once.
        assert each.drip or each.took > 0.8 * due, f"{each.door}, {each.what}: ended after {each.took:.2f} s"
        # A handshake of TLS has one time-out, what comes after it has its own.
        assert each.took < (due + 1.5 * span) * PATIENCE, f"{each.door}, {each.what}: ended after {each.took:.2f} s"
        each.peer.close()
    healthy.api = Peer(node, "api")  # it has been silent for too long as well
    healthy.check()
    assert node.metric("tidegate_disconnects_total", "timeout") + node.metric("tidegate_tls_handshake_failures_total", "timeout") > 20
    healthy.close()
    wait_until(lambda: node.metric("tidegate_connections") <= 1, "all to be gone")
    assert node.metric("tidegate_tls_handshakes_open") == 0


# --- floods that stay within the limits ------------------------------------------------------------------------

def flood_http(node):
    """A thousand requests in one go, answered in order."""
    with Peer(node, "api") as peer:
        peer.send(request("/healthz", method="GET") * 1000)
        assert [peer.status() for _ in range(1000)] == [200] * 1000


def flood_http_heads(node):
    for size in (7000, 8100, 20_000, 70_000):
        with Peer(node, "api") as peer:
            peer.send(request(fields="X: " + "a" * size + "\r\n", body=b"hello"))
            assert peer.status() in (200, 431, None)


def flood_ws_pings(node):
    with Peer(node, "http", UPGRADE) as peer:
        for _ in range(20):
            peer.send(frame(b"x" * 125, PING) * 500)
            assert [peer.frame() for _ in range(500)] == [(PONG, b"x" * 125)] * 500


def flood_ws_fragments(node):
    """A message in 40,000 pieces, most of them empty."""
    text_bytes = b'{"id":1,"pub":{"topic":"h/f","text":"' + b"x" * 5000 + b'"}}'
    pieces = [frame(text_bytes[:1], TEXT, False)]
    for at in range(1, len(text_bytes)):
        pieces += [frame(b"", CONTINUATION, False)] * 7 + [frame(text_bytes[at:at + 1], CONTINUATION, False)]
    with Peer(node, "http", UPGRADE) as peer:
        peer.send(b"".join(pieces) + frame(b"", CONTINUATION))
        assert b'"ok"' in peer.frame()[1]


def flood_ws_lines(node):
    """Small requests, many to a frame and many frames."""
    with Peer(node, "http", UPGRADE) as peer:
        peer.send(line(b"\n".join([b"{}"] * 5000)) + frame(b"", TEXT) * 5000 + line({"id": 9, "hello": {}}))
        peer.until(lambda: b'"id":9,"ok"' in peer.kept)
        assert peer.kept.count(b"{}") >= 5000


def flood_ws_subscriptions(node):
    with Peer(node, "http", UPGRADE) as peer:
        peer.send(b"".join(line({"id": i, "sub": {"topic": f"h/s/{i}"}}) for i in range(1100)))
        peer.until(lambda: peer.kept.count(b'"id":') >= 1100)
        assert peer.kept.count(b'"quota_exceeded"') == 100, "limit.subscriptions"


def flood_mqtt_pings(node):
    with MqttWire(node) as wire:
        for _ in range(20):
            wire.send(MQTT_PING * 5000)
            for _ in range(5000):
                assert wire.packet() == (0xD0, b"")


def flood_mqtt_subscribes(node):
    """Ten thousand SUBSCRIBE and UNSUBSCRIBE of one filter."""
    with MqttWire(node) as wire:
        for _ in range(10):
            wire.send((subscribe(7, "h/same") + unsubscribe(8, "h/same")) * 500)
            for _ in range(500):
                assert wire.packet()[0] == 0x90 and wire.packet()[0] == 0xB0


def flood_mqtt_aliases(node):
    with MqttWire(node) as wire:
        wire.send(b"".join(publish(f"h/{i}", props=b"\x23\x00" + bytes([i % 32 + 1])) for i in range(5000)))
        wire.ping()


def flood_mqtt_pubrels(node):
    with MqttWire(node) as wire:
        wire.send(b"".join(packet(0x62, struct.pack(">H", i + 1)) for i in range(5000)))
        for i in range(5000):
            assert wire.packet() == (0x70, struct.pack(">HB", i + 1, 0x92))


def flood_connects(node):
    """The same client identifier, again and again: each takes over from the one before."""
    wires = [MqttWire(node, 5, "same") for _ in range(200)]
    for wire in wires[:-1]:
        assert wire.disconnect_code() == 0x8E
    wires[-1].ping()
    for wire in wires:
        wire.close()


FLOODS = [flood_http, flood_http_heads, flood_ws_pings, flood_ws_fragments, flood_ws_lines, flood_ws_subscriptions,
          flood_mqtt_pings, flood_mqtt_subscribes, flood_mqtt_aliases, flood_mqtt_pubrels, flood_connects]


@pytest.mark.deadline(240)
def test_floods_within_the_limits(shared):
    healthy = Healthy(shared)
    rss = 0
    for number in range(2):
        for flood in FLOODS:
            flood(shared)
            healthy.check()
        all_gone(shared)
        rss = rss or shared.rss_bytes()
    if PATIENCE == 1:
        grown = shared.rss_bytes() - rss
        assert grown < RSS_BAND, f"{grown >> 10} KiB more after the second round"
    healthy.close()
