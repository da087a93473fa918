"""Load for the tests that take the node away under it (kill -9, power cut): publishers at every door that note what
was acknowledged, subscribers that resume, and the ledger that tells whether the log kept its promises."""

import base64
import contextlib
import http.client
import json
import random
import re
import subprocess
import threading
import time
from collections import Counter

from clients import WAIT_S, Closed, Resuming, Web, curl, need, paho_client
from node import wait_until

# --- payloads --------------------------------------------------------------------------------------------------

SIZES = [0] * 4 + [100] * 10 + [1000] * 3 + [8000]


def payload(topic, number):
    """The bytes of a topic's n-th message, of each content class in turn: what is kept is compared byte for byte."""
    dice = random.Random(f"{topic} {number}")
    size = dice.randint(0, dice.choice(SIZES))
    noise = dice.randbytes(size)
    kind = number % 3
    if kind == 0:
        return b'{"n": %d,  "float":1.50, "pad":"%s"}' % (number, noise.hex().encode())
    if kind == 1:
        return f"{number} ä {noise.hex()}".encode()
    return b"\xff%d " % number + noise


MEDIA_TYPES = ("application/json", "text/plain", "application/octet-stream")


def number_of(data):
    """Which message of its topic this says it is."""
    found = re.match(rb'(?:\{"n": |\xff)?(\d+)', data)
    assert found, f"not one of our payloads: {data[:60]}"
    return int(found[1])


def bytes_of(message, raw):
    """A message's payload as it was published; `raw` is the JSON text that the message came in."""
    if "b64" in message:
        return base64.b64decode(message["b64"])
    if "text" in message:
        return message["text"].encode()
    start = raw.index('"data":') + len('"data":')
    return raw[start:json.JSONDecoder().raw_decode(raw, start)[1]].encode()


def messages_in(page):
    """The messages of a page of history: (message, its JSON text)."""
    decoder = json.JSONDecoder()
    at = page.index('"messages":[') + len('"messages":[')
    while page[at] != "]":
        message, end = decoder.raw_decode(page, at)
        yield message, page[at:end]
        at = end + (page[end] == ",")


def history_bytes(node, topic):
    """The whole of a topic's past: [(position, payload)]."""
    found, start = [], "earliest"
    while True:
        page = curl(node.api(f"/v1/history/{topic}?from={start}&max=1000")).body.decode()
        messages = [(message["pos"], bytes_of(message, raw)) for message, raw in messages_in(page)]
        found += messages
        after = json.loads(page)["next"]
        if not messages or after == start:
            return found
        start = after


# --- publishers ------------------------------------------------------------------------------------------------

class Publisher(threading.Thread):
    """Publishes 0, 1, 2 ... on its topic as fast as it is acknowledged, until the node dies under it."""

    acknowledges = True

    def __init__(self, node, topic, first):
        super().__init__(daemon=True)
        self.node, self.topic, self.number = node, topic, first
        self.acknowledged = []  # (number, position or None), in order of the acknowledgements
        self.error = None
        self.halt = threading.Event()

    def run(self):
        try:
            self.publish_all()
        except (OSError, http.client.HTTPException, Closed) as error:
            self.error = error

    def take(self):
        """The next number and its payload."""
        self.number += 1
        return self.number - 1, payload(self.topic, self.number - 1)


class HttpPublisher(Publisher):
    def publish_all(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.node.ports["api"], timeout=WAIT_S)
        while not self.halt.is_set():
            number, data = self.take()
            connection.request("POST", f"/v1/publish/{self.topic}", data,
                               {"Content-Type": MEDIA_TYPES[number % 3]})
            answer = connection.getresponse()
            body = answer.read()
            if answer.status == 200:
                self.acknowledged.append((number, json.loads(body)["pos"]))


class CurlPublisher(Publisher):
    """As the quick start does it: a process for each message, and no word of what the bytes are."""

    def publish_all(self):
        while not self.halt.is_set():
            number, data = self.take()
            result = subprocess.run([need("curl"), "-sS", "-f", "--noproxy", "*", "--data-binary", "@-",
                                     self.node.api(f"/v1/publish/{self.topic}")],
                                    input=data, capture_output=True, timeout=WAIT_S)
            if result.returncode == 0:
                self.acknowledged.append((number, json.loads(result.stdout)["pos"]))


class WebPublisher(Publisher):
    """A window of 32 unanswered publishes."""

    def send(self, web):
        number, data = self.take()
        if number % 3 == 0:  # json.dumps would not keep the spaces
            content = f'"data":{data.decode()}'
        elif number % 3 == 1:
            content = f'"text":{json.dumps(data.decode())}'
        else:
            content = f'"b64":"{base64.b64encode(data).decode()}"'
        web.post_text(f'{{"id":{number},"pub":{{"topic":"{self.topic}",{content}}}}}')

    def publish_all(self):
        web = Web(self.node)
        unanswered = 0
        try:
            while not self.halt.is_set():
                while unanswered < 32:
                    self.send(web)
                    unanswered += 1
                answer = web.event(WAIT_S)
                unanswered -= 1
                if "ok" in answer:
                    self.acknowledged.append((answer["id"], answer["ok"]["pos"]))
        except Exception as error:  # the socket's end shows in more than one way
            if self.halt.is_set() or "websockets" in type(error).__module__ or isinstance(error, Closed):
                self.error = error
                while not web.events.empty():  # answered before the end, and not looked at yet
                    answer = web.events.get()
                    if not isinstance(answer, Closed) and "ok" in answer:
                        self.acknowledged.append((answer["id"], answer["ok"]["pos"]))
            else:
                raise
        finally:
            with contextlib.suppress(Exception):  # it may not even be there to be said goodbye to
                web.close()


class MqttPublisher(Publisher):
    """QoS 1, at most 20 unacknowledged."""

    qos = 1

    def __init__(self, node, topic, first):
        self.sent, self.told = {}, []  # packet identifier -> number; identifiers in order of their PUBACK
        super().__init__(node, topic, first)

    @property
    def acknowledged(self):
        return [(self.sent[mid], None) for mid in list(self.told) if mid in self.sent]

    @acknowledged.setter
    def acknowledged(self, value):
        assert value == []

    def connect(self):
        client = paho_client(f"publisher-{self.topic}")
        client.max_inflight_messages_set(20)
        client.connect("127.0.0.1", self.node.ports["mqtt"])
        return client

    def publish_all(self):
        client = self.connect()
        client.on_publish = lambda _client, _userdata, mid, *_: self.told.append(mid)
        client.loop_start()
        try:
            wait_until(client.is_connected, "paho to be connected")
            while not self.halt.is_set() and client.is_connected():
                if len(self.sent) - len(self.told) < 20:
                    number, data = self.take()
                    self.sent[client.publish(self.topic, data, qos=1).mid] = number
                else:
                    time.sleep(0.0005)
        finally:
            client.loop_stop()


class Qos0Publisher(MqttPublisher):
    """Never acknowledged, delivered at once, written later: the messages that subscribers have and a disk may not."""

    acknowledges = False

    def publish_all(self):
        client = self.connect()
        client.loop_start()
        try:
            wait_until(client.is_connected, "paho to be connected")
            while not self.halt.is_set() and client.is_connected():
                client.publish(self.topic, self.take()[1], qos=0)
                time.sleep(0.003)
        finally:
            client.loop_stop()


PUBLISHERS = {"load/http": HttpPublisher, "load/curl": CurlPublisher, "load/ws": WebPublisher,
              "load/mqtt": MqttPublisher, "load/qos0": Qos0Publisher}
FILTERS = ["#", "load/+", "load/http", "load/ws", "load/mqtt"]


# --- the ledger ------------------------------------------------------------------------------------------------

class Watcher(Resuming):
    """A resuming subscriber that enters what it gets into the ledger."""

    def __init__(self, topic, ledger):
        super().__init__(topic)
        self.ledger = ledger
        self.got = {}  # topic -> [number], in order
        self.newest = {}  # topic -> position

    def take(self, item):
        super().take(item)
        if "msg" in item:
            message = item["msg"]
            data = bytes_of(message, item.raw.decode())
            self.ledger.see(message["pos"], message["topic"], data, f"subscriber of {self.topic}")
            self.got.setdefault(message["topic"], []).append(number_of(data))
            self.newest[message["topic"]] = message["pos"]


def is_in_order(wanted, got):
    """Whether `wanted` is a subsequence of `got`."""
    rest = iter(got)
    return all(any(number == other for other in rest) for number in wanted)


class Ledger:
    """All that was promised and all that was ever seen, over any number of lives of the node. Broken promises are
    collected in `faults`, each with its kind: "lost", "reused", "changed", "order", "twice", "gap"."""

    def __init__(self):
        self.lock = threading.Lock()
        self.acknowledged = {topic: [] for topic in PUBLISHERS}  # topic -> [number]
        self.next_number = dict.fromkeys(PUBLISHERS, 0)
        self.seen = {}  # position -> (topic, number)
        self.faults = []
        self.kept = {}  # topic -> [(position, payload)], as of the last check
        self.unkept = set()  # positions that somebody saw and the log does not hold, as of the last check

    def fault(self, kind, text):
        self.faults.append((kind, text))

    def count(self):
        return sum(map(len, self.acknowledged.values()))

    def see(self, position, topic, data, where):
        """The same position must mean the same message for ever, and a message is what its publisher sent."""
        number = number_of(data)
        with self.lock:
            before = self.seen.setdefault(position, (topic, number))
            if before != (topic, number):
                self.fault("reused", f"{position} was {before} and is {(topic, number)} ({where})")
            if data != payload(topic, number):
                self.fault("changed", f"{position}: {topic} {number} is not what was published ({where})")

    def add(self, publisher):
        """Takes over what an ended publisher knows."""
        topic = publisher.topic
        for number, position in publisher.acknowledged:
            self.acknowledged[topic].append(number)
            if position:
                self.see(position, topic, payload(topic, number), "acknowledgement")
        self.next_number[topic] = publisher.number

    def check_kept(self, node):
        """The log holds what was acknowledged, in order, once, unchanged. Returns how many are lost."""
        lost = 0
        for topic, wanted in self.acknowledged.items():
            try:
                self.kept[topic] = history_bytes(node, topic)
            except AssertionError as error:  # answered as damaged, say
                self.kept[topic] = []
                lost += len(wanted)
                self.fault("lost", f"history: {topic} cannot be read: {error}")
                continue
            for position, data in self.kept[topic]:
                self.see(position, topic, data, "history")
            got = [number_of(data) for _, data in self.kept[topic]]
            lost += self.compare("history", topic, wanted, got)
        held = {position for messages in self.kept.values() for position, _ in messages}
        self.unkept = set(self.seen) - held
        return lost

    def compare(self, where, topic, wanted, got):
        missing = sorted(set(wanted) - set(got))
        twice = [number for number, count in Counter(got).items() if count > 1]
        if missing:
            self.fault("lost", f"{where}: {len(missing)} of {len(wanted)} acknowledged on {topic}: {missing[:20]}")
        elif not is_in_order(wanted, got):
            self.fault("order", f"{where}: {topic} is not in the order of the acknowledgements")
        if twice:
            self.fault("twice", f"{where}: {topic} {twice[:20]}")
        return len(missing)

    def check_watcher(self, node, watcher):
        """Resumes the subscriber, lets it catch up, and compares. It stays open. After check_kept."""
        topics = [topic for topic in PUBLISHERS if watcher.topic in ("#", "load/+", topic)]
        newest = {topic: self.kept[topic][-1][0] for topic in topics if self.kept[topic]}
        watcher.open(node)

        def has_all():
            return all(watcher.newest.get(topic, "") >= position for topic, position in newest.items())

        try:
            watcher.run(has_all, "the newest message")
        except AssertionError as error:
            self.fault("lost", str(error))
        if watcher.gaps:
            self.fault("gap", f"{watcher.topic}: {watcher.gaps}")
        for topic in topics:
            got = watcher.got.get(topic, [])
            self.compare(f"subscriber of {watcher.topic}", topic, self.acknowledged[topic], got)
            # What it got and the log does not hold was delivered before the sync, and never acknowledged.
            missed = {number_of(data) for _, data in self.kept[topic]} - set(got)
            if missed:
                self.fault("lost", f"subscriber of {watcher.topic}: {topic} {sorted(missed)[:20]} not delivered")


class Load:
    """All publishers and subscribers on a running node. The subscribers are open already."""

    def __init__(self, node, ledger, watchers, topics=tuple(PUBLISHERS)):
        self.ledger, self.watchers = ledger, watchers
        self.publishers = [PUBLISHERS[topic](node, topic, ledger.next_number[topic]) for topic in topics]
        self.readers = [threading.Thread(target=watcher.drain, daemon=True) for watcher in watchers]
        for thread in self.publishers + self.readers:
            thread.start()

    def wait_for_each_door(self, count=0):
        """And for so many together."""
        wait_until(lambda: all(publisher.acknowledged for publisher in self.publishers if publisher.acknowledges) and
                   self.heard()[0] >= count, f"an acknowledgement at each door, {count} together")

    def heard(self):
        """How much has come in; it stands still once everything sent before has been taken."""
        return (sum(len(publisher.acknowledged) for publisher in self.publishers),
                sum(len(watcher.messages) for watcher in self.watchers))

    def end(self):
        """After the node's end: enters what the publishers know into the ledger."""
        for publisher in self.publishers:
            publisher.halt.set()
        for thread in self.publishers + self.readers:
            thread.join(WAIT_S)
            assert not thread.is_alive(), "a client hangs after the node's end"
        for publisher in self.publishers:
            self.ledger.add(publisher)
