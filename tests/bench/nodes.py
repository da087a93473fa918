#!/usr/bin/python3
"""What a log on Kafka costs, with one node and with three, beside a node with a log of its own. In turn, in one run.

  tests/bench/nodes.py [--build build/release] [--rounds 3] [--brokers 1]

latency   one message at a time, QoS 1: until its PUBACK, and until a subscriber has it, at the same node and (three nodes)
          at another one
cost      messages of 200 bytes, QoS 1, 200 under way: server CPU a message of the node that is published to, of a node that
          only reads, with and without a subscriber there; and bytes that its mirror writes for each byte of payload

Needs a configured release build. Loads 127.0.0.1 only."""

import argparse
import os
import pathlib
import secrets
import socket
import statistics
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/e2e"), str(ROOT / "tools/kafka"), str(ROOT / "tests/bench")]

import behind  # noqa: E402
import mqtt_wire as mqtt  # noqa: E402
from brokers import Brokers  # noqa: E402

LATENCY_COUNT, COST_COUNT, WINDOW, PAYLOAD = 400, 200000, 200, bytes(200)


class Server(behind.Server):
    def cpu_s(self):
        """Of all its threads: librdkafka has some of its own."""
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def written(self):
        return int(pathlib.Path(f"/proc/{self.process.pid}/io").read_text().split("\nwrite_bytes: ")[1].split()[0])

    def connect(self, door, _receive=None):
        made = socket.create_connection(("127.0.0.1", self.ports[door]))
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.settimeout(60)
        return made


def wait_ready(server):
    import urllib.request
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{server.ports['api']}/readyz").close()
            return server
        except OSError:
            assert time.monotonic() < deadline, "not ready"
            time.sleep(0.05)


def start(build, folder, brokers, count):
    """`count` 0: one node with a log of its own."""
    if count == 0:
        return [wait_ready(Server(build, folder))]
    log = {"log.backend": "kafka", "kafka.brokers": brokers.servers(), "kafka.prefix": f"b{secrets.token_hex(4)}",
           "kafka.replication": brokers.count, "kafka.min_isr": min(2, brokers.count), "kafka.accept_less": "true", "log.partitions": 4}
    return [wait_ready(Server(build, folder, **log, **{"node.id": f"n{i}"})) for i in range(count)]


def latency(servers):
    """(PUBACK, delivery) in ms."""
    speaker, hearer = mqtt.Wire(servers[0]), mqtt.Wire(servers[-1])
    hearer.subscribe(("l", 0))
    acked, heard = [], []
    for number in range(LATENCY_COUNT + 50):
        began = time.perf_counter()
        speaker.publish("l", PAYLOAD, 1)
        acked.append(time.perf_counter() - began)
        hearer.message()
        heard.append(time.perf_counter() - began)
    speaker.close()
    hearer.close()
    return acked[50:], heard[50:]


def flood(server, count):
    """Publishes with WINDOW under way until all are acknowledged."""
    wire = server.connect("mqtt")
    wire.sendall(mqtt.connect(5, f"f{secrets.token_hex(4)}"))
    wire.recv(1000)
    one = [mqtt.publish(f"c/{number % 16}", PAYLOAD, 1, number + 1) for number in range(WINDOW)]
    block, got = b"".join(one), 0
    for _ in range(count // WINDOW):
        wire.sendall(block)
        left = 4 * WINDOW  # a PUBACK of 5.0 without a reason
        while left:
            left -= len(wire.recv(left))
    wire.close()


def cost(servers, subscribed):
    """CPU a message in us of each, and bytes written by the last for a byte of payload."""
    hearer = mqtt.Wire(servers[-1]) if subscribed else None
    if hearer:
        hearer.subscribe(("c/#", 0))
        hearer.socket.settimeout(60)
    flood(servers[0], 2000)
    before, wrote = [server.cpu_s() for server in servers], servers[-1].written()
    import threading
    def hear():
        try:
            while hearer.socket.recv(1 << 18):
                pass
        except OSError:
            pass
    if hearer:
        threading.Thread(target=hear, daemon=True).start()
    began = time.monotonic()
    flood(servers[0], COST_COUNT)
    took = time.monotonic() - began
    time.sleep(0.5)  # the others read what is left; all of it is counted
    used = [(server.cpu_s() - was) / COST_COUNT * 1e6 for server, was in zip(servers, before)]
    if hearer:
        hearer.socket.shutdown(socket.SHUT_RDWR)
    return used, (servers[-1].written() - wrote) / COST_COUNT / len(PAYLOAD), COST_COUNT / took


def median(values):
    return statistics.median(values)


def main():
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--build", default="build/release", type=pathlib.Path)
    words.add_argument("--rounds", default=3, type=int)
    words.add_argument("--brokers", default=1, type=int)
    words = words.parse_args()
    brokers = Brokers(count=words.brokers).join()
    kinds = {"own log": 0, "kafka, 1 node": 1, "kafka, 3 nodes": 3}
    seen = {name: {} for name in kinds}
    with tempfile.TemporaryDirectory() as folder:
        running = {name: start(words.build, folder, brokers, count) for name, count in kinds.items()}
        try:
            for number in range(words.rounds):
                for name, servers in running.items():
                    acked, heard = latency(servers)
                    plain, wrote, rate = cost(servers, False)
                    heavy, _, _ = cost(servers, True)
                    for key, value in {"PUBACK p50 ms": median(acked) * 1e3, "PUBACK p99 ms": behind.percent(acked, 0.99),
                                       "delivery p50 ms": median(heard) * 1e3, "delivery p99 ms": behind.percent(heard, 0.99),
                                       "publisher's node us": plain[0], "a reader's node us": plain[-1],
                                       "with a subscriber us": heavy[-1], "written": wrote, "a second": rate}.items():
                        seen[name].setdefault(key, []).append(value)
                    print(f"round {number + 1} {name}: " + ", ".join(f"{key} {values[-1]:.2f}" for key, values in seen[name].items()),
                          flush=True)
        finally:
            for servers in running.values():
                for server in servers:
                    server.end()
            brokers.leave()
    keys = list(next(iter(seen.values())))
    print("\n| | " + " | ".join(keys) + " |\n|---|" + "---|" * len(keys))
    for name, values in seen.items():
        print(f"| {name} | " + " | ".join(f"{median(values[key]):.2f}" for key in keys) + " |")


if __name__ == "__main__":
    main()
