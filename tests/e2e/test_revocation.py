"""Revocation of users and tokens (PROTOCOL.md 6)."""

import json
import time

import pytest

from clients import Web, curl, history
from mqtt_wire import DISCONNECT, End
from node import spans, wait_until
from tokens import bearer, http_says, make, mqtt_client, mqtt_says, tidegate, ws_says

JSON = ("-H", "Content-Type: application/json")


def revoke(node, *arguments, check=200, **what):
    answer = curl(node.api("/v1/revocations"), *JSON, *arguments, data=json.dumps(what).encode(), check=check)
    return answer.json()


def refused(node, token):
    return ws_says(node, token) == ("unauthorized", 4101) and http_says(node, token) == (401, "unauthorized") and \
        mqtt_says(node, token) == 0x87 and mqtt_says(node, token, 4) == 5


@pytest.mark.parametrize("what", [{"user": "ann"}, {"token_id": "t1"}])
def test_the_revoked_lose_their_connections_on_all_loops(make_node, what):
    node = make_node({"node.loops": 4, "log.partitions": 4})
    token = make(node, jti="t1", iat=int(time.time()) - 5)
    other = make(node, "bob", jti="t2")
    webs = [Web(node, hello={"token": token}) for _ in range(8)]
    wires = [mqtt_client(node, token, version, f"c{version}{number}") for version in (4, 5) for number in range(4)]
    with Web(node, hello={"token": other}) as bob:
        assert revoke(node, **what).items() >= what.items()
        for web in webs:
            assert web.next("bye")["code"] == 4101 and web.close_code() == 4101
        for wire in wires:
            if wire.version == 5:
                first, body = wire.packet()
                assert first >> 4 == DISCONNECT and body[0] == 0x87
            with pytest.raises(End):
                wire.packet()
        assert "ok" in bob.ask({"pub": {"topic": "a", "data": 1}})
    assert refused(node, token) and ws_says(node, other) == ("bob", None)
    assert node.metric("tidegate_auth_failures_total", "revoked") == 4
    assert node.metric("tidegate_disconnects_total", "revoked") == 16
    for web in webs:
        web.close()
    node.kill9()
    node.restart()
    assert refused(node, token) and ws_says(node, other) == ("bob", None)


def test_a_later_token_of_a_revoked_user_is_good(make_node):
    node = make_node()
    revoke(node, user="ann")
    assert refused(node, make(node, iat=int(time.time()) - 1)) and refused(node, make(node, iat=None))
    later = int(time.time()) + 1
    wait_until(lambda: time.time() > later, "the next second")
    assert ws_says(node, make(node, iat=later)) == ("ann", None)
    assert not refused(node, make(node, "annex"))


@spans(1, 4, 15)
def test_a_revocation_may_end(make_node, span):
    node = make_node()
    token = make(node, jti="t1")
    end = int((time.time() + span) * 1000)
    assert revoke(node, token_id="t1", until=end)["until"] == end
    assert refused(node, token)
    wait_until(lambda: ws_says(node, token) == ("ann", None), "its end")
    node.stop()
    node.restart()
    assert ws_says(node, token) == ("ann", None)


def test_what_is_no_revocation_is_refused(make_node):
    node = make_node({"limit.revocations": 2})
    for what in ({}, {"user": ""}, {"user": "a", "token_id": "b"}, {"user": 1}, {"user": "a", "until": 1}, {"user": "a", "until": "x"},
                 {"user": "a" * 257}):
        assert revoke(node, check=400, **what)["code"] == "bad_request"
    curl(node.api("/v1/revocations"), *JSON, data=b"{", check=400)
    assert revoke(node, *bearer(make(node)), check=403, user="bob")["code"] == "forbidden"
    for user in ("a/b+#", "\u00e9"):
        revoke(node, user=user)
        assert refused(node, make(node, user, iat=1))
    assert revoke(node, check=503, user="c")["code"] == "quota_exceeded"


def test_its_record_is_the_nodes_own(make_node):
    node = make_node()
    revoke(node, user="ann")
    curl(node.api("/v1/history?topic=$revoked/user/ann"), check=403)
    with Web(node) as web:
        assert web.ask({"sub": {"topic": "$revoked/#"}})["err"]["code"] == "unsupported"
        assert web.ask({"pub": {"topic": "$revoked/user/bob", "data": 1}})["err"]["code"] == "forbidden"
        web.ask({"pub": {"topic": "a", "data": 1}})
    assert len(history(node, "a")) == 1
    node.stop()
    said = tidegate("log", "export", "--set", f"data.dir={node.data}").stdout
    assert said.count("\n") == 1 and "$revoked" not in said
    assert "$revoked/user/ann" in tidegate("log", "cat", "--topic", "$revoked/#", "--set", f"data.dir={node.data}").stdout
