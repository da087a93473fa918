"""Bridges, to and from a real mosquitto: prefixes, flags and properties, at least once across kill -9 of either side,
nothing acknowledged before it is durable, nothing that comes back to where it was."""

import contextlib
import itertools
import json
import os
import queue
import socket
import struct
import subprocess
import threading
import time

import pytest

from clients import WAIT_S, curl, module, need, paho_client
from node import PROGRAM, ROOT, free_ports, wait_until

FAST = {"retry_min_ms": 20, "retry_max_ms": 200}
OLD, NEW = 4, 5
NAMES = {OLD: "3.1.1", NEW: "5"}


class Broker:
    """A mosquitto of our own. Without persistence: what it acknowledged is gone when it is killed, and is not asked for."""

    def __init__(self, folder, *lines, port=None):
        self.port = port or free_ports(1)[0]
        self.config = folder / f"mosquitto-{self.port}.conf"
        self.config.write_text("\n".join([f"listener {self.port} 127.0.0.1", "allow_anonymous true", "user root",
                                          "max_queued_messages 0", *lines]) + "\n")
        self.start()

    def start(self):
        path = "/usr/sbin/mosquitto" if os.path.exists("/usr/sbin/mosquitto") else need("mosquitto")
        self.process = subprocess.Popen([path, "-c", str(self.config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(self.answers, "mosquitto to listen")

    def answers(self):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill9(self):
        self.process.kill()
        self.process.wait()

    close = kill9


class Client:
    """A paho client of whichever broker listens on that port."""

    def __init__(self, port, *filters, version=NEW, identifier=""):
        from paho.mqtt.subscribeoptions import SubscribeOptions
        self.messages, done = queue.Queue(), queue.Queue()
        self.client = client = paho_client(identifier, version)
        client.on_connect = client.on_subscribe = lambda *_: done.put(True)
        client.on_message = lambda _, __, m: self.messages.put(m)
        client.connect("127.0.0.1", port)
        client.loop_start()
        done.get(timeout=WAIT_S)
        for name in filters:
            client.subscribe(name, options=SubscribeOptions(1, retainAsPublished=True)) if version == NEW else client.subscribe(name, 1)
            done.get(timeout=WAIT_S)

    def publish(self, topic, payload, qos=1, **more):
        self.client.publish(topic, payload, qos, **more).wait_for_publish(WAIT_S)

    def next(self):
        m = self.messages.get(timeout=WAIT_S)
        return m.topic, m.payload

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()

    __enter__ = lambda self: self
    __exit__ = lambda self, *_: self.close()


@pytest.fixture
def closing():
    made = []
    yield lambda thing: made.append(thing) or thing
    for thing in made:
        thing.close()


@pytest.fixture(scope="module")
def shared_broker(tmp_path_factory):
    module("paho.mqtt.client")
    broker = Broker(tmp_path_factory.mktemp("mosquitto"))
    yield broker
    broker.close()


def settings(port, *topics, **more):
    """Of a node with a bridge `b` to that port; topics: dictionaries."""
    bridge = {"name": "b", "host": "127.0.0.1", "port": port, **FAST, **more}
    return {"bridges": json.dumps([bridge]), "bridge_topics": json.dumps([{"bridge": "b", **topic} for topic in topics])}


def wait_connected(node, count=1):
    wait_until(lambda: node.metrics()["tidegate_bridges_connected"] == count, "the bridge to be connected", 30)


def dropped(node, reason):
    return node.metric("tidegate_bridge_dropped_total", f'"{reason}"')


OUT = {"filter": "#", "direction": "out", "local_prefix": "up/", "remote_prefix": "site1/"}
IN = {"filter": "+/set", "direction": "in", "local_prefix": "down/", "remote_prefix": "orders/"}


@pytest.mark.parametrize("version", [OLD, NEW])
def test_prefixes_and_flags(make_node, shared_broker, closing, version):
    node = make_node({**settings(shared_broker.port, OUT, IN, version=NAMES[version], client_id=f"flags-{version}"), "node.id": "n"})
    wait_connected(node)
    here, there = closing(Client(node.ports["mqtt"], "down/#")), closing(Client(shared_broker.port, "site1/#"))
    here.publish(f"up/a/{version}", b"1")
    assert there.next() == (f"site1/a/{version}", b"1")
    there.publish("orders/x/other", b"not asked for")
    there.publish("orders/x/set", b"2", 2)
    assert here.next() == ("down/x/set", b"2")
    here.publish(f"up/kept/{version}", b"3", retain=True)
    wait_until(lambda: node.metric("tidegate_bridge_messages_total", '"out"') == 2, "the acknowledgement")
    late = closing(Client(shared_broker.port, f"site1/kept/{version}"))
    assert late.messages.get(timeout=WAIT_S).retain
    here.publish(f"up/kept/{version}", b"", retain=True)
    nodes = json.loads(curl(node.api("/v1/nodes")).body)["nodes"]
    assert nodes[0]["bridges"][0]["name"] == "b" and nodes[0]["bridges"][0]["connected"]
    told = subprocess.run([PROGRAM, "status", "--data", node.data], capture_output=True, text=True, timeout=WAIT_S)
    assert "bridge b: connected" in told.stdout, told


def test_properties(make_node, shared_broker, closing):
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties
    node = make_node({**settings(shared_broker.port, {"filter": "p/#", "direction": "both", "remote_prefix": "props/"}), "node.id": "n"})
    wait_connected(node)
    here, there = closing(Client(node.ports["mqtt"], "p/#")), closing(Client(shared_broker.port, "props/#"))
    for source, sink, topic, mark in ((here, there, "p/1", ("tg-left", "n")), (there, here, "props/p/2", ("tg-entered", "n"))):
        wanted = Properties(PacketTypes.PUBLISH)
        wanted.ContentType, wanted.ResponseTopic, wanted.CorrelationData = "text/plain", "answers", bytes(range(256))
        wanted.PayloadFormatIndicator, wanted.MessageExpiryInterval = 1, 1000
        wanted.UserProperty = [("b", "1"), ("a", "2"), ("b", "")]
        source.publish(topic, b"text", properties=wanted)
        assert source.messages.get(timeout=WAIT_S).payload == b"text"
        got = sink.messages.get(timeout=WAIT_S).properties
        assert got.ContentType == "text/plain" and got.ResponseTopic == "answers" and got.CorrelationData == bytes(range(256))
        assert got.PayloadFormatIndicator == 1 and 900 <= got.MessageExpiryInterval <= 1000
        assert got.UserProperty == [("b", "1"), ("a", "2"), ("b", ""), mark]


def numbered(client, known):
    while True:
        try:
            known.append(int(client.messages.get_nowait().payload))
        except queue.Empty:
            return known


def in_order(numbers):
    """First occurrences ascend: repetitions are allowed, gaps and leaps back are not."""
    first = list(dict.fromkeys(numbers))
    return first == sorted(first)


def test_out_survives_kill_of_either_side(make_node, tmp_path, closing):
    broker = closing(Broker(tmp_path))
    node = make_node({**settings(broker.port, OUT, inflight=20), "node.id": "n"}, keep_ports=True)
    wait_connected(node)
    seen = []

    def publish(start):
        for number in range(start, start + 100):
            curl_publish(node, "up/n", number)

    there = Client(broker.port, "site1/n")
    publish(0)
    node.kill9()
    node.restart()
    publish(100)
    wait_until(lambda: set(range(200)) <= set(numbered(there, seen)), "what was published before the node's death")
    broker.kill9()
    there.close()
    publish(200)
    broker.start()
    there = closing(Client(broker.port, "site1/n"))
    # The bridge may have been quicker than this subscriber: mosquitto has the newest message retained for nobody.
    publish(300)
    wait_until(lambda: 399 in numbered(there, seen), "what was published after mosquitto's death")
    assert in_order(seen)


def curl_publish(node, topic, number):
    curl(node.api(f"/v1/publish/{topic}"), data=str(number).encode())


def test_what_waits_for_the_remote_is_kept(make_node, tmp_path, closing):
    """From the first start on, also when the remote has never been there; and the node is killed meanwhile."""
    port = free_ports(1)[0]
    node = make_node({**settings(port, OUT), "node.id": "n"}, keep_ports=True)
    wait_until(lambda: node.metrics()["tidegate_bridge_reconnects_total"] >= 1, "the first attempt to be over")
    for number in range(50):
        curl_publish(node, "up/n", number)
    node.kill9()
    node.restart()
    # Its subscriber must be there before the bridge is: a broker at another port.
    broker = closing(Broker(tmp_path))
    there = closing(Client(broker.port, "site1/n"))
    node.stop()
    node.settings.update(settings(broker.port, OUT))
    node.restart()
    seen = []
    wait_until(lambda: len(set(numbered(there, seen))) == 50, "all that was kept")
    assert in_order(seen)


def test_in_survives_kill_of_the_node(make_node, shared_broker, closing):
    """The remote keeps what the node has not acknowledged; what it has acknowledged is in the log."""
    node = make_node({**settings(shared_broker.port, IN, client_id="in-kill", inflight=10), "node.id": "n"}, keep_ports=True)
    wait_connected(node)
    there = closing(Client(shared_broker.port))
    for number in range(300):
        there.publish(f"orders/{number % 3}/set", b"%d" % number)
        if number % 100 == 50:
            node.kill9()
            node.restart()

    def stored():
        texts = []
        for i in range(3):
            page = json.loads(curl(node.api(f"/v1/history/down/{i}/set?from=earliest&max=1000")).body)["messages"]
            texts.append([int(m["data"] if "data" in m else m["text"]) for m in page])
        return texts
    wait_until(lambda: sorted(set(sum(stored(), []))) == list(range(300)), "all of them in the log")
    assert all(in_order(texts) for texts in stored())


def test_nothing_is_acknowledged_before_it_is_durable(make_node, tmp_path):
    """A remote by hand, and a disk whose syncs are held back: PUBACK comes when they go on."""
    from mqtt_wire import packet, publish
    from test_sync import Disk
    library = tmp_path / "slow_disk.so"
    subprocess.run([need("gcc"), "-O1", "-shared", "-fPIC", "-o", library, ROOT / "tests/e2e/slow_disk.c"], check=True)
    disk = Disk(tmp_path, library)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        node = make_node({**settings(port, IN), "node.id": "n"}, environment=disk.environment)
        wire, _ = listener.accept()
        wire.settimeout(WAIT_S)
        first, body = read_packet(wire)
        assert first == 0x10
        wire.sendall(packet(0x20, b"\0\0\0"))
        first, body = read_packet(wire)
        assert first == 0x82
        wire.sendall(packet(0x90, body[:2] + b"\0\x01"))
        wire.sendall(publish("orders/a/set", b"x", 1, 7))
        first, body = read_packet(wire)
        assert (first, body[:2]) == (0x40, b"\0\x07")
        disk.hold()
        wire.sendall(publish("orders/a/set", b"y", 1, 8))
        wait_until((tmp_path / "held").exists, "a sync that is held back")
        wire.settimeout(0.3)
        with pytest.raises(TimeoutError):
            early = read_packet(wire)
            raise AssertionError(f"before it was durable: {early}")
        wire.settimeout(WAIT_S)
        (tmp_path / "hold").unlink()
        first, body = read_packet(wire)
        assert (first, body[:2]) == (0x40, b"\0\x08")
        wire.close()


def test_a_remote_that_does_not_acknowledge(make_node):
    """What it has been sent and has not acknowledged it gets again, at the next connection."""
    from mqtt_wire import packet
    with socket.create_server(("127.0.0.1", 0)) as listener:
        node = make_node({**settings(listener.getsockname()[1], OUT, version="3.1.1"), "node.id": "n"})
        for last in (False, True):
            wire, _ = listener.accept()
            wire.settimeout(WAIT_S)
            assert read_packet(wire)[0] == 0x10
            wire.sendall(packet(0x20, b"\0\0"))
            if not last:
                curl_publish(node, "up/n", 1)
            try:
                first, body = read_packet(wire)
            except TimeoutError:
                raise AssertionError("not sent again") from None
            assert first & 0xF6 == 0x32 and body.endswith(b"1"), (first, body)
            if last:
                wire.sendall(packet(0x40, body[2 + body[1]:][:2]))
                wait_until(lambda: node.metric("tidegate_bridge_messages_total", '"out"') == 1, "the acknowledgement")
            wire.close()


def read_packet(wire):
    def exactly(count):
        data = b""
        while len(data) < count:
            more = wire.recv(count - len(data))
            assert more, "the bridge has closed"
            data += more
        return data
    first = exactly(1)[0]
    size = shift = 0
    while True:
        byte = exactly(1)[0]
        size |= (byte & 127) << shift
        shift += 7
        if not byte & 128:
            return first, exactly(size)


# --- loops -----------------------------------------------------------------------------------------------------

BOTH = {"filter": "l/#", "direction": "both"}


def test_both_ways_to_mosquitto_nothing_comes_back(make_node, shared_broker, closing):
    node = make_node({**settings(shared_broker.port, BOTH, client_id="both"), "node.id": "n"})
    wait_connected(node)
    here, there = closing(Client(node.ports["mqtt"], "l/#")), closing(Client(shared_broker.port, "l/#"))
    for number in range(20):
        here.publish("l/here", b"%d" % number)
        there.publish("l/there", b"%d" % number)
    here.publish("l/end", b"")
    there.publish("l/end", b"")
    for client in (here, there):
        got = {}
        while sum(map(len, got.values())) < 42:
            topic, payload = client.next()
            got.setdefault(topic, []).append(payload)
        assert got["l/here"] == got["l/there"] == [b"%d" % number for number in range(20)] and len(got["l/end"]) == 2
    # Once across and acknowledged: whatever came back would have followed before the end.
    for direction in ("in", "out"):
        carried = lambda: node.metric("tidegate_bridge_messages_total", f'"{direction}"')
        wait_until(lambda: carried() >= 21, "the acknowledgements")
        assert carried() == 21


def test_two_nodes_that_bridge_to_each_other(make_node, closing):
    """Each has a bridge to the other for the same topics, which nobody should do: a message that is on its way back is
    stopped, it does not go round."""
    ports = free_ports(2)
    nodes = [make_node({**settings(ports[1 - i], BOTH), "node.id": f"n{i}", "mqtt.port": ports[i]}) for i in range(2)]
    for node in nodes:
        wait_connected(node)
    here = closing(Client(ports[0]))
    for number in range(10):
        here.publish("l/x", b"%d" % number)
    wait_until(lambda: sum(dropped(node, "loop") for node in nodes) >= 10, "the loop guard to have spoken")

    def stored():
        history = json.loads(curl(nodes[1].api("/v1/history/l/x?from=earliest&max=1000")).body)["messages"]
        return [int(m["data"] if "data" in m else m["text"]) for m in history]

    wait_until(lambda: set(stored()) == set(range(10)), "all to be there")
    wait_until(lambda: quiet(nodes), "the messages to have come to rest")
    assert 10 <= len(stored()) <= 40


def quiet(nodes):
    def figures():
        return [node.metric("tidegate_bridge_messages_total") + node.metric("tidegate_bridge_dropped_total") for node in nodes]
    before = figures()
    deadline = time.monotonic() + 0.3
    while time.monotonic() < deadline:
        if figures() != before:
            return False
    return True


# --- TLS, the configuration --------------------------------------------------------------------------------------

def test_tls_and_password(make_node, tmp_path, certificates, closing):
    passwords, secret = tmp_path / "passwords", tmp_path / "secret"
    secret.write_text("open sesame\n")
    subprocess.run(["mosquitto_passwd", "-b", "-c", passwords, "ali", "open sesame"], check=True, capture_output=True)
    broker = closing(Broker(tmp_path, f"listener {(port := free_ports(1)[0])} 127.0.0.1", f"cafile {certificates.pem('client-ca')}",
                            f"certfile {certificates.pem('ec')}", f"keyfile {certificates.key('ec')}", "require_certificate true",
                            f"password_file {passwords}"))
    trust = {"ca_file": str(certificates.pem("server-ca")), "cert_file": str(certificates.pem("alice")),
             "key_file": str(certificates.key("alice")), "user": "ali", "password_file": str(secret)}
    node = make_node({**settings(port, OUT, **trust), "node.id": "n"})
    wait_connected(node)
    there = closing(Client(broker.port, "site1/#"))
    curl_publish(node, "up/tls", 1)
    assert there.next() == ("site1/tls", b"1")
    stranger = make_node({**settings(port, OUT, **{**trust, "ca_file": str(certificates.pem("stranger-ca"))}), "node.id": "s"})
    wait_until(lambda: stranger.metrics()["tidegate_bridge_reconnects_total"] >= 2, "some attempts")
    assert stranger.metrics()["tidegate_bridges_connected"] == 0


def test_a_remote_that_goes_amid_the_handshake(make_node, certificates):
    """Whoever closes before, while or after ClientHello comes: the bridge notices, and tries again."""
    with socket.create_server(("127.0.0.1", free_ports(1)[0])) as remote:
        def goes():
            with contextlib.suppress(OSError):
                for number in itertools.count():
                    client = remote.accept()[0]
                    if number % 3 == 0:  # a reset, before there is anything to answer
                        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    if number % 3 == 1:
                        client.recv(1)
                    client.close()
        threading.Thread(target=goes, daemon=True).start()
        node = make_node({**settings(remote.getsockname()[1], OUT, ca_file=str(certificates.pem("server-ca")), retry_min_ms="10ms",
                                     retry_max_ms="10ms"), "node.id": "n"})
        wait_until(lambda: node.metrics()["tidegate_bridge_reconnects_total"] >= 60, "some attempts")


def test_the_session_of_a_bridge_is_nobody_elses(make_node, shared_broker):
    import mqtt_wire
    node = make_node({**settings(shared_broker.port, OUT, client_id="own"), "node.id": "n"})
    wait_connected(node)
    with node.connect("mqtt") as wire:
        wire.sendall(mqtt_wire.connect(5, "$bridge/b"))
        first, body = read_packet(wire)
        assert first == 0x20 and body[1] == 0x85
    assert node.metrics()["tidegate_bridges_connected"] == 1


@pytest.mark.parametrize("bridge, topics, words", [
    ({"name": "a b"}, [], "name must be"),
    ({"host": ""}, [], "host must be"),
    ({"cert_file": "/x"}, [], "set both"),
    ({"password_file": "/x"}, [], "needs user"),
    ({"retry_min_ms": "2m"}, [], "retry_min_ms"),
    ({"ca_file": "/not/there"}, [], "b: ca_file: cannot read /not/there"),
    ({}, [{"filter": "a/#/b"}], "filter must be"),
    ({}, [{"filter": "a", "local_prefix": "+/"}], "local_prefix must be"),
    ({}, [{"filter": "a", "qos": 2}], "qos"),
    ({}, [{"filter": "$SYS/#", "direction": "in"}], "begin with $"),
    ({}, [{"filter": "$SYS/#", "direction": "in", "local_prefix": "hq/"}], "begin with $"),
    ({}, [{"filter": "a", "direction": "in", "remote_prefix": "$share/g/"}], "begin with $"),
    ({}, [{"filter": "$share/g/a"}], "begin with $"),
    ({}, [{"bridge": "c", "filter": "a"}], "no bridge named 'c'"),
    ({}, [{"filter": "a/#"}, {"filter": "+/b"}], "sent twice"),
    ({"version": "3.1.1"}, [{"filter": "a/#", "direction": "both"}], "come back"),
])
def test_what_is_wrong_is_said(tmp_path, bridge, topics, words):
    given = settings(1, *topics, **bridge)
    done = subprocess.run([PROGRAM, "serve", "--set", f"data.dir={tmp_path}/data", "--set", "mqtt.port=0", "--set", "http.port=0", "--set",
                           "api.port=0", *(word for key, value in given.items() for word in ("--set", f"{key}={value}"))],
                          capture_output=True, text=True, timeout=WAIT_S)
    assert done.returncode == 78 and words in done.stderr, (done.returncode, done.stderr)
