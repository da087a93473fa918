"""The private HTTP API: every endpoint, by curl and by bytes."""

import json
import re
import threading
import urllib.request

import pytest

from clients import MosquittoSub, curl, history, publish
from http_wire import Wire, request
from node import PATIENCE, Node, wait_until
from test_sync import disk  # noqa: F401  (a fixture)

POSITION = re.compile(r"[0-9a-f]{12}\.[0-9a-f]{16}")


def problem(node, target, *arguments, status, code, data=None):
    """An answer that is an error, which says so in all its ways."""
    answer = curl(node.api(target), "-D", "-", *arguments, data=data, check=status)
    head, body = answer.body.split(b"\r\n\r\n", 1)
    fields = dict(line.decode().lower().split(": ", 1) for line in head.split(b"\r\n")[1:])
    said = json.loads(body)
    assert fields["content-type"] == "application/problem+json"
    assert said["status"] == status and said["code"] == code, said
    assert said["title"] and said["type"] == "about:blank" and said["detail"]
    assert ("retry-after" in fields) == ("retry_ms" in said)
    return said, fields


# --- publish ---------------------------------------------------------------------------------------------------

def test_answer_of_a_publish(node):
    answer = publish(node, "home/kitchen", b'{"c":21.5}').json()
    assert set(answer) == {"topic", "pos", "dup"}
    assert answer["topic"] == "home/kitchen" and answer["dup"] is False and POSITION.fullmatch(answer["pos"])
    later = publish(node, "home/kitchen", b'{"c":22}').json()
    assert later["pos"] > answer["pos"]


def test_what_is_published_is_what_history_says(node):
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    publish(node, "a", b"hi", "-H", "Content-Type: text/x-log; charset=utf-8", "-H", "Tidegate-Key: k\u00e4",
            "-H", f"traceparent: {trace}")
    message, = history(node, "a")
    assert set(message) == {"topic", "pos", "ts", "key", "type", "props", "text"} and message["props"] == {"traceparent": trace}
    assert message["key"] == "k\u00e4" and message["type"] == "text/x-log; charset=utf-8" and message["text"] == "hi"


@pytest.mark.parametrize("fields, body, member, value", [
    ([], b'{"a":1}', "data", {"a": 1}),  # curl's own type, application/x-www-form-urlencoded, declares nothing
    ([], b' [1]', "data", [1]),
    ([], b'{"a":1', "text", '{"a":1'),
    ([], b"1", "text", "1"),
    ([], b"plain", "text", "plain"),
    ([], b"\xff\x00", "b64", "/wA="),
    (["Content-Type:"], b'{"a":1}', "data", {"a": 1}),
    (["Content-Type: application/json"], b"1", "data", 1),
    (["Content-Type: application/vnd.x+json"], b'"s"', "data", "s"),
    (["Content-Type: text/plain"], b'{"a":1}', "text", '{"a":1}'),
    (["Content-Type: image/png"], b"\x89PNG", "b64", "iVBORw=="),
    (["Content-Type: image/png"], b"words", "text", "words"),
])
def test_content_class(node, fields, body, member, value):
    publish(node, "a", body, *[part for field in fields for part in ("-H", field)])
    message, = history(node, "a")
    assert message[member] == value
    declared = fields[0].split(":", 1)[1].strip() if fields else ""
    assert message.get("type", "") == declared


def test_declared_json_must_be_json(node):
    problem(node, "/v1/publish/a", "-H", "Content-Type: application/json", data=b"{", status=400, code="bad_request")
    assert history(node, "a") == []


def test_accepted_is_answered_202_and_kept(node):
    answer = publish(node, "a", b"1", "-H", "Tidegate-Wait: accepted", check=202).json()
    assert answer == {"topic": "a"}
    wait_until(lambda: [message["text"] for message in history(node, "a")] == ["1"], "the message to be in the log")


def test_a_message_that_has_expired_is_nobodys(node):
    publish(node, "a", b"short", "-H", "Tidegate-Ttl-Ms: 1")
    publish(node, "a", b"long", "-H", "Tidegate-Ttl-Ms: 3600000")
    wait_until(lambda: [message["text"] for message in history(node, "a")] == ["long"], "the first to expire")


@pytest.mark.parametrize("target, topic", [
    ("/v1/publish/a/b", "a/b"),
    ("/v1/publish/%C3%A4%20b", "\u00e4 b"),
    ("/v1/publish/a%252Fb", "a%2Fb"),
    ("/v1/publish/a+b", None),
    ("/v1/publish?topic=a/b", "a/b"),
    ("/v1/publish?topic=a%2Fb", "a/b"),
    ("/v1/publish?topic=/a//b/", "/a//b/"),
    ("/v1/publish?topic=./..", "./.."),
    ("/v1/publish?topic=a+b", "a b"),
    ("/v1/publish?topic=a/+/b", None),
])
def test_where_a_publish_goes(node, target, topic):
    answer = curl(node.api(target), "--path-as-is", data=b"1", check=200 if topic else 400)
    if topic:
        assert answer.json()["topic"] == topic
        said = curl(node.api("/v1/history"), "-G", "--data-urlencode", f"topic={topic}").json()
        assert [message["topic"] for message in said["messages"]] == [topic]


@pytest.mark.parametrize("path", ["a%2Fb", "a%00b", "a//b", "/a", "a/", "", "./a", "a/../b", "a/%2e%2e/b", ".", "%2e"])
def test_paths_that_somebody_would_rewrite_name_the_way_out(node, path):
    said, _ = problem(node, f"/v1/publish/{path}", "--path-as-is", data=b"1", status=400, code="bad_request")
    assert "?topic=" in said["detail"]
    problem(node, f"/v1/history/{path}", "--path-as-is", status=400, code="bad_request")
    assert node.metric("tidegate_log_records_total") == 0


def test_a_body_as_large_as_allowed_and_one_larger(make_node):
    node = make_node({"limit.message_bytes": "3M"})
    body = b"x" * (3 << 20)
    publish(node, "a", body)
    message, = history(node, "a")
    assert message["text"].encode() == body
    problem(node, "/v1/publish/a", data=body + b"x", status=413, code="too_large")
    assert node.metric("tidegate_messages_refused_total", "limit") == 1


def test_is_qos_1_to_mqtt(node):
    with MosquittoSub(node, "a") as sub:
        publish(node, "a", b"1")
        assert sub.next() == ("a", b"1")
        assert any("PUBLISH (d0, q1," in line for line in sub.said), sub.said


# --- history ---------------------------------------------------------------------------------------------------

def page(node, query, check=200):
    return curl(node.api(f"/v1/history/{query}"), check=check).json()


def test_pages_join_without_overlap_or_hole(node):
    positions = [publish(node, "a/b", b"%d" % number).json()["pos"] for number in range(7)]
    publish(node, "a/c", b"other")
    got, start = [], "earliest"
    while True:
        answer = page(node, f"a/b?from={start}&max=3")
        assert len(answer["messages"]) <= 3
        got += [message["pos"] for message in answer["messages"]]
        if not answer["messages"]:
            break
        start = answer["next"]
    assert got == positions
    publish(node, "a/b", b"7")
    assert [message["text"] for message in page(node, f"a/b?from={start}")["messages"]] == ["7"], "next stays good"


def test_from_is_strictly_after(node):
    positions = [publish(node, "a", b"%d" % number).json()["pos"] for number in range(4)]
    assert [m["pos"] for m in page(node, f"a?from={positions[1]}")["messages"]] == positions[2:]
    assert page(node, f"a?from={positions[3]}")["messages"] == []
    assert [m["pos"] for m in page(node, "a")["messages"]] == positions, "earliest is the default"


def test_as_much_as_is_asked_for_and_allowed(make_node):
    node = make_node({"limit.history_count": 150})
    for number in range(160):
        publish(node, "a", b"%d" % number, "-H", "Tidegate-Wait: accepted", check=202)
    publish(node, "a", b"last")
    for query, want in (("a", 100), ("a?max=120", 120), ("a?max=100000", 150), ("a?max=1", 1)):
        assert len(page(node, query)["messages"]) == want, query


def test_a_page_of_large_messages_ends_early_and_goes_on(node):
    for _ in range(5):
        publish(node, "a", b"x" * 400_000)
    answer = page(node, "a?max=5")
    assert 1 <= len(answer["messages"]) < 5
    assert len(history(node, "a", page=5)) == 5


def test_several_lanes(make_node):
    node = make_node({"log.partitions": 4, "node.loops": 2})
    topics = [f"t/{number}" for number in range(16)]
    for topic in topics:
        for number in range(3):
            publish(node, topic, b"%d" % number)
    for topic in topics:
        assert [message["text"] for message in history(node, topic, page=2)] == ["0", "1", "2"]


def test_a_position_of_another_log_is_gone(node):
    mine = publish(node, "a", b"1").json()["pos"]
    other = ("0" if mine[0] != "0" else "1") + mine[1:]
    said, _ = problem(node, f"/v1/history/a?from={other}", status=410, code="position_gone")
    assert len(page(node, f"a?from={said['earliest']}")["messages"]) == 1


@pytest.mark.parametrize("query, status", [
    ("a?from=nonsense", 400), ("a?from=", 400), ("a?from=live", 400), ("a?from=zz", 400),
    ("a?max=0", 400), ("a?max=-1", 400), ("a?max=x", 400), ("a?limit=3", 400), ("a?topic=b", 400), ("+", 400),
    ("%23", 400), ("$SYS/x", 403), ("a?from=time:x", 400), ("a?from=last:0", 400), ("a?reverse=2", 400),
    ("", 400), ("?topic=", 400),
])
def test_history_that_cannot_be_had(node, query, status):
    code = {400: "bad_request", 403: "forbidden", 501: "unsupported"}[status]
    problem(node, f"/v1/history/{query}", "-g", status=status, code=code)


# --- the rest --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("method, target", [
    ("GET", "/console/"),
])
def test_what_is_named_and_not_there(node, method, target):
    problem(node, target, "-X", method, status=501, code="unsupported")


@pytest.mark.parametrize("field", ["Tidegate-Deliver-At: 1790000000123"])
def test_a_field_that_is_named_and_not_there_is_not_ignored(node, field):
    problem(node, "/v1/publish/a", "-H", field, data=b"{}", status=501, code="unsupported")
    assert history(node, "a") == []


def test_unknown_places_and_methods(node):
    for target in ("/", "/v2/publish/a", "/v1", "/healthz/x", "/favicon.ico"):
        problem(node, target, status=404, code="not_found")
    _, fields = problem(node, "/v1/publish/a", status=405, code="bad_request")
    assert fields["allow"] == "post"
    _, fields = problem(node, "/healthz", "-X", "DELETE", status=405, code="bad_request")
    assert fields["allow"] == "get, head"


def test_health(node):
    for path in ("/healthz", "/livez", "/readyz"):
        assert curl(node.api(path)).json() == {"status": "ok"}
        head = curl(node.api(path), "-I").body
        assert b" 200 OK" in head and b"\r\n\r\n" in head and b"status" not in head


def test_metrics(node):
    publish(node, "a", b"12345")
    with urllib.request.urlopen(node.api("/metrics")) as answer:
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4"
        text = answer.read().decode()
    assert "# TYPE tidegate_messages_received_total counter" in text
    assert node.metric("tidegate_messages_received_total", "http") == 1
    before = node.metric("tidegate_http_requests_total", "2xx"), node.metric("tidegate_http_requests_total", "4xx")
    publish(node, "a", b"1")
    curl(node.api("/nothing"), check=404)
    after = node.metric("tidegate_http_requests_total", "2xx"), node.metric("tidegate_http_requests_total", "4xx")
    assert after[0] >= before[0] + 1 and after[1] == before[1] + 1
    assert node.metric("tidegate_bytes_received_total", "http") > 100


def test_capabilities(make_node):
    node = make_node({"limit.message_bytes": "2M", "log.partitions": 3, "node.id": "n7"})
    said = curl(node.api("/v1/capabilities")).json()
    assert said["node"] == "n7" and said["backend"] == "embedded" and said["partitions"] == 3
    assert said["durability"]["sync"] == "always" and said["durability"]["survives_power_cut"] is True
    assert said["limits"]["message_bytes"] == 2 << 20
    assert {door: said["doors"][door]["port"] for door in ("mqtt", "websocket", "api")} == {
        "mqtt": node.ports["mqtt"], "websocket": node.ports["http"], "api": node.ports["api"]}
    node = make_node({"log.sync": "never"})
    assert curl(node.api("/v1/capabilities")).json()["durability"]["survives_power_cut"] is False
    node = make_node({"log.sync": "interval:150"})
    assert curl(node.api("/v1/capabilities")).json()["durability"] == {
        "sync": "interval", "acknowledged": "write", "survives_process_crash": True, "survives_power_cut": False,
        "copies": 1, "power_cut_loses_ms": 150}


# --- who may call ----------------------------------------------------------------------------------------------

def test_host_and_origin(node):
    port = node.ports["api"]
    for host in ("127.0.0.1", "127.9.9.9:1", "localhost", f"LOCALHOST:{port}", "[::1]:99"):
        publish(node, "a", b"1", "-H", f"Host: {host}")
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "0.0.0.0", "10.0.0.1"):
        problem(node, "/v1/publish/b", "-H", f"Host: {host}", data=b"1", status=403, code="forbidden")
    for origin in (f"http://127.0.0.1:{port}", f"http://localhost:{node.ports['http']}"):
        publish(node, "a", b"1", "-H", f"Origin: {origin}")
    for origin in ("null", "http://evil.example", "http://localhost:1", f"http://127.0.0.1:{port}.evil.example", "x"):
        problem(node, "/v1/publish/b", "-H", f"Origin: {origin}", data=b"1", status=403, code="forbidden")
    for field in ("Forwarded: for=1.2.3.4", "X-Forwarded-For: 1.2.3.4"):
        problem(node, "/v1/publish/b", "-H", field, data=b"1", status=401, code="unauthorized")
    assert history(node, "b") == []


def test_key_hosts_and_origins_of_the_configuration(make_node):
    node = make_node({"api.key": "s3cret", "api.hosts": "api.example.com", "http.origins": "https://app.example.com"})
    publish(node, "a", b"1")
    publish(node, "a", b"1", "-H", "Host: api.example.com")
    answer = publish(node, "a", b"1", "-i", "-H", "Origin: https://app.example.com")
    assert b"access-control" not in answer.body.lower(), "docs/CONFIG.md says that there are no CORS headers"
    publish(node, "a", b"1", "-H", "Host: any.example", "-H", "Authorization: Bearer s3cret",
            "-H", "X-Forwarded-For: 10.0.0.1")
    _, fields = problem(node, "/v1/publish/b", "-H", "Authorization: Bearer guess", data=b"1", status=401,
                        code="unauthorized")
    assert fields["www-authenticate"] == "bearer"
    problem(node, "/v1/publish/b", "-H", "Host: any.example", data=b"1", status=403, code="forbidden")


class KeyedNode(Node):
    """Asks with the key whether it is ready."""

    def is_ready(self):
        try:
            return super().is_ready() or "api" in self.ports and curl(
                self.api("/readyz"), "-H", "Authorization: Bearer s3cret", check=None).status == 200
        except AssertionError:
            return False


def test_an_address_that_is_not_loopback_needs_the_key(tmp_path):
    node = KeyedNode(tmp_path, {"api.bind": "0.0.0.0", "api.key": "s3cret"}).start()
    try:
        problem(node, "/healthz", status=401, code="unauthorized")
        problem(node, "/v1/publish/a", data=b"1", status=401, code="unauthorized")
        publish(node, "a", b"1", "-H", "Authorization: Bearer s3cret")
    finally:
        node.check()


# --- a log that does not follow --------------------------------------------------------------------------------

def test_an_outcome_that_is_not_known_is_told(make_node, disk):  # noqa: F811
    node = make_node({"api.timeout_ms": 1000}, environment=disk.environment)
    disk.hold()
    said, _ = problem(node, "/v1/publish/a", data=b"1", status=503, code="unavailable")
    assert said["unknown"] is True
    disk.release()
    wait_until(lambda: len(history(node, "a")) == 1, "the message, which was not lost")
    publish(node, "a", b"2")


def test_what_is_not_stored_is_told_so(make_node, disk):  # noqa: F811
    node = make_node({"log.unsynced_bytes_max": 65536}, environment=disk.environment)
    disk.hold()
    senders = [threading.Thread(target=publish, args=(node, "a", b"x" * 40_000)) for _ in range(1)]
    for sender in senders:
        sender.start()
    wait_until(disk.is_held, "the first to wait for the disk")
    wait_until(lambda: node.metric("tidegate_log_unsynced_bytes") >= 40_000, "the first to be in the log")
    said, fields = problem(node, "/v1/publish/b", data=b"x" * 40_000, status=503, code="unavailable")
    assert int(fields["retry-after"]) >= 1 and "unknown" not in said
    disk.release()
    for sender in senders:
        sender.join()
    assert len(history(node, "a")) == 1 and history(node, "b") == []


def test_stopping_answers_what_still_waits(make_node, disk):  # noqa: F811
    node = make_node({"drain.max_ms": 0}, environment=disk.environment)
    disk.hold()
    with Wire(node) as wire, Wire(node) as idle:
        wire.send(request(body=b"1"))
        wait_until(disk.is_held, "the publish to wait for the disk")
        stopper = threading.Thread(target=node.stop)
        stopper.start()
        assert idle.is_closed()
        answer = wire.answer()
        assert answer.status == 503 and json.loads(answer.body)["unknown"] is True
        disk.release()
        stopper.join()


def test_many_requests_on_many_connections(node):
    wires = [Wire(node) for _ in range(50)]
    for number in range(20):
        for index, wire in enumerate(wires):
            wire.send(request(f"/v1/publish/many/{index}", body=b"%d" % number))
        for wire in wires:
            assert wire.answer().status == 200
    assert node.metric("tidegate_connections", "http") >= 50
    for wire in wires:
        wire.close()
    for index in (0, 49):
        assert [int(message["text"]) for message in history(node, f"many/{index}")] == list(range(20))
    wait_until(lambda: node.metric("tidegate_connections", "http") <= 1, "the connections to be gone")


def test_pipelined_requests_are_answered_in_order(node):
    with Wire(node) as wire:
        wire.send(b"".join(request("/v1/publish/a", body=b"%d" % number) for number in range(50)) +
                  request("/v1/history/a?max=50", method="GET"))
        positions = [json.loads(wire.answer().body)["pos"] for _ in range(50)]
        assert positions == sorted(positions)
        messages = json.loads(wire.answer().body)["messages"]
        assert [int(message["text"]) for message in messages] == list(range(50))


def test_an_idle_node_is_idle(node):
    with Wire(node) as wire:
        wire.ask(request(body=b"1"))
        turns = node.metric("tidegate_loop_turns_total")
        threading.Event().wait(0.5 * PATIENCE)  # a span of time is what is measured
        assert node.metric("tidegate_loop_turns_total") - turns < 200
