"""Who is it? Tokens at the three doors (PROTOCOL.md 6)."""

import json
import stat
import time

import pytest

from clients import Web, curl, publish
from mqtt_wire import SUBACK, Wire, subscribe
from node import wait_until
from tokens import bearer, create, feeds_say, headers, http_says, jwt, login, make, mqtt_client, mqtt_says, secret, tidegate, ws_says

FAILURES = "tidegate_auth_failures_total"


@pytest.fixture
def node(make_node):
    return make_node()


def test_the_key_is_the_nodes_own(node):
    path = node.data / "token.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and len(secret(node)) == 32
    before = path.read_text()
    token = make(node)
    node.stop()
    node.restart()
    assert path.read_text() == before and ws_says(node, token) == ("ann", None)


def test_a_good_token_at_every_door(node):
    token = create(node, "ann/é", "--ttl", "60s", "--id", "t1")
    claims = jwt.decode(token, secret(node), algorithms=["HS256"])
    assert claims["sub"] == "ann/é" and claims["jti"] == "t1" and 50 < claims["exp"] - time.time() <= 60
    assert ws_says(node, token) == ("ann/é", None)
    assert http_says(node, token) == (200, None)
    assert feeds_say(node, token) == [200, 200]
    for version in (4, 5):
        for name in ("jwt", "", "ann/é"):
            assert mqtt_says(node, token, version, name) == 0
    assert mqtt_says(node, token, 5, None) == 0  # 5.0 has passwords without a name
    assert node.metric(FAILURES) == 0


def test_anonymous_clients_have_no_user(node):
    with Web(node, hello={}) as web:
        assert "user" not in web.hello and "token" in web.hello["features"]


def test_a_user_has_an_inbox_and_no_other(node):
    token = create(node, "ann/x")
    with Web(node, hello={"token": token}) as web:
        web.subscribe("$user/ann%2Fx")
        web.subscribe("$user/ann%2Fx/#")
        for topic in ("$user/ann/x", "$user/bob", "$user/+", "$user/#", "$user/bob/#"):
            assert web.ask({"sub": {"topic": topic}})["err"]["code"] == "forbidden"
        assert web.ask({"pub": {"topic": "$user/ann%2Fx", "data": 1}})["err"]["code"] == "forbidden"
        assert web.ask({"get": {"topic": "$user/bob"}})["err"]["code"] == "forbidden"
    wire = mqtt_client(node, token)
    wire.send(subscribe(1, "$user/ann%2Fx", "$user/bob", "$user/+/x"))
    assert wire.packet() == (SUBACK << 4, b"\x00\x01\x00\x01\x87\x87")
    wire.socket.close()
    curl(node.api("/v1/history/x?topic=y"), *bearer(token), check=400)
    curl(node.api("/v1/history?topic=$user/ann%252Fx"), *bearer(token))
    curl(node.api("/v1/history?topic=$user/bob"), *bearer(token), check=403)


def forged(token):
    return token[:-4] + ("AAAA" if token[-4:] != "AAAA" else "BBBB")


def bad_tokens(node):
    now = int(time.time())
    good = make(node)
    return {
        "no token": ("hello", "malformed"),
        "half": (good.rsplit(".", 1)[0], "malformed"),
        "forged": (forged(good), "signature"),
        "payload of another": (".".join([good.split(".")[0], make(node, "bob").split(".")[1], good.split(".")[2]]), "signature"),
        "other key": (make(node, key=b"x" * 32), "signature"),
        "alg none": (jwt.encode({"sub": "ann"}, None, algorithm="none"), "algorithm"),
        "HS512": (make(node, alg="HS512"), "algorithm"),
        "no sub": (make(node, user=None), "claims"),
        "sub is no text": (make(node, user=7), "claims"),
        "bad filter": (make(node, tidegate={"sub": ["a#"]}), "claims"),
        "expired": (make(node, exp=now - 60), "expired"),
        "not yet": (make(node, nbf=now + 60), "not_yet_valid"),
    }


BAD = ["no token", "half", "forged", "payload of another", "other key", "alg none", "HS512", "no sub", "sub is no text", "bad filter",
       "expired", "not yet"]


@pytest.mark.parametrize("name", BAD)
def test_a_bad_token_is_refused_with_the_right_code(node, name):
    token, reason = bad_tokens(node)[name]
    late = name in ("expired", "not yet")
    if token.count(".") == 2:  # else it is a password, or no bearer of ours
        assert mqtt_says(node, token) == (0x87 if late else 0x86)
        assert mqtt_says(node, token, 4) == (5 if late else 4)
        assert node.metric(FAILURES, reason) == 2
    assert http_says(node, token) == (401, "unauthorized")
    before = node.metric(FAILURES, reason)
    assert ws_says(node, token) == ("unauthorized", 4100 if name == "expired" else 4200)
    assert node.metric(FAILURES, reason) == before + 1
    assert feeds_say(node, token) == [401, 401] and node.metric(FAILURES, reason) == before + 3
    tidegate("token", "check", token, "--data", str(node.data), code=1)
    assert ws_says(node, make(node)) == ("ann", None)


def test_the_name_beside_a_token_is_its_user(node):
    assert mqtt_says(node, make(node), 5, "bob") == 0x86
    assert node.metric(FAILURES, "other_user") == 1


def test_names_and_passwords_without_a_token_are_refused(node):
    for name, password in (("ann", "secret"), ("ann", ""), ("ann", None), ("", "")):
        wire = Wire(node, connected=False)
        wire.send(login(5, "", name, password))
        assert wire.packet()[1][1] == 0x86
        wire.socket.close()


def test_a_later_hello_is_of_the_same_user(node):
    with Web(node, hello={"token": make(node)}) as web:
        assert web.ask({"hello": {"token": make(node)}})["ok"]["user"] == "ann"
        assert web.ask({"hello": {"token": make(node, "bob")}})["err"]["code"] == "unauthorized"
        assert web.close_code() == 4200


def test_sessions_are_their_users_own(node):
    with Web(node, hello={"token": make(node)}) as web:
        session = web.hello["session"]
        web.subscribe("a", ack=True)
        web.abort()
    for who in ({"token": make(node, "bob")}, {}):
        with Web(node, hello={"session": session, **who}) as web:
            assert web.hello["resumed"] is False and web.hello["session"] != session
    with Web(node, hello={"session": session, "token": make(node)}) as web:
        assert web.hello["resumed"] is True


def test_producers_are_their_users_own(node):
    pub = {"pub": {"topic": "a", "data": 1, "producer": "p", "seq": 1}}
    with Web(node, hello={"token": make(node)}) as ann, Web(node, hello={"token": make(node, "bob")}) as bob, Web(node) as nobody:
        assert [web.ask(pub)["ok"]["dup"] for web in (ann, bob, nobody, ann, bob)] == [False, False, False, True, True]
    key = ("-H", "Idempotency-Key: k")
    said = [publish(node, "a", b"1", *key, *who).json()["dup"] for who in (bearer(make(node)), (), bearer(make(node)))]
    assert said == [False, False, True]


def test_through_a_proxy_nobody_stays_anonymous(node):
    forwarded = {"X-Forwarded-For": "10.0.0.1"}
    for first in ({"pub": {"topic": "a", "data": 1}}, {"sub": {"topic": "a"}}, {"hello": {}}):
        with Web(node, **headers(forwarded)) as web:
            assert web.ask(first)["err"]["code"] == "unauthorized"
            assert web.close_code() == 4200
    with Web(node, **headers(forwarded)) as web:
        assert web.ask({"hello": {"token": make(node)}})["ok"]["user"] == "ann"
        assert "ok" in web.ask({"pub": {"topic": "a", "data": 1}})
    publish(node, "a", b"1", "-H", "X-Forwarded-For: 10.0.0.1", check=401)
    publish(node, "a", b"1", "-H", "X-Forwarded-For: 10.0.0.1", *bearer(make(node)))


def test_who_says_nothing_through_a_proxy_is_closed(make_node):
    node = make_node({"ws.hello_timeout_ms": "300ms"})
    with Web(node, **headers({"Forwarded": "for=10.0.0.1"})) as web:
        web.post({})
        assert web.close_code() == 4200


def test_what_is_for_administrators(node):
    for path in ("/v1/drops", "/metrics"):
        curl(node.api(path))
        curl(node.api(path), *bearer(make(node)), check=403)
        curl(node.api(path), *bearer(make(node, tidegate={"admin": True})))
    for path in ("/healthz", "/v1/capabilities"):
        curl(node.api(path), *bearer(make(node)))


def test_the_command_makes_and_checks_tokens(node, tmp_path):
    data = ("--data", str(node.data))
    token = create(node, "ann", "--claims", '{"tidegate":{"pub":["a"]}}')
    said = tidegate("token", "check", token, *data).stdout
    assert said.startswith("good HS256 {") and json.loads(said.split(" ", 2)[2])["tidegate"] == {"pub": ["a"]}
    assert "exp" not in jwt.decode(create(node, "ann", "--ttl", "0"), secret(node), algorithms=["HS256"])
    assert tidegate("token", "create", "ann", "--set", f"data.dir={node.data}").stdout.count(".") == 2
    for words in ((), ("make",), ("create",), ("create", ""), ("create", "x" * 257), ("create", "a", "b"), ("create", "a", "--ttl", "x"),
                  ("create", "a", "--claims", "[]", *data), ("create", "a", "--claims", '{"exp":1}', *data), ("check",),
                  ("check", token, "--ttl", "1s")):
        tidegate("token", *words, code=2)
    assert "tidegate" in tidegate("token", "create", "ann", "--data", str(tmp_path / "none"), code=69).stderr
    (node.data / "token.key").chmod(0o644)
    assert "chmod 600" in tidegate("token", "create", "ann", *data, code=78).stderr
    (node.data / "token.key").chmod(0o600)


def test_a_refusal_tells_the_mqtt_client_why(node):
    wire = Wire(node, connected=False)
    wire.send(login(5, "", "jwt", make(node, exp=int(time.time()) - 60)))
    assert b"expired" in wire.packet()[1]
    wire.socket.close()


def online(node, user):
    return curl(node.api(f"/v1/users/{user}")).json()["count"]


@pytest.mark.parametrize("settings, claims", [({"limit.user_connections": 2}, {}), ({}, {"tidegate": {"max_conns": 2}}),
                                              ({"limit.user_connections": 2}, {"tidegate": {"max_conns": 9}})])
def test_connections_of_a_user_are_bounded(make_node, settings, claims):
    node = make_node({"node.loops": 2, **settings})
    token = make(node, **claims)
    wire = mqtt_client(node, token)
    with Web(node, hello={"token": token}):
        wait_until(lambda: online(node, "ann") == 2, "two connections")
        with Web(node) as third:
            third.request({"hello": {"token": token}})
            assert third.close_code() == 4202
        assert online(node, "bob") == 0 and ws_says(node, make(node, "bob", **claims)) == ("bob", None)
    wire.socket.close()
    wait_until(lambda: online(node, "ann") == 0, "them to leave")
    with Web(node, hello={"token": token}):
        wait_until(lambda: online(node, "ann") == 1, "another")


def test_where_a_user_is_and_who_may_write_to_him(node):
    token = make(node)
    curl(node.api("/v1/users/ann"), *bearer(token))
    curl(node.api("/v1/users/bob"), *bearer(token), check=403)
    curl(node.api("/v1/users/bob/messages"), *bearer(token), data=b"1", check=403)
    curl(node.api("/v1/users/ann/messages"), *bearer(token), data=b"1", check=403)
    with Web(node, hello={"token": token}) as web:
        web.subscribe("$user/ann/#")
        curl(node.api("/v1/users/ann/messages/mail"), data=b'"hi"')
        assert web.next("msg")["topic"] == "$user/ann/mail"
        curl(node.api("/v1/users/ann/messages"), *bearer(make(node, "bot", tidegate={"pub": ["$user/+"]})), data=b"2")
        assert web.next("msg")["text"] == "2"


def test_a_batch_is_judged_message_by_message(node):
    token = make(node, tidegate={"pub": ["a/%u"]})
    body = json.dumps({"messages": [{"topic": topic, "data": 1} for topic in ("a/ann", "a/bob", "a/ann")]}).encode()
    answer = curl(node.api("/v1/publish"), *bearer(token), "-H", "Content-Type: application/json", data=body, check=207).json()
    assert (answer["ok"], answer["failed"]) == (2, 1) and answer["results"][1]["code"] == "forbidden"
