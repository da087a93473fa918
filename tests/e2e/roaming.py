"""Clients that go from node to node while nodes, brokers and the network between them fail, and a ledger of what they were
told. A publisher tells numbers, one after the other, on a topic of its own, wherever it is; a subscriber has all topics."""

import http.client
import json
import random
import threading
import time

from clients import Closed, Resuming, Web, module
from mqtt_wire import PUBCOMP, PUBLISH, PUBREC, PUBREL, End, Message, Wire, puback, pubcomp, pubrec, pubrel
from mqtt_wire import publish as mqtt_publish
from node import PATIENCE

ANSWER_S = 10 * PATIENCE  # whoever has no answer then goes to another node
STAY_S = (0.3, 2.5)
AWAY = (OSError, End, Closed, http.client.HTTPException, module("websockets").WebSocketException, AssertionError, TimeoutError,
        KeyError)
ACKNOWLEDGED, REFUSED, UNKNOWN = "acknowledged", "refused", "unknown"


class Roamer:
    """A thread that is with one node after the other. `go` is there until the stay is over, and may fail."""

    def __init__(self, name, nodes, seed):
        self.name, self.nodes, self.dice = name, nodes, random.Random(f"{seed}/{name}")
        self.stopping, self.trouble = threading.Event(), None
        self.stays = self.failed_stays = 0
        self.thread = threading.Thread(target=self.roam, name=name, daemon=True)

    def roam(self):
        try:
            while not self.stopping.is_set():
                self.until = time.monotonic() + self.dice.uniform(*STAY_S)
                self.stays += 1
                node = self.dice.choice(self.nodes)
                try:
                    with node.inside():
                        self.go(node)
                except AWAY as error:
                    self.failed_stays += 1
                    self.last_error = f"{node.settings['node.id']}: {error!r}"
                    self.stopping.wait(0.05)
        except BaseException as error:  # a finding
            self.trouble = f"{self.name}: {error!r}"
            raise

    def here(self):
        return time.monotonic() < self.until and not self.stopping.is_set()

    def start(self):
        self.thread.start()
        return self

    def stop(self):
        self.stopping.set()
        self.thread.join(60 * PATIENCE)
        assert not self.thread.is_alive(), f"{self.name} hangs"
        assert self.trouble is None, self.trouble


# --- publishers ------------------------------------------------------------------------------------------------------

class Publisher(Roamer):
    """`told`: number -> what its publisher was told. A number that has no answer is not told again, for it has no identity."""

    again = False

    def __init__(self, name, nodes, seed):
        super().__init__(name, nodes, seed)
        self.topic, self.number, self.told = f"r/{name}", 0, {}

    def go(self, node):
        with self.come(node) as client:
            while self.here():
                if not (self.again and self.told.get(self.number, ACKNOWLEDGED) != ACKNOWLEDGED):
                    self.number += 1
                self.told[self.number] = UNKNOWN  # until an answer says more
                self.told[self.number] = self.tell(client, b"%d" % self.number)
                if self.told[self.number] != ACKNOWLEDGED:
                    return


class ByHttp(Publisher):
    fields = {}

    def come(self, node):
        return HttpClient(node)

    def tell(self, client, payload):
        status, body = client.post(f"/v1/publish/{self.topic}", payload, self.fields)
        return ACKNOWLEDGED if status == 200 else outcome(json.loads(body))


class HttpClient:
    def __init__(self, node):
        self.connection = http.client.HTTPConnection("127.0.0.1", node.ports["api"], timeout=ANSWER_S)

    def post(self, path, body, fields):
        self.connection.request("POST", path, body, fields)
        answer = self.connection.getresponse()
        return answer.status, answer.read()

    __enter__ = lambda self: self
    __exit__ = lambda self, *_: self.connection.close()


def outcome(error):
    return UNKNOWN if error.get("unknown") else REFUSED


class Once(ByHttp):
    """With a key: it tells a number until it is acknowledged, and it is there once."""

    again = True

    def tell(self, client, payload):
        self.fields = {"Idempotency-Key": f"{self.name}-{payload.decode()}"}
        return super().tell(client, payload)


class ByWebSocket(Publisher):
    def come(self, node):
        return Web(node, open_timeout=ANSWER_S)

    def tell(self, client, payload):
        answer = client.ask({"pub": {"topic": self.topic, "text": payload.decode()}}, ANSWER_S)
        return ACKNOWLEDGED if "ok" in answer else outcome(answer["err"])


class Impatient(Wire):
    """A socket on which nothing is waited for longer than for an answer."""

    def __init__(self, node, *words, **options):
        made = node.connect("mqtt", seconds=ANSWER_S / PATIENCE)

        class At:
            connect = staticmethod(lambda *_: made)

        try:
            super().__init__(At, *words, **options)
        except BaseException:
            made.close()
            raise


class ByMqtt(Publisher):
    """QoS 1. A code of 0x80 says that the outcome is unknown, one above it that nothing was stored."""

    def come(self, node):
        return Impatient(node, 5, f"{self.name}-{self.stays}")

    def tell(self, client, payload):
        return by_code(client.publish(self.topic, payload, self.number % 60000 + 1))


class ByMqtt2(ByMqtt):
    """QoS 2."""

    def tell(self, client, payload):
        identifier = self.number % 60000 + 1
        client.send(mqtt_publish(self.topic, payload, 2, identifier))
        body = client.expect(PUBREC)
        told = by_code(body[2] if len(body) > 2 else 0)
        if told == ACKNOWLEDGED:
            self.told[self.number] = told  # it is stored: what follows only frees the identifier
            client.send(pubrel(identifier))
            client.expect(PUBCOMP)
        return told


def by_code(code):
    return ACKNOWLEDGED if code < 0x80 else UNKNOWN if code == 0x80 else REFUSED


# --- subscribers -----------------------------------------------------------------------------------------------------

class Subscriber(Roamer):
    """`got`: topic -> the numbers that have come, in order."""

    def __init__(self, name, nodes, seed):
        super().__init__(name, nodes, seed)
        self.got, self.repeated, self.count = {}, 0, 0

    def may_repeat(self, topic):
        return False

    def take(self, topic, payload):
        numbers = self.got.setdefault(topic, [])
        numbers.append(int(payload))
        self.count += 1


class Reader(Subscriber):
    """By WebSocket, from where it was. Positions must rise and nothing may be missing: see Resuming."""

    def __init__(self, name, nodes, seed):
        super().__init__(name, nodes, seed)
        self.resuming = Resuming("r/#")

    def go(self, node):
        with Web(node, open_timeout=ANSWER_S) as web:
            answer = web.ask({"sub": {"topic": "r/#", "from": self.resuming.start()}}, ANSWER_S)
            if "ok" not in answer:
                return
            while self.here():
                try:
                    item = web.event(max(0.01, self.until - time.monotonic()))
                except AssertionError:
                    return  # nothing more came
                self.hear(item)

    def hear(self, item):
        before = len(self.resuming.messages)
        try:
            self.resuming.take(item)
        except AssertionError as error:
            raise RuntimeError(str(error)) from error
        if self.resuming.gaps:
            raise RuntimeError(f"a gap: {self.resuming.gaps}")
        if len(self.resuming.messages) > before:
            message = self.resuming.messages.pop()
            self.take(message["topic"], message["text"])


class Kept(Subscriber):
    """By MQTT, QoS 1, in a session that stays. What it has acknowledged late may come twice."""

    qos = 1

    def __init__(self, name, nodes, seed):
        super().__init__(name, nodes, seed)
        self.known = False

    def go(self, node):
        wire = Impatient(node, 5, self.name, flags=0, props=b"\x11\xff\xff\xff\xff")
        with wire:
            if self.known and wire.connack[0] != 1:
                raise RuntimeError(f"the session of {self.name} is not at {node.settings['node.id']}")
            if not self.known:
                assert wire.subscribe(("r/#", self.qos)) == bytes([self.qos])
                self.known = True
            while self.here():
                if wire.kept or not wire.quiet(0.02):
                    self.hear(wire)

    def may_repeat(self, topic):
        return True

    def hear(self, wire):
        message = wire.message()
        self.take(message.topic, message.payload)


class Exact(Kept):
    """QoS 2, where it was published so: hands a message on when its PUBLISH comes, and knows by its identifier which have
    been (4.3.3, method B)."""

    qos = 2

    def __init__(self, name, nodes, seed):
        super().__init__(name, nodes, seed)
        self.held = set()

    def may_repeat(self, topic):
        return not topic.startswith("r/bymqtt2")  # what was published with less comes with less

    def hear(self, wire):
        first, body = wire.packet()
        kind = first >> 4
        if kind == PUBLISH:
            message = Message(first, body, 5)
            if message.qos == 1:  # as it was published
                self.take(message.topic, message.payload)
                wire.send(puback(message.number))
                return
            if message.number not in self.held:
                self.held.add(message.number)
                self.take(message.topic, message.payload)
            wire.send(pubrec(message.number))
        elif kind == PUBREL:
            number = int.from_bytes(body[:2], "big")
            self.held.discard(number)
            wire.send(pubcomp(number))
        else:
            raise End(f"packet {first:02x} {body.hex()}")


# --- all of them -----------------------------------------------------------------------------------------------------

class Traffic:
    """Publishers by every door, two of each, and three subscribers of each kind."""

    def __init__(self, nodes, seed):
        self.nodes = nodes
        self.subscribers = [kind(f"{kind.__name__.lower()}{i}", nodes, seed) for kind in (Reader, Kept, Exact) for i in range(3)]
        self.publishers = [kind(f"{kind.__name__.lower()}{i}", nodes, seed)
                           for kind in (ByHttp, Once, ByWebSocket, ByMqtt, ByMqtt2) for i in range(2)]

    def start(self, wait_until):
        for subscriber in self.subscribers:
            subscriber.start()
        wait_until(lambda: all(getattr(one, "known", True) for one in self.subscribers), "the sessions to be there")
        for publisher in self.publishers:
            publisher.start()

    def troubles(self):
        return [one.trouble for one in self.publishers + self.subscribers if one.trouble]

    def counts(self):
        told = [outcome for one in self.publishers for outcome in list(one.told.values())]
        return {what: told.count(what) for what in (ACKNOWLEDGED, REFUSED, UNKNOWN)}

    def settle(self, stored, wait_until):
        """The publishers have been stopped, `stored`: topic -> the numbers that the log has, in its order. Each subscriber
        gets what it is owed."""
        def missing(one):
            return {topic: sorted(set(numbers) - set(one.got.get(topic, ()))) for topic, numbers in stored.items()
                    if not set(numbers) <= set(one.got.get(topic, ()))}

        def all_have_all():
            assert not self.troubles(), self.troubles()
            return not any(missing(one) for one in self.subscribers)

        try:
            wait_until(all_have_all, "all subscribers to have all", 60)
        except AssertionError as error:
            raise AssertionError(f"{error}: { {one.name: missing(one) for one in self.subscribers if missing(one)} }") from None
        for one in self.subscribers:
            one.stop()

    def judge(self, stored):
        """What was promised is so."""
        for one in self.publishers:
            numbers = stored[one.topic]
            there = set(numbers)
            lost = [n for n, told in one.told.items() if told == ACKNOWLEDGED and n not in there]
            assert not lost, f"{one.name}: acknowledged and not there: {lost}"
            against = [n for n, told in one.told.items() if told == REFUSED and n in there]
            assert not against, f"{one.name}: refused, and there all the same: {against}"
            assert there <= set(one.told), f"{one.name}: never sent: {sorted(there - set(one.told))}"
            sure = [n for n in numbers if one.told[n] == ACKNOWLEDGED]
            assert firsts(sure) == sorted(set(sure)), f"{one.name}: not in order"
            if isinstance(one, Once):
                assert len(numbers) == len(there), f"{one.name}: more than once"
        for one in self.subscribers:
            for topic, numbers in stored.items():
                got = one.got.get(topic, [])
                if one.may_repeat(topic):
                    one.repeated += len(got) - len(firsts(got))
                    got = firsts(got)
                    numbers = firsts(numbers)
                assert got == numbers, f"{one.name}, {topic}: {difference(got, numbers)}"


def firsts(numbers):
    return list(dict.fromkeys(numbers))


def difference(got, wanted):
    missing, more = sorted(set(wanted) - set(got)), sorted(set(got) - set(wanted))
    at = next((i for i, pair in enumerate(zip(got, wanted)) if pair[0] != pair[1]), min(len(got), len(wanted)))
    return f"missing {missing[:20]}, never stored {more[:20]}, {len(got)} of {len(wanted)}; first differs at {at}: " \
           f"{got[at - 2:at + 5]} instead of {wanted[at - 2:at + 5]}"
