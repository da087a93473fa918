"""QoS 2 exactly once, towards both sides, while sockets are cut at any byte and the node is killed: a client that does
what the standard says of its own half, and remembers it (4.1, 4.3.3). TIDEGATE_CUTS says how many cuts (500 were
made; fewer by default)."""

import os
import random
import struct
import time

import pytest

from clients import history
from mqtt_wire import (PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL, SUBACK, End, Message, Wire, packet, publish, pubcomp,
                       pubrec, pubrel)
from node import PATIENCE, wait_until
from test_mqtt_sessions import SPREAD, keep, present

CUTS = int(os.environ.get("TIDEGATE_CUTS", "40"))
SEED = int(os.environ.get("TEST_SEED", "0")) or random.randrange(1 << 30)
MESSAGES = 6


class Sender:
    """Publishes numbers with QoS 2: what is not finished is said again, after each reconnect."""

    def __init__(self):
        self.number = 0
        self.open = {}  # packet identifier -> [payload, released]
        self.identifier = 0

    def fresh(self):
        while len(self.open) < MESSAGES:
            self.identifier = self.identifier % 50 + 1
            if self.identifier in self.open:
                return
            self.number += 1
            self.open[self.identifier] = [b"%d" % self.number, False]
            yield publish("cut", self.open[self.identifier][0], 2, self.identifier)

    def again(self):
        for identifier, (payload, released) in self.open.items():
            yield pubrel(identifier) if released else publish("cut", payload, 2, identifier, flags=0x0C)

    def take(self, kind, body):
        identifier, = struct.unpack_from(">H", body)
        if kind == PUBREC and identifier in self.open:
            self.open[identifier][1] = True
            return pubrel(identifier)
        if kind == PUBCOMP:
            self.open.pop(identifier, None)
        return b""


class Receiver:
    """Hands a message on when its PUBLISH comes, and knows by its identifier which have been (4.3.3, method B)."""

    def __init__(self):
        self.held = set()
        self.got = []

    def take(self, kind, first, body):
        if kind == PUBLISH:
            message = Message(first, body, 5)
            assert message.qos == 2
            if message.number not in self.held:
                self.held.add(message.number)
                self.got.append(int(message.payload))
            return pubrec(message.number)
        if kind == PUBREL:
            identifier, = struct.unpack_from(">H", body)
            self.held.discard(identifier)
            return pubcomp(identifier)
        return b""


class Cut(Exception):
    pass


class Careless(Wire):
    """A socket that is cut when so many bytes have gone out or come in."""

    left = 1 << 30

    def send(self, data):
        if len(data) > self.left:
            self.socket.sendall(data[:self.left])
            raise Cut
        self.left -= len(data)
        super().send(data)

    def fill(self):
        before = len(self.kept)
        super().fill()
        self.left -= len(self.kept) - before
        if self.left < 0:
            raise Cut


def play(node, dice, sender, receiver, cut):
    """Until the cut; or, without one, until all is finished."""
    props = b"\x11\xff\xff\xff\xff"
    wire = Careless(node, 5, "both", flags=0, props=props)
    wire.left = cut if cut else 1 << 30
    try:
        wire.send(b"".join(sender.again()))
        deadline = time.monotonic() + 60 * PATIENCE
        while time.monotonic() < deadline:
            if cut:
                for data in sender.fresh():
                    wire.send(data)
            elif not sender.open and not receiver.held and len(receiver.got) >= sender.number:
                return True
            first, body = wire.packet()
            answer = receiver.take(first >> 4, first, body) or sender.take(first >> 4, body)
            if answer:
                wire.send(answer)
        raise AssertionError(f"not finished: {len(receiver.got)} of {sender.number}, open {sender.open}")
    except Cut:
        return False
    finally:
        wire.close()


@pytest.mark.deadline(3600)
@pytest.mark.parametrize("loops", [1, 2])
def test_exactly_once_in_spite_of_cuts(make_node, loops):
    print(f"TEST_SEED={SEED}")
    dice = random.Random(SEED)
    node = make_node({"node.loops": loops, "log.partitions": 4, "limit.inflight": 8})
    with keep(node, 5, "both") as wire:
        assert wire.subscribe(("cut", 2)) == b"\x02"
    sender, receiver = Sender(), Receiver()
    kills = 0
    for number in range(CUTS):
        play(node, dice, sender, receiver, dice.randrange(1, 3000))
        if dice.random() < 0.3:
            kills += 1
            node.kill9()
            node.restart()
    play(node, dice, sender, receiver, None)
    stored = [int(item["text"]) for item in history(node, "cut")]
    assert stored == list(range(1, sender.number + 1)), "not each stored exactly once"
    assert receiver.got == sorted(receiver.got), "out of order"
    assert receiver.got == list(range(1, sender.number + 1)), "not each exactly once"
    print(f"{CUTS} cuts, {kills} of them with kill -9: {len(stored)} messages stored, {len(receiver.got)} received, each once")
