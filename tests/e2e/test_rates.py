"""Rates by address, user and node, and the open connections of an address: what is over them is refused in the words
of its protocol, made to wait, or counted (PROTOCOL.md 2, Rates)."""

import json
import select
import socket
import ssl
import struct
import subprocess
import threading
import time

import pytest

from clients import Web, curl, history, publish
from http_wire import Wire as HttpWire
from http_wire import request
from mqtt_wire import PUBACK, connect
from mqtt_wire import publish as mqtt_publish
from node import PROGRAM, Node, wait_until
from tokens import bearer, make, mqtt_client, mqtt_says

SLOW = {"publish_rate_user": 1, "publish_burst": 3}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rates")
    (folder / "t.yaml").write_text("")
    made = Node(folder, {"node.loops": 2}, config=folder / "t.yaml").start()
    yield made
    (folder / "t.yaml").write_text("")
    made.check()


def limits(node, **keys):
    """The running node has these limits and no others: all of them are live."""
    node.config.write_text(json.dumps({"limit": {"address_exempt": [], **keys}}))
    done = subprocess.run([PROGRAM, "reload", "--data", node.data], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "0 need a restart" in done.stdout, done.stdout + done.stderr


class Elapsed:
    """How many tokens a bucket may have got meanwhile."""

    def __init__(self):
        self.start = time.monotonic()

    def tokens(self, burst, rate):
        return burst + int((time.monotonic() - self.start) * rate) + 1


def from_address(node, address, door="mqtt"):
    return socket.create_connection(("127.0.0.1", node.ports[door]), source_address=(address, 0), timeout=30)


def is_ended(connection):
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def greets(connection):
    """It is served: CONNACK comes."""
    try:
        connection.sendall(connect(4))
        return connection.recv(4) == b"\x20\x02\x00\x00"
    except (ConnectionResetError, BrokenPipeError):
        return False


# --- publishing ------------------------------------------------------------------------------------------------------

def test_a_websocket_is_told_when_to_come_again(shared):
    limits(shared, **SLOW)
    with Web(shared, hello={"token": make(shared, "ws-user")}) as web:
        clock = Elapsed()
        answers = [web.ask({"pub": {"topic": "rate/ws", "data": number}}) for number in range(20)]
        stored = [answer for answer in answers if "ok" in answer]
        assert 3 <= len(stored) <= clock.tokens(3, 1)
        over = [answer["err"] for answer in answers if "err" in answer]
        assert over and all(err["code"] == "rate_limited" and err["temporary"] is True for err in over)
        assert all(0 < err["retry_ms"] <= 1000 for err in over)
        time.sleep(over[-1]["retry_ms"] / 1000)  # the promise: then there is a token
        assert "ok" in web.ask({"pub": {"topic": "rate/ws", "data": 99}})
    assert len(history(shared, "rate/ws")) == len(stored) + 1
    with Web(shared, hello={"token": make(shared, "another")}) as web:  # others have their own
        assert "ok" in web.ask({"pub": {"topic": "rate/other", "data": 1}})


def test_http_answers_429(shared):
    limits(shared, **SLOW)
    token = make(shared, "http-user")
    field = f"Authorization: Bearer {token}\r\n"
    wire = HttpWire(shared)
    clock = Elapsed()
    answers = [wire.ask(request("/v1/publish/rate/http", field, b"1")) for _ in range(20)]
    stored = [answer for answer in answers if answer.status == 200]
    assert 3 <= len(stored) <= clock.tokens(3, 1)
    over = next(answer for answer in answers if answer.status != 200)
    problem = json.loads(over.body)
    assert over.status == problem["status"] == 429 and problem["code"] == "rate_limited" and problem["title"] == "Too Many Requests"
    assert over.fields["content-type"] == "application/problem+json" and 0 < problem["retry_ms"] <= 1000
    assert over.fields["retry-after"] == "1" and problem["request_id"]
    assert over.fields["ratelimit"] == '"publish";r=0;t=1' and over.fields["ratelimit-policy"] == '"publish";q=3;w=3'
    # Of a batch each message counts, and each has its own outcome.
    batch = json.dumps({"messages": [{"topic": "rate/batch", "data": number} for number in range(20)]}).encode()
    limits(shared, publish_rate_user=1, publish_burst=5)
    result = curl(shared.api("/v1/publish"), *bearer(make(shared, "batch-user")), "-H", "Content-Type: application/json", data=batch,
                  check=207).json()
    assert result["ok"] >= 5 and result["failed"] >= 10
    assert all(("pos" in item) if number < 5 else True for number, item in enumerate(result["results"]))
    last = result["results"][-1]
    assert (last["status"], last["code"]) == (429, "rate_limited") and last["retry_ms"] > 0
    assert len(history(shared, "rate/batch")) == result["ok"]
    # Whoever has no user is of no user's rate; his is the node's.
    for _ in range(5):
        publish(shared, "rate/nobody", b"1")
    wire.close()


def test_the_body_of_a_refused_publish_is_no_request(shared):
    """Over the rate while a large body is under way: 429 when all of it has come, and the connection goes on behind it."""
    limits(shared, publish_rate_user=1, publish_burst=1)
    field = f"Authorization: Bearer {make(shared, 'large-user')}\r\n"
    inner = request("/v1/publish/rate/inner", field, b"1")
    whole = request("/v1/publish/rate/large", field, inner * (900_000 // len(inner)))
    answers = []
    with HttpWire(shared) as large, HttpWire(shared) as small:

        def refused():
            large.send(whole[:450_000])
            wait_until(lambda: small.ask(request("/v1/publish/rate/small", field, b"1")).status == 429, "the rate to be reached", 30)
            answers.append(large.ask(whole[450_000:] + request("/healthz", method="GET")))
            assert large.answer().body == b'{"status":"ok"}\n', "what is pipelined behind the body"
            return answers[-1].status == 429  # a token may have come meanwhile

        wait_until(refused, "a refusal", 60)
    fields, problem = answers[-1].fields, json.loads(answers[-1].body)
    assert fields["content-type"] == "application/problem+json" and problem["code"] == "rate_limited"
    assert fields["retry-after"] == "1" and "connection" not in fields
    assert {answer.status for answer in answers} <= {200, 429}
    assert len(history(shared, "rate/large")) == len(answers) - 1 and history(shared, "rate/inner") == []


@pytest.mark.parametrize("version", [4, 5])
def test_mqtt_waits_and_loses_nothing(shared, version):
    """QoS 1: no refusal, no early acknowledgement; the socket is not read, and everything is stored at the rate."""
    limits(shared, publish_rate_user=20, publish_burst=5)
    topic = f"rate/mqtt{version}"
    before = shared.metric("tidegate_rate_limited_total", 'what="publish"', 'by="user"')
    wire = mqtt_client(shared, make(shared, f"mqtt-user{version}"), version)
    start = time.monotonic()
    wire.send(b"".join(mqtt_publish(topic, b"%d" % number, 1, number, version) for number in range(1, 26)) + b"\xc0\x00")
    packets = [wire.packet() for _ in range(26)]
    took = time.monotonic() - start
    assert took >= 0.95, f"25 messages in {took:.2f} s: 5 at once, then 20 a second, take 1 s"
    assert (0xD0, b"") in packets[20:], "what stands behind is handled, behind"
    acks = [body for first, body in packets if first >> 4 == PUBACK]
    assert [struct.unpack_from(">H", body)[0] for body in acks] == list(range(1, 26))
    assert all(body[2:] in (b"", b"\x00") for body in acks), acks
    assert [int(message["text"]) for message in history(shared, topic)] == list(range(1, 26))
    assert shared.metric("tidegate_rate_limited_total", 'what="publish"', 'by="user"') > before
    wire.close()


def test_qos_0_is_dropped_and_counted(shared):
    limits(shared, publish_rate_address=1, publish_burst=4)
    before = shared.metric("tidegate_messages_refused_total", 'reason="rate"')
    connection = from_address(shared, "127.0.0.40")
    assert greets(connection)
    clock = Elapsed()
    connection.sendall(b"".join(mqtt_publish("rate/qos0", b"%d" % number, version=4) for number in range(50)) + b"\xc0\x00")
    assert connection.recv(2) == b"\xd0\x00"
    dropped = shared.metric("tidegate_messages_refused_total", 'reason="rate"') - before
    kept = 50 - dropped
    assert 4 <= kept <= clock.tokens(4, 1)
    wait_until(lambda: len(history(shared, "rate/qos0")) == kept, "the others")
    drops = [drop for drop in curl(shared.api("/v1/drops")).json()["drops"] if drop["topic"] == "rate/qos0"]
    assert [(drop["why"], drop["count"]) for drop in drops] == [("rate", dropped)] and "from" not in drops[0]
    connection.close()


def test_the_node_has_a_rate_of_all(shared):
    limits(shared, publish_rate_node=1, publish_burst=2)
    clock = Elapsed()
    status = [publish(shared, "rate/node", b"1", check=None).status for _ in range(15)]
    stored = status.count(200)
    assert set(status) == {200, 429} and 2 <= stored <= clock.tokens(2, 1)
    # Nothing is left waiting when the limit goes.
    limits(shared)
    assert publish(shared, "rate/node", b"1").status == 200


def test_rates_are_of_every_loop_together(shared):
    """The connections of one user are spread over the loops; their bucket is one."""
    limits(shared, publish_rate_user=1, publish_burst=10)
    stored = []
    clock = Elapsed()

    def run():
        with Web(shared, hello={"token": make(shared, "everywhere")}) as web:
            stored.extend(1 for _ in range(10) if "ok" in web.ask({"pub": {"topic": "rate/loops", "data": 1}}))

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert 10 <= len(stored) <= clock.tokens(10, 1) + 1  # the other loop's one


# --- connecting ------------------------------------------------------------------------------------------------------

def test_a_user_who_comes_too_often(shared):
    limits(shared, connect_rate_user=1, connect_burst=2)
    said = [mqtt_says(shared, make(shared, "often5"), 5) for _ in range(20)]
    assert said[:2] == [0, 0] and 0x9F in said and set(said) <= {0, 0x9F}
    said = [mqtt_says(shared, make(shared, "often4"), 4) for _ in range(20)]
    assert said[:2] == [0, 0] and 3 in said and set(said) <= {0, 3}
    # A WebSocket hears it in words, and is to come again.
    said, token = [], make(shared, "often-ws")
    while "rate_limited" not in said:
        assert len(said) < 50
        with Web(shared) as web:
            number = web.request({"hello": {"token": token}})
            wait_until(lambda: number in web.answers or not web.events.empty(), "an answer", 30)
            said.append("ok" if number in web.answers else web.event()["err"]["code"])
            assert said[-1] == "ok" or web.close_code() == 4005
    assert said[:2] == ["ok", "ok"]
    token = make(shared, "often-poll")
    status = [curl(shared.web("/poll?topic=rate/poll"), *bearer(token), check=None).status for _ in range(15)]
    assert status[:2] == [200, 200] and set(status) == {200, 429}


def test_an_address_that_comes_too_often(shared):
    limits(shared, connect_rate_address=1, connect_burst=3)
    before = shared.metric("tidegate_rate_limited_total", 'what="connect"', 'by="address"')
    clock = Elapsed()
    connections = [from_address(shared, "127.0.0.50") for _ in range(20)]
    served = sum(greets(connection) for connection in connections)
    assert 3 <= served <= clock.tokens(3, 1)
    assert shared.metric("tidegate_rate_limited_total", 'what="connect"', 'by="address"') - before == 20 - served
    other = from_address(shared, "127.0.0.51")  # another address has its own
    assert greets(other)
    # The HTTP port says so before it has read anything.
    web = [from_address(shared, "127.0.0.52", "http") for _ in range(30)]
    refused = wait_until(lambda: select.select(web, [], [], 0)[0], "a refusal")[0]
    status = refused.makefile("rb").read().split(b"\r\n")
    assert status[0] == b"HTTP/1.1 429 Too Many Requests" and b"Retry-After: 5" in status
    for connection in connections + web + [other]:
        connection.close()
    # The private API is not for clients: it still answers.
    assert curl(shared.api("/healthz")).status == 200


def test_exempt_addresses_and_how_many_of_one(shared):
    limits(shared, address_connections=2, address_exempt=["127.0.0.60", "127.0.1.0/24"])
    exempt = [from_address(shared, address) for address in ("127.0.0.60", "127.0.1.9") for _ in range(4)]
    assert all(map(greets, exempt))
    before = shared.metric("tidegate_address_connections_refused_total")
    counted = [from_address(shared, "127.0.0.61") for _ in range(2)]
    assert all(map(greets, counted))
    third = from_address(shared, "127.0.0.61")
    assert is_ended(third), "a third connection of one address"
    fourth = from_address(shared, "127.0.0.61", "http")  # all public doors together
    assert b" 429 " in fourth.recv(100)
    assert shared.metric("tidegate_address_connections_refused_total") - before == 2
    counted.pop().close()

    def one_more():
        connection = from_address(shared, "127.0.0.61")
        counted.append(connection)
        return greets(connection)

    wait_until(one_more, "the place of the one that has gone")
    for connection in exempt + counted + [third, fourth]:
        connection.close()


def test_a_websocket_that_carries_mqtt_is_one_connection(shared):
    limits(shared, address_connections=1)
    wire = from_address(shared, "127.0.0.70", "http")
    wire.sendall((f"GET /mqtt HTTP/1.1\r\nHost: 127.0.0.1:{shared.ports['http']}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                  "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
                  "Sec-WebSocket-Protocol: mqtt\r\n\r\n").encode())
    file = wire.makefile("rb")
    assert b" 101 " in file.readline()
    while file.readline() != b"\r\n":
        pass
    hello = connect(4)
    wire.sendall(bytes([0x82, 0x80 | len(hello)]) + b"\0\0\0\0" + hello)
    assert file.read(6) == b"\x82\x04\x20\x02\x00\x00"
    assert is_ended(from_address(shared, "127.0.0.70"))
    wire.close()
    file.close()


def test_no_handshake_is_spent_on_who_comes_too_often(make_node, certificates):
    node = make_node({**certificates.settings("ec"), "limit.connect_rate_address": 1, "limit.connect_burst": 2,
                      "limit.address_exempt": "", "limit.rate_entries": 1})
    context = ssl.create_default_context(cafile=certificates.pem("server-ca"))
    done = []
    for _ in range(20):
        try:
            with socket.create_connection(("127.0.0.1", node.ports["mqtts"]), timeout=30) as plain:
                with context.wrap_socket(plain, server_hostname="localhost") as connection:
                    connection.sendall(connect(4))
                    done.append(connection.recv(4) == b"\x20\x02\x00\x00")
        except (ConnectionError, ssl.SSLError):
            done.append(False)
    assert done[:2] == [True, True] and False in done
    refused = node.metric("tidegate_rate_limited_total", 'what="connect"', 'by="address"')
    assert node.metric("tidegate_tls_handshakes_total") == 20 - refused and node.metric("tidegate_tls_handshake_failures_total") == 0


def test_a_full_table_shares_its_last_place(make_node):
    """Whoever finds no entry is not let through: all of them are as one."""
    node = make_node({"limit.rate_entries": 1, "limit.address_exempt": "", "limit.address_connections": 3})
    open_ones, refused = [], 0
    for number in range(60):
        connection = from_address(node, f"127.0.2.{number + 1}")
        if greets(connection):
            open_ones.append(connection)
        else:
            refused += 1
    assert len(open_ones) == 32 + 3 and refused == 25, "32 places, and one for three of all the others"
    assert node.metric("tidegate_rate_entries_shared_total") == 28
    wait_until(lambda: "limit.rate_entries" in node.log(), "the warning")
    for connection in open_ones:
        connection.close()


def test_what_is_no_address(make_node, tmp_path):
    ended = subprocess.run([PROGRAM, "serve", "--set", f"data.dir={tmp_path}", "--set", "limit.address_exempt=10.0.0.0/8,10.0.0.0/33"],
                           capture_output=True, text=True, timeout=60)
    assert ended.returncode == 78 and "limit.address_exempt" in ended.stderr and "10.0.0.0/33" in ended.stderr


def test_errors_of_the_public_port_have_an_id(shared):
    """Each its own; a 5xx is in the log under it."""
    told = [curl(shared.web(path), check=status).json()
            for path, status in (("/nothing", 404), ("/sse?topic=a/%23/b", 400), ("/poll?topic=%24x", 403))]
    assert all(problem["title"] and problem["code"] for problem in told)
    assert len({problem["request_id"] for problem in told}) == 3
