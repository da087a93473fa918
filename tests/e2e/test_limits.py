"""Everything that can grow has an end, and what is lost by it is counted."""

import json
import socket
import struct
import subprocess
import threading

import pytest

from clients import WAIT_S, Web, curl, publish
from node import ROOT, Node, wait_until
from tokens import bearer, make

PAYLOAD = b"x" * 4096
MESSAGES = 15_000  # 60 MB: far more than the sockets' buffers and the queue's bound together
RSS_GROWTH_MAX = 48 << 20


def mqtt_string(text):
    return struct.pack("!H", len(text)) + text


def mqtt_packet(first, body):
    length, size = b"", len(body)
    while True:
        length += bytes([size % 128 | (0x80 if size > 127 else 0)])
        size //= 128
        if not size:
            return bytes([first]) + length + body


class RawSubscriber:
    """An MQTT 3.1.1 client of bare bytes that subscribes and then reads nothing."""

    def __init__(self, node, topic, qos=0, client_id=b"slow"):
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        self.socket.settimeout(WAIT_S)
        self.socket.connect(("127.0.0.1", node.ports["mqtt"]))
        self.socket.sendall(mqtt_packet(0x10, mqtt_string(b"MQTT") + b"\x04\x02\x00\x00" + mqtt_string(client_id)))
        assert self.exactly(4) == b"\x20\x02\x00\x00"
        self.socket.sendall(mqtt_packet(0x82, b"\x00\x01" + mqtt_string(topic) + bytes([qos])))
        assert self.exactly(5) == b"\x90\x03\x00\x01" + bytes([qos])

    def exactly(self, count):
        data = b""
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            assert part, "the node has closed the connection"
            data += part
        return data

    def next(self):
        """(topic, payload)"""
        first, size, shift = self.exactly(1)[0], 0, 0
        while True:
            byte = self.exactly(1)[0]
            size |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        assert first >> 4 == 3, f"packet type {first >> 4}"
        body = self.exactly(size)
        length = struct.unpack("!H", body[:2])[0]
        return body[2:2 + length].decode(), body[2 + length:]

    def close(self):
        self.socket.close()


def flood(node, topic, count):
    """`count` numbered messages by WebSocket, at most 64 unanswered: the publisher is never the one dropped."""
    with Web(node) as web:
        numbers = []
        for number in range(count):
            numbers.append(web.request({"pub": {"topic": topic, "text": f"{number:08d}" + "x" * 4088}}))
            if len(numbers) == 64:
                assert "ok" in web.answer(numbers.pop(0)), "refused"
        for number in numbers:
            assert "ok" in web.answer(number)


def watch_rss(node, work):
    """Runs `work` in a thread; the most memory that the node had meanwhile."""
    failed = []

    def run():
        try:
            work()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    most = 0
    while thread.is_alive():
        thread.join(0.05)
        most = max(most, node.rss_bytes())
    if failed:
        raise failed[0]
    return most


@pytest.mark.deadline(120)
def test_stopped_mqtt_reader_costs_bounded_memory_and_counted_drops(make_node):
    node = make_node({"out.bytes_max": "1M", "out.stall_ms": 600_000})
    slow = RawSubscriber(node, b"flood/#")
    with Web(node) as other:
        other.subscribe("end/#")
        flood(node, "flood/warm", 500)  # pools and the log's recent bytes have their size now
        base = node.rss_bytes()
        most = watch_rss(node, lambda: flood(node, "flood/a", MESSAGES))
        publish(node, "end/a", b"1")
        assert other.next()["topic"] == "end/a", "others are served as if nothing was"
    assert most - base < RSS_GROWTH_MAX, f"{(most - base) >> 20} MiB more for one stopped reader"

    dropped = node.metric("tidegate_messages_dropped_total")
    assert dropped > 0
    # What it did not lose it gets, in order; got + dropped = all.
    got = [slow.next() for _ in range(int(500 + MESSAGES - dropped))]
    numbers = [int(payload[:8]) for topic, payload in got if topic == "flood/a"]
    assert numbers == sorted(set(numbers))
    # It lives on: what comes now arrives.
    publish(node, "flood/end", b"end")
    assert slow.next() == ("flood/end", b"end")
    slow.close()


@pytest.mark.deadline(120)
def test_stopped_websocket_reader_goes_on_without_a_gap(make_node):
    node = make_node({"out.bytes_max": "1M", "out.stall_ms": 600_000})
    with StoppedWeb(node, "flood/a") as slow:
        flood(node, "flood/warm", 500)
        base = node.rss_bytes()
        most = watch_rss(node, lambda: flood(node, "flood/a", MESSAGES))
        assert most - base < RSS_GROWTH_MAX, f"{(most - base) >> 20} MiB more for one stopped reader"
        numbers = slow.read_numbers_up_to(MESSAGES - 1)
    assert numbers == list(range(MESSAGES)), "each one once, in order, none missing"


class StoppedWeb:
    """A WebSocket client of bare bytes, so that it can stop reading: a library would read ahead."""

    def __init__(self, node, topic):
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        self.socket.settimeout(WAIT_S)
        self.socket.connect(("127.0.0.1", node.ports["http"]))
        self.socket.sendall((
            f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{node.ports['http']}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Protocol: tidegate.v1.json\r\n\r\n").encode())
        self.file = self.socket.makefile("rb")
        assert b" 101 " in self.file.readline()
        while self.file.readline() != b"\r\n":
            pass
        self.send(b'{"id":1,"sub":{"topic":"%s"}}' % topic.encode())
        self.first = self.frame()  # more may stand behind the ok
        assert b'"ok"' in self.first

    def send(self, text):
        assert len(text) < 126
        self.socket.sendall(bytes([0x81, 0x80 | len(text)]) + b"\0\0\0\0" + text)

    def frame(self):
        while True:
            first, second = self.file.read(2)
            size = second & 127
            if size == 126:
                size = struct.unpack("!H", self.file.read(2))[0]
            elif size == 127:
                size = struct.unpack("!Q", self.file.read(8))[0]
            body = self.file.read(size)
            if first & 15 == 9:  # a ping is answered, as the standard asks
                self.socket.sendall(bytes([0x8A, 0x80 | len(body)]) + b"\0\0\0\0" + body)
            elif first & 15 == 1:
                return body
            else:
                raise AssertionError(f"opcode {first & 15}: {body[:60]!r}")

    def read_numbers_up_to(self, last):
        """Those that have come when `last` is there, or when no more come."""
        numbers = []
        self.socket.settimeout(20)  # shorter than the time between two heartbeats
        while not numbers or numbers[-1] != last:
            try:
                body = self.frame()
            except TimeoutError:
                break
            for line in body.split(b"\n"):
                if b'"msg"' in line:
                    start = line.index(b'"text":"') + 8
                    numbers.append(int(line[start:start + 8]))
        return numbers

    def close(self):
        self.file.close()
        self.socket.close()

    __enter__ = lambda self: self
    __exit__ = lambda self, *_: self.close()


def is_closed(connection):
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def connect(node, door, count):
    return [socket.create_connection(("127.0.0.1", node.ports[door])) for _ in range(count)]


def close_all(connections):
    for connection in connections:
        connection.close()


def test_more_connections_than_allowed_are_refused(make_node):
    node = make_node({"limit.connections": 3, "mqtt.refused_max": 0})
    subscribers = [RawSubscriber(node, b"a", client_id=name) for name in (b"one", b"two")]
    sockets = connect(node, "mqtt", 4)
    wait_until(lambda: sum(map(is_closed, sockets)) == 3, "the connections above the limit to be closed")

    # The private API is not for clients: a node that is full of them can still be watched and used.
    assert curl(node.api("/readyz")).json() == {"status": "ok"}
    assert node.metric("tidegate_connects_total", "limit") == 3
    publish(node, "a", b"1")
    assert [subscriber.next() for subscriber in subscribers] == [("a", b"1")] * 2
    assert sum(map(is_closed, sockets)) == 3

    close_all(sockets)
    wait_until(lambda: connects(node, b"three"), "room for one more connection")
    close_all(subscribers)


def connects(node, client_id):
    try:
        RawSubscriber(node, b"a", client_id=client_id).close()
        return True
    except (AssertionError, ConnectionError):
        return False


def nested(depth, middle="1"):
    return "[" * depth + middle + "]" * depth


def test_json_is_nested_as_deep_as_is_allowed(make_node):
    node = make_node({"limit.json_depth": 8})
    before = node.metric("tidegate_messages_refused_total", "invalid")
    for depth, code in ((8, 200), (9, 400), (100000, 400)):
        for path, body in (("/v1/publish/a", nested(depth)),
                           ("/v1/publish", '{"messages":[{"topic":"a","data":' + nested(depth - 1) + "}]}"),
                           ("/v1/tickets", '{"user":"u","claims":{"a":' + nested(depth - 2) + "}}")):
            answer = curl(node.api(path), "-H", "Content-Type: application/json", data=body.encode(), check=None)
            assert answer.status == code, (path, depth, answer.body)
            if code != 200:
                assert answer.json()["code"] == "bad_request"
    assert node.metric("tidegate_messages_refused_total", "invalid") > before
    for depth, code in ((8, 200), (9, 401)):
        token = make(node, x=json.loads(nested(depth - 1)))
        answer = curl(node.api("/v1/publish/a"), *bearer(token), data=b"1", check=None)
        assert answer.status == code, f"claims of depth {depth}: {answer.status}"
    assert node.metric("tidegate_auth_failures_total", 'reason="malformed"') == 1
    with Web(node) as web:
        assert "ok" in web.answer(web.request({"pub": {"topic": "a", "data": json.loads(nested(7))}}))
        web.events.get(timeout=WAIT_S)
        for depth in (8, 5000):
            web.post_text('{"id":9,"pub":{"topic":"a","data":' + nested(depth) + "}}")
            item = web.events.get(timeout=WAIT_S)
            assert "err" in item and item["err"]["code"] == "bad_request", item
        assert "ok" in web.answer(web.request({"pub": {"topic": "a", "text": "1"}})), "the connection stays"


def test_the_other_doors_of_json_are_bounded_too(make_node):
    """The depth is that of a value; what a door takes apart itself is not counted: the object of a single event, the
    array of a batch of events."""
    node = make_node({"limit.json_depth": 8})
    event = '{"specversion":"1.0","id":"%d","source":"s","type":"t","data":%s}'
    for over, code in ((0, 200), (1, 400), (100000, 400)):
        for path, kind, body in (
                ("/v1/users/ann/messages", "application/json", nested(8 + over)),
                ("/v1/publish/a", "application/cloudevents+json", event % (over, nested(8 + over))),
                ("/v1/publish/b", "application/cloudevents-batch+json", "[" + event % (over, nested(7 + over)) + "]")):
            before = node.metric("tidegate_messages_refused_total", "invalid")
            answer = curl(node.api(path), "-H", f"Content-Type: {kind}", data=body.encode(), check=None)
            assert answer.status == code, f"{path}, {over} too deep: {answer.status}"
            if over:
                assert answer.json()["code"] == "bad_request"
                assert node.metric("tidegate_messages_refused_total", "invalid") == before + 1, (path, over)
    for depth in (7, 8, 100000):  # no value of a revocation is an array
        answer = curl(node.api("/v1/revocations"), "-H", "Content-Type: application/json",
                      data=('{"user":' + nested(depth) + "}").encode(), check=None)
        assert answer.status == 400 and answer.json()["code"] == "bad_request", depth
    with Web(node) as web:
        web.post_text('{"id":9,"pub":{"topic":"a","data":' + nested(100000) + "}}")
        item = web.events.get(timeout=WAIT_S)
        assert "err" in item and item["err"]["code"] == "bad_request", item
        assert "ok" in web.answer(web.request({"pub": {"topic": "a", "text": "1"}})), "the connection stays"


def test_the_private_api_has_a_limit_of_its_own(make_node):
    node = make_node({"api.connections": 3})
    sockets = connect(node, "api", 5)
    wait_until(lambda: sum(map(is_closed, sockets)) >= 2, "the connections above the limit to be closed")
    with Web(node) as web:  # clients do not feel it
        assert "ok" in web.answer(web.request({"pub": {"topic": "a", "text": "1"}}))
    close_all(sockets)

    def refused():
        try:
            return node.metric("tidegate_connects_total", "limit")
        except OSError:  # until the node has noticed that they are gone
            return 0

    assert wait_until(refused, "room again") >= 2


def test_clients_cannot_take_the_last_descriptors(make_node):
    """More connections are wanted than there are descriptors: clients are refused, the private API and the log
    are not."""
    node = make_node({"api.connections": 16, "mqtt.refused_max": 0}, descriptors=400)
    sockets = connect(node, "mqtt", 200)
    limit = curl(node.api("/v1/capabilities")).json()["limits"]["connections"]
    assert 50 < limit < 150
    wait_until(lambda: sum(map(is_closed, sockets)) >= 200 - limit, "the connections above the limit to be closed")
    assert curl(node.api("/readyz")).json() == {"status": "ok"}
    assert sum(map(is_closed, sockets)) == 200 - limit
    publish(node, "a", b"1")
    assert "descriptors" in node.log()
    close_all(sockets)


def test_no_descriptors_for_clients_at_all(tmp_path):
    node = Node(tmp_path, descriptors=200)
    ended = subprocess.run(node.command(), cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 69
    assert "file descriptors" in ended.stderr and "ulimit" in ended.stderr
