"""Event streams and long polling at the public port: by curl, by bytes on a socket, and by a browser's EventSource."""

import json
import socket
import subprocess
import threading
import time
import urllib.parse

import pytest

from clients import WAIT_S, Web, curl, history, need, publish
from node import spans, wait_until
from test_demo_page import browser  # noqa: F401  (a fixture)
from test_revocation import revoke
from tokens import make

BLOCK_BYTES = 200_000


def query(**parameters):
    return urllib.parse.urlencode(parameters, doseq=True)


class Stream:
    """An event stream, as the standard says to read it."""

    def __init__(self, node, fields="", receive_buffer=None, method="GET", door="sse", host="127.0.0.1", **parameters):
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(WAIT_S)
        self.socket.connect(("127.0.0.1", node.ports["http"]))
        self.port = self.socket.getsockname()[1]
        target = f"/{door}?{query(**parameters)}"
        self.socket.sendall(f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n".encode())
        self.file = self.socket.makefile("rb")
        self.status = int(self.file.readline().split()[1])
        self.head = {}
        while (line := self.file.readline().strip()):
            name, value = line.decode().split(": ", 1)
            self.head[name.lower()] = value
        self.id, self.comments = "", 0
        if self.status == 200 and door == "sse":
            assert self.head["content-type"] == "text/event-stream"
        else:
            self.body = self.file.read(int(self.head["content-length"]))

    def block(self):
        """(event, data) of the next block that has data; None: the stream has ended."""
        event, data = "message", []
        for line in self.file:
            line = line.rstrip(b"\n").decode()
            if not line and data:
                return event, "\n".join(data)
            if not line:
                event = "message"
                continue
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "data":
                data.append(value)
            elif name == "id":
                self.id = value
            elif name == "event":
                event = value
            elif name == "":
                self.comments += 1
            else:
                assert name == "retry" and value.isdigit()
        return None

    def message(self):
        event, data = self.block()
        assert event == "message", (event, data)
        return json.loads(data)

    def event(self, kind):
        event, data = self.block()
        assert event == kind, (event, data)
        return json.loads(data)

    def wait_id(self, after=""):
        """The next bookmark that comes; no message may come before it."""
        for line in self.file:
            if line.startswith(b"id: "):
                self.id = line[4:].strip().decode()
                if self.id != after:
                    return self.id
            assert not line.startswith(b"data"), line
        raise AssertionError("the stream has ended")

    def is_over(self):
        return self.block() is None

    def close(self):
        self.file.close()
        self.socket.close()

    __enter__ = lambda self: self
    __exit__ = lambda self, *_: self.close()


def poll(node, *arguments, check=200, **parameters):
    return curl(node.web(f"/poll?{query(**parameters)}"), *arguments, check=check).json()


# --- event streams -----------------------------------------------------------------------------------------------

def test_the_same_objects_as_by_websocket(node):
    with Stream(node, topic=["a/+", "b&c"]) as stream, Web(node) as web:
        assert stream.head["cache-control"] == "no-store"
        web.subscribe("a/+")
        web.subscribe("b&c")
        publish(node, "a/1", b'{"x":\n[1]}', "-H", "Content-Type: application/json", "-H", "Tidegate-Key: k")
        publish(node, "a/2", "zwölf\nZeilen".encode())
        publish(node, "a/3", b"\xff\0")
        curl(node.api("/v1/publish?topic=b%26c"), data=b"4")
        publish(node, "c", b"not ours")
        for topic in ("a/1", "a/2", "a/3", "b&c"):
            message = stream.message()
            assert message["topic"] == topic and message == web.next()


def test_curl_reads_it_as_it_comes(node):
    process = subprocess.Popen([need("curl"), "-sSN", "--noproxy", "*", node.web("/sse?topic=a")], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline().startswith("id: b")
        publish(node, "a", b"1")
        line = next(line for line in process.stdout if line.startswith("data"))
        assert json.loads(line[6:])["text"] == "1"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_retained_messages_come_first(node):
    for topic in "ab":
        publish(node, f"r/{topic}", topic.encode(), "-H", "Tidegate-Retain: 1")
    with Stream(node, topic="r/#") as stream:
        assert [(m["topic"], m["retained"]) for m in (stream.message(), stream.message())] == [("r/a", True), ("r/b", True)]
        mark = stream.wait_id()
        publish(node, "r/a", b"new")
        assert "retained" not in stream.message()
    with Stream(node, topic="r/#", fields=f"Last-Event-ID: {mark}\r\n") as stream:
        assert stream.message()["text"] == "new", "who comes back gets what he has missed, not what is retained"


@pytest.mark.parametrize("start, want", [
    ("earliest", "01234"), ("last:2", "34"), ("time:0", "01234"), ("live", ""), ("POSITION", "34"),
])
def test_where_it_begins(node, start, want):
    positions = [publish(node, "t", str(i).encode()).json()["pos"] for i in range(5)]
    start = positions[2] if start == "POSITION" else start
    with Stream(node, topic="t", **{"from": start}) as stream:
        publish(node, "t", b"end")
        got = []
        while (text := stream.message()["text"]) != "end":
            got.append(text)
        assert "".join(got) == want


def test_resume_loses_nothing(make_node):
    """Cut off at any moment, by either side, and through a kill -9: what came is all there is, in order."""
    node = make_node({"log.partitions": 3}, keep_ports=True)
    total, got, mark, stop = 150, {}, "", threading.Event()

    def send():
        sent = 0
        while sent < total:
            try:
                publish(node, f"t/{sent % 7}", str(sent).encode(), "-H", f"Idempotency-Key: {sent}")
                sent += 1
            except AssertionError:
                time.sleep(0.02)
        stop.set()

    sender = threading.Thread(target=send)
    sender.start()
    rounds = 0
    while not (stop.is_set() and len(set(got.values())) == total):
        if len(set(got.values())) == total:  # the last answer is on its way
            stop.wait(1)
            continue
        rounds += 1
        try:
            with Stream(node, topic="t/+", fields=f"Last-Event-ID: {mark}\r\n" if mark else "",
                        **({} if mark else {"from": "earliest"})) as stream:
                before, count = mark, 0
                # Some more than a bookmark's worth; a bookmark comes within a second.
                while (count < 40 or stream.id in ("", before)) and len(set(got.values())) < total:
                    message = stream.message()
                    got.setdefault(message["pos"], message["text"])
                    mark = stream.id or mark
                    count += 1
                    if rounds == 2 and count == 30:
                        node.kill9()
                        node.restart()
        except (OSError, TypeError, ValueError, IndexError):  # it was cut off, or the node is not there
            time.sleep(0.05)
        assert rounds < 400, (len(got), mark)
    sender.join()
    # What was seen and then lost with the crash was published again, under another position.
    assert sorted(set(map(int, got.values()))) == list(range(total))
    kept = [message for topic in range(7) for message in history(node, f"t/{topic}")]
    assert len(kept) == total and {m["pos"] for m in kept} <= set(got), "lost"


def test_nothing_between_the_bookmark_and_the_return_is_lost(node):
    """The bookmark is behind the last message that came: the first one after it comes first."""
    with Stream(node, topic="t") as stream:
        publish(node, "t", b"0")
        assert stream.message()["text"] == "0"
        mark = stream.wait_id(after=stream.id)
    for i in range(1, 5):
        publish(node, "t", str(i).encode())
    with Stream(node, topic="t", fields=f"Last-Event-ID: {mark}\r\n", **{"from": "earliest"}) as stream:
        got = [stream.message()["text"] for _ in range(3)]
    assert got == ["1", "2", "3"], "lost or repeated after the bookmark"


def test_a_slow_reader_loses_nothing(make_node):
    node = make_node({"out.bytes_max": "64K"})
    count = 30
    with Stream(node, topic="t", receive_buffer=8192) as slow, Stream(node, topic="t") as quick:
        for i in range(count):
            publish(node, "t", str(i).encode().ljust(BLOCK_BYTES))
            assert int(quick.message()["text"]) == i
        assert node.metric("tidegate_outbound_queue_bytes") < 4 * BLOCK_BYTES
        one = next(c for c in curl(node.api("/v1/connections")).json()["connections"] if c["address"].endswith(f":{slow.port}"))
        assert curl(node.api(f"/v1/connections/{one['id']}")).json()["filters"][0]["behind"] > 0
        assert [int(slow.message()["text"]) for _ in range(count)] == list(range(count))


def test_who_reads_nothing_is_closed(make_node):
    node = make_node({"out.stall_ms": 1000, "out.bytes_max": "64K"})
    with Stream(node, topic="t", receive_buffer=8192):
        for i in range(40):
            publish(node, "t", b"x" * BLOCK_BYTES)
        wait_until(lambda: node.metric("tidegate_connections", "sse") == 0, "the reader to be closed")
        assert node.metric("tidegate_disconnects_total", "timeout") >= 1
    assert len(history(node, "t")) == 40


def test_gaps_are_told(make_node):
    node = make_node({"log.segment_bytes": 65536, "log.retention_bytes": 131072, "log.recent_bytes": 4096})
    first = publish(node, "t", b"first").json()["pos"]
    body = json.dumps({"messages": [{"topic": "t", "text": "x" * 2000}] * 400}).encode()
    curl(node.api("/v1/publish"), data=body)
    wait_until(lambda: curl(node.api(f"/v1/history/t?from={first}"), check=None).status == 410, "retention to have removed something")
    with Stream(node, topic="t", **{"from": first}) as stream:
        gap = stream.event("gap")
        assert gap["topic"] == "t" and gap["why"] == "retention" and gap["count"] > 0 and gap["from"] > first
        assert stream.message()["pos"] > gap["to"]
    stranger = "00000001" + first[8:]
    with Stream(node, topic="t", fields=f"Last-Event-ID: {stranger}\r\n") as stream:
        assert stream.event("gap") == {"topic": "t", "from": stranger, "why": "epoch"}


def test_signs_of_life(make_node):
    node = make_node({"ws.ping_ms": 200})
    with Stream(node, topic="t") as stream:
        assert stream.wait_id()
        assert stream.file.readline() == b"\n"
        assert [stream.file.readline() for _ in range(4)] == [b":\n", b"\n", b":\n", b"\n"]
        publish(node, "t", b"1")
        assert stream.message()["text"] == "1"


def test_the_end_is_told(make_node):
    node = make_node(keep_ports=True)
    with Stream(node, topic="t") as stream, Stream(node, topic="t") as kicked:
        one = next(c for c in curl(node.api("/v1/connections")).json()["connections"] if c["address"].endswith(f":{kicked.port}"))
        assert one["door"] == "sse" and one["subscriptions"] == 1
        curl(node.api(f"/v1/connections/{one['id']}"), "-X", "DELETE")
        assert kicked.event("bye") == {"code": 4203, "why": "kicked"} and kicked.is_over()
        node.stop()
        assert stream.event("bye") == {"code": 4001, "why": "drain"} and stream.is_over()


def test_tokens(node):
    ann = make(node, "ann")
    publishes = f"Authorization: Bearer {ann}\r\n"
    with Stream(node, topic=["$user/ann/#", "room"], fields=publishes) as stream:
        curl(node.api("/v1/users/ann/messages/x"), data=b"for ann")
        assert stream.message()["topic"] == "$user/ann/x"
        connection, = curl(node.api("/v1/connections?user=ann")).json()["connections"]
        assert connection["door"] == "sse"
        assert curl(node.api("/v1/users/ann")).json()["connections"][0]["door"] == "sse"
    for fields, topic, status in ((publishes, "$user/bob", 403), ("", "$user/ann", 403), ("", "$SYS/x", 403),
                                  ("Authorization: Bearer nonsense\r\n", "a", 401), ("Authorization: Basic YTpi\r\n", "a", 401),
                                  (f"Authorization: Bearer {make(node, 'ann', exp=1)}\r\n", "a", 401),
                                  ("X-Forwarded-For: 10.0.0.1\r\n", "a", 401)):
        for door in ("sse", "poll"):
            with Stream(node, topic=topic, fields=fields, door=door) as stream:
                assert stream.status == status, (fields, topic, stream.status)
                assert json.loads(stream.body)["status"] == status
                assert stream.head["content-type"] == "application/problem+json"
    with Stream(node, topic="a", fields="X-Forwarded-For: 10.0.0.1\r\n" + publishes) as stream:
        assert stream.status == 200, "who has a token comes through a proxy"


@spans(2, 5, 15)
def test_a_token_that_expires_ends_the_stream(make_node, span):
    node = make_node()
    with Stream(node, topic="a", fields=f"Authorization: Bearer {make(node, 'ann', exp=int(time.time()) + span)}\r\n") as stream:
        assert stream.event("bye")["code"] == 4100 and stream.is_over()
    wait_until(lambda: node.metric("tidegate_disconnects_total", '"sse"', '"token_expired"') == 1, "it to be counted as that")


@pytest.mark.parametrize("fields, host, status", [
    ("Origin: http://evil.example\r\n", "127.0.0.1", 403), ("Origin: null\r\n", "127.0.0.1", 403), ("", "evil.example", 403),
    ("Origin: https://app.example\r\n", "127.0.0.1", 200),
])
def test_pages_of_other_origins(make_node, fields, host, status):
    node = make_node({"http.origins": "https://app.example"})
    for door in ("sse", "poll"):
        with Stream(node, topic="a", fields=fields, host=host, door=door) as stream:
            assert stream.status == status
            allowed = stream.head.get("access-control-allow-origin")
            assert allowed == ("https://app.example" if status == 200 else None)


@pytest.mark.parametrize("target, status", [
    ("/sse", 400), ("/sse?topic=", 400), ("/sse?topic=a/b%23", 400), ("/sse?topics=a", 400), ("/sse?topic=a&topic=a", 400),
    ("/sse?topic=a&from=nonsense", 400), ("/sse?topic=a&from=earliest&after=x", 400), ("/sse?topic=a&max=5", 400),
    ("/sse?topic=a%2B", 400), ("/sse?topic=+&from=last:3", 501), ("/sse?topic=a&from=last:0", 400), ("/sse?topic=a&from=time:x", 400),
    ("/sse?" + "&".join(f"topic={i}" for i in range(17)), 400), ("/sse?topic=%FF", 400),
    ("/poll", 400), ("/poll?topic=a&topic=b", 400), ("/poll?topic=a&wait_ms=x", 400), ("/poll?topic=a&wait_ms=60001", 400),
    ("/poll?topic=a&max=0", 400), ("/poll?topic=a&after=x", 400), ("/poll?topic=a&max=1&max=2", 400),
])
def test_what_is_refused(node, target, status):
    answer = curl(node.web(target), "-g", check=status).json()
    assert answer["status"] == status and answer["detail"] and answer["code"] in ("bad_request", "unsupported")
    assert node.metric("tidegate_subscriptions") == 0


@pytest.mark.parametrize("method, status", [("HEAD", 405), ("POST", 405), ("PUT", 405), ("DELETE", 405)])
def test_only_get(node, method, status):
    for door in ("sse", "poll"):
        assert curl(node.web(f"/{door}?topic=a"), "-X", method, *(["-I"] if method == "HEAD" else []), check=None).status == status


def test_what_is_sent_behind_the_request_is_thrown_away(node):
    with Stream(node, topic="a") as stream:
        for _ in range(20):
            stream.socket.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
        publish(node, "a", b"1")
        assert stream.message()["text"] == "1"


def test_many_come_and_go(node):
    streams = [Stream(node, topic=f"t/{i}") for i in range(100)]
    assert node.metric("tidegate_connections", "sse") == 100
    for stream in streams[::2]:
        stream.close()
    for i in range(1, 100, 2):
        publish(node, f"t/{i}", b"x")
        assert streams[i].message()["topic"] == f"t/{i}"
    for stream in streams[1::2]:
        stream.close()
    wait_until(lambda: node.metric("tidegate_connections", "sse") == 0, "all to be gone")
    wait_until(lambda: node.metric("tidegate_subscriptions") == 0, "their subscriptions to be gone")


# --- long polling ------------------------------------------------------------------------------------------------

def test_a_poll_goes_through_everything_page_by_page(make_node):
    node = make_node({"log.partitions": 3})
    for i in range(50):
        publish(node, f"t/{i % 5}", str(i).encode())
    got, after = [], "earliest"
    while True:
        page = poll(node, topic="t/+", after=after, max=7)
        assert len(page["messages"]) <= 7
        if not page["messages"]:
            break
        got += page["messages"]
        after = page["next"]
    assert len(got) == 50 and len({message["pos"] for message in got}) == 50
    for topic in range(5):
        assert [int(m["text"]) for m in got if m["topic"] == f"t/{topic}"] == list(range(topic, 50, 5))
    assert got[0].keys() == {"topic", "pos", "ts", "text"}


def test_a_poll_waits_for_the_first_message(node):
    mark = poll(node, topic="t")["next"]
    answers = []
    waiter = threading.Thread(target=lambda: answers.append(poll(node, topic="t", after=mark, wait_ms=15000)))
    waiter.start()
    wait_until(lambda: node.metric("tidegate_connections", "poll") == 1, "the poll to wait")
    one, = curl(node.api("/v1/connections?topic=t")).json()["connections"]
    assert one["door"] == "poll" and one["subscriptions"] == 1 and "user" not in one
    assert not answers
    publish(node, "other", b"x")
    publish(node, "t", b"1")
    waiter.join()
    assert [message["text"] for message in answers[0]["messages"]] == ["1"]
    publish(node, "t", b"2")
    page = poll(node, topic="t", after=answers[0]["next"], wait_ms=15000)
    assert [message["text"] for message in page["messages"]] == ["2"], "what came between two polls is in the second"
    assert poll(node, topic="t", after=page["next"], wait_ms=50)["messages"] == []


def test_a_chain_of_polls_loses_nothing(node):
    mark, got, count = poll(node, topic="t")["next"], [], 80
    sender = threading.Thread(target=lambda: [publish(node, "t", str(i).encode()) for i in range(count)])
    sender.start()
    while len(got) < count:
        page = poll(node, topic="t", after=mark, wait_ms=5000, max=13)
        got += [int(message["text"]) for message in page["messages"]]
        mark = page["next"]
    sender.join()
    assert got == list(range(count))


def test_a_poll_tells_of_gaps(node):
    stranger = "00000001" + publish(node, "t", b"1").json()["pos"][8:]
    page = poll(node, topic="t", after=stranger)
    assert page["gaps"] == [{"topic": "t", "from": stranger, "why": "epoch"}]
    assert [message["text"] for message in page["messages"]] == ["1"]


def test_a_client_that_goes_away_while_it_waits(node):
    with Stream(node, topic="x", door="poll"):
        pass
    waiter = socket.create_connection(("127.0.0.1", node.ports["http"]))
    waiter.sendall(b"GET /poll?topic=t&wait_ms=60000 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    wait_until(lambda: node.metric("tidegate_connections", "poll") == 1, "the poll to wait")
    waiter.close()
    wait_until(lambda: node.metric("tidegate_connections", "poll") == 0, "the poll to be gone")


# --- a browser ---------------------------------------------------------------------------------------------------

def test_event_source_in_chromium(make_node, browser):  # noqa: F811
    """It reads, and comes back by itself with Last-Event-ID after kill -9 without losing a message."""
    node = make_node(keep_ports=True)
    browser.get(node.web("/demo/"))
    browser.execute_script("""
        window.got = []; window.opened = 0; window.gaps = 0;
        window.source = new EventSource('/sse?topic=es/%2B');
        window.source.onopen = () => window.opened++;
        window.source.onmessage = e => window.got.push([JSON.parse(e.data).pos, JSON.parse(e.data).text, e.lastEventId]);
        window.source.addEventListener('gap', () => window.gaps++);""")

    def got():
        rows = browser.execute_script("return window.got")
        return list(dict((pos, text) for pos, text, _ in rows).values())

    wait_until(lambda: browser.execute_script("return window.opened") == 1, "the stream to be open")
    for i in range(10):
        publish(node, "es/a", str(i).encode())
    wait_until(lambda: len(got()) == 10, "ten messages")
    node.kill9()
    node.restart()
    for i in range(10, 20):
        publish(node, "es/b", str(i).encode())
    wait_until(lambda: len(got()) == 20, "what was published while it was away", 30)
    assert got() == [str(i) for i in range(20)]
    assert browser.execute_script("return window.got[window.got.length - 1][2]").startswith("b")
    assert browser.execute_script("return window.gaps") == 0


# --- over TLS ----------------------------------------------------------------------------------------------------

def test_over_tls(make_node, certificates):
    node = make_node(certificates.settings())
    process = subprocess.Popen([need("curl"), "-sSNk", "--noproxy", "*", f"https://127.0.0.1:{node.ports['https']}/sse?topic=a"],
                               stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline().startswith("id: b")
        for i in range(3):
            publish(node, "a", str(i).encode().ljust(BLOCK_BYTES))
            line = next(line for line in process.stdout if line.startswith("data"))
            assert int(json.loads(line[6:])["text"]) == i
        page = curl(f"https://127.0.0.1:{node.ports['https']}/poll?topic=a&after=earliest", "-k").json()
        assert len(page["messages"]) == 3
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    wait_until(lambda: node.metric("tidegate_connections", "sse") == 0, "the stream to be gone")


def test_a_revoked_token_ends_the_stream(node):
    with Stream(node, topic="a", fields=f"Authorization: Bearer {make(node, 'ann')}\r\n") as stream, \
            Stream(node, topic="a", fields=f"Authorization: Bearer {make(node, 'bob')}\r\n") as other:
        revoke(node, user="ann")
        assert stream.event("bye")["code"] == 4101 and stream.is_over()
        wait_until(lambda: node.metric("tidegate_disconnects_total", '"sse"', '"revoked"') == 1, "it to be counted as that")
        publish(node, "a", b"1")
        assert other.message()["text"] == "1"
