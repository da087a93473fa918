"""Real Kafka brokers (tools/kafka), and what a test asks them with python3-kafka: a client that shares no code with ours.

One broker, or three, are shared by all workers of a run: whoever comes first starts them, and they end when the last
worker has ended, in whatever way."""

import contextlib
import fcntl
import os
import secrets
import signal
import sys
import time
from pathlib import Path

import pytest

from clients import WAIT_S, module
from node import PATIENCE, ROOT, wait_until

sys.path.insert(0, str(ROOT / "tools" / "kafka"))
from brokers import PASSWORD, USER, Brokers, Gone, Trouble  # noqa: E402

ASK_S = 3 * PATIENCE  # the one that is asked may be frozen: another is asked next
VERSION = (2, 5, 0)  # the newest that python3-kafka knows; it need not ask then


def common_folder(tmp_path_factory):
    """Of all workers of this run."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


def join(meeting, **options):
    """The brokers whose folder is written in the file `meeting`, or new ones."""
    with open(meeting, "a+") as at:
        fcntl.flock(at, fcntl.LOCK_EX)
        at.seek(0)
        folder = at.read()
        try:
            if folder and Path(folder).is_dir():
                try:
                    return Brokers(folder, **options).join()
                except (Gone, OSError):
                    pass  # the last of its users went just now
            made = Brokers(**options)
            at.truncate(0)
            at.write(str(made.folder))
            at.flush()
            return made.join()
        except Trouble as trouble:
            (pytest.fail if os.environ.get("CI") else pytest.skip)(str(trouble))


def make_certificates(certificates):
    """CA, certificate and key of the brokers; their clients' is kafka-client.pem, beside it."""
    certificates.make("kafka", "server-ca")
    certificates.make("kafka-client", "server-ca", subject="/CN=app")
    return certificates.pem("server-ca"), certificates.pem("kafka"), certificates.key("kafka")


class Kafka:
    """`prefix`: no other test has it."""

    def __init__(self, brokers):
        self.brokers, self.prefix = brokers, f"t{secrets.token_hex(5)}"
        self.module = module("kafka")

    def servers(self, listener="plain"):
        return self.brokers.servers(listener)

    def options(self, **more):
        """Of a python3-kafka client. A frozen broker would let it wait: it takes connections and says nothing."""
        states = self.brokers.states()
        there = [server for number, server in enumerate(self.servers().split(","), 1) if states[number] == "runs"]
        return {"bootstrap_servers": there, "api_version": VERSION, **more}

    def secure(self, listener, mechanism=None):
        """Options of a client at the ports with TLS."""
        folder = Path(self.brokers.facts["tls"][0]).parent
        login = {"sasl_mechanism": mechanism, "sasl_plain_username": USER, "sasl_plain_password": PASSWORD,
                 "security_protocol": "SASL_SSL"}
        own = {"ssl_certfile": str(folder / "kafka-client.pem"), "ssl_keyfile": str(folder / "kafka-client.key"),
               "security_protocol": "SSL"}
        return {"bootstrap_servers": self.servers(listener).split(","), "ssl_cafile": self.brokers.facts["tls"][0],
                **(login if mechanism else own)}

    @contextlib.contextmanager
    def admin(self, seconds=ASK_S):
        try:
            admin = self.module.admin.KafkaAdminClient(**self.options(request_timeout_ms=int(seconds * 1000)))
        except AssertionError as error:  # the client's own: the controller has gone while it looked for it
            raise self.module.errors.KafkaConnectionError(str(error)) from error
        try:
            yield admin
        finally:
            admin.close()

    def topic(self, name, partitions=1, **settings):
        """Makes <prefix>.<name>, with a copy on each broker. Returns its name when all of it has a leader."""
        made = f"{self.prefix}.{name}"
        new = self.module.admin.NewTopic(made, partitions, self.brokers.count, topic_configs=settings)

        def make():
            try:
                with self.admin(WAIT_S) as admin:
                    admin.create_topics([new])
            except self.module.errors.TopicAlreadyExistsError:  # an answer that was lost
                pass
            except self.module.errors.KafkaError:
                return False
            return True

        wait_until(make, "the topic to be made")
        wait_until(lambda: self.led(made) == partitions, "each partition to have a leader")
        return made

    def partitions(self, topic):
        """What the brokers say of each: leader, isr ...; {} when nobody answers."""
        try:
            with self.admin() as admin:
                return {item["partition"]: item for item in admin.describe_topics([topic])[0]["partitions"]}
        except self.module.errors.KafkaError:
            return {}

    def led(self, topic):
        return sum(item["leader"] > 0 for item in self.partitions(topic).values())

    def leader(self, topic, partition=0):
        """The number of the broker; 0: there is none now."""
        return max(0, self.partitions(topic).get(partition, {}).get("leader", 0))

    def in_sync(self, topic, partition=0):
        return sorted(self.partitions(topic).get(partition, {}).get("isr", []))

    def producer(self, **more):
        return self.module.KafkaProducer(**{**self.options(acks="all", retries=1000, request_timeout_ms=60000,
                                                           retry_backoff_ms=50, max_block_ms=int(WAIT_S * 1000)), **more})

    def read(self, topic, count, partition=0, **more):
        """The first `count` records."""
        consumer = self.module.KafkaConsumer(**{**self.options(auto_offset_reset="earliest"), **more})
        try:
            place = self.module.TopicPartition(topic, partition)
            consumer.assign([place])
            consumer.seek_to_beginning()
            got, deadline = [], time.monotonic() + WAIT_S
            while len(got) < count:
                assert time.monotonic() < deadline, f"{len(got)} records instead of {count}"
                got += consumer.poll(100).get(place, [])
            return got
        finally:
            consumer.close()


class Three(Kafka):
    """Brokers that a test may kill, freeze, end and begin: nobody else uses them meanwhile."""

    def heal(self):
        for number, state in self.brokers.states().items():
            if state != "runs":
                self.brokers.begin(number)
        wait_until(self.whole, "all brokers to know each other", 90)

    def whole(self):
        try:
            with self.admin() as admin:
                return len(admin.describe_cluster()["brokers"]) == self.brokers.count
        except self.module.errors.KafkaError:
            return False


class Turn:
    """One test at a time, of all workers. What it waits is not taken from its deadline."""

    def __init__(self, path):
        self.path = path

    def __enter__(self):
        left, began = signal.alarm(0), time.monotonic()
        self.file = open(self.path, "a")
        fcntl.flock(self.file, fcntl.LOCK_EX)
        signal.alarm(left)
        return time.monotonic() - began

    def __exit__(self, *_):
        self.file.close()
