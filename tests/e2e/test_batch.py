"""Several messages in one POST /v1/publish: each its own outcome, all of them durable before the answer."""

import json
import threading

import pytest

from clients import MosquittoSub, Web, curl, history
from http_wire import Wire, request
from node import wait_until
from test_sync import QUIET_S, disk  # noqa: F401  (a fixture)

NDJSON = ("-H", "Content-Type: application/x-ndjson")


def batch(node, messages, *arguments, check=200):
    return curl(node.api("/v1/publish"), "-H", "Content-Type: application/json", *arguments,
                data=json.dumps({"messages": messages}).encode(), check=check).json()


def lines(node, *items, check=200):
    body = b"\n".join(item if isinstance(item, bytes) else json.dumps(item).encode() for item in items)
    return curl(node.api("/v1/publish"), *NDJSON, data=body, check=check).json()


def outcome(result):
    return result["code"] if "code" in result else "dup" if result["dup"] else "ok"


def test_answers_stand_in_the_order_of_the_messages(node):
    said = batch(node, [{"topic": f"t/{i % 3}", "data": i} for i in range(30)])
    assert said["ok"] == 30 and said["failed"] == 0
    assert [set(result) for result in said["results"]] == [{"pos", "dup"}] * 30
    for topic in range(3):
        past = history(node, f"t/{topic}")
        assert [message["data"] for message in past] == list(range(topic, 30, 3))
        assert [message["pos"] for message in past] == [said["results"][i]["pos"] for i in range(topic, 30, 3)]


def test_what_is_published_is_what_subscribers_get(node):
    with Web(node) as web, MosquittoSub(node, "#") as mosquitto:
        web.subscribe("a/#")
        batch(node, [{"topic": "a/1", "data": {"x": [1, None]}, "key": "k", "type": "application/json"},
                     {"topic": "a/2", "text": "hi", "ttl_ms": 60000},
                     {"topic": "a/3", "b64": "/wA=", "retain": True}])
        want = [("a/1", {"data": {"x": [1, None]}, "key": "k", "type": "application/json"}),
                ("a/2", {"text": "hi"}), ("a/3", {"b64": "/wA="})]
        for topic, members in want:
            message = web.next()
            assert message["topic"] == topic
            assert {name: message[name] for name in message if name not in ("topic", "pos", "ts")} == members
        assert [mosquitto.next() for _ in range(3)] == [("a/1", b'{"x": [1, null]}'), ("a/2", b"hi"), ("a/3", b"\xff\0")]
    assert [message["b64"] for message in curl(node.api("/v1/retained/a/3")).json()["messages"]] == ["/wA="]


def test_a_bad_one_in_the_middle_fails_alone(node):
    deep = b'{"topic":"a","data":' + b"[" * 65 + b"]" * 65 + b"}"
    said = lines(node, {"topic": "a", "data": 1}, b'{"topic":"a","data":', b"", {"topic": "a/#", "data": 1}, deep,
                 {"topic": "$SYS/x", "data": 1}, b'{"topic":"a","text":"\xff"}', {"topic": "a", "text": "x" * (1 << 20) + "x"},
                 b"null", {"topic": "a", "data": 1, "deliver_at": 5}, {"topic": "b", "data": 2}, check=207)
    assert [outcome(result) for result in said["results"]] == [
        "ok", "bad_request", "bad_request", "bad_request", "forbidden", "bad_request", "too_large", "bad_request",
        "unsupported", "ok"]
    assert [result["status"] for result in said["results"] if "status" in result] == [
        400, 400, 400, 403, 400, 413, 400, 501]
    assert said["ok"] == 2 and said["failed"] == 8
    assert [len(history(node, topic)) for topic in "ab"] == [1, 1]


def test_when_all_fail_the_answer_is_a_problem(node):
    with Wire(node) as wire:
        answer = wire.ask(request("/v1/publish", body=b'{"messages":[{"topic":"$a","data":1},{"topic":"b"}]}'))
    said = json.loads(answer.body)
    assert answer.status == 403 and answer.fields["content-type"] == "application/problem+json"
    assert said["code"] == "forbidden" and said["status"] == 403 and said["ok"] == 0 and said["failed"] == 2
    assert [result["code"] for result in said["results"]] == ["forbidden", "bad_request"]


@pytest.mark.parametrize("body", [
    b"", b"{}", b"[]", b"nonsense", b'{"messages":{}}', b'{"messages":[{"topic":"a","data":1}]',
    b'{"messages":[{"topic":"a","data":1},{"topic":"a","data":"\xff"}]}',
    b'{"messages":[{"topic":"a","data":1},{"topic":"a","data":' + b"[" * 5000 + b"]" * 5000 + b"}]}",
    b'{"messages":[{"topic":"a","data":1}],"messages":[]}',
])
def test_what_is_no_batch_publishes_nothing(node, body):
    said = curl(node.api("/v1/publish"), data=body, check=400).json()
    assert said["code"] == "bad_request" and "results" not in said
    assert history(node, "a") == []


def test_an_empty_batch_is_one(node):
    assert batch(node, []) == {"ok": 0, "failed": 0, "results": []}
    assert lines(node, b"", b"\r", b"") == {"ok": 0, "failed": 0, "results": []}


def test_duplicates_within_a_batch_and_across(node):
    messages = [{"topic": "a", "data": 1, "idempotency_key": "k"}, {"topic": "a", "data": 1, "idempotency_key": "k"},
                {"topic": "a", "data": 2, "idempotency_key": "k"}, {"topic": "a", "data": 3, "producer": "p", "seq": 1},
                {"topic": "a", "data": 3, "producer": "p", "seq": 1}, {"topic": "b", "data": 1, "idempotency_key": "k"}]
    first, again = batch(node, messages, check=207), batch(node, messages, check=207)
    assert [outcome(result) for result in first["results"]] == ["ok", "dup", "conflict", "ok", "dup", "ok"]
    assert [outcome(result) for result in again["results"]] == ["dup", "dup", "conflict", "dup", "dup", "dup"]
    assert first["results"][2]["status"] == 422
    assert [r.get("pos") for r in first["results"]] == [r.get("pos") for r in again["results"]]
    assert first["results"][0]["pos"] == first["results"][1]["pos"]
    assert [message["data"] for message in history(node, "a")] == [1, 3]
    # The key is the same as that of a POST of this one message.
    alone = curl(node.api("/v1/publish/b"), "-H", "Idempotency-Key: k", "-H", "Content-Type:", data=b"1").json()
    assert alone["dup"] and alone["pos"] == first["results"][5]["pos"]


def test_topics_that_are_not_stored(make_node):
    node = make_node({"topics": '[{filter: "u/#", store: false}]'})
    said = batch(node, [{"topic": "u/1", "data": 1}, {"topic": "u/1", "data": 1, "retain": True}, {"topic": "s", "data": 1}],
                 check=207)
    assert said["results"][0] == {"stored": False, "dup": False}
    assert [outcome(result) for result in said["results"]] == ["ok", "unsupported", "ok"]


@pytest.mark.parametrize("field, status", [
    ("Tidegate-Key: k", 400), ("Tidegate-Ttl-Ms: 5", 400), ("Tidegate-Retain: 1", 400), ("Idempotency-Key: k", 400),
    ("Tidegate-Wait: accepted", 501), ("Tidegate-Deliver-At: 5", 501), ("Content-Type: image/png", 415),
    ("Content-Encoding: gzip", 415),
])
def test_fields_that_are_of_one_message(node, field, status):
    curl(node.api("/v1/publish"), "-H", field, data=b'{"messages":[{"topic":"a","data":1}]}', check=status)
    assert history(node, "a") == []


def test_limits(make_node):
    node = make_node({"limit.batch_messages": 5, "limit.batch_bytes": "1K", "limit.message_bytes": 100})
    assert len(batch(node, [{"topic": "a", "data": i} for i in range(5)])["results"]) == 5
    assert batch(node, [{"topic": "a", "data": i} for i in range(6)], check=413)["code"] == "too_large"
    assert batch(node, [{"topic": "a", "text": "x" * 1000}], check=413)["code"] == "too_large"
    assert outcome(batch(node, [{"topic": "a", "text": "x" * 101}], check=413)["results"][0]) == "too_large"
    assert len(history(node, "a")) == 5
    limits = curl(node.api("/v1/capabilities")).json()["limits"]
    assert limits["batch_messages"] == 5 and limits["batch_bytes"] == 1024


def test_a_huge_number_of_tiny_messages(node):
    """More than one window of limit.publish_open, and the node goes on serving others meanwhile."""
    count = 10000
    answers = []
    sender = threading.Thread(target=lambda: answers.append(lines(node, *[b'{"topic":"t","data":1}'] * count)))
    sender.start()
    while sender.is_alive():
        curl(node.api("/healthz"))
    sender.join()
    positions = [result["pos"] for result in answers[0]["results"]]
    assert answers[0]["ok"] == count and positions == sorted(set(positions))
    too_many = lines(node, *[b"1"] * (count + 1), check=413)
    assert too_many["code"] == "too_large" and len(history(node, "t")) == count


def test_no_answer_before_the_sync(make_node, disk):  # noqa: F811
    """All of a batch in one group commit, and none of it told before."""
    node = make_node(environment=disk.environment)
    batch(node, [{"topic": "a", "data": 0}])
    syncs = node.metric("tidegate_log_fsync_seconds_count")
    disk.hold()
    answers = []
    sender = threading.Thread(target=lambda: answers.append(batch(node, [{"topic": "a", "data": i} for i in range(100)])))
    sender.start()
    wait_until(disk.is_held, "the disk to be asked")
    sender.join(QUIET_S)
    assert not answers, "answered before the sync had returned"
    disk.release()
    sender.join()
    assert answers[0]["ok"] == 100
    assert node.metric("tidegate_log_fsync_seconds_count") - syncs <= 2


def test_given_up_tells_what_is_unknown(make_node, disk):  # noqa: F811
    node = make_node({"api.timeout_ms": 1000, "limit.publish_open": 3}, environment=disk.environment)
    disk.hold()
    said = batch(node, [{"topic": "$x", "data": 0}] + [{"topic": "a", "data": i} for i in range(5)], check=403)
    disk.release()
    assert [result.get("unknown", False) for result in said["results"]] == [False] + [True] * 3 + [False] * 2
    wait_until(lambda: len(history(node, "a")) == 3, "what was on its way to be durable")


def test_kill9_keeps_what_was_answered(make_node):
    node = make_node()
    told = []
    for round_ in range(5):
        said = batch(node, [{"topic": "a", "data": [round_, i]} for i in range(200)])
        told += [result["pos"] for result in said["results"]]
    node.kill9()
    node.restart()
    assert [message["pos"] for message in history(node, "a")] == told


def test_pipelined_batches_are_answered_in_order(node):
    bodies = [json.dumps({"messages": [{"topic": "a", "data": i}] * (i + 1)}).encode() for i in range(8)]
    with Wire(node) as wire:
        wire.send(b"".join(request("/v1/publish", body=body) for body in bodies))
        answers = [json.loads(wire.answer().body) for _ in bodies]
    assert [answer["ok"] for answer in answers] == list(range(1, 9))
