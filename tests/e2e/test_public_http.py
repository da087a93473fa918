"""HTTP at the public port, by raw bytes: heads that two readers could take for two different things, requests one behind
the other, and errors, which are problem+json wherever they come from."""

import json
import re

import pytest

from clients import curl
from http_wire import Wire, request
from mqtt_carrier import TEXT, frame
from node import Node, wait_until

HOST = "Host: 127.0.0.1\r\n"
HEAD_BYTES = 2048
CHUNKED = "Transfer-Encoding: chunked\r\n"
HANDSHAKE = ("Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
             "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n")


def get(target="/nothing", fields="", method="GET", **more):
    return request(target, fields, method=method, **{"host": HOST, **more})


MARK = get("/marker")  # a request that must be answered, or never be seen as one
LARGE = "X: " + "a" * HEAD_BYTES + "\r\n"

# name: (section of the standard, bytes in front of a further request, statuses; then the further one is answered)
OPEN = {
    "a page that is not there": ("RFC 9112, 9.3.2", get(), [404]),
    "three of them": ("RFC 9112, 9.3.2", get() * 3, [404] * 3),
    "empty lines before": ("RFC 9112, 2.2", b"\r\n\r\n" + get(), [404]),
    "a method that does not exist": ("RFC 9110, 9.1", get(method="FOO"), [405]),
    "DELETE": ("RFC 9110, 15.5.6", get(method="DELETE"), [405]),
    "OPTIONS *": ("RFC 9112, 3.2.4", get("*", method="OPTIONS"), [405]),
    "CONNECT": ("RFC 9112, 3.2.3", get("127.0.0.1:1", method="CONNECT"), [405]),
    "HEAD": ("RFC 9110, 9.3.2", get(method="HEAD"), [404]),
    "an absolute target": ("RFC 9112, 3.2.2", get("http://127.0.0.1/nothing"), [404]),
    "an absolute target, in capitals": ("RFC 9110, 4.2.3", get("HTTP://LOCALHOST:80/nothing?a=b"), [404]),
    "an absolute target without a path": ("RFC 9112, 3.2.1", get("http://localhost"), [302]),
    "an absolute target and a query alone": ("RFC 9112, 3.2.1", get("http://localhost?a"), [302]),
    "an absolute target wins over Host": ("RFC 9112, 3.2.2", get("http://evil.example/poll?topic=a"), [403]),
    "a target of another scheme": ("RFC 9112, 3.2", get("ftp://127.0.0.1/"), [400]),
    "a target without a slash": ("RFC 9112, 3.2", get("nothing"), [400]),
    "%00 in the query": ("RFC 3986, 7.3", get("/demo/?a=%00"), [400]),
    "%00 in the path": ("RFC 3986, 7.3", get("/demo/%00"), [400]),
    "half a percent": ("RFC 3986, 2.1", get("/demo/?a=%4"), [400]),
    "%2F": ("PROTOCOL.md 2", get("/demo%2Findex.html"), [400]),
    "a body that is read": ("RFC 9110, 9.3.1", get(body=b"hello"), [400]),
    "a body that looks like a request": ("RFC 9112, 11.2", get(body=MARK), [400]),
    "POST": ("RFC 9110, 15.5.6", get(method="POST", body=b"hello"), [405]),
    "a body of nothing": ("RFC 9112, 6.3", get(fields="Content-Length: 0\r\n"), [404]),
    "TE: gzip": ("RFC 9110, 10.1.4", get(fields="TE: gzip\r\n"), [404]),
    "Expect: 100-continue without a body": ("RFC 9110, 10.1.1", get(fields="Expect: 100-continue\r\n"), [404]),
    "Expect of something else": ("RFC 9110, 15.5.18", get(fields="Expect: tea\r\n"), [417]),
    "HTTP/1.0 with keep-alive": ("RFC 9112, 9.3", get(fields="Connection: keep-alive\r\n", version="HTTP/1.0"), [404]),
    "HTTP/1.2": ("RFC 9110, 2.5", get(version="HTTP/1.2"), [404]),
    "a feed of nothing": ("RFC 9112, 9.3.2", get("/sse"), [400]),
    "a WebSocket that is none": ("RFC 9110, 15.5.22", get("/ws"), [426]),
    "bytes above 127 in a value": ("RFC 9110, 5.5", get(fields="X: \xff\r\n"), [404]),
}
# The same, after which the connection ends: the further request is not answered.
ENDS = {
    "Connection: close": ("RFC 9112, 9.6", get(fields="Connection: x, Close\r\n"), 404),
    "HTTP/1.0": ("RFC 9112, 9.3", get(version="HTTP/1.0"), 404),
    "HTTP/1.0 without Host": ("RFC 9112, 3.2", get(host="", version="HTTP/1.0"), 404),
    "a length of -1": ("RFC 9112, 6.3", get(fields="Content-Length: -1\r\n"), 400),
    "a length of +1": ("RFC 9112, 6.3", get(fields="Content-Length: +1\r\n"), 400),
    "a length of nothing": ("RFC 9112, 6.3", get(fields="Content-Length:\r\n"), 400),
    "a length of 0x5": ("RFC 9112, 6.3", get(fields="Content-Length: 0x5\r\n"), 400),
    "a length of 2^64": ("RFC 9110, 8.6", get(fields="Content-Length: 18446744073709551616\r\n"), 400),
    "two lengths": ("RFC 9112, 6.3", get(fields="Content-Length: 5\r\nContent-Length: 3\r\n"), 400),
    "two equal lengths": ("RFC 9112, 6.3", get(fields="Content-Length: 0\r\nContent-Length: 0\r\n"), 400),
    "two lengths in one": ("RFC 9112, 6.3", get(fields="Content-Length: 5, 5\r\n"), 400),
    "a length and chunked": ("RFC 9112, 6.1", get(fields="Content-Length: 5\r\n" + CHUNKED) + b"0\r\n\r\n", 400),
    "chunked in HTTP/1.0": ("RFC 9112, 6.1", get(fields=CHUNKED, version="HTTP/1.0") + b"0\r\n\r\n", 400),
    "chunked": ("RFC 9112, 7.1", get(fields=CHUNKED) + b"0\r\n\r\n", 400),
    "chunked, with an extension and a bad size": ("RFC 9112, 7.1.1", get(fields=CHUNKED) + b"0x5;a=b\r\nhello\r\n0\r\n\r\n", 400),
    "an unknown transfer coding": ("RFC 9112, 6.1", get(fields="Transfer-Encoding: xchunked\r\n"), 501),
    "chunked twice": ("RFC 9112, 6.1", get(fields=CHUNKED + CHUNKED), 501),
    "Expect and a body": ("RFC 9110, 10.1.1", get(fields="Content-Length: 5\r\nExpect: 100-continue\r\n"), 400),
    "a body of a megabyte": ("RFC 9112, 9.3", get(fields="Content-Length: 1000000\r\n"), 400),
    "bare LF": ("RFC 9112, 2.2", get().replace(b"\r\n", b"\n"), 400),
    "bare LF behind a field": ("RFC 9112, 2.2", get(fields="X: a\n"), 400),
    "bare CR": ("RFC 9112, 2.2", get(fields="X: a\rb\r\n"), 400),
    "a folded line": ("RFC 9112, 5.2", get(fields="X: a\r\n b\r\n"), 400),
    "a space before the colon": ("RFC 9112, 5.1", get(fields="Content-Length : 5\r\n"), 400),
    "a field without a colon": ("RFC 9112, 5", get(fields="X\r\n"), 400),
    "a field without a name": ("RFC 9112, 5", get(fields=": x\r\n"), 400),
    "a NUL": ("RFC 9110, 5.5", get(fields="X: a\0b\r\n"), 400),
    "no Host": ("RFC 9112, 3.2", get(host=""), 400),
    "two Hosts": ("RFC 9112, 3.2", get(fields=HOST), 400),
    "a Host with a path": ("RFC 9112, 3.2", get(host="Host: a/b\r\n"), 400),
    "a user in the target": ("RFC 9110, 4.2.4", get("http://a@127.0.0.1/"), 400),
    "HTTP/0.9": ("RFC 9112, 3", b"GET /nothing\r\n\r\n", 400),
    "two spaces": ("RFC 9112, 3", b"GET  /nothing HTTP/1.1\r\n" + HOST.encode() + b"\r\n", 400),
    "HTTP/2": ("RFC 9110, 2.5", get(version="HTTP/2.0"), 505),
    "the preface of HTTP/2": ("RFC 9113, 3.4", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "a TLS handshake": ("RFC 8446, 5.1", bytes.fromhex("160301020001000001fc0303") + b"x" * 100, 400),
    "a WebSocket frame": ("RFC 9112, 3", b"\x81\x82\xa1\xb2\xc3\xd4\xf0\xf1", 400),
    "a head over the limit": ("RFC 6585, 5", get(fields=LARGE), 431),
    "a target over the limit": ("RFC 9110, 15.5.15", get("/" + "a" * 2 * HEAD_BYTES), 414),
    "a line without end": ("RFC 9110, 15.5.15", b"GET /" + b"a" * 100_000, 414),
    "an upgrade to HTTP/2": ("RFC 9113, 3.1", get(fields="Upgrade: h2c\r\nConnection: Upgrade\r\n"), 400),
    "an upgrade with a wrong key": ("RFC 6455, 4.2.1", get("/ws", HANDSHAKE.replace("==", "")), 400),
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    node = Node(tmp_path_factory.mktemp("public"), {"limit.http_head_bytes": HEAD_BYTES}).start()
    yield node
    wait_until(lambda: node.metric("tidegate_connections", "http") <= 1, "all connections to be gone")
    node.check()


class Public(Wire):
    def __init__(self, node):
        super().__init__(node, door="http")

    def problem(self, status, headless=False):
        """The next answer, which must be a whole problem of that status; HEAD's is without a body."""
        if not headless:
            got = self.answer()
            assert got and got.status == status, f"{got}"
            if status < 400:
                return got
            body = json.loads(got.body)
            assert got.fields["content-type"] == "application/problem+json"
            assert body["status"] == status and body["code"] and body["detail"] and body["title"], body
            assert re.fullmatch(r"[\w-]+", body["request_id"]), body
            return got
        length = re.search(rb"(?s)HTTP/1.1 %d .*?\r\n\r\n" % status, b"".join(iter(self.file.readline, b"\r\n")) + b"\r\n")
        assert length, "no such head"
        return None


@pytest.mark.parametrize("name", OPEN)
def test_the_next_request_is_answered(shared, name):
    section, data, statuses = OPEN[name]
    with Public(shared) as wire:
        wire.send(data + MARK + get("/demo/", fields="Connection: close\r\n"))
        for status in statuses:
            wire.problem(status, name == "HEAD")
        wire.problem(404)
        assert wire.answer().status == 200, section
        assert wire.is_closed()


@pytest.mark.parametrize("name", ENDS)
def test_one_answer_and_the_end(shared, name):
    section, data, status = ENDS[name]
    with Public(shared) as wire:
        wire.send(data + MARK)
        assert wire.problem(status).fields["connection"] == "close", section
        assert wire.is_closed(), section


def test_405_names_the_methods(shared):
    with Public(shared) as wire:
        assert wire.ask(get(method="PATCH")).fields["allow"] == "GET, HEAD"


def test_heads_that_are_refused_are_counted(shared):
    def count(reason):
        return shared.metric("tidegate_http_heads_refused_total", f'"{reason}"')

    before = {reason: count(reason) for reason in ("limit", "malformed")}
    for data in (get(fields=LARGE), get(fields="X : a\r\n"), get(fields="X: " + "a" * (HEAD_BYTES - 100) + "\r\n")):
        with Public(shared) as wire:
            assert wire.ask(data).status in (431, 400, 404)
    assert {reason: count(reason) - before[reason] for reason in before} == {"limit": 1, "malformed": 1}


def test_byte_by_byte(shared):
    with Public(shared) as wire:
        for byte in get() + get("/demo/", HEAD_NOTHING):
            wire.socket.send(bytes([byte]))
        wire.problem(404)
        assert wire.answer().status == 200


HEAD_NOTHING = "Cookie: a=b\r\nCookie: c=d\r\n"


def test_a_thousand_requests_in_one_write(shared):
    with Public(shared) as wire:
        wire.send(get() * 999 + get("/demo/", "Connection: close\r\n"))
        for _ in range(999):
            assert wire.answer().status == 404
        assert wire.answer().status == 200
        assert wire.is_closed()


def test_a_websocket_behind_requests(shared):
    with Public(shared) as wire:
        wire.send(get() + get("/demo/", method="HEAD") + get("http://localhost/ws", HANDSHAKE))
        wire.problem(404)
        wire.problem(200, headless=True)
        answer = wire.answer()
        assert answer.status == 101 and answer.fields["sec-websocket-accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        wire.send(frame(b'{"id":1,"hello":{}}', TEXT))
        assert wire.file.read(1) == b"\x81"


@pytest.mark.parametrize("given", ["abc-123/x", "", "a" * 65, 'a"b', "a b"])
def test_a_request_keeps_its_name(shared, given):
    with Public(shared) as wire:
        answers = [wire.ask(get(fields=f"X-Request-Id: {given}\r\n")),
                   wire.ask(get("/poll?topic=%23&from=x", f"X-Request-Id: {given}\r\n"))]
    with Wire(shared) as wire:
        answers.append(wire.ask(get(fields=f"X-Request-Id: {given}\r\n")))
        answers.append(wire.ask(get("/healthz", f"X-Request-Id: {given}\r\n")))
    for answer in answers:
        name = answer.fields["x-request-id"]
        assert (name == given) == (given == "abc-123/x") and re.fullmatch(r"[\w/-]+", name)
        assert answer.status == 200 or json.loads(answer.body)["request_id"] == name


def test_too_many_connections_are_told_why(make_node):
    node = make_node({"limit.connections": 2, "limit.address_connections": 1, "limit.address_exempt": "127.0.0.1"})
    held = [Public(node), Public(node)]
    assert all(wire.ask(get()).status == 404 for wire in held)
    with Public(node) as late:
        answer = late.problem(503)
        assert answer.fields["retry-after"] == "5" and json.loads(answer.body)["retry_ms"] == 5000
        assert late.is_closed()
    for wire in held:
        wire.close()


@pytest.mark.parametrize("origins,ancestors", [("", "'none'"), ("http://127.0.0.1:8079", "http://127.0.0.1:8079"),
                                               ("https://a.example,http://b.example;x", "https://a.example")])
def test_whose_pages_may_show_ours_in_a_frame(make_node, origins, ancestors):
    """Those in http.origins; what is more than an origin could end the policy."""
    node = make_node({"http.origins": origins})
    policy = curl(node.web("/demo/"), "-I").body.decode().lower()
    assert f"frame-ancestors {ancestors}\r\n" in policy, policy
