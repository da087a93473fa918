"""MQTT sessions that outlive their connections and the node: by hand and with real clients."""

import random
import struct
import subprocess
import threading
import time

import pytest

from clients import WAIT_S, MosquittoSub, history, mosquitto_pub, need, paho_client, publish as api_publish
from mqtt_wire import (BYE, PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL, SUBACK, End, Message, Wire, connect, packet,
                       properties, puback, publish, pubcomp, pubrec, pubrel, subscribe, text, unsubscribe)
from node import PATIENCE, spans, wait_until
from test_mqtt_five import connack_props, prop, will_rest
from test_mqtt_qos2 import finish, number_of, publish2

VERSIONS = pytest.mark.parametrize("version", [3, 4, 5])
LOOPS = pytest.mark.parametrize("loops", [1, 2])
SPREAD = {"node.loops": 2, "log.partitions": 4}
NEVER = b"\x11\xff\xff\xff\xff"


def expiry(seconds):
    return b"\x11" + struct.pack(">I", seconds)


def keep(node, version, client="kept", clean=False, props=b"", seconds=None, flags=0, **more):
    """A client whose session stays. In 3.x that is not clean, in 5.0 an expiry."""
    if version == 5:
        props += NEVER if seconds is None else expiry(seconds)
    return Wire(node, version, client, flags=(0x02 if clean else 0) | flags, props=props, **more)


def present(wire):
    return wire.connack[0] == 1


def leave(wire, how):
    if how == "disconnect":
        wire.send(BYE)
        assert wire.rest() == b""
    wire.close()


def come_back(node, how, settled=True):
    """What lies between two connections."""
    if how == "kill -9":
        node.kill9()
        node.restart()
    elif how == "restart":
        node.stop()
        node.restart()
    else:
        wait_until(lambda: node.metric("tidegate_connections", "mqtt") == 0, "the connections to be gone")


WAYS = pytest.mark.parametrize("way", ["disconnect", "lost socket", "restart", "kill -9"])


@WAYS
@LOOPS
@VERSIONS
def test_a_session_goes_on(make_node, version, loops, way):
    """3.1.2.4: subscriptions, and what came meanwhile, in order, once; QoS 0 is not kept."""
    node = make_node({"node.loops": loops, "log.partitions": 4})
    first = keep(node, version)
    assert not present(first)
    assert first.subscribe(("s/+", 1), ("t/#", 2), ("zero", 0)) == b"\x01\x02\x00"
    with Wire(node, 5, "speaks") as speaker:
        assert speaker.publish("s/x", b"live") == 0
        assert first.message().payload == b"live"
        first.ping()
    leave(first, way)
    come_back(node, way)
    with Wire(node, 5, "speaks") as speaker:
        for number in range(1, 41):
            assert speaker.publish("s/x", b"%d" % number, number) == 0
            speaker.send(publish("s/x", b"not kept", 0))
            assert publish2(speaker, "t/y", b"%d" % number, number) == (0, 0)
            assert speaker.publish("zero", b"not kept", number) == 0
        speaker.ping()
        second = keep(node, version)
        assert present(second) == (version > 3)
        got = {"s/x": [], "t/y": []}
        for _ in range(81):
            message = second.message()
            if message.qos == 2:
                finish_later(second, message)
            if message.payload != b"live":  # a crash may repeat what was acknowledged last
                got[message.topic].append(message.payload)
            if sum(map(len, got.values())) == 80:
                break
        assert got == {topic: [b"%d" % number for number in range(1, 41)] for topic in got}
        speaker.send(publish("zero", b"now", 0))
        message = quiet_message(second)
        assert (message.topic, message.payload, message.qos) == ("zero", b"now", 0)
        second.close()


def finish_later(wire, message):
    """PUBREC; the PUBREL and what else comes is taken by quiet_message."""
    wire.send(pubrec(message.number))
    wire.kept_back = getattr(wire, "kept_back", [])
    original = wire.packet

    def packet_without_pubrel():
        while True:
            first, body = original()
            if first >> 4 != PUBREL:
                return first, body
            wire.send(pubcomp(number_of(body)))
    if not getattr(wire, "hushed", False):
        wire.hushed = True
        wire.packet = packet_without_pubrel


def quiet_message(wire):
    return wire.message()


@VERSIONS
def test_clean_start_discards(make_node, version):
    """MQTT-3.1.2-4 (5.0), -6 (3.1.1); and the next one finds nothing either."""
    node = make_node(SPREAD)
    first = keep(node, version)
    first.subscribe(("s/+", 1))
    leave(first, "disconnect")
    with Wire(node, version, "kept") as clean, Wire(node, 5, "speaks") as speaker:
        assert not present(clean)
        assert speaker.publish("s/x", b"x") == 0
        clean.ping()
        clean.send(BYE)
        clean.rest()
    with keep(node, version) as again:
        assert not present(again)
        again.ping()


@VERSIONS
def test_an_unsubscribed_filter_stays_away(make_node, version):
    node = make_node(SPREAD)
    first = keep(node, version)
    first.subscribe(("s/+", 1), ("t/+", 1))
    first.send(unsubscribe(7, "s/+", version=version))
    first.expect(11)
    node.kill9()
    node.restart()
    with Wire(node, 5, "speaks") as speaker:
        assert speaker.publish("s/x", b"not this") == 0
        assert speaker.publish("t/x", b"this", 2) == 0
        with keep(node, version) as second:
            assert second.message().payload == b"this"
            second.ping()


@WAYS
@pytest.mark.parametrize("version", [4, 5])
def test_what_was_in_flight_comes_again(make_node, version, way):
    """MQTT-4.4.0-1, MQTT-3.3.1-1: DUP and the first packet identifier, in the first order; QoS 2 from where it was."""
    node = make_node(SPREAD)
    first = keep(node, version)
    first.subscribe(("f/#", 2))
    with Wire(node, 5, "speaks") as speaker:
        for number in range(1, 7):
            assert speaker.publish("f/one", b"%d" % number, number) == 0
        one = [first.message(acknowledge=False) for _ in range(6)]
        first.send(puback(one[1].number))
        for number in range(1, 7):
            assert publish2(speaker, "f/two", b"%d" % number, number) == (0, 0)
        two = [first.message(acknowledge=False) for _ in range(6)]
        assert not any(message.dup for message in one + two)
        for message in two[:3]:
            first.send(pubrec(message.number))
            assert number_of(first.expect(PUBREL)) == message.number
        first.send(pubcomp(two[0].number))
        first.ping()
    leave(first, way)
    come_back(node, way)
    second = keep(node, version)
    assert present(second)
    got = []
    # PUBREL of what is finished may come once more: the last of what the record says was not written yet.
    wanted = {("rel", two[1].number), ("rel", two[2].number)}
    wanted |= {(m.payload, m.number) for m in [one[0], *one[2:], *two[3:]]}
    while not wanted <= set(got):
        first_byte, body = second.packet()
        if first_byte >> 4 == PUBREL:
            got.append(("rel", number_of(body)))
            second.send(pubcomp(number_of(body)))
            continue
        message = Message(first_byte, body, version)
        if message.qos == 1:
            second.send(puback(message.number))
        else:
            second.send(pubrec(message.number))
        got.append((message.payload, message.number))
        assert message.dup
    want_one = [(m.payload, m.number) for m in one if m is not one[1]]
    got_one = [item for item in got if item in [(m.payload, m.number) for m in one]]
    if way != "kill -9":
        assert got_one == want_one
    else:
        assert [item for item in got_one if item != (one[1].payload, one[1].number)] == want_one
    assert [item for item in got if item in [(m.payload, m.number) for m in two]] == [(m.payload, m.number) for m in two[3:]]
    second.close()


@VERSIONS
def test_a_repetition_across_a_crash_is_stored_once(make_node, version):
    """MQTT-4.3.3: PUBLISH, kill -9, PUBLISH with DUP; PUBREL, kill -9, PUBREL; then the identifier is new."""
    node = make_node(SPREAD)
    wire = keep(node, version)
    for round_number in range(3):
        wire.send(publish("once", b"%d" % round_number, 2, 7, version))
        assert number_of(wire.expect(PUBREC)) == 7
        node.kill9()
        node.restart()
        wire = keep(node, version)
        assert present(wire) == (version > 3)
        wire.send(publish("once", b"%d" % round_number, 2, 7, version, flags=0x0C))
        assert number_of(wire.expect(PUBREC)) == 7
        wire.send(pubrel(7))
        assert number_of(wire.expect(PUBCOMP)) == 7
        node.kill9()
        node.restart()
        wire = keep(node, version)
        wire.send(pubrel(7))
        assert number_of(wire.expect(PUBCOMP)) == 7
        assert [item["text"] if "text" in item else str(item["data"]) for item in history(node, "once")] == [
            str(number) for number in range(round_number + 1)]
    wire.close()


@pytest.mark.parametrize("version", [4, 5])
def test_a_release_between_a_crash_and_the_repetition(make_node, version):
    """What the record could not know of is known all the same, whatever the client says first."""
    node = make_node(SPREAD)
    wire = keep(node, version)
    for number in range(1, 21):
        wire.send(publish(f"once/{number}", b"x", 2, number, version))
        assert number_of(wire.expect(PUBREC)) == number
    node.kill9()
    node.restart()
    wire = keep(node, version)
    wire.send(pubrel(1) + pubrel(60000))
    assert number_of(wire.expect(PUBCOMP)) == 1
    assert number_of(wire.expect(PUBCOMP)) == 60000
    for number in range(2, 21):
        wire.send(publish(f"once/{number}", b"x", 2, number, version, flags=0x0C))
        assert number_of(wire.expect(PUBREC)) == number
    assert [len(history(node, f"once/{number}")) for number in range(1, 21)] == [1] * 20
    wire.send(publish("once/1", b"new", 2, 1, version))
    assert number_of(wire.expect(PUBREC)) == 1
    assert len(history(node, "once/1")) == 2
    wire.close()


@LOOPS
@VERSIONS
def test_a_second_connection_takes_the_session(make_node, version, loops):
    """MQTT-3.1.4-3: what was in flight to the first goes to the second, under the same identifiers."""
    node = make_node({"node.loops": loops, "log.partitions": 4})
    first = keep(node, version)
    first.subscribe(("s/+", 1))
    with Wire(node, 5, "speaks") as speaker:
        for round_number in range(10):
            for number in range(5):
                assert speaker.publish("s/x", b"%d" % number, number + 1) == 0
            before = [first.message(acknowledge=False) for _ in range(5)]
            second = keep(node, version)
            assert present(second) == (version > 3)
            assert first.rest() == (b"\xe0\x01\x8e" if version == 5 else b"")
            after = [second.message() for _ in range(5)]
            assert [(m.number, m.payload) for m in after] == [(m.number, m.payload) for m in before]
            assert all(message.dup for message in after)
            second.ping()
            first = second
    leave(first, "disconnect")


def sessions(node):
    return node.metrics()["tidegate_sessions"]


def test_expiry(make_node):
    """3.1.2.11.2: a session without a connection ends after its expiry; DISCONNECT may change that."""
    node = make_node(SPREAD)
    for client, seconds, changed, stays in (("short", 1, None, False), ("long", 600, None, True), ("cut", 600, 0, False),
                                            ("stretched", 1, 600, True), ("none", 0, None, False)):
        wire = keep(node, 5, client, seconds=seconds)
        wire.subscribe(("s", 1))
        if changed is not None:
            wire.send(packet(0xE0, b"\x00" + properties(expiry(changed))))
            wire.rest()
        wire.close()
    wait_until(lambda: sessions(node) == 2, "three of five to be over")
    for client, stays in (("short", False), ("long", True), ("cut", False), ("stretched", True), ("none", False)):
        with keep(node, 5, client) as wire:
            assert present(wire) == stays, client
    with keep(node, 5, "none", seconds=0) as wire:
        wire.send(packet(0xE0, b"\x00" + properties(expiry(5))))  # MQTT-3.14.2-2
        assert wire.disconnect_code() == 0x82


def test_the_setting_bounds_the_expiry(make_node):
    node = make_node({"mqtt.session_expiry_max_s": 1})
    with keep(node, 5, "a") as wire, keep(node, 5, "b", seconds=1) as exact, keep(node, 4, "c") as old:
        assert connack_props(wire)[0x11] == 1 and 0x11 not in connack_props(exact)
        old.ping()
    wait_until(lambda: sessions(node) == 0, "them to be over")
    with keep(node, 4, "c") as old, keep(node, 5, "a") as wire:
        assert not present(old) and not present(wire)


def test_an_expiry_that_a_crash_interrupted(make_node):
    node = make_node(SPREAD)
    held = [keep(node, 5, client, seconds=seconds) for client, seconds in (("short", 1), ("long", 600))]
    node.kill9()
    del held
    node.restart()
    wait_until(lambda: sessions(node) == 1, "the first to be over")
    with keep(node, 5, "short") as short, keep(node, 5, "long") as long:
        assert not present(short) and present(long)


def test_too_many_sessions(make_node):
    node = make_node({"limit.sessions": 2})
    keep(node, 5, "a").close()
    keep(node, 4, "b").close()
    with Wire(node, 5, connected=False) as wire:
        wire.send(connect(5, "c", 0, props=NEVER))
        assert wire.rest()[3] == 0x97
    with Wire(node, 4, connected=False) as wire:
        wire.send(connect(4, "c", 0))
        assert wire.rest() == b"\x20\x02\x00\x03"
    with Wire(node, 5, "c") as clean, keep(node, 5, "a") as again:
        clean.ping()
        assert present(again)


def test_filters_over_the_size_of_a_session(make_node):
    node = make_node({"limit.session_bytes": 256})
    with keep(node, 5, "a") as wire:
        codes = wire.subscribe(*[(f"filter/{number}", 1) for number in range(20)])
        assert codes[:3] == b"\x01\x01\x01" and codes[-1] == 0x97
        wire.ping()


def test_offline_sessions_cost_nothing_but_their_record(make_node):
    node = make_node()
    for number in range(200):
        with keep(node, 5, f"c{number}") as wire:
            wire.subscribe((f"s/{number}", 1), ("all/#", 1))
            wire.send(BYE)
            wire.rest()
    assert node.metrics()["tidegate_subscriptions"] == 0
    with Wire(node, 5, "speaks") as speaker:
        for number in range(100):
            assert speaker.publish("all/x", bytes(100), number + 1) == 0
    assert node.metrics()["tidegate_outbound_queue_bytes"] == 0
    with keep(node, 5, "c77") as wire:
        assert len([wire.message() for _ in range(100)]) == 100
        wire.ping()


def test_receive_maximum_of_the_connection_that_comes_back(make_node):
    node = make_node()
    first = keep(node, 5)
    first.subscribe(("s", 1))
    with Wire(node, 5, "speaks") as speaker:
        for number in range(1, 31):
            assert speaker.publish("s", b"%d" % number, number) == 0
    before = [first.message(acknowledge=False) for _ in range(30)]
    first.close()
    wait_until(lambda: node.metric("tidegate_connections", "mqtt") == 0, "the connections to be gone")
    second = keep(node, 5, props=b"\x21\x00\x04")
    after = [second.message(acknowledge=False) for _ in range(4)]
    second.ping()
    for _ in range(26):
        second.send(puback(after[len(after) - 4].number))
        after.append(second.message(acknowledge=False))
    second.ping()
    assert [(m.number, m.payload) for m in after] == [(m.number, m.payload) for m in before]
    second.close()


def test_options_and_identifiers_survive(make_node):
    node = make_node(SPREAD)
    first = keep(node, 5)
    first.subscribe(("rap/#", 0x09), props=b"\x0b\x07")
    first.subscribe(("nl/#", 0x05))
    leave(first, "disconnect")
    with Wire(node, 5, "speaks") as speaker:
        speaker.send(publish("rap/x", b"x", 1, 1, flags=0x03))
        speaker.expect(PUBACK)
        with keep(node, 5) as second:
            message = second.message()
            assert message.retained and prop(message, 0x0B) == [7] and not message.dup
            assert second.publish("nl/x", b"mine") == 0
            assert speaker.publish("nl/x", b"not mine") == 0
            assert second.message().payload == b"not mine"
            second.ping()


def test_a_walk_over_retained_messages_goes_on(make_node):
    """Whoever is cut off in the middle of them gets the others, and each once."""
    node = make_node({**SPREAD, "limit.inflight": 8})
    for number in range(100):
        api_publish(node, f"r/{number}", b"%d" % number, "-H", "Tidegate-Retain: 1")
    got = []
    wire = keep(node, 5)
    wire.subscribe(("r/#", 1))
    while True:
        for _ in range(5):
            message = wire.message(acknowledge=False)
            got.append(message.payload)
            assert message.retained
            wire.send(puback(message.number))
            if len(set(got)) == 100:
                break
        wire.send(BYE)
        wire.rest()
        if len(set(got)) == 100:
            break
        wire = keep(node, 5)
        assert present(wire)
    assert len(got) < 200  # no more than the window comes again, each time


# --- wills of sessions ------------------------------------------------------------------------------------------

DELAY = b"\x18"


def delayed(node, client, seconds, session_s, topic):
    return Wire(node, 5, client, flags=0x0C | 0x02, props=expiry(session_s),
                rest=will_rest(topic, b"gone", 5, DELAY + struct.pack(">I", seconds)))


@spans(1, 3, 10)
def test_a_will_waits_for_its_delay(make_node, span):
    """3.1.3.2.2: unless the client comes back; not longer than the session."""
    node = make_node(SPREAD)
    with Wire(node, 5, "hears") as hearer:
        hearer.subscribe("w/#")
        delayed(node, "back", span, 600, "w/back").close()
        delayed(node, "short", 600, span, "w/session").close()
        started = time.monotonic()
        wait_until(lambda: node.metric("tidegate_connections", "mqtt") == 1, "the connections to be gone")
        back = keep(node, 5, "back")
        assert present(back)
        delayed(node, "late", span, 600, "w/late").close()
        topics = sorted(hearer.message().topic for _ in range(2))
        assert topics == ["w/late", "w/session"] and time.monotonic() - started > 0.9 * span
        hearer.ping()
        back.close()
        # A new session in its place ends the old one: its will does not wait.
        delayed(node, "fresh", 600, 600, "w/fresh").close()
        wait_until(lambda: node.metric("tidegate_connections", "mqtt") == 1, "the connections to be gone")
        with Wire(node, 5, "fresh") as fresh:
            assert not present(fresh)
            assert hearer.message().topic == "w/fresh"
        hearer.ping()


@VERSIONS
@pytest.mark.parametrize("kept", [False, True])
def test_a_will_survives_kill_9(make_node, version, kept):
    """Of a connection whose node was killed; with a session and without."""
    node = make_node(SPREAD)
    flags = (0x00 if kept else 0x02) | 0x0C
    props = NEVER if kept and version == 5 else b""
    dies = Wire(node, version, "dies", flags=flags, props=props, rest=will_rest("w/killed", b"killed", version))
    node.kill9()
    dies.close()
    node.restart()
    wait_until(lambda: history(node, "w/killed"), "the will")
    node.kill9()
    node.restart()
    with Wire(node, 5, "speaks") as speaker:
        assert speaker.publish("w/end", b"x") == 0
    assert len(history(node, "w/killed")) == 1
    with keep(node, version, "dies") as wire:
        assert present(wire) == (kept and version > 3)


def test_a_delay_that_kill_9_interrupted(make_node):
    node = make_node(SPREAD)
    delayed(node, "pending", 1, 600, "w/pending").close()
    held = [delayed(node, "attached", 1, 600, "w/attached"), delayed(node, "back", 600, 600, "w/back")]
    wait_until(lambda: node.metric("tidegate_connections", "mqtt") == 2, "the first to be gone")
    node.kill9()
    del held
    node.restart()
    with keep(node, 5, "back") as back:
        assert present(back)
    for topic in ("w/pending", "w/attached"):
        wait_until(lambda: history(node, topic), topic)
    node.stop()
    node.restart()
    assert [len(history(node, topic)) for topic in ("w/pending", "w/attached", "w/back")] == [1, 1, 0]


# --- real clients -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("version", ["mqttv31", "mqttv311", "mqttv5"])
def test_mosquitto(make_node, version):
    node = make_node(SPREAD)
    more = ["-V", version, "-i", "mosq", "-c"] + (["-x", "600"] if version == "mqttv5" else [])
    with MosquittoSub(node, "m/#", *more, qos=2) as subscriber:
        mosquitto_pub(node, "m/x", b"first", qos=2)
        assert subscriber.next() == ("m/x", b"first")
    wait_until(lambda: node.metric("tidegate_connections", "mqtt") == 0, "mosquitto to be gone")
    for number in range(10):
        mosquitto_pub(node, "m/x", b"%d" % number, qos=number % 2 + 1)
    node.kill9()
    node.restart()
    with MosquittoSub(node, "m/#", *more, qos=2) as subscriber:
        got = [subscriber.next()[1] for _ in range(10)]
        if got[0] == b"first":
            got = got[1:] + [subscriber.next()[1]]
        # A client hands a QoS 2 message on when it is released, later than what it got behind it.
        for odd in (0, 1):
            assert [int(item) for item in got if int(item) % 2 == odd] == list(range(odd, 10, 2))


@pytest.mark.parametrize("version", [4, 5])
def test_paho_through_crashes(make_node, version):
    """A publisher and a subscriber that reconnect by themselves: each message once, in the order of the log. (paho may send
    what is published between its CONNECT and the CONNACK before what it has to send again.)"""
    node = make_node({**SPREAD}, keep_ports=True)
    got, done = [], threading.Event()

    def client(name):
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties
        made = paho_client(name, version) if version == 5 else kept_paho(name)
        made.reconnect_delay_set(1, 1)
        if version == 5:
            stays = Properties(PacketTypes.CONNECT)
            stays.SessionExpiryInterval = 600
            made.connect("127.0.0.1", node.ports["mqtt"], clean_start=False, properties=stays)
        else:
            made.connect("127.0.0.1", node.ports["mqtt"])
        made.loop_start()
        wait_until(made.is_connected, f"{name} to be connected")
        return made

    hearer = client("hears")
    hearer.on_message = lambda _, __, message: (got.append(message.payload), len(set(got)) == 60 and done.set())
    subscribed = threading.Event()
    hearer.on_subscribe = lambda *_: subscribed.set()
    hearer.subscribe("p", 2)
    assert subscribed.wait(WAIT_S)
    speaker = client("speaks")
    for crash in range(3):
        for number in range(20):
            speaker.publish("p", b"%d" % (crash * 20 + number), 2)
        node.kill9()
        node.restart()
    assert done.wait(WAIT_S), f"{len(set(got))} of 60"
    speaker.disconnect()
    hearer.disconnect()
    speaker.loop_stop()
    hearer.loop_stop()
    assert sorted(got, key=int) == [b"%d" % number for number in range(60)]
    assert got == [item["text"].encode() for item in history(node, "p")]


def kept_paho(name):
    mqtt = __import__("paho.mqtt.client", fromlist=["client"])
    if hasattr(mqtt, "CallbackAPIVersion"):
        return mqtt.Client(mqtt.CallbackAPIVersion.VERSION1, name, clean_session=False)
    return mqtt.Client(name, clean_session=False)
