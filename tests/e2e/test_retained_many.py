"""A great many retained topics: published, brought to new subscribers of both protocols while others go on, cleared, expired,
and the same after a restart. The full run has a million: TIDEGATE_RETAINED=1000000 (docs/PERFORMANCE.md); figures are printed
(pytest -s)."""

import os
import select
import statistics
import subprocess
import sys
import threading
import time

import pytest

from clients import Web, curl
from mqtt_wire import Wire, publish as publish_packet
from node import PATIENCE, Node, wait_until

COUNT = int(os.environ.get("TIDEGATE_RETAINED", 20000))
CLEARED, EXPIRING = COUNT // 10, COUNT // 20
WAIT_S = (60 + COUNT // 5000) * PATIENCE


def topic(number):
    return f"many/{number % 100}/{number}"


class Latency(threading.Thread):
    """One message at a time, from a publisher to a subscriber, by a process of its own: this one is busy with counting."""

    def __init__(self, node):
        super().__init__(daemon=True)
        self.samples = []
        self.process = subprocess.Popen([sys.executable, __file__, str(node.ports["mqtt"])], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)
        self.start()

    def run(self):
        for line in self.process.stdout:
            self.samples.append(float(line))

    def take(self):
        samples, self.samples = self.samples, []
        return samples

    def stop(self):
        self.process.stdin.close()
        assert self.process.wait(WAIT_S) == 0
        self.join(WAIT_S)


def tick(port):
    """That process: a line for each message, until its input ends."""
    node = Node("/nowhere")
    node.ports = {"mqtt": port}
    with Wire(node, 5, "ticker") as wire, Wire(node, 5, "reader") as reader:
        reader.subscribe("tick")
        while not select.select([sys.stdin], [], [], 0.005)[0]:
            began = time.monotonic()
            wire.send(publish_packet("tick", b"x"))
            reader.message()
            print(time.monotonic() - began, flush=True)


def tail(samples):
    ordered = sorted(samples)
    return (f"median {statistics.median(ordered) * 1000:.1f} ms, 99 % {ordered[len(ordered) * 99 // 100] * 1000:.1f} ms, "
            f"longest {ordered[-1] * 1000:.1f} ms of {len(ordered)}")


def set_all(node, numbers, payload, props=b""):
    """QoS 0 in large pieces; retained all the same. A QoS 1 publish behind them says that all are in."""
    with Wire(node, 5, "setter") as wire:
        piece = bytearray()
        for number in numbers:
            piece += publish_packet(topic(number), f"{number}".encode() if payload else b"", flags=1, props=props)
            if len(piece) > 60000:
                wire.send(bytes(piece))
                piece.clear()
        wire.send(bytes(piece))
        assert wire.publish("done", b"x") == 0


def web_all(node, want):
    """What a new WebSocket subscriber of everything gets first: seconds."""
    began = time.monotonic()
    seen = set()
    with Web(node, hello={"window": {"msgs": 5000}}) as web:
        replay = web.subscribe("many/#")["replay"]
        while True:
            item = web.event(WAIT_S)
            if "live" in item:
                break
            if "msg" not in item:
                continue
            message = item["msg"]
            assert message["retained"] and message["topic"] not in seen and message["topic"].endswith("/" + message["text"])
            seen.add(message["topic"])
            if len(seen) % 2500 == 0:
                web.post({"credit": {"msgs": 2500}})
    assert len(seen) <= replay and seen == want, (len(seen), len(want), replay)
    return time.monotonic() - began


def mqtt_all(node, want):
    began = time.monotonic()
    seen = set()
    with Wire(node, 5, "all") as wire:
        wire.subscribe(("many/#", 0))
        while len(seen) < len(want):
            message = wire.message()
            assert message.retained and message.topic not in seen and message.topic.endswith("/" + message.payload.decode())
            seen.add(message.topic)
    assert seen == want
    return time.monotonic() - began


@pytest.mark.deadline(240 + COUNT // 500)
def test_all_of_them_come(make_node):
    node = make_node({"node.loops": 1, "log.partitions": 4, "limit.retained": COUNT, "limit.retained_bytes": "1G",
                      "logging.level": "info"}, keep_ports=True)
    empty = node.rss_bytes()
    began = time.monotonic()
    set_all(node, range(COUNT), True)
    print(f"\n{COUNT} retained topics set in {time.monotonic() - began:.1f} s")
    wait_until(lambda: node.metric("tidegate_retained_messages") == COUNT, "all of them", WAIT_S)
    full = node.rss_bytes()
    print(f"memory {empty >> 20} MiB empty, {full >> 20} MiB with them: {(full - empty) / COUNT:.0f} bytes each")

    ticker = Latency(node)
    wait_until(lambda: len(ticker.samples) > 200, "samples", WAIT_S)
    print(f"quiet: {tail(ticker.take())}")
    want = {topic(number) for number in range(COUNT)}
    print(f"WebSocket: all in {web_all(node, want):.1f} s; meanwhile {tail(ticker.take())}")
    print(f"MQTT: all in {mqtt_all(node, want):.1f} s; meanwhile {tail(ticker.take())}")
    most = node.rss_bytes()
    print(f"memory {most >> 20} MiB after both")
    # A subscriber costs its queue and what is being read, not what is retained.
    assert most - full < (64 << 20) * PATIENCE
    ticker.stop()

    # Some are cleared, some expire; what is left is the same before and after a restart, clean or not.
    set_all(node, range(CLEARED), False)
    set_all(node, range(CLEARED, CLEARED + EXPIRING), True, props=b"\x02\x00\x00\x00\x01")
    left = {topic(number) for number in range(CLEARED + EXPIRING, COUNT)}
    wait_until(lambda: node.metric("tidegate_retained_messages") == len(left), "the others to go", WAIT_S)
    web_all(node, left)
    for end in (node.kill9, node.stop):
        end()
        began = time.monotonic()
        node.restart()
        print(f"started again in {time.monotonic() - began:.1f} s ({end.__name__})")
        mqtt_all(node, left)
        web_all(node, left)
    gone = curl(node.api(f"/v1/retained/{topic(0)}")).json()["messages"]
    assert gone == [] and node.metric("tidegate_retained_messages") == len(left)


if __name__ == "__main__":
    tick(int(sys.argv[1]))
