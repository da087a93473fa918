"""The parent of the Kafka brokers in a folder: brokers.py starts it and speaks to it, through the socket FOLDER/keeper.

Whatever ends it ends them: they are killed when their parent dies (PR_SET_PDEATHSIG). It counts its users by their
connections, which the kernel closes for those that die. A line is a request, a JSON array; its answer is a line too.
One thread, which waits while a broker starts or ends: users then wait as well."""

import ctypes
import json
import os
import re
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from base64 import urlsafe_b64encode
from pathlib import Path

from brokers import LISTENERS, PASSWORD, USER, Trouble

HEAP = "192m"  # the page cache, not the heap, holds the messages
BEGIN_S, END_S, NOBODY_S = 90, 30, 30
PR_SET_PDEATHSIG = 1
SECURE = {  # listener -> protocol
    "sasl": "SASL_SSL",
    "tls": "SSL",
}


def identifier():
    """Of a cluster or a folder. As Kafka's own: never with a leading hyphen, one of 64 has it, which its tools take for an option."""
    while (drawn := urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return drawn


def dies_with_parent():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Broker:
    def __init__(self, keeper, number):
        self.keeper, self.number = keeper, number
        self.folder = keeper.folder / f"broker{number}"
        self.process, self.frozen = None, False

    def java(self, main, *words, heap=HEAP):
        return ["java", f"-Xms{heap}", f"-Xmx{heap}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:MaxDirectMemorySize=128m",
                "-Djava.awt.headless=true", "-cp", self.keeper.wanted["class_path"], main, *map(str, words)]

    def port(self, listener, number=None):
        return self.keeper.wanted["ports"][((number or self.number) - 1) * len(LISTENERS) + LISTENERS.index(listener)]

    def settings(self):
        count, tls = self.keeper.wanted["count"], self.keeper.wanted["tls"]
        names = LISTENERS if tls else ("plain", "controller")
        at = {name: f"{name.upper()}://{self.keeper.wanted['host']}:{self.port(name)}" for name in names}
        sure = {"replication.factor": count, "min.isr": min(count, 2), "num.partitions": 4}
        made = {
            "process.roles": "broker,controller",
            "node.id": self.number,
            "controller.quorum.voters": ",".join(f"{i}@{self.keeper.wanted['host']}:{self.port('controller', i)}" for i in range(1, count + 1)),
            "listeners": ",".join(at.values()),
            "advertised.listeners": ",".join(address for name, address in at.items() if name != "controller"),
            "listener.security.protocol.map": ",".join(f"{name.upper()}:{SECURE.get(name, 'PLAINTEXT')}" for name in names),
            "inter.broker.listener.name": "PLAIN",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": self.folder / "data",
            "default.replication.factor": count,
            "min.insync.replicas": min(count, 2),
            "auto.create.topics.enable": "false",
            "group.initial.rebalance.delay.ms": 0,
            "num.network.threads": 2,
            "num.io.threads": 2,
            "num.partitions": 4,
            "log.segment.bytes": 1 << 26,
            "log.cleaner.dedupe.buffer.size": 1 << 23,
            # A broker that is gone is noticed after this: tests wait for it.
            "broker.session.timeout.ms": 6000,
            "broker.heartbeat.interval.ms": 1000,
            "controller.quorum.election.timeout.ms": 1000,
            "controller.quorum.fetch.timeout.ms": 2000,
            **{f"offsets.topic.{key}": value for key, value in sure.items() if key != "min.isr"},
            **{f"transaction.state.log.{key}": value for key, value in sure.items()},
            "share.coordinator.state.topic.replication.factor": count,
            "share.coordinator.state.topic.min.isr": min(count, 2),
        }
        return {**made, **(self.secure(*tls) if tls else {}), **self.keeper.wanted["settings"]}

    def secure(self, authority, certificate, key):
        chain = self.folder / "broker.pem"
        chain.write_text("".join(Path(file).read_text() for file in (key, certificate)))
        chain.chmod(0o600)
        login = "org.apache.kafka.common.security.{} required{};"
        names = {"plain": login.format("plain.PlainLoginModule", f' user_{USER}="{PASSWORD}"'),
                 "scram-sha-256": login.format("scram.ScramLoginModule", ""),
                 "scram-sha-512": login.format("scram.ScramLoginModule", "")}
        return {"ssl.keystore.type": "PEM", "ssl.keystore.location": chain, "ssl.truststore.type": "PEM",
                "ssl.truststore.location": authority, "ssl.enabled.protocols": "TLSv1.3,TLSv1.2",
                "listener.name.tls.ssl.client.auth": "required",
                "sasl.enabled.mechanisms": ",".join(name.upper() for name in names),
                **{f"listener.name.sasl.{name}.sasl.jaas.config": line for name, line in names.items()}}

    def prepare(self):
        """Its configuration, and what it finds in its folder at its first start."""
        self.folder.mkdir(exist_ok=True)
        lines = "".join(f"{key}={value}\n" for key, value in self.settings().items())
        (self.folder / "server.properties").write_text(lines)
        data = self.folder / "data"
        if data.is_dir():
            return
        if self.number == 1:
            users = [word for kind in ("256", "512") for word in
                     ("--add-scram", f"SCRAM-SHA-{kind}=[name={USER},password={PASSWORD}]")] if self.keeper.wanted["tls"] else []
            done = subprocess.run(self.java("kafka.tools.StorageTool", "format", "-t", self.keeper.cluster, "-c",
                                            self.folder / "server.properties", *users, heap="96m"),
                                  stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=BEGIN_S)
            if done.returncode != 0:
                raise Trouble("Kafka's folder could not be made:\n" + done.stdout[-2000:] + done.stderr[-2000:])
            return
        # A second Java for the same but the number would take as long as the first.
        shutil.copytree(self.folder.parent / "broker1" / "data", data)
        facts = (data / "meta.properties").read_text()
        facts = re.sub(r"(?m)^node\.id=.*", f"node.id={self.number}", facts)
        (data / "meta.properties").write_text(re.sub(r"(?m)^directory\.id=.*", f"directory.id={identifier()}", facts))

    def launch(self):
        self.log = self.folder / "log"
        with open(self.log, "a") as out:
            self.said = out.tell()
            self.process = subprocess.Popen(self.java("kafka.Kafka", self.folder / "server.properties"), stdout=out, stderr=out,
                                            stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=dies_with_parent)
        self.frozen = False

    def await_service(self):
        deadline = time.monotonic() + BEGIN_S
        while True:
            with open(self.log, errors="replace") as told:
                told.seek(self.said)
                text = told.read()
            if "Kafka Server started" in text:
                return
            if self.process.poll() is not None or time.monotonic() > deadline:
                why = "has ended" if self.process.poll() is not None else f"does not serve after {BEGIN_S} s"
                raise Trouble(f"broker {self.number} {why}; its log ends with\n" + "\n".join(text.splitlines()[-30:]))
            time.sleep(0.05)

    def running(self):
        return self.process is not None and self.process.poll() is None

    def signal(self, number):
        if self.running():
            self.process.send_signal(number)
        self.frozen = self.running() and number == signal.SIGSTOP

    def kill(self):
        self.signal(signal.SIGKILL)
        if self.process:
            self.process.wait()

    def end(self):
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            if self.process:
                self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.kill()

    def begin(self):
        self.signal(signal.SIGCONT)
        if not self.running():
            self.launch()
            self.await_service()

    def state(self):
        return "frozen" if self.frozen else "runs" if self.running() else "down"


class Keeper:
    def __init__(self, folder, wanted):
        self.folder, self.wanted = folder, wanted
        self.trouble, self.users, self.closed = None, {}, False
        self.events = selectors.DefaultSelector()
        known = folder / "cluster"
        if known.exists():  # its ports and its number of brokers are those that its data has
            before = json.loads(known.read_text())
            self.wanted = {**wanted, **{key: before[key] for key in ("count", "ports", "host", "tls", "settings")}}
            self.cluster = before["cluster"]
        else:
            self.cluster = identifier()
            known.write_text(json.dumps({**wanted, "cluster": self.cluster}))
        self.brokers = [Broker(self, number) for number in range(1, self.wanted["count"] + 1)]

    def listen(self):
        path = self.folder / "keeper"
        path.unlink(missing_ok=True)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(64)
        self.events.register(self.listener, selectors.EVENT_READ)

    def start(self):
        try:
            for broker in self.brokers:
                broker.prepare()
            for broker in self.brokers:
                broker.launch()
            for broker in self.brokers:
                broker.await_service()
        except (Trouble, OSError, subprocess.SubprocessError) as trouble:
            self.trouble = str(trouble)

    def answer(self, words):
        command = words[0]
        if self.trouble:
            return {"trouble": self.trouble}
        if command == "hello":
            return {"count": self.wanted["count"], "ports": self.wanted["ports"], "host": self.wanted["host"], "cluster": self.cluster, "tls": self.wanted["tls"],
                    "pid": os.getpid()}
        if command == "states":
            return {broker.number: broker.state() for broker in self.brokers}
        if command == "close":
            self.closed = True
            return {}
        if not 1 <= words[1] <= len(self.brokers):
            return {"trouble": f"there is no broker {words[1]}"}
        broker = self.brokers[words[1] - 1]
        act = {"kill": broker.kill, "end": broker.end, "begin": broker.begin,
               "freeze": lambda: broker.signal(signal.SIGSTOP), "thaw": lambda: broker.signal(signal.SIGCONT)}
        try:
            act[command]()
        except Trouble as trouble:
            return {"trouble": str(trouble)}
        return {}

    def turn(self, wait_s):
        for key, _ in self.events.select(wait_s):
            if key.fileobj is self.listener:
                user = self.listener.accept()[0]
                self.users[user] = b""
                self.events.register(user, selectors.EVENT_READ)
            else:
                self.hear(key.fileobj)

    def hear(self, user):
        try:
            got = user.recv(65536)
            *lines, self.users[user] = (self.users[user] + got).split(b"\n")
            for line in lines:
                answer = self.answer(json.loads(line))
                if self.closed:
                    self.end()  # before the answer: whoever has it finds nothing that runs
                user.sendall((json.dumps(answer) + "\n").encode())
        except OSError:
            got = b""
        if not got:
            self.events.unregister(user)
            del self.users[user]
            user.close()

    def end(self):
        (self.folder / "keeper").unlink(missing_ok=True)
        for broker in self.brokers:
            broker.kill()  # a kernel keeps what a broker has written; three that end politely wait for one another

    def serve(self):
        self.listen()
        self.start()
        while not self.closed:
            self.turn(None if self.users else NOBODY_S)
            if not self.users and (self.trouble or not self.wanted["stay"]):
                break


def main():
    folder = Path(sys.argv[1])
    keeper = Keeper(folder, json.loads(sys.argv[2]))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(0))
    try:
        keeper.serve()
    finally:
        keeper.end()
        if not keeper.wanted["stay"]:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
