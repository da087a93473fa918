"""What is there: connections, sessions, presence, nodes; by curl, with real clients on the other side."""

import re
import time

import pytest

from clients import MosquittoSub, Web, curl, publish
from mqtt_wire import Wire as Mqtt
from node import wait_until
from test_http import problem
from test_mqtt_sessions import keep
from tokens import bearer, make

CONNECTION_ID = re.compile(r"test-[0-9a-f]+-[0-9]+")


def connections(node, query="", page=None):
    """All pages."""
    found, after = [], ""
    while True:
        parts = [part for part in (query, page and f"max={page}", after and f"after={after}") if part]
        said = curl(node.api("/v1/connections?" + "&".join(parts))).json()
        found += said["connections"]
        if page:
            assert len(said["connections"]) <= page
        if "next" not in said:
            return found
        after = said["next"]


def presence(node, topic):
    return curl(node.api(f"/v1/presence/{topic}")).json()


def test_connections_of_every_door(node):
    before = int(time.time() * 1000) - 5000
    with Web(node, hello={}) as web, MosquittoSub(node, "a/#", "-i", "m1"):
        web.subscribe("a/1")
        web.subscribe("b")
        found = {connection["door"]: connection for connection in connections(node)}
        assert set(found) == {"ws", "mqtt"}
        ws, mqtt = found["ws"], found["mqtt"]
        for connection in found.values():
            assert CONNECTION_ID.fullmatch(connection["id"]) and connection["node"] == "test"
            assert before < connection["since_ms"] < time.time() * 1000 + 5000
            assert re.fullmatch(r"127\.0\.0\.1:\d+", connection["address"])
            assert connection["queued_bytes"] == 0 and connection["unacknowledged"] == 0 and "user" not in connection
        assert ws["subscriptions"] == 2 and mqtt["subscriptions"] == 1
        assert mqtt["client_id"] == "m1" and "session" not in mqtt
        assert re.fullmatch("[0-9a-f]{64}", ws["session"]) and ws["session"] != web.hello["session"]
        assert [c["door"] for c in connections(node, "topic=a/1")] == ["ws", "mqtt"]
        assert [c["door"] for c in connections(node, "topic=b")] == ["ws"]
        assert connections(node, "topic=c") == [] and connections(node, "user=nobody") == []
    wait_until(lambda: connections(node) == [], "the connections to be gone")


def test_one_connection_tells_its_subscriptions(node):
    with Web(node) as web:
        web.subscribe("a/+")
        web.subscribe("b")
        publish(node, "a/1", b"1")
        web.next()
        listed, = connections(node)
        one = curl(node.api(f"/v1/connections/{listed['id']}")).json()
        assert {name: one[name] for name in listed} == listed
        assert [(f["topic"], f["behind"], f["qos"]) for f in one["filters"]] == [("a/+", 0, 1), ("b", 0, 1)]
        # Where it has got to is a place from which a client can go on.
        publish(node, "a/2", b"2")
        web.next()
        past = curl(node.api(f"/v1/history/a/2?from={one['filters'][0]['pos']}")).json()["messages"]
        assert [message["text"] for message in past] == ["2"]


def test_pages_over_all_loops(make_node):
    node = make_node({"node.loops": 3})
    webs = [Web(node) for _ in range(11)]
    try:
        for web in webs[:7]:
            web.subscribe("t")
        ids = [connection["id"] for connection in connections(node)]
        assert len(ids) == len(set(ids)) == 11
        for page in (1, 2, 3, 11, 12):
            assert [connection["id"] for connection in connections(node, page=page)] == ids
        assert len(connections(node, "topic=t", page=2)) == 7
        assert presence(node, "t") == {"topic": "t", "count": 7, "users": []}
        assert curl(node.api("/v1/connections?max=11")).json().keys() == {"connections"}
    finally:
        for web in webs:
            web.close()


@pytest.mark.parametrize("target, method, status, code", [
    ("/v1/connections?max=0", "GET", 400, "bad_request"), ("/v1/connections?limit=1", "GET", 400, "bad_request"),
    ("/v1/connections?after=x", "GET", 400, "bad_request"), ("/v1/connections?after=test-ffff-1", "GET", 400, "bad_request"),
    ("/v1/connections?topic=a/%2B", "GET", 400, "bad_request"), ("/v1/connections?user=a&user=b", "GET", 400, "bad_request"),
    ("/v1/connections", "DELETE", 400, "bad_request"), ("/v1/connections/nobody", "GET", 404, "not_found"),
    ("/v1/connections/nobody", "DELETE", 404, "not_found"), ("/v1/connections/test-1-1?max=5", "GET", 400, "bad_request"),
    ("/v1/connections", "POST", 405, "bad_request"), ("/v1/sessions", "GET", 400, "bad_request"),
    ("/v1/sessions/none", "GET", 404, "not_found"), ("/v1/sessions/" + "0" * 64, "GET", 404, "not_found"),
    ("/v1/sessions/a?b=1", "GET", 400, "bad_request"), ("/v1/presence", "GET", 400, "bad_request"),
    ("/v1/presence/%2B", "GET", 400, "bad_request"), ("/v1/presence/$x", "GET", 403, "forbidden"),
    ("/v1/nodes/x", "GET", 404, "not_found"),
])
def test_what_cannot_be_looked_up(node, target, method, status, code):
    problem(node, target, "-g", "-X", method, status=status, code=code)


def test_kicked(node):
    with Web(node, hello={}) as web, Mqtt(node, 5, "five") as five, Mqtt(node, 4, "three") as three:
        found = {connection.get("client_id", "ws"): connection["id"] for connection in connections(node)}
        assert set(found) == {"ws", "five", "three"}
        for name, number in found.items():
            said = curl(node.api(f"/v1/connections/{number}"), "-X", "DELETE").json()
            assert said["id"] == number
        bye = web.next("bye")
        assert bye["code"] == 4203 and web.close_code() == 4203
        assert five.disconnect_code() == 0x98 and three.rest() == b""
        wait_until(lambda: connections(node) == [], "the connections to be gone")
        problem(node, f"/v1/connections/{found['ws']}", "-X", "DELETE", status=404, code="not_found")


def test_sessions_by_client_identifier_and_by_hash(node):
    with MosquittoSub(node, "a/#", "-i", "m1"):
        said = curl(node.api("/v1/sessions/m1")).json()
        assert said["connected"] is True and said["connection"]["client_id"] == "m1"
        assert [f["topic"] for f in said["connection"]["filters"]] == ["a/#"]
    web = Web(node, hello={})
    web.subscribe("b", ack=True)
    web.subscribe("c")
    name = connections(node, "topic=b")[0]["session"]
    said = curl(node.api(f"/v1/sessions/{name}")).json()
    assert said["connected"] is True and said["connection"]["session"] == name
    publish(node, "b", b"1")
    web.post({"ack": {"n": web.next_item()["n"]}})
    web.ask({"get": {"topic": "b"}})
    web.abort()
    wait_until(lambda: connections(node, "topic=b") == [], "the connection to be gone")

    def record():
        said = curl(node.api(f"/v1/sessions/{name}")).json()
        pos = next(f["pos"] for f in said["filters"] if f["topic"] == "b")
        return said if curl(node.api(f"/v1/history/b?from={pos}")).json()["messages"] == [] else None

    said = wait_until(record, "the record to have what was acknowledged")
    assert said["connected"] is False and said["session"] == name
    node.kill9()
    node.restart()
    assert curl(node.api(f"/v1/sessions/{name}")).json() == said


@pytest.mark.parametrize("version, seconds", [(4, None), (5, None), (5, 600)])
def test_an_mqtt_session_that_is_away(make_node, version, seconds):
    node = make_node({"node.loops": 2, "log.partitions": 4})
    others = [keep(node, 5, f"other{number}") for number in range(3)]
    client = "c" * 64 if seconds else "kept"  # the first looks like the hash of a session
    away = keep(node, version, client, seconds=seconds)
    away.subscribe(("a/+", 1), ("b", 2))
    target = node.api(f"/v1/sessions/{client}")
    assert curl(target).json()["connection"]["client_id"] == client
    publish(node, "b", b"in flight")
    away.message(acknowledge=False)
    before = time.time()
    away.close()

    def left():
        """Without its connection it has for a moment the record that the connection has written before its last."""
        said = curl(target).json()
        last = said["connected"] is False and said["unacknowledged"] == 1 and (not seconds or "expires_ms" in said)
        return said if last else None
    said = wait_until(left, "it to be away")
    assert (said["client_id"], said["subscriptions"]) == (client, 2)
    assert sorted((f["topic"], f["qos"]) for f in said["filters"]) == [("a/+", 1), ("b", 2)]
    assert ("expires_ms" in said) == ("expiry_s" in said)
    if seconds:
        assert said["expiry_s"] == seconds
        assert before + seconds - 1 <= said["expires_ms"] / 1000 <= time.time() + seconds + 1
    publish(node, "a/x", b"waits")
    pos = next(f["pos"] for f in said["filters"] if f["topic"] == "a/+")
    assert [m["text"] for m in curl(node.api(f"/v1/history/a/x?from={pos}")).json()["messages"]] == ["waits"]
    by_name = curl(node.api(f"/v1/sessions/{said['session']}")).json()
    assert by_name == said
    node.kill9()
    node.restart()
    assert curl(node.api(f"/v1/sessions/{client}")).json() == said
    with keep(node, version, client, seconds=0 if version == 5 else None, clean=True):
        pass
    wait_until(lambda: curl(node.api(f"/v1/sessions/{client}"), check=None).status == 404, "it to be over")
    for other in others:
        other.close()


def test_presence_at_both_doors(node):
    with Web(node) as web, Web(node) as other, MosquittoSub(node, "room/#"):
        web.subscribe("room/7")
        web.subscribe("room/+")
        other.subscribe("room/8")
        want = {"topic": "room/7", "count": 2, "users": []}
        assert presence(node, "room/7") == want
        assert web.ask({"who": {"topic": "room/7"}})["ok"] == want
        assert web.ask({"who": {"topic": "room/9"}})["ok"]["count"] == 2
        for wrong, code in (({"topic": "room/+"}, "bad_request"), ({}, "bad_request"), ({"topic": "$SYS/x"}, "unsupported")):
            assert web.ask({"who": wrong})["err"]["code"] == code
        web.ask({"unsub": {"topic": "room/7"}})
        assert presence(node, "room/7")["count"] == 2, "room/+ is still there"
        web.ask({"unsub": {"topic": "room/+"}})
        assert presence(node, "room/7")["count"] == 1
    wait_until(lambda: presence(node, "room/7")["count"] == 0, "the last to be gone")


def test_nodes(node):
    said, = curl(node.api("/v1/nodes")).json()["nodes"]
    capabilities = curl(node.api("/v1/capabilities")).json()
    assert said["node"] == "test" and said["self"] is True and said["state"] == "ready"
    assert said["version"] == capabilities["version"] and said["epoch"] == capabilities["epoch"]
    assert abs(said["started_ms"] - time.time() * 1000) < 600_000 and said["partitions"] == 1
    with Web(node) as web:
        web.ask({"who": {"topic": "a"}})
        assert curl(node.api("/v1/nodes")).json()["nodes"][0]["connections"] == 1


def test_a_slow_reader_is_seen(node):
    """How far behind it is and how much waits for it."""
    with Web(node) as web, Web(node, hello={"window": {"msgs": 3}}) as slow:
        slow.subscribe("t")
        for i in range(10):
            web.ask({"pub": {"topic": "t", "data": i}})
        one, = connections(node, "topic=t")
        wait_until(lambda: curl(node.api(f"/v1/connections/{one['id']}")).json()["filters"][0]["behind"] == 7,
                   "seven to be behind")


def test_users_and_what_they_may_ask(node):
    ann, bob = make(node, "ann"), make(node, "bob")
    with Web(node, hello={"token": ann}) as web, Web(node, hello={"token": ann}) as again, \
            Web(node, hello={"token": bob}) as other, Web(node) as nobody:
        for connection in (web, again, other, nobody):
            connection.subscribe("room/1")
        said = web.ask({"who": {"topic": "room/1"}})["ok"]
        assert said["count"] == 4 and sorted(said["users"]) == ["ann", "bob"]
        assert sorted(connection["door"] for connection in connections(node, "user=ann")) == ["ws", "ws"]
        assert connections(node, "user=bob&topic=room/1")[0]["user"] == "bob"
        assert curl(node.api("/v1/presence/room/1"), *bearer(bob)).json()["count"] == 4
        for target in ("/v1/connections", "/v1/nodes", "/v1/sessions/x", f"/v1/connections/{connections(node)[0]['id']}"):
            assert curl(node.api(target), *bearer(ann), check=403).json()["code"] == "forbidden"
        curl(node.api(f"/v1/connections/{connections(node)[0]['id']}"), "-X", "DELETE", *bearer(ann), check=403)
        assert len(connections(node)) == 4
        assert web.ask({"who": {"topic": "$user/bob"}})["err"]["code"] == "forbidden"
