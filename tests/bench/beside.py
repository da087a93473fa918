#!/usr/bin/python3
"""MQTT beside mosquitto: the section of that name in docs/PERFORMANCE.md. Both serve the same clients in turn within each round;
what is compared is the server's CPU.

  tests/bench/beside.py [--build build/release] [--seconds 1] [--rounds 5] [--only PART] [--sessions 100000] [--filters 1000000]

Needs a release build (./dev build release; this builds its client) and Debian's mosquitto (tools/packages.sh install bench).
Loads 127.0.0.0/8 only."""

import argparse
import json
import os
import pathlib
import resource
import select
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
AT_ONCE = 200
LOADS = [(f"{name}, QoS {qos}", mode, subs, pubs, qos, window)
         for name, mode, subs, pubs, window in (("one-to-one, 500 pairs, window 8", "pairs", 500, 500, 8),
                                                ("fan-out 1 to 1,000, window 16", "fanout", 1000, 1, 16))
         for qos in (0, 1, 2)]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    def cpu_s(self):
        # The scheduler's account in nanoseconds, of all threads.
        tasks = pathlib.Path(f"/proc/{self.process.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

    def memory(self):
        for row in pathlib.Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines():
            if row.startswith("Pss_Anon:"):
                return int(row.split()[1]) * 1024
        raise AssertionError("no Pss_Anon")

    def wait(self, there):
        deadline = time.monotonic() + 30
        while not there():
            assert self.process.poll() is None and time.monotonic() < deadline, f"{self.name} did not start"
            time.sleep(0.02)

    def end(self):
        self.process.kill()
        self.process.wait()


class Tidegate(Server):
    name = "tidegate"

    def __init__(self, build, folder):
        data = folder / "data"
        shutil.rmtree(data, ignore_errors=True)
        settings = {"data.dir": data, "mqtt.port": 0, "http.port": 0, "api.port": 0, "node.loops": 1, "log.recent_bytes": "4M",
                    "demo.dir": "", "limit.subscriptions": 100000, "limit.sessions": 1000000, "limit.sessions_bytes": "1G"}
        words = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
        self.process = subprocess.Popen([build / "tidegate", "serve", *words], stderr=open(folder / "tidegate.log", "w"))
        self.wait((data / "ports").exists)
        self.port = int(dict(row.split("=") for row in (data / "ports").read_text().split())["mqtt"])


class Mosquitto(Server):
    name = "mosquitto"

    def __init__(self, build, folder):
        self.port = free_port()
        (folder / "mosquitto.conf").write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nmax_inflight_messages 0\n"
            "set_tcp_nodelay true\n")
        self.process = subprocess.Popen(["/usr/sbin/mosquitto", "-c", folder / "mosquitto.conf"], stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        self.wait(self.listens)

    def listens(self):
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", self.port)) == 0


KINDS = [Tidegate, Mosquitto]

# --- clients ----------------------------------------------------------------------------------------------------------


def text(value):
    value = value.encode()
    return struct.pack(">H", len(value)) + value


def packet(first, body=b""):
    length, size = b"", len(body)
    while True:
        size, byte = size >> 7, size & 0x7F
        length += bytes([byte | (0x80 if size else 0)])
        if not size:
            return bytes([first]) + length + body


def connect(name, clean=True):
    return packet(0x10, text("MQTT") + bytes([4, 2 * clean, 0, 0]) + text(name))


def subscribe(*filters, qos=0):
    return packet(0x82, b"\0\1" + b"".join(text(name) + bytes([qos]) for name in filters))


def publish(topic, payload=bytes(128), qos=0, number=1):
    return packet(0x30 | qos << 1, text(topic) + (struct.pack(">H", number) if qos else b"") + payload)


def dial(server):
    s = socket.create_connection(("127.0.0.1", server.port))
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s


def hear(sockets, count):
    """Until each has got so many bytes."""
    got = {s: b"" for s in sockets}
    waiting = set(sockets)
    poll = select.poll()
    by_fd = {s.fileno(): s for s in sockets}
    for s in sockets:
        poll.register(s, select.POLLIN)
    while waiting:
        ready = poll.poll(60000)
        assert ready, f"{len(waiting)} clients wait in vain"
        for fd, _ in ready:
            s = by_fd[fd]
            data = s.recv(65536)
            assert data, "the server closed"
            got[s] += data
            if len(got[s]) >= count and s in waiting:
                waiting.discard(s)
                poll.unregister(s)
    return got


def come(server, names, clean=True):
    """Clients, AT_ONCE at a time; CONNACK is 4 bytes."""
    sockets = []
    for start in range(0, len(names), AT_ONCE):
        batch = [dial(server) for _ in names[start:start + AT_ONCE]]
        for s, name in zip(batch, names[start:]):
            s.sendall(connect(name, clean))
        hear(batch, 4)
        sockets += batch
    return sockets


def go(sockets):
    for s in sockets:
        s.sendall(b"\xe0\0")
        s.close()


def ask(s, data, size):
    s.sendall(data)
    hear([s], size)

# --- parts: each returns figures by name, of one server ---------------------------------------------------------------


def loads(kind, build, folder, options):
    found = {}
    for name, mode, subs, pubs, qos, window in LOADS:
        server = kind(build, folder)
        try:
            done = subprocess.run([build / "tests/bench.load", mode, "mqtt", str(server.port), str(server.port), str(subs), str(pubs),
                                   str(qos), str(window), str(options.seconds), str(server.process.pid)],
                                  capture_output=True, text=True, timeout=options.seconds + 120)
            if done.returncode != 0:
                raise RuntimeError(f"{kind.name}: {done.stderr.strip()}")
            result = json.loads(done.stdout)
            found[f"{name}: us a delivery"] = 1e6 * result["cpu_s"] / max(1, result["deliveries"])
        finally:
            server.end()
    return found


def connections(kind, build, folder, options):
    count, filters = 5000, 200
    server = kind(build, folder)
    try:
        go(come(server, [f"warm{i}" for i in range(1000)]))
        cpu = server.cpu_s()
        for _ in range(4):
            go(come(server, [f"c{i}" for i in range(1000)]))
        connects = (server.cpu_s() - cpu) / 4000
        memory = server.memory()
        sockets = come(server, [f"m{i}" for i in range(count)])
        each = (server.memory() - memory) / count
        memory = server.memory()
        for number, s in enumerate(sockets[:500]):
            ask(s, subscribe(*[f"site/{number}/device/{i}/state" for i in range(filters)]), 5 + filters)
        subscription = (server.memory() - memory) / (500 * filters)
        return {"connect and disconnect: us": 1e6 * connects, "bytes a connection": each, "bytes a subscription": subscription}
    finally:
        server.end()


def matching(kind, build, folder, options):
    found = {}
    for total in (1000, 100000, 1000000):
        if total > options.filters:
            continue
        server = kind(build, folder)
        try:
            holders = come(server, [f"h{i}" for i in range(max(1, total // 1000))])
            for number, s in enumerate(holders):
                for start in range(0, 1000, 500):
                    ask(s, subscribe(*[f"f/{number}/{i}/+" for i in range(start, start + 500)]), 503)
            hearer, speaker = come(server, ["hearer", "speaker"])
            ask(hearer, subscribe("end"), 5)
            count = 20000
            names = [f"f/{i * 7919 % len(holders)}/{i * 31 % 1000}/x" for i in range(count)]
            batches = [b"".join(publish(name, b"x") for name in names[start:start + 500]) for start in range(0, count, 500)]
            cpu = server.cpu_s()
            for batch in batches:
                speaker.sendall(batch + publish("end", b"x"))
                hear([hearer], 8)
            found[f"match among {total:,} filters: us a message"] = 1e6 * (server.cpu_s() - cpu) / count
        finally:
            server.end()
    return found


def replay(kind, build, folder, options):
    """Sessions that are away, one message each; then they come back for it."""
    count = options.sessions
    server = kind(build, folder)
    try:
        speaker = come(server, ["speaker"])[0]

        def publish_all(name):
            cpu = server.cpu_s()
            for start in range(0, count, 500):
                size = min(500, count - start)
                ask(speaker, b"".join(publish(f"{name}/{i}", qos=1, number=i - start + 1) for i in range(start, start + size)), 4 * size)
            return 1e6 * (server.cpu_s() - cpu) / count

        alone = publish_all("other")
        memory = server.memory()
        for start in range(0, count, AT_ONCE):
            batch = come(server, [f"s{i}" for i in range(start, min(start + AT_ONCE, count))], clean=False)
            for i, s in enumerate(batch, start):
                s.sendall(subscribe(f"off/{i}", qos=1))
            hear(batch, 5)
            go(batch)
        time.sleep(1)
        memory_each = (server.memory() - memory) / count
        unheard = publish_all("nobody")
        owed = publish_all("off")
        cpu, began = server.cpu_s(), time.monotonic()
        for start in range(0, count, AT_ONCE):
            names = [f"s{i}" for i in range(start, min(start + AT_ONCE, count))]
            batch = [dial(server) for _ in names]
            for s, name in zip(batch, names):
                s.sendall(connect(name, clean=False))
            want = 4 + len(publish(f"off/{start}", qos=1))
            got = hear(batch, want)
            for i, (s, data) in enumerate(got.items(), start):
                assert data[:4] == b"\x20\2\1\0" and f"off/{i}".encode() in data, f"{kind.name}: session {i} got {data[:60]}"
                head = 4 + len(data[4:]) - 128 - 2
                s.sendall(b"\x40\2" + data[head:head + 2])
            go(batch)
        back = server.cpu_s() - cpu
        return {"publish QoS 1, no sessions: us a message": alone,
                "the same to nobody, with all of them away: us": unheard,
                "the same, a message to each: us": owed,
                "bytes a session that is away": memory_each,
                "a session comes back for its message: us": 1e6 * back / count,
                "all of them: s": time.monotonic() - began}
    finally:
        server.end()


PARTS = {"loads": loads, "connections": connections, "matching": matching, "replay": replay}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default=str(ROOT / "build/release"))
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--sessions", type=int, default=100000)
    parser.add_argument("--filters", type=int, default=1000000)
    options = parser.parse_args()
    build = pathlib.Path(options.build).resolve()
    resource.setrlimit(resource.RLIMIT_NOFILE, (20000, 20000))
    subprocess.run(["cmake", "--build", build, "--target", "tidegate", "bench.load"], check=True, stdout=subprocess.DEVNULL)
    print("| | Tidegate | mosquitto | Tidegate / mosquitto |\n|---|---|---|---|")
    for name, part in PARTS.items():
        if options.only not in (None, name):
            continue
        found = {kind.name: {} for kind in KINDS}
        with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
            for number in range(options.rounds):
                for kind in KINDS if number % 2 == 0 else KINDS[::-1]:
                    for row, value in part(kind, build, pathlib.Path(folder), options).items():
                        found[kind.name].setdefault(row, []).append(value)
                print(f"{name}: round {number + 1}", file=sys.stderr, flush=True)
        for row, values in found["tidegate"].items():
            others = found["mosquitto"][row]
            ratios = [a / b for a, b in zip(values, others) if b]
            print(f"| {row} | {statistics.median(values):,.2f} | {statistics.median(others):,.2f} | {statistics.median(ratios):.2f} "
                  f"({min(ratios):.2f} to {max(ratios):.2f}) |", flush=True)


main()
