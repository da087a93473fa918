#!/usr/bin/python3
"""A random walk of many MQTT clients, 5.0 and 3.1.1, through everything that a broker has for them, against a model that is
a few lists (broker.py).

    tests/model/mqtt.py [--steps N] [--seed S]... [--partitions P] [--loops L] [--kill-every K]

QoS 0, 1 and 2 both ways, retained messages set, cleared and expiring, Retain Handling, Retain As Published, No Local,
subscription identifiers, unsubscribing, wills with and without delay, take-over, clean start, session expiry, message expiry,
topic aliases both ways, Receive Maximum, acknowledgements held back; sockets are cut in the middle of things, and the
node is killed with kill -9, or stopped, and started again. Each message that comes must be owed, in order, with the QoS,
RETAIN, DUP and properties that are due; QoS 2 once, QoS 1 again only where no acknowledgement can be known; at settling
points nothing may be missing, and what is retained and what the log holds must be the model's. The same seed takes the
same steps, though the node's threads and the kernel do not."""

import argparse
import http.client
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlencode

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "e2e")]

from broker import LOST, MAYBE, Record, Retained, Session, Subscription  # noqa: E402
from mqtt_wire import CONNACK, DISCONNECT, PUBACK, PUBCOMP, PUBLISH, PUBREC, PUBREL, SUBACK, UNSUBACK  # noqa: E402
from mqtt_wire import BYE, PING, Message, connect, packet, puback, pubcomp, publish, pubrec, pubrel  # noqa: E402
from mqtt_wire import read_varint, subscribe, text, unsubscribe, user, varint  # noqa: E402
from node import PATIENCE, Node  # noqa: E402
from run import payload_of  # noqa: E402
from test_mqtt_five import property_walk  # noqa: E402
from wire import Gone, Stream, turn  # noqa: E402

TOPICS = [f"m/{area}/{place}" for area in "abc" for place in range(4)]
FILTERS = ["m/#", "m/+/1", "m/a/+", "+/b/#", "m/c/2", "m/b/0", "#", "m/+/+", "w/#", "w/c1", "x/+", "x/1", "+/+"]
CLIENTS = 10  # every fourth speaks 3.1.1
KEPT_S = 3600
LONG_S = 3000
WAIT_S = 60 * PATIENCE
SETTINGS = {"log.segment_bytes": "64K", "log.recent_bytes": "4K", "logging.level": "warn", "session.save_count": 20,
            "limit.inflight": 12, "mqtt.topic_aliases": 4}
PASSING = [b"\x01\x01", b"\x03" + text("text/plain"), b"\x08" + text("answers/here") + b"\x09" + text(b"\0\xff\1"),
           user("b", "1") + user("a", "2") + user("b", "1")]


class Came(Message):
    """A PUBLISH as the model looks at it."""

    def __init__(self, first, body, version, aliases):
        super().__init__(first, body, version)
        self.five = version == 5
        self.identifier, self.number, self.ident, self.expiry, self.passing = self.number, None, None, None, []
        for name, value in property_walk(self.props):
            if name == 0x26 and value[0] == b"n":
                self.number = int(value[1])
            elif name == 0x0B:
                self.ident = value
            elif name == 0x02:
                self.expiry = value
            elif name == 0x23:
                if self.topic:
                    aliases[value] = self.topic
                self.topic = aliases[value]
            else:
                self.passing.append((name, value))

    def __repr__(self):
        return (f"{self.topic} #{self.number} {self.payload[:30]!r} QoS {self.qos} identifier {self.identifier} DUP {self.dup:d} "
                f"RETAIN {self.retained:d} subscription {self.ident}")


class Peer(Stream):
    """One connection of a client."""

    def __init__(self, port, client):
        super().__init__(port)
        self.client, self.aliases, self.spoken, self.busy = client, {}, {}, 0
        self.connack, self.answers, self.pongs, self.why = None, {}, 0, None

    def cut(self):
        box = self.inbox
        if len(box) < 2 or all(byte & 0x80 for byte in box[1:5]) and len(box) < 5:
            return 0
        size, at = read_varint(box, 1)
        if len(box) < at + size:
            return 0
        self.came(box[0], bytes(box[at:at + size]))
        return at + size

    def came(self, first, body):
        kind, client = first >> 4, self.client
        if kind == PUBLISH:
            client.message(self, Came(first, body, client.version, self.aliases))
        elif kind == PUBREL:
            client.released(self, int.from_bytes(body[:2], "big"))
        elif kind == PUBREC:
            client.received(self, int.from_bytes(body[:2], "big"), body[2:3])
        elif kind in (PUBACK, PUBCOMP):
            assert body[2:3] in (b"", b"\0", b"\x92" if kind == PUBCOMP else b""), f"{client.name}: {kind} {body.hex()}"
            client.finished(kind, int.from_bytes(body[:2], "big"))
        elif kind in (SUBACK, UNSUBACK):
            self.answers[int.from_bytes(body[:2], "big")] = body[2:] if client.version < 5 else body[2 + 1 + body[2]:]
        elif kind == 13:
            self.pongs += 1
        elif kind == CONNACK:
            assert body[1] == 0, f"{client.name}: CONNACK {body.hex()}"
            self.connack = body[0]
        else:
            assert kind == DISCONNECT and (self.draining or self.why == body[0]), f"{client.name}: {first:02x} {body.hex()}"


class Client:
    def __init__(self, world, number):
        self.world, self.dice, self.name = world, world.dice, f"c{number}"
        self.version = 4 if number % 4 == 3 else 5
        self.session, self.lasting, self.peer, self.resumed = Session(), False, None, False
        self.serial, self.lazy, self.due, self.unsure = 0, False, [], []
        self.window, self.number, self.idents = None, 0, 0
        self.will = self.pending = None  # of this connection; delayed, of the last one
        self.crashed = self.repeats = False  # since it was here; before this connection
        self.waiting = {}  # QoS 1 that was published and is not acknowledged: identifier -> Record

    # --- connection ---

    @property
    def here(self):
        return self.peer is not None

    def connect(self, clean=None, expiry=None):
        dice, world = self.dice, self.world
        clean = dice.random() < 0.12 if clean is None else clean
        expiry = dice.choice([0, KEPT_S, KEPT_S, KEPT_S, 1]) if expiry is None else expiry
        if self.version < 5:
            expiry = 0 if clean else KEPT_S
        late = self.pending if clean and self.lasting else None
        self.pending = None
        if clean:
            self.forget()
        if late:  # the session ends now, and with it the will's delay
            world.publish(late)
        expected = self.lasting and not clean
        self.window, maximum = dice.choice([None, None, 1, 2, 7]), dice.choice([0, 0, 3])
        props = (varint(0x11) + expiry.to_bytes(4, "big") if expiry else b"")
        props += (b"\x21" + self.window.to_bytes(2, "big") if self.window else b"")
        props += (b"\x22" + maximum.to_bytes(2, "big") if maximum else b"")
        if self.version < 5:
            self.window, props = None, b""
        flags, rest = self.choose_will()
        old, self.serial, self.lazy, self.due = self.peer, self.serial + 1, False, []
        self.expiry, self.lasting, self.resumed, self.waiting = expiry, expiry > 0, expected, {}
        self.repeats, self.crashed = self.crashed and expected, False
        peer = self.peer = world.track(Peer(world.node.ports["mqtt"], self))
        if old:
            old.why = 0x8E
        self.peer.send(connect(self.version, self.name, flags | (2 if clean else 0), props=props, rest=rest))
        world.until(lambda: peer.connack is not None, f"{self.name}: CONNACK")
        assert bool(peer.connack) == expected, f"{self.name}: Session Present {peer.connack}, not {expected}"
        if not expected:
            self.forget()
        if late:
            world.told(late)
        self.say_again()

    def choose_will(self):
        """(flags, what stands in the payload); a delay of 5.0."""
        self.will, self.delay = None, 0
        if self.dice.random() < 0.5:
            return 0, b""
        qos, retain = self.dice.randrange(3), self.dice.random() < 0.3
        self.will = self.world.make(self, f"w/{self.name}", qos, retain, plain=True)
        self.will.will = True
        props = b""
        if self.version == 5:
            self.delay = self.dice.choice([0, 0, 1, LONG_S])
            self.will.delayed = self.delay > 0
            props = (b"\x18" + self.delay.to_bytes(4, "big") if self.delay else b"") + user("n", str(self.will.number))
            props = varint(len(props)) + props
        return 0x04 | qos << 3 | retain << 5, props + text(self.will.topic) + text(self.will.payload)

    def forget(self):
        self.session = Session()

    def say_again(self):
        """What the client has published with QoS 2 and is not finished (4.4)."""
        for identifier, (record, released) in self.session.open.items():
            self.peer.send(pubrel(identifier) if released else self.bytes_of(record, identifier, dup=True))

    def fires(self, how):
        """The will that an end publishes, now or in a second."""
        waits = self.delay and self.expiry > 0 and (how == "takeover" or (self.delay == LONG_S and self.expiry > 1))
        return None if how == "goodbye" or waits else self.will

    def leave(self, how):
        """The model's part of an end. Returns the will that is published for it."""
        fires, will, self.will = self.fires(how), self.will, None
        survives = self.expiry > 0
        for item in self.unsure:
            item.settled = False
        self.unsure, self.due, self.waiting = [], [], {}
        self.lasting = survives
        for subscription in self.session.all():
            subscription.left()
        if not survives:
            self.forget()
        if will and not fires and how not in ("goodbye", "takeover"):
            self.pending = will
        return fires

    def end(self, how):
        """close, reset (nothing more is read), goodbye or regret (DISCONNECT 0x00 and 0x04)."""
        peer, world = self.peer, self.world
        if how == "regret" and self.version < 5:
            how = "goodbye"
        if how in ("goodbye", "regret"):
            self.settle()  # what comes behind DISCONNECT would be no surprise, but who could say what it is
        will = self.leave(how)
        self.peer = None
        if will:
            world.publish(will)
        if how in ("goodbye", "regret"):
            peer.send(BYE if how == "goodbye" else packet(0xE0, b"\x04"))
            peer.draining = True
            world.until(lambda: peer.gone, f"{self.name}: the end of the connection")
        peer.close()
        world.until(lambda: not world.connected(self), f"the node to see that {self.name} has gone", poll=True)
        if will:
            world.told(will)
        if self.expiry == 1 and self.lasting:
            world.pass_time(1.2)
            self.expired()

    def expired(self):
        """Its session has ended. (A will that waited for that is published, too: fires.)"""
        self.lasting = False
        self.forget()

    # --- what comes ---

    def message(self, peer, message):
        assert peer is self.peer or peer.draining or peer.why, f"{self.name}: a message on an old connection"
        if peer is not self.peer:
            return  # taken over: what is under way there comes again
        if message.qos == 2 and message.identifier in self.session.held:
            item = self.session.held[message.identifier]
            assert message.dup and self.resumed and item.record.payload == message.payload, (
                f"{self.name}: {message} under the identifier of {item.record}")
        else:
            item = self.session.take(self.name, message, self.serial, self.resumed)
        record = item.record
        self.world.counts["deliveries"] += 1
        assert self.version < 5 or message.passing == list(record.props), f"{message}: {message.passing}, not {record.props}"
        assert (message.expiry is None) == (record.expiry is None or self.version < 5), f"{message} {message.expiry}"
        assert message.expiry is None or 0 <= message.expiry <= record.expiry
        if message.qos:
            peer.busy += 1
            assert self.window is None or peer.busy <= self.window, f"{self.name}: {peer.busy} open, Receive Maximum {self.window}"
            if message.qos == 2:
                self.session.held[message.identifier] = item
            self.due.append((message.qos, message.identifier, item))
            if not self.lazy:
                self.pay()

    def pay(self):
        due, self.due = self.due, []
        for qos, identifier, item in due:
            if qos == 1:
                self.peer.busy -= 1
                item.settled = True
                self.unsure.append(item)
            self.peer.send(puback(identifier) if qos == 1 else pubrec(identifier))

    def released(self, peer, identifier):
        if self.session.held.pop(identifier, None):
            peer.busy = max(0, peer.busy - 1)
        peer.send(pubcomp(identifier))

    # --- publishing ---

    def next_number(self):
        while True:
            self.number = self.number % 300 + 1
            if self.number not in self.session.open and self.number not in self.waiting:
                return self.number

    def bytes_of(self, record, identifier=0, dup=False, alias=None):
        props = b""
        topic = record.topic
        if self.version == 5:
            props = b"".join(record.raw) + user("n", str(record.number))
            props += b"\x02" + record.expiry.to_bytes(4, "big") if record.expiry is not None else b""
            if alias:
                props += b"\x23\0" + bytes([alias])
                known, self.peer.spoken[alias] = self.peer.spoken.get(alias), topic
                topic = "" if known == topic else topic
        return publish(topic, record.payload, record.qos, identifier, self.version, props,
                       flags=dup << 3 | record.qos << 1 | record.retain)

    def say(self, record):
        identifier = self.next_number() if record.qos else 0
        if record.qos == 1:
            self.waiting[identifier] = record
        elif record.qos == 2:
            self.session.open[identifier] = [record, False]
        alias = self.dice.randint(1, 4) if self.version == 5 and self.dice.random() < 0.3 else None
        self.peer.send(self.bytes_of(record, identifier, alias=alias))

    def received(self, peer, identifier, code):
        assert code in (b"", b"\0"), f"{self.name}: PUBREC {code.hex()}"
        if identifier in self.session.open:
            record = self.session.open[identifier][0]
            self.session.open[identifier][1] = True
            if record.state is MAYBE:
                record.stored(time.monotonic())
        peer.send(pubrel(identifier))

    def finished(self, kind, identifier):
        if kind == PUBCOMP:
            record = self.session.open.pop(identifier, (None, True))[0]
        else:
            record = self.waiting.pop(identifier, None)
        if record and record.state is MAYBE:
            record.stored(time.monotonic())

    def quiet(self):
        return not self.waiting and not self.session.open

    def say_all(self, records):
        """And nothing goes on before it is acknowledged. QoS 0 has its place when something behind it has."""
        world = self.world
        behind = {record.topic for record in records if record.qos == 0}
        records = records + [world.make(self, topic, 1, False) for topic in sorted(behind)]
        for record in records:
            world.publish(record)
            self.say(record)
        world.until(self.quiet, f"{self.name}: acknowledgements")
        for record in records:
            if record.state is MAYBE:
                record.stored(time.monotonic())

    # --- subscribing ---

    def settle(self):
        """It has all that it is owed, and the node knows."""
        self.lazy = False
        self.pay()
        self.world.until(lambda: not self.session.missing() and not self.session.held and self.quiet(),
                         lambda: f"{self.name} ({'resumed' if self.resumed else 'new'}, window {self.window}) to have "
                                 f"{self.session.missing() or self.session.held}")
        pongs = self.peer.pongs
        self.peer.send(PING)
        self.world.until(lambda: self.peer.pongs > pongs, f"{self.name}: PINGRESP")
        self.unsure = []

    def subscribe(self):
        session, dice = self.session, self.dice
        filter = dice.choice(FILTERS)
        if self.version < 5 and (session.all()) and filter not in session.subscriptions:
            return  # without identifiers nobody could tell its copies apart
        old = session.subscriptions.get(filter)
        if old and (self.repeats or old.may_come()):
            return  # what comes late, or a crash makes come again, would come by the new options
        if old or self.version < 5:
            self.settle()  # what was due by the old options is through
        qos, handling, ident = dice.randrange(3), 0, None
        new = Subscription(filter, qos)
        options, props = qos, b""
        if self.version == 5:
            new.no_local, new.as_published, handling = dice.random() < 0.2, dice.random() < 0.4, dice.choice([0, 0, 1, 2])
            if any(s.ident is None for s in session.all()) or dice.random() < 0.8:
                self.idents += 1
                new.ident = self.idents
                props = b"\x0b" + varint(self.idents)
            options |= new.no_local << 2 | new.as_published << 3 | handling << 4
        if handling == 0 or (handling == 1 and not old):
            new.bring(self.world.retained.records, self.name, time.monotonic())
        if old:
            session.ghosts.append(old)
            old.ended()
        session.subscriptions[filter] = new
        code = self.ask(subscribe, (filter, options), props=props)
        assert code == bytes([qos]), f"{self.name}: SUBACK {code.hex()} for QoS {qos}"

    def ask(self, make, *filters, **options):
        peer, number = self.peer, self.next_number()
        peer.send(make(number, *filters, version=self.version, **options))
        self.world.until(lambda: number in peer.answers, f"{self.name}: an answer to {filters}")
        return peer.answers.pop(number)

    def unsubscribe(self):
        session = self.session
        filter = self.dice.choice(sorted(session.subscriptions) or FILTERS)
        there = filter in session.subscriptions
        if there:
            old = session.subscriptions.pop(filter)
            old.ended()
            session.ghosts.append(old)
        codes = self.ask(unsubscribe, filter)
        assert codes == (b"" if self.version < 5 else b"\0" if there else b"\x11"), f"{self.name}: UNSUBACK {codes.hex()}"


class World:
    def __init__(self, folder, seed, partitions, loops):
        self.dice, self.counts, self.number = random.Random(seed), {"deliveries": 0}, 0
        self.records, self.retained = {}, Retained()  # topic -> [Record]
        self.node = Node(folder, {**SETTINGS, "log.partitions": partitions, "node.loops": loops}).start()
        self.streams = []
        self.open_api()
        self.clients = [Client(self, number) for number in range(CLIENTS)]

    def open_api(self):
        self.api = http.client.HTTPConnection("127.0.0.1", self.node.ports["api"], timeout=WAIT_S)

    # --- time ---

    def track(self, stream):
        self.streams.append(stream)
        return stream

    def look(self, seconds=0):
        self.streams = [stream for stream in self.streams if not stream.gone]
        turn(self.streams, seconds)
        for client in self.clients:
            assert not client.peer or not client.peer.gone, f"{client.name} was disconnected"

    def pass_time(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.look(0.05)
            time.sleep(0.01)

    def until(self, condition, what, poll=False):
        deadline = time.monotonic() + WAIT_S
        while not condition():
            self.streams = [stream for stream in self.streams if not stream.gone]
            if self.streams:
                turn(self.streams, 0.02 if poll else 0.05)
            else:
                time.sleep(0.02)
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {WAIT_S} s in vain for {what() if callable(what) else what}")

    # --- what the node says ---

    def get(self, target):
        self.api.request("GET", target)
        answer = self.api.getresponse()
        body = answer.read()
        assert answer.status in (200, 404), f"{target}: {answer.status} {body}"
        return json.loads(body) if answer.status == 200 else None

    def connected(self, client):
        found = self.get(f"/v1/sessions/{client.name}")
        return found is not None and found["connected"]

    def last(self, topic, count):
        return [payload_of(message) for message in self.get(f"/v1/history/{topic}?from=last:{count}")["messages"]]

    def pages(self, target):
        found, start = [], "earliest"
        while True:
            page = self.get(f"{target}?{urlencode({'from': start, 'max': 1000})}")
            found += page["messages"]
            if not page["messages"]:
                return found
            start = page["next"]

    # --- messages ---

    def make(self, client, topic=None, qos=None, retain=None, plain=False):
        self.number += 1
        dice = self.dice
        short = topic is None and client.version == 5 and dice.random() < 0.04
        topic = topic or (f"x/{dice.randrange(2)}" if short else dice.choice(TOPICS))
        qos = dice.randrange(3) if qos is None else qos
        retain = dice.random() < 0.15 if retain is None else retain
        empty = retain and not plain and dice.random() < 0.3
        payload = b"" if empty else f"{self.number} {'x' * dice.choice([0, 0, 10, 100, 1500])}".encode()
        record = Record(self.number, topic, payload, qos, retain, client.name)
        record.raw, record.numbered = [], client.version == 5
        if client.version == 5 and not plain:
            record.raw = [part for part in PASSING if dice.random() < 0.2]
            record.expiry = 1 if short else LONG_S if dice.random() < 0.1 else None
        record.props = property_walk(b"".join(record.raw))
        return record

    def publish(self, record, perhaps=None):
        self.records.setdefault(record.topic, []).append(record)
        self.retained.add(record)
        for client in self.clients:
            for subscription in client.session.subscriptions.values():
                subscription.add(record, client.name, client.here, client is perhaps)

    def told(self, will):
        """A will is not acknowledged to anybody: it is there when it can be read."""
        self.until(lambda: self.last(will.topic, 1) == [will.payload], f"the will {will}", poll=True)
        will.stored(time.monotonic())

    def reconcile(self, crashed):
        """Of what nobody was told (MAYBE), which is stored? What was acknowledged must be, in order."""
        for topic, records in self.records.items():
            if not any(record.state is MAYBE for record in records) or topic[:1] == "x":
                continue
            records = [record for record in records if record.state is not LOST]
            stored = self.last(topic, len(records[-60:]))
            for record in reversed(records[-60:]):
                if stored and stored[-1] == record.payload:
                    stored.pop()
                    if record.state is MAYBE:
                        record.stored(time.monotonic())
                else:
                    assert record.state is MAYBE, f"acknowledged and lost: {record}; in the log: {stored[-3:]}"
                    record.state = LOST
            assert all(record.state is not MAYBE for record in records)
            self.records[topic] = records = [record for record in records if record.state is not LOST]
            self.retained.again(topic, records)
        self.counts["crashes reconciled" if crashed else "cuts reconciled"] = self.counts.get(
            "crashes reconciled" if crashed else "cuts reconciled", 0) + 1

    # --- steps ---

    def pick(self, condition):
        found = [client for client in self.clients if condition(client)]
        return self.dice.choice(found) if found else None

    def step_publish(self):
        client = self.pick(lambda c: c.here)
        if client:
            client.say_all([self.make(client) for _ in range(self.dice.choice([1, 1, 2, 5]))])

    def step_connect(self):
        client = self.pick(lambda c: not c.here)
        if client:
            client.connect()

    def step_subscribe(self):
        client = self.pick(lambda c: c.here and len(c.session.subscriptions) < 4)
        if client:
            client.subscribe()

    def step_unsubscribe(self):
        client = self.pick(lambda c: c.here)
        if client:
            client.unsubscribe()

    def step_lazy(self):
        client = self.pick(lambda c: c.here)
        if client:
            client.lazy = not client.lazy
            if not client.lazy:
                client.pay()

    def step_end(self):
        client = self.pick(lambda c: c.here)
        if client:
            client.end(self.dice.choice(["close", "goodbye", "regret"]))

    def say_something(self, client, topics=TOPICS):
        records = [self.make(client, self.dice.choice(topics)) for _ in range(self.dice.choice([0, 1, 4]))]
        for record in records:
            self.publish(record)
            client.say(record)
        if self.dice.random() < 0.5:
            self.look(self.dice.choice([0, 0.001, 0.01]))
        return records

    def step_cut(self):
        """In the middle of publishing; the client comes back at once and says again what was not finished."""
        client = self.pick(lambda c: c.here)
        if not client:
            return
        said = self.say_something(client)
        if self.dice.random() < 0.5:
            client.end("close")
            client.connect()
        else:
            will = client.leave("takeover")
            if will:
                self.publish(will)
            client.connect(clean=False)
            if will:
                self.told(will)
        self.until(client.quiet, f"{client.name}: what it said again")
        topics = sorted({record.topic for record in said})
        client.say_all([self.make(client, topic, 1, False) for topic in topics])
        self.reconcile(False)

    def step_settle(self):
        for client in self.clients:
            if client.here:
                client.settle()
        self.check_retained()

    def check_retained(self):
        now = time.monotonic()
        got = {message["topic"]: payload_of(message) for filter in ("m/%23", "w/%23", "x/%23")
               for message in self.pages(f"/v1/retained/{filter}")}
        for topic, record in self.retained.records.items():
            if record.short and (record.gone(now) or topic not in got):
                assert topic not in got, f"{record} is retained {now - record.gone_at} s after its end"
            else:
                assert got.pop(topic, None) == record.payload, f"not retained: {record}"
        assert not got, f"retained, and should not be: {got}"

    def step_kill(self):
        self.crash(self.node.kill9, True)

    def step_stop(self):
        self.crash(self.node.stop, False)

    def crash(self, end, crashed):
        self.counts["kills" if crashed else "stops"] = self.counts.get("kills" if crashed else "stops", 0) + 1
        here = [client for client in self.clients if client.here]
        saying = [client for client in here if self.dice.random() < 0.3]
        for number, client in enumerate(saying):  # the order among several is not known
            self.say_something(client, TOPICS[number::len(saying)])
        wills = list(filter(None, (client.fires("close") for client in here)))
        for will in wills:
            self.publish(will)  # a node that stops tells those that are still there
        end()
        for client in here:
            client.peer.drain()
            client.leave("close")
            client.peer.close()
            client.peer = None
        for client in self.clients if crashed else ():
            client.crashed = True
            for subscription in client.session.all():
                subscription.crashed()
        self.node.restart()
        self.open_api()
        for will in wills:
            self.told(will)
        self.reconcile(crashed)
        ending = [client for client in here if client.expiry == 1 and client.lasting]
        if ending:
            self.pass_time(1.2)
        for client in ending:
            client.expired()
        for client in here:
            if client.session.open or self.dice.random() < 0.5:
                self.back(client)

    def back(self, client):
        """What the crash took of its QoS 2 is published now, by being said again."""
        for identifier, (record, released) in list(client.session.open.items()):
            if record.state is LOST:
                assert not released
                again = Record(record.number, record.topic, record.payload, 2, record.retain, client.name, record.props, record.expiry)
                again.raw, again.numbered = record.raw, record.numbered
                client.session.open[identifier] = [again, False]
                self.publish(again, perhaps=client)
        client.connect(clean=False)
        self.until(client.quiet, f"{client.name}: what it said again")

    # --- the walk ---

    WEIGHTS = {"publish": 300, "connect": 60, "subscribe": 50, "unsubscribe": 15, "lazy": 40, "end": 22, "cut": 22,
               "settle": 8}

    def walk(self, steps, kill_every):
        names, weights = list(self.WEIGHTS), list(self.WEIGHTS.values())
        for step in range(steps):
            name = self.dice.choices(names, weights)[0]
            if step % kill_every == kill_every - 1:
                name = self.dice.choice(["kill", "kill", "stop"])
            self.counts[name] = self.counts.get(name, 0) + 1
            try:
                getattr(self, "step_" + name)()
                self.look()
            except (AssertionError, Gone) as error:
                raise AssertionError(f"step {step} ({name}): {error!r}") from error
        self.finish()

    def finish(self):
        """Everybody comes and gets what is his; then the whole log is looked at."""
        for client in self.clients:
            if not client.here:
                client.connect(clean=False)
        self.step_settle()
        for topic in TOPICS:
            got = [payload_of(message) for message in self.pages(f"/v1/history/{topic}")]
            assert got == [record.payload for record in self.records.get(topic, ())], f"the past of {topic}"
        self.counts["records"] = sum(map(len, self.records.values()))


def run(folder, steps, seed, partitions=1, loops=1, kill_every=400):
    """One walk. Raises AssertionError with the step; returns what was done, by name."""
    world = World(folder, seed, partitions, loops)
    try:
        world.walk(steps, kill_every)
    except BaseException:
        print(world.node.log(), file=sys.stderr)
        raise
    finally:
        for stream in world.streams:
            stream.close()
        if world.node.process.poll() is None:
            world.node.stop()
    return world.counts


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10000)
    parser.add_argument("--seed", type=int, nargs="*", default=[random.SystemRandom().randrange(1 << 32)])
    parser.add_argument("--partitions", type=int, default=1)
    parser.add_argument("--loops", type=int, default=1)
    parser.add_argument("--kill-every", type=int, default=400)
    options = parser.parse_args()
    for seed in options.seed:
        print(f"seed {seed}", flush=True)
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="tg-model-") as folder:
            counts = run(folder, options.steps, seed, options.partitions, options.loops, options.kill_every)
        print(f"{options.steps} steps in {time.monotonic() - began:.0f} s: " +
              ", ".join(f"{name} {count}" for name, count in sorted(counts.items())), flush=True)


if __name__ == "__main__":
    main()
