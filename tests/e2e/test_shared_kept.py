"""Shared subscriptions of sessions that outlive their connections (MQTT 5.0, 4.8.2): a group goes on with nobody on line, and
behind a kill -9; QoS 2 waits for its client."""

import random
import struct
import threading
import time

import pytest

from clients import WAIT_S, mosquitto_pub, paho_client
from mqtt_wire import BYE, End, Wire, puback, publish, pubrec, unsubscribe
from node import wait_until
from test_mqtt_sessions import NEVER, come_back, expiry
from test_retention import SETTINGS, turn_over
from test_shared import SPREAD, Member, all_of, connack_property, pump, receive_max, send

ONE = "$share/g/one"
LOOPS = pytest.mark.parametrize("loops", [1, 2])
QUICK = {"session.save_ms": 50}


@pytest.fixture
def make_node(make_node):
    """Small files: there are many nodes."""
    return lambda settings=None, **options: make_node({"log.segment_bytes": "1M", **(settings or {})}, **options)


def kept(node, client, version=5, clean=False, seconds=None, filter=ONE, props=b"", **options):
    """A member whose session stays; `filter` None: it comes back."""
    if version == 5:
        props += NEVER if seconds is None else expiry(seconds)
    return Member(node, version, client, filter=filter, props=props, flags=0x02 if clean else 0, **options)


def back(node, client, version=5, **options):
    member = kept(node, client, version, filter=None, **options)
    assert member.connack[0] == 1, "its session is there"
    return member


def go(member, how="lost socket"):
    if how == "disconnect":
        member.send(BYE)
        assert member.rest() == b""
    member.close()


def groups(node):
    return node.metric("tidegate_shared_groups")


@pytest.mark.parametrize("way", ["disconnect", "restart", "kill -9"])
@LOOPS
@pytest.mark.parametrize("version", [4, 5])
def test_with_no_member_on_line_the_group_keeps_what_it_is_owed(make_node, version, loops, way):
    node = make_node({"node.loops": loops, **SPREAD, **QUICK})
    filter = "$share/g/work/#"
    member = kept(node, "a", version, filter=filter)
    if version == 5:
        assert connack_property(member, 0x2A) == 1
    first = send(node, 40)
    pump([member], lambda: len(member.got) == 40, "what comes live")
    member.ping()
    wait_until(lambda: node.metric("tidegate_shared_given") == 0, "all to be settled")
    go(member, way)
    away = send(node, 30, first=40)
    come_back(node, way)
    away += send(node, 30, first=70)
    member = back(node, "a", version)
    pump([member], lambda: set(member.payloads()) >= set(away), "what came while nobody was there")
    if way != "kill -9":  # that may repeat what was not written yet
        assert sorted(member.payloads()) == away
    assert set(member.payloads()) <= set(first + away)
    more = send(node, 10, first=100)
    pump([member], lambda: set(member.payloads()) >= set(more), "what comes live")
    assert len(groups_of(node)) == 4


def groups_of(node):
    """The partitions in which the group is, as a list, so that a failure shows the number."""
    return [1] * int(groups(node))


@pytest.mark.parametrize("way", ["lost socket", "kill -9"])
def test_unacknowledged_qos_1_goes_to_the_others_and_does_not_come_back(make_node, way):
    node = make_node(QUICK)
    leaving = kept(node, "a", acknowledge=False, props=receive_max(10))
    sent = send(node, 10, "one")
    pump([leaving], lambda: len(leaving.got) == 10, "all")
    go(leaving)
    if way == "kill -9":
        node.kill9()
        node.restart()
    staying = Member(node, filter=ONE)
    pump([staying], lambda: len(staying.got) >= 10, "what it has left")
    assert staying.payloads() == sent and not any(m.dup for m in staying.got)
    staying.ping()
    returned = back(node, "a")
    returned.ping()
    assert returned.quiet(0) and not returned.got
    more = send(node, 20, "one", first=10)
    pump([staying, returned], lambda: len(staying.got) + len(returned.got) >= 30, "the next")
    assert all_of([staying, returned]) == sent + more and len(returned.got) >= 8


@pytest.mark.parametrize("way", ["lost socket", "restart", "kill -9"])
def test_alone_it_gets_its_own_once_more_in_order(make_node, way):
    node = make_node(QUICK)
    member = kept(node, "a", acknowledge=False, props=receive_max(5))
    sent = send(node, 20, "one")
    pump([member], lambda: len(member.got) == 5, "its window")
    go(member, way)
    come_back(node, way)
    member = back(node, "a", props=receive_max(5))
    pump([member], lambda: len(member.got) >= 20, "all")
    assert member.payloads() == sent
    member.ping()
    assert node.metric("tidegate_messages_dropped_total") == 0


def test_what_was_out_when_its_place_was_written_comes_again(make_node):
    node = make_node(QUICK)
    member = kept(node, "a", acknowledge=False, props=receive_max(5))
    written = node.metric("tidegate_shared_writes_total")
    sent = send(node, 20, "one")
    pump([member], lambda: len(member.got) == 5, "its window")
    member.send(puback(member.got[0].number))
    wait_until(lambda: node.metric("tidegate_shared_writes_total") > written, "the place of the group written")
    node.kill9()
    member.close()
    node.restart()
    member = back(node, "a", props=receive_max(5))
    pump([member], lambda: len(member.got) >= 19, "all")
    assert member.payloads() == sent[1:]


@pytest.mark.parametrize("way", ["lost socket", "restart", "kill -9"])
@pytest.mark.parametrize("half", ["sent", "received"])
def test_qos_2_waits_for_its_client(make_node, way, half):
    """MQTT-4.8.2-4"""
    node = make_node(QUICK)
    member = kept(node, "a", acknowledge=False, qos=2)
    mosquitto_pub(node, "one", b"two", qos=2)
    pump([member], lambda: len(member.got) == 1, "the message")
    number = member.got[0].number
    if half == "received":
        member.send(pubrec(number))
        pump([member], lambda: member.released == 0 and member.got, "it")
        assert member.packet() == (0x62, struct.pack(">H", number))
    go(member, way)
    come_back(node, way)
    other = Member(node, qos=2, filter=ONE)
    mosquitto_pub(node, "one", b"next", qos=2)
    pump([other], lambda: other.released == 1, "the next")
    assert other.payloads() == [b"next"]
    member = back(node, "a")
    if half == "sent":
        pump([member], lambda: len(member.got) == 1, "it, once more")
        assert (member.got[0].payload, member.got[0].number, member.got[0].dup) == (b"two", number, True)
    pump([member], lambda: member.released == 1, "PUBREL")
    member.ping()
    assert other.payloads() == [b"next"] and len(member.got) == (half == "sent")


@pytest.mark.parametrize("granted", [0, 1, 2])
def test_the_qos_granted_to_the_member_holds(make_node, granted):
    """MQTT-4.8.2-3: no more than was granted, and what was published with less stays less."""
    node = make_node()
    member = kept(node, "a", qos=granted)
    for qos in (0, 1, 2):
        mosquitto_pub(node, "one", b"%d" % qos, qos=qos)
    pump([member], lambda: len(member.got) == 3, "all")
    assert {m.payload: m.qos for m in member.got} == {b"%d" % qos: min(qos, granted) for qos in (0, 1, 2)}


def test_what_was_not_sent_with_qos_2_moves(make_node):
    """Its window of 1 holds one; that waits, the others are the group's."""
    node = make_node()
    member = kept(node, "a", acknowledge=False, qos=2, props=receive_max(1))
    sent = send(node, 5, "one", qos=2)
    pump([member], lambda: len(member.got) == 1, "the first")
    go(member)
    other = Member(node, qos=2, filter=ONE)
    pump([other], lambda: other.released == 4, "the others")
    assert other.payloads() == sent[1:]


@pytest.mark.parametrize("end", ["clean start", "expiry", "DISCONNECT"])
def test_qos_2_is_dropped_and_counted_when_its_session_ends(make_node, end):
    """MQTT-4.8.2-5"""
    node = make_node()
    member = kept(node, "a", acknowledge=False, qos=2, seconds=1 if end == "expiry" else None)
    other = kept(node, "b", acknowledge=False, qos=2, props=receive_max(1))
    send(node, 2, "one", qos=2)
    pump([member, other], lambda: len(member.got) == len(other.got) == 1, "one each")
    assert node.metric("tidegate_messages_dropped_total", 'reason="session"') == 0
    if end == "DISCONNECT":
        member.send(b"\xe0\x07\x00\x05" + expiry(0))
    member.close()
    if end == "clean start":
        wait_until(lambda: node.metric("tidegate_shared_members") == 1, "it to be gone")
        Wire(node, 5, "a").close()
    wait_until(lambda: node.metric("tidegate_messages_dropped_total", 'reason="session"') == 1, "it to be counted",
               3 * WAIT_S)
    assert node.metric("tidegate_shared_kept_members") == 1
    other.ping()
    assert len(other.got) == 1


@pytest.mark.parametrize("end, way", [("unsubscribe", "stays"), ("unsubscribe", "kill -9"), ("clean start", "stays"),
                                      ("clean start", "kill -9"), ("expiry", "stays"), ("DISCONNECT", "kill -9")])
def test_the_group_ends_with_its_last_member(make_node, end, way):
    node = make_node(SPREAD)
    filter = "$share/g/work/#"
    member = kept(node, "a", seconds=1 if end == "expiry" else None, filter=filter)
    assert groups(node) == 4
    if end == "unsubscribe":
        member.send(unsubscribe(5, filter))
        assert member.packet()[0] == 0xB0
    elif end == "DISCONNECT":
        member.send(b"\xe0\x07\x00\x05" + expiry(0))
        assert member.rest() == b""
    member.close()
    send(node, 20)
    if end == "clean start":
        Wire(node, 5, "a").close()
    if way == "kill -9":
        node.kill9()
        node.restart()
    wait_until(lambda: groups(node) == 0, "the group to end", 3 * WAIT_S)
    assert node.metric("tidegate_shared_records") == 0 and node.metric("tidegate_shared_kept_members") == 0
    new = kept(node, "b", filter=filter)
    later = send(node, 5, first=20)
    pump([new], lambda: len(new.got) >= 5, "what comes after it")
    assert sorted(new.payloads()) == later


def test_a_group_goes_on_while_one_of_its_members_is_there_or_away(make_node):
    node = make_node()
    away, there = kept(node, "a"), Member(node, filter=ONE)
    go(away)
    first = send(node, 10, "one")
    pump([there], lambda: len(there.got) == 10, "all: it is alone")
    there.close()
    wait_until(lambda: node.metric("tidegate_shared_members") == 0, "nobody")
    second = send(node, 10, "one", first=10)
    new = Member(node, filter=ONE)  # joins a group that has a place
    pump([new], lambda: len(new.got) == 10, "what waited")
    assert new.payloads() == second and first
    new.close()
    assert back(node, "a").connack[0] == 1


def test_kept_members_get_equally_many(make_node):
    node = make_node(SPREAD)
    members = [kept(node, f"m{i}", version, filter="$share/g/work/#") for i, version in enumerate((5, 5, 4, 4))]
    sent = send(node, 800)
    pump(members, lambda: sum(len(m.got) for m in members) >= 800, "all")
    assert all_of(members) == sent
    for member in members:
        assert abs(len(member.got) - 200) <= 30, [len(m.got) for m in members]


def test_limits(make_node):
    node = make_node({"limit.shared_kept": 2})
    members = [kept(node, name) for name in "ab"]
    third = kept(node, "c", filter=None)
    assert third.subscribe((ONE, 1)) == b"\x97" and third.subscribe(("$share/h/one", 1)) == b"\x01"
    assert Member(node, filter=ONE).connack  # one that is not kept
    assert members[0].subscribe((ONE, 1)) == b"\x01"  # again
    go(members[0])
    back(node, "a").ping()
    small = make_node({"limit.shared_kept_given": 4})
    member = kept(small, "a", acknowledge=False)
    sent = send(small, 10, "one")
    pump([member], lambda: len(member.got) == 4, "as many as may be out")
    member.ping()
    assert len(member.got) == 4
    member.acknowledge = True
    member.settle()
    pump([member], lambda: len(member.got) == 10, "the others")
    assert member.payloads() == sent


@pytest.mark.parametrize("limit,value,most", [("limit.shared_given", 4, 4), ("limit.shared_bytes", 1, 1)])
def test_what_lies_with_members_is_limited(make_node, limit, value, most):
    """The others wait in the log, in order; a member that settles makes room."""
    node = make_node({limit: value})
    member = Member(node, filter=ONE, acknowledge=False)
    sent = send(node, 10, "one")
    pump([member], lambda: len(member.got) >= most, "as many as may be out")
    member.ping()
    assert len(member.got) == most
    member.acknowledge = True
    member.settle()
    pump([member], lambda: len(member.got) == 10, "the others")
    assert member.payloads() == sent


def test_subscribing_again_keeps_its_place(make_node):
    node = make_node()
    member = kept(node, "a", acknowledge=False, props=receive_max(2))
    sent = send(node, 10, "one")
    pump([member], lambda: len(member.got) == 2, "its window")
    assert member.subscribe((ONE, 1)) == b"\x01"
    go(member)
    come_back(node, "kill -9")
    member = back(node, "a")
    pump([member], lambda: len(member.got) >= 10, "all")
    assert member.payloads() == sent


def test_retention_takes_what_nobody_came_for_and_counts_it(make_node):
    # The group's place is written with the first acknowledgement, before what the log is turned over with: a place written
    # amid that could stand where it is.
    node = make_node({"log.partitions": 1, **SETTINGS, "session.save_count": 1, "session.save_ms": 3600000})
    lost, live = kept(node, "a", filter="$share/lost/one"), kept(node, "b", filter="$share/live/one")
    go(lost)
    with Wire(node, 5) as wire:
        wire.publish("one", b"old")
    pump([live], lambda: len(live.got) == 1, "it")
    live.ping()
    turn_over(node)
    node.kill9()  # its place has moved with the log, though nothing of it has
    go(live)
    node.settings["log.retention_bytes"] = 0  # it would go on at once, before the groups have read a thing
    node.restart()
    with Wire(node, 5) as wire:
        wire.publish("one", b"new")
    live = back(node, "b")
    pump([live], lambda: live.got, "the new one")
    assert live.payloads() == [b"new"] and node.metric("tidegate_messages_dropped_total") == 0
    lost = back(node, "a")
    pump([lost], lambda: lost.got, "what is left")
    assert lost.payloads() == [b"new"]
    assert node.metric("tidegate_messages_dropped_total", 'reason="retention"') > 0


def test_real_clients(make_node):
    """paho, twice: with persistent sessions in one group, and away for a while."""
    node = make_node(SPREAD)
    got, lock = [], threading.Lock()

    def on_message(_client, _data, message):
        with lock:
            got.append(message.payload)

    def start():
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties
        stays = Properties(PacketTypes.CONNECT)
        stays.SessionExpiryInterval = 600
        clients = [paho_client(f"paho{i}", 5) for i in range(2)]
        for client in clients:
            client.on_message = on_message
            client.connect("127.0.0.1", node.ports["mqtt"], clean_start=False, properties=stays)
            client.loop_start()
            wait_until(client.is_connected, "it to be connected")
        return clients

    clients = start()
    for client in clients:
        client.subscribe("$share/g/work/#", 2)
    wait_until(lambda: node.metric("tidegate_shared_kept_members") == 2 * 4, "both to be members")
    sent = send(node, 40, qos=2)
    wait_until(lambda: len(got) >= 40, "all", 3 * WAIT_S)
    for client in clients:
        client.disconnect()
        client.loop_stop()
    wait_until(lambda: node.metric("tidegate_shared_members") == 0, "nobody")
    sent += send(node, 40, qos=2, first=40)
    clients = start()
    wait_until(lambda: len(got) >= 80, "what came meanwhile", 3 * WAIT_S)
    assert sorted(got) == sent
    for client in clients:
        client.disconnect()
        client.loop_stop()


class Sure:
    """Publishes with QoS 1 until it is told to stop, across kill -9; what was acknowledged."""

    def __init__(self, node):
        self.node, self.acknowledged, self.next, self.stop = node, [], 0, False
        self.thread = threading.Thread(target=self.run)

    def run(self):
        while not self.stop:
            try:
                with Wire(self.node, 5) as wire:
                    while not self.stop:
                        name = b"%06d" % self.next
                        self.next += 1
                        if wire.publish("work/%d" % (self.next % 8), name) < 0x80:
                            self.acknowledged.append(name)
            except (End, OSError, AssertionError):
                time.sleep(0.01)


@LOOPS
@pytest.mark.deadline(180)
def test_kill_9_in_the_middle(make_node, loops):
    """Each acknowledged publish reaches some member; what was published with QoS 2 one of them, once."""
    seed = random.randrange(1 << 32)
    print("seed", seed)
    rng = random.Random(seed)
    node = make_node({"node.loops": loops, **SPREAD, **QUICK}, keep_ports=True)
    filter, members, everything, done2, open2 = "$share/g/work/#", {}, set(), [], {}

    class Persistent(Member):
        """Keeps what a client must keep: the QoS 2 messages that it has received and not released."""

        def handle(self, first, body):
            before = len(self.got)
            super().handle(first, body)
            for message in self.got[before:]:
                everything.add(message.payload)
                if message.qos == 2 and (self.name, message.number) not in open2:
                    open2[self.name, message.number] = message.payload
                    done2.append(message.payload)
                elif message.qos == 2:
                    assert message.dup and open2[self.name, message.number] == message.payload, (seed, message.payload)
            if first >> 4 == 6:
                open2.pop((self.name, struct.unpack_from(">H", body)[0]), None)

    def come(name):
        member = members[name] = Persistent(node, 5, name, filter=None, props=NEVER, flags=0)
        member.name = name
        if member.connack[0] == 0:
            assert member.subscribe((filter, 2)) == b"\x02"

    def turn(seconds):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for name in list(members):
                try:
                    members[name].step()
                except (End, OSError):
                    del members[name]
            time.sleep(0.001)

    for name in "abc":
        come(name)
    sure = Sure(node)
    sure.thread.start()
    two, number = [], 0
    try:
        for _ in range(4):
            with Wire(node, 5) as wire:
                for i in range(40):  # acknowledged by PUBCOMP only: a cut leaves it out
                    name = b"two%06d" % number
                    number += 1
                    wire.send(publish("work/%d" % (i % 8), name, 2, i + 1))
                    wire.packet()
                    wire.send(b"\x62\x02" + struct.pack(">H", i + 1))
                    wire.packet()
                    two.append(name)
                    if i % 4 == 0:
                        turn(0)
            turn(rng.random() / 20)
            for name in rng.sample("abc", rng.randrange(3)):
                if name in members:
                    members.pop(name).close()
            turn(rng.random() / 20)
            node.kill9()
            turn(0)
            for member in members.values():
                member.close()
            members.clear()
            node.restart()
            for name in rng.sample("abc", rng.randrange(1, 4)):
                come(name)
            turn(rng.random() / 20)
    finally:
        sure.stop = True
        sure.thread.join()
    for name in "abc":
        if name not in members:
            come(name)
    want = set(sure.acknowledged) | set(two)
    deadline = time.monotonic() + 4 * WAIT_S
    while (not everything >= want or open2) and time.monotonic() < deadline:
        turn(0.05)
    assert everything >= want, (seed, sorted(want - everything)[:10], len(want))
    twice = [name for name in set(done2) if done2.count(name) > 1]
    assert not twice and set(two) <= set(done2), (seed, twice[:10])
    assert len(sure.acknowledged) > 20
