"""The MQTT door with real clients (mosquitto 3.1, 3.1.1, 5.0; paho 3.1.1, 5.0), and by hand where a client would hide
what is looked at: order, windows, limits, time-outs. QoS 0 and 1, clean sessions (PROTOCOL.md 3)."""

import collections
import queue
import random
import struct
import subprocess
import threading
import time

import pytest

from clients import WAIT_S, MosquittoSub, Web, mosquitto_pub, need, paho_client
from mqtt_wire import BYE, PING, PUBACK, SUBACK, UNSUBACK, End, Message, Wire, connect, puback, publish
from mqtt_wire import read_varint, subscribe, text, unsubscribe, user
from node import PATIENCE, spans, wait_until

LOOPS = pytest.mark.parametrize("loops", [1, 2])
SPREAD = {"node.loops": 2, "log.partitions": 4}
VERSIONS = pytest.mark.parametrize("version", [3, 4, 5])

EVERY_BYTE = bytes(range(256))
PAYLOADS = [b"x", EVERY_BYTE, b"\0", b"\xff" * 127, b"a" * 128, "gr\u00fc\u00dfe \u2603".encode(), b'{"c": 21.5}\n', b"\r\n\0\r\n",
            EVERY_BYTE * 64]


def gauge(node, name):
    return node.metrics()["tidegate_" + name]


# --- real clients -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("version", ["mqttv31", "mqttv311", "mqttv5"])
@pytest.mark.parametrize("qos", [0, 1])
def test_mosquitto_gets_the_bytes_that_mosquitto_sent(make_node, version, qos):
    node = make_node(SPREAD)
    with MosquittoSub(node, "m/#", "-V", version, qos=qos) as subscriber:
        for number, payload in enumerate(PAYLOADS):
            mosquitto_pub(node, f"m/{number}", payload, "-V", version, qos=qos)
            assert subscriber.next() == (f"m/{number}", payload)
        subprocess.run([need("mosquitto_pub"), "-h", "127.0.0.1", "-p", str(node.ports["mqtt"]), "-V", version,
                        "-q", str(qos), "-t", "m/empty", "-n"], check=True, timeout=WAIT_S)
        assert subscriber.next() == ("m/empty", b"")
        large = random.Random(1).randbytes(1 << 20)
        mosquitto_pub(node, "m/large", large, "-V", version, qos=qos)
        topic, payload = subscriber.next()
        assert topic == "m/large" and payload == large


def test_versions_of_mosquitto_hear_each_other(make_node):
    node = make_node(SPREAD)
    versions = ["mqttv31", "mqttv311", "mqttv5"]
    subscribers = [MosquittoSub(node, "mix/+", "-V", version, qos=1) for version in versions]
    try:
        for version in versions:
            mosquitto_pub(node, f"mix/{version}", version.encode(), "-V", version)
            for subscriber in subscribers:
                assert subscriber.next() == (f"mix/{version}", version.encode())
    finally:
        for subscriber in subscribers:
            subscriber.close()


class Paho:
    """A paho client that runs by itself."""

    def __init__(self, node, version, client_id=""):
        self.client = paho_client(client_id, version)
        self.messages = queue.Queue()
        self.subscribed = queue.Queue()
        self.connected = threading.Event()
        self.client.on_connect = lambda *_: self.connected.set()
        self.client.on_subscribe = lambda *arguments: self.subscribed.put(arguments)
        self.client.on_message = lambda _, __, message: self.messages.put(message)
        self.client.connect("127.0.0.1", node.ports["mqtt"])
        self.client.loop_start()
        assert self.connected.wait(WAIT_S)

    def subscribe(self, *filters, qos=1):
        self.client.subscribe([(name, qos) for name in filters] if self.client._protocol != 5 else
                              [(name, options(qos)) for name in filters])
        self.subscribed.get(timeout=WAIT_S)

    def publish(self, topic, payload, qos=1, **more):
        return self.client.publish(topic, payload, qos, **more)

    def next(self):
        return self.messages.get(timeout=WAIT_S)

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()

    __enter__ = lambda self: self
    __exit__ = lambda self, *_: self.close()


def options(qos):
    from paho.mqtt.subscribeoptions import SubscribeOptions
    return SubscribeOptions(qos=qos)


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("qos", [0, 1])
def test_paho_many_topics_and_payloads(make_node, version, qos):
    node = make_node(SPREAD)
    with Paho(node, version, "hears") as subscriber, Paho(node, version, "speaks") as publisher:
        subscriber.subscribe("p/#", "q/+/x", qos=qos)
        sent = collections.defaultdict(list)
        for number in range(600):
            topic = f"p/{number % 150}" if number % 3 else f"q/{number % 50}/x"
            payload = PAYLOADS[number % len(PAYLOADS)] if number % 11 else b""
            sent[topic].append(payload)
            publisher.publish(topic, payload, qos)
        large = random.Random(2).randbytes(1 << 20)
        sent["p/large"].append(large)
        publisher.publish("p/large", large, qos)
        publisher.publish("q/no", b"nobody listens", qos)
        got = collections.defaultdict(list)
        for _ in range(sum(map(len, sent.values()))):
            message = subscriber.next()
            assert message.qos == qos and not message.retain
            got[message.topic].append(message.payload)
        assert got == sent
    wait_until(lambda: node.metric("tidegate_connections", "mqtt") == 0, "the clients to be gone")


def test_paho_properties(make_node):
    node = make_node()
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties
    with Paho(node, 5, "hears") as subscriber, Paho(node, 5, "speaks") as publisher:
        subscriber.subscribe("props")
        properties = Properties(PacketTypes.PUBLISH)
        properties.ContentType = "text/plain"
        properties.ResponseTopic = "answers/1"
        properties.CorrelationData = EVERY_BYTE
        properties.PayloadFormatIndicator = 1
        properties.MessageExpiryInterval = 100
        properties.UserProperty = [("b", "1"), ("a", "2"), ("b", "3"), ("", "")]
        publisher.publish("props", b"x", properties=properties).wait_for_publish(WAIT_S)
        got = subscriber.next().properties
        assert got.ContentType == "text/plain" and got.ResponseTopic == "answers/1"
        assert got.CorrelationData == EVERY_BYTE and got.PayloadFormatIndicator == 1
        assert got.UserProperty == [("b", "1"), ("a", "2"), ("b", "3"), ("", "")]
        assert 95 <= got.MessageExpiryInterval <= 100


# --- topics and subscriptions -----------------------------------------------------------------------------------

def matches(pattern, topic):
    """4.7, written for reading."""
    want, have = pattern.split("/"), topic.split("/")
    for place, level in enumerate(want):
        if level == "#":
            return True
        if place >= len(have) or level not in ("+", have[place]):
            return False
    return len(want) == len(have)


FILTERS = ["#", "+", "+/+", "a/+/c", "a/#", "a", "/", "/#", "/+", "+/b/#", "a//c", "a/+/+", "+/+/c", "a/b/c/#", "\u00fc/+"]
TOPICS = ["a", "b", "/", "/a", "a/", "a/b", "a/b/c", "a//c", "a/x/c", "a/b/c/d", "x/b", "x/b/c", "\u00fc/\u00e4", "A", "a b/c"]


@LOOPS
@VERSIONS
def test_wildcards(make_node, loops, version):
    node = make_node({"node.loops": loops, "log.partitions": 4})
    subscribers = []
    for number, pattern in enumerate(FILTERS):
        wire = Wire(node, version, f"w{number}")
        assert wire.subscribe(pattern) == b"\x01"
        subscribers.append((pattern, wire))
    with Wire(node, version, "speaker") as speaker:
        for number, topic in enumerate(TOPICS):
            assert speaker.publish(topic, topic.encode(), number + 1) == 0
    for pattern, wire in subscribers:
        want = sorted(topic for topic in TOPICS if matches(pattern, topic))
        got = sorted(wire.message().topic for _ in want)
        assert got == want, pattern
        wire.ping()  # and nothing else has come
        wire.close()


def test_no_local(make_node):
    node = make_node(SPREAD)
    with Wire(node, 5, "self") as wire, Wire(node, 5, "other") as other:
        assert wire.subscribe(("nl/#", 0x05), ("nm/#", 0x01)) == b"\x01\x01"
        for number in range(50):
            assert wire.publish(f"nl/{number}", b"mine", number + 1) == 0
        assert other.publish("nl/x", b"not mine", 7) == 0
        assert wire.message().payload == b"not mine"
        wire.send(publish("nm/x", b"mine", 1, 9))
        kinds = [wire.packet()[0] >> 4 for _ in range(2)]
        assert sorted(kinds) == [3, 4]


def test_no_local_holds_for_a_reader_that_fell_behind(make_node):
    """3.8.3.1: also what comes out of the log, when nothing of it is in memory any more."""
    node = make_node({"log.recent_bytes": 4096})
    with Wire(node, 5, "self", props=b"\x21\x00\x01") as wire, Wire(node, 5, "other") as other:
        assert wire.subscribe(("nl/#", 0x05)) == b"\x01"
        for number in range(3):
            assert other.publish("nl/x", b"first %d" % number) == 0
        first = wire.message(acknowledge=False)
        for number in range(100):
            assert wire.publish(f"nl/{number}", b"mine" * 256, number + 1) == 0
        assert other.publish("nl/x", b"last") == 0
        assert gauge(node, "subscriptions_behind") == 1
        wire.send(puback(first.number))
        got = [wire.message().payload for _ in range(3)]
        assert got == [b"first 1", b"first 2", b"last"]


@VERSIONS
def test_the_same_filter_twice_in_one_subscribe(make_node, version):
    """3.8.4-3: it is as if they came one after the other; the last one's options hold."""
    node = make_node(SPREAD)
    with Wire(node, version, "twice") as wire:
        for first, second in ((0, 1), (1, 0), (1, 1)):
            assert wire.subscribe(("tw/+", first), ("tw/+", second), ("tw/+", second)) == bytes([first, second, second])
            assert gauge(node, "subscriptions") == 1
            with Wire(node, version, "other") as other:
                assert other.publish("tw/x", b"once") == 0
            message = wire.message()
            assert message.qos == second
            wire.ping()  # it came once


@LOOPS
@VERSIONS
def test_unsubscribe_while_subscribe_is_pending(make_node, loops, version):
    node = make_node({"node.loops": loops, "log.partitions": 4})
    with Wire(node, version, "hasty") as wire, Wire(node, version, "other") as other:
        for number in range(1, 60):
            wire.send(subscribe(number, f"h/{number}", "h/#", version=version)
                      + unsubscribe(number + 100, "h/#", f"h/{number}", version=version))
            got = {}
            while len(got) < 2:
                first, body = wire.packet()
                got[first >> 4] = body
            tail = b"\0" if version == 5 else b""
            assert got[SUBACK] == struct.pack(">H", number) + tail + b"\x01\x01"
            assert got[UNSUBACK] == struct.pack(">H", number + 100) + (b"\0\0\0" if version == 5 else b"")
        assert gauge(node, "subscriptions") == 0
        assert other.publish("h/1", b"nobody") == 0
        wire.ping()
        # In, out, in again: it is in, once.
        wire.send(subscribe(1, "h/1", version=version) + unsubscribe(2, "h/1", version=version)
                  + subscribe(3, "h/1", version=version))
        kinds = [wire.packet()[0] >> 4 for _ in range(3)]
        assert sorted(kinds) == [SUBACK, SUBACK, UNSUBACK]
        assert other.publish("h/1", b"somebody") == 0
        assert wire.message().payload == b"somebody"
        wire.ping()
        # And gone in the middle of it.
        wire.send(subscribe(9, *[f"gone/{i}/#" for i in range(200)], version=version))
    wait_until(lambda: gauge(node, "subscriptions") == 0, "the subscriptions to be gone")


def test_a_subscriber_gets_what_is_published_after_suback(make_node):
    """From the first message on, whatever lane and loop it takes."""
    node = make_node(SPREAD)
    with Wire(node, 5, "speaker") as speaker:
        for number in range(200):
            with Wire(node, 5, "hearer") as wire:
                wire.subscribe("now/#" if number % 2 else f"now/{number}")
                assert speaker.publish(f"now/{number}", b"%d" % number) == 0
                assert wire.message().payload == b"%d" % number


def test_tg_from(make_node):
    node = make_node(SPREAD)
    with Wire(node, 5, "speaker") as speaker, Wire(node, 5, "hearer") as wire, Web(node) as web:
        for number in range(30):
            assert speaker.publish("past/a", b"a%d" % number) == 0
            assert speaker.publish("past/b", b"b%d" % number) == 0

        def replay(pattern, start, count):
            assert wire.subscribe(pattern, props=user("tg-from", start)) == b"\x01"
            got = [wire.message() for _ in range(count)]
            wire.ping()
            wire.send(unsubscribe(9, pattern))
            assert wire.expect(UNSUBACK)[3] == 0
            return [message.payload for message in got]

        assert replay("past/a", "earliest", 30) == [b"a%d" % i for i in range(30)]
        both = replay("past/+", "earliest", 60)
        assert [item for item in both if item[:1] == b"b"] == [b"b%d" % i for i in range(30)]
        assert replay("past/a", "live", 0) == []
        place = web.ask({"pub": {"topic": "past/a", "text": "marked"}})["ok"]["pos"]
        assert speaker.publish("past/a", b"after") == 0
        assert replay("past/a", place, 1) == [b"after"]
        assert len(replay("past/a", "time:0", 32)) == 32
        for start in ("time:", "time:x", "time:-1", "last:3"):
            assert wire.subscribe("past/a", props=user("tg-from", start)) == b"\x83"
        # The past, and then what is new, with nothing between and nothing twice.
        assert wire.subscribe("past/b", props=user("tg-from", "earliest")) == b"\x01"
        for number in range(30, 60):
            assert speaker.publish("past/b", b"b%d" % number) == 0
        assert [wire.message().payload for _ in range(60)] == [b"b%d" % i for i in range(60)]


# --- connections ------------------------------------------------------------------------------------------------

def property_values(raw):
    """The properties of CONNACK and DISCONNECT, by id."""
    sizes = {0x11: 4, 0x13: 2, 0x21: 2, 0x22: 2, 0x24: 1, 0x25: 1, 0x27: 4, 0x28: 1, 0x29: 1, 0x2A: 1}
    place, values = 0, {}
    while place < len(raw):
        number = raw[place]
        if number in sizes:
            values[number] = int.from_bytes(raw[place + 1:place + 1 + sizes[number]], "big")
            place += 1 + sizes[number]
        else:
            length = int.from_bytes(raw[place + 1:place + 3], "big")
            values[number] = raw[place + 3:place + 3 + length]
            place += 3 + length
    return values


def connack_properties(wire):
    length, place = read_varint(wire.connack, 2)
    assert place + length == len(wire.connack)
    return property_values(wire.connack[place:])


def test_connack_tells_the_limits(make_node):
    node = make_node({"limit.publish_open": 10, "mqtt.keep_alive_max_s": 100})
    with Wire(node, 5, "", keep_alive=50, props=b"\x11\xff\xff\xff\xff") as wire:
        told = connack_properties(wire)
        assert told[0x21] == 10 and 0x24 not in told and 0x25 not in told
        assert told[0x27] > 1 << 20 and 0x29 not in told and told[0x2A] == 1 and told[0x22] == 32
        assert 0x11 not in told and told[0x12] and 0x13 not in told
        with Wire(node, 5, "", keep_alive=101) as another:
            assert connack_properties(another)[0x13] == 100
            assert connack_properties(another)[0x12] != told[0x12]
        with Wire(node, 5, "named", keep_alive=0) as named:
            assert 0x12 not in connack_properties(named) and connack_properties(named)[0x13] == 100


def test_tg_pos_is_refused_while_it_is_not_in_the_build(make_node):
    node = make_node()
    with Wire(node, connected=False) as wire:
        wire.send(connect(5, "c", props=user("tg-pos", "1")))
        answer = wire.rest()
        assert answer[0] == 0x20 and answer[3] == 0x83


@LOOPS
@VERSIONS
def test_takeover_of_a_client_identifier(make_node, loops, version):
    node = make_node({"node.loops": loops})
    before = Wire(node, version, "same")
    before.subscribe("take/x")
    for _ in range(30):
        after = Wire(node, version, "same")
        rest = before.rest()
        assert rest == (b"\xe0\x01\x8e" if version == 5 else b"")
        before.close()
        before = after
        before.subscribe("take/x")
        before.ping()
    with Wire(node, version, "another") as another:
        assert another.publish("take/x", b"once") == 0
    assert before.message().payload == b"once"
    wait_until(lambda: node.metric("tidegate_connections", "mqtt") == 1, "the others to be gone")
    assert gauge(node, "subscriptions") == 1
    before.close()


def test_takeover_in_a_crowd(make_node):
    """Forty connections want one identifier at once: one of them has it in the end."""
    node = make_node(SPREAD)
    wires = [Wire(node, 5, connected=False) for _ in range(40)]
    for wire in wires:
        wire.send(connect(5, "crowd"))
    wait_until(lambda: node.metric("tidegate_connections", "mqtt") == 1, "all but one to be gone")
    endings = collections.Counter()
    for wire in wires:
        first, body = wire.packet()
        assert first == 0x20 and body[1] == 0
        if wire.quiet(0.01):
            wire.ping()
            endings["open"] += 1
        else:
            endings[wire.disconnect_code()] += 1
        wire.close()
    assert endings == {"open": 1, 0x8E: 39}


@LOOPS
@spans(1, 3, 10)
def test_keep_alive(make_node, loops, span):
    node = make_node({"node.loops": loops, "mqtt.keep_alive_max_s": 60})
    started = time.monotonic()
    silent = [Wire(node, 5, "silent5", keep_alive=span), Wire(node, 4, "silent4", keep_alive=span),
              Wire(node, 3, "silent3", keep_alive=span)]
    pinging = Wire(node, 4, "pinging", keep_alive=span)
    talking = Wire(node, 5, "talking", keep_alive=span)
    none = Wire(node, 4, "none", keep_alive=0)
    # What we send to it is no sign of its life.
    silent[1].subscribe(("talk", 0), number=3)
    while time.monotonic() - started < 2.5 * span:
        pinging.ping()
        assert talking.publish("talk", b"x") == 0
        time.sleep(0.2)  # the pace of these clients
    assert silent[0].rest() == b"\xe0\x01\x8d"
    assert silent[2].rest() == b""
    assert silent[1].rest()[:1] == b"\x30"
    for wire in (pinging, talking, none):
        wire.ping()
        wire.close()
    assert node.metric("tidegate_disconnects_total", "timeout") == 3


def test_server_keep_alive_holds(make_node):
    node = make_node({"mqtt.keep_alive_max_s": 1})
    started = time.monotonic()
    with Wire(node, 5, "c", keep_alive=0) as wire:
        assert connack_properties(wire)[0x13] == 1
        assert wire.rest() == b"\xe0\x01\x8d"
        assert 1.2 < time.monotonic() - started


def test_a_stopping_node_says_so(make_node):
    node = make_node(SPREAD)
    five, four = [Wire(node, 5, f"five{i}") for i in range(8)], [Wire(node, 4, f"four{i}") for i in range(8)]
    for wire in five + four:
        wire.subscribe("s/#")
    node.stop()
    assert [wire.disconnect_code() for wire in five] == [0x8b] * 8
    assert [wire.rest() for wire in four] == [b""] * 8


@pytest.mark.deadline(180)
def test_a_thousand_connections_at_random(make_node):
    """Opened, used, dropped in every state; nothing is left of them."""
    node = make_node({**SPREAD, "mqtt.connect_timeout_ms": 60000})
    dice = random.Random(3)
    wires = []
    for number in range(1000):
        version = dice.choice([3, 4, 5])
        client = f"r{dice.randrange(300)}"
        wire = Wire(node, version, connected=False)
        hello = connect(version, client) if dice.random() < 0.95 else b""
        work = (subscribe(1, f"r/{dice.randrange(50)}", "r/+", "r/#", version=version)
                + b"".join(publish(f"r/{dice.randrange(50)}", b"x" * 100, dice.randrange(2), i + 1, version)
                           for i in range(dice.randrange(4))))
        try:
            wire.send((hello + work)[:dice.choice([0, 1, 20, 60, 10000, 10000])])
        except OSError:
            pass
        wires.append(wire)
        if len(wires) > 200:
            drop(wires.pop(dice.randrange(len(wires))), dice)
    while wires:
        drop(wires.pop(), dice)
    wait_until(lambda: node.metric("tidegate_connections", "mqtt") == 0, "the connections to be gone")
    for name in ("subscriptions", "subscriptions_behind", "outbound_queue_bytes", "publishes_open"):
        wait_until(lambda: gauge(node, name) == 0, f"tidegate_{name} to be 0")
    with Wire(node, 5, "r1") as wire:
        wire.ping()


def drop(wire, dice):
    if dice.random() < 0.3:
        try:
            wire.send(BYE)
        except OSError:
            pass
    elif dice.random() < 0.5:
        wire.socket.setsockopt(1, 13, struct.pack("ii", 1, 0))  # SO_LINGER 0: a reset
    wire.close()


# --- publishing -------------------------------------------------------------------------------------------------

@VERSIONS
def test_pubacks_come_in_the_order_of_the_publishes(make_node, version):
    """MQTT-4.6.0-2, whatever lane and loop is first."""
    node = make_node(SPREAD)
    dice = random.Random(4)
    with Wire(node, version, "order") as wire:
        for _ in range(5):
            numbers = dice.sample(range(1, 65536), 1000)  # Receive Maximum is 1,024
            wire.send(b"".join(publish(f"o/{dice.randrange(500)}", b"x" * dice.randrange(300), 1, number, version)
                               for number in numbers))
            got = [struct.unpack(">H", wire.expect(PUBACK)[:2])[0] for _ in numbers]
            assert got == numbers


def test_refusals_take_their_turn_among_the_pubacks(make_node):
    node = make_node(SPREAD)
    with Wire(node, 5, "order") as wire:
        wire.send(b"".join(publish("$SYS/no" if number % 3 == 0 else f"o/{number}", b"x", 1, number)
                           for number in range(1, 301)))
        for number in range(1, 301):
            body = wire.expect(PUBACK)
            assert body == struct.pack(">H", number) + (b"\x87" if number % 3 == 0 else b"")


@pytest.mark.parametrize("version", [3, 4])
def test_older_clients_are_slowed_not_refused(make_node, version):
    """No Receive Maximum before 5.0: their socket is not read while too much waits for the disk."""
    node = make_node({**SPREAD, "limit.publish_open": 10})
    with Wire(node, version, "fast") as wire:
        data = b"".join(publish(f"o/{number % 7}", b"x" * 200, 1, number, version) for number in range(1, 3001))
        sender = threading.Thread(target=wire.send, args=(data + PING,), daemon=True)
        sender.start()
        got = []
        for _ in range(3001):  # PINGRESP waits for no disk
            first, body = wire.packet()
            got.append(struct.unpack(">H", body)[0] if first == 0x40 else "pong")
        got.remove("pong")
        assert got == list(range(1, 3001))
        sender.join(WAIT_S)
    # No sync made more of them durable at once than may wait: the first bucket from 10 on holds all.
    buckets = {float(name.split('le="')[1].split('"')[0]): value for name, value in node.metrics().items()
               if name.startswith("tidegate_log_batch_records_bucket")}
    assert buckets[min(le for le in buckets if le >= 10)] == buckets[float("inf")]


def test_more_than_the_receive_maximum_ends_the_connection(make_node):
    """4.9, 3.3.4-9: ours is told in CONNACK."""
    node = make_node({"limit.publish_open": 10})
    with Wire(node, 5, "fast") as wire:
        assert connack_properties(wire)[0x21] == 10
        wire.send(b"".join(publish("o", b"x", 1, number) for number in range(1, 1001)))
        rest = wire.rest()
        assert rest[-3:] == b"\xe0\x01\x93"
        acknowledged = [struct.unpack(">H", rest[i + 2:i + 4])[0] for i in range(0, len(rest) - 3, 4)]
        assert acknowledged == list(range(1, len(acknowledged) + 1))


@VERSIONS
def test_the_largest_payload_and_one_byte_more(make_node, version):
    node = make_node()
    with Wire(node, version, "large") as wire, Wire(node, version, "hearer") as hearer:
        hearer.subscribe("large")
        payload = random.Random(5).randbytes(1 << 20)
        assert wire.publish("large", payload) == 0
        assert hearer.message().payload == payload
        wire.send(publish("large", payload + b"x", 1, 2, version) + publish("large", b"behind", 1, 3, version))
        if version == 5:
            assert wire.expect(PUBACK)[:3] == b"\x00\x02\x97"
            assert wire.expect(PUBACK) == b"\x00\x03"
            assert hearer.message().payload == b"behind"
        else:
            assert wire.rest() == b""


# --- delivering -------------------------------------------------------------------------------------------------

@LOOPS
@pytest.mark.parametrize("version", [4, 5])
def test_the_window_of_the_receiver(make_node, loops, version):
    """No more than its Receive Maximum is under way; behind that it goes on in order, without a gap."""
    settings = {"node.loops": loops} if version == 5 else {"node.loops": loops, "limit.inflight": 5}
    node = make_node(settings)
    receive_maximum = {"props": b"\x21\x00\x05"} if version == 5 else {}
    with Wire(node, version, "hearer", **receive_maximum) as wire, Wire(node, version, "speaker") as speaker:
        wire.subscribe("win/x")
        speaker.send(b"".join(publish("win/x", b"%d" % i, 1, i + 1, version) for i in range(500)))
        assert [struct.unpack(">H", speaker.expect(PUBACK)[:2])[0] for _ in range(500)] == list(range(1, 501))
        got = [wire.message(acknowledge=False) for _ in range(5)]
        wire.ping()
        assert wire.quiet(0.2)
        # Acknowledged out of order: each makes room for one.
        dice = random.Random(6)
        under_way = list(got)
        for _ in range(100):
            wire.send(puback(under_way.pop(dice.randrange(5)).number))
            under_way.append(wire.message(acknowledge=False))
            got.append(under_way[-1])
            assert len({message.number for message in under_way}) == 5
        assert wire.quiet(0.05)
        for message in under_way:
            wire.send(puback(message.number))
        got += [wire.message() for _ in range(500 - len(got))]
        assert [message.payload for message in got] == [b"%d" % i for i in range(500)]
        wait_until(lambda: gauge(node, "subscriptions_behind") == 0, "the subscription to be live again")
        assert speaker.publish("win/x", b"live") == 0
        assert wire.message().payload == b"live"


def flood(node, version, topics, count, size, qos=1):
    """`count` numbered messages over the topics; returns when the node has taken them all."""
    with Wire(node, version, "flood") as speaker:
        filler = b"." * size
        for start in range(0, count, 500):
            numbers = range(start, min(start + 500, count))
            speaker.send(b"".join(publish(topics[i % len(topics)], b"%d " % i + filler, qos, i + 1, version)
                                  for i in numbers))
            for _ in numbers if qos else ():
                speaker.expect(PUBACK)
        speaker.ping()


def count_in(payload):
    return int(payload.split(b" ", 1)[0])


@LOOPS
@pytest.mark.parametrize("version", [4, 5])
def test_a_slow_reader_of_qos_1_gets_everything_in_order(make_node, loops, version):
    node = make_node({"node.loops": loops, "log.partitions": 4, "out.bytes_max": 65536, "limit.inflight": 65535})
    topics = [f"slow/{i}" for i in range(8)]
    with Wire(node, version, "slow", receive_buffer=8192) as wire:
        wire.subscribe("slow/+")
        flood(node, version, topics, 6000, 1000)
        wait_until(lambda: gauge(node, "subscriptions_behind_total") >= 1, "the reader to fall behind")
        got = collections.defaultdict(list)
        numbers = []
        for _ in range(6000):
            message = wire.message(acknowledge=False)
            numbers.append(message.number)
            got[message.topic].append(count_in(message.payload))
        for place, topic in enumerate(topics):
            assert got[topic] == list(range(place, 6000, 8))
        wire.ping()
        assert len(set(numbers)) == 6000
        wire.send(b"".join(map(puback, numbers)))
        wait_until(lambda: gauge(node, "subscriptions_behind") == 0, "the reader to be live again")
        assert node.metric("tidegate_messages_dropped_total", "queue_full") == 0


@LOOPS
def test_qos_0_beyond_the_queue_is_dropped_and_counted(make_node, loops):
    node = make_node({"node.loops": loops, "out.bytes_max": 65536})
    with Wire(node, 5, "slow", receive_buffer=8192) as wire:
        assert wire.subscribe(("zero/x", 0)) == b"\x00"
        flood(node, 5, ["zero/x"], 6000, 1000, qos=1)
        # The last ones may still be on their way from one loop to the other.
        wait_until(lambda: node.metric("tidegate_messages_sent_total", "mqtt") +
                   node.metric("tidegate_messages_dropped_total", "queue_full") == 6000, "all to be sent or dropped")
        dropped = node.metric("tidegate_messages_dropped_total", "queue_full")
        assert dropped > 0
        got = [count_in(wire.message().payload)]
        while len(got) + dropped < 6000:
            message = wire.message()
            assert message.qos == 0
            got.append(count_in(message.payload))
        assert got == sorted(set(got))
        wire.ping()
        assert node.metric("tidegate_messages_dropped_total", "queue_full") == dropped
        assert gauge(node, "outbound_queue_bytes") == 0


def test_qos_of_publish_and_subscription(make_node):
    """3.8.4: the lower of both."""
    node = make_node(SPREAD)
    for version in (3, 4, 5):
        with Wire(node, version, "hearer") as wire, Wire(node, version, "speaker") as speaker:
            for granted in (0, 1):
                wire.subscribe(("q/x", granted))
                speaker.send(publish("q/x", b"zero", 0, 0, version))
                speaker.ping()
                assert wire.message().qos == 0
                assert speaker.publish("q/x", b"one") == 0
                assert wire.message().qos == granted


@pytest.mark.parametrize("qos", [0, 1])
def test_maximum_packet_size_of_the_client(make_node, qos):
    """3.1.2-25: dropped as if it had been sent; the next one comes."""
    node = make_node()
    with Wire(node, 5, "small", props=b"\x27\x00\x00\x00\x64\x21\x00\x02") as wire, Wire(node, 5, "speaker") as speaker:
        assert wire.subscribe(("mps/x", qos)) == bytes([qos])
        for number in range(10):
            assert speaker.publish("mps/x", b"L" * 200) == 0
            assert speaker.publish("mps/x", b"%d" % number) == 0
            assert wire.message().payload == b"%d" % number
        # The boundary: a packet of exactly 100 bytes, then of 101.
        room = 100 - 2 - 2 - len("mps/x") - (2 if qos else 0) - 1
        assert speaker.publish("mps/x", b"f" * room) == 0
        assert len(wire.message().payload) == room
        assert speaker.publish("mps/x", b"f" * (room + 1)) == 0
        assert speaker.publish("mps/x", b"end") == 0
        assert wire.message().payload == b"end"
        assert node.metric("tidegate_messages_dropped_total", "too_large") == 11


def test_properties_reach_the_receiver_as_they_were_sent(make_node):
    node = make_node(SPREAD)
    sent_users = user("z", "1") + user("a", "2") + user("z", "1") + user("", "") + user("\u00fc", "\u2603" * 1000)
    content, response = b"\x03" + text("text/x"), b"\x08" + text("re/ply")
    correlation = b"\x09" + text(EVERY_BYTE)
    with Wire(node, 5, "hearer") as five, Wire(node, 4, "old") as four, Wire(node, 5, "speaker") as speaker:
        five.subscribe("pr/+")
        four.subscribe("pr/+")
        for number, props in enumerate((
                b"", sent_users, content, response, correlation, b"\x01\x01", b"\x01\x00",
                user("first", "x") + correlation + user("second", "y") + content + user("third", "z"))):
            for qos in (0, 1):
                speaker.send(publish(f"pr/{number}", b"payload", qos, 7, props=props))
                if qos:
                    assert speaker.expect(PUBACK) == b"\x00\x07"
                message = five.message()
                assert split(message.props) == sorted_other(split(props)), number
                assert message.payload == b"payload" and message.qos == qos
                old = four.message()
                assert (old.topic, old.payload) == (f"pr/{number}", b"payload")


def split(raw):
    """The properties of a PUBLISH, one by one."""
    found, place = [], 0
    while place < len(raw):
        start, number = place, raw[place]
        place += 1
        if number == 0x01:
            place += 1
        elif number == 0x02:
            place += 4
        else:
            for _ in range(2 if number == 0x26 else 1):
                place += 2 + int.from_bytes(raw[place:place + 2], "big")
        found.append(raw[start:place])
    return found


def sorted_other(items):
    """Only user properties have an order (3.3.2-18); we send them last. Payload format 0 is the same as none."""
    users = [item for item in items if item[0] == 0x26]
    return sorted(item for item in items if item[0] != 0x26 and item != b"\x01\x00") + users


def test_message_expiry(make_node):
    node = make_node()
    expiry = lambda seconds: b"\x02" + struct.pack(">I", seconds)
    with Wire(node, 5, "hearer", props=b"\x21\x00\x01") as wire, Wire(node, 5, "speaker") as speaker:
        wire.subscribe("ex/x")
        assert speaker.publish("ex/x", b"first", props=expiry(600)) == 0
        first = wire.message(acknowledge=False)
        assert 590 <= struct.unpack(">I", first.props[1:])[0] <= 600
        started = time.monotonic()
        assert speaker.publish("ex/x", b"short", props=expiry(1)) == 0
        assert speaker.publish("ex/x", b"long", props=expiry(600)) == 0
        wait_until(lambda: time.monotonic() - started > 1.2, "a message to expire")
        wire.send(puback(first.number))
        last = wire.message()
        assert last.payload == b"long"
        assert struct.unpack(">I", last.props[1:])[0] <= 599  # 3.3.2.3.3: less the time it has waited
        assert node.metric("tidegate_messages_dropped_total", "expired") == 1


def test_json_is_the_same_bytes_at_both_doors(make_node):
    node = make_node(SPREAD)
    data = b'{"b": 1,\t"a":[1, 2.50e0 ,"\\u00fc"]}'
    with Wire(node, 5, "hearer") as wire, Web(node) as web:
        wire.subscribe("js/+")
        web.subscribe("js/+")
        with Wire(node, 4, "speaker") as speaker:
            assert speaker.publish("js/mqtt", data) == 0
        assert wire.message().payload == data
        assert data in web.next_item().raw
        web.ask({"pub": {"topic": "js/ws", "data": {"x": [1, 2]}}})
        assert wire.message().payload == b'{"x":[1,2]}'


@pytest.mark.parametrize("qos", [0, 1])
def test_a_burst_within_one_turn_is_no_overflow(make_node, qos):
    """More than out.bytes_max at once, for a client that reads: nothing is dropped, nobody becomes a cursor."""
    node = make_node({"out.bytes_max": 65536})
    hearers = [Wire(node, 5, f"hearer{i}", receive_buffer=1 << 22) for i in range(3)]
    for wire in hearers:
        assert wire.subscribe(("burst", qos)) == bytes([qos])
    with Wire(node, 5, "speaker") as speaker:
        speaker.send(b"".join(publish("burst", b"%d " % i + bytes(30000), 1, i + 1) for i in range(30)))
        for _ in range(30):
            speaker.expect(PUBACK)
    for wire in hearers:
        assert [count_in(wire.message().payload) for _ in range(30)] == list(range(30))
        wire.close()
    assert node.metric("tidegate_messages_dropped_total") == 0


# --- limits and endings -----------------------------------------------------------------------------------------

def test_properties_beyond_what_a_record_holds(make_node):
    node = make_node()
    with Wire(node, 5, "props") as wire:
        wire.subscribe("big")
        fits = b"".join(user("n" * 100, "v" * 20000) for _ in range(3))
        assert wire.publish("big", b"x", 3, props=user("n" * 100, "v" * 65500)) == 0x97
        assert wire.publish("big", b"x", 4, props=fits + user("n", "v" * 6000)) == 0x97
        many = user("", "") * 10000
        wire.send(publish("big", b"x", 1, 5, props=fits) + publish("big", b"y", 1, 6, props=many))
        got = [wire.packet() for _ in range(4)]
        messages = [Message(first, body, 5) for first, body in got if first >> 4 == 3]
        assert [message.props for message in messages] == [fits, many]


def test_the_limit_of_connections(make_node):
    node = make_node({"limit.connections": 5})
    wires = [Wire(node, 5, f"c{i}") for i in range(5)]
    for version, answer in ((3, b"\x20\x02\x00\x03"), (4, b"\x20\x02\x00\x03"), (5, b"\x20\x03\x00\x97\x00")):
        with Wire(node, version, connected=False) as late:
            late.send(connect(version, "late") + publish("a", b"x" * 100_000, version=version))
            assert late.rest() == answer
    for wire in wires[3:]:
        wire.send(BYE)
        assert wire.rest() == b""
    with Wire(node, 5, "again") as wire:
        wire.ping()
        # The scrape is a connection too.
        assert node.metric("tidegate_connects_total", "limit") == 3
    for wire in wires[:3]:
        wire.ping()
        wire.close()


def test_only_so_many_are_told_that_there_is_no_room(make_node):
    """Those above mqtt.refused_max are closed without a word, whoever says no CONNECT is not answered, and all of it has an end."""
    node = make_node({"limit.connections": 1, "mqtt.refused_max": 3, "mqtt.connect_timeout_ms": "10m"})
    held = lambda count: wait_until(lambda: node.metrics()["tidegate_connects_being_refused"] == count, f"{count} to be held")
    with Wire(node, 5, "first") as first:
        late = [Wire(node, 5, connected=False) for _ in range(3)]
        held(3)
        with Wire(node, 5, connected=False) as more:
            assert more.rest() == b"", "more than mqtt.refused_max are held"
        assert node.metrics()["tidegate_connects_unanswered_total"] == 1
        late[0].send(b"GET / HTTP/1.1\r\n\r\n")
        assert late[0].rest() == b""
        for byte in connect(5, "slow"):
            late[1].send(bytes([byte]))
        assert late[1].rest() == b"\x20\x03\x00\x97\x00"
        for wire in late:
            wire.close()
        held(0)
        first.ping()
    node.stop()
    node.settings["mqtt.connect_timeout_ms"] = 200
    node.restart()
    with Wire(node, 5, "first"), Wire(node, 5, connected=False) as silent:
        assert silent.rest() == b""


@pytest.mark.parametrize("qos", [0, 1])
@spans(0.4, 2, 10)
def test_a_reader_that_stands_still_is_closed(make_node, qos, span):
    node = make_node({"out.bytes_max": 65536, "out.stall_ms": int(span * 1000), "limit.inflight": 65535})
    with Wire(node, 5, "still", receive_buffer=4096) as wire, Wire(node, 5, "good") as good:
        wire.subscribe(("st/x", qos))
        good.subscribe(("st/x", 1))
        reader = threading.Thread(target=lambda: [good.message() for _ in range(4000)], daemon=True)
        reader.start()
        flood(node, 5, ["st/x"], 4000, 1000)
        wait_until(lambda: node.metric("tidegate_disconnects_total", "timeout") == 1, "the reader to be given up")
        reader.join(WAIT_S)
        assert not reader.is_alive()
        good.ping()
    wait_until(lambda: gauge(node, "outbound_queue_bytes") == 0, "its queue to be gone")


@LOOPS
def test_gone_with_publishes_and_replays_under_way(make_node, loops):
    node = make_node({"node.loops": loops, "log.partitions": 4})
    flood(node, 5, [f"u/{i}" for i in range(20)], 2000, 500)
    dice = random.Random(7)
    for number in range(60):
        wire = Wire(node, 5, f"u{number % 5}")  # takes over from one that may still be at it
        wire.send(subscribe(1, "u/#", f"u/{number % 20}", props=user("tg-from", "earliest"))
                  + b"".join(publish(f"u/{i}", b"x" * 500, 1, i + 1) for i in range(100)))
        for _ in range(dice.randrange(3)):
            wire.packet()
        if number % 3:
            drop(wire, dice)
    wait_until(lambda: gauge(node, "publishes_open") == 0, "the publishes to be answered")
    with Wire(node, 5, "after") as wire:
        wire.ping()


@LOOPS
def test_a_node_stops_under_load(make_node, loops):
    """Whatever is under way: it ends with 0, in time, and leaves nothing allocated (the sanitizer looks)."""
    node = make_node({"node.loops": loops, "log.partitions": 4})
    flood(node, 5, [f"u/{i}" for i in range(20)], 2000, 500)
    stopping = threading.Event()
    early = []

    def work(number):
        version = 3 + number % 3
        try:
            with Wire(node, version, f"load{number}", receive_buffer=4096 if number % 2 else None) as wire:
                options = {"props": user("tg-from", "earliest")} if version == 5 else {}
                wire.send(subscribe(1, "u/#", version=version, **options))
                while True:
                    # 5.0 with QoS 0: without looking at PUBACKs it would pass the Receive Maximum on a slow disk.
                    wire.send(b"".join(publish(f"u/{i}", b"x" * 500, int(version < 5), i + 1, version)
                                       for i in range(20)))
                    if number % 2:
                        wire.packet()
        except Exception as error:
            if not stopping.is_set() or not isinstance(error, (End, OSError)):
                early.append(f"load{number}: {error!r}")

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(12)]
    for thread in threads:
        thread.start()
    wait_until(lambda: node.metric("tidegate_messages_received_total", "mqtt") > 4000, "the load to be there")
    half = Wire(node, connected=False)
    half.send(connect(5, "half")[:-2])
    stopping.set()
    node.stop()
    for thread in threads:
        thread.join(WAIT_S)
    half.close()
    assert not early
