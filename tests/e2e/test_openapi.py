"""openapi.json against the running server: every route of the server is in it, and every answer is what it says."""

import json
import os
import re
import signal

import pytest

from clients import Web, curl, module, publish
from http_wire import Wire, request
from node import ROOT, wait_until



@pytest.fixture
def document(node):
    return curl(node.api("/openapi.json")).json()


def schema_of(document, part):
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "components": document["components"], **part}


def judge(document, path, method, answer):
    """The answer is one that is documented: its status, its type, its body."""
    operation = document["paths"][path][method]
    described = operation["responses"].get(str(answer.status))
    assert described, f"{method} {path}: {answer} is not documented"
    if "$ref" in described:
        described = document["components"]["responses"][described["$ref"].rsplit("/", 1)[1]]
    kind = answer.fields["content-type"].split(";")[0]
    assert kind in described["content"], (method, path, answer.status, kind)
    if kind.endswith("json"):
        module("jsonschema").validate(json.loads(answer.body), schema_of(document, described["content"][kind]["schema"]),
                                      cls=module("jsonschema").Draft202012Validator)


def call(node, document, path, method, target, fields="", body=b""):
    with Wire(node) as wire:
        answer = wire.ask(request(target, fields, body, method=method.upper()))
    judge(document, path, method, answer)
    return answer


def test_it_is_openapi(document):
    jsonschema = module("jsonschema")
    assert document["openapi"].startswith("3.1.") and document["info"]["version"] and document["paths"]
    for name, schema in document["components"]["schemas"].items():
        jsonschema.Draft202012Validator.check_schema(schema)
    text = json.dumps(document)
    for reference in re.findall(r'"\$ref": "#/([^"]+)"', text):
        place = document
        for step in reference.split("/"):
            place = place[step]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"] and operation["responses"], (method, path)
            named = {parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == "path"}
            assert named == set(re.findall(r"{(\w+)}", path)), (method, path)
            for described in operation["responses"].values():
                assert "$ref" in described or described["description"]


def test_it_has_every_route_and_no_other(node, document):
    rows = re.findall(r'\{"(/[^"]*)", (?:true|false), "([A-Z, ]+)"', (ROOT / "gateway/http/route.c").read_text())
    assert len(rows) > 15
    documented = {}
    for path, operations in document["paths"].items():
        start = next(route for route, _ in rows if path == route or path.startswith(route + "/"))
        documented.setdefault(start, set()).update(method.upper() for method in operations)
    assert documented == {route: set(methods.split(", ")) - {"HEAD"} for route, methods in rows}


def test_what_is_not_there_is_not_in_it(node, document):
    for target in ("/console/",):
        assert curl(node.api(target), check=None).status in (404, 405, 501) or target in document["paths"]


def test_every_operation_answers_as_it_says(make_node):
    node = make_node({"topics": '[{filter: "u/#", store: false}]', "drain.delay_ms": "1m"})
    document = curl(node.api("/openapi.json")).json()
    publish(node, "a/b", b'{"x":1}', "-H", "Tidegate-Retain: 1", "-H", "Tidegate-Key: k",
            "-H", "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    publish(node, "a/b", b"\xff", "-H", "Content-Type: image/png")
    called = set()

    def run(path, method, target, *arguments, status=200):
        answer = call(node, document, path, method, target, *arguments)
        assert answer.status == status, (method, target, answer)
        called.add((path, method))
        return answer

    with Web(node, hello={}) as web:
        web.subscribe("a/#", ack=True)
        connection = json.loads(run("/v1/connections", "get", "/v1/connections?topic=a/b").body)["connections"][0]
        for suffix, targets in {"": ["/v1/publish?topic=a"], "/{topic}": ["/v1/publish/a/b", "/v1/publish/u/1"]}.items():
            for target in targets:
                run("/v1/publish" + suffix, "post", target, "", b"hi")
        run("/v1/publish/{topic}", "post", "/v1/publish/a", "Tidegate-Wait: accepted\r\n", b"hi", status=202)
        items = b'{"messages":[{"topic":"a","data":1},{"topic":"u/1","text":"x"}'
        run("/v1/publish", "post", "/v1/publish", "Content-Type: application/json\r\n", items + b"]}")
        run("/v1/publish", "post", "/v1/publish", "Content-Type: application/json\r\n", items + b',{"topic":""}]}', status=207)
        run("/v1/publish", "post", "/v1/publish", "", b'{"messages":[{"topic":""}]}', status=400)
        event = b'{"specversion":"1.0","id":"1","source":"s","type":"t","subject":"a","data":1}'
        run("/v1/publish", "post", "/v1/publish", "Content-Type: application/cloudevents+json\r\n", event)
        run("/v1/publish", "post", "/v1/publish", "Content-Type: application/cloudevents-batch+json\r\n", b"[" + event + b"]")
        for target in ("a/b?max=1", "a/b?reverse=1", "a/b?from=last:2", "nothing"):
            run("/v1/history/{topic}", "get", f"/v1/history/{target}")
        run("/v1/history", "get", "/v1/history?topic=a/b")
        run("/v1/retained/{topic}", "get", "/v1/retained/a/%2B")
        run("/v1/retained", "get", "/v1/retained?topic=%23")
        run("/v1/retained/{topic}", "delete", "/v1/retained/a/b")
        run("/v1/retained", "delete", "/v1/retained?topic=a/b", status=404)
        for target in ("/messages", "/messages/{topic}"):
            run("/v1/users/{user}" + target, "post", "/v1/users/ann" + target.replace("{topic}", "x"), "", b"hi")
        run("/v1/users", "post", "/v1/users?user=ann", "", b"hi")
        run("/v1/users/{user}", "get", "/v1/users/ann")
        run("/v1/users", "get", "/v1/users?user=ann")
        run("/v1/connections/{id}", "get", f"/v1/connections/{connection['id']}")
        run("/v1/sessions/{name}", "get", f"/v1/sessions/{connection['session']}")
        run("/v1/sessions", "get", f"/v1/sessions?name={connection['session']}")
        run("/v1/presence/{topic}", "get", "/v1/presence/a/b")
        run("/v1/presence", "get", "/v1/presence?topic=a/b")
        run("/v1/connections/{id}", "delete", f"/v1/connections/{connection['id']}")
        run("/v1/connections/{id}", "delete", f"/v1/connections/{connection['id']}", status=404) if web.close_code() else None
    run("/v1/node/snapshot", "post", "/v1/node/snapshot", "", b'{"name":"s1"}')
    run("/v1/node/snapshot", "post", "/v1/node/snapshot", "", b'{"name":"s1"}', status=409)
    run("/v1/revocations", "post", "/v1/revocations", "Content-Type: application/json\r\n", b'{"user":"ann"}')
    run("/v1/tickets", "post", "/v1/tickets", "Content-Type: application/json\r\n", b'{"user":"ann"}')
    for path in ("/v1/nodes", "/v1/drops", "/v1/capabilities", "/healthz", "/livez", "/readyz", "/metrics", "/openapi.json"):
        run(path, "get", path)
    run("/v1/node/drain", "post", "/v1/node/drain", status=202)
    everything = {(path, method) for path, operations in document["paths"].items() for method in operations}
    assert called == everything, everything ^ called
    # A signal sent while one of its kind is pending is none: the first one has to be taken.
    wait_until(lambda: curl(node.api("/readyz"), check=None).status == 503, "the drain to begin")
    os.kill(node.pid, signal.SIGTERM)  # it need not last
    assert node.process.wait(30) == 0


@pytest.mark.parametrize("fields, status", [
    ("Origin: http://evil.example\r\n", 403), ("Authorization: Bearer x\r\n", 401), ("Forwarded: for=x\r\n", 401),
])
def test_refusals_of_every_operation_are_documented(node, document, fields, status):
    for path, operations in document["paths"].items():
        target = re.sub(r"{\w+}", "x", path)
        for method in operations:
            assert call(node, document, path, method, target, fields).status == status


def test_who_is_too_fast_is_documented(make_node):
    node = make_node({"limit.publish_rate_node": 1})
    document = curl(node.api("/openapi.json")).json()
    for path, target in (("/v1/publish/{topic}", "/v1/publish/a"), ("/v1/users/{user}/messages", "/v1/users/ann/messages")):
        said = [call(node, document, path, "post", target, "", b"x").status for _ in range(4)]
        assert 429 in said, said


def test_parameters_that_are_not_documented_are_refused(node, document):
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            answer = call(node, document, path, method, with_query(path, "surely_not=1"))
            assert answer.status == 400 and "surely_not" in json.loads(answer.body)["detail"], (path, method)
            assert call(node, document, path, method, with_query(path, "a=%zz")).status == 400
            named = {parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == "query"}
            if "topic" not in named and not path.startswith("/v1/users/{user}/messages"):
                assert call(node, document, path, method, with_query(path, "topic=a")).status == 400, (path, method)


def with_query(path, query):
    return re.sub(r"{\w+}", "x", path) + "?" + query


def test_members_that_are_not_documented_are_refused(node, document):
    """Of every body that is an object; a CloudEvent may have any attribute."""
    schemas = [(path, operation["requestBody"]["content"]["application/json"]["schema"]) for path, operations in document["paths"].items()
               for operation in operations.values() if "application/json" in operation.get("requestBody", {}).get("content", {})]
    assert len(schemas) == 4 and document["components"]["schemas"]["Item"]["additionalProperties"] is False
    good = {"/v1/publish": {"messages": []}, "/v1/tickets": {"user": "ann"}, "/v1/revocations": {"user": "ann"}, "/v1/node/snapshot": {}}
    for path, schema in schemas:
        assert schema["additionalProperties"] is False, path
        for body in ({**good[path], "surely_not": 1}, {"surely_not": None, **good[path]}):
            answer = call(node, document, path, "post", path, "Content-Type: application/json\r\n", json.dumps(body).encode())
            assert answer.status == 400, (path, body)
    said = curl(node.api("/v1/publish"), data=b'{"messages":[{"topic":"a","text":"x","mode":"all"},{"topic":"a","text":"y"}]}', check=207).json()
    assert [result.get("status") for result in said["results"]] == [400, None]


def test_capabilities_name_the_doors_that_are_there(node):
    said = curl(node.api("/v1/capabilities")).json()
    assert said["doors"]["sse"] == {"port": node.ports["http"], "path": "/sse"} and "sse" in said["features"]
    for feature in ("publish.batch", "publish.cloudevents", "connections", "presence", "poll", "openapi", "tls", "auth.token"):
        assert feature in said["features"]
    assert {"batch_messages", "batch_bytes"} <= set(said["limits"])
