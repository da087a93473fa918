"""Independent clients: curl, mosquitto_pub and mosquitto_sub, Python's websockets, paho-mqtt. Nothing here knows
Tidegate's code; what it knows of the protocol is what docs/PROTOCOL.md says."""

import asyncio
import importlib
import json
import os
import queue
import shutil
import subprocess
import threading
import time

import pytest

from node import PATIENCE
from node import WAIT_S as WAIT_BARE_S

WAIT_S = WAIT_BARE_S * PATIENCE
PROTOCOL = "tidegate.v1.json"


def need(program):
    """A real client that is not installed: a skip for a developer, a failure in CI."""
    path = shutil.which(program)
    if path is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{program} is not installed")
    return path


def module(name):
    try:
        return importlib.import_module(name)
    except ImportError:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"Python module {name} is not installed")


# --- curl ------------------------------------------------------------------------------------------------------

class Answer:
    def __init__(self, status, body):
        self.status, self.body = status, body

    def json(self):
        return json.loads(self.body)


def curl(url, *arguments, data=None, check=200):
    command = [need("curl"), "-sS", "--noproxy", "*", "-m", str(WAIT_S), "-o", "-", "-w", "\n%{http_code}", *arguments]
    if data is not None:
        command += ["--data-binary", "@-"]
    result = subprocess.run(command + [url], input=data if data is not None else b"", capture_output=True,
                            timeout=WAIT_S + 5)
    assert result.returncode == 0, result.stderr.decode()
    body, status = result.stdout.rsplit(b"\n", 1)
    answer = Answer(int(status), body)
    assert check is None or answer.status == check, f"{url}: {answer.status} {body.decode(errors='replace')}"
    return answer


def publish(node, topic, data, *arguments, check=200):
    return curl(node.api(f"/v1/publish/{topic}"), *arguments, data=data, check=check)


def history(node, topic, start="earliest", page=1000):
    """All messages of a topic's past from `start` on, by as many pages as it takes."""
    messages = []
    while True:
        answer = curl(node.api(f"/v1/history/{topic}?from={start}&max={page}")).json()
        messages += answer["messages"]
        if not answer["messages"] or answer["next"] == start:
            return messages
        start = answer["next"]


# --- mosquitto -------------------------------------------------------------------------------------------------

def mosquitto_pub(node, topic, payload, *arguments, qos=1):
    subprocess.run([need("mosquitto_pub"), "-h", "127.0.0.1", "-p", str(node.ports["mqtt"]), "-q", str(qos),
                    "-t", topic, "-s" if payload else "-n", *arguments],
                   input=payload, check=True, timeout=WAIT_S, capture_output=True)


class MosquittoSub:
    """mosquitto_sub; payloads come as hex, so that every byte is seen. -d makes it say when it is subscribed."""

    def __init__(self, node, topic, *arguments, qos=1):
        self.process = subprocess.Popen(
            # Into a pipe it would keep its words to itself until a block is full.
            ["stdbuf", "-oL", need("mosquitto_sub"), "-h", "127.0.0.1", "-p", str(node.ports["mqtt"]), "-d", "-q", str(qos),
             "-t", topic, "-F", "= %t %r %x", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", bufsize=1)
        self.messages = queue.Queue()
        self.subscribed = threading.Event()
        self.said = []
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        if not self.subscribed.wait(WAIT_S):
            self.close()
            raise AssertionError("mosquitto_sub is not subscribed:\n" + "".join(self.said))

    def read(self):
        for line in self.process.stdout:
            if line.startswith("= "):
                _, topic, retained, payload = line.rstrip("\n").split(" ", 3)
                self.messages.put((topic, bytes.fromhex(payload), retained == "1"))
            else:
                self.said.append(line)
                if line.startswith("Subscribed "):
                    self.subscribed.set()
        self.process.stdout.close()

    def next(self, seconds=WAIT_S):
        """(topic, payload)"""
        try:
            return self.messages.get(timeout=seconds)[:2]
        except queue.Empty:
            raise AssertionError("no message at mosquitto_sub; it said:\n" + "".join(self.said[-20:])) from None

    def close(self):
        self.process.kill()
        self.process.wait()
        self.reader.join(WAIT_S)

    __enter__ = lambda self: self
    __exit__ = lambda self, *_: self.close()


# --- paho ------------------------------------------------------------------------------------------------------

def paho_client(client_id="", version=4, **options):
    """A paho client of either of its two incompatible major versions. version: 4 = 3.1.1, 5 = 5.0."""
    mqtt = module("paho.mqtt.client")
    extra = {} if version == 5 else {"clean_session": True}
    if hasattr(mqtt, "CallbackAPIVersion"):
        return mqtt.Client(mqtt.CallbackAPIVersion.VERSION1, client_id, protocol=version, **extra, **options)
    return mqtt.Client(client_id, protocol=version, **extra, **options)


# --- WebSocket -------------------------------------------------------------------------------------------------

class Closed(Exception):
    def __init__(self, code, reason):
        super().__init__(f"closed with {code} {reason}")
        self.code = code


class Item(dict):
    """One object of the protocol, and the bytes it came as."""

    raw = b""


class Web:
    """A WebSocket client on Python's websockets, run by a loop in a thread of its own. Answers are found by id;
    everything else is an event, in order of arrival."""

    def __init__(self, node, hello=None, **options):
        self.websockets = module("websockets")
        self.events = queue.Queue()
        self.answers = {}
        self.arrived = threading.Condition()
        self.closed = None
        self.id = 0
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        options.setdefault("subprotocols", [PROTOCOL])
        options.setdefault("max_size", None)
        options.setdefault("max_queue", None)
        options.setdefault("ping_interval", None)
        if node.tls:
            options.setdefault("ssl", node.tls)
        try:
            self.socket = self.wait(self.open(node.ws(), options))
        except BaseException:
            self.end_loop()
            raise
        self.reader = asyncio.run_coroutine_threadsafe(self.read(), self.loop)
        self.hello = self.ask({"hello": hello})["ok"] if hello is not None else None

    def wait(self, coroutine, seconds=WAIT_S):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(seconds)

    async def open(self, url, options):
        return await self.websockets.connect(url, **options)

    async def read(self):
        try:
            async for frame in self.socket:
                for line in frame.split("\n"):
                    item = Item(json.loads(line))
                    item.raw = line.encode()
                    self.take(item)
        except self.websockets.ConnectionClosed:
            pass
        with self.arrived:
            self.closed = Closed(self.socket.close_code, self.socket.close_reason)
            self.arrived.notify_all()
        self.events.put(self.closed)

    def take(self, item):
        if "id" in item:
            with self.arrived:
                self.answers[item["id"]] = item
                self.arrived.notify_all()
        # Answers too, in their place: a test can see what came between a sub's ok and its replay.
        self.events.put(item)

    def post(self, item):
        """Sends without waiting for an answer."""
        self.wait(self.socket.send(json.dumps(item, separators=(",", ":"))))

    def post_text(self, text):
        self.wait(self.socket.send(text))

    def request(self, item):
        """Sends with a fresh id; the id."""
        with self.arrived:
            self.id += 1
            number = self.id
        self.post({"id": number, **item})
        return number

    def answer(self, number, seconds=WAIT_S):
        with self.arrived:
            if not self.arrived.wait_for(lambda: number in self.answers or self.closed, seconds):
                raise AssertionError(f"no answer to request {number} within {seconds} s")
            if number not in self.answers:
                raise self.closed
            return self.answers.pop(number)

    def ask(self, item, seconds=WAIT_S):
        return self.answer(self.request(item), seconds)

    def subscribe(self, topic, start="live", **options):
        answer = self.ask({"sub": {"topic": topic, "from": start, **options}})
        assert "ok" in answer, answer
        return answer["ok"]

    def event(self, seconds=WAIT_S):
        """The next thing that came, whatever it is."""
        try:
            item = self.events.get(timeout=seconds)
        except queue.Empty:
            raise AssertionError(f"nothing came within {seconds} s") from None
        if isinstance(item, Closed):
            self.events.put(item)
            raise item
        return item

    def next_item(self, kind="msg", seconds=WAIT_S):
        """The next event of a kind, whole; others before it are passed over."""
        deadline = time.monotonic() + seconds
        while True:
            item = self.event(max(0.0, deadline - time.monotonic()))
            if kind in item:
                return item

    def next(self, kind="msg", seconds=WAIT_S):
        return self.next_item(kind, seconds)[kind]

    def close_code(self, seconds=WAIT_S):
        with self.arrived:
            assert self.arrived.wait_for(lambda: self.closed, seconds), "the connection is still open"
            return self.closed.code

    def end_loop(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(WAIT_S)
        self.loop.close()

    def abort(self):
        """Drops the connection without a word, as a dead network would seem."""
        async def drop():
            self.socket.transport.abort()
            await self.socket.wait_closed()
        self.finish(drop())

    def close(self):
        self.finish(self.socket.close())

    def finish(self, ending):
        if not self.thread.is_alive():
            ending.close()
            return
        try:
            self.wait(ending)
            self.reader.result(WAIT_S)
        finally:
            self.end_loop()

    __enter__ = lambda self: self
    __exit__ = lambda self, *_: self.close()


class Resuming:
    """What a well-behaved subscriber keeps to resume without loss: where its base lies, and the last position of
    each lane since. A position is later than another of its lane when its text is greater."""

    def __init__(self, topic, start="earliest"):
        self.topic, self.base, self.lanes = topic, start, {}
        self.messages, self.gaps = [], []
        self.web = None

    def start(self):
        if isinstance(self.base, str) and self.base in ("live", "earliest"):
            return self.base if not self.lanes else {"after": list(self.lanes.values())}
        return {"after": [self.base, *self.lanes.values()]}

    def open(self, node):
        self.web = Web(node)
        self.web.subscribe(self.topic, self.start())

    def take(self, item):
        if "msg" in item:
            message = item["msg"]
            lane = message["pos"].rsplit(".", 1)[0]
            assert message["pos"] > self.lanes.get(lane, ""), f"{message['pos']} comes after {self.lanes[lane]}"
            self.lanes[lane] = message["pos"]
            self.messages.append(message)
        elif "live" in item:
            self.base, self.lanes = item["live"]["pos"], {}
        elif "gap" in item:
            self.gaps.append(item["gap"])

    def run(self, until, what, seconds=WAIT_S):
        """Takes what comes until `until()` is true."""
        deadline = time.monotonic() + seconds
        while not until():
            try:
                self.take(self.web.event(max(0.0, deadline - time.monotonic())))
            except AssertionError as error:
                raise AssertionError(f"{self.topic}: waiting for {what} after {len(self.messages)} messages: {error}"
                                     ) from None

    def drain(self):
        """Takes what has come until the connection ended."""
        try:
            while True:
                self.take(self.web.event())
        except Closed:
            self.web.close()
