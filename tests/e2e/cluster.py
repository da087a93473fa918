"""Three nodes, each in a network namespace of its own, and a fourth one with three Kafka brokers and a Redis: so a test can
cut a node off from one of them, in both directions or in one. Clients are in the namespace of the node that they speak to,
on its loopback: a cut takes none from it.

                    hub 10.77.0.1: brokers, Redis
      bridge ---+--------------+--------------+
            a 10.77.0.2    b 10.77.0.3    c 10.77.0.4

A namespace lives as long as a process that holds it; nothing of it is left when the test is killed."""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from clients import curl, need
from kafka_server import Three
from node import PRESET, ROOT, STOP_S, Node, kafka_settings, wait_until
from redis_server import Redis

sys.path.insert(0, str(ROOT / "tools" / "kafka"))
from brokers import Brokers  # noqa: E402

HUB, NAMES = "10.77.0.1", "abc"
CLONE_NEWNET, PR_SET_PDEATHSIG = 0x40000000, 1
EXIT_RETRY = 75
DOORS = {"mqtt.port": 1883, "http.port": 8080, "api.port": 8081}
# Longer than any fault lasts: nobody is declared dead here (test_lost_nodes.py), nodes come back as they were.
DIRECTORY = {"directory.redis.lease_ms": 15000, "directory.redis.timeout_ms": 1500, "directory.redis.retry_max_ms": 200}
CHAINS = {"in": ("input", "s"), "out": ("output", "d")}  # whose address and port are the hub's
libc = ctypes.CDLL(None, use_errno=True)


def sure(code):
    if code != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


class Space:
    """A network namespace."""

    def __init__(self):
        def dies_with_parent():
            sure(libc.unshare(CLONE_NEWNET))
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

        self.holder = subprocess.Popen(["sleep", "infinity"], preexec_fn=dies_with_parent, stdin=subprocess.DEVNULL)
        self.path = f"/proc/{self.holder.pid}/ns/net"
        self.run("ip", "link", "set", "lo", "up")

    @contextlib.contextmanager
    def entered(self):
        """This thread is in it; so is whatever it starts, processes and threads, for ever."""
        with open("/proc/thread-self/ns/net") as before, open(self.path) as there:
            sure(libc.setns(there.fileno(), CLONE_NEWNET))
            try:
                yield
            finally:
                sure(libc.setns(before.fileno(), CLONE_NEWNET))

    def run(self, *words, text=None):
        with self.entered():
            subprocess.run([need(words[0]), *words[1:]], input=text, text=True, check=True, timeout=60)

    def close(self):
        self.holder.kill()
        self.holder.wait()


class Placed(Node):
    """A node in a namespace. Clients of it are made `with node.inside()`."""

    def __init__(self, space, folder, settings):
        self.space = space
        super().__init__(folder, {**DOORS, **settings})

    def inside(self):
        return self.space.entered()

    def start(self):
        with self.inside():
            return super().start()

    def check(self):
        with self.inside():
            super().check()

    def connect(self, *words, **options):
        with self.inside():
            return super().connect(*words, **options)

    def ready(self):
        with self.inside():
            return curl(self.api("/readyz"), check=None).json()

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)

    # What is cut: packets to or from these ports of the hub.

    def cut(self, ports, ways=("in", "out")):
        numbers = ", ".join(map(str, ports))
        rules = "".join(f"chain {chain} {{ type filter hook {chain} priority 0;\n"
                        f"ip {side}addr {HUB} tcp {side}port {{ {numbers} }} drop\n}}\n"
                        for chain, side in (CHAINS[way] for way in ways))
        self.space.run("nft", "-f", "-", text=f"table ip cut {{\n{rules}}}\n")

    def heal(self):
        self.space.run("nft", "-f", "-", text="table ip cut\ndelete table ip cut\n")


class Cluster:
    """`settings`: of each node."""

    def __init__(self, folder, settings=None):
        self.folder, self.settings = Path(folder), settings or {}
        self.nodes, self.spaces, self.brokers, self.redis = [], [], None, None

    def __enter__(self):
        try:
            self.hub = self.space()
            self.hub.run("ip", "link", "add", "bridge", "type", "bridge")
            self.hub.run("ip", "addr", "add", f"{HUB}/24", "dev", "bridge")
            self.hub.run("ip", "link", "set", "bridge", "up")
            with self.hub.entered():
                self.brokers = Brokers(self.folder / "kafka", count=3, host=HUB).join()
                self.redis = Redis(self.folder, host=HUB).start()
                self.kafka = Three(self.brokers)
                self.kafka.heal()
            for number, name in enumerate(NAMES, 2):
                self.add(name, f"10.77.0.{number}")
        except BaseException:
            self.close()
            raise
        return self

    def space(self):
        made = Space()
        self.spaces.append(made)
        return made

    def add(self, name, address):
        space = self.space()
        self.hub.run("ip", "link", "add", f"to-{name}", "type", "veth", "peer", "name", "eth0", "netns", str(space.holder.pid))
        self.hub.run("ip", "link", "set", f"to-{name}", "master", "bridge", "up")
        space.run("ip", "addr", "add", f"{address}/24", "dev", "eth0")
        space.run("ip", "link", "set", "eth0", "up")
        with self.hub.entered():
            log = kafka_settings(self.brokers.servers(), self.kafka.prefix, 3)
        folder = self.folder / name
        folder.mkdir()
        node = Placed(space, folder, {**log, **DIRECTORY, "node.id": name, "log.partitions": 4,
                                      "directory.redis.url": self.redis.url(), **self.settings})
        if self.nodes:  # the tokens of one are good at all
            node.data.mkdir()
            shutil.copy(self.nodes[0].data / "token.key", node.data)
        self.nodes.append(node.start())

    def await_ready(self, seconds=60):
        for node in self.nodes:
            if node.process.poll() == EXIT_RETRY:  # it says why; its supervisor starts it again
                node.killed = True
                node.restart()
            wait_until(lambda node=node: node.ready().get("status") == "ok", f"{node.settings['node.id']} to be ready", seconds)

    @property
    def kafka_ports(self):
        return [int(server.rsplit(":", 1)[1]) for server in self.brokers.servers().split(",")]

    def leader(self, partition):
        """The broker that leads it."""
        with self.hub.entered():
            return wait_until(lambda: self.kafka.leader(f"{self.kafka.prefix}.log", partition), "the partition to have a leader")

    def heal_brokers(self):
        with self.hub.entered():
            self.kafka.heal()

    def new_redis(self):
        """Another one in its place, which knows nothing."""
        self.redis.stop()
        with self.hub.entered():
            self.redis = Redis(self.folder, host=HUB, port=self.redis.port).start()

    def await_rest(self):
        """Nobody is connected, and for a second no node has had a record to read: a connection that ends may leave one."""
        told, since = None, time.monotonic()

        def rests():
            nonlocal told, since
            before, told = told, []
            for node in self.nodes:
                with node.inside():
                    rows = node.metrics()
                told.append([rows[f"tidegate_kafka_{name}"] for name in ("records_total", "under_way", "lag_records")])
            if told != before or any(row[1:] != [0, 0] for row in told):
                since = time.monotonic()
            return time.monotonic() > since + 1
        wait_until(rests, "the nodes to have nothing more to do")

    def check(self):
        """Each is in good health, and has folded the same out of the log."""
        self.await_rest()
        for node in self.nodes:
            with node.inside():
                node.check_identities()
        for node in self.nodes:  # all at once: who stops alone is declared dead by the others, a record more
            node.process.send_signal(signal.SIGTERM)
        for node in self.nodes:
            assert node.process.wait(STOP_S) == 0, node.log()
            node.collector.join(STOP_S)
        first, *others = [node.states("stop") for node in self.nodes]
        for node in self.nodes:
            if PRESET == "dev":  # what a start folds does not depend on the compiler
                node.check_fold()
            node.check()
        assert first and others == [first] * len(others), f"not the same state at every node: {[first, *others]}"

    def close(self):
        for node in self.nodes:
            if node.process and node.process.poll() is None:
                node.process.kill()
                node.process.wait()
        if self.redis:
            self.redis.stop()
        if self.brokers:
            self.brokers.leave()
        for space in self.spaces:
            space.close()

    def __exit__(self, *_):
        self.close()
