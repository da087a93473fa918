"""Bridges that are added, removed and changed by SIGHUP, and what an operator is told of one that is not connected."""

import json
import socket
import subprocess

import pytest

from clients import curl, module
from mqtt_wire import packet
from node import PROGRAM, WAIT_S, free_ports, wait_until
from test_bridge import FAST, Broker, Client, curl_publish, dropped, read_packet
from test_reload import reload, write


@pytest.fixture(scope="module")
def shared_broker(tmp_path_factory):
    module("paho.mqtt.client")
    broker = Broker(tmp_path_factory.mktemp("mosquitto"))
    yield broker
    broker.close()


@pytest.fixture
def closing():
    made = []
    yield lambda thing: made.append(thing) or thing
    for thing in reversed(made):
        thing.close()


class Configured:
    """A node whose bridges are in a file: {name: (port, more of the bridge, topics)}."""

    def __init__(self, make_node, tmp_path, bridges, settings=None):
        self.file = tmp_path / "tidegate.yaml"
        self.write(bridges)
        self.node = make_node({"node.id": "n", **(settings or {})}, config=self.file)

    def write(self, bridges):
        rows = [{"name": name, "host": "127.0.0.1", "port": port, **FAST, **more} for name, (port, more, _) in bridges.items()]
        topics = [{"bridge": name, **topic} for name, (_, _, topics) in bridges.items() for topic in topics]
        write(self.file, json.dumps({"bridges": rows, "bridge_topics": topics}))

    def reload(self, bridges):
        self.write(bridges)
        return reload(self.node)

    def told(self):
        nodes = json.loads(curl(self.node.api("/v1/nodes")).body)["nodes"]
        return {bridge["name"]: bridge for bridge in nodes[0]["bridges"]}

    def wait_connected(self, *names):
        wait_until(lambda: all(self.told()[name]["connected"] for name in names), "the bridges to be connected", 30)


def out(name, prefix="up"):
    return {"filter": "#", "direction": "out", "local_prefix": f"{prefix}/", "remote_prefix": f"{name}/"}


def accept(listener):
    """A remote by hand, 3.1.1: up to its CONNACK, and its SUBACK where there is one."""
    wire, _ = listener.accept()
    wire.settimeout(WAIT_S)
    assert read_packet(wire)[0] == 0x10
    wire.sendall(packet(0x20, b"\0\0"))
    return wire


def test_added_removed_and_changed(make_node, shared_broker, tmp_path, closing):
    port = shared_broker.port
    there = closing(Client(port, "stay/#", "old/#", "new/#", "more/#", "gone/#"))
    incoming = {"filter": "#", "direction": "in", "local_prefix": "down/"}
    bridges = {"stay": (port, {"client_id": "r-stay"}, [out("stay")]),
               "change": (port, {"client_id": "r-change"}, [out("old"), {**incoming, "remote_prefix": "first/"}]),
               "remove": (port, {"client_id": "r-remove"}, [out("gone")])}
    gate = Configured(make_node, tmp_path, bridges)
    node = gate.node
    gate.wait_connected("stay", "change", "remove")
    before = gate.told()
    assert node.metrics()["tidegate_bridges"] == 3
    del bridges["remove"]
    bridges["change"] = (port, {"client_id": "r-change"}, [out("new", "upward"), {**incoming, "remote_prefix": "second/"}])
    bridges["add"] = (port, {"client_id": "r-add"}, [out("more", "upward")])
    done = gate.reload(bridges)
    assert done.returncode == 0 and "0 need a restart" in done.stdout, done.stdout + done.stderr
    gate.wait_connected("stay", "change", "add")
    assert list(gate.told()) == ["stay", "change", "add"]
    wait_until(lambda: node.metrics()["tidegate_bridges"] == node.metrics()["tidegate_bridges_connected"] == 3, "the removed bridge to go")
    after = gate.told()["stay"]
    assert (after["since_ms"], after["reconnects"]) == (before["stay"]["since_ms"], 0), "the bridge that did not change was disturbed"
    here = closing(Client(node.ports["mqtt"], "down/#"))
    for topic in ("first/x", "second/x"):
        there.publish(topic, topic.encode())
    assert here.next() == ("down/x", b"second/x")
    for topic in ("up/x", "upward/x"):
        curl_publish(node, topic, 1)
    assert sorted(there.next()[0] for _ in range(3)) == ["more/x", "new/x", "stay/x"]
    assert there.messages.empty() and here.messages.empty() and dropped(node, "no_route") == 0
    wait_until(lambda: "bridge removed bridge=remove" in node.log(200), "the log to say so")


def test_a_wrong_configuration_changes_nothing(make_node, shared_broker, tmp_path, closing):
    port = shared_broker.port
    there = closing(Client(port, "kept/#"))
    bridges = {"kept": (port, {"client_id": "w-kept"}, [out("kept")])}
    gate = Configured(make_node, tmp_path, bridges)
    gate.wait_connected("kept")
    before = gate.told()
    for more, topics, words in (({"ca_file": "/not/there"}, [out("x")], "bridges: fresh: ca_file: cannot read /not/there"),
                                ({}, [{"filter": "a/#/b"}], "filter must be"),
                                ({"version": "3.1.1"}, [{"filter": "a", "direction": "both"}], "come back")):
        done = gate.reload({"fresh": (port, {"client_id": "w-fresh", **more}, topics)})
        assert done.returncode != 0 and words in done.stdout + done.stderr, done.stdout + done.stderr
    gate.write(bridges)
    assert gate.told() == before and gate.node.metrics()["tidegate_bridges"] == 1
    curl_publish(gate.node, "up/x", 1)
    assert there.next() == ("kept/x", b"1")


def test_what_is_under_way_is_settled(make_node, tmp_path):
    """The remote has a message and takes its time: the change waits for PUBACK, and the message is not sent again."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        gate = Configured(make_node, tmp_path, {"b": (port, {"version": "3.1.1"}, [out("one")])})
        wire = accept(listener)
        gate.wait_connected("b")
        curl_publish(gate.node, "up/x", 1)
        first, body = read_packet(wire)
        assert first & 0xF6 == 0x32, first
        assert gate.reload({"b": (port, {"version": "3.1.1"}, [out("two")])}).returncode == 0
        wire.sendall(packet(0x40, body[2 + body[1]:][:2]))
        assert read_packet(wire)[0] == 0xE0, "no DISCONNECT"
        wire.close()
        wire = accept(listener)
        curl_publish(gate.node, "up/y", 2)
        first, body = read_packet(wire)
        assert body[2:2 + body[1]] == b"two/y", f"sent again, or not changed: {body}"
        wire.sendall(packet(0x40, body[2 + body[1]:][:2]))
        wait_until(lambda: gate.told()["b"]["out"] == 2, "the acknowledgement")
        wire.close()


def test_a_remote_that_does_not_settle_delays_nothing_for_long(make_node, tmp_path):
    """What it has not acknowledged it gets again by the changed bridge."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        gate = Configured(make_node, tmp_path, {"b": (port, {"version": "3.1.1"}, [out("one")])})
        wire = accept(listener)
        gate.wait_connected("b")
        curl_publish(gate.node, "up/x", 1)
        assert read_packet(wire)[0] & 0xF6 == 0x32
        assert gate.reload({"b": (port, {"version": "3.1.1"}, [out("two")])}).returncode == 0
        again = accept(listener)
        first, body = read_packet(again)
        assert body[2:2 + body[1]] == b"two/x", body
        again.sendall(packet(0x40, body[2 + body[1]:][:2]))
        wait_until(lambda: gate.told()["b"]["out"] == 1, "the acknowledgement")
        again.close()
        wire.close()


def test_a_removed_bridge_is_owed_for_a_while(make_node, shared_broker, tmp_path, closing):
    """Its session is kept for session.expiry_ms: who has removed it by mistake and adds it again has lost nothing."""
    port = shared_broker.port
    there = closing(Client(port, "again/#"))
    bridges = {"b": (port, {"client_id": "a-b"}, [out("again")])}
    gate = Configured(make_node, tmp_path, bridges)
    gate.wait_connected("b")
    assert gate.reload({}).returncode == 0 and gate.told() == {}
    wait_until(lambda: gate.node.metrics()["tidegate_bridges"] == 0, "the bridge to be gone")
    curl_publish(gate.node, "up/x", 7)
    assert gate.reload(bridges).returncode == 0
    assert there.next() == ("again/x", b"7")
    assert gate.node.metrics()["tidegate_sessions"] == 1
    write(gate.file, json.dumps({"session": {"expiry_ms": "1s"}}))
    assert reload(gate.node).returncode == 0
    wait_until(lambda: gate.node.metrics()["tidegate_sessions"] == 0, "its session to end")


# --- what an operator is told ------------------------------------------------------------------------------------

def failures(node, reason):
    return node.metrics()[f'tidegate_bridge_failures_total{{reason="{reason}"}}']


def test_why_a_bridge_is_not_connected(make_node, tmp_path, certificates, closing):
    passwords, secret = tmp_path / "passwords", tmp_path / "secret"
    secret.write_text("wrong\n")
    subprocess.run(["mosquitto_passwd", "-b", "-c", passwords, "ali", "right"], check=True, capture_output=True)
    strict, tls, nobody = free_ports(3)
    closing(Broker(tmp_path, f"password_file {passwords}", "per_listener_settings false", f"listener {tls} 127.0.0.1",
                   f"certfile {certificates.pem('ec')}", f"keyfile {certificates.key('ec')}", port=strict))
    stranger = {"ca_file": str(certificates.pem("stranger-ca"))}
    gate = Configured(make_node, tmp_path, {
        "old": (strict, {"user": "ali", "password_file": str(secret), "version": "3.1.1"}, []),
        "new": (strict, {"user": "ali", "password_file": str(secret)}, []),
        "tls": (tls, stranger, []),
        "nobody": (nobody, {}, [])})
    wait_until(lambda: all(bridge["why"] for bridge in gate.told().values()), "an attempt of each")
    told = gate.told()
    words = {"old": "it refuses: Connection Refused: ", "new": "it refuses: ", "tls": "TLS: certificate verify failed",
             "nobody": "Connection refused"}
    for name, text in words.items():
        assert not told[name]["connected"] and text in told[name]["why"], told[name]
        wait_until(lambda: f"bridge not connected bridge={name}" in gate.node.log(1000), "the log to say so")
    assert failures(gate.node, "credentials") >= 2 and failures(gate.node, "tls") >= 1 and failures(gate.node, "unreachable") >= 1
    said = subprocess.run([PROGRAM, "status", "--data", gate.node.data], capture_output=True, text=True, timeout=WAIT_S).stdout
    assert "bridge tls: not connected: TLS: certificate verify failed in=0" in said, said
    secret.write_text("right\n")  # read at each connection
    gate.wait_connected("old", "new")
    assert gate.told()["new"]["why"] is None


def test_a_remote_with_a_limit_of_message_size(make_node, tmp_path):
    """5.0 tells it in CONNACK: what is larger is not sent, is counted, and does not stop what follows."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        gate = Configured(make_node, tmp_path, {"b": (listener.getsockname()[1], {}, [out("x")])})
        wire, _ = listener.accept()
        wire.settimeout(WAIT_S)
        assert read_packet(wire)[0] == 0x10
        wire.sendall(packet(0x20, b"\0\0\x05\x27" + (200).to_bytes(4, "big")))
        curl(gate.node.api("/v1/publish/up/large"), data=b"x" * 300)
        curl_publish(gate.node, "up/small", 1)
        first, body = read_packet(wire)
        assert body[2:2 + body[1]] == b"x/small"
        wait_until(lambda: dropped(gate.node, "too_large") == 1, "the large one to be counted")
        wire.close()
