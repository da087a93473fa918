"""What a service manager sees: sd_notify(3) spoken by an independent socket, a watchdog that notices one thread that hangs,
the unit judged by systemd's own tools, and what `cmake --install` puts where."""

import ctypes
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from clients import MosquittoSub as MqttSub
from clients import Web, curl, need, publish
from node import PATIENCE, PROGRAM, ROOT, STOP_S, Node, free_ports, wait_until
from test_sync import disk  # noqa: F401 a fixture

WATCHDOG_S = 0.8 * PATIENCE
PULSE_S = WATCHDOG_S / 4


class Manager:
    """The socket of a service manager."""

    def __init__(self, name):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + name[1:] if name[0] == "@" else name)
        self.environment = {"NOTIFY_SOCKET": name}

    def next(self, seconds=30 * PATIENCE):
        """The assignments of the next message; None: nothing came."""
        self.socket.settimeout(seconds)
        try:
            text = self.socket.recv(4096).decode()
        except TimeoutError:
            return None
        return dict(line.split("=", 1) for line in text.splitlines())

    def until(self, name):
        """The next message that has it; pulses in between are passed over."""
        while (message := self.next()) is not None:
            if name in message:
                return message
            assert list(message) == ["WATCHDOG"], message
        raise AssertionError(f"the manager is not told {name}")

    def is_silent(self):
        """For more than two pulses."""
        return self.next(3 * PULSE_S) is None

    def close(self):
        self.socket.close()


@pytest.fixture(params=["path", "abstract"])
def any_manager(tmp_path, request):
    manager = Manager(str(tmp_path / "notify") if request.param == "path" else f"@tidegate-test-{os.getpid()}")
    yield manager
    manager.close()


@pytest.fixture
def manager(tmp_path):
    manager = Manager(str(tmp_path / "notify"))
    manager.environment["WATCHDOG_USEC"] = str(int(WATCHDOG_S * 1e6))
    yield manager
    manager.close()


def test_what_the_manager_is_told(make_node, any_manager, tmp_path):
    file = tmp_path / "tidegate.yaml"
    file.write_text("ws:\n  ping_ms: 25s\n")
    node = make_node(environment=any_manager.environment, config=file)
    message = any_manager.next()
    assert message["READY"] == "1" and message["STATUS"]
    with urllib.request.urlopen(node.api("/readyz")) as answer:  # it was, before that was said
        assert answer.status == 200
    for text, told in (("ws:\n  ping_ms: 20s\n", "-> 20s"), ("nonsense: 1\n", "nothing has changed")):
        file.write_text(text)
        before = time.monotonic_ns() // 1000
        node.process.send_signal(signal.SIGHUP)
        message = any_manager.next()
        assert message["RELOADING"] == "1" and before <= int(message["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
        assert any_manager.next()["READY"] == "1"
        wait_until(lambda: told in node.log(), told)
    file.write_text("")
    node.process.send_signal(signal.SIGTERM)
    message = any_manager.next()
    assert message["STOPPING"] == "1" and "READY" not in message
    assert any_manager.is_silent()
    assert node.process.wait(STOP_S) == 0


def test_nobody_to_tell(make_node, tmp_path):
    """A manager that is not there, a name that is none, a watchdog of another process: the node serves."""
    for environment in ({"NOTIFY_SOCKET": str(tmp_path / "nobody"), "WATCHDOG_USEC": "100000"}, {"NOTIFY_SOCKET": "/" + "x" * 200}):
        node = make_node(environment=environment)
        publish(node, "t", b"1")
        wait_until(lambda: "service manager" in node.log(), "the warning")
    manager = Manager(str(tmp_path / "notify"))
    manager.environment.update({"WATCHDOG_USEC": "100000", "WATCHDOG_PID": "1"})
    make_node(environment=manager.environment)
    assert "READY" in manager.next() and manager.next(0.5) is None
    manager.close()


def threads(node):
    """name -> thread id"""
    tasks = Path(f"/proc/{node.pid}/task")
    return {(task / "comm").read_text().strip(): int(task.name) for task in tasks.iterdir()}


class Hold:
    """Stops one thread of a process, by ptrace(2), as if it hung; the others run."""

    ATTACH, DETACH, WALL = 16, 17, 0x40000000

    def __init__(self, thread):
        self.thread = thread
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
        if self.libc.ptrace(self.ATTACH, thread, None, None) != 0:
            error = os.strerror(ctypes.get_errno())
            (pytest.fail if os.environ.get("CI") else pytest.skip)(f"ptrace is not permitted here: {error}")
        os.waitpid(thread, self.WALL)

    def end(self):
        assert self.libc.ptrace(self.DETACH, self.thread, None, None) == 0


@pytest.mark.parametrize("name", ["loop 0", "loop 1"])
def test_a_loop_that_hangs_silences_the_watchdog(make_node, manager, name):
    node = make_node({"node.loops": 2}, environment=manager.environment)
    assert "READY" in manager.next()
    for _ in range(3):
        assert manager.next() == {"WATCHDOG": "1"}
    hold = Hold(threads(node)[name])
    try:
        wait_until(manager.is_silent, "the pulses to stop: a loop hangs")
    finally:
        hold.end()
    assert manager.next() == {"WATCHDOG": "1"}, "the loop moves again"


def test_a_writer_that_hangs_silences_the_watchdog(make_node, manager, disk):  # noqa: F811
    node = make_node(environment={**manager.environment, **disk.environment})
    assert "READY" in manager.next()
    assert manager.next() == {"WATCHDOG": "1"}
    disk.hold()
    publish(node, "t", b"1", "-H", "Tidegate-Wait: accepted", check=202)
    wait_until(disk.is_held, "a sync to be under way")
    wait_until(manager.is_silent, "the pulses to stop: the log's writer hangs")
    disk.release()
    assert manager.next() == {"WATCHDOG": "1"}, "the writer moves again"


def test_a_busy_node_pulses(make_node, manager):
    """It is no sign of life that matters only when there is nothing to do; and a drain is announced once."""
    node = make_node(environment=manager.environment)
    assert "READY" in manager.next()
    end = time.monotonic() + 2 * WATCHDOG_S
    while time.monotonic() < end:
        publish(node, "t", b"1")
    assert manager.next() == manager.next() == {"WATCHDOG": "1"}
    node.process.send_signal(signal.SIGTERM)
    assert manager.until("STOPPING")["STOPPING"] == "1"
    assert manager.is_silent() and node.process.wait(STOP_S) == 0


# --- sockets of the manager (sd_listen_fds(3)) ----------------------------------------------------------------------

# What a manager does between fork and exec: the sockets become 3, 4 ..., and the variables say so to this process.
LAUNCH = """import os, sys
fds, names, count, pid = sys.argv[1:5]
fds = [os.dup(int(fd)) for fd in fds.split(",") if fd]
fds = [fd if fd > 60 else os.dup2(fd, 61 + i) for i, fd in enumerate(fds)]
for i, fd in enumerate(fds):
    os.dup2(fd, 3 + i)
os.closerange(3 + len(fds), 200)
os.environ.update(LISTEN_FDS=count or str(len(fds)), LISTEN_PID=pid or str(os.getpid()))
if names:
    os.environ["LISTEN_FDNAMES"] = names
os.execv(sys.argv[5], sys.argv[5:])"""


class Handed(Node):
    """A node whose sockets are the test's."""

    def __init__(self, folder, sockets, names="", settings=None, count="", pid="", **options):
        super().__init__(folder, settings, **options)
        self.sockets = sockets  # or they would be closed
        self.pass_fds = tuple(each.fileno() for each in sockets)
        self.launch = [sys.executable, "-c", LAUNCH, ",".join(map(str, self.pass_fds)), names, count, pid]

    def command(self):
        return [*self.launch, *super().command()]


def listener(address="127.0.0.1", kind=socket.SOCK_STREAM, listens=True, share=False, port=0):
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
    if share:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind((address, port))
    if listens:
        made.listen(100)
    return made


def port_of(made):
    return made.getsockname()[1]


def serves_at_all_doors(node):
    with Web(node) as web, MqttSub(node, "t") as mqtt:
        web.subscribe("t")
        publish(node, "t", b"1")
        assert web.next()["text"] == "1" and mqtt.next() == ("t", b"1")


@pytest.mark.parametrize("names, loops", [("mqtt:http:api", 1), ("mqtt:http:api", 3), ("", 1), ("tidegate.socket:http:x", 2)])
def test_sockets_that_are_handed_over(tmp_path, names, loops):
    """By name, or by the port that is configured. They outlive the node: who connects meanwhile is served by the next."""
    sockets = [listener() for _ in range(3)]
    by_port = {} if names.startswith("mqtt") else {f"{door}.port": port_of(made) for door, made in zip(("mqtt", "http", "api"), sockets)}
    node = Handed(tmp_path, sockets, names, {"node.loops": loops, **by_port}).start()
    assert node.ports == {**node.ports, **{door: port_of(made) for door, made in zip(("mqtt", "http", "api"), sockets)}}
    serves_at_all_doors(node)
    if loops > 1:  # what every loop waits at is taken once
        assert [curl(node.api("/v1/history/t")).status for _ in range(20)] == [200] * 20
        webs = [Web(node, hello={}) for _ in range(20)]
        assert node.metric("tidegate_connections", '"ws"') == 20
        for web in webs:
            web.close()
    node.stop()
    with socket.create_connection(("127.0.0.1", port_of(sockets[2])), 30 * PATIENCE) as early:
        early.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        node.restart()
        assert early.recv(100).startswith(b"HTTP/1.1 200")
    node.check()


def test_a_socket_of_its_own_for_each_loop(tmp_path):
    """ReusePort=: as many equal ones as there are loops."""
    first = listener(share=True)
    sockets = [first, listener(share=True, port=port_of(first))]
    node = Handed(tmp_path, sockets, "mqtt:mqtt", {"node.loops": 2}).start()
    for _ in range(20):
        with MqttSub(node, "t"):
            pass
    node.check()
    for more in ({"node.loops": 1}, {"node.loops": 2, "mqtt.port": port_of(first) % 60000 + 1}):
        refuses(Handed(tmp_path, sockets, "mqtt:mqtt", more), "handed over")


def refuses(node, why):
    done = subprocess.run(node.command(), capture_output=True, text=True, timeout=60 * PATIENCE, pass_fds=node.pass_fds, cwd=ROOT)
    assert done.returncode == 78 and why in done.stderr, (done.returncode, done.stderr)


def test_sockets_that_are_not_what_is_configured(tmp_path):
    """Above all not at another address: who may stay anonymous depends on it."""
    node = lambda made, name, settings=None, **more: Handed(tmp_path, made, name, settings, **more)
    refuses(node([listener("0.0.0.0")], "http"), "0.0.0.0")
    refuses(node([listener("::1")], "http"), "http.bind")
    refuses(node([listener()], "api", {"api.port": 1}), "api.port")
    refuses(node([listener()], "x"), "FileDescriptorName")
    refuses(node([listener()], "mqtts"), "tls.cert_file")
    refuses(node([listener(), listener()], "api:api"), "2 sockets")
    refuses(node([listener(kind=socket.SOCK_DGRAM, listens=False)], "http"), "ListenStream")
    refuses(node([listener(listens=False)], "http"), "ListenStream")
    refuses(node([], "", count="1"), "file descriptor 3")
    refuses(node([], "", count="x"), "LISTEN_FDS")
    open_for_all = node([listener("0.0.0.0")], "http", {"http.bind": "0.0.0.0"}).start()
    with Web(open_for_all) as web:
        assert web.ask({"sub": {"topic": "a"}})["err"]["code"] == "unauthorized"
    open_for_all.check()
    others = node([listener()], "http", pid="1").start()
    serves_at_all_doors(others)  # with ports of its own: the variables are another process's
    others.check()


def test_systemd_hands_over(tmp_path):
    """By systemd's own tool, which starts the node with the first client."""
    ports = dict(zip(("mqtt", "http", "api"), free_ports(3)))

    class Activated(Node):
        def command(self):
            options = [word for port in ports.values() for word in ("-l", f"127.0.0.1:{port}")]
            kept = [f"--setenv={name}" for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS")]
            return [need("systemd-socket-activate"), *options, "--fdname=" + ":".join(ports), *kept, *super().command()]

        def is_ready(self):
            try:
                socket.create_connection(("127.0.0.1", ports["http"]), 5).close()
            except OSError:
                return False
            return super().is_ready()

    node = Activated(tmp_path).start()
    assert node.ports == {**node.ports, **ports}
    serves_at_all_doors(node)
    node.check_identities()
    node.stop()


# --- what is installed --------------------------------------------------------------------------------------------

INSTALLED = ("usr/bin/tidegate", "etc/tidegate/tidegate.yaml", "etc/default/tidegate", "usr/lib/systemd/system/tidegate.service", "usr/lib/systemd/system/tidegate.socket",
             "usr/lib/sysusers.d/tidegate.conf", "usr/lib/tmpfiles.d/tidegate.conf", "usr/share/tidegate/sysctl.conf",
             "usr/share/tidegate/openapi.json", "usr/share/tidegate/grafana/tidegate.json", "usr/share/tidegate/prometheus/tidegate.rules.yml",
             "usr/share/tidegate/demo/index.html", "usr/share/doc/tidegate/README.md",
             "usr/share/doc/tidegate/PROTOCOL.md")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """An installation below a folder. The prefix is given at configure time, as packagers do: paths stand in the unit."""
    folder = tmp_path_factory.mktemp("install")
    build = folder / "build"
    subprocess.run([need("cmake"), "-S", ROOT, "-B", build, "-G", "Ninja", "-DCMAKE_INSTALL_PREFIX=/usr", "-DTIDEGATE_TESTS=OFF",
                    "-DCMAKE_BUILD_TYPE=None"], check=True, capture_output=True)
    shutil.copy2(PROGRAM, build / "tidegate")
    subprocess.run([need("cmake"), "--install", build], check=True, capture_output=True, env={**os.environ, "DESTDIR": str(folder / "root")})
    return folder / "root"


def test_the_installation(root):
    for name in INSTALLED:
        assert (root / name).is_file(), name
    assert os.access(root / "usr/bin/tidegate", os.X_OK)
    done = subprocess.run([root / "usr/bin/tidegate", "config", "check", "--config", root / "etc/tidegate/tidegate.yaml"],
                          capture_output=True, text=True)
    assert done.stdout == "ok\n", done.stderr


def unit_of(root, tmp_path):
    """Its programs must be there when systemd looks at it."""
    text = (root / "usr/lib/systemd/system/tidegate.service").read_text()
    assert "@" not in re.sub(r"^#.*$|@(system-service|privileged)", "", text, flags=re.M) and text.count("/usr/bin/tidegate") == 3
    unit = tmp_path / "tidegate.service"
    unit.write_text(text.replace("/usr/bin/tidegate", str(PROGRAM)))
    return unit, text


def test_the_unit_is_one(root, tmp_path):
    unit, _ = unit_of(root, tmp_path)
    ports = tmp_path / "tidegate.socket"
    shutil.copy2(root / "usr/lib/systemd/system/tidegate.socket", ports)
    done = subprocess.run([need("systemd-analyze"), "verify", "--man=no", unit, ports], capture_output=True, text=True, timeout=60)
    complaints = [line for line in done.stderr.splitlines() if "tidegate" in line and "Failed to" not in line.split("tidegate")[0]]
    assert done.returncode == 0 and not complaints, done.stderr


def test_the_unit_gives_nothing_away(root, tmp_path):
    """systemd's measure of exposure, 0 (none) to 10, in tenths; mosquitto's own unit has 9.6."""
    unit, _ = unit_of(root, tmp_path)
    done = subprocess.run([need("systemd-analyze"), "security", "--offline=true", "--threshold=15", "--no-pager", unit],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr


def test_the_unit_says_what_the_program_does(root, tmp_path):
    """Exit codes that another start does not mend, the environment's keys, and time enough for the default drain."""
    _, text = unit_of(root, tmp_path)
    key = dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    assert key["Type"] == "notify" and int(key["WatchdogSec"]) > 0 and int(key["TimeoutStopSec"]) > 10
    assert key["RestartPreventExitStatus"].split() == ["2", "77", "78"]
    names = subprocess.run([PROGRAM, "config", "env"], capture_output=True, text=True, check=True).stdout
    for word in key["Environment"].split():
        assert word.split("=")[0] in names, word
    environment = {**os.environ, **dict(word.split("=", 1) for word in key["Environment"].replace("%S", str(tmp_path)).split())}
    shown = subprocess.run([PROGRAM, "config", "show"], capture_output=True, text=True, env=environment)
    assert shown.returncode == 0 and f'dir: "{tmp_path}/tidegate"' in shown.stdout, shown.stderr
