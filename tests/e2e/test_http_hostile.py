"""Bytes that no client should send to the private API. Whatever comes: an answer that is an error or a closed
connection, the next request served, no CPU used in idleness, nothing stored that was not published."""

import random
import socket
import threading
import time

import pytest

from clients import history
from http_wire import Wire, request
from mqtt_wire import Wire as Mqtt
from node import PATIENCE, Node, wait_until

CHUNKED = "Transfer-Encoding: chunked\r\n"
HELLO = request(body=b"hello")
CLOSED = None  # no answer at all

# name: (bytes, statuses of the answers in order; several in a tuple: any of them)
CASES = {
    "a publish": (HELLO, [200]),
    "two pipelined": (HELLO + HELLO, [200, 200]),
    "publish and read pipelined": (HELLO + request("/v1/history/a", method="GET"), [200, 200]),
    "refused GETs and publish pipelined": (request("/nothing", method="GET") + request("/v1/history", method="GET")
                                           + request("/healthz", method="FOO") + HELLO, [404, 400, 405, 200]),
    "refused and publish pipelined": (request("/nothing", body=b"hello") + HELLO, [404, 200]),
    "no body at all": (request(), [200]),
    "leading CRLF": (b"\r\n\r\n" + HELLO, [200]),
    "bare LF": (HELLO.replace(b"\r\n", b"\n"), [200]),

    # bodies
    "chunked": (request(fields=CHUNKED) + b"5\r\nhello\r\n0\r\n\r\n", [411]),
    "chunked, endless size": (request(fields=CHUNKED) + b"0" * 100_000, [411]),
    "chunked, endless extension": (request(fields=CHUNKED) + b"5;" + b"a" * 100_000, [411]),
    "length and chunked": (request(fields=f"Content-Length: 5\r\n{CHUNKED}") + b"0\r\n\r\n" + HELLO, [411]),
    "chunked and length": (request(fields=f"{CHUNKED}Content-Length: 5\r\n") + b"0\r\n\r\n" + HELLO, [411]),
    "unknown transfer coding": (request(fields="Transfer-Encoding: xchunked\r\n") + HELLO, [411]),
    "identity transfer coding": (request(fields="Transfer-Encoding: identity\r\n", body=b"hello"), [411]),
    "transfer coding twice": (request(fields=CHUNKED + CHUNKED) + b"0\r\n\r\n", [411]),
    "transfer coding with a space": (request(fields="Transfer-Encoding : chunked\r\nContent-Length: 5\r\n") + b"hello",
                                     [(400, 411, CLOSED)]),
    "two equal lengths": (request(fields="Content-Length: 5\r\nContent-Length: 5\r\n") + b"hello", [400]),
    "two lengths": (request(fields="Content-Length: 5\r\nContent-Length: 3\r\n") + b"hello", [400]),
    "two lengths in one": (request(fields="Content-Length: 5,5\r\n") + b"hello", [400]),
    "negative length": (request(fields="Content-Length: -1\r\n") + b"hello", [400]),
    "signed length": (request(fields="Content-Length: +5\r\n") + b"hello", [400]),
    "hexadecimal length": (request(fields="Content-Length: 0x5\r\n") + b"hello", [400]),
    "empty length": (request(fields="Content-Length:\r\n") + b"hello", [400]),
    "length of 2^64 + 5": (request(fields="Content-Length: 18446744073709551621\r\n") + b"hello", [(400, 413)]),
    "length of 2^63": (request(fields="Content-Length: 9223372036854775808\r\n"), [(400, 413)]),
    "length over the limit": (request(fields="Content-Length: 1048577\r\n"), [413]),
    "length over the limit, all of it": (request(body=b"x" * 2_000_000), [(413, CLOSED)]),
    "Expect with a length over the limit": (request(fields="Content-Length: 1048577\r\nExpect: 100-continue\r\n"),
                                            [413]),
    "Expect of something else": (request(fields="Expect: tea\r\n", body=b"hello"), [417]),
    "Expect at a wrong place": (request("/nothing", fields="Content-Length: 5\r\nExpect: 100-continue\r\n"), [404]),
    "a body for a GET": (request("/healthz", method="GET", body=b"hello") + HELLO, [400, 200]),

    # heads
    "no Host": (request(host="", body=b"hello"), [400]),
    "two Hosts": (request(fields="Host: localhost\r\n", body=b"hello"), [400]),
    "empty Host": (request(host="Host:\r\n", body=b"hello"), [(400, 403)]),
    "a head of 9 KB": (request(fields="X: " + "a" * 9000 + "\r\n", body=b"hello"), [431]),
    "a head of 40 KB": (request(fields="X: " + "a" * 40_000 + "\r\n", body=b"hello"), [(431, CLOSED)]),
    "1,000 fields": (request(fields="".join(f"X-{i}: a\r\n" for i in range(1000)), body=b"hello"), [(431, CLOSED)]),
    "a target of 40 KB": (request("/" + "a" * 40_000, body=b"hello"), [(414, 431, CLOSED)]),
    "60 parameters": (request("/v1/publish?" + "a=b&" * 60, body=b"hello"), [400]),
    "1,000 parameters": (request("/v1/publish?" + "a=b&" * 1000, body=b"hello"), [431]),
    "a query of 9 KB": (request("/v1/publish?topic=" + "a" * 9000, body=b"hello"), [431]),
    "an endless field": (b"POST / HTTP/1.1\r\nX: " + b"a" * 1_000_000, [(431, CLOSED)]),
    "a method of 3,000 letters": (request(method="A" * 3000), [405]),
    "field without a colon": (request(fields="Foo\r\n", body=b"hello"), [(400, CLOSED)]),
    # The library takes such a line for the end of the head: what follows it must not be read as the next request.
    "field without a name": (request(fields=": x\r\n") + HELLO, [400]),
    "space in a name": (request(fields="X T: x\r\n", body=b"hello"), [400]),
    "space before the colon": (request(fields="X : x\r\n", body=b"hello"), [(400, CLOSED)]),
    "NUL in a name": (request(fields="X\0T: x\r\n", body=b"hello"), [(400, CLOSED)]),
    "folded Host": (b"POST /v1/publish/a HTTP/1.1\r\n Host: localhost\r\nContent-Length: 0\r\n\r\n", [(400, CLOSED)]),
    "a tidegate field twice": (request(fields="Tidegate-Ttl-Ms: 1\r\nTidegate-Ttl-Ms: 2\r\n", body=b"hello"), [400]),

    # request lines
    "HTTP/1.0": (request(version="HTTP/1.0", body=b"hello"), [505]),
    "HTTP/0.9": (b"GET /\r\n\r\n", [(400, 505, CLOSED)]),
    "HTTP/2.0": (request(version="HTTP/2.0", body=b"hello"), [505]),
    "HTTP/1.2": (request(version="HTTP/1.2", body=b"hello"), [505]),
    "http/1.1": (request(version="http/1.1", body=b"hello"), [(400, 505, CLOSED)]),
    "no HTTP": (request(version="FOO/1.1", body=b"hello"), [(400, 505, CLOSED)]),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [(400, 505, CLOSED)]),
    "TLS": (bytes.fromhex("160301020001000001fc0303") + b"x" * 100, [CLOSED]),
    "absolute target": (request("http://localhost:1/v1/publish/a", body=b"hello"), [200]),
    "absolute target, for another Host": (request("http://[::1]/v1/publish/a", body=b"hello", host="Host: evil\r\n"), [200]),
    "absolute target of a foreign host": (request("http://evil/v1/publish/a", body=b"hello"), [403]),
    "absolute target without a path": (request("http://localhost", body=b"hello"), [400]),
    "target without a slash": (request("foo", body=b"hello"), [400]),
    "target *": (request("*", method="OPTIONS"), [400]),
    "target with a fragment": (request("/v1/publish/a#b", body=b"hello"), [400]),
    "target with a space": (request("/v1/publish/a b", body=b"hello"), [(400, CLOSED)]),
    "target of bytes": (request("/v1/publish/\xff\xfe", body=b"hello"), [400]),
    "TRACE": (request("/healthz", method="TRACE"), [405]),
    "CONNECT": (b"CONNECT localhost:1 HTTP/1.1\r\nHost: localhost\r\n\r\n", [400]),
    "PATCH": (request(method="PATCH", body=b"x"), [405]),
    "Upgrade": (request("/healthz", method="GET", fields="Connection: Upgrade\r\nUpgrade: websocket\r\n"), [200]),
    "only NULs": (b"\0" * 100, [CLOSED]),
}
STORED = ("refused GETs and publish pipelined", "absolute target", "absolute target, for another Host", "a publish", "two pipelined", "publish and read pipelined", "refused and publish pipelined",
          "no body at all", "leading CRLF", "bare LF", "a body for a GET")
# Requests on a connection that is closed after the error, so that what follows is never read as a request.
SMUGGLED = ("length and chunked", "chunked and length", "unknown transfer coding", "field without a name")


def ticks(node):
    """CPU time of the node, in clock ticks."""
    with open(f"/proc/{node.pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def assert_idle(node):
    """It uses next to no CPU while nothing happens. One quiet span is enough: others share this machine."""
    for _ in range(5):
        before = ticks(node)
        time.sleep(0.3)  # a span of time is what is measured
        if ticks(node) - before <= 3:
            return
    raise AssertionError("the node is busy with nothing")


def assert_serves(node):
    with Wire(node) as wire:
        assert wire.ask(request("/healthz", method="GET")).status == 200


@pytest.mark.parametrize("name", CASES)
def test_reaction(shared, name):
    data, want = CASES[name]
    before = len(history(shared, "a"))
    with Wire(shared) as wire:
        wire.send(data)
        for number, status in enumerate(want):
            answer = wire.answer()
            statuses = status if isinstance(status, tuple) else (status,)
            assert (answer.status if answer else CLOSED) in statuses, f"answer {number}: {answer}"
        if name in SMUGGLED or want[-1] in (413, 431):
            assert wire.is_closed()
    assert_serves(shared)
    added = [status for status in want if status == 200] if name in STORED else []
    if name == "publish and read pipelined":
        added.pop()
    assert len(history(shared, "a")) == before + len(added)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    node = Node(tmp_path_factory.mktemp("hostile"), {"api.timeout_ms": 5000}).start()
    yield node
    wait_until(lambda: node.metric("tidegate_connections", "http") <= 1, "all connections to be gone")
    assert_idle(node)
    node.check()


def test_connections_that_the_library_loses_do_not_stay(make_node):
    node = make_node({"api.timeout_ms": 1000})
    for _ in range(100):
        with Wire(node) as wire:
            assert wire.ask(CASES["1,000 parameters"][0]).fields["content-type"] == "application/problem+json"
    wait_until(lambda: node.metric("tidegate_connections", "http") <= 1, "the connections to be gone")
    assert_idle(node)


def test_byte_by_byte(shared):
    before = len(history(shared, "a"))
    with Wire(shared) as wire:
        for byte in HELLO + HELLO:
            wire.socket.send(bytes([byte]))
        assert [wire.answer().status for _ in range(2)] == [200, 200]
    assert len(history(shared, "a")) == before + 2


def test_expect_is_answered_before_the_body(shared):
    with Wire(shared) as wire:
        assert wire.ask(request(fields="Content-Length: 5\r\nExpect: 100-continue\r\n")).status == 100
        assert wire.ask(b"hello").status == 200


def test_half_closed_after_a_whole_request(shared):
    with Wire(shared) as wire:
        wire.send(HELLO)
        wire.socket.shutdown(socket.SHUT_WR)
        assert wire.answer().status == 200


@pytest.mark.parametrize("part", [b"POST / HT", HELLO[:-2], b"", HELLO[:40]], ids=["line", "body", "nothing", "head"])
def test_half_closed_in_the_middle(shared, part):
    before = len(history(shared, "a"))
    with Wire(shared) as wire:
        wire.send(part)
        wire.socket.shutdown(socket.SHUT_WR)
        assert wire.is_closed()
    assert len(history(shared, "a")) == before


def test_a_peer_that_resets_while_its_answer_is_made(shared):
    before = len(history(shared, "a"))
    for _ in range(200):
        wire = Wire(shared)
        wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        wire.send(HELLO)
        wire.close()
    assert_serves(shared)
    assert len(history(shared, "a")) <= before + 200


@pytest.mark.parametrize("sizes", [range(3900, 4200, 13), range(8000, 8300, 7)], ids=["4 KB", "8 KB"])
def test_heads_around_the_limits(shared, sizes):
    """Where the library's pool ends (ADR 1): an answer or a closed connection, never silence or a spin."""
    for size in sizes:
        filler = "a" * size
        for data in (request(fields=f"X: {filler}\r\n", body=b"hello"),
                     request(fields=f"X: {filler}\r\n", body=b"x" * 20_000),
                     request(f"/{filler}", body=b"hello"),
                     request("/v1/publish?" + "a=b&" * (size // 4), body=b"hello"),
                     request(fields="A: b\r\n" * (size // 6), body=b"hello"),
                     HELLO + request(fields=f"X: {filler}\r\n", body=b"hello")):
            with Wire(shared) as wire:
                wire.send(data)
                answer = wire.answer()
                assert answer is None or answer.status in (200, 400, 404, 414, 431), f"{size}: {answer}"
    assert_idle(shared)


# --- time ------------------------------------------------------------------------------------------------------

def drip(wire, data, byte):
    """Sends `byte` again and again until the node has closed."""
    end = time.monotonic() + 60 * PATIENCE
    wire.send(data)
    while time.monotonic() < end:
        try:
            wire.socket.settimeout(0.2)
            if wire.socket.recv(4096) == b"":
                return
        except TimeoutError:
            pass
        except ConnectionResetError:
            return
        try:
            wire.socket.sendall(byte)
        except (BrokenPipeError, ConnectionResetError):
            return
    raise AssertionError("the connection is still open")


@pytest.mark.parametrize("data, byte", [
    (b"", b""), (b"", b"\r\n"), (b"POST / HTTP/1.1\r\nX: ", b"a"),
    (request(fields="Content-Length: 1000\r\n"), b"a"), (HELLO, b""),
    (request("/nothing", fields="Content-Length: 1000\r\n"), b"a"),
], ids=["silent", "line breaks", "head", "body", "after a request", "refused body"])
def test_slowness_ends(make_node, data, byte):
    node = make_node({"api.timeout_ms": 1000})
    start = time.monotonic()
    with Wire(node) as wire:
        drip(wire, data, byte)
    assert time.monotonic() - start > 0.9
    assert node.metric("tidegate_disconnects_total", "timeout") >= 1
    assert_serves(node)


def test_a_peer_that_does_not_read_its_answer(make_node):
    node = make_node({"api.timeout_ms": 1000, "limit.message_bytes": "16M"})
    with Mqtt(node) as wire:  # it may take longer than a request may
        assert wire.publish("a", b"x" * (12 << 20)) == 0
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.connect(("127.0.0.1", node.ports["api"]))
    slow.sendall(request("/v1/history/a", method="GET"))
    wait_until(lambda: node.metric("tidegate_disconnects_total", "timeout") == 1, "the slow reader to be closed")
    slow.close()
    assert_serves(node)
    assert_idle(node)


# --- quantity --------------------------------------------------------------------------------------------------

@pytest.mark.deadline(180)
def test_bodies_of_many_connections_have_a_bound(make_node):
    node = make_node({"api.timeout_ms": "60s", "limit.message_bytes": "8M"})
    half = request(fields=f"Content-Length: {8 << 20}\r\n") + b"x" * (7 << 20)
    base = node.rss_bytes()
    wires = [Wire(node, 60) for _ in range(30)]  # 210 MiB
    senders = [threading.Thread(target=wire.send, args=(half,)) for wire in wires]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    wait_until(lambda: node.metric("tidegate_bytes_received_total", "http") >= 30 * (7 << 20), "all to be read")
    if PATIENCE == 1:  # a sanitizer keeps what is freed
        assert node.rss_bytes() - base < 160 << 20, "64 MiB and four of the largest messages"
    for wire in wires:
        wire.send(b"x" * (1 << 20))
    statuses = [wire.answer().status for wire in wires]
    for wire in wires:
        wire.close()
    assert set(statuses) == {200, 503}, statuses
    assert node.metric("tidegate_messages_refused_total", "unavailable") == statuses.count(503)


@pytest.mark.skipif(PATIENCE > 1, reason="a sanitizer keeps what is freed")
def test_memory_of_large_bodies_comes_back(make_node):
    """16 bodies of 7 MiB at a time, five times: all of it is given back, whatever order they end in. They are no JSON, so
    nothing of them is stored."""
    node = make_node({"limit.message_bytes": "8M"})
    size = 7 << 20
    head = request(fields=f"Content-Type: application/json\r\nContent-Length: {size}\r\n")
    base, most = node.rss_bytes(), 0
    for _ in range(5):
        wires = [Wire(node, 60) for _ in range(16)]
        for wire in wires:
            wire.send(head)
        for _ in range(7):
            for wire in wires:
                wire.send(b"[" * (1 << 20))
            most = max(most, node.rss_bytes())
        for wire in wires:
            assert wire.answer().status in (400, 503)
            wire.close()
    assert most - base > 40 << 20, "the bodies were not kept at all"
    wait_until(lambda: node.rss_bytes() - base < 24 << 20, "the memory to come back")


def test_more_connections_than_allowed(make_node):
    node = make_node({"api.connections": 5})
    # The harness asks over this door too: the last one that it had may still be going away.
    wait_until(lambda: node.metric("tidegate_connections", "http") <= 1, "the harness's connection to be gone")
    wires = [Wire(node) for _ in range(5)]
    for wire in wires[:4]:
        assert wire.ask(HELLO).status == 200
    with Wire(node) as late:
        late.send(HELLO)
        assert late.answer() is None
    for wire in wires:
        wire.close()
    wait_until(lambda: try_serves(node), "the node to serve again")
    assert node.metric("tidegate_connects_total", "limit") >= 1


def try_serves(node):
    with Wire(node) as wire:
        answer = wire.ask(request("/healthz", method="GET"))
        return answer is not None and answer.status == 200


TOKENS = [b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b",", b";", b"/", b"?", b"&", b"=", b"%00", b"%2F", b"%",
          b"0", b"-1", b"5", b"ffffffff", b"HTTP/1.1", b"HTTP/1.0", b"Host: x\r\n", b"Content-Length: 5\r\n",
          b"Content-Length: 70000\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n",
          b"Connection: keep-alive, upgrade\r\n", b"Expect: 100-continue\r\n", b"X: \r\n y\r\n", b"5\r\nhello\r\n",
          b"0\r\n\r\n", b"hello", b"\xff", b"POST ", b"GET ", b"HEAD ", b"OPTIONS * ", b"?topic=b", b"Tidegate-Key: ",
          b"Tidegate-Wait: accepted\r\n", b"Cookie: a=b; c\r\n"]
BASE = [HELLO, request("/v1/publish?topic=b/c&x", body=b"hello"), request("/v1/history/a?max=3", method="GET"),
        request("/metrics", method="GET"), request(fields=CHUNKED) + b"5\r\nhello\r\n0\r\n\r\n",
        request(fields="Expect: 100-continue\r\n", body=b"hello"), request("/healthz", method="HEAD")]


def mutated(dice):
    data = b"".join(dice.choice(BASE) for _ in range(dice.choice((1, 1, 2, 5))))
    for _ in range(dice.choice((0, 1, 2, 4, 8))):
        at, kind = dice.randrange(len(data) + 1), dice.random()
        if kind < 0.5:
            data = data[:at] + dice.choice(TOKENS) + data[at:]
        elif kind < 0.65:
            data = data[:at] + data[at + dice.randrange(1, 20):]
        elif kind < 0.8:
            filler = dice.choice((b"a", b"a&", b"a: b\r\n", b" ", b"\r\n", b"%41", b"a;"))
            data = data[:at] + filler * dice.choice((10, 100, 1000, dice.randrange(1, 9000))) + data[at:]
        else:
            data = data[:at] + bytes([dice.randrange(256)]) + data[at + 1:]
    return data[:200_000]


@pytest.mark.parametrize("seed", [1, 2])
def test_mutated_requests(make_node, seed):
    node = make_node({"api.timeout_ms": 2000})
    dice = random.Random(seed)
    for _ in range(40):
        wires = []
        for _ in range(25):
            wire = Wire(node)
            wires.append(wire)
            data = mutated(dice)
            step = max(1, len(data) // dice.choice((1, 1, 2, 7)))
            wire.socket.setblocking(False)
            for at in range(0, len(data), step):
                try:
                    wire.socket.send(data[at:at + step])
                except OSError:
                    break
            if dice.random() < 0.2:
                try:
                    wire.socket.shutdown(socket.SHUT_WR)
                except OSError:
                    pass
        for wire in wires:
            if dice.random() < 0.3:
                wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            wire.close()
        assert_serves(node)
    wait_until(lambda: node.metric("tidegate_connections", "http") <= 1, "all connections to be gone")
    assert_idle(node)
