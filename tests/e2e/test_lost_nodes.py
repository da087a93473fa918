"""A node that is lost: with a log on Kafka and a directory in Redis the others declare it dead when its lease has run out. It
was only frozen? Then nothing that it still writes counts; its clients are told to go, and it is started again."""

import signal
import struct
from pathlib import Path

import pytest

from clients import Web, curl, history, publish
from mqtt_wire import DISCONNECT, PUBACK, End, Wire
from mqtt_wire import publish as mqtt_publish
from node import STOP_S, kafka_settings, wait_until
from redis_server import Redis
from test_directory import FAST, fresh
from test_mqtt_five import will_rest
from test_mqtt_sessions import DELAY, expiry, keep, present

LANES = 4


@pytest.fixture
def redis(tmp_path):
    server = Redis(tmp_path).start()
    yield server
    server.stop()


@pytest.fixture
def cluster(make_node, kafka, redis):
    """Makes nodes of one log and one directory."""
    def make(name):
        return make_node({**kafka_settings(kafka.servers(), kafka.prefix, kafka.brokers.count), **FAST, "log.partitions": LANES,
                          "directory.redis.url": redis.url(), "node.id": name, "node.loops": 2})
    return make


def declared(node):
    return node.metric("tidegate_nodes_down_proposed_total")


def texts(node, topic):
    return [item["text"] for item in history(node, topic, "earliest")]


def freeze(node):
    node.process.send_signal(signal.SIGSTOP)
    threads = Path(f"/proc/{node.pid}/task")
    wait_until(lambda: all(stat.read_text().rsplit(") ", 1)[1][0] == "T" for stat in threads.glob("*/stat")), "all its threads to stand still")


def end_of(wire):
    """The code of the DISCONNECT that ends it; answers to what is void may come before."""
    while True:
        first, body = wire.packet()
        if first >> 4 == DISCONNECT:
            return body[0]
        assert first >> 4 == PUBACK and len(body) > 2 and body[2] >= 0x80, f"packet {first:02x} {body.hex()} for what does not count"


def test_a_frozen_node_is_declared_dead_and_changes_nothing(cluster):
    a, b = cluster("a"), cluster("b")
    fresh(a, b)
    moves, stays, web = keep(b, 5, "moves"), Wire(b, 5, "stays"), Web(b)
    assert moves.subscribe(("m/#", 1)) == b"\x01"
    for i in range(8):
        assert stays.publish(f"before/{i}", b"x", 1 + i) == 0
    freeze(b)
    for i in range(8):  # they wait in its sockets
        stays.send(mqtt_publish(f"late/{i}", b"late", 1, 20 + i))
    wait_until(lambda: declared(a) >= LANES, "the node to be declared dead in each partition")
    wait_until(lambda: any("node is declared dead" in line and "node=b" in line for line in a.stderr), "the log to say so")
    moved = keep(a, 5, "moves")
    assert present(moved)
    publish(a, "m/1", b"1")
    assert moved.message().payload == b"1"

    b.process.send_signal(signal.SIGCONT)
    assert end_of(stays) == 0x8B
    assert web.close_code() == 4000
    web.close()
    with pytest.raises(End):
        while True:
            moves.packet()
    assert b.process.wait(STOP_S) == 75
    b.collector.join(STOP_S)
    assert any("another node has declared this one dead" in line for line in b.stderr)
    b.restart()
    for i in range(8):
        assert texts(a, f"late/{i}") == [], "what it has written since does not count"
    publish(b, "m/2", b"2")
    assert moved.message().payload == b"2"
    moved.ping()
    moved.close()
    back = keep(b, 5, "moves")
    assert present(back)
    back.close()


def test_a_silent_node_is_declared_dead_in_every_partition(cluster):
    a, b = cluster("a"), cluster("b")
    fresh(a, b)
    b.kill9()
    wait_until(lambda: declared(a) >= LANES, "the node to be declared dead in each partition")


def test_nobody_is_declared_dead_because_redis_is_new(cluster, redis):
    a, b = nodes = cluster("a"), cluster("b")
    fresh(a, b)
    redis.stop()
    for node in nodes:
        wait_until(lambda node=node: curl(node.api("/readyz")).json().get("degraded") == ["directory"], "Redis to be missed")
    redis.start()
    fresh(a, b)
    assert [declared(node) for node in nodes] == [0, 0]


def leaves(node, client, topic, delay_s=0, session_s=600):
    return Wire(node, 5, client, flags=0x0C, props=expiry(session_s), rest=will_rest(topic, b"gone", 5, DELAY + struct.pack(">I", delay_s)))


def test_wills_of_a_lost_node_are_published_once(cluster):
    """By the living, after NODE_DOWN: each of those that are due once, and none whose client is back in time."""
    a, b, c = cluster("a"), cluster("b"), cluster("c")
    fresh(a, b, c)
    due = {"w/now": leaves(b, "now", "w/now"), "w/short": leaves(b, "short", "w/short", session_s=0),
           "w/later": leaves(b, "later", "w/later", 2), "w/ends": leaves(b, "ends", "w/ends", 3600, 1)}
    comes = leaves(b, "back", "w/back", 3600)
    waits = leaves(b, "waits", "w/waits", 3600)
    b.kill9()
    for topic in due:
        for node in (a, c):
            wait_until(lambda topic=topic, node=node: texts(node, topic) == ["gone"], f"the will {topic}")
    with keep(a, 5, "back") as back:
        assert present(back), "the session lives on"
        with Wire(c, 5, "ends", props=expiry(1)) as ended:
            assert not present(ended), "the session has expired"
        b.restart()
        fresh(a, b, c)
        assert {topic: texts(node, topic) for topic in [*due, "w/back", "w/waits"] for node in (a, b, c)} == {
            **{topic: ["gone"] for topic in due}, "w/back": [], "w/waits": []}
    for wire in [*due.values(), comes, waits]:
        wire.close()
