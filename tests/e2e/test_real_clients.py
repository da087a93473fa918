"""MQTT clients that others have written, each through the same features: connect, QoS 0, 1 and 2, retained messages, a
will, a session that outlives its connection, reconnecting by itself, TLS, WebSocket; and each with each other.

    mosquitto   mosquitto_pub and mosquitto_sub (5.0)
    library     libmosquitto (5.0), real/client.c
    paho        paho-mqtt of Python (5.0)
    go          paho.mqtt.golang (3.1.1), real/client.go
    node        mqtt.js in Node (5.0), real/client.js
    chromium    mqtt.js in a real browser (5.0), which has WebSockets only

One node serves them all. A wire whose cut is wanted leads through a Forwarder."""

import contextlib
import itertools
import json
import os
import queue
import signal
import socket
import subprocess
import threading
import time

import pytest

from clients import WAIT_S, module, need, paho_client
from node import PATIENCE, ROOT, Node, wait_until
from test_demo_page import opened_browser

SOURCES = ROOT / "tests" / "e2e" / "real"
BUILT = ROOT / "build" / "real-clients"
NAMES = ("mosquitto", "library", "paho", "go", "node", "chromium")
NO_WEBSOCKET = ("mosquitto", "library")  # libmosquitto 2.0 has none
WS_ONLY = ("chromium",)
NO_SESSION_PRESENT = ("mosquitto", "go")  # do not tell
numbers = itertools.count()


class Refused(Exception):
    pass


class Forwarder:
    """A TCP port that leads to another, until it is cut."""

    def __init__(self, port):
        self.target, self.pairs, self.lock = port, [], threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                far = socket.create_connection(("127.0.0.1", self.target))
                with self.lock:
                    self.pairs.append((near, far))
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self.carry, args=(source, sink), daemon=True).start()

    @staticmethod
    def carry(source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self):
        with self.lock:
            for pair in self.pairs:
                for end in pair:
                    with contextlib.suppress(OSError):
                        end.shutdown(socket.SHUT_RDWR)
            self.pairs.clear()

    def close(self):
        self.listener.close()
        self.cut()

    __enter__ = lambda self: self
    __exit__ = lambda self, *_: self.close()


# --- programs that speak the line protocol of real/client.js -----------------------------------------------------

class Speaker:
    """Owns connections by name. `line()` gives the next one that the other side says, or None after a while."""

    def __init__(self):
        self.answers, self.messages, self.ups = {}, {}, {}

    def take(self, line):
        kind, name, *rest = line.split(" ")
        if kind == "msg":
            topic, qos, retain, payload = rest
            payload = b"" if payload == "-" else bytes.fromhex(payload)
            self.messages.setdefault(name, []).append((topic, payload, int(qos), retain == "1"))
        elif kind == "up":
            self.ups[name] = self.ups.get(name, 0) + 1
        else:
            self.answers[name] = line

    def wait(self, condition, what):
        deadline = time.monotonic() + WAIT_S
        while not (found := condition()):
            assert time.monotonic() < deadline, f"waited in vain for {what}"
            if (line := self.line()) is not None:
                self.take(line)
        return found

    def ask(self, verb, name, *words):
        self.answers.pop(name, None)
        self.say(" ".join(map(str, (verb, name, *words))))
        answer = self.wait(lambda: self.answers.get(name), f"the answer to {verb}")
        if not answer.startswith("ok "):
            raise Refused(answer)
        return answer.split(" ")[2:]

    def open(self, identifier, port, carrier="tcp", clean=True, will=None, ca=None):
        return Spoken(self, identifier, port, carrier, clean, will, ca)

    def close(self):
        pass


class Spoken:
    """One connection of a Speaker."""

    def __init__(self, speaker, identifier, port, carrier, clean, will, ca):
        self.speaker, self.name = speaker, f"c{next(numbers)}"
        present, = speaker.ask("open", self.name, identifier, carrier, port, int(clean), will or "-", ca or "-")
        self.present = None if present == "-" else present == "1"

    def subscribe(self, topic, qos):
        self.speaker.ask("sub", self.name, topic, qos)

    def publish(self, topic, payload, qos, retain=False):
        self.speaker.ask("pub", self.name, topic, qos, int(retain), payload.hex() or "-")

    def next(self):
        kept = self.speaker.messages.setdefault(self.name, [])
        self.speaker.wait(lambda: kept, "a message")
        return kept.pop(0)

    def wait_up(self):
        self.speaker.wait(lambda: self.speaker.ups.get(self.name), "the client to have come again")

    def close(self):
        self.speaker.ask("close", self.name)


class Program(Speaker):
    def __init__(self, *command, environment=None):
        super().__init__()
        self.lines = queue.Queue()
        self.process = subprocess.Popen(list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env={**os.environ, **(environment or {})})
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            self.lines.put(line.rstrip("\n"))

    def line(self):
        with contextlib.suppress(queue.Empty):
            return self.lines.get(timeout=0.1)
        assert self.process.poll() is None, f"the client's program ended with {self.process.returncode}"
        return None

    def say(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def close(self):
        self.process.kill()
        self.process.wait()


def built(name, *command, **environment):
    """A program made of its source once, again when the source is newer."""
    BUILT.mkdir(parents=True, exist_ok=True)
    result, (at, source) = BUILT / name, next((i, SOURCES / word) for i, word in enumerate(command) if word.startswith("client."))
    if not result.exists() or result.stat().st_mtime < source.stat().st_mtime:
        fresh = BUILT / f"{name}.{os.getpid()}"
        done = subprocess.run([*command[:at], "-o", fresh, source, *command[at + 1:]], env={**os.environ, **environment}, text=True,
                              capture_output=True, cwd=BUILT, timeout=250 * PATIENCE)
        assert done.returncode == 0, done.stderr
        fresh.rename(result)
    return result


def debian(path):
    """What a package has left there."""
    if not os.path.exists(path):
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{path} is not installed (tools/packages.sh)")
    return path


def open_library(_):
    debian("/usr/include/mosquitto.h")
    program = built("library", need("gcc"), "-O1", "-Wall", "client.c", "-lmosquitto", "-pthread")
    return Program(program)


def open_go(_):
    debian("/usr/share/gocode/src/github.com/eclipse/paho.mqtt.golang")
    # Only what Debian has: no module is fetched.
    return Program(built("go", need("go"), "build", "client.go", GO111MODULE="off", GOPATH="/usr/share/gocode", GOFLAGS="",
                         GOTOOLCHAIN="local"))


def open_node(_):
    return Program(need("node"), SOURCES / "client.js", debian("/usr/share/nodejs/mqtt"),
                   environment={"NODE_PATH": "/usr/share/nodejs"})  # a node that is not Debian's does not look there


# --- mqtt.js in Chromium ---------------------------------------------------------------------------------------

# What a browser does not have, and mqtt.js asks for on the way to a WebSocket.
NOTHING = ("ws", "net", "tls", "fs", "http", "https", "crypto", "zlib", "tty", "os")
BUNDLE = {"nothing.js": "module.exports = {}", "entry.js": 'window.mqtt = require("mqtt/lib/connect/index.js")',
          "shim.js": 'export const process = require("process/browser.js")\n'
                     'export const Buffer = window.Buffer = require("buffer/").Buffer\n'}


def bundle(folder):
    for name, text in BUNDLE.items():
        (folder / name).write_text(text)
    debian("/usr/share/nodejs/mqtt")
    command = [need("esbuild"), "entry.js", "--bundle", "--platform=browser", "--inject:shim.js", "--define:global=window",
               "--alias:stream=readable-stream", "--outfile=mqtt.js", *(f"--alias:{name}={folder}/nothing.js" for name in NOTHING)]
    subprocess.run(command, cwd=folder, env={**os.environ, "NODE_PATH": "/usr/share/nodejs"}, check=True, timeout=WAIT_S,
                   capture_output=True)
    return (folder / "mqtt.js").read_text()


class Chromium(Speaker):
    def __init__(self, driver, node, library):
        super().__init__()
        self.driver, self.waiting = driver, []
        # The page is only where the scripts run; its own policy allows no port but its own.
        driver.execute_cdp_cmd("Page.setBypassCSP", {"enabled": True})
        driver.get(node.web("/demo/"))
        driver.execute_script(library)
        driver.execute_script((SOURCES / "client.js").read_text())
        assert driver.execute_script("return typeof window.command") == "function"

    def say(self, line):
        self.driver.execute_script("window.command(arguments[0])", line)

    def line(self):
        if not self.waiting:
            self.waiting = self.driver.execute_script("return window.heard.splice(0)")
        if not self.waiting:
            time.sleep(0.01)
            return None
        return self.waiting.pop(0)


@contextlib.contextmanager
def opened_chromium(node, folder):
    with opened_browser("--ignore-certificate-errors") as driver:
        yield Chromium(driver, node, bundle(folder))


# --- paho ------------------------------------------------------------------------------------------------------

class Paho:
    def open(self, *arguments, **options):
        return PahoConnection(*arguments, **options)

    def close(self):
        pass


class PahoConnection:
    def __init__(self, identifier, port, carrier="tcp", clean=True, will=None, ca=None):
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties
        options = {"transport": "websockets"} if carrier.startswith("ws") else {}
        self.client = client = paho_client(identifier, 5, **options)
        self.events, self.messages = queue.Queue(), queue.Queue()
        self.ups = queue.Queue()
        if options:
            client.ws_set_options("/mqtt")
        if ca:
            client.tls_set(str(ca))
        if will:
            client.will_set(will, b"gone", 1)
        client.reconnect_delay_set(1, 1)
        client.on_connect = lambda _, __, flags, *___: self.ups.put(flags)
        client.on_subscribe = lambda *_: self.events.put("subscribed")
        client.on_publish = lambda *_: self.events.put("published")
        client.on_message = lambda _, __, m: self.messages.put((m.topic, m.payload, m.qos, bool(m.retain)))
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 0 if clean else 600
        try:
            client.connect("127.0.0.1", port, clean_start=clean, properties=properties)
        except OSError as error:
            raise Refused(str(error)) from None
        client.loop_start()
        self.present = bool(self.ups.get(timeout=WAIT_S)["session present"])

    def subscribe(self, topic, qos):
        self.client.subscribe(topic, qos)
        self.events.get(timeout=WAIT_S)

    def publish(self, topic, payload, qos, retain=False):
        self.client.publish(topic, payload, qos, retain)
        self.events.get(timeout=WAIT_S)

    def next(self):
        return self.messages.get(timeout=WAIT_S)

    def wait_up(self):
        self.ups.get(timeout=WAIT_S)

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()


# --- mosquitto_pub, mosquitto_sub ------------------------------------------------------------------------------

class Mosquitto:
    def open(self, *arguments, **options):
        return MosquittoConnection(*arguments, **options)

    def close(self):
        pass


class MosquittoConnection:
    """A program for each publish, one for what is subscribed."""

    present = None

    def __init__(self, identifier, port, carrier="tcp", clean=True, will=None, ca=None):
        self.identifier, self.process = identifier, None
        self.common = ["-h", "127.0.0.1", "-p", str(port), "-V", "mqttv5", *(["--cafile", str(ca)] if ca else [])]
        self.own = ["-i", identifier, *([] if clean else ["-c", "-x", "600"]),
                    *(["--will-topic", will, "--will-payload", "gone", "--will-qos", "1"] if will else [])]
        self.messages, self.acks = queue.Queue(), queue.Queue()
        self.connects = queue.Queue()
        if carrier == "tls":  # it connects when it subscribes; whom it believes shows now
            self.publish("real/tls-hello", b"", 0)

    def subscribe(self, topic, qos):
        self.process = subprocess.Popen(["stdbuf", "-oL", need("mosquitto_sub"), *self.common, *self.own, "-d", "-q", str(qos), "-t",
                                         topic, "-F", "= %t %q %r %x"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        threading.Thread(target=self.read, args=(self.process.stdout,), daemon=True).start()
        self.acks.get(timeout=WAIT_S)
        self.connects.get(timeout=WAIT_S)

    def read(self, stream):
        for line in stream:
            if line.startswith("= "):
                _, topic, qos, retain, payload = line.rstrip("\n").split(" ")
                self.messages.put((topic, bytes.fromhex(payload), int(qos), retain == "1"))
            elif line.startswith("Subscribed "):
                self.acks.put(line)
            elif "received CONNACK (0)" in line:
                self.connects.put(line)

    def publish(self, topic, payload, qos, retain=False):
        done = subprocess.run([need("mosquitto_pub"), *self.common, "-q", str(qos), "-t", topic, *(["-r"] if retain else []),
                               "-s" if payload else "-n"], input=payload, capture_output=True, timeout=WAIT_S)
        if done.returncode:
            raise Refused(done.stderr.decode())

    def next(self):
        return self.messages.get(timeout=WAIT_S)

    def wait_up(self):
        self.connects.get(timeout=WAIT_S)

    def close(self):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)  # says DISCONNECT
            self.process.wait(WAIT_S)


# --- fixtures --------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def node(tmp_path_factory, certificates):
    made = Node(tmp_path_factory.mktemp("real"), certificates.settings(), keep_ports=True)
    made.settings["http.origins"] = f"http://127.0.0.1:{made.settings['http.port']}"
    made.start()
    yield made
    made.check()


@pytest.fixture(scope="module")
def speakers(node, tmp_path_factory):
    """Each kind is started when it is first asked for."""
    with contextlib.ExitStack() as stack:
        made = {}

        def get(name):
            if name not in made:
                if name == "chromium":
                    made[name] = stack.enter_context(opened_chromium(node, tmp_path_factory.mktemp("bundle")))
                elif name in ("paho", "mosquitto"):
                    made[name] = {"paho": Paho, "mosquitto": Mosquitto}[name]()
                else:
                    made[name] = {"library": open_library, "go": open_go, "node": open_node}[name](node)
                    stack.callback(made[name].close)
            return made[name]

        yield get


class Kind:
    """One kind of client, and how it comes."""

    def __init__(self, name, node, speakers):
        self.name, self.node, self.speakers, self.opened = name, node, speakers, []
        self.base = "ws" if name in WS_ONLY else "tcp"

    def port(self, carrier):
        return self.node.ports[{"tcp": "mqtt", "tls": "mqtts", "ws": "http", "wss": "https"}[carrier]]

    def open(self, identifier=None, carrier=None, port=None, **options):
        carrier = carrier or self.base
        made = self.speakers(self.name).open(identifier or f"real-{next(numbers)}", port or self.port(carrier), carrier, **options)
        self.opened.append(made)
        return made

    def close(self):
        for made in self.opened:
            with contextlib.suppress(Exception):
                made.close()


@pytest.fixture
def kind(request, node, speakers):
    made = Kind(request.param, node, speakers)
    yield made
    made.close()


each = pytest.mark.parametrize("kind", NAMES, indirect=True)
# The first test of a kind may have to compile it.
pytestmark = pytest.mark.deadline(300)


@pytest.fixture
def topic():
    return f"real/{next(numbers)}"


# --- features --------------------------------------------------------------------------------------------------

@each
def test_connect(kind, node, topic):
    identifier = f"real-connect-{kind.name}"
    client = kind.open(identifier)
    client.subscribe(topic, 1)
    assert not client.present
    with open_session(node, identifier) as found:
        assert found
    client.close()
    kind.opened.clear()


@contextlib.contextmanager
def open_session(node, identifier):
    import urllib.request
    with urllib.request.urlopen(node.api("/v1/connections"), timeout=WAIT_S) as answer:
        yield identifier in answer.read().decode()


@each
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_qos(kind, topic, qos):
    client = kind.open()
    client.subscribe(topic + "/#", qos)
    sent = [(f"{topic}/{number}", payload, qos, False) for number, payload in
            enumerate([b"x", bytes(range(256)), b"", "gr\u00fc\u00dfe \u2603".encode(), b"a" * 20000])]
    for name, payload, _, _ in sent:
        client.publish(name, payload, qos)
    assert [client.next() for _ in sent] == sent


@each
def test_retained(kind, topic):
    writer = kind.open()
    writer.publish(topic, b"old", 1, True)
    writer.publish(topic, b"kept", 1, True)
    reader = kind.open()
    reader.subscribe(topic, 1)
    assert reader.next() == (topic, b"kept", 1, True)
    writer.publish(topic, b"", 1, True)
    assert reader.next() == (topic, b"", 1, False)
    late = kind.open()
    late.subscribe(topic, 1)
    writer.publish(topic, b"live", 1)
    assert late.next() == (topic, b"live", 1, False)


@each
def test_will(kind, topic):
    watcher = kind.open()
    watcher.subscribe(topic, 1)
    with Forwarder(kind.port(kind.base)) as wire:
        doomed = kind.open(port=wire.port, will=topic)
        doomed.subscribe(topic + "/other", 1)
        wire.cut()
        assert watcher.next() == (topic, b"gone", 1, False)


@each
def test_session(kind, topic):
    identifier = f"real-session-{kind.name}"
    away = kind.open(identifier, clean=False)
    away.subscribe(topic, 2)
    away.close()
    kind.opened.clear()
    writer = kind.open()
    sent = [(topic, b"first", 1, False), (topic, b"second", 1, False), (topic, b"third", 2, False)]
    for _, payload, qos, _ in sent:
        writer.publish(topic, payload, qos)
    back = kind.open(identifier, clean=False)
    if kind.name == "mosquitto":  # has no way but to subscribe again
        back.subscribe(topic, 2)
    if kind.name not in NO_SESSION_PRESENT:
        assert back.present
    assert [back.next() for _ in sent] == sent


@each
def test_reconnect(kind, topic):
    """The wire is cut, a message comes meanwhile: the client calls again by itself and gets it."""
    with Forwarder(kind.port(kind.base)) as wire:
        client = kind.open(f"real-reconnect-{kind.name}", port=wire.port, clean=False)
        client.subscribe(topic, 1)
        writer = kind.open()
        writer.publish(topic, b"before", 1)
        assert client.next() == (topic, b"before", 1, False)
        wire.cut()
        writer.publish(topic, b"between", 1)
        client.wait_up()
        writer.publish(topic, b"after", 1)
        got = [client.next()]
        while got[-1][1] != b"after":
            got.append(client.next())
        if got[0][1] == b"before":  # its acknowledgement was on the wire that was cut
            got.pop(0)
        assert got == [(topic, b"between", 1, False), (topic, b"after", 1, False)]
        client.close()
        kind.opened.remove(client)


@each
def test_tls(kind, topic, certificates):
    carrier = "wss" if kind.name in WS_ONLY else "tls"
    client = kind.open(carrier=carrier, ca=certificates.pem("server-ca"))
    client.subscribe(topic, 2)
    client.publish(topic, bytes(range(256)) * 100, 2)
    assert client.next() == (topic, bytes(range(256)) * 100, 2, False)
    if kind.name not in WS_ONLY:  # the browser has been told to believe everybody
        with pytest.raises(Refused):
            kind.open(carrier=carrier, ca=certificates.pem("stranger-ca"))


@pytest.mark.parametrize("carrier", ["ws", "wss"])
@pytest.mark.parametrize("kind", [name for name in NAMES if name not in NO_WEBSOCKET], indirect=True)
def test_websocket(kind, topic, certificates, carrier):
    client = kind.open(carrier=carrier, ca=certificates.pem("server-ca") if carrier == "wss" else None)
    client.subscribe(topic, 2)
    for size in (0, 1, 125, 126, 65536, 200000):
        client.publish(topic, b"w" * size, size % 3)
        assert client.next() == (topic, b"w" * size, size % 3, False)


def test_each_hears_each(node, speakers, topic):
    """What one kind publishes all others get, byte for byte."""
    kinds = [Kind(name, node, speakers) for name in NAMES]
    try:
        clients = {kind.name: kind.open() for kind in kinds}
        for client in clients.values():
            client.subscribe(topic + "/+", 1)
        for name, writer in clients.items():
            payload = json.dumps({"from": name}).encode() + bytes(range(256))
            writer.publish(f"{topic}/{name}", payload, 1)
            for reader in clients.values():
                assert reader.next() == (f"{topic}/{name}", payload, 1, False)
    finally:
        for kind in kinds:
            kind.close()
