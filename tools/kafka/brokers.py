#!/usr/bin/python3
"""Real Kafka brokers on loopback (KRaft, each broker also a controller), for tests and for trying things out.

    tools/kafka/brokers.py fetch                              only the jars (jars.py)
    tools/kafka/brokers.py start FOLDER [--brokers 3] [--port P] [--tls CA,CERTIFICATE,KEY]
    tools/kafka/brokers.py stop FOLDER [--remove]
    tools/kafka/brokers.py kill|freeze|thaw|end|begin FOLDER BROKER

`start` returns when they serve, and prints where; what is up stays up, what is down is started on what it had. With
--tls there are two more ports a broker: TLS with SASL (PLAIN, SCRAM-SHA-256, SCRAM-SHA-512; user app, password
app-secret), and TLS with the client's certificate (which the same CA has signed).

The brokers are children of a keeper, one process a folder (keeper.py), and end with it however it ends. Other programs
are its users: each has a connection to it (class Brokers). A keeper that was not told to stay (`start` does that) kills
its brokers and removes the folder when its last user has gone; so a test that is killed leaves nothing behind."""

import argparse
import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from jars import Trouble, class_path, fetch, need  # noqa: E402

LISTENERS = ("plain", "controller", "sasl", "tls")
USER, PASSWORD = "app", "app-secret"
CALL_S = 180


class Gone(Trouble):
    """The keeper, with all it kept."""


def free_ports(count, host):
    """Below those that the kernel gives to clients: a broker that is down must find its port free when it comes again."""
    found = []
    for port in range(10000 + os.getpid() * 53 % 8000, 32000):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise Trouble("no free ports")


class Brokers:
    """A user of the brokers in a folder. `settings`: further lines of the brokers' configuration, a dict. `tls`: files of
    the authority, the certificate and the key. Without a folder: a new one, which goes with the last user. `host`: the
    address they listen at, of the network that the caller's thread is in."""

    def __init__(self, folder=None, count=1, ports=None, tls=None, settings=None, stay=False, host="127.0.0.1"):
        need("java", "default-jre-headless")
        self.folder = Path(folder or tempfile.mkdtemp(prefix="tidegate-kafka-")).absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.wanted = {"count": count, "ports": ports or free_ports(count * len(LISTENERS), host), "stay": stay, "host": host,
                       "tls": [str(Path(file).absolute()) for file in tls] if tls else None, "settings": settings or {}}
        self.connection = self.facts = None

    def join(self):
        """Connects to the keeper, which is started where there is none. Returns when all brokers serve."""
        with open(self.folder / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not self.connect():
                self.start_keeper()
        self.facts = self.call("hello")
        return self

    def start_keeper(self):
        self.wanted["class_path"] = class_path()
        with open(self.folder / "keeper.log", "a") as log:
            keeper = subprocess.Popen([sys.executable, HERE / "keeper.py", self.folder, json.dumps(self.wanted)], stdout=log,
                                      stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
        while not self.connect():
            if keeper.poll() is not None:
                raise Gone(f"the keeper of {self.folder} has ended:\n" + self.tail("keeper.log"))
            time.sleep(0.02)

    def connect(self):
        try:
            self.connection = socket.socket(socket.AF_UNIX)
            self.connection.settimeout(CALL_S)
            self.connection.connect(str(self.folder / "keeper"))
            self.lines = self.connection.makefile("r")
            return True
        except OSError:
            self.connection.close()
            return False

    def leave(self):
        if self.connection:
            self.lines.close()
            self.connection.close()
            self.connection = None

    def call(self, *words):
        try:
            self.connection.sendall((json.dumps(words) + "\n").encode())
            line = self.lines.readline()
        except ConnectionError:
            line = ""
        if not line:
            raise Gone(f"the keeper of {self.folder} has ended:\n" + self.tail("keeper.log"))
        answer = json.loads(line)
        if isinstance(answer, dict) and "trouble" in answer:
            raise Trouble(answer["trouble"])
        return answer

    def tail(self, name):
        try:
            return "".join((self.folder / name).read_text(errors="replace").splitlines(True)[-30:])
        except OSError:
            return ""

    @property
    def count(self):
        return self.facts["count"]

    def servers(self, listener="plain"):
        """What bootstrap.servers wants."""
        ports = self.facts["ports"][LISTENERS.index(listener)::len(LISTENERS)]
        return ",".join(f"{self.facts['host']}:{port}" for port in ports)

    # Brokers have the numbers 1 to count. Each returns when it is done.

    def kill(self, broker):
        """SIGKILL."""
        self.call("kill", broker)

    def freeze(self, broker):
        """SIGSTOP."""
        self.call("freeze", broker)

    def thaw(self, broker):
        self.call("thaw", broker)

    def end(self, broker):
        """SIGTERM: it hands over what it leads."""
        self.call("end", broker)

    def begin(self, broker):
        """Starts it on the data it had; nothing if it runs. It serves then."""
        self.call("begin", broker)

    def states(self):
        """number -> runs | frozen | down"""
        return {int(number): state for number, state in self.call("states").items()}


def start(words):
    tls = words.tls.split(",") if words.tls else None
    if tls and len(tls) != 3:
        raise Trouble("--tls wants three files: CA,CERTIFICATE,KEY")
    ports = list(range(words.port, words.port + words.brokers * len(LISTENERS))) if words.port else None
    brokers = Brokers(words.folder, words.brokers, ports, tls, stay=True).join()
    for broker in range(1, brokers.count + 1):
        brokers.begin(broker)
    for listener in LISTENERS if tls else ("plain",):
        if listener != "controller":
            print(f"{listener}={brokers.servers(listener)}")


def stop(words):
    brokers = Brokers(words.folder)
    if brokers.connect():
        try:
            brokers.call("close")
        finally:
            brokers.leave()
    if words.remove:
        if not (Path(words.folder) / "cluster").exists():
            raise Trouble(f"{words.folder} has no brokers of this program; it stays")
        shutil.rmtree(words.folder)


def steer(words):
    brokers = Brokers(words.folder)
    if not brokers.connect():
        raise Trouble(f"no brokers run in {words.folder}")
    getattr(brokers, words.command)(words.broker)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("fetch").set_defaults(run=lambda words: fetch())
    one = commands.add_parser("start")
    one.add_argument("folder")
    one.add_argument("--brokers", type=int, choices=(1, 3), default=1)
    one.add_argument("--port", type=int)
    one.add_argument("--tls")
    one.set_defaults(run=start)
    one = commands.add_parser("stop")
    one.add_argument("folder")
    one.add_argument("--remove", action="store_true")
    one.set_defaults(run=stop)
    for name in ("kill", "freeze", "thaw", "end", "begin"):
        one = commands.add_parser(name)
        one.add_argument("folder")
        one.add_argument("broker", type=int)
        one.set_defaults(run=steer)
    words = parser.parse_args()
    try:
        words.run(words)
    except Trouble as trouble:
        print(f"brokers: {trouble}", file=sys.stderr)
        sys.exit(69)


if __name__ == "__main__":
    main()
