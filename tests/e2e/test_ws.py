"""The public port: opening handshake, frames, the protocol's requests, slow and dead readers, static pages.
Most tests speak from bare sockets, because a library would not break the rules for us."""

import base64
import hashlib
import json
import os
import socket
import struct

import pytest

from clients import WAIT_S, Closed, Web, module, paho_client
from node import PATIENCE, STOP_S, spans, wait_until

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


def frame(payload, opcode=TEXT, first=None, masked=True, length=None):
    """A client's frame; `length`: the bytes of the length field's long form, minimal or not."""
    size = len(payload)
    head = bytes([0x80 | opcode if first is None else first])
    bit = 0x80 if masked else 0
    if length is None:
        length = 0 if size < 126 else 2 if size < 65536 else 8
    head += {0: lambda: bytes([bit | size]),
             2: lambda: bytes([bit | 126]) + struct.pack("!H", size),
             8: lambda: bytes([bit | 127]) + struct.pack("!Q", size)}[length]()
    if not masked:
        return head + payload
    mask = os.urandom(4)
    return head + mask + bytes(byte ^ mask[at & 3] for at, byte in enumerate(payload))


class Raw:
    """A socket to the public port."""

    def __init__(self, node, receive_bytes=None):
        self.port = node.port("http")
        self.socket = node.connect("http", receive_bytes)
        self.file = self.socket.makefile("rb")

    def send(self, data):
        self.socket.sendall(data)

    def request(self, first="GET /ws HTTP/1.1", drop=(), extra=(), **headers):
        """The text of an opening handshake, with some headers left out or changed."""
        values = {"Host": f"127.0.0.1:{self.port}", "Upgrade": "websocket", "Connection": "Upgrade",
                  "Sec-WebSocket-Key": KEY, "Sec-WebSocket-Version": "13"}
        values.update({name.replace("_", "-"): value for name, value in headers.items()})
        lines = [f"{name}: {value}" for name, value in values.items() if name not in drop]
        return "\r\n".join([first, *lines, *extra, "", ""]).encode()

    def answer(self):
        """(status, headers, body) of an HTTP answer; status None when the connection is just closed."""
        try:
            line = self.file.readline()
        except ConnectionResetError:
            line = b""
        if not line:
            return None, {}, b""
        headers = {}
        while (row := self.file.readline().strip()):
            name, value = row.split(b":", 1)
            headers[name.decode().lower()] = value.strip().decode()
        status = int(line.split()[1])
        return status, headers, b"" if status == 101 else self.file.read(int(headers.get("content-length", 0)))

    def upgrade(self):
        self.send(self.request())
        status, headers, body = self.answer()
        assert status == 101, body
        return headers

    def frame(self):
        """(opcode, payload) of the next frame from the server; each is whole, unmasked and minimal."""
        head = self.file.read(2)
        if len(head) < 2:
            raise EOFError
        assert head[0] & 0x70 == 0 and head[0] & 0x80 and not head[1] & 0x80, head
        size = head[1]
        if size == 126:
            size = struct.unpack("!H", self.file.read(2))[0]
            assert size >= 126
        elif size == 127:
            size = struct.unpack("!Q", self.file.read(8))[0]
            assert size > 0xffff
        payload = self.file.read(size)
        assert len(payload) == size, "cut within a frame"
        return head[0] & 15, payload

    def item(self, kind=None):
        """The next object; pings are answered, others than `kind` passed over."""
        while True:
            opcode, payload = self.frame()
            if opcode == PING:
                self.send(frame(payload, PONG))
                continue
            if opcode == CLOSE:
                raise Closed(struct.unpack("!H", payload[:2])[0] if payload else 1005, payload[2:])
            if opcode == PONG:
                continue
            assert opcode == TEXT
            item = json.loads(payload)
            if kind is None or kind in item:
                return item

    def ask(self, item):
        self.send(frame(json.dumps(item).encode()))
        while (answer := self.item("id"))["id"] != item["id"]:
            pass
        return answer

    def close_code(self):
        with pytest.raises(Closed) as info:
            while True:
                self.item()
        return info.value.code

    def ended(self):
        try:
            return self.file.read() == b""
        except ConnectionResetError:
            return True

    def close(self):
        self.file.close()
        self.socket.close()

    __enter__ = lambda self: self
    __exit__ = lambda self, *_: self.close()


@pytest.fixture
def raw(node):
    with Raw(node) as opened:
        yield opened


@pytest.fixture
def ws(raw):
    raw.upgrade()
    return raw


def lives(node):
    """The node still answers: whatever was sent has harmed nobody else."""
    with Web(node, hello={}) as web:
        assert web.hello["node"] == "test"


# --- opening handshake -----------------------------------------------------------------------------------------

def test_handshake_is_answered_as_the_standard_says(raw):
    headers = raw.upgrade()
    digest = hashlib.sha1((KEY + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
    assert headers["sec-websocket-accept"] == base64.b64encode(digest).decode()
    assert headers["upgrade"].lower() == "websocket" and headers["connection"].lower() == "upgrade"
    assert "sec-websocket-protocol" not in headers and "sec-websocket-extensions" not in headers


@pytest.mark.parametrize("offer, status, chosen", [
    ("tidegate.v1.json", 101, "tidegate.v1.json"), ("x, tidegate.v1.json", 101, "tidegate.v1.json"),
    ("tidegate.v1.json, mqtt,y", 101, "tidegate.v1.json"), ("other", 400, None), ("tidegate.v2", 400, None),
    ("mqtt", 400, None), ("mqtt, tidegate.v1.json", 400, None), ("x" * 300, 400, None)])
def test_subprotocol(raw, offer, status, chosen):
    raw.send(raw.request(Sec_WebSocket_Protocol=offer))
    answer = raw.answer()
    assert answer[0] == status, answer
    assert answer[1].get("sec-websocket-protocol") == chosen


REFUSED = [
    ("POST", dict(first="POST /ws HTTP/1.1"), 405), ("PUT", dict(first="PUT /ws HTTP/1.1"), 405),
    ("HTTP/1.0", dict(first="GET /ws HTTP/1.0"), 400), ("version 12", dict(Sec_WebSocket_Version="12"), 426),
    ("no version", dict(drop=["Sec-WebSocket-Version"]), 426), ("no key", dict(drop=["Sec-WebSocket-Key"]), 400),
    ("short key", dict(Sec_WebSocket_Key="c2hvcnQ="), 400), ("long key", dict(Sec_WebSocket_Key=KEY + KEY), 400),
    ("key that is no base64", dict(Sec_WebSocket_Key="!" * 24), 400),
    ("no Connection: Upgrade", dict(Connection="keep-alive"), 400), ("no Host", dict(drop=["Host"]), 400),
    ("foreign Host", dict(Host="evil.example"), 403), ("Host that looks near", dict(Host="127.0.0.1.evil.example"), 403),
    ("foreign Origin", dict(Origin="http://evil.example"), 403), ("Origin null", dict(Origin="null"), 403),
    ("Origin of another port", dict(Origin="http://127.0.0.1:1"), 403),
    ("a body", dict(Content_Length="5"), 400), ("a chunked body", dict(Transfer_Encoding="chunked"), 400),
    ("another path", dict(first="GET /wss HTTP/1.1"), 404), ("/mqtt without subprotocol", dict(first="GET /mqtt HTTP/1.1"), 400),
    ("h2c", dict(Upgrade="h2c", Connection="Upgrade, HTTP2-Settings", HTTP2_Settings="AAMAAABkAAQAAP__"), 400),
]


@pytest.mark.parametrize("change, status", [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_handshake_is_refused(node, raw, change, status):
    raw.send(raw.request(**change))
    got, headers, body = raw.answer()
    assert got == status, body
    assert headers["content-type"] == "application/problem+json" and json.loads(body)["status"] == status
    if status == 426:
        assert headers["sec-websocket-version"] == "13"
    assert raw.ended()
    assert node.metric("tidegate_connections", "ws") == 0
    lives(node)


@pytest.mark.parametrize("data", [
    b"CONNECT 127.0.0.1:1 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nanything", b"\x16\x03\x01\x02\x00\x01\x00", b"\r\n\r\n",
    b"NONSENSE\r\n\r\n", b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: TLS/1.0\r\nConnection: Upgrade\r\n\r\n",
    b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n" * 2,
    b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 5000 + b"\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    b"POST /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 3\r\n\r\nabc" * 2,
    b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" * 2,
    b"GET /demo/ HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 3\r\n\r\nabc" * 3,
], ids=["CONNECT", "TLS", "empty", "nonsense", "unknown upgrade", "unknown upgrade twice", "long path", "many headers",
        "HTTP/2", "two POSTs", "two chunked POSTs", "three GETs with a body"])
def test_no_request_harms_others(node, raw, data):
    try:
        raw.send(data)
        raw.socket.shutdown(socket.SHUT_WR)
        while raw.file.read(65536):
            pass
    except OSError:
        pass  # it may be dropped in the middle
    lives(node)


def test_a_handshake_that_does_not_come_ends(make_node):
    node = make_node({"ws.hello_timeout_ms": 200})
    with Raw(node) as silent, Raw(node) as half:
        half.send(half.request()[:40])
        assert silent.ended() and half.ended()


def test_a_request_must_come_and_one_is_enough(make_node):
    """Who makes none is closed and told not to come back like that (4201); who has made one may be silent for ever."""
    node = make_node({"ws.hello_timeout_ms": 2000})
    speakers = []
    for first in ({"hello": {}}, {"pub": {"topic": "a", "data": 1}}, {"sub": {"topic": "a"}}, {"get": {"topic": "a"}}, {"dance": {}}):
        speakers.append(Web(node))
        speakers[-1].ask(first)
    with Web(node) as silent:
        silent.post({})
        assert silent.close_code() == 4201
        assert silent.next("bye")["why"] == "no hello or request in time"
    for speaker in speakers:  # their time was over before
        assert "ok" in speaker.ask({"pub": {"topic": "b", "data": 1}})
        speaker.close()
    assert node.metric("tidegate_disconnects_total", '"ws"', '"timeout"') == 1


def test_a_handshake_may_come_byte_by_byte(raw):
    for at in raw.request():
        raw.send(bytes([at]))
    assert raw.answer()[0] == 101
    assert raw.ask({"id": 1, "hello": {}})["ok"]["node"] == "test"


def test_frames_before_the_answer_are_refused_not_lost(node, raw):
    # RFC 6455, 4.1: the client must wait.
    raw.send(raw.request() + frame(b'{"id":1,"hello":{}}'))
    assert raw.answer()[0] == 101
    assert raw.close_code() == 1002
    lives(node)


def test_listed_origin(make_node):
    node = make_node({"http.origins": "https://app.example"})
    for origin, status in (("https://app.example", 101), ("https://other.example", 403)):
        with Raw(node) as raw:
            raw.send(raw.request(Origin=origin))
            assert raw.answer()[0] == status


def test_own_origin(raw):
    raw.send(raw.request(Origin=f"http://127.0.0.1:{raw.port}"))
    assert raw.answer()[0] == 101


# --- frames ----------------------------------------------------------------------------------------------------

PUB = b'{"id":1,"pub":{"topic":"a","data":1}}'
BAD_FRAMES = [
    ("not masked", frame(PUB, masked=False), 1002), ("reserved bit", frame(PUB, first=0xC1), 1002),
    ("reserved opcode", frame(PUB, opcode=3), 1002), ("reserved control opcode", frame(b"", opcode=11), 1002),
    ("length that is not minimal, 16 bits", frame(PUB, length=2), 1002),
    ("length that is not minimal, 64 bits", frame(PUB, length=8), 1002),
    ("length with the highest bit", b"\x81\xff" + b"\xff" * 8 + b"\0\0\0\0", 1002),
    ("fragmented ping", frame(b"", first=PING), 1002), ("long ping", frame(b"x" * 126, opcode=PING), 1002),
    ("continuation of nothing", frame(PUB, opcode=0), 1002),
    ("new message inside one", frame(b"{", first=TEXT) + frame(b"}"), 1002),
    ("binary", frame(PUB, opcode=BINARY), 1003), ("not UTF-8", frame(b'{"\xff":1}'), 1007),
    ("UTF-8 cut at the end", frame(b'{}\xc3'), 1007),
    ("close with one byte", frame(b"x", opcode=CLOSE), 1002),
    ("close with 1005", frame(struct.pack("!H", 1005), opcode=CLOSE), 1002),
    ("close with 999", frame(struct.pack("!H", 999), opcode=CLOSE), 1002),
    ("close with a reason that is not UTF-8", frame(struct.pack("!H", 1000) + b"\xff", opcode=CLOSE), 1007),
    ("4 GB", b"\x81\xff" + struct.pack("!Q", 1 << 32) + b"\0\0\0\0", 1009),
]


@pytest.mark.parametrize("data, code", [row[1:] for row in BAD_FRAMES], ids=[row[0] for row in BAD_FRAMES])
def test_bad_frames_close_with_their_code(node, ws, data, code):
    ws.send(data)
    assert ws.close_code() == code
    assert ws.ended(), "the connection is closed, not reset"
    lives(node)


def test_good_frames(ws):
    ws.send(frame(b"abc", PING))
    assert ws.frame() == (PONG, b"abc")
    ws.send(frame(b"", PONG))
    ws.send(frame(PUB[:5], first=TEXT) + frame(b"p", PING) + frame(b"", first=0) + frame(PUB[5:], opcode=0))
    assert ws.frame() == (PONG, b"p")
    assert "ok" in ws.item()
    data = frame(PUB)
    for byte in data:
        ws.send(bytes([byte]))
    assert "ok" in ws.item()
    ws.send(frame(struct.pack("!H", 4321) + b"reason", CLOSE))
    assert ws.frame() == (CLOSE, struct.pack("!H", 4321))
    assert ws.ended()


def test_a_message_too_large_is_refused_and_the_connection_goes_on(make_node):
    node = make_node({"limit.message_bytes": "1K"})
    with Raw(node) as ws:
        ws.upgrade()
        answer = ws.ask({"id": 1, "pub": {"topic": "a", "text": "x" * 1025}})
        assert answer["err"]["code"] == "too_large"
        assert "ok" in ws.ask({"id": 2, "pub": {"topic": "a", "text": "x" * 1024}})
        assert ws.ask({"id": 3, "hello": {}})["ok"]["max_bytes"] == 1024
        ws.send(frame(b"x" * 40000))
        assert ws.close_code() == 1009


# --- the protocol ----------------------------------------------------------------------------------------------

def test_hello(ws):
    ok = ws.ask({"id": 0, "hello": {}})["ok"]
    assert ok["node"] == "test" and ok["ping_ms"] > 0 and ok["max_bytes"] > 0 and "pub" in ok["features"]
    assert "user" not in ok


ERRORS = [
    ({"hello": {"session": 1}}, "bad_request"),
    ({"hello": {"inbox": True}}, "forbidden"), ({"hello": {"after": {"a": ["b"]}}}, "bad_request"),
    ({"sub": {"topic": "a", "ack": 1}}, "bad_request"), ({"sub": {"topic": "a", "mode": "latest"}}, "unsupported"),
    ({"ack": {"n": 1}}, "bad_request"), ({"ack": {}}, "bad_request"), ({"credit": {"msgs": -1}}, "bad_request"),
    ({"hello": {"window": {"msgs": 2 ** 53}}}, "bad_request"),
    ({"sub": {"topic": "a/+", "from": {"last": 1}}}, "unsupported"), ({"sub": {"topic": "a/#/b"}}, "bad_request"),
    ({"sub": {"topic": ""}}, "bad_request"), ({"sub": {}}, "bad_request"), ({"sub": {"topic": "$user/x"}}, "forbidden"),
    ({"sub": {"topic": "$SYS"}}, "unsupported"), ({"sub": {"topic": "a", "from": {"after": ["no"]}}}, "bad_request"),
    ({"unsub": {"topic": "never"}}, "not_found"), ({"pub": {"topic": "a/+", "data": 1}}, "bad_request"),
    ({"pub": {"topic": "$SYS/a", "data": 1}}, "forbidden"), ({"pub": {"topic": "$user/x", "data": 1}}, "forbidden"),
    ({"pub": {"topic": "a"}}, "bad_request"), ({"pub": {"topic": "a", "data": 1, "text": "x"}}, "bad_request"),
    ({"pub": {"topic": "a", "data": 1, "retain": 1}}, "bad_request"),
    ({"pub": {"topic": "a", "data": 1, "producer": "p"}}, "bad_request"),
    ({"pub": {"topic": "a", "data": 1, "producer": "p", "seq": -1}}, "bad_request"),
    ({"pub": {"topic": "a" * 2000, "data": 1}}, "bad_request"), ({"pub": {"topic": "a", "b64": "x"}}, "bad_request"),
    ({"get": {"topic": "a/#"}}, "bad_request"), ({"get": {"topic": "a", "max": 0}}, "bad_request"),
    ({"get": {"topic": "a", "from": {"after": ["no"]}}}, "bad_request"),
    ({"get": {"topic": "a", "from": {"after": ["0000000a0000.0000000000000001"]}}}, "position_gone"),
    ({"who": {"topic": "a/#"}}, "bad_request"), ({"who": {}}, "bad_request"), ({"auth": {}}, "bad_request"), ({"auth": {"token": 1}}, "bad_request"),
    ({"dance": {}}, "unsupported"), ({}, "bad_request"),
]


@pytest.mark.parametrize("item, code", ERRORS, ids=[json.dumps(row[0])[:40] for row in ERRORS])
def test_refused_requests(ws, item, code):
    answer = ws.ask({"id": 7, **item})
    assert answer["err"]["code"] == code, answer
    assert "ok" in ws.ask({"id": 8, "hello": {}}), "the connection goes on"


def test_lines(ws):
    ws.send(frame(b'{}\n{"id":1,"hello":{}}\r\n\n{"dance":{}}\n{"ack":{"n":1}}\n{"ack":{"n":0}}\n{ }'))
    assert ws.item() == {}
    assert ws.item()["id"] == 1
    assert ws.item()["err"]["code"] == "unsupported"
    assert ws.item()["err"]["code"] == "bad_request"
    assert ws.item() == {}


def test_the_tenth_bad_line_closes(ws):
    for _ in range(9):
        ws.send(frame(b"[1]"))
        answer = ws.item()
        assert answer["err"]["code"] == "bad_request" and "id" not in answer
    assert "ok" in ws.ask({"id": 1, "hello": {}})
    ws.send(frame(b'{"id":"text","hello":{}}'))
    assert ws.item()["err"]["code"] == "bad_request"
    assert ws.item()["bye"]["code"] == 4201
    assert ws.close_code() == 4201


def test_one_object_has_no_line_break(ws):
    ws.ask({"id": 1, "sub": {"topic": "a"}})
    ws.send(frame(b'{"id":2,"pub":{"topic":"a","data":{"x":\r[1,\t2],"y":"\\n\\r"}}}'))
    while True:
        opcode, payload = ws.frame()
        if b'"msg"' in payload:
            break
    assert b"\n" not in payload and b"\r" not in payload
    assert b'"data":{"x": [1,\t2],"y":"\\n\\r"}' in payload


def test_publish_without_id_is_not_answered(ws):
    ws.ask({"id": 1, "sub": {"topic": "a"}})
    ws.send(frame(b'{"pub":{"topic":"a","text":"1"}}'))
    assert ws.item("msg")["msg"]["text"] == "1"
    ws.send(frame(b'{"pub":{"topic":"#","text":"1"}}'))
    answer = ws.item()
    assert answer["err"]["code"] == "bad_request" and "id" not in answer
    ws.send(frame(b'{"sub":{"topic":"b"}}\n{"id":2,"pub":{"topic":"b","text":"2"}}'))
    got = [ws.item(), ws.item(), ws.item()]
    assert sorted(key for item in got for key in item if key in ("live", "msg", "ok")) == ["live", "msg", "ok"]


def test_payload_classes_key_type_and_ttl(ws):
    ws.ask({"id": 1, "sub": {"topic": "a/+"}})
    ws.ask({"id": 2, "pub": {"topic": "a/1", "data": None, "key": "k", "type": "x/y"}})
    ws.ask({"id": 3, "pub": {"topic": "a/2", "text": "\0\u20ac\U0001f600", "ttl_ms": 60000}})
    ws.ask({"id": 4, "pub": {"topic": "a/3", "b64": "AP8="}})
    ws.send(frame(b'{"id":5,"get":{"topic":"a/3"}}'))
    page = ws.item("id")["ok"]["messages"]
    assert page[0]["b64"] == "AP8=" and page[0]["topic"] == "a/3"


def test_deliveries_name_the_filter_only_when_it_is_not_the_topic(ws):
    for number, topic in enumerate(["a/b", "a/+", "#"]):
        ws.ask({"id": number, "sub": {"topic": topic}})
    ws.send(frame(b'{"pub":{"topic":"a/b","text":"1"}}'))
    got = [ws.item("msg") for _ in range(3)]
    assert sorted(item.get("sub", "") for item in got) == ["", "#", "a/+"]
    assert len({json.dumps(item["msg"]) for item in got}) == 1


def test_subscribing_again_replaces(ws):
    for number in range(3):
        ws.ask({"id": number, "pub": {"topic": "a", "data": number}})
    assert ws.ask({"id": 3, "sub": {"topic": "a"}})["ok"]["replay"] == 0
    ws.send(frame(b'{"id":4,"sub":{"topic":"a","from":"earliest"}}'))
    answer = ws.item("id")
    assert answer["id"] == 4 and answer["ok"]["replay"] == 3
    assert [ws.item()["msg"]["data"] for _ in range(3)] == [0, 1, 2], "nothing between ok and its replay"
    assert ws.item()["live"]["topic"] == "a"
    ws.ask({"id": 5, "unsub": {"topic": "a"}})
    ws.ask({"id": 6, "pub": {"topic": "a", "data": 3}})
    ws.send(frame(b'{"id":7,"sub":{"topic":"b"}}\n{"id":8,"sub":{"topic":"b"}}\n{"id":9,"hello":{}}'))
    answers = {item["id"]: item for item in (ws.item("id") for _ in range(3))}
    assert "ok" in answers[8] and ("ok" in answers[7] or answers[7]["err"]["code"] == "conflict")


@pytest.mark.parametrize("member", ["type", "key"])
def test_what_mqtt_could_not_say_is_refused(ws, member):
    """U+0000 in a text would end the connection of every MQTT 5.0 subscriber (MQTT-1.5.4-2)."""
    assert ws.ask({"id": 1, "pub": {"topic": "a", "text": "x", member: "a\0b"}})["err"]["code"] == "bad_request"
    assert "ok" in ws.ask({"id": 2, "pub": {"topic": "a", "text": "x", member: "ab"}})


def test_a_bookmark_is_a_place_over_all_lanes(make_node):
    """Also that of a subscription to one topic, which lives in one lane: it is good for any other filter."""
    node = make_node({"log.partitions": 4, "node.loops": 2})
    with Raw(node) as ws:
        ws.upgrade()
        for number in range(40):
            ws.ask({"id": number, "pub": {"topic": f"t/{number % 10}", "data": number}})
        bookmark = ws.ask({"id": 100, "sub": {"topic": "elsewhere"}})["ok"]["pos"]
        assert ws.ask({"id": 101, "sub": {"topic": "t/#", "from": {"after": [bookmark]}}})["ok"]["replay"] == 0
        ws.ask({"id": 102, "pub": {"topic": "t/3", "data": "new"}})
        assert ws.ask({"id": 103, "sub": {"topic": "t/3", "from": {"after": [bookmark]}}})["ok"]["replay"] == 1


def test_positions_of_another_epoch_are_a_gap(ws):
    ws.ask({"id": 1, "pub": {"topic": "a", "data": 1}})
    position = "0000000a0000.0000000000000001"
    ws.send(frame(json.dumps({"id": 2, "sub": {"topic": "a", "from": {"after": [position]}}}).encode()))
    assert ws.item("id")["ok"]["replay"] == 1
    gap = ws.item()["gap"]
    assert gap["why"] == "epoch" and gap["from"] == position and gap["topic"] == "a"
    assert ws.item("msg")["msg"]["data"] == 1


def test_history_by_pages(ws):
    for number in range(25):
        ws.ask({"id": number, "pub": {"topic": "a", "data": number}})
    got, start = [], "earliest"
    while True:
        page = ws.ask({"id": 100, "get": {"topic": "a", "from": start, "max": 10}})["ok"]
        if not page["messages"]:
            break
        assert len(page["messages"]) <= 10 and page["topic"] == "a"
        got += page["messages"]
        start = {"after": [page["next"]]}
    assert [message["data"] for message in got] == list(range(25))
    page = ws.ask({"id": 100, "get": {"topic": "a", "from": {"after": [got[20]["pos"]]}}})["ok"]
    assert [message["data"] for message in page["messages"]] == [21, 22, 23, 24]


def test_history_leaves_out_what_has_expired(ws):
    """It does not count either: a page is as full without it, and an empty one is the end."""
    for number in range(60):
        kept = number % 10 == 9
        ws.ask({"id": number, "pub": {"topic": "a", "data": number, "ttl_ms": 3_600_000 if kept else 1}})

    def page(start, most):
        answer = ws.ask({"id": 100, "get": {"topic": "a", "from": start, "max": most}})["ok"]
        return [message["data"] for message in answer["messages"]], {"after": [answer["next"]]}

    wait_until(lambda: page("earliest", 1000)[0] == [9, 19, 29, 39, 49, 59], "the others to expire")
    got, start = page("earliest", 1)
    assert got == [9]
    got, start = page(start, 4)
    assert got == [19, 29, 39, 49]
    got, start = page(start, 4)
    assert got == [59]
    assert page(start, 4)[0] == []


def test_a_page_is_bounded_by_all_that_is_written_of_its_messages(node, ws):
    """Also by what is no payload. 300 messages with 60 KB of properties each are more text than a connection may
    ever be sent at once."""
    client = paho_client("props", version=5)
    properties = module("paho.mqtt.properties").Properties(module("paho.mqtt.packettypes").PacketTypes.PUBLISH)
    properties.UserProperty = [("p", "x" * 60_000)]
    client.connect("127.0.0.1", node.ports["mqtt"])
    client.loop_start()
    sent = [client.publish("a", str(number), qos=1, properties=properties) for number in range(300)]
    for message in sent:
        message.wait_for_publish(WAIT_S)
    client.disconnect()
    client.loop_stop()
    got, start = [], "earliest"
    while True:
        page = ws.ask({"id": 1, "get": {"topic": "a", "from": start, "max": 1000}})["ok"]
        got += [message["text"] for message in page["messages"]]
        start = {"after": [page["next"]]}
        if not page["messages"]:
            break
    assert got == [str(number) for number in range(300)]


def test_more_subscriptions_than_allowed(make_node):
    node = make_node({"limit.subscriptions": 2})
    with Raw(node) as ws:
        ws.upgrade()
        assert "ok" in ws.ask({"id": 1, "sub": {"topic": "a"}}) and "ok" in ws.ask({"id": 2, "sub": {"topic": "b"}})
        assert ws.ask({"id": 3, "sub": {"topic": "c"}})["err"]["code"] == "quota_exceeded"
        assert "ok" in ws.ask({"id": 4, "sub": {"topic": "b"}}), "replacing needs no room"


def test_publishes_are_answered_however_many_come_at_once(make_node):
    node = make_node({"limit.publish_open": 4, "out.bytes_max": "4K"})
    count = 3000
    with Raw(node) as ws, Raw(node) as other:
        ws.upgrade()
        other.upgrade()
        other.ask({"id": 1, "sub": {"topic": "a"}})
        lines = b"\n".join(b'{"id":%d,"pub":{"topic":"a","data":%d}}' % (n, n) for n in range(count))
        half = len(lines) // 2
        ws.send(frame(lines[:half], first=TEXT) + frame(b"", PING) + frame(lines[half:], opcode=0) + frame(b"{}"))
        answers = []
        while (item := ws.item()) != {}:
            answers.append(item)
        assert [item["id"] for item in answers] == list(range(count)), "an answer each, in the order of the requests"
        assert all("ok" in item for item in answers)
        assert [other.item("msg")["msg"]["data"] for _ in range(count)] == list(range(count))


def test_a_publisher_that_reads_no_answers_is_not_read_either(make_node):
    node = make_node({"out.bytes_max": "4K", "out.stall_ms": 600000})
    with Raw(node, receive_bytes=4096) as ws:
        ws.upgrade()
        base = node.rss_bytes()
        ws.socket.settimeout(1)
        data = b"".join(frame(b'{"id":%d,"hello":{}}' % number) for number in range(1000))
        with pytest.raises(TimeoutError):
            for _ in range(10_000):
                ws.send(data)
        assert node.rss_bytes() - base < 16 * PATIENCE << 20
    lives(node)


# --- readers that are slow, stopped or dead ----------------------------------------------------------------------

def test_no_frame_is_ever_cut_by_another(make_node):
    """A slow reader of large messages, who pings all the time and gets heartbeats: every partial write is a chance
    for a pong or a heartbeat to land in the middle of a message."""
    node = make_node({"out.bytes_max": "256K", "ws.ping_ms": 100, "ws.pong_timeout_ms": 60000})
    count, size = 400, 30_000
    with Raw(node, receive_bytes=4096) as slow, Web(node) as web:
        slow.upgrade()
        slow.ask({"id": 1, "sub": {"topic": "big"}})
        waiting = [web.request({"pub": {"topic": "big", "text": f"{number:06d}" + "x" * size}}) for number in range(count)]
        numbers, pongs, sent = [], [], 0
        slow.socket.settimeout(WAIT_S)
        while len(numbers) < count:
            if sent - len(pongs) < 50:
                slow.send(frame(b"%d" % sent, PING))
                sent += 1
            opcode, payload = slow.frame()
            if opcode == PONG:
                pongs.append(int(payload))
            elif opcode == PING:
                slow.send(frame(payload, PONG))
            elif b'"msg"' in payload:
                message = json.loads(payload)["msg"]["text"]
                assert message[6:] == "x" * size
                numbers.append(int(message[:6]))
            else:
                assert opcode == TEXT and payload == b"{}" or b'"live"' in payload, payload[:60]
        assert numbers == list(range(count)) and pongs == sorted(pongs) and len(pongs) > 50
        for number in waiting:
            assert "ok" in web.answer(number)


def test_a_stopped_reader_is_told_4002_and_nothing_is_cut(make_node):
    node = make_node({"out.bytes_max": "64K", "out.stall_ms": 500})
    with Raw(node, receive_bytes=4096) as slow, Web(node) as web:
        slow.upgrade()
        slow.ask({"id": 1, "sub": {"topic": "big"}})
        for _ in range(200):
            web.request({"pub": {"topic": "big", "text": "x" * 60_000}})
        wait_until(lambda: node.metrics()["tidegate_subscriptions"] == 0, "the node to give the reader up")
        bye = None
        with pytest.raises(Closed) as info:
            while True:
                item = slow.item()
                bye = item.get("bye", bye)
        assert info.value.code == 4002 and bye["code"] == 4002 and bye["retry_ms"] > 0


@spans(0.3, 2, 10)
def test_heartbeats_and_a_dead_peer(make_node, span):
    node = make_node({"ws.ping_ms": int(500 * span), "ws.pong_timeout_ms": int(1000 * span)})
    with Raw(node) as living, Raw(node) as dead:
        living.upgrade()
        dead.upgrade()
        seen = []
        while seen.count(PING) < 4 or seen.count(TEXT) < 4:
            opcode, payload = living.frame()
            seen.append(opcode)
            assert opcode == PING or payload == b"{}"
            if opcode == PING:
                living.send(frame(payload, PONG))
        assert dead.close_code() == 4003
        assert "ok" in living.ask({"id": 1, "hello": {}})


def test_an_unread_close_does_not_keep_the_connection(node, ws):
    ws.send(frame(struct.pack("!H", 1000), CLOSE))
    wait_until(lambda: node.metric("tidegate_connections", "ws") == 0, "the connection to be gone")


def test_dropped_connections_leave_nothing(node):
    for _ in range(50):
        with Raw(node) as raw:
            raw.upgrade()
            raw.send(frame(b'{"id":1,"sub":{"topic":"a/#","from":"earliest"}}') +
                     frame(b'{"id":2,"pub":{"topic":"a/b","data":1}}') * 20 + frame(b'{"id":3,"get":{"topic":"a/b"}}'))
    wait_until(lambda: node.metric("tidegate_connections", "ws") == 0, "all to be gone")
    wait_until(lambda: node.metrics()["tidegate_subscriptions"] == 0, "subscriptions to be gone")
    lives(node)


def test_more_connections_than_allowed(make_node):
    node = make_node({"limit.connections": 2})

    def opened():
        try:
            raw = Raw(node)
        except OSError:  # over TLS it ends in the handshake
            return None
        raw.send(raw.request())
        if raw.answer()[0] == 101:
            return raw
        raw.close()
        return None

    with wait_until(opened, "room for one") as one, wait_until(opened, "room for two"):
        assert opened() is None
        if not node.tls:
            with Raw(node) as three:
                three.send(three.request())
                assert three.answer()[0] in (503, None)
        assert "ok" in one.ask({"id": 1, "hello": {}})
    wait_until(opened, "room again").close()


def test_shutdown_says_bye(make_node):
    node = make_node()
    with Raw(node) as ws:
        ws.upgrade()
        ws.ask({"id": 1, "sub": {"topic": "a"}})
        node.process.terminate()
        bye = ws.item("bye")["bye"]
        assert bye["code"] == 4001 and 0 < bye["retry_ms"] < 60000
        assert ws.close_code() == 4001
        ws.send(frame(struct.pack("!H", 4001), CLOSE))
        assert ws.ended()
    assert node.process.wait(STOP_S) == 0


# --- pages -----------------------------------------------------------------------------------------------------

@pytest.fixture
def pages(make_node, tmp_path):
    folder = tmp_path / "pages"
    (folder / "img").mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html>")
    (folder / "demo.js").write_text("let a = 1;\n" * 100_000)
    (folder / "img" / "a.svg").write_text("<svg/>")
    (folder / ".hidden").write_text("secret")
    (folder / "link.txt").symlink_to("/etc/passwd")
    return make_node({"demo.dir": folder})


def fetch(node, path, method="GET", host=None):
    with Raw(node) as raw:
        close = "Connection: close\r\n" if method == "HEAD" else ""  # its end is the end of what is sent
        raw.send(f"{method} {path} HTTP/1.1\r\nHost: {host or f'127.0.0.1:{raw.port}'}\r\n{close}\r\n".encode())
        status, headers, body = raw.answer() if method != "HEAD" else (*head_of(raw), b"")
        return status, headers, body


def head_of(raw):
    text = raw.file.read()
    assert text.endswith(b"\r\n\r\n"), "HEAD has no body"
    lines = text.decode().strip().split("\r\n")
    return int(lines[0].split()[1]), {name.lower(): value for name, value in (row.split(": ", 1) for row in lines[1:])}


def test_pages(pages):
    status, headers, body = fetch(pages, "/demo/")
    assert status == 200 and body == b"<!doctype html>"
    assert headers["content-type"].startswith("text/html") and headers["cache-control"] == "no-cache"
    assert headers["x-content-type-options"] == "nosniff"
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and f"ws{'s' if pages.tls else ''}://127.0.0.1:{pages.port('http')}" in policy
    assert "unsafe" not in policy
    status, headers, body = fetch(pages, "/demo/demo.js")
    assert status == 200 and body == b"let a = 1;\n" * 100_000 and headers["content-type"].startswith("text/javascript")
    assert fetch(pages, "/demo/img/a.svg")[1]["content-type"] == "image/svg+xml"
    status, headers, _ = fetch(pages, "/demo/demo.js", "HEAD")
    assert status == 200 and int(headers["content-length"]) == 1_100_000
    for path in ("/", "/demo"):
        status, headers, _ = fetch(pages, path)
        assert status == 302 and headers["location"] == "/demo/"


@pytest.mark.parametrize("path", ["/nothing", "/demo/nothing", "/demo/.hidden", "/demo/link.txt", "/demo/img",
                                  "/demo/%2e%2e/%2e%2e/etc/passwd", "/demo/..%2f..%2fetc/passwd", "/../etc/passwd",
                                  "/demo/img/../.hidden", "//etc/passwd", "/demo/index.html%00.js"])
def test_no_other_page(pages, path):
    assert fetch(pages, path)[0] in (404, 400, 302)
    assert b"root:" not in fetch(pages, path)[2] and b"secret" not in fetch(pages, path)[2]
    assert fetch(pages, "/demo/")[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_pages_are_read_only(pages, method):
    status, headers, body = fetch(pages, "/demo/", method)
    assert status == 405 and headers["allow"] == "GET, HEAD", (status, body)


def test_a_policy_never_repeats_a_strange_host(pages):
    assert fetch(pages, "/demo/", host="evil; script-src *")[0] == 400
    status, headers, _ = fetch(pages, "/demo/", host="evil;script-src")
    assert status == 200 and "evil" not in headers["content-security-policy"]


def test_a_reader_of_pages_that_stops_is_dropped(make_node, tmp_path):
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "big.js").write_bytes(b"x" * 8_000_000)
    node = make_node({"demo.dir": tmp_path / "pages", "ws.hello_timeout_ms": 300})
    before = node.metric("tidegate_connections")  # the connection that asks is one itself
    with Raw(node, receive_bytes=4096) as raw:
        raw.send(b"GET /demo/big.js HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        raw.file.readline()
        wait_until(lambda: node.metric("tidegate_connections") == before, "the reader to be dropped")
    lives(node)
