"""No acknowledgement leaves any door before the record is on disk: the node runs on a disk whose syncs the test
holds back (slow_disk.c)."""

import select
import socket
import subprocess
import threading

import pytest

from clients import WAIT_S, MosquittoSub, Web, history, need, paho_client, publish
from mqtt_wire import PUBCOMP, Wire, publish as mqtt_publish, pubrel
from node import ROOT, wait_until

QUIET_S = 0.7


@pytest.fixture
def disk(tmp_path):
    library = tmp_path / "slow_disk.so"
    subprocess.run([need("gcc"), "-O1", "-shared", "-fPIC", "-o", library, ROOT / "tests/e2e/slow_disk.c"], check=True)
    return Disk(tmp_path, library)


class Disk:
    def __init__(self, folder, library):
        self.folder = folder
        # A sanitizer wants to be the first library; the shim does not mind coming before it.
        self.environment = {"LD_PRELOAD": str(library), "SLOW_DISK": str(folder),
                            "ASAN_OPTIONS": "verify_asan_link_order=0:detect_leaks=0:exitcode=66"}

    def hold(self):
        (self.folder / "held").unlink(missing_ok=True)
        (self.folder / "hold").touch()

    def release(self):
        (self.folder / "hold").unlink()

    def fail(self):
        (self.folder / "fail").touch()

    def heal(self):
        (self.folder / "fail").unlink()

    def is_held(self):
        return (self.folder / "held").exists()


class Senders:
    """One publish at each door, none of them answered yet; `acknowledged` names the doors that were."""

    def __init__(self, node):
        self.acknowledged = []
        self.web = Web(node)
        self.curl = threading.Thread(target=self.publish_by_curl, args=(node,), daemon=True)
        self.paho = paho_client("sender")
        self.paho.on_publish = lambda *_: self.acknowledged.append("mqtt")
        self.paho.connect("127.0.0.1", node.ports["mqtt"])
        self.paho.loop_start()
        wait_until(self.paho.is_connected, "paho to be connected")

    def publish_by_curl(self, node):
        try:
            publish(node, "sync/http", b"http")
        except AssertionError:  # refused, or the node is gone
            return
        self.acknowledged.append("http")

    def send(self):
        self.curl.start()
        self.paho.publish("sync/mqtt", b"mqtt", qos=1)
        self.request = self.web.request({"pub": {"topic": "sync/ws", "text": "ws"}})

    def look(self, seconds):
        """What has been acknowledged after so long."""
        try:
            if "ok" in self.web.answer(self.request, seconds):
                self.acknowledged.append("ws")
        except AssertionError:
            pass
        return sorted(self.acknowledged)

    def close(self):
        self.paho.loop_stop()
        self.web.close()
        self.curl.join(WAIT_S)


def test_no_acknowledgement_before_the_sync(make_node, disk):
    node = make_node(environment=disk.environment)
    senders = Senders(node)
    with MosquittoSub(node, "sync/#") as sub:
        disk.hold()
        senders.send()
        # Subscribers have it before the disk has: so the node has taken all three, and only the sync is missing.
        assert sorted(sub.next()[1] for _ in range(3)) == [b"http", b"mqtt", b"ws"]
        wait_until(disk.is_held, "a sync to be under way")
        assert senders.look(QUIET_S) == [], "acknowledged before the sync had returned"
        disk.release()
        wait_until(lambda: senders.look(0.1) == ["http", "mqtt", "ws"], "the acknowledgements")
    senders.close()
    for door in ("http", "mqtt", "ws"):
        assert len(history(node, f"sync/{door}")) == 1


def test_no_pubrec_before_the_sync(make_node, disk):
    """PUBREC says that the message is stored: the client may forget it then (MQTT-4.3.3-8)."""
    node = make_node(environment=disk.environment)
    for version in (4, 5):
        with Wire(node, version, f"two{version}") as wire:
            disk.hold()
            wire.send(mqtt_publish("sync/two", b"2", 2, 7, version))
            wait_until(disk.is_held, "the record to wait for its sync")
            early = not wire.quiet(QUIET_S)
            disk.release()
            assert not early, "PUBREC before the sync had returned"
            assert wire.packet() == (0x50, b"\x00\x07")
            wire.send(pubrel(7))
            assert wire.packet() == (0x70, b"\x00\x07")


def test_a_failed_sync_acknowledges_nothing_and_ends_the_node_with_75(make_node, disk):
    node = make_node(environment=disk.environment)
    senders = Senders(node)
    disk.fail()
    try:
        senders.send()
    except Exception as error:  # the node may be gone before the last one is sent
        assert "websockets" in type(error).__module__, error
    assert node.process.wait(WAIT_S) == 75
    node.killed = True  # it was us who broke its disk
    node.collector.join(WAIT_S)
    assert senders.acknowledged == [] and not any("ok" in answer for answer in senders.web.answers.values())
    senders.curl.join(WAIT_S)
    assert senders.acknowledged == []
    assert "sync" in node.log(), node.log()
    senders.paho.loop_stop()
    senders.web.end_loop()

    disk.heal()
    node.restart()
    publish(node, "sync/http", b"again")
    assert history(node, "sync/http")[-1]["text"] == "again"


def test_by_interval_acknowledgements_come_first_and_the_sync_follows(make_node, disk):
    """log.sync=interval: nobody waits for the disk, and the disk gets it all the same."""
    node = make_node({"log.sync": "interval:100"}, environment=disk.environment)
    senders = Senders(node)
    disk.hold()
    senders.send()
    wait_until(lambda: senders.look(0.1) == ["http", "mqtt", "ws"], "the acknowledgements")
    wait_until(disk.is_held, "the sync to come by itself")
    disk.release()
    senders.close()
    node.kill9()
    node.restart()
    for door in ("http", "mqtt", "ws"):
        assert len(history(node, f"sync/{door}")) == 1, "kill -9 loses nothing of what was acknowledged"


def pushed(sock, data, total, quiet_s=2):
    """How many bytes the other side takes, until it has not taken any for so long."""
    sent = 0
    while sent < total and select.select([], [sock], [], quiet_s)[1]:
        try:
            sent += sock.send(data[sent % len(data):], socket.MSG_DONTWAIT)
        except BlockingIOError:
            pass
    return sent


@pytest.mark.parametrize("packet", [pubrel(7), mqtt_publish("sync/two", b"", 2, 7, version=4)], ids=["PUBREL", "PUBLISH"])
def test_what_waits_for_the_record_of_a_session_is_bounded(make_node, disk, packet):
    """A client that goes on and on while the session's record cannot be written is not read, and not closed."""
    node = make_node(environment=disk.environment)
    wire = Wire(node, 4, "flood", flags=0)
    wire.send(mqtt_publish("sync/first", b"1", 2, 1, version=4))
    wire.packet()
    disk.hold()
    wire.send(pubrel(1))
    wait_until(disk.is_held, "the record to wait for its sync")
    total = 96 << 20
    taken = pushed(wire.socket, packet * 4096, total)
    assert taken < total, "the node takes in what it can never bound"
    assert node.metric("tidegate_connections", "mqtt") == 1
    disk.release()
    assert wire.packet()[0] >> 4 == PUBCOMP
    wire.close()
