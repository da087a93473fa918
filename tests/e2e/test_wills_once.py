"""A will whose node is killed between its publish and the record that ends it is in the log once. The disk's syncs are held
back (slow_disk.c): the will is written and not yet durable, so its record still has it."""

import struct
import subprocess

import pytest

from clients import history, need
from log_tool import log
from mqtt_wire import Wire, connect
from node import ROOT, wait_until
from test_mqtt_five import will_rest
from test_mqtt_sessions import DELAY, expiry, keep, present
from test_sync import Disk

ANSWERED, DELAYED = 0, 3600


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    library = tmp_path_factory.mktemp("shim") / "slow_disk.so"
    subprocess.run([need("gcc"), "-O1", "-shared", "-fPIC", "-o", library, ROOT / "tests/e2e/slow_disk.c"], check=True)
    return library


@pytest.fixture
def disk(tmp_path, library):
    return Disk(tmp_path, library)


def leaves(node, client, delay_s, session_s=600, topic="w/once"):
    return Wire(node, 5, client, flags=0x0C | 0x02, props=expiry(session_s),
                rest=will_rest(topic, b"gone", 5, DELAY + struct.pack(">I", delay_s)))


def is_gone(node, wire):
    """And its record says so: that is written when the connection ends, at once."""
    before = node.metric("tidegate_session_writes_total", '"ok"')
    wire.close()
    wait_until(lambda: node.metric("tidegate_session_writes_total", '"ok"') > before, "the record without a connection")


def killed_in_between(node, disk, topic="w/once"):
    """What is written outlives the process; what waits for its sync has not been begun."""
    wait_until(lambda: disk.is_held() and log("cat", "--topic", topic, data=node.data).out, "the will to be written")
    node.kill9()
    disk.release()
    node.restart()


@pytest.mark.parametrize("session_s", [0, 600])
def test_of_a_connection_that_is_lost(make_node, disk, session_s):
    node = make_node(environment=disk.environment)
    wire = leaves(node, "lost", ANSWERED, session_s)
    disk.hold()
    wire.close()
    killed_in_between(node, disk)
    # The record is looked at again: its node is not there any more. That is done when the duplicate is counted.
    wait_until(lambda: node.metrics()["tidegate_duplicates_total"] == 1, "the second to be known")
    assert len(history(node, "w/once")) == 1
    node.stop()
    node.restart()
    assert len(history(node, "w/once")) == 1


def test_of_a_session_that_a_clean_start_ends(make_node, disk):
    node = make_node(environment=disk.environment)
    is_gone(node, leaves(node, "back", DELAYED, 7200))
    disk.hold()
    waiting = node.connect("mqtt")
    waiting.sendall(connect(5, "back"))
    killed_in_between(node, disk)
    waiting.close()
    with Wire(node, 5, "back") as back:
        assert not present(back)
    assert node.metrics()["tidegate_duplicates_total"] == 1
    assert len(history(node, "w/once")) == 1


def test_of_a_delay_that_has_ended(make_node, disk):
    """The disk must be held before the delay ends: of clients with longer and longer delays one will do."""
    node = make_node(environment=disk.environment)
    for delay_s in (1, 2, 4, 8, 16):
        topic = f"w/{delay_s}"
        is_gone(node, leaves(node, f"late{delay_s}", delay_s, topic=topic))
        disk.hold()
        if not history(node, topic):
            break
        disk.release()
        wait_until(lambda: history(node, topic), "the will")
    killed_in_between(node, disk, topic)
    wait_until(lambda: node.metrics()["tidegate_duplicates_total"] == 1, "the second to be known")
    assert len(history(node, topic)) == 1


def test_the_next_will_of_a_session_is_another(make_node):
    """Of one session, one connection after the other."""
    node = make_node()
    for number in range(1, 4):
        wire = keep(node, 5, "again", flags=0x0C, rest=will_rest("w/many", b"%d" % number, 5))
        assert present(wire) == (number > 1)
        wire.close()
        wait_until(lambda: len(history(node, "w/many")) == number, "its will")
    assert node.metrics()["tidegate_duplicates_total"] == 0


def test_delays_that_end_while_the_node_stops(make_node):
    """They end at the next start, and what was begun leaves nothing behind (under ASan: no memory)."""
    node = make_node()
    for number in range(150):
        leaves(node, f"s{number}", 1, topic=f"w/stop/{number}").close()
    wait_until(lambda: history(node, "w/stop/0"), "the first to be due")
    node.stop()
    node.restart()
    for number in range(150):
        wait_until(lambda: history(node, f"w/stop/{number}"), f"will {number}")
    assert node.metrics()["tidegate_duplicates_total"] == 0
