"""Shared subscriptions (MQTT 5.0, 4.8.2), by hand and with real clients: each message goes to one member of the group."""

import os
import random
import select
import struct
import time

import pytest

from clients import WAIT_S, MosquittoSub, mosquitto_pub
from mqtt_wire import BYE, PUBLISH, PUBREL, SUBACK, Message, Wire, puback, pubcomp, publish, pubrec, pubrel, read_varint
from mqtt_wire import subscribe, unsubscribe
from node import wait_until

SEED = int(os.environ.get("TEST_SEED", "0")) or random.randrange(1 << 32)

LOOPS = pytest.mark.parametrize("loops", [1, 2])
SPREAD = {"log.partitions": 4}
RECEIVE_MAX = b"\x21"


def receive_max(count):
    return RECEIVE_MAX + struct.pack(">H", count)


class Member(Wire):
    """A client that takes what there is, without waiting; `acknowledge`: as it comes."""

    def __init__(self, node, version=5, client_id="", acknowledge=True, qos=1, filter="$share/g/work/#", **options):
        super().__init__(node, version, client_id, **options)
        self.acknowledge, self.got, self.open, self.released = acknowledge, [], [], 0
        self.socket.setblocking(True)
        if filter:
            assert self.subscribe((filter, qos)) == bytes([qos])

    def complete(self):
        """The first packet of what was read, or None."""
        for end in range(2, min(len(self.kept), 5) + 1):
            if self.kept[end - 1] < 0x80:
                length, place = read_varint(self.kept, 1)
                if len(self.kept) < place + length:
                    return None
                packet = self.kept[0], self.kept[place:place + length]
                self.kept = self.kept[place + length:]
                return packet
        return None

    def step(self):
        """False: there was nothing."""
        if select.select([self.socket], [], [], 0)[0]:
            self.fill()
        elif not self.kept:
            return False
        some = False
        while packet := self.complete():
            some = True
            self.handle(*packet)
        return some

    def handle(self, first, body):
        if first >> 4 == PUBLISH:
            message = Message(first, body, self.version)
            self.got.append(message)
            if message.qos and self.acknowledge:
                self.send(puback(message.number) if message.qos == 1 else pubrec(message.number))
            elif message.qos:
                self.open.append(message)
        elif first >> 4 == PUBREL:
            self.released += 1
            self.send(pubcomp(*struct.unpack_from(">H", body)))
        else:
            assert first == 0xD0, f"{first:02x} {body.hex()}"

    def settle(self):
        """Acknowledges (QoS 1) what it has kept open."""
        for message in self.open:
            self.send(puback(message.number))
        self.open = []

    def payloads(self):
        return [message.payload for message in self.got]


def pump(members, condition, what, seconds=3 * WAIT_S):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: {[len(m.got) for m in members]}"
        if not any([m.step() for m in members]):
            select.select([m.socket for m in members], [], [], 0.05)


def all_of(members):
    return sorted(p for m in members for p in m.payloads())


def send(node, count, topic="work/{}", qos=1, first=0):
    """Returns the payloads, sorted; all are acknowledged."""
    with Wire(node, 5) as wire:
        names = [b"%06d" % i for i in range(first, first + count)]
        for i, name in enumerate(names):
            wire.send(publish(topic.format(i % 16), name, qos, i % 16 + 1))
            if qos and (i % 16 == 15 or i == count - 1):
                numbers = range(1, i % 16 + 2)
                for _ in numbers:
                    wire.packet()
                if qos == 2:
                    wire.send(b"".join(map(pubrel, numbers)))
                    for _ in numbers:
                        wire.packet()
        wire.ping()
    return names


@LOOPS
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_each_message_goes_to_one_and_equal_members_get_equally_many(make_node, loops, qos):
    node = make_node({"node.loops": loops, **SPREAD})
    members = [Member(node, version, qos=qos) for version in (5, 5, 4, 4)]
    everything = Member(node, 5, qos=qos, filter="work/#")
    other = Member(node, 5, qos=qos, filter="$share/other/work/#")
    sent = send(node, 800, qos=qos)
    each = [*members, everything, other]
    pump(each, lambda: sum(len(m.got) for m in each) >= 3 * len(sent), "three times all")
    if qos == 2:
        pump(each, lambda: sum(m.released for m in each) == 3 * len(sent), "every PUBREL")
    assert all_of(members) == sent == all_of([everything]) == all_of([other])
    for member in members:
        assert abs(len(member.got) - 200) <= 30, [len(m.got) for m in members]
        assert not any(m.dup or m.retained for m in member.got)
    lanes = node.metric("tidegate_shared_members")
    assert lanes == 4 * 5 and node.metric("tidegate_shared_groups") == 2 * 4
    wait_until(lambda: node.metric("tidegate_shared_given") == 0, "all to be settled")
    for member in each:
        member.close()
    wait_until(lambda: node.metric("tidegate_shared_groups") == 0, "the groups to end", WAIT_S)


def test_within_a_member_a_topic_is_in_order(make_node):
    node = make_node({"node.loops": 2, **SPREAD})
    members = [Member(node, props=receive_max(n)) for n in (4, 8, 20)]  # no less than partitions
    sent = send(node, 400)
    pump(members, lambda: sum(len(m.got) for m in members) >= len(sent), "all")
    assert all_of(members) == sent
    for member in members:
        by_topic = {}
        for message in member.got:
            by_topic.setdefault(message.topic, []).append(message.payload)
        assert all(names == sorted(names) for names in by_topic.values())


def test_a_member_whose_window_is_full_gets_no_more(make_node):
    node = make_node()
    stuck = Member(node, acknowledge=False, props=receive_max(5), filter="$share/g/one")
    going = Member(node, props=receive_max(5), filter="$share/g/one")
    sent = send(node, 200, "one")
    pump([stuck, going], lambda: len(stuck.got) + len(going.got) >= len(sent), "all")
    assert len(stuck.got) == 5 and all_of([stuck, going]) == sent
    stuck.settle()
    more = send(node, 100, "one", first=200)
    pump([stuck, going], lambda: len(stuck.got) == 10, "five more")
    pump([stuck, going], lambda: len(stuck.got) + len(going.got) >= 300, "all")
    assert all_of([stuck, going]) == sent + more


def test_the_larger_free_window_gets_more(make_node):
    node = make_node()
    small = Member(node, acknowledge=False, props=receive_max(4), filter="$share/g/one")
    large = Member(node, acknowledge=False, props=receive_max(100), filter="$share/g/one")
    send(node, 10, "one")
    pump([small, large], lambda: len(small.got) + len(large.got) == 10, "all")
    assert 1 <= len(small.got) <= 3, len(small.got)  # turn about it would have all of its 4


@LOOPS
def test_nobody_has_room_so_the_messages_wait_in_the_log(make_node, loops):
    """More than memory keeps of the newest records: they come back from the disk."""
    node = make_node({"node.loops": loops, **SPREAD, "log.recent_bytes": "64K"})
    members = [Member(node, acknowledge=False, props=receive_max(4), filter="$share/g/one") for _ in range(2)]
    sent = send(node, 8, "one")
    pump(members, lambda: sum(len(m.got) for m in members) == 8, "the windows to be full")
    with Wire(node, 5) as wire:
        for i in range(8, 400):
            wire.publish("one", b"%06d" % i + bytes(1000))
            wire.publish("else", bytes(1000))
    assert not any(m.step() for m in members) and node.metric("tidegate_shared_groups_behind") == 1
    for member in members:
        member.acknowledge = True
        member.settle()
    pump(members, lambda: sum(len(m.got) for m in members) >= 400, "all")
    assert sorted(p[:6] for p in all_of(members)) == [b"%06d" % i for i in range(400)]
    wait_until(lambda: node.metric("tidegate_shared_groups_behind") == 0, "the group to be live")
    last = send(node, 10, "one", first=400)
    pump(members, lambda: sum(len(m.got) for m in members) >= 410, "live messages")
    assert sorted(p[:6] for p in all_of(members))[400:] == last


@LOOPS
@pytest.mark.parametrize("ending", ["cut", "goodbye", "takeover"])
def test_what_a_member_leaves_unacknowledged_goes_to_another(make_node, loops, ending):
    node = make_node({"node.loops": loops, **SPREAD})
    going = Member(node, props=receive_max(3), filter="$share/g/one")
    leaving = Member(node, 5, "leaver", acknowledge=False, filter="$share/g/one")
    sent = send(node, 100, "one")
    pump([going, leaving], lambda: len(going.got) + len(leaving.got) >= 100, "all")
    left = leaving.payloads()
    assert left and not set(left) & set(going.payloads())
    if ending == "goodbye":
        leaving.send(BYE)
    if ending == "takeover":
        Wire(node, 5, "leaver").close()
    leaving.close()
    pump([going], lambda: len(going.got) >= 100, "what it has left")
    assert all_of([going]) == sent and not any(m.dup for m in going.got)
    assert going.payloads()[-len(left):] == left  # in order
    assert node.metric("tidegate_shared_moved_total") == len(left)
    going.ping()


def test_a_qos_2_message_that_was_sent_is_nobody_elses(make_node):
    """MQTT-4.8.2-5. Its session ends with its connection: it is dropped, and counted."""
    node = make_node()
    leaving = Member(node, acknowledge=False, qos=2, filter="$share/g/one")
    mosquitto_pub(node, "one", b"two", qos=2)
    pump([leaving], lambda: len(leaving.got) == 1, "the message")
    staying = Member(node, qos=2, filter="$share/g/one")
    leaving.close()
    wait_until(lambda: node.metric("tidegate_shared_members") == 1, "it to be gone")
    mosquitto_pub(node, "one", b"next", qos=2)
    pump([staying], lambda: staying.released >= 1, "the next")
    assert staying.payloads() == [b"next"]
    assert node.metric("tidegate_messages_dropped_total", 'reason="session"') == 1


def test_a_message_that_a_member_refuses_is_nobody_elses(make_node):
    """MQTT-4.8.2-6"""
    node = make_node()
    refusing = Member(node, acknowledge=False, filter="$share/g/one")
    staying = Member(node, acknowledge=False, filter="$share/g/one")
    send(node, 2, "one")
    pump([refusing, staying], lambda: len(refusing.got) == len(staying.got) == 1, "one each")
    refusing.send(b"\x40\x03" + struct.pack(">H", refusing.got[0].number) + b"\x80")
    refusing.ping()
    wait_until(lambda: node.metric("tidegate_shared_given") == 1, "it to be settled")
    assert staying.quiet(0) and len(staying.got) == 1


def test_after_unsubscribe_what_was_sent_is_finished_and_nothing_more_comes(make_node):
    """MQTT-3.10.4-3"""
    node = make_node()
    leaving = Member(node, acknowledge=False, filter="$share/g/one")
    staying = Member(node, filter="$share/g/one")
    send(node, 10, "one")
    pump([leaving, staying], lambda: len(leaving.got) + len(staying.got) == 10, "all")
    leaving.send(unsubscribe(9, "$share/g/one"))
    assert leaving.packet()[0] == 0xB0
    sent = send(node, 10, "one", first=10)
    pump([staying], lambda: staying.payloads()[-10:] == sent, "the second ten")
    assert leaving.quiet(0)
    first, rest = leaving.open[:2], leaving.open[2:]
    for message in first:
        leaving.send(puback(message.number))
    leaving.ping()
    leaving.close()
    pump([staying], lambda: len(staying.got) + len(first) == 20, "what it never acknowledged")
    assert staying.payloads()[-len(rest):] == [m.payload for m in rest]


def test_subscribing_again_loses_nothing(make_node):
    node = make_node(SPREAD)
    member = Member(node)
    with Wire(node, 5) as wire:
        for i in range(60):
            member.send(subscribe(7, ("$share/g/work/#", 1 + i % 2)))
            wire.publish("work/x", b"%06d" % i)
    got = []
    deadline = time.monotonic() + WAIT_S
    while len(got) < 60 and time.monotonic() < deadline:
        first, body = member.packet()
        if first >> 4 == PUBLISH:
            got.append(Message(first, body, 5))
            member.send(puback(got[-1].number))
        else:
            assert first >> 4 == SUBACK
    assert [m.payload for m in got] == [b"%06d" % i for i in range(60)]


def test_subscribing_again_keeps_what_waits_for_the_group(make_node):
    node = make_node()
    member = Member(node, acknowledge=False, props=receive_max(2), filter="$share/g/one")
    sent = send(node, 10, "one")
    pump([member], lambda: len(member.got) == 2, "the window to be full")
    assert member.subscribe(("$share/g/one", 1)) == b"\x01"
    member.acknowledge = True
    member.settle()
    pump([member], lambda: len(member.got) >= 10, "what waits")
    assert member.payloads() == sent


def test_retained_messages_do_not_come_with_a_shared_subscription(make_node):
    node = make_node()
    mosquitto_pub(node, "one", b"old", "-r")
    member = Member(node, filter="$share/g/one")
    mosquitto_pub(node, "one", b"new", "-r")
    pump([member], lambda: member.got, "the new one")
    assert member.payloads() == [b"new"] and not member.got[0].retained
    asking = Member(node, filter=None)
    assert asking.subscribe(("$share/h/one", 1 | 8)) == b"\x01"  # Retain As Published
    mosquitto_pub(node, "one", b"newer", "-r")
    pump([asking], lambda: asking.got, "it")
    assert asking.got[0].retained


def connack_property(wire, number):
    place = read_varint(wire.connack, 2)[1]
    raw, sizes = wire.connack[place:], {0x21: 2, 0x22: 2, 0x27: 4, 0x2A: 1, 0x13: 2, 0x11: 4}
    while raw:
        size = 2 + struct.unpack_from(">H", raw, 1)[0] if raw[0] == 0x12 else sizes[raw[0]]
        if raw[0] == number:
            return int.from_bytes(raw[1:1 + size], "big")
        raw = raw[1 + size:]
    return None


def test_what_is_refused(make_node):
    node = make_node({"limit.shared_groups": 2, "limit.topic_bytes": 60})
    with Wire(node, 5) as wire:
        assert connack_property(wire, 0x2A) == 1
        for wrong in ("$share/g", "$share/g/", "$share//t", "$share/", "$share/a+/t", "$share/#/t", "$share/+/t",
                      "$share/g/a#", "$share/g/#/a", "$share/" + 60 * "g" + "/t"):
            assert wire.subscribe(wrong) == b"\x8f", wrong
        assert wire.subscribe("$share/g/$user/u/#", number=2) == b"\x87"  # the filter is judged, not the name
        assert wire.subscribe("$share/g/$SYS/#", number=2) == b"\x83"
        assert wire.subscribe("$share/g/t", number=3, props=b"\x26\x00\x07tg-from\x00\x08earliest") == b"\x83"
        assert wire.subscribe("$share/g/t", "$share/h/t", "$share/i/t", "$share/g/t") == b"\x01\x01\x97\x01"
        wire.send(unsubscribe(5, "$share/g/t", "$share/i/t"))
        assert wire.packet()[1][-2:] == b"\x00\x11"
        wait_until(lambda: node.metric("tidegate_shared_groups") == 1, "the group to end")
        assert wire.subscribe("$share/i/t") == b"\x01"
        assert node.metric("tidegate_shared_refused_total") == 1
    none = make_node({"limit.shared_groups": 0})
    with Wire(none, 5) as wire:
        assert connack_property(wire, 0x2A) == 0 and wire.subscribe("$share/g/t") == b"\x9e"


def test_access_is_judged_by_the_filter(make_node):
    node = make_node({"acl": '[{principal: "*", topic: "ok/#"}]'})
    with Wire(node, 5) as wire:
        assert wire.subscribe("$share/g/ok/x", "$share/ok/no/x") == b"\x01\x87"


def test_real_clients(make_node):
    node = make_node(SPREAD)
    with MosquittoSub(node, "$share/g/work/+", qos=1) as one, MosquittoSub(node, "$share/g/work/+", qos=2) as two, \
            MosquittoSub(node, "$share/g/work/+", "-V", "5", qos=2) as five:  # its Receive Maximum is 20
        sent = send(node, 200, qos=2)
        members = one, two, five
        wait_until(lambda: sum(m.messages.qsize() for m in members) >= 200, "all", 3 * WAIT_S)
        counts = [m.messages.qsize() for m in members]
        got = sorted(m.messages.get()[1] for m in members for _ in range(m.messages.qsize()))
        assert got == sent and abs(counts[0] - counts[1]) <= 0.15 * counts[0] and counts[2] >= 10, counts


@LOOPS
def test_members_come_and_go(make_node, loops):
    """Random members with random windows, some of which never acknowledge: while one of them stays, nothing is lost, and
    nothing is with two of them at a time."""
    seed = SEED
    print("seed", seed)
    rng = random.Random(seed)
    node = make_node({"node.loops": loops, **SPREAD, "log.recent_bytes": "64K"})
    members, acknowledged, total, where = [Member(node, props=receive_max(20))], {}, 0, {}

    def take(member):
        before = len(member.got)
        member.step()
        for message in member.got[before:]:
            holder = where.get(message.payload)
            assert holder is None or holder not in members, (seed, message.payload)
            where[message.payload] = member
            if member.acknowledge:
                acknowledged[message.payload] = acknowledged.get(message.payload, 0) + 1

    for _ in range(60):
        what = rng.random()
        if what < 0.35 and len(members) < 8:
            members.append(Member(node, rng.choice([4, 5]), acknowledge=rng.random() < 0.6))
        elif what < 0.6 and len(members) > 1:
            leaving = members[rng.randrange(1, len(members))]
            take(leaving)
            members.remove(leaving)
            leaving.close()
        else:
            count = rng.randrange(1, 60)
            send(node, count, first=total)
            total += count
        for member in members:
            take(member)
    while len(members) > 1:
        member = members.pop()
        take(member)
        member.close()
    deadline = time.monotonic() + 3 * WAIT_S
    while len(acknowledged) < total and time.monotonic() < deadline:
        take(members[0])
        select.select([members[0].socket], [], [], 0.02)
    assert sorted(acknowledged) == [b"%06d" % i for i in range(total)], (seed, total - len(acknowledged))
