"""Three nodes, three Kafka brokers and a Redis, in network namespaces: whatever of it fails, no acknowledged message is lost.
TIDEGATE_FAULT_MINUTES=30: random faults for so long, instead of each one once (some of them, where a sanitizer makes all of
it slow). TEST_SEED repeats a run."""

import os
import random
import time

import pytest

from clients import Web, history
from cluster import Cluster
from mqtt_wire import Wire, connect, text
from node import PRESET, wait_until
from roaming import Traffic
from test_users import send
from tokens import make

SEED = int(os.environ.get("TEST_SEED", "0")) or random.randrange(1 << 30)
MINUTES = float(os.environ.get("TIDEGATE_FAULT_MINUTES", "0"))
FAULT_S = (2, 4)


def device(node, user, name):
    wire = Wire(node, 5, connected=False)
    wire.send(connect(5, name, 0x42, rest=text(make(node, user))))
    assert wire.expect(2)[1] == 0
    assert wire.subscribe((f"$user/{user}/#", 1)) == b"\x01"
    return wire


def tell(node, user, text, below=""):
    """Until it is acknowledged, and once: brokers that have come back may elect a leader anew just now."""
    answer = None

    def told():
        nonlocal answer
        answer = send(node, user, text, "-H", f"Idempotency-Key: {user}{below}{text.decode()}", below=below, check=None)
        return answer.status == 200
    with node.inside():
        try:
            wait_until(told, f"a message to {user} to be acknowledged")
        except AssertionError as error:
            raise AssertionError(f"{error}: {answer.body.decode()}, {node.ready()}\n{node.log(400)}") from None


def one_user_at_two_nodes(cluster, user, stranger):
    """A message to a user, published at a third node: each of his connections gets it once, nobody else's does. Nobody has
    been these users before."""
    a, b, c = cluster.nodes
    with a.inside():
        page, others_page = (Web(a, hello={"token": make(a, name), "inbox": True}) for name in (user, stranger))
    phone, others_phone = device(b, user, f"{user}'s"), device(b, stranger, f"{stranger}'s")
    for number in range(20):
        tell(c, user, b"%d" % number, below=f"/x/{number}")
    tell(c, stranger, b"end")
    # The messages are of several partitions.
    assert sorted(int(page.next()["text"]) for _ in range(20)) == list(range(20))
    assert sorted(int(phone.message().payload) for _ in range(20)) == list(range(20))
    assert others_page.next()["text"] == "end" and others_phone.message().payload == b"end", "nothing else came before it"
    tell(c, user, b"last")
    assert page.next()["text"] == "last" and phone.message().payload == b"last", "each once"
    for client in (page, others_page, phone, others_phone):
        client.close()


# --- what fails ------------------------------------------------------------------------------------------------------

FAULTS = []


def fault(begin):
    """`begin` makes it happen to one of the cluster's parts, and returns what ends it."""
    FAULTS.append(begin)
    return begin


@fault
def a_node_is_killed(cluster, dice):
    node = dice.choice(cluster.nodes)
    node.kill9()
    return node.restart


@fault
def a_node_is_frozen(cluster, dice):
    node = dice.choice(cluster.nodes)
    node.freeze()
    return node.thaw


@fault
def redis_is_killed_and_forgets(cluster, dice):
    cluster.redis.stop()
    return cluster.new_redis


@fault
def redis_is_frozen(cluster, dice):
    cluster.redis.freeze()
    return cluster.redis.thaw


@fault
def a_broker_is_killed(cluster, dice):
    cluster.brokers.kill(dice.choice((1, 2, 3)))
    return cluster.heal_brokers


@fault
def a_broker_is_frozen(cluster, dice):
    broker = dice.choice((1, 2, 3))
    cluster.brokers.freeze(broker)
    return lambda: cluster.brokers.thaw(broker)


@fault
def the_leader_of_a_partition_is_killed(cluster, dice):
    cluster.brokers.kill(cluster.leader(dice.randrange(4)))
    return cluster.heal_brokers


def cut(ports, *ways):
    def begin(cluster, dice):
        node = dice.choice(cluster.nodes)
        node.cut(ports(cluster), *ways)
        return node.heal
    return begin


def redis_port(cluster):
    return [cluster.redis.port]


def kafka_ports(cluster):
    return cluster.kafka_ports


def all_ports(cluster):
    return [*cluster.kafka_ports, cluster.redis.port]


for name, begin in {
        "a node and Redis are cut": cut(redis_port), "a node hears Redis no more": cut(redis_port, ("in",)),
        "Redis hears a node no more": cut(redis_port, ("out",)), "a node and Kafka are cut": cut(kafka_ports),
        "a node hears Kafka no more": cut(kafka_ports, ("in",)), "Kafka hears a node no more": cut(kafka_ports, ("out",)),
        "a node is cut off": cut(all_ports)}.items():
    begin.__name__ = name
    fault(begin)


@fault
def all_nodes_are_cut_off(cluster, dice):
    for node in cluster.nodes:
        node.cut(all_ports(cluster))
    return lambda: [node.heal() for node in cluster.nodes]


def schedule(dice):
    """Each once, in an order of chance; or for so many minutes whichever."""
    if not MINUTES:
        yield from dice.sample(FAULTS, len(FAULTS) if PRESET == "dev" else 5)
    end = time.monotonic() + MINUTES * 60
    while MINUTES and time.monotonic() < end:
        yield dice.choice(FAULTS)


def at_rest(cluster, topics):
    """topic -> its numbers in the log, when all is done and each node says the same."""
    def read(node):
        with node.inside():
            if node.metric("tidegate_publishes_open") > 0:
                return None
            return {topic: [int(item["text"]) for item in history(node, topic)] for topic in topics}

    before = None

    def same():
        nonlocal before
        told = [read(node) for node in cluster.nodes]
        now = told[0] if told[0] is not None and all(one == told[0] for one in told) else None
        before, last = now, before
        return now if now is not None and now == last else None
    return wait_until(same, "one history at all nodes", 60)


def suffer(cluster, dice, traffic):
    """All that is to happen, one after the other, each mended before the next. What happened how often."""
    happened, now = {}, traffic.counts()
    for begin in schedule(dice):
        before, mend = now, begin(cluster, dice)
        time.sleep(dice.uniform(*FAULT_S))  # how long it lasts
        mend()
        cluster.await_ready()
        happened[begin.__name__] = happened.get(begin.__name__, 0) + 1
        now = traffic.counts()
        print(begin.__name__, {what: now[what] - before[what] for what in now}, flush=True)
        assert not traffic.troubles(), traffic.troubles()
    wait_until(lambda: traffic.counts()["acknowledged"] > now["acknowledged"] + 20, "publishing to go on")
    return happened


@pytest.mark.deadline(300 + int(MINUTES * 60))
def test_nothing_acknowledged_is_lost(tmp_path):
    print(f"TEST_SEED={SEED}")
    dice = random.Random(SEED)
    with Cluster(tmp_path, {"kafka.message_timeout_ms": 8000}) as cluster:
        one_user_at_two_nodes(cluster, "alice", "bob")
        traffic = Traffic(cluster.nodes, SEED)
        traffic.start(wait_until)
        happened = suffer(cluster, dice, traffic)
        for publisher in traffic.publishers:
            publisher.stop()
        stored = at_rest(cluster, [one.topic for one in traffic.publishers])
        traffic.settle(stored, wait_until)
        traffic.judge(stored)
        one_user_at_two_nodes(cluster, "carol", "dave")
        clients = traffic.publishers + traffic.subscribers
        print(f"{sum(happened.values())} faults {happened}; {traffic.counts()}; {sum(map(len, stored.values()))} stored; "
              f"{sum(one.stays for one in clients)} stays at a node, {sum(one.failed_stays for one in clients)} of them cut "
              f"short; {sum(one.repeated for one in traffic.subscribers)} messages again at QoS 1")
        cluster.check()
