#!/usr/bin/python3
"""What those that are behind cost those that are not. Each pair of figures is made in one run, in turn, so that a noisy
machine disturbs both alike.

  tests/bench/behind.py [--build build/release] [--rounds 3] [--records 1000000]

stopped   one WebSocket subscriber among 1,000 MQTT ones stops reading: the others' deliveries a second of server CPU and the
          node's memory beside a round without it; then it reads on, and must get every message that it is owed, once.
tail      a reader of a million records while 2,000 messages a second are published: their latency beside a quiet time.
share     four readers of a million records each while a fan-out keeps the loop busy: which part of its time they get, with
          out.catchup_percent at 10, 25 (the default) and 60, and what that leaves of the fan-out.

Needs a configured release build. Loads 127.0.0.1 only."""

import argparse
import json
import os
import pathlib
import re
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/model"), str(ROOT / "tests/e2e")]

from wire import Mqtt, Web, turn  # noqa: E402

TAIL_RATE, TAIL_STEP_S, TAIL_S = 2000, 0.005, 3


class Server:
    def __init__(self, build, folder, **settings):
        self.data = pathlib.Path(tempfile.mkdtemp(dir=folder)) / "data"
        settings = {"mqtt.port": 0, "http.port": 0, "api.port": 0, "node.loops": 1, "logging.level": "error",
                    "limit.lag_messages": 0, **settings}
        command = [build / "tidegate", "serve", "--set", f"data.dir={self.data}"]
        for key, value in settings.items():
            command += ["--set", f"{key}={value}"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while not (self.data / "ports").exists():
            assert self.process.poll() is None and time.monotonic() < deadline, "tidegate did not start"
            time.sleep(0.02)
        self.ports = {k: int(v) for k, v in (line.split("=") for line in (self.data / "ports").read_text().split())}

    def metric(self, name):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports['api']}/metrics") as answer:
            return float(re.search(rf"^{name} (\S+)$", answer.read().decode(), re.M)[1])

    def memory(self):
        """Bytes of its own: what it maps of files is the page cache's."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"RssAnon:\s+(\d+) kB", status)[1]) * 1024

    def cpu_s(self):
        """Of its loop: the process's first other thread is found by its being the busiest."""
        ticks = 0
        for task in pathlib.Path(f"/proc/{self.process.pid}/task").iterdir():
            fields = (task / "stat").read_text().rsplit(")", 1)[1].split()
            ticks = max(ticks, int(fields[11]) + int(fields[12]))
        return ticks / os.sysconf("SC_CLK_TCK")

    def end(self):
        self.process.terminate()
        self.process.wait()


def load(build, server, seconds, subscribers=1000, window=16):
    done = subprocess.run([build / "tests/bench.load", "fanout", "mqtt", str(server.ports["mqtt"]), str(server.ports["mqtt"]),
                           str(subscribers), "1", "0", str(window), str(seconds), str(server.process.pid)],
                          capture_output=True, text=True, timeout=seconds + 60, check=True)
    return json.loads(done.stdout)


def fill(server, count, topic=b"past", batch=20000):
    """QoS 0 in batches; what is acknowledged behind each says that the log has it."""
    client = socket.create_connection(("127.0.0.1", server.ports["mqtt"]))
    client.sendall(b"\x10\x10\0\4MQTT\4\2\0\0\0\4fill")
    assert client.recv(4) == b"\x20\2\0\0"
    name = struct.pack(">H", len(topic)) + topic
    body = name + b"x" * 130  # 136: two bytes of length
    one = b"\x30" + bytes([len(body) & 0x7F | 0x80, len(body) >> 7]) + body
    last = b"\x32" + bytes([len(name) + 3]) + name + b"\0\1x"
    for _ in range(count // batch):
        client.sendall(one * (batch - 1) + last)
        assert client.recv(4, socket.MSG_WAITALL) == b"\x40\2\0\1"
    client.close()


class Drain(threading.Thread):
    """Reads a topic from its beginning as fast as it comes, without looking at it, until it is live."""

    def __init__(self, server, again=False):
        super().__init__(daemon=True)
        self.server, self.again, self.halt, self.bytes = server, again, False, 0

    def run(self):
        while True:
            web = Web(self.server.ports["http"], None)
            web.request({"sub": {"topic": "past", "from": "earliest"}})
            web.socket.settimeout(30)
            last = b""
            while not self.halt:
                data = web.socket.recv(1 << 18)
                self.bytes += len(data)
                if b'{"live"' in last[-40:] + data[-200:] or not data:
                    break
                last = data
            web.close()
            if self.halt or not self.again:
                return


def percent(values, share):
    return sorted(values)[int(len(values) * share)] * 1e3


# --- stopped ---------------------------------------------------------------------------------------------------

def stopped(build, folder, rounds):
    server = Server(build, folder)
    load(build, server, 1)
    quiet, beside, memory = [], [], []
    for _ in range(rounds):
        quiet.append(load(build, server, 1.5)["per_cpu_s"])
        before = server.memory()
        got = []
        web = Web(server.ports["http"], lambda item: got.append(item["msg"]["pos"]) if "msg" in item else None)
        number = web.request({"sub": {"topic": "#", "from": "live"}})
        while number not in web.answers:
            turn([web], 1)
        stored = server.metric("tidegate_log_records_total")
        beside.append(load(build, server, 1.5)["per_cpu_s"])
        owed = server.metric("tidegate_log_records_total") - stored
        memory.append(server.memory() - before)
        deadline = time.monotonic() + 60
        while len(got) < owed and time.monotonic() < deadline:
            turn([web], 1)
        assert len(got) == owed and got == sorted(set(got)), f"{len(got)} of {owed}"
        web.close()
    server.end()
    ratios = [b / q for b, q in zip(beside, quiet)]
    print(f"| deliveries to 1,000 a server CPU second | {statistics.median(quiet) / 1e3:,.0f} k | "
          f"{statistics.median(beside) / 1e3:,.0f} k | {statistics.median(ratios):.2f} "
          f"({min(ratios):.2f} to {max(ratios):.2f}) |")
    print(f"| memory with one stopped reader, owed {owed:,.0f} messages and getting each once | | | "
          f"{statistics.median(memory) / 1024:+,.0f} KiB |", flush=True)


# --- tail ------------------------------------------------------------------------------------------------------

def tail_latency(server, until):
    """Of messages at TAIL_RATE a second, publish to delivery, while `until` says false."""
    seen = []
    subscriber = Mqtt(server.ports["mqtt"], "tail", lambda _t, payload, _r: seen.append(
        time.perf_counter() - struct.unpack("d", payload[:8])[0]))
    publisher = Mqtt(server.ports["mqtt"], "source", None)
    subscriber.subscribe("tail", 0)
    while not (subscriber.answered and publisher.connected):
        turn([subscriber, publisher], 1)
    due = time.perf_counter()
    while not until():
        while time.perf_counter() < due:
            turn([subscriber, publisher], max(0, due - time.perf_counter()))
        for _ in range(int(TAIL_RATE * TAIL_STEP_S)):
            publisher.publish("tail", struct.pack("d", time.perf_counter()) + b"x" * 120, 0, False)
        due += TAIL_STEP_S
    end = time.perf_counter() + 0.2
    while time.perf_counter() < end:
        turn([subscriber, publisher], 0.05)
    subscriber.close()
    publisher.close()
    return seen


def tail(build, folder, rounds, records):
    server = Server(build, folder)
    fill(server, records)
    rows = {"quiet": [], "behind": []}
    took = []
    for _ in range(rounds):
        end = time.monotonic() + TAIL_S
        rows["quiet"] += tail_latency(server, lambda: time.monotonic() > end)
        drain = Drain(server)
        began = time.monotonic()
        drain.start()
        rows["behind"] += tail_latency(server, lambda: not drain.is_alive())
        took.append(time.monotonic() - began)
    server.end()
    for share in (0.5, 0.99):
        q, b = (percent(rows[name], share) for name in ("quiet", "behind"))
        print(f"| latency of the tail, {share:.0%} below | {q:.2f} ms | {b:.2f} ms | {b / q:.1f} |")
    print(f"| one reader of {records:,} records, {records / statistics.median(took) / 1e3:,.0f} k/s | | "
          f"{statistics.median(took):.1f} s | |", flush=True)


# --- share -----------------------------------------------------------------------------------------------------

def share(build, folder, rounds, records):
    for wanted in (10, 25, 60):
        server = Server(build, folder, **{"out.catchup_percent": wanted})
        fill(server, records)
        quiet, beside, shares = [], [], []
        for _ in range(rounds):
            quiet.append(load(build, server, 1.5)["per_s"])
            drains = [Drain(server, again=True) for _ in range(4)]
            for drain in drains:
                drain.start()
            time.sleep(0.2)
            spent, cpu = server.metric("tidegate_catchup_seconds_sum"), server.cpu_s()
            beside.append(load(build, server, 1.5)["per_s"])
            shares.append((server.metric("tidegate_catchup_seconds_sum") - spent) / (server.cpu_s() - cpu))
            for drain in drains:
                drain.halt = True
            for drain in drains:
                drain.join()
        server.end()
        ratios = [b / q for b, q in zip(beside, quiet)]
        print(f"| out.catchup_percent {wanted}: time of a busy loop for four readers | - | "
              f"{statistics.median(shares):.0%} | fan-out at {statistics.median(ratios):.2f} "
              f"({min(ratios):.2f} to {max(ratios):.2f}) |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default=str(ROOT / "build/release"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--records", type=int, default=1000000)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    build = pathlib.Path(options.build).resolve()
    subprocess.run(["cmake", "--build", build, "--target", "tidegate", "bench.load"], check=True, stdout=subprocess.DEVNULL)
    print("| | without | with those behind | ratio |\n|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
        if options.only in "stopped":
            stopped(build, folder, options.rounds)
        if options.only in "tail":
            tail(build, folder, options.rounds, options.records)
        if options.only in "share":
            share(build, folder, options.rounds, options.records)


if __name__ == "__main__":
    main()
