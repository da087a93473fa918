"""A node under test: the real daemon, a data folder of its own, ports of its own."""

import atexit
import functools
import inspect
import os
import re
import secrets
import signal
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PRESET = os.environ.get("TIDEGATE_PRESET", "dev")
# Any module of tests over Kafka: the addresses of brokers. Each node has a topic of its own then.
KAFKA = os.environ.get("TIDEGATE_KAFKA", "")
PROGRAM = Path(os.environ.get("TIDEGATE_PROGRAM", ROOT / "build" / PRESET / "tidegate"))
# A sanitizer slows the node down, and so do two busy cores: deadlines only end what hangs.
PATIENCE = {"asan": 3, "tsan": 6}.get(PRESET, 1)
# Machines that run tests can be slow; only a failure takes so long. A run that expects failures (tests/mutants) says less.
WAIT_S = float(os.environ.get("TIDEGATE_WAIT_S", 30))
TRIES_AGAIN = "TIDEGATE_WAIT_S" not in os.environ
READY_S = 60 * PATIENCE
STOP_S = 2 * WAIT_S * PATIENCE
DOORS = ("mqtt", "http", "api")
RECEIVED_BECOMES = ("stored", "unstored", "duplicates", "refused", "publishes_unknown", "publishes_open")
OFFERED_BECOMES = ("delivered", "dropped", "returned", "unacknowledged")

STATE = re.compile(r"state at (start|stop) lane=(\d+) ([a-z0-9= ]+)")
CRASH_REPORT = re.compile(
    r"ERROR: (Address|Leak|Thread)Sanitizer|WARNING: ThreadSanitizer|runtime error:|"
    r"SUMMARY: \w+Sanitizer|Assertion .* failed|stack smashing detected")


def wait_until(condition, what, seconds=WAIT_S):
    """Polls until `condition()` is true, and returns what it said."""
    deadline = time.monotonic() + seconds * PATIENCE
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds * PATIENCE} s in vain for {what}")
        time.sleep(0.01)


def spans(*seconds):
    """For a test that measures a span of time from outside: a machine that stands still for that long just then spoils
    what it measures. `span` is seconds[0]; when that fails, the longer ones are tried. What is wrong fails with each."""
    def decorate(test):
        @functools.wraps(test)
        def tried(*arguments, **fixtures):
            for span in seconds[:-1]:
                try:
                    return test(*arguments, span=span, **fixtures)
                except Exception as error:
                    if not TRIES_AGAIN:
                        raise
                    print(f"spoilt with a span of {span} s: {error!r}")
            return test(*arguments, span=seconds[-1], **fixtures)

        signature = inspect.signature(test)
        tried.__signature__ = signature.replace(parameters=[p for name, p in signature.parameters.items() if name != "span"])
        return tried
    return decorate


given_ports = set()


def free_ports(count):
    """Ports below the range that the kernel gives to clients: while the node is down, a client that calls again
    and again could otherwise be given the node's own port as its local one, and keep it. What has been given once is
    not given again, and no two workers of a run give the same."""
    found = []
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 16
    start = 20000 + (os.getpid() * 37 + time.monotonic_ns() // 1000) % 8000 // 16 * 16 + worker
    for port in range(start, start + 4000, 16):
        if port in given_ports:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        given_ports.add(port)
        if len(found) == count:
            return found
    raise AssertionError("no free ports")


@functools.cache
def c11_threads():
    """c11_threads.c, built: librdkafka under ThreadSanitizer."""
    library = Path(tempfile.mkdtemp(prefix="tidegate-")) / "c11_threads.so"
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", library, ROOT / "tests/e2e/c11_threads.c"], check=True)
    atexit.register(shutil.rmtree, library.parent, True)
    return library


def kafka_settings(servers, prefix, copies=1):
    return {"log.backend": "kafka", "kafka.brokers": servers, "kafka.prefix": prefix, "kafka.replication": copies,
            "kafka.min_isr": min(copies, 2)}


class Node:
    """`settings` become --set arguments. Ports: 0 (any), or with keep_ports=True ones that stay the same
    across restarts, as a client that reconnects needs. `data`: a folder that something else has filled.
    `folds=False`: the log is damaged on purpose, and what is folded anew may be another state."""

    def __init__(self, folder, settings=None, keep_ports=False, environment=None, descriptors=None,
                 data=None, folds=True, config=None):
        self.data = Path(data or Path(folder) / "data")
        self.settings = {"data.dir": str(self.data), "node.id": "test"}
        numbers = free_ports(len(DOORS)) if keep_ports else [0] * len(DOORS)
        self.settings.update({f"{door}.port": number for door, number in zip(DOORS, numbers)})
        # A client of a test may have other things to do first, on a slow machine, than to say hello.
        self.settings.update({"mqtt.tls_port": 0, "http.tls_port": 0, "ws.hello_timeout_ms": 60000})
        self.settings["test.state_at_ms"] = int(time.time() * 1000) + 600000
        if KAFKA:
            self.settings.update(kafka_settings(KAFKA, f"t{secrets.token_hex(5)}"))
        self.settings.update(settings or {})
        self.folds = folds
        self.environment = environment or {}
        self.descriptors = descriptors  # RLIMIT_NOFILE
        self.tls = None  # an SSLContext: clients come by the TLS ports
        self.config = config  # a file; `settings` win over it
        self.carrier = None  # makes of a socket to the HTTP port one that carries MQTT
        self.pass_fds = ()  # descriptors that stay open in the process
        self.ports = {}
        self.process = None
        self.stderr = []
        self.killed = False

    def command(self):
        arguments = [str(PROGRAM), "serve"]
        if self.descriptors:
            arguments = ["prlimit", f"--nofile={self.descriptors}"] + arguments
        if self.config:
            arguments += ["--config", str(self.config)]
        for key, value in self.settings.items():
            arguments += ["--set", f"{key}={value}"]
        return arguments

    def start(self):
        # The ports of the process before this one must not be taken for this one's.
        (self.data / "ports").unlink(missing_ok=True)
        environment = {key: value for key, value in os.environ.items() if not key.startswith("TIDEGATE_")}
        environment.setdefault("ASAN_OPTIONS", "detect_leaks=1:abort_on_error=0:exitcode=66")
        environment.setdefault("UBSAN_OPTIONS", "print_stacktrace=1")
        environment.setdefault("TSAN_OPTIONS", "halt_on_error=0:exitcode=66:second_deadlock_stack=1:"
                               f"suppressions={ROOT / 'tests' / 'tsan.supp'}")
        if PRESET == "tsan" and self.settings.get("log.backend") == "kafka":
            environment["LD_PRELOAD"] = str(c11_threads())
        environment.update(self.environment)
        self.killed = False
        self.process = subprocess.Popen(self.command(), cwd=ROOT, env=environment, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                                        errors="replace", pass_fds=self.pass_fds)
        self.collector = threading.Thread(target=self.collect, args=(self.process.stderr,), daemon=True)
        self.collector.start()
        wait_until(self.is_ready, "the node to be ready", READY_S / PATIENCE)
        return self

    def collect(self, stream):
        for line in stream:
            self.stderr.append(line)
        stream.close()

    def is_ready(self):
        if self.process.poll() is not None:
            self.collector.join(STOP_S)
            raise AssertionError(f"the node ended with {self.process.returncode}:\n{self.log()}")
        try:
            lines = (self.data / "ports").read_text().split()
            self.ports = {name: int(port) for name, port in (line.split("=") for line in lines)}
            with urllib.request.urlopen(self.api("/readyz"), timeout=10) as answer:
                return answer.status == 200
        except (OSError, urllib.error.URLError, ValueError, KeyError):
            return False

    @property
    def pid(self):
        return self.process.pid

    def api(self, path):
        return f"http://127.0.0.1:{self.ports['api']}{path}"

    def port(self, door):
        """mqtt, http: the port by which clients come."""
        return self.ports[door + "s" if self.tls else door]

    def web(self, path):
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port('http')}{path}"

    def ws(self):
        return f"ws{'s' if self.tls else ''}://127.0.0.1:{self.port('http')}/ws"

    def connect(self, door, receive_bytes=None, seconds=WAIT_S):
        """A client's socket to that door."""
        made = socket.socket()
        if receive_bytes:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.settimeout(seconds * PATIENCE)
        made.connect(("127.0.0.1", self.port("http" if self.carrier else door)))
        if self.tls:
            made = self.tls.wrap_socket(made, server_hostname="127.0.0.1")
        return self.carrier(made) if self.carrier and door == "mqtt" else made

    def log(self, lines=60):
        return "".join(self.stderr[-lines:])

    def kill9(self):
        self.killed = True
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(STOP_S)

    def restart(self):
        """After kill9() or stop()."""
        assert self.process.poll() is not None, "the node still runs"
        return self.start()

    def stop(self):
        """A clean stop; it must end with 0 and in time."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the node did not stop within {STOP_S} s:\n{self.log()}") from None
        self.collector.join(STOP_S)
        assert code == 0, f"the node ended with {code}:\n{self.log()}"

    def check(self):
        """The process was not ended by anything but us, its counters agree, and no sanitizer has spoken."""
        runs = self.process is not None and self.process.poll() is None
        try:
            code = self.process.poll() if self.process else None
            if code is not None and not self.killed:
                assert code == 0, f"the node ended with {code}:\n{self.log()}"
            try:
                self.check_identities()
            finally:
                self.stop()
            if runs and self.folds and PRESET == "dev":  # what a start folds does not depend on the compiler
                self.check_fold()
        finally:
            report = next((i for i, line in enumerate(self.stderr) if CRASH_REPORT.search(line)), None)
            if report is not None:
                raise AssertionError("".join(self.stderr[max(0, report - 5):report + 60]))

    def states(self, when):
        """What the process has said last of its partitions' state: lane -> text."""
        found = {}
        for line in self.stderr:
            match = STATE.search(line)
            if match and match[1] == when:
                found[match[2]] = match[3]
        return found

    def check_fold(self):
        """The state that a new start folds out of the log alone is the one that the node had at its clean stop."""
        had = self.states("stop")
        assert had, f"the node has not said what its state was:\n{self.log()}"
        self.stderr.clear()
        self.start()
        self.stop()
        has = self.states("start")
        assert has == had, f"folded anew: {has}, at the stop: {had}"

    def check_identities(self):
        """What was received has become something, and so has what was offered (ARCHITECTURE.md 2.3). At a quiet moment:
        messages under way need some time."""
        told = {}

        def hold():
            try:
                rows = self.metrics()
            except (OSError, urllib.error.URLError):
                return True  # the test has left nobody who could be asked
            told.clear()
            for name, value in rows.items():
                name = name.split("{")[0].removeprefix("tidegate_").removeprefix("messages_").removesuffix("_total")
                told[name] = told.get(name, 0) + value
            received = sum(told[name] for name in RECEIVED_BECOMES if name in told)
            offered = sum(told[name] for name in OFFERED_BECOMES)
            return told["received"] == received and told["offered"] == offered

        if self.process is None or self.process.poll() is not None:
            return
        try:
            wait_until(hold, "the counters to agree")
        except AssertionError:
            names = ("received", *RECEIVED_BECOMES, "offered", *OFFERED_BECOMES)
            raise AssertionError(f"the counters do not agree: { {name: told.get(name) for name in names} }") from None

    def metrics(self):
        """name{labels} -> value"""
        with urllib.request.urlopen(self.api("/metrics"), timeout=WAIT_S * PATIENCE) as answer:
            text = answer.read().decode()
        rows = (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, value in rows}

    def metric(self, start, *parts):
        """Sum of the metrics whose name begins with `start` and contains all of `parts`."""
        return sum(value for name, value in self.metrics().items()
                   if name.startswith(start) and all(part in name for part in parts))

    def rss_bytes(self):
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmRSS")
