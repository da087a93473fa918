"""Acknowledged means durable: kill -9 under load, over and over. Whatever any door acknowledged is read back, and
every subscriber that resumes by position gets it, in order."""

import http.client
import json
import random
import subprocess
import threading
import time

import pytest

from clients import WAIT_S, Closed, Resuming, Web, history, need, paho_client
from node import PATIENCE, wait_until

ROUNDS = 20
LOAD_S = (0.15, 0.6)
FILTERS = ["#", "load/+", "load/http", "load/ws", "load/mqtt"]


class Publisher(threading.Thread):
    """Publishes 0, 1, 2 ... on its topic as fast as it is acknowledged, until the node dies under it."""

    def __init__(self, node, topic, first):
        super().__init__(daemon=True)
        self.node, self.topic, self.number = node, topic, first
        self.acknowledged = []
        self.error = None
        self.halt = threading.Event()

    def run(self):
        try:
            self.publish_all()
        except (OSError, http.client.HTTPException, Closed) as error:
            self.error = error

    def take_number(self):
        self.number += 1
        return self.number - 1


class HttpPublisher(Publisher):
    def publish_all(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.node.ports["api"], timeout=WAIT_S)
        while not self.halt.is_set():
            number = self.take_number()
            connection.request("POST", f"/v1/publish/{self.topic}", json.dumps({"n": number}),
                               {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            if answer.status == 200:
                self.acknowledged.append(number)


class CurlPublisher(Publisher):
    """As the quick start does it: a process for each message."""

    def publish_all(self):
        while not self.halt.is_set():
            number = self.take_number()
            result = subprocess.run([need("curl"), "-sS", "-f", "--noproxy", "*", "-d", json.dumps({"n": number}),
                                     self.node.api(f"/v1/publish/{self.topic}")],
                                    capture_output=True, timeout=WAIT_S)
            if result.returncode == 0:
                self.acknowledged.append(number)


class WebPublisher(Publisher):
    """A window of 32 unanswered publishes."""

    def publish_all(self):
        web = Web(self.node)
        open_requests = {}
        try:
            while not self.halt.is_set():
                while len(open_requests) < 32:
                    number = self.take_number()
                    open_requests[web.request({"pub": {"topic": self.topic, "data": {"n": number}}})] = number
                answer = web.event(WAIT_S)
                if "ok" in answer:
                    self.acknowledged.append(open_requests.pop(answer["id"]))
        except Exception as error:  # the socket's end shows in more than one way
            if self.halt.is_set() or "websockets" in type(error).__module__ or isinstance(error, Closed):
                self.error = error
            else:
                raise
        finally:
            web.close()


class MqttPublisher(Publisher):
    """QoS 1, at most 20 unacknowledged."""

    def __init__(self, node, topic, first):
        super().__init__(node, topic, first)
        self.sent, self.told = {}, []  # packet identifier -> number; identifiers in order of their PUBACK

    @property
    def acknowledged(self):
        return [self.sent[mid] for mid in list(self.told) if mid in self.sent]

    @acknowledged.setter
    def acknowledged(self, value):
        assert value == []

    def publish_all(self):
        client = paho_client(f"publisher-{self.topic}")
        client.max_inflight_messages_set(20)
        client.on_publish = lambda _client, _userdata, mid, *_: self.told.append(mid)
        client.connect("127.0.0.1", self.node.ports["mqtt"])
        client.loop_start()
        try:
            wait_until(client.is_connected, "paho to be connected")
            while not self.halt.is_set() and client.is_connected():
                if len(self.sent) - len(self.told) < 20:
                    number = self.take_number()
                    self.sent[client.publish(self.topic, json.dumps({"n": number}), qos=1).mid] = number
                else:
                    time.sleep(0.0005)
        finally:
            client.loop_stop()


PUBLISHERS = {"load/http": HttpPublisher, "load/curl": CurlPublisher, "load/ws": WebPublisher,
              "load/mqtt": MqttPublisher}


def numbers_of(messages, topic):
    return [message["data"]["n"] for message in messages if message["topic"] == topic]


def is_in_order(wanted, got):
    """Whether `wanted` is a subsequence of `got`."""
    rest = iter(got)
    return all(any(number == other for other in rest) for number in wanted)


@pytest.mark.deadline(240)
@pytest.mark.parametrize("partitions", [1, 4])
def test_kill_9_under_load(make_node, partitions):
    node = make_node({"log.partitions": partitions}, keep_ports=True)
    dice = random.Random(20)
    acknowledged = {topic: [] for topic in PUBLISHERS}
    next_number = dict.fromkeys(PUBLISHERS, 0)
    subscribers = [Resuming(text) for text in FILTERS]
    rounds = ROUNDS if partitions == 1 else 5
    for _ in range(rounds):
        for subscriber in subscribers:
            subscriber.open(node)
        publishers = [kind(node, topic, next_number[topic]) for topic, kind in PUBLISHERS.items()]
        readers = [threading.Thread(target=subscriber.drain, daemon=True) for subscriber in subscribers]
        for thread in publishers + readers:
            thread.start()
        # Not before something is acknowledged at each door, then at any moment.
        wait_until(lambda: all(publisher.acknowledged for publisher in publishers), "an acknowledgement at each door")
        time.sleep(dice.uniform(*LOAD_S))
        node.kill9()
        for publisher in publishers:
            publisher.halt.set()
        for thread in publishers + readers:
            thread.join(WAIT_S)
            assert not thread.is_alive(), "a client hangs after kill -9"
        for publisher in publishers:
            acknowledged[publisher.topic] += publisher.acknowledged
            next_number[publisher.topic] = publisher.number
        node.restart()
    assert sum(map(len, acknowledged.values())) > 100 * rounds / PATIENCE

    kept = {topic: history(node, topic) for topic in PUBLISHERS}
    for topic, wanted in acknowledged.items():
        got = numbers_of(kept[topic], topic)
        assert is_in_order(wanted, got), f"{topic}: {sorted(set(wanted) - set(got))[:20]} acknowledged and lost"
        assert len(got) == len(set(got)), f"{topic}: stored twice"

    for subscriber in subscribers:
        topics = [topic for topic in PUBLISHERS if subscriber.topic in ("#", "load/+", topic)]
        newest = {topic: kept[topic][-1]["pos"] for topic in topics}
        subscriber.open(node)

        def has_all():
            lately = {message["topic"]: message["pos"] for message in subscriber.messages}
            return all(lately.get(topic, "") >= position for topic, position in newest.items())

        subscriber.run(has_all, "the newest message")
        subscriber.web.close()
        assert subscriber.gaps == []
        for topic in topics:
            got = numbers_of(subscriber.messages, topic)
            assert is_in_order(acknowledged[topic], got), (
                f"{subscriber.topic}: {sorted(set(acknowledged[topic]) - set(got))[:20]} of {topic} not delivered")
            assert len(got) == len(set(got)), f"{subscriber.topic}: {topic} delivered twice"
            # What it got and the log does not hold was delivered before the sync and never acknowledged.
            assert set(numbers_of(kept[topic], topic)) <= set(got)


@pytest.mark.deadline(60)
def test_positions_jump_ahead_after_kill_9(make_node):
    """Offsets are never reused: after an unclean stop the next one lies far ahead, because subscribers may have
    seen some that the disk never got."""
    node = make_node()
    with Web(node) as web:
        before = web.ask({"pub": {"topic": "a", "data": 1}})["ok"]["pos"]
    node.kill9()
    node.restart()
    with Web(node) as web:
        after = web.ask({"pub": {"topic": "a", "data": 2}})["ok"]["pos"]
    lane, offset = before.rsplit(".", 1)
    lane_after, offset_after = after.rsplit(".", 1)
    assert lane == lane_after
    assert int(offset_after, 16) - int(offset, 16) >= 1 << 20
