"""Fixtures of the end-to-end tests: real daemon, real clients, no mocks. See node.py and clients.py."""

import itertools
import os
import signal

import pytest

import kafka_server
from certificates import Certificates
from node import PATIENCE, PRESET, PROGRAM, Node

# Clients of these tests speak to loopback only.
for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
    os.environ.pop(name, None)


def pytest_configure(config):
    config.addinivalue_line("markers", "deadline(seconds): how long a test may take on an idle machine (default 90); six times as long is too long")


# What these test one thread does by itself, or another module does in the same way with more threads (test_ws_tls runs
# the tests of test_ws). ThreadSanitizer makes a test four times as long: it gets those that it can see something in.
NO_THREADS = {"test_acl", "test_batch", "test_cli", "test_cloudevents", "test_demo_page", "test_http_hostile", "test_log_tool",
              "test_mqtt_bytes", "test_openapi", "test_policies", "test_quickstart", "test_torn_tail", "test_ws"}
# There is no node in these: what the preset makes of it changes nothing.
NO_NODE = {"test_kafka_kit"}


def pytest_collection_modifyitems(config, items):
    without = {"tsan": NO_THREADS | NO_NODE, "asan": NO_NODE}.get(PRESET, set())
    config.hook.pytest_deselected(items=[item for item in items if item.module.__name__ in without])
    items[:] = [item for item in items if item.module.__name__ not in without]


def pytest_collection_finish():
    """The tests' own variables (TIDEGATE_PRESET, TIDEGATE_KILL_ROUNDS ...) have been read. A program that a test starts
    must not see them: to it they are keys that do not exist."""
    for name in [name for name in os.environ if name.startswith("TIDEGATE_")]:
        del os.environ[name]


@pytest.fixture(autouse=True)
def deadline(request):
    """A test that hangs is a test that failed."""
    marker = request.node.get_closest_marker("deadline")
    seconds = (marker.args[0] if marker else 90) * 6 * PATIENCE

    def expired(*_):
        pytest.fail(f"the test took longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, expired)
    signal.alarm(seconds)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def make_node(tmp_path):
    """A factory of nodes. At the end each must still be in good health, and stops cleanly."""
    assert PROGRAM.exists(), f"{PROGRAM} is not built (./dev build)"
    nodes = []
    number = itertools.count()

    def make(settings=None, **options):
        made = Node(tmp_path / f"node{next(number)}", settings, **options)
        made.data.parent.mkdir(exist_ok=True)
        nodes.append(made)
        return made.start()

    yield make
    errors = []
    for made in nodes:
        try:
            made.check()
        except AssertionError as error:
            errors.append(str(error))
    assert not errors, "\n".join(errors)


@pytest.fixture
def node(make_node):
    return make_node()


@pytest.fixture(scope="session")
def kafka_broker(tmp_path_factory, certificates):
    folder = kafka_server.common_folder(tmp_path_factory)
    brokers = kafka_server.join(folder / "kafka", tls=kafka_server.make_certificates(certificates))
    yield brokers
    brokers.leave()


@pytest.fixture
def kafka(kafka_broker):
    """One broker of all workers; topics of the test's own."""
    return kafka_server.Kafka(kafka_broker)


@pytest.fixture(scope="session")
def kafka_brokers(tmp_path_factory):
    """Not there until the first turn."""
    folder, joined = kafka_server.common_folder(tmp_path_factory), []

    def get():
        if not joined:
            joined.append(kafka_server.join(folder / "kafka3", count=3))
        return joined[0]

    yield get, folder / "kafka3.turn"
    for brokers in joined:
        brokers.leave()


@pytest.fixture
def kafka3(kafka_brokers):
    """Three brokers, for this test alone while it runs."""
    get, turn = kafka_brokers
    with kafka_server.Turn(turn):
        three = kafka_server.Three(get())
        three.heal()
        yield three
