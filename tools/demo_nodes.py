#!/usr/bin/python3
"""./dev demo --nodes 3: three nodes, three Kafka brokers and a Redis on this machine; the proof that what is published at any
node is delivered at all, whatever of it is killed; and a page with two nodes side by side and buttons that kill a node, a
broker, Redis. What is killed comes back after some seconds.

    demo_nodes.py PROGRAM [--once]

Data: $TIDEGATE_DATA__DIR-nodes (tidegate-data-nodes); it stays. Ports: those of one node for the first, MQTT one more and
HTTP and API ten more for each next one; the page is at port 8079, or $DEMO_PORT."""

import asyncio
import contextlib
import ctypes
import http.server
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import websockets

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools" / "kafka"))

from brokers import Brokers, Trouble  # noqa: E402
from demo_proof import Failed, Mosquitto, Web, check, curl, publish  # noqa: E402

NAMES = "abc"
BACK_S, READY_S, LOOK_S, END_S = 4, 60, 0.2, 10
PAGE = ROOT / "web-demo" / "nodes"
FILES = {"/": ("index.html", "text/html; charset=utf-8"), "/nodes.js": ("nodes.js", "text/javascript; charset=utf-8"),
         "/nodes.css": ("nodes.css", "text/css; charset=utf-8")}
PR_SET_PDEATHSIG = 1


def dies_with_parent():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def port_of(variable, standard):
    return int(os.environ.get(variable, standard))


def answers(url):
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return answer.status == 200
    except OSError:
        return False


class Program:
    """A process that is started again some seconds after a signal has ended it. An exit code is its own wish: the demo ends."""

    def __init__(self, name, command, log):
        self.name, self.command, self.log = name, command, log
        self.process, self.since, self.ready = None, 0, False

    def start(self):
        self.ready = False
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                                            preexec_fn=dies_with_parent)

    def up(self):
        return self.process is not None and self.process.poll() is None

    def kill(self):
        if self.up():
            self.process.kill()
            self.process.wait()

    def look(self):
        """Whether it runs; after a while it is started again."""
        if self.up():
            self.since = 0
        elif self.process.returncode >= 0:
            raise Failed(f"{self.name} has ended with {self.process.returncode}:\n" + last_lines(self.log))
        elif not self.since:
            self.since = time.monotonic()
        elif time.monotonic() > self.since + BACK_S:
            self.start()
        return self.up()

    def ask_to_stop(self):
        if self.up():
            self.process.terminate()

    def await_stop(self, deadline):
        try:
            self.process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.kill()


def is_over(pid):
    """It may be our child, or that of an earlier demo."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        os.kill(pid, 0)
        return False


def last_lines(path):
    lines = Path(path).read_text(errors="replace").splitlines()
    said = [line for line in lines if line.startswith("tidegate: ")]
    return "\n".join(said[-3:] or lines[-10:])


class Node(Program):
    def __init__(self, demo, program, number):
        name = NAMES[number]
        self.data = demo.data / name
        self.ports = {"mqtt": port_of("TIDEGATE_MQTT__PORT", 1883) + number, "http": port_of("TIDEGATE_HTTP__PORT", 8080) + 10 * number,
                      "api": port_of("TIDEGATE_API__PORT", 8081) + 10 * number}
        settings = {"node.id": name, "data.dir": self.data, "log.backend": "kafka", "log.partitions": 4,
                    "kafka.brokers": demo.brokers.servers(), "kafka.replication": 3, "kafka.min_isr": 2,
                    "directory.redis.url": f"redis://127.0.0.1:{demo.redis_port}", "http.origins": demo.origin,
                    **{f"{door}.port": port for door, port in self.ports.items()}}
        words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        super().__init__(f"node {name}", [program, "serve", *words], demo.data / f"{name}.log")
        self.id = name

    def look(self):
        runs = super().look()
        self.ready = runs and answers(f"http://127.0.0.1:{self.ports['api']}/readyz")
        return runs


class Demo:
    """All of it. One thread looks after it (watch); pages ask it to kill something, by names in `wishes`."""

    def __init__(self, program):
        self.data = Path(os.environ.get("TIDEGATE_DATA__DIR", "tidegate-data") + "-nodes").absolute()
        self.port = port_of("DEMO_PORT", 8079)
        self.origin, self.token = f"http://127.0.0.1:{self.port}", secrets.token_hex(16)
        self.program, self.nodes, self.brokers, self.redis = program, [], None, None
        self.broker_down, self.wishes, self.lock, self.watcher = {}, set(), threading.Lock(), None
        self.state, self.failed = {}, None
        self.ending, self.rests, self.ended = threading.Event(), threading.Event(), threading.Event()

    def begin(self):
        self.data.mkdir(exist_ok=True)
        print("\n1. Three Kafka brokers (the jars come once), a Redis and three nodes are started ...")
        self.brokers = Brokers(self.data / "kafka", count=3, stay=True).join()
        for number in range(1, 4):
            self.brokers.begin(number)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.redis_port = probe.getsockname()[1]
        self.redis = Program("redis", ["redis-server", "--port", str(self.redis_port), "--bind", "127.0.0.1", "--save", "",
                                       "--appendonly", "no"], self.data / "redis.log")
        self.redis.start()
        for number in range(3):
            self.nodes.append(Node(self, self.program, number))
            self.nodes[-1].start()
        self.watcher = threading.Thread(target=self.watch, daemon=True)
        self.watcher.start()
        self.wait(lambda: all(node.ready for node in self.nodes), "all nodes to be ready")
        for node in self.nodes:
            print(f"   node {node.id}: MQTT {node.ports['mqtt']}, WebSocket and demo page {node.ports['http']}, HTTP API {node.ports['api']}")

    def wait(self, condition, what, seconds=READY_S):
        deadline = time.monotonic() + seconds
        while not condition():
            if self.failed or time.monotonic() > deadline:
                raise Failed(self.failed or f"waited {seconds} s in vain for {what}")
            time.sleep(0.05)

    def wish(self, name):
        with self.lock:
            self.wishes.add(name)

    def parts(self):
        return {**{f"node {node.id}": node.kill for node in self.nodes}, "redis": self.redis.kill,
                **{f"broker {number}": lambda number=number: self.brokers.kill(number) for number in (1, 2, 3)}}

    def watch(self):
        try:
            while not self.ending.wait(LOOK_S):
                with self.lock:
                    wishes, self.wishes = self.wishes, set()
                for name in wishes & set(self.parts()):
                    self.parts()[name]()
                if not self.ending.is_set():
                    self.look()
        except (Failed, Trouble, OSError) as error:
            self.failed = str(error)
        self.rests.set()
        self.ended.wait(60)  # what this thread has started would be killed with it

    def look(self):
        brokers = self.brokers.states()
        for number, state in brokers.items():
            since = self.broker_down.setdefault(number, time.monotonic()) if state == "down" else self.broker_down.pop(number, None)
            if state == "down" and time.monotonic() > since + BACK_S:
                self.brokers.begin(number)
        self.state = {"nodes": [{"name": f"node {node.id}", "id": node.id, "up": node.look(), "ready": node.ready, **node.ports}
                                for node in self.nodes],
                      "parts": [{"name": f"broker {number}", "up": state == "runs"} for number, state in brokers.items()] +
                               [{"name": "redis", "up": self.redis.look()}]}

    def end(self):
        self.ending.set()
        if self.watcher:
            self.rests.wait(2)  # it may wait for a broker that begins
        programs = [program for program in [*self.nodes, self.redis] if program and program.process]
        for program in programs:
            program.ask_to_stop()
        deadline = time.monotonic() + END_S
        for program in programs:
            program.await_stop(deadline)
        if self.brokers and self.brokers.facts:
            keeper = self.brokers.facts["pid"]  # the brokers end with it
            with contextlib.suppress(ProcessLookupError):
                os.kill(keeper, signal.SIGTERM)
                while time.monotonic() < deadline + END_S and not is_over(keeper):
                    time.sleep(0.05)
        self.ended.set()


# --- the page --------------------------------------------------------------------------------------------------------

class Handler(http.server.BaseHTTPRequestHandler):
    """The page, what runs, and POST /kill?<name>. Other pages cannot ask for that: they do not know the token."""

    demo = None
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, body, kind="application/json"):
        frames = " ".join(f"http://127.0.0.1:{node.ports['http']}" for node in self.demo.nodes)
        self.send_response(status)
        for name, value in (("Content-Type", kind), ("Content-Length", str(len(body))), ("Cache-Control", "no-store"),
                            ("X-Content-Type-Options", "nosniff"), ("Content-Security-Policy",
                             f"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
                             f"frame-src {frames}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def ours(self):
        if re.fullmatch(r"(127\.0\.0\.1|localhost):\d+", self.headers.get("Host", "")):
            return True
        self.answer(403, b"{}")
        return False

    def do_GET(self):
        if not self.ours():
            return
        if self.path == "/state":
            self.answer(200, json.dumps(self.demo.state).encode())
        elif self.path in FILES:
            name, kind = FILES[self.path]
            self.answer(200, (PAGE / name).read_bytes().replace(b"TOKEN", self.demo.token.encode()), kind)
        else:
            self.answer(404, b"{}")

    def do_POST(self):
        if not self.ours():
            return
        name = urllib.request.unquote(self.path.partition("?")[2])
        if self.path.startswith("/kill?") and secrets.compare_digest(self.headers.get("X-Token", ""), self.demo.token) and \
                name in self.demo.parts():
            self.demo.wish(name)
            self.answer(202, b"{}")
        else:
            self.answer(403, b"{}")


def serve(demo):
    handler = type("Handler", (Handler,), {"demo": demo})
    try:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", demo.port), handler)
    except OSError as error:
        raise Failed(f"port {demo.port} for the page: {error.strerror}; DEMO_PORT names another one") from None
    threading.Thread(target=server.serve_forever, daemon=True).start()


# --- the proof -------------------------------------------------------------------------------------------------------

def compact(value):
    return json.dumps(value, separators=(",", ":"))


async def published(node, value, seconds=READY_S):
    """Tries until it is acknowledged: while something is being replaced the answer may be 503."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return await publish(node.ports["api"], compact(value))
        except Failed:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)


async def seen_by(web, mosquitto, value, began, at):
    """The next message of both. One that was told as unknown may come before."""
    while True:
        web_at, message = await web.next()
        if message["data"] == value:
            break
    while True:
        mqtt_at, line = await mosquitto.next()
        if line == f"home/kitchen {compact(value)}":
            break
    print(f"   {compact(value)} published at {at}: mosquitto_sub at b after {1e3 * (mqtt_at - began):.1f} ms, "
          f"WebSocket at c after {1e3 * (web_at - began):.1f} ms")


async def prove(demo):
    a, b, c = demo.nodes
    web, mosquitto = Web(), Mosquitto()
    print("2. mosquitto_sub listens at node b, a WebSocket at node c; curl publishes at node a")
    await web.open(c.ports["http"], "live")
    await mosquitto.open(b.ports["mqtt"])
    try:
        for value in ({"c": 21.5}, {"c": 21.6}):
            began = time.monotonic()
            await published(a, value)
            await seen_by(web, mosquitto, value, began, "a")
        print("3. kill -9 of node a, at once after an acknowledgement; curl publishes at node b")
        began = time.monotonic()
        before = await published(a, {"c": 22})
        killed = a.process
        a.kill()
        await seen_by(web, mosquitto, {"c": 22}, began, "a")
        began = time.monotonic()
        await published(b, {"c": 23})
        await seen_by(web, mosquitto, {"c": 23}, began, "b")
        await asyncio.to_thread(demo.wait, lambda: a.process is not killed and a.ready, "node a to be back")
        page = await curl(f"http://127.0.0.1:{a.ports['api']}/v1/history/home/kitchen?from={before['pos']}")
        check([m["data"] for m in page["messages"]], [{"c": 23}], "history at node a behind what it acknowledged last")
        print("   node a is back, and has in its history what was published meanwhile")
        for number, (name, value) in enumerate((("broker 1", {"c": 24}), ("redis", {"c": 25})), 4):
            print(f"{number}. {name} is killed; curl publishes at node a")
            demo.wish(name)
            await asyncio.to_thread(demo.wait, lambda: not all(part["up"] for part in demo.state["parts"]), f"{name} to be gone")
            began = time.monotonic()
            await published(a, value)
            await seen_by(web, mosquitto, value, began, "a")
        await asyncio.to_thread(demo.wait, lambda: all(part["up"] for part in demo.state["parts"] + demo.state["nodes"]),
                                "all to be back")
        print("Proved: published anywhere is delivered everywhere, and what was acknowledged outlives a node, a broker and Redis.")
    finally:
        await mosquitto.close()
        await web.close()


def stay(demo):
    a = demo.nodes[0]
    print(f"""
All stays up. Two nodes side by side, with buttons that kill a node, a broker, Redis:

    {demo.origin}/

and in other terminals:

    mosquitto_sub -p {demo.nodes[1].ports['mqtt']} -v -t 'home/#'                            # at node b
    curl -d '{{"c":21.5}}' http://127.0.0.1:{a.ports['api']}/v1/publish/home/kitchen     # at node a

Ctrl-C ends it. Logs and data: {demo.data}""")
    while demo.failed is None:
        time.sleep(0.2)
    raise Failed(demo.failed)


def main():
    sys.stdout.reconfigure(line_buffering=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where whoever started this ignores it
    demo = Demo(sys.argv[1])
    try:
        serve(demo)
        demo.begin()
        asyncio.run(prove(demo))
        if "--once" not in sys.argv:
            stay(demo)
        return 0
    except KeyboardInterrupt:
        return 130
    except (Failed, Trouble, OSError, KeyError, ValueError, websockets.WebSocketException) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    finally:
        demo.end()


if __name__ == "__main__":
    sys.exit(main())
