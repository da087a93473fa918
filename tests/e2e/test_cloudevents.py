"""CloudEvents 1.0 in binary, structured and batch mode."""

import json
import re

import pytest

from clients import Web, curl, history
from http_wire import Wire, request
from mqtt_wire import Wire as Mqtt
from node import wait_until
from test_http import problem
from test_sync import disk  # noqa: F401  (a fixture)

EVENT = {"specversion": "1.0", "id": "e1", "source": "/shop/1", "type": "com.example.order", "subject": "orders/1",
         "time": "2026-01-02T03:04:05Z", "datacontenttype": "application/json", "traceid": "7", "data": {"sum": 3}}


def post(node, event, target="/v1/publish", check=200, kind="+json", fields=()):
    return curl(node.api(target), "-H", f"Content-Type: application/cloudevents{kind}; charset=utf-8",
                *[part for field in fields for part in ("-H", field)], data=json.dumps(event).encode(), check=check).json()


def binary(node, target, *fields, data=b'{"sum":3}', check=200):
    return curl(node.api(target), *[part for field in fields for part in ("-H", field)], data=data, check=check).json()


FIELDS = ["ce-specversion: 1.0", "ce-id: e1", "CE-Source: /shop/1", "ce-type: com.example.order"]


def test_structured(node):
    with Web(node) as web:
        web.subscribe("orders/1")
        said = post(node, EVENT)
        assert set(said) == {"topic", "pos", "dup"} and said["topic"] == "orders/1" and said["dup"] is False
        message = web.next()
    assert message["data"] == {"sum": 3} and message["type"] == "application/json" and message["pos"] == said["pos"]
    assert message["props"] == {name: value for name, value in EVENT.items() if name not in ("data", "datacontenttype")}
    assert post(node, EVENT) == {**said, "dup": True}, "the same source and id is the same event"
    assert post(node, {**EVENT, "id": "e2"})["dup"] is False
    assert post(node, {**EVENT, "source": "/shop/2"})["dup"] is False
    assert post(node, {**EVENT, "data": {"sum": 4}}, check=422)["code"] == "conflict"
    assert post(node, EVENT, "/v1/publish/elsewhere")["topic"] == "elsewhere", "the path goes over the subject"


@pytest.mark.parametrize("members, want", [
    ({"data": "text", "datacontenttype": "text/plain"}, {"text": "text", "type": "text/plain"}),
    ({"data": "text", "datacontenttype": "application/json"}, {"data": "text", "type": "application/json"}),
    ({"data": "text"}, {"data": "text"}), ({"data": [1, None]}, {"data": [1, None]}), ({"data": None}, {"data": None}),
    ({"data_base64": "/wA=", "datacontenttype": "image/png"}, {"b64": "/wA=", "type": "image/png"}), ({}, {"text": ""}),
])
def test_payloads(node, members, want):
    post(node, {"specversion": "1.0", "id": "1", "source": "s", "type": "t", "subject": "a", **members})
    message, = history(node, "a")
    assert {name: message[name] for name in message if name not in ("topic", "pos", "ts", "props")} == want


def test_binary(node):
    with Web(node) as web:
        web.subscribe("a/b")
        said = binary(node, "/v1/publish/a/b", *FIELDS, "ce-time: 2026-01-02T03:04:05Z", "ce-comment: z%C3%B6lf%20%25x",
                      "Content-Type: application/json", "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        message = web.next()
    assert message["data"] == {"sum": 3} and message["type"] == "application/json"
    assert message["props"] == {"specversion": "1.0", "id": "e1", "source": "/shop/1", "type": "com.example.order",
                                "time": "2026-01-02T03:04:05Z", "comment": "zölf %x",
                                "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    assert binary(node, "/v1/publish/a/b", *FIELDS, "Content-Type: application/json")["pos"] == said["pos"]
    assert binary(node, "/v1/publish", *FIELDS, "ce-subject: by/subject")["topic"] == "by/subject"


def test_structured_and_binary_are_one_event(node):
    event = {"specversion": "1.0", "id": "e1", "source": "/shop/1", "type": "com.example.order",
             "datacontenttype": "application/json", "data": {"sum": 3}}
    first = curl(node.api("/v1/publish/a"), "-H", "Content-Type: application/cloudevents+json",
                 data=json.dumps(event, separators=(",", ":")).encode()).json()
    again = binary(node, "/v1/publish/a", *FIELDS, "Content-Type: application/json")
    assert again == {**first, "dup": True}


def test_attributes_reach_mqtt_in_order(node):
    with Mqtt(node, 5) as mqtt:
        mqtt.subscribe("orders/1")
        post(node, EVENT)
        message = mqtt.message()
    names = [name.decode() for name in re.findall(rb"\x26\x00.([a-z]+)\x00", message.props)]
    assert names == ["specversion", "id", "source", "type", "subject", "time", "traceid"]
    assert message.payload == b'{"sum": 3}' and b"\x03\x00\x10application/json" in message.props


def test_a_batch_of_events(node):
    events = [EVENT, {**EVENT, "id": "e2", "subject": "orders/2"}, {**EVENT, "id": ""}, EVENT, 5]
    said = post(node, events, kind="-batch+json", check=207)
    assert said["ok"] == 3 and said["failed"] == 2
    assert [result.get("dup", result.get("code")) for result in said["results"]] == [False, False, "bad_request", True, "bad_request"]
    assert len(history(node, "orders/1")) == 1 and len(history(node, "orders/2")) == 1
    assert post(node, [], kind="-batch+json") == {"ok": 0, "failed": 0, "results": []}
    assert post(node, {}, kind="-batch+json", check=400)["code"] == "bad_request"
    said = post(node, [{**EVENT, "id": "e9"}], "/v1/publish/x", kind="-batch+json")
    assert said["ok"] == 1 and len(history(node, "x")) == 1


@pytest.mark.parametrize("change", [
    {"specversion": "0.3"}, {"specversion": None}, {"id": None}, {"id": ""}, {"source": None}, {"type": None}, {"subject": None},
    {"subject": "a/+"}, {"data_base64": "AA=="}, {"data": None, "data_base64": "A"}, {"Bad": "x"}, {"ext": {}}, {"ext": "a\0b"},
    {"id": "x" * 201}, {"datacontenttype": "x" * 1025},
    # The types of attributes (CloudEvents 1.0.2, 3.1; JSON event format, 2.2).
    {"time": "yesterday"}, {"time": "2026-01-02"}, {"time": "2026-01-02T03:04:05"}, {"time": "2026-02-29T03:04:05Z"}, {"time": "2026-01-02T24:00:00Z"},
    {"time": "2026-01-02T03:04:05.Z"}, {"time": "2026-01-02T03:04:05+0100"}, {"time": "2026-01-02 03:04:05Z"}, {"time": "2026-1-02T03:04:05Z"},
    {"time": "2026-01-02T03:04:05Zz"}, {"time": ""}, {"time": 5}, {"ext": 1.5}, {"ext": 1e3}, {"ext": 2147483648}, {"ext": -2147483649}, {"ext": []},
    {"ext": "a\nb"}, {"ext": "\x7f"}, {"ext": "\x80"}, {"ext": "\ufffe"}, {"ext": "\ufdd0"}, {"ext": "\U0001ffff"}, {"a-b": "x"}, {"": "x"},
    {"specversion": 1.0}, {"id": 1}, {"type": True}, {"source": "a b"}, {"source": "ä"}, {"source": "%4"}, {"source": ""}, {"type": ""},
    {"subject": ""}, {"subject": 1}, {"dataschema": "/relative"}, {"dataschema": ""}, {"dataschema": "a b:c"},
    {"datacontenttype": ""}, {"datacontenttype": "json"}, {"datacontenttype": "text/"}, {"datacontenttype": "text/plain; charset"},
    {"datacontenttype": "text/plain; a=b c"}, {"datacontenttype": "te xt/plain"}, {"datacontenttype": 5},
])
def test_events_that_are_none(node, change):
    event = {**EVENT, **change}
    if event.get("data") is None:
        del event["data"]
    said = post(node, event, check=400)
    assert said["code"] == "bad_request" and said["detail"] and said["status"] == 400 and said["request_id"]
    said = post(node, [event, event], kind="-batch+json", check=400)
    assert [result["code"] for result in said["results"]] == ["bad_request"] * 2
    assert history(node, "orders/1") == []


@pytest.mark.parametrize("change", [
    {"time": "2026-01-02T03:04:05.678901Z"}, {"time": "2024-02-29t23:59:60z"}, {"time": "2026-01-02T03:04:05-23:59"}, {"time": None},
    {"ext": -2147483648}, {"ext": 2147483647}, {"ext": 0}, {"ext": False}, {"ext": ""}, {"ext": "\u00a0\U0001f600\ufffd"}, {"0": "x"},
    {"source": "a?b#c"}, {"source": "urn:x:%C3%A4"}, {"dataschema": "https://example.com/a#b"}, {"dataschema": "urn:x"},
    {"datacontenttype": "text/json"}, {"datacontenttype": "application/vnd.x+json; charset=utf-8; a=\"b\\\"; c\""},
])
def test_events_that_are_good(node, change):
    post(node, {**EVENT, **change})
    message, = history(node, "orders/1")
    want = change.get("ext", change.get("time", ""))
    want = json.dumps(want) if isinstance(want, (int, bool)) else want
    assert want is None or want in message["props"].values() or "time" not in change and "ext" not in change
    assert message["data"] == {"sum": 3}


def test_what_is_json_is_told_by_the_subtype(node):
    for i, (kind, want) in enumerate((("application/jsonp", "text"), ("text/x-json", "text"), ("text/json", "data"), ("application/a+JSON;x=y", "data"))):
        post(node, {**EVENT, "id": str(i), "subject": f"k/{i}", "datacontenttype": kind, "data": "x"})
        assert history(node, f"k/{i}")[0][want] == "x"


def test_an_attribute_stands_once(node):
    body = json.dumps(EVENT).replace('"traceid"', '"ext": "a", "ext": "b", "traceid"').encode()
    curl(node.api("/v1/publish"), "-H", "Content-Type: application/cloudevents+json", data=body, check=400)
    assert post(node, {**EVENT, **{f"e{i}": 1 for i in range(300)}}, check=400)["code"] == "bad_request"
    post(node, {**EVENT, **{f"e{i}": 1 for i in range(200)}})


def test_fields_that_make_no_event(node):
    """ce- fields without ce-specversion are an event that is wrong, not a message that is none."""
    for fields in (["ce-id: e1"], FIELDS[1:], ["CE-Foo: 1"]):
        for target in ("/v1/publish/a", "/v1/publish", "/v1/users/ann/messages"):
            assert "specversion" in binary(node, target, *fields, check=400)["detail"]
    assert history(node, "a") == []
    post(node, EVENT, fields=["ce-id: other"])  # beside structured mode they may stand, and count for nothing
    assert history(node, "orders/1")[0]["props"]["id"] == "e1"


def test_quoted_values_of_older_senders(node):
    binary(node, "/v1/publish/a", *FIELDS, 'ce-x: "a \\"b\\" %C3%A4"', "ce-y: %22q%22", 'ce-z: "')
    props = history(node, "a")[0]["props"]
    assert (props["x"], props["y"], props["z"]) == ('a "b" ä', '"q"', '"')


def test_a_topic_that_is_not_for_everybody(node):
    assert post(node, {**EVENT, "subject": "$SYS/x"}, check=403)["code"] == "forbidden"
    assert binary(node, "/v1/publish", *FIELDS, "ce-subject: $SYS/x", check=403)["code"] == "forbidden"
    assert curl(node.api("/v1/publish"), "-H", "Content-Type: application/cloudevents+json", data=b"{", check=400).json()
    for kind in ("+avro", "", "-batch+avro"):
        assert post(node, EVENT, kind=kind, check=415)["code"] == "unsupported"


@pytest.mark.parametrize("fields", [
    FIELDS[:1], FIELDS[1:] + ["ce-specversion: 2"], FIELDS + ["ce-bad_name: x"], FIELDS + ["ce-id: e2"],
    FIELDS + ["ce-datacontenttype: text/plain"], FIELDS + ["ce-x: %00"], FIELDS + ["ce-x: %ff"], FIELDS + ["ce-x: %C0%A0"],
    FIELDS + ["ce-time: now"], FIELDS + ["ce-dataschema: x"], FIELDS + ["ce-subject;"], FIELDS + ["ce-x: 1", "CE-X: 2"], FIELDS + ["Content-Type: json"],
    FIELDS + ["ce-source: a b"], FIELDS + ["ce-x: a%0ab"], FIELDS + [f"ce-x{i}: 1" for i in range(60)],
])
def test_binary_events_that_are_none(node, fields):
    assert binary(node, "/v1/publish/a", *fields, check=400)["code"] == "bad_request"
    assert history(node, "a") == []


def test_a_users_event(node):
    said = post(node, EVENT, "/v1/users/ann/messages")
    assert said["topic"] == "$user/ann"


def test_an_event_is_answered_when_it_is_durable(make_node, disk):  # noqa: F811
    node = make_node({"api.timeout_ms": 1000}, environment=disk.environment)
    disk.hold()
    said = post(node, EVENT, check=503)
    disk.release()
    assert said["unknown"] is True and said["code"] == "unavailable" and said["retry_ms"] > 0
    wait_until(lambda: len(history(node, "orders/1")) == 1, "the event to be durable")
    assert post(node, EVENT)["dup"] is True


def test_errors_have_the_number_of_their_request(node):
    first, _ = problem(node, "/v1/nothing", status=404, code="not_found")
    second, _ = problem(node, "/v1/nothing", status=404, code="not_found")
    assert first["request_id"] != second["request_id"] and re.fullmatch("[0-9a-f]+-[0-9a-f]+", first["request_id"])


def test_the_log_names_the_request_that_failed(make_node, disk):  # noqa: F811
    node = make_node({"api.timeout_ms": 1000}, environment=disk.environment)
    disk.hold()
    said = curl(node.api("/v1/publish/a"), data=b"1", check=503).json()
    disk.release()
    wait_until(lambda: said["request_id"] in node.log(), "the log to have the request's number")


def test_events_pipelined_with_others(node):
    body = json.dumps(EVENT).encode()
    with Wire(node) as wire:
        wire.send(request("/v1/publish", "Content-Type: application/cloudevents+json\r\n", body) +
                  request("/v1/publish/x", body=b"1") + request("/healthz", method="GET"))
        assert [wire.answer().status for _ in range(3)] == [200, 200, 200]
