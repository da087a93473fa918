#!/usr/bin/python3
"""The first table of docs/PERFORMANCE.md: deliveries per second of server CPU, Tidegate beside a bare epoll server and
mosquitto, in turn within one run, so that a noisy machine disturbs all of them alike.

  tests/bench/run.py [--build build/release] [--seconds 2] [--rounds 3] [--only NAME]

Needs a configured release build (./dev build release; this builds its bench targets) and Debian's mosquitto
(tools/packages.sh install bench). Loads 127.0.0.1 only."""

import argparse
import json
import os
import pathlib
import shutil
import socket
import statistics
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]

# name, mode, protocol of subscribers, subscribers, publishers, QoS, window, messages a second (0: window), wanted ratio
CASES = [
    ("fan-out 1 to 1,000, MQTT QoS 0, window 16", "fanout", "mqtt", 1000, 1, 0, 16, 0, 0.85),
    ("fan-out 1 to 1,000, WebSocket, window 16", "fanout", "ws", 1000, 1, 0, 16, 0, 0.7),
    ("fan-out 1 to 1,000 at 20 a second, MQTT", "fanout", "mqtt", 1000, 1, 0, 1, 20, 0.9),
    ("fan-out 1 to 1,000 at 20 a second, WebSocket", "fanout", "ws", 1000, 1, 0, 1, 20, None),
    ("fan-out 1 to 9,000, MQTT QoS 0, window 16", "fanout", "mqtt", 9000, 1, 0, 16, 0, 0.85),
    ("one-to-one, 500 pairs, MQTT QoS 0, window 8", "pairs", "mqtt", 500, 500, 0, 8, 0, 0.6),
    ("one-to-one, 500 pairs, MQTT to WebSocket, window 8", "pairs", "ws", 500, 500, 0, 8, 0, None),
    ("one-to-one, 500 pairs, MQTT QoS 1 durable, window 8", "pairs", "mqtt", 500, 500, 1, 8, 0, None),
    ("fan-in 500 to 1, MQTT QoS 0, window 8", "fanin", "mqtt", 1, 500, 0, 8, 0, 0.7),
]


def wait_port(port, process):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        assert process.poll() is None, "the server ended"
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise TimeoutError(port)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Bare:
    name = "bare"

    def __init__(self, build, mode, folder):
        self.mqtt, self.ws = free_port(), free_port()
        self.process = subprocess.Popen([build / "tests/bench.bare", mode, str(self.mqtt), str(self.ws)],
                                        stdout=subprocess.DEVNULL)
        wait_port(self.ws, self.process)


class Tidegate:
    name = "tidegate"

    def __init__(self, build, mode, folder, loops=1):
        data = folder / "data"
        shutil.rmtree(data, ignore_errors=True)
        self.process = subprocess.Popen(
            [build / "tidegate", "serve", "--set", f"data.dir={data}", "--set", "mqtt.port=0", "--set", "http.port=0",
             "--set", "api.port=0", "--set", f"node.loops={loops}", "--set", "log.recent_bytes=4M"],
            stderr=open(folder / "tidegate.log", "w"))
        deadline = time.monotonic() + 20
        while not (data / "ports").exists():
            assert self.process.poll() is None and time.monotonic() < deadline, "tidegate did not start"
            time.sleep(0.02)
        ports = dict(line.split("=") for line in (data / "ports").read_text().split())
        self.mqtt, self.ws = int(ports["mqtt"]), int(ports["http"])


class Mosquitto:
    name = "mosquitto"

    def __init__(self, build, mode, folder):
        self.mqtt, self.ws = free_port(), 0
        conf = folder / "mosquitto.conf"
        conf.write_text(f"listener {self.mqtt} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n"
                        "max_inflight_messages 0\nset_tcp_nodelay true\n")
        self.process = subprocess.Popen(["/usr/sbin/mosquitto", "-c", conf], stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        wait_port(self.mqtt, self.process)


def measure(kind, build, case, folder, seconds):
    _, mode, proto, subs, pubs, qos, window, rate, _ = case
    server = kind(build, mode, folder)
    try:
        port = server.mqtt if proto == "mqtt" else server.ws
        done = subprocess.run(
            [build / "tests/bench.load", mode, proto, str(port), str(server.mqtt), str(subs), str(pubs), str(qos), str(window),
             str(seconds), str(server.process.pid)] + ([str(rate)] if rate else []),
            capture_output=True, text=True, timeout=seconds + 60)
        if done.returncode != 0:
            raise RuntimeError(f"{kind.name}: {done.stderr.strip()}")
        return json.loads(done.stdout)
    finally:
        server.process.terminate()
        server.process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default=str(ROOT / "build/release"))
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="part of a case's name")
    parser.add_argument("--no-mosquitto", action="store_true")
    options = parser.parse_args()
    build = pathlib.Path(options.build).resolve()
    subprocess.run(["cmake", "--build", build, "--target", "tidegate", "bench.load", "bench.bare"], check=True,
                   stdout=subprocess.DEVNULL)
    print("| case | bare epoll /CPU s | Tidegate /CPU s | ratio | wanted | mosquitto /CPU s | Tidegate msgs/s wall |")
    print("|---|---|---|---|---|---|---|")
    for case in CASES:
        if options.only not in case[0]:
            continue
        kinds = [Bare, Tidegate] + ([Mosquitto] if case[2] == "mqtt" and not options.no_mosquitto else [])
        figures = {kind.name: [] for kind in kinds}
        walls = []
        with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as name:
            for _ in range(options.rounds):
                for kind in kinds:
                    result = measure(kind, build, case, pathlib.Path(name), options.seconds)
                    figures[kind.name].append(result["per_cpu_s"])
                    if kind is Tidegate:
                        walls.append(result["per_s"])
        ratios = [t / b for t, b in zip(figures["tidegate"], figures["bare"])]
        show = {k: f"{statistics.median(v) / 1000:,.0f} k" for k, v in figures.items()}
        print(f"| {case[0]} | {show['bare']} | {show['tidegate']} | {statistics.median(ratios):.2f} "
              f"({min(ratios):.2f} to {max(ratios):.2f}) | {case[8] if case[8] else '-'} | {show.get('mosquitto', '-')} | "
              f"{statistics.median(walls) / 1000:,.0f} k |", flush=True)


main()
