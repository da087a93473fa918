"""SIGTERM, `POST /v1/node/drain` and `tidegate drain`: clients are told at a rate, nothing that is owed is lost, exit 0."""

import json
import signal
import subprocess
import threading
import time

import pytest

from clients import Web, curl, publish
from http_wire import Wire as Http, request
from mqtt_wire import Wire, connect, publish as publish_packet
from node import PATIENCE, PROGRAM, wait_until
from test_sse import Stream
from test_sync import disk  # noqa: F401 (a fixture)
from test_ws import Raw, frame

END_S = 30 * PATIENCE


def say(ws, item):
    ws.send(frame(json.dumps(item).encode()))


def ended(node):
    return node.process.wait(END_S)


def reasons(node):
    answer = curl(node.api("/readyz"), check=None)
    return answer.json().get("reasons", []) if answer.status == 503 else []


def test_what_is_owed_is_answered_first(make_node, disk):  # noqa: F811
    """Publishes wait for the disk at every door when the drain begins: each gets its acknowledgement before goodbye."""
    node = make_node({"drain.rate": 0}, environment=disk.environment)
    with Raw(node) as ws, Wire(node, 5, "five") as five, Wire(node, 4, "three") as three, Raw(node) as idle:
        idle.upgrade()
        ws.upgrade()
        ws.ask({"id": 1, "hello": {}})
        disk.hold()
        five.send(publish_packet("a/5", b"5", 1, 9))
        three.send(publish_packet("a/3", b"3", 1, 8, version=4))
        say(ws, {"id": 2, "pub": {"topic": "a/w", "data": 1}})
        answers = []
        sender = threading.Thread(target=lambda: answers.append(publish(node, "a/h", b"h", check=None).status))
        sender.start()
        wait_until(lambda: node.metric("tidegate_publishes_open") == 4, "all publishes to be under way")
        node.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "draining" in reasons(node), "the drain")
        assert idle.close_code() == 4001, "who has nothing under way goes at once, and all have been told now"
        disk.release()
        assert five.packet() == (0x40, b"\x00\x09"), "a drain lost an acknowledgement"
        assert five.disconnect_code() == 0x8b
        assert three.rest() == b"\x40\x02\x00\x08", "a drain lost an acknowledgement"
        first, second = ws.item(), ws.item()
        assert "ok" in first and first["id"] == 2, "a drain lost an acknowledgement"
        assert second["bye"]["code"] == 4001
        sender.join(END_S)
        assert answers == [200]
    assert ended(node) == 0


def test_who_comes_meanwhile_is_told(make_node, disk):  # noqa: F811
    """A new MQTT client is not left waiting in the listener's queue: there is no service here any more."""
    node = make_node({"drain.rate": 0, "drain.max_ms": "10m"}, environment=disk.environment)
    with Wire(node, 5, "owed") as owed:
        disk.hold()
        owed.send(publish_packet("a/5", b"5", 1, 9))
        wait_until(lambda: node.metric("tidegate_publishes_open") == 1, "the publish to be under way")
        node.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "draining" in reasons(node), "the drain")

        def told(version):
            with Wire(node, version, connected=False) as late:
                late.send(connect(version, "late"))
                return late.rest()

        # Until the loop has the letter it takes clients as ever, and then sends them away.
        wait_until(lambda: told(5) == b"\x20\x03\x00\x88\x00", "CONNACK 0x88 (server unavailable)")
        assert told(5) == b"\x20\x03\x00\x88\x00"
        assert told(4) == b"\x20\x02\x00\x03"
        assert node.metrics()['tidegate_connects_total{proto="mqtt",result="drain"}'] >= 3
        disk.release()
        assert owed.packet() == (0x40, b"\x00\x09")
        assert owed.disconnect_code() == 0x8b
    assert ended(node) == 0


def upgrade(path):
    return request(path, "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                   "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", method="GET")


@pytest.mark.parametrize("tls", [False, True])
def test_who_comes_meanwhile_by_http_is_told(make_node, disk, certificates, tls):  # noqa: F811
    """A request at the public port is answered 503, which says when to try again, and the connection ends."""
    own = {**certificates.settings(), "http.tls_port": 0} if tls else {}
    node = make_node({"drain.rate": 0, "drain.max_ms": "10m", **own}, environment=disk.environment)
    node.tls = certificates.client() if tls else None

    def http():
        wire = Http.__new__(Http)
        wire.socket = node.connect("http")
        wire.file = wire.socket.makefile("rb")
        return wire

    with Wire(node, 5, "owed") as owed:
        disk.hold()
        owed.send(publish_packet("a/5", b"5", 1, 9))
        wait_until(lambda: node.metric("tidegate_publishes_open") == 1, "the publish to be under way")
        kept = http()
        assert kept.ask(request("/none", method="GET")).status == 404
        node.process.send_signal(signal.SIGTERM)
        wait_until(lambda: "draining" in reasons(node), "the drain")
        wait_until(lambda: http().ask(request("/none", method="GET")).status == 503, "the loop to have heard of it")
        for asked in (request("/demo/", method="GET"), request("/sse?topic=t", method="GET"), upgrade("/ws"), upgrade("/mqtt"),
                      request("/poll?topic=t", method="GET"), request("/x", body=b"1")):
            wire = http()
            answer = wire.ask(asked)
            assert answer.status == 503 and answer.fields["content-type"] == "application/problem+json"
            assert json.loads(answer.body)["code"] == "unavailable"
            assert 1 <= int(answer.fields["retry-after"]) <= 5 and answer.fields["connection"] == "close"
            assert wire.is_closed()
        assert kept.ask(request("/none", method="GET")).status == 503 and kept.is_closed()
        silent = http()  # holds up nothing
        disk.release()
        assert owed.packet() == (0x40, b"\x00\x09")
    assert ended(node) == 0 and silent.is_closed()


def test_event_streams_and_polls(make_node):
    """A stream ends with `bye` and the time to come again; a poll that waits is answered 503 at once; who comes
    again where he was misses nothing."""
    node = make_node({"drain.rate": 0}, keep_ports=True)
    with Stream(node, topic="t") as stream:
        assert stream.wait_id()
        polled = []
        poll = threading.Thread(target=lambda: polled.append(Stream(node, door="poll", topic="t", wait_ms=60000)))
        poll.start()
        wait_until(lambda: len(curl(node.api("/v1/connections")).json()["connections"]) == 2, "the poll to wait")
        node.process.send_signal(signal.SIGTERM)
        assert stream.event("bye") == {"code": 4001, "why": "drain"} and stream.is_over()
        poll.join(END_S)
        assert ended(node) == 0
    assert polled[0].status == 503 and 1 <= int(polled[0].head["retry-after"]) <= 5
    assert json.loads(polled[0].body)["retry_ms"] < 5000
    node.restart()
    publish(node, "t", b"1")
    with Stream(node, topic="t", fields=f"Last-Event-ID: {stream.id}\r\n") as again:
        assert again.message()["text"] == "1"


def test_mqtt_is_told_when_to_come_again(make_node):
    """As a WebSocket: in a user property of 0x8B, each its own."""
    node = make_node({"drain.rate": 0})
    clients = [Wire(node, 5, f"c{i}") for i in range(5)]
    node.process.send_signal(signal.SIGTERM)
    times = []
    for rest in [client.rest() for client in clients]:
        assert rest[:1] + rest[2:3] + rest[4:15] == b"\xe0\x8b\x26\x00\x08retry_ms" and rest[1] == len(rest) - 2
        times.append(int(rest[17:]))
    assert len(set(times)) == 5, f"they come again together: {times}"
    assert all(500 <= ms < 4500 for ms in times)
    assert ended(node) == 0


def test_paced(make_node):
    """At 20 a second ten clients are not told at once, and those that were not told are served as ever."""
    node = make_node({"drain.rate": 20, "node.loops": 2})
    webs = [Web(node) for _ in range(10)]
    byes = []
    try:
        for web in webs:
            web.ask({"hello": {}})
        begun = time.monotonic()
        node.process.send_signal(signal.SIGTERM)
        for web in webs:
            byes.append(web.close_code(END_S))
        assert time.monotonic() - begun >= 8 / 20 - 0.1, "faster than drain.rate"
        assert byes == [4001] * 10
    finally:
        for web in webs:
            web.__exit__()
    assert ended(node) == 0


def test_delay_and_a_second_signal(make_node):
    """While drain.delay_ms lasts only /readyz has changed; a second SIGTERM ends all waiting."""
    node = make_node({"drain.delay_ms": "10m"})
    with Web(node) as web:
        assert curl(node.api("/v1/node/drain"), "-X", "POST", check=202).json() == {"status": "draining"}
        wait_until(lambda: "draining" in reasons(node), "the drain")
        assert curl(node.api("/v1/nodes")).json()["nodes"][0]["state"] == "draining"
        curl(node.api("/v1/node/drain"), "-X", "POST", check=202)  # changes nothing
        assert curl(node.api("/healthz")).status == 200
        assert web.ask({"pub": {"topic": "t", "data": 1}})["ok"]["dup"] is False
        with Web(node) as late:
            assert late.ask({"hello": {}})["ok"]["node"] == "test"
        assert node.process.poll() is None
        node.process.send_signal(signal.SIGTERM)
        assert ended(node) == 0


def test_an_end_to_waiting(make_node, disk):  # noqa: F811
    """Whoever is not answered within drain.max_ms is disconnected."""
    node = make_node({"drain.max_ms": 300}, environment=disk.environment)
    with Raw(node) as ws:
        ws.upgrade()
        disk.hold()
        say(ws, {"id": 2, "pub": {"topic": "a/w", "data": 1}})
        wait_until(lambda: node.metric("tidegate_publishes_open") == 1, "the publish to be under way")
        node.process.send_signal(signal.SIGTERM)
        assert ws.item("bye")["bye"]["code"] == 4000
        disk.release()
    assert ended(node) == 0
    assert "drain.max_ms=300 is over" in node.log()


@pytest.mark.parametrize("loops", [1, 3])
def test_by_command(make_node, loops):
    node = make_node({"node.loops": loops, "drain.rate": 0})
    with Web(node) as web, Wire(node, 5, "five") as five:
        web.ask({"hello": {}})
        result = subprocess.run([PROGRAM, "drain", "--data", node.data], capture_output=True, text=True, timeout=END_S)
        assert result.returncode == 0, result.stderr
        assert five.packet()[0] == 0xe0
        assert ended(node) == 0
    result = subprocess.run([PROGRAM, "drain", "--data", node.data], capture_output=True, text=True, timeout=END_S)
    assert result.returncode == 69 and "no node runs on" in result.stderr
