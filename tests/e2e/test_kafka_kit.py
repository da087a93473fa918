"""The Kafka brokers that other tests need (tools/kafka) are real ones, fail as they are told to, and leave nothing."""

import os
import signal
import subprocess
import sys

import pytest

from clients import module
from kafka_server import VERSION, Brokers, Trouble
from keeper import identifier
from node import PRESET, ROOT, wait_until

pytestmark = pytest.mark.skipif(PRESET != "dev", reason="nothing of ours that is compiled is in it")

SECURE = [("sasl", "PLAIN"), ("sasl", "SCRAM-SHA-256"), ("sasl", "SCRAM-SHA-512"), ("tls", None)]


def test_topics_of_a_test_are_its_own(kafka):
    topic = kafka.topic("t", partitions=2, **{"max.message.bytes": "2000"})
    producer = kafka.producer()
    try:
        placed = [producer.send(topic, b"%d" % i, partition=i % 2).get(60) for i in range(10)]
        assert [(item.partition, item.offset) for item in placed] == [(i % 2, i // 2) for i in range(10)]
        with pytest.raises(module("kafka").errors.MessageSizeTooLargeError):
            producer.send(topic, b"x" * 3000, partition=0).get(60)
    finally:
        producer.close()
    assert [item.value for item in kafka.read(topic, 5, 1)] == [b"%d" % i for i in (1, 3, 5, 7, 9)]
    assert type(kafka)(kafka.brokers).prefix != kafka.prefix


@pytest.mark.parametrize("listener,mechanism", SECURE)
def test_with_tls(kafka, listener, mechanism):
    topic, options = kafka.topic("t"), {**kafka.secure(listener, mechanism), "api_version": VERSION}
    producer = kafka.producer(**options)
    try:
        producer.send(topic, b"x").get(60)
    finally:
        producer.close()
    assert kafka.read(topic, 1, **options)[0].value == b"x"


def test_strangers_do_not_get_in(kafka):
    errors = module("kafka").errors
    wrong = {**kafka.secure("sasl", "PLAIN"), "sasl_plain_password": "wrong", "api_version": VERSION}
    nameless = {**kafka.secure("tls"), "ssl_certfile": None, "ssl_keyfile": None, "api_version": VERSION}
    for options in (wrong, nameless):
        producer = None
        with pytest.raises(errors.KafkaError):
            producer = kafka.producer(**{**options, "max_block_ms": 2000})
            producer.send(kafka.prefix, b"x").get(60)
        if producer:
            producer.close(0)


def test_the_leader_is_killed_and_nothing_is_lost(kafka3):
    topic = kafka3.topic("t")
    producer = kafka3.producer(linger_ms=5)
    try:
        acknowledged = {producer.send(topic, b"%d" % i).get(60).offset: b"%d" % i for i in range(200)}
        leader = kafka3.leader(topic)
        under_way = [(b"u%d" % i, producer.send(topic, b"u%d" % i)) for i in range(500)]
        kafka3.brokers.kill(leader)
        assert kafka3.brokers.states()[leader] == "down"
        acknowledged.update({sent.get(120).offset: value for value, sent in under_way})
        wait_until(lambda: kafka3.leader(topic) not in (0, leader), "another leader", 60)
        acknowledged.update({producer.send(topic, b"a%d" % i).get(60).offset: b"a%d" % i for i in range(100)})
    finally:
        producer.close()
    assert len(acknowledged) == 800  # each at a place of its own

    def all_there():
        there = {item.offset: item.value for item in kafka3.read(topic, max(acknowledged) + 1)}
        return all(there[offset] == value for offset, value in acknowledged.items())
    assert all_there()
    kafka3.brokers.begin(leader)
    wait_until(lambda: kafka3.in_sync(topic) == [1, 2, 3], "the killed one to have caught up", 60)
    for other in {1, 2, 3} - {leader}:
        if kafka3.leader(topic) != leader:
            kafka3.brokers.end(other)  # politely: who is left leads
            wait_until(lambda: kafka3.leader(topic) not in (0, other), "another leader", 60)
    assert all_there()


def test_a_frozen_leader_is_replaced_and_comes_back(kafka3):
    topic = kafka3.topic("t")
    leader = kafka3.leader(topic)
    kafka3.brokers.freeze(leader)
    assert kafka3.brokers.states()[leader] == "frozen"
    wait_until(lambda: kafka3.leader(topic) not in (0, leader), "another leader", 60)
    producer = kafka3.producer()
    try:
        assert producer.send(topic, b"x").get(120).offset == 0
    finally:
        producer.close()
    kafka3.brokers.thaw(leader)
    wait_until(lambda: kafka3.in_sync(topic) == [1, 2, 3], "it to have caught up", 60)
    assert kafka3.read(topic, 1)[0].value == b"x"


USER = """
import sys, time
sys.path[:0] = [{tools!r}]
from brokers import Brokers
brokers = Brokers(settings={{"log.flush.interval.messages": "1"}}).join()
print(brokers.folder, brokers.facts["pid"], flush=True)
time.sleep(600)
"""


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def children(pid):
    return [int(child) for child in open(f"/proc/{pid}/task/{pid}/children").read().split()]


@pytest.mark.parametrize("dies", ["user", "keeper"])
def test_nothing_is_left_when_somebody_dies(dies):
    user = subprocess.Popen([sys.executable, "-c", USER.format(tools=str(ROOT / "tools" / "kafka"))], stdout=subprocess.PIPE,
                            text=True)
    try:
        folder, keeper = user.stdout.readline().split()
        keeper = int(keeper)
        [broker] = children(keeper)
        assert b"server.properties" in open(f"/proc/{broker}/cmdline", "rb").read()
        os.kill(user.pid if dies == "user" else keeper, signal.SIGKILL)
        wait_until(lambda: not alive(broker) and not alive(keeper), "the broker and its keeper to end", 60)
        if dies == "user":
            wait_until(lambda: not os.path.exists(folder), "the folder to be removed")
        else:
            subprocess.run(["rm", "-r", folder], check=True)
    finally:
        user.kill()
        user.wait()
        user.stdout.close()


def test_no_identifier_looks_like_an_option():
    assert not [drawn for drawn in (identifier() for _ in range(2000)) if drawn.startswith("-") or len(drawn) != 22]


def test_what_is_wrong_is_told(tmp_path):
    made = Brokers(tmp_path / "k", settings={"num.partitions": "none"})
    with pytest.raises(Trouble, match="num.partitions"):
        made.join()
    made.leave()
    wait_until(lambda: not made.folder.exists(), "the folder to be removed")
