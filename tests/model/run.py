#!/usr/bin/python3
"""A random walk through everything that clients do, against a model that is a list (model.py).

    tests/model/run.py [--steps N] [--seed S] [--partitions P] [--loops L]

Publishers and subscribers of all doors publish, subscribe, unsubscribe, read the past, stop reading for a while, hold
back acknowledgements, vanish and resume by position, by session (WebSocket and MQTT) or by bookmark (event streams, polls); retained messages are set and cleared; users get messages
and acknowledge them by any of their connections; the node is killed with
kill -9, or stopped, and started again. After every step nobody may have got what it was not owed, in another order or twice;
at every settling point nothing may be missing, and what the node says of the past and of what is retained (the fold of
its log, made anew after each start) must be the model's. The seed is printed; the same seed takes the same steps,
though the node's threads and the kernel do not."""

import argparse
import base64
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

from model import Inbox, Log, Owed, OwedAgain, OwedInbox, OwedSession, Record  # noqa: E402
from node import PATIENCE, Node  # noqa: E402
from tokens import make as make_token  # noqa: E402
from wire import Events, Gone, Mqtt, Web, turn  # noqa: E402

TOPICS = [f"m/{area}/{place}" for area in "abcd" for place in range(5)]
FILTERS = ["m/#", "m/+/1", "m/a/+", "+/b/#", "m/c/2", "m/d/0", "#", "m/+/+"]
SUBSCRIBERS = 12
USERS = ["u1", "u1", "a/b"]  # of each inbox connection
WAIT_S = 60 * PATIENCE
SETTINGS = {"log.segment_bytes": "64K", "log.recent_bytes": "4K", "out.bytes_max": "4K", "out.stall_ms": "10m",
            "logging.level": "warn",
            "session.save_count": 20, "inbox.keep_messages": 0}


def payload_of(message):
    if "b64" in message:
        return base64.b64decode(message["b64"])
    if "text" in message:
        return message["text"].encode()
    return json.dumps(message["data"], separators=(",", ":")).encode()


class Asking:
    """What the two WebSocket clients have in common."""

    def ask(self, item):
        number = self.web.request(item)
        self.world.until(lambda: number in self.web.answers or self.web.gone, f"{self.name}: an answer")
        answer = self.web.answers.pop(number, None)
        if answer is None:
            raise Gone
        assert "ok" in answer, f"{self.name}: {item} -> {answer}"
        return answer["ok"]


class WebSubscriber(Asking):
    """Keeps what a well-behaved client keeps (docs/PROTOCOL.md, bookmarks), and resumes with it."""

    kind = "ws"

    def __init__(self, world, name):
        self.world, self.name = world, name
        self.web, self.owed = None, None
        self.connect()

    def connect(self):
        self.stream = self.web = self.world.track(Web(self.world.node.ports["http"], self.on_item))
        if self.owed is None:
            return
        if not self.resumable():
            self.subscribe(self.owed.text, "live")
            return
        start = {"after": [self.base, *self.lanes.values()]} if self.base else (
            {"after": list(self.lanes.values())} if self.lanes else "earliest")
        self.ask({"sub": {"topic": self.owed.text, "from": start}})

    def resumable(self):
        """Until `live` has come, a place holds only what was replayed from the past."""
        return self.live or self.past

    def subscribe(self, text, start):
        self.owed = None
        self.base, self.lanes, self.live, self.past = None, {}, False, start == "earliest"
        owed = Owed(self.name, text, self.world.log, past=self.past)
        number = self.web.request({"sub": {"topic": text, "from": start}})
        self.owed = owed  # nothing of it comes before the answer
        self.world.until(lambda: number in self.web.answers or self.web.gone, f"{self.name}: an answer")
        if number in self.web.answers:
            assert "ok" in self.web.answers.pop(number)

    def unsubscribe(self):
        self.ask({"unsub": {"topic": self.owed.text}})
        self.owed = None

    def on_item(self, item):
        if "msg" in item:
            message = item["msg"]
            assert self.owed, f"{self.name}: a message without a subscription"
            lane = message["pos"].rsplit(".", 1)[0]
            if not message.get("retained"):
                assert message["pos"] > self.lanes.get(lane, ""), f"{self.name}: {message['pos']} goes back"
                self.lanes[lane] = message["pos"]
            self.owed.take(message["topic"], payload_of(message), message.get("retained", False))
        elif "live" in item:
            self.base, self.lanes, self.live = item["live"]["pos"], {}, True
        else:
            assert "gap" not in item and "err" not in item, f"{self.name}: {item}"

    def slow(self, slow):
        self.web.paused = slow


class SessionSubscriber(Asking):
    """A WebSocket session: it acknowledges some of what it gets, and names the session when it comes back."""

    kind = "session"

    def __init__(self, world, name):
        self.world, self.name = world, name
        self.owed, self.token = None, None
        self.connect()

    def connect(self):
        self.stream = self.web = self.world.track(Web(self.world.node.ports["http"], self.on_item))
        self.n = self.acknowledged = 0
        if self.owed:
            self.owed.resumed()
        window = {"window": {"msgs": 40, "bytes": 1 << 20}} if self.world.dice.random() < 0.5 else {}
        ok = self.ask({"hello": {**({"session": self.token} if self.token else {}), **window}})
        assert not self.owed or (ok["resumed"] and ok["lost"] == []), f"{self.name}: {ok}"
        self.token = ok["session"]

    def subscribe(self, text, _start):
        number = self.web.request({"sub": {"topic": text, "ack": True, "retained": False}})
        self.owed = OwedAgain(self.name, text)
        self.world.until(lambda: number in self.web.answers or self.web.gone, f"{self.name}: an answer")
        assert "ok" in self.web.answers.pop(number)

    def unsubscribe(self):
        self.ask({"unsub": {"topic": self.owed.text}})
        self.owed = None

    def on_item(self, item):
        if "msg" in item:
            assert self.owed and item["n"] == self.n + 1, f"{self.name}: {item} after {self.n}"
            self.n += 1
            self.owed.take(item["msg"]["topic"], payload_of(item["msg"]), item["msg"].get("retained", False))
            if self.n - self.acknowledged >= self.world.dice.randint(1, 40):
                self.acknowledge()
        else:
            assert "gap" not in item and "err" not in item, f"{self.name}: {item}"

    def acknowledge(self):
        """A window that is full of what is not acknowledged stays full."""
        if not self.web.gone and self.acknowledged < self.n:
            self.acknowledged = self.n
            self.web.tell({"ack": {"n": self.n}})

    def slow(self, slow):
        self.web.paused = slow
        if not slow:
            self.acknowledge()


class InboxSubscriber(Asking):
    """A connection of a user, with his inbox. It is never without it; what it acknowledges no later one gets."""

    kind = "inbox"

    def __init__(self, world, name, inbox):
        self.world, self.name, self.inbox = world, name, inbox
        self.connect()

    def connect(self):
        self.stream = self.web = self.world.track(Web(self.world.node.ports["http"], self.on_item))
        self.n = self.acknowledged = 0
        self.owed = OwedInbox(self.name, self.inbox)
        window = {"window": {"msgs": 30}} if self.world.dice.random() < 0.5 else {}
        ok = self.ask({"hello": {"token": make_token(self.world.node, self.inbox.user, exp=int(time.time()) + 864000), "inbox": True, **window}})
        assert ok["user"] == self.inbox.user and ok["inbox"] and ok["lost"] == [], f"{self.name}: {ok}"

    def subscribe(self, _text, _start):
        raise AssertionError("it has its inbox")

    def unsubscribe(self):
        self.stream.close()
        self.connect()

    def on_item(self, item):
        if "msg" in item:
            assert item["n"] == self.n + 1, f"{self.name}: {item} after {self.n}"
            self.n += 1
            self.owed.take(item["msg"]["topic"], payload_of(item["msg"]))
            if self.n - self.acknowledged >= self.world.dice.randint(1, 30):
                self.acknowledge()
        else:
            assert "gap" not in item and "err" not in item, f"{self.name}: {item}"

    def acknowledge(self):
        if not self.web.gone and self.acknowledged < self.n:
            self.acknowledged = self.n
            self.inbox.said = max(self.inbox.said, self.owed.first + self.n)
            self.web.tell({"ack": {"n": self.n}})

    def confirm(self):
        """A request that is answered behind the acknowledgement: the node knows of it."""
        if self.acknowledged:
            told = self.owed.first + self.acknowledged
            self.ask({"get": {"topic": "m/a/0", "max": 1}})
            self.inbox.certain = max(self.inbox.certain, told)

    def slow(self, slow):
        self.web.paused = slow
        if not slow:
            self.acknowledge()


class MqttSubscriber:
    """A clean session: what it misses while it is away it is not owed."""

    kind = "mqtt"

    def __init__(self, world, name, qos):
        self.world, self.name, self.qos = world, name, qos
        self.owed, self.text = None, None
        self.connect()

    def connect(self):
        self.stream = self.mqtt = self.world.track(Mqtt(self.world.node.ports["mqtt"], self.name, self.on_message))
        self.world.until(lambda: self.mqtt.connected or self.mqtt.gone, f"{self.name}: CONNACK")
        if self.text:
            self.subscribe(self.text, "live")

    def subscribe(self, text, _start):
        if self.text and self.text != text:
            self.unsubscribe()
        self.text = text
        self.owed = Owed(self.name, text, self.world.log, lossy=self.qos == 0)
        number = self.mqtt.subscribe(text, self.qos)
        self.world.until(lambda: number in self.mqtt.answered or self.mqtt.gone, f"{self.name}: SUBACK")

    def unsubscribe(self):
        number = self.mqtt.unsubscribe(self.owed.text)
        self.world.until(lambda: number in self.mqtt.answered or self.mqtt.gone, f"{self.name}: UNSUBACK")
        self.owed, self.text = None, None

    def on_message(self, topic, payload, retained):
        assert self.owed, f"{self.name}: a message without a subscription"
        self.owed.take(topic, payload, retained)

    def slow(self, slow):
        if self.world.dice.random() < 0.5:
            self.mqtt.lazy = slow
        else:
            self.mqtt.paused = slow
        if not slow:
            self.mqtt.lazy = self.mqtt.paused = False
            self.mqtt.pay()


class MqttSession(MqttSubscriber):
    """A session that outlives its connections and the node: QoS 1, at least once."""

    kind = "mqtt_session"

    def __init__(self, world, name, qos):
        self.former = set()  # what was owed for the filter before: on its way, or unacknowledged, it may come still
        super().__init__(world, name, qos)

    def connect(self):
        self.stream = self.mqtt = self.world.track(Mqtt(self.world.node.ports["mqtt"], self.name, self.on_message, clean=False))
        if self.owed:
            self.owed.resumed()
        self.world.until(lambda: self.mqtt.connected or self.mqtt.gone, f"{self.name}: CONNACK")
        assert self.mqtt.present or not self.owed, f"{self.name}: its session is gone"

    def subscribe(self, text, _start):
        number = self.mqtt.subscribe(text, 1)
        self.owed = OwedSession(self.name, text, self.world.log)
        self.world.until(lambda: number in self.mqtt.answered or self.mqtt.gone, f"{self.name}: SUBACK")
        assert not self.mqtt.gone

    def unsubscribe(self):
        self.slow(False)
        owed = self.owed
        super().unsubscribe()
        self.former = owed.came | owed.on_its_way()

    def on_message(self, topic, payload, retained):
        try:
            assert self.owed, f"{self.name}: {topic} {payload[:60]!r} without a subscription"
            self.owed.take(topic, payload, retained)
            self.owed.came.add((topic, payload))
        except AssertionError:
            if (topic, payload) not in self.former:
                raise


class MqttInboxSubscriber(MqttSubscriber):
    """A connection of a user with his inbox by MQTT 5.0, from the cursor on. As InboxSubscriber."""

    kind = "inbox"

    def __init__(self, world, name, inbox):
        self.inbox = inbox
        super().__init__(world, name, 1)

    def connect(self):
        token = make_token(self.world.node, self.inbox.user, exp=int(time.time()) + 864000)
        self.stream = self.mqtt = self.world.track(Mqtt(self.world.node.ports["mqtt"], self.name, self.on_message, token=token))
        self.world.until(lambda: self.mqtt.connected or self.mqtt.gone, f"{self.name}: CONNACK")
        self.owed, self.acknowledged, self.mqtt.lazy = OwedInbox(self.name, self.inbox), 0, True
        number = self.mqtt.subscribe("$user/" + self.inbox.user.replace("/", "%2F") + "/#", 1, "inbox")
        self.world.until(lambda: number in self.mqtt.answered or self.mqtt.gone, f"{self.name}: SUBACK")

    def unsubscribe(self):
        self.stream.close()
        self.connect()

    def on_message(self, topic, payload, _retained):
        self.owed.take(topic, payload)
        if self.owed.got - self.acknowledged >= self.world.dice.randint(1, 30):
            self.acknowledge()

    def acknowledge(self):
        """All that has come, but the dice say in which order."""
        if not self.mqtt.gone and self.mqtt.owed:
            self.acknowledged = self.owed.got
            self.inbox.said = max(self.inbox.said, self.owed.first + self.owed.got)
            self.world.dice.shuffle(self.mqtt.owed)
            self.mqtt.pay()

    def confirm(self):
        """Nothing answers a PUBACK: the node is asked until it knows of them."""
        if self.acknowledged:
            told = self.owed.first + self.acknowledged
            self.world.until(lambda: self.world.unread(self.inbox) <= len(self.inbox.records) - told,
                             f"{self.name}: {told} to count as read")
            self.inbox.certain = max(self.inbox.certain, told)

    def slow(self, slow):
        self.mqtt.paused = slow
        if not slow:
            self.acknowledge()


class Reading:
    """What event streams and polls have in common: they begin with the present, by a bookmark of an empty page."""

    def __init__(self, world, name):
        self.world, self.name, self.owed = world, name, None
        self.subscribe(world.dice.choice(FILTERS), None)

    def poll(self, **more):
        port = self.world.node.ports["http"]
        api = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_S)
        api.request("GET", "/poll?" + urlencode({"topic": self.text, **more}))
        answer = api.getresponse()
        body = answer.read()
        api.close()
        assert answer.status == 200, f"{self.name}: {body}"
        return json.loads(body)

    def subscribe(self, text, _start):
        self.text = text
        self.place = self.poll(**{"from": "live"})["next"]
        self.owed, self.last = OwedAgain(self.name, text), None
        self.connect()

    def unsubscribe(self):
        self.stream.close()
        self.subscribe(self.world.dice.choice(FILTERS), None)

    def take(self, message):
        self.owed.take(message["topic"], payload_of(message), message.get("retained", False))


class EventSubscriber(Reading):
    """It comes back with the last bookmark that it got."""

    kind = "sse"

    def connect(self):
        self.owed.resumed()
        target = "/sse?" + urlencode({"topic": self.text, "from": self.place})
        self.stream = self.world.track(Events(self.world.node.ports["http"], target, self.take, self.bookmark, self.last))

    def bookmark(self, text):
        self.last = text

    def slow(self, slow):
        self.stream.paused = slow


class Nothing:
    """Between two polls there is no connection."""

    paused = gone = False

    def close(self):
        pass


class PollSubscriber(Reading):
    """Each message once."""

    kind = "poll"
    stream = Nothing()

    def connect(self):
        pass

    def acknowledge(self):
        """The next page."""
        page = self.poll(after=self.place, max=self.world.dice.choice([1, 7, 100]))
        assert not page.get("gaps"), f"{self.name}: {page['gaps']}"
        self.place = page["next"]
        for message in page["messages"]:
            self.take(message)

    def slow(self, slow):
        if slow:
            self.acknowledge()


class World:
    def __init__(self, folder, seed, partitions, loops):
        self.dice = random.Random(seed)
        self.log, self.loops = Log(), loops
        self.number = 0
        self.counts = {}
        self.node = Node(folder, {**SETTINGS, "log.partitions": partitions, "node.loops": loops}).start()
        self.streams, self.subscribers = [], []
        self.open_publishers()
        for number in range(SUBSCRIBERS):
            name = f"s{number}"
            kind = number % 4
            self.subscribers.append(WebSubscriber(self, name) if kind == 0 else SessionSubscriber(self, name) if kind == 3
                                    else MqttSubscriber(self, name, kind - 1))
        self.inboxes = {user: Inbox(user) for user in USERS}
        self.subscribers += [InboxSubscriber(self, f"i{n}", self.inboxes[user]) for n, user in enumerate(USERS)]
        self.subscribers += [MqttInboxSubscriber(self, f"j{n}", inbox) for n, inbox in enumerate(self.inboxes.values())]
        self.subscribers += [MqttSession(self, "k0", 1), MqttSession(self, "k1", 1), EventSubscriber(self, "e0"),
                             PollSubscriber(self, "p0")]

    def open_publishers(self):
        self.web = self.track(Web(self.node.ports["http"], lambda item: None))
        self.mqtt = self.track(Mqtt(self.node.ports["mqtt"], "publisher", None))
        self.until(lambda: self.mqtt.connected, "CONNACK")
        self.api = http.client.HTTPConnection("127.0.0.1", self.node.ports["api"], timeout=WAIT_S)

    # --- time ---

    def track(self, stream):
        self.streams.append(stream)
        return stream

    def until(self, condition, what, seconds=WAIT_S):
        deadline = time.monotonic() + seconds
        while not condition():
            self.look(0.05)
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {seconds} s in vain for {what}")

    def look(self, seconds=0):
        self.streams = [stream for stream in self.streams if not stream.gone]
        turn(self.streams, seconds)

    # --- publishing ---

    def make(self, topic=None):
        self.number += 1
        topic = topic or self.dice.choice(TOPICS)
        retain = self.dice.random() < 0.15
        if retain and self.dice.random() < 0.3:
            return Record(topic, b"", True)
        kind, pad = self.number % 3, "x" * self.dice.choice([0, 0, 10, 100, 1500])
        text = [f'{{"n":{self.number},"pad":"{pad}"}}', f"{self.number} ä {pad}", f"{self.number}"][kind]
        return Record(topic, text.encode() if kind < 2 else b"\xff\x00" + text.encode() + pad.encode(), retain)

    def publish(self, record):
        """It is published: whoever is subscribed is owed it."""
        self.log.add(record)
        for subscriber in self.subscribers:
            if subscriber.owed:
                subscriber.owed.add(record)

    def settled(self, records):
        """Durable: and so is everything before in the same partition, but the test does not know partitions."""
        for record in records:
            record.durable = True

    def step_publish_http(self):
        record = self.make()
        self.publish(record)
        fields = {"Tidegate-Retain": "1"} if record.retain else {}
        self.api.request("POST", f"/v1/publish/{record.topic}", record.payload,
                         {"Content-Type": "application/x-www-form-urlencoded", **fields})
        answer = self.api.getresponse()
        body = answer.read()
        assert answer.status == 200, body
        self.settled([record])

    def step_publish_user(self):
        inbox = self.inboxes[self.dice.choice(USERS)]
        for _ in range(self.dice.choice([1, 1, 4, 15])):
            self.number += 1
            below = self.dice.choice(["", "/x", "/x/y"])
            record = Record("$user/" + inbox.user.replace("/", "%2F") + below, f"{self.number} for {inbox.user}".encode(), False)
            inbox.records.append(record)
            self.publish(record)
            self.api.request("POST", "/v1/users?" + urlencode({"user": inbox.user, **({"topic": below[1:]} if below else {})}),
                             record.payload)
            answer = self.api.getresponse()
            body = answer.read()
            assert answer.status == 200, body
            assert json.loads(body)["topic"] == record.topic
            self.settled([record])

    def step_confirm(self):
        subscriber = self.pick(lambda s: s.kind == "inbox" and self.reads(s))
        if subscriber:
            subscriber.acknowledge()
            subscriber.confirm()
            self.check_inbox(subscriber.inbox)

    def unread(self, inbox):
        return self.ask("/v1/users?" + urlencode({"user": inbox.user}))["inbox"]["unread"]

    def check_inbox(self, inbox):
        unread, count = self.unread(inbox), len(inbox.records)
        assert count - inbox.said <= unread <= count - inbox.certain, (
            f"{inbox.user}: {unread} of {count} unread, acknowledged are {inbox.certain} to {inbox.said}")

    def web_publish(self, record, waits):
        content = {"b64": base64.b64encode(record.payload).decode()}
        if record.payload[:1] == b"{":
            content = {"data": json.loads(record.payload)}
        elif record.payload[:1] != b"\xff":
            content = {"text": record.payload.decode()}
        item = {"pub": {"topic": record.topic, "retain": record.retain, **content}}
        return self.web.request(item) if waits else self.web.tell(item)

    def step_publish_web(self):
        records = [self.make() for _ in range(self.dice.choice([1, 1, 5, 30]))]
        numbers = []
        for record in records:
            self.publish(record)
            numbers.append(self.web_publish(record, True))
        for number in numbers:
            self.until(lambda: number in self.web.answers, "ok")
            answer = self.web.answers.pop(number)
            assert "ok" in answer, answer
        self.settled(records)

    def step_publish_mqtt(self):
        self.mqtt_publish([self.make() for _ in range(self.dice.choice([1, 1, 5, 30]))])

    def mqtt_publish(self, records):
        numbers = []
        for record in records:
            self.publish(record)
            numbers.append(self.mqtt.publish(record.topic, record.payload, 1, record.retain))
        self.until(lambda: self.mqtt.acknowledged.issuperset(numbers), "PUBACK")
        self.mqtt.acknowledged.clear()
        self.settled(records)

    def step_publish_lazily(self):
        """Nobody waits for the disk. On one loop a ping says that it has got its place; with several, what is published
        next on the same topic and acknowledged says it."""
        topics = set()
        for _ in range(self.dice.choice([1, 5])):
            record = self.make()
            record.optional = True
            topics.add(record.topic)
            self.publish(record)
            self.mqtt.publish(record.topic, record.payload, 0, record.retain)
        if self.loops > 1:
            self.mqtt_publish([self.make(topic) for topic in sorted(topics)])
            return
        pongs = self.mqtt.pongs
        self.mqtt.packet(0xC0)
        self.until(lambda: self.mqtt.pongs > pongs, "PINGRESP")

    # --- subscribing ---

    def pick(self, condition):
        found = [s for s in self.subscribers if condition(s)]
        return self.dice.choice(found) if found else None

    @staticmethod
    def reads(subscriber):
        return not subscriber.stream.paused

    def step_subscribe(self):
        subscriber = self.pick(lambda s: self.reads(s) and not s.owed)
        if subscriber:
            past = subscriber.kind == "ws" and self.dice.random() < 0.1
            subscriber.subscribe(self.dice.choice(FILTERS), "earliest" if past else "live")

    def step_unsubscribe(self):
        subscriber = self.pick(lambda s: self.reads(s) and s.owed)
        if subscriber:
            subscriber.unsubscribe()

    def step_slow(self):
        subscriber = self.pick(lambda s: self.reads(s))
        if subscriber:
            subscriber.slow(True)

    def step_fast(self):
        subscriber = self.pick(lambda s: not self.reads(s))
        if subscriber:
            subscriber.slow(False)

    def step_vanish(self):
        subscriber = self.dice.choice(self.subscribers)
        subscriber.stream.close()
        subscriber.connect()

    # --- what the node says of itself ---

    def ask(self, target, user=None):
        self.api.request("GET", target, headers={"Authorization": f"Bearer {make_token(self.node, user)}"} if user else {})
        answer = self.api.getresponse()
        body = answer.read()
        assert answer.status == 200, f"{target}: {body}"
        return json.loads(body)

    def pages(self, target, user=None):
        found, start = [], "earliest"
        while True:
            page = self.ask(f"{target}{'&' if '?' in target else '?'}from={start}&max=1000", user)
            found += page["messages"]
            if not page["messages"]:
                return found
            self.look()  # pings are answered, however long this takes
            start = page["next"]

    def history(self, topic):
        return [payload_of(message) for message in self.pages(f"/v1/history/{topic}")]

    def inbox_history(self, inbox):
        """topic -> payloads; only the user may look."""
        topics = {record.topic for record in inbox.records}
        return {topic: [payload_of(m) for m in self.pages("/v1/history?" + urlencode({"topic": topic}), inbox.user)]
                for topic in topics}

    def step_history(self):
        topic = self.dice.choice(TOPICS)
        want = [record.payload for record in self.log.of(topic)]
        count = self.dice.randint(1, 20)
        got = [payload_of(m) for m in self.ask(f"/v1/history/{topic}?from=last:{count}")["messages"]]
        assert got == want[-count:], f"last {count} of {topic}"

    def step_reverse(self):
        topic = self.dice.choice(TOPICS)
        count = self.dice.randint(1, 20)
        want = [record.payload for record in reversed(self.log.of(topic))][:count]
        got = [payload_of(m) for m in self.ask(f"/v1/history/{topic}?reverse=1&max={count}")["messages"]]
        assert got == want, f"{topic} in reverse"

    def check_retained(self):
        got = {m["topic"]: payload_of(m) for m in self.pages("/v1/retained/m/%23")}
        want = {topic: record.payload for topic, record in self.log.retained.items()}
        assert got == want, "what is retained"

    # --- settling, crashing ---

    def step_settle(self):
        for subscriber in self.subscribers:
            subscriber.slow(False)
        owing = [s for s in self.subscribers if s.owed and not s.owed.lossy]
        try:
            self.until(lambda: self.everybody_has(owing), "everybody to have what it is owed")
        except AssertionError as error:
            raise AssertionError(f"{error}:\n" + "\n".join(str(s.owed) for s in owing if not s.owed.complete())) from None
        self.check_retained()
        for subscriber in owing:
            if subscriber.kind == "inbox":
                subscriber.confirm()
        for inbox in self.inboxes.values():
            self.check_inbox(inbox)

    @staticmethod
    def everybody_has(owing):
        for subscriber in owing:
            if subscriber.kind in ("session", "inbox", "poll"):
                subscriber.acknowledge()
        return all(subscriber.owed.complete() for subscriber in owing)

    def step_kill(self):
        self.crash(self.node.kill9, Inbox.crashed)

    def step_stop(self):
        self.crash(self.node.stop, Inbox.stopped)

    def crash(self, end, becomes):
        """With publishes under way, whose outcome nobody has been told."""
        for _ in range(self.dice.choice([0, 0, 3, 40])):
            record, qos = self.make(), self.dice.randint(0, 1)
            record.optional = qos == 0
            self.publish(record)
            self.mqtt.publish(record.topic, record.payload, qos, record.retain)
        if self.dice.random() < 0.5:
            self.look()
        end()
        for stream in self.streams:
            stream.paused = False
            stream.drain()
            stream.close()
        self.node.restart()
        self.open_publishers()
        kept = {topic: self.history(topic) for topic in TOPICS}
        for inbox in self.inboxes.values():
            kept.update(self.inbox_history(inbox))
            becomes(inbox)
        lost = self.log.reconcile(kept)
        self.counts["lost unacknowledged"] = self.counts.get("lost unacknowledged", 0) + len(lost)
        for subscriber in self.subscribers:
            if subscriber.owed:
                subscriber.owed.forget(lost)
            subscriber.connect()
        self.check_retained()

    # --- the walk ---

    WEIGHTS = {"publish_http": 100, "publish_web": 120, "publish_mqtt": 120, "publish_lazily": 40, "publish_user": 50,
               "confirm": 15, "subscribe": 30, "unsubscribe": 12, "slow": 15, "fast": 15, "vanish": 12, "history": 8,
               "reverse": 8, "settle": 6}

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
        self.step_settle()
        self.counts["records"] = len(self.log.records)


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
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--partitions", type=int, default=1)
    parser.add_argument("--loops", type=int, default=1)
    parser.add_argument("--kill-every", type=int, default=400)
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tg-model-") as folder:
        counts = run(folder, options.steps, options.seed, options.partitions, options.loops, options.kill_every)
    print(f"{options.steps} steps in {time.monotonic() - began:.0f} s: " +
          ", ".join(f"{name} {count}" for name, count in sorted(counts.items())))


if __name__ == "__main__":
    main()
