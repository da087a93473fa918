"""MQTT sessions that hop between three nodes of one log while publishing goes on: no gap, in order, each session found wherever
it comes. TIDEGATE_HOPPING says how many (1,000 were; fewer by default)."""

import os
import random
import threading
import time

import pytest

from clients import history
from mqtt_wire import BYE, End, Wire
from node import PATIENCE
from roaming import firsts
from test_kafka import settings
from test_mqtt_sessions import keep

COUNT = int(os.environ.get("TIDEGATE_HOPPING", "60"))
SEED = int(os.environ.get("TEST_SEED", "0")) or random.randrange(1 << 30)
HOPS, THREADS, TOPICS = 12, 12, 20
QUIET_S, BURST = 0.005, 8


class Hopper:
    def __init__(self, number):
        self.name, self.topic, self.got, self.hops = f"hopper{number}", f"h/{number % TOPICS}", [], 0

    def begin(self, node):
        with keep(node, 5, self.name) as wire:
            assert wire.subscribe((self.topic, 1)) == b"\x01"
            leave(wire)

    def hop(self, node, most):
        """Comes, takes so many messages at most, and goes: by DISCONNECT, or without a word."""
        with keep(node, 5, self.name) as wire:
            assert wire.connack[0] == 1, f"{self.name} is not known at {node.settings['node.id']}"
            self.hops += 1
            for _ in range(most):
                if wire.quiet(QUIET_S):
                    break
                self.got.append(int(wire.message().payload))
            if most % 2:
                leave(wire)


def leave(wire):
    wire.send(BYE)
    try:
        wire.rest()
    except End:
        pass


@pytest.mark.deadline(600)
def test_sessions_hop_while_publishing_goes_on(make_node, kafka):
    print(f"TEST_SEED={SEED}")
    nodes = [make_node(settings(kafka, **{"node.id": name})) for name in "abc"]
    hoppers = [Hopper(number) for number in range(COUNT)]
    sent, stopping, troubles = {f"h/{i}": [] for i in range(TOPICS)}, threading.Event(), []

    def on_all(work):
        """By THREADS threads, each with its own share and dice."""
        def run(number):
            dice = random.Random(f"{SEED}/{number}")
            try:
                for hopper in hoppers[number::THREADS]:
                    work(hopper, dice)
            except BaseException as error:
                troubles.append(repr(error))
        threads = [threading.Thread(target=run, args=(number,)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not troubles, troubles[:5]

    def speak():
        dice, number = random.Random(f"{SEED}/speaker"), 0
        with Wire(nodes[0], 5) as first, Wire(nodes[1], 5) as second, Wire(nodes[2], 5) as third:
            while not stopping.is_set():
                topic = dice.choice(list(sent))
                number += 1
                # One publisher, who waits for each acknowledgement: so order is defined across nodes.
                assert dice.choice((first, second, third)).publish(topic, b"%d" % number, number % 60000 + 1) == 0
                sent[topic].append(number)

    on_all(lambda hopper, dice: hopper.begin(dice.choice(nodes)))
    speaker = threading.Thread(target=speak, daemon=True)
    began = time.monotonic()
    speaker.start()
    for _ in range(HOPS):
        on_all(lambda hopper, dice: hopper.hop(dice.choice(nodes), dice.randrange(1, BURST)))
    stopping.set()
    speaker.join(60 * PATIENCE)
    assert not speaker.is_alive()
    seconds = time.monotonic() - began

    def rest(hopper, dice):
        until = time.monotonic() + 60 * PATIENCE
        while len(set(hopper.got)) < len(sent[hopper.topic]) and time.monotonic() < until:
            hopper.hop(dice.choice(nodes), 1001)

    on_all(rest)
    for topic, numbers in sent.items():
        assert [int(item["text"]) for item in history(nodes[0], topic)] == numbers, "published in one order"
    for hopper in hoppers:
        assert firsts(hopper.got) == sent[hopper.topic], f"{hopper.name}: {hopper.got} of {sent[hopper.topic]}"
    delivered, total = sum(len(hopper.got) for hopper in hoppers), sum(map(len, sent.values()))
    owed = sum(len(sent[hopper.topic]) for hopper in hoppers)
    print(f"{COUNT} sessions, {sum(hopper.hops for hopper in hoppers)} hops, {total} messages published in {seconds:.0f} s, "
          f"{owed} owed, {delivered} delivered ({delivered - owed} again)")
