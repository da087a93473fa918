"""SIGHUP reads access rules and token keys again (PROTOCOL.md 6): connections stay, their rights are the new ones."""

import base64
import json

import pytest

from clients import Web, curl, publish
from mqtt_wire import DISCONNECT, PUBACK, Wire
from mqtt_wire import publish as mqtt_publish
from node import wait_until
from test_keys import issuer  # noqa: F401  (a fixture)
from test_tickets import At
from test_reload import reload, write
from test_sse import Stream
from tokens import bearer, make, mqtt_client, ws_says

KEY = "-H", "Authorization: Bearer the-api-key"
OPEN = [{"principal": "*", "topic": "#"}]
DENY = [{"principal": "ann", "effect": "deny", "topic": "a/#"}]
SECRETS = {"one": b"1" * 32, "two": b"2" * 32}


def configure(file, **sections):
    write(file, json.dumps({"api": {"key": "the-api-key"}, **sections}))


@pytest.fixture
def file(tmp_path):
    return tmp_path / "tidegate.yaml"


def test_rights_of_connections_that_are_there(make_node, file):
    configure(file, acl=OPEN)
    node = make_node({"node.loops": 2, "log.partitions": 2}, config=file)
    ann, bob = make(node), make(node, "bob")
    webs = [Web(node, hello={"token": ann}) for _ in range(4)]  # on both loops
    keeps, drops = (Web(node, hello={"token": token}) for token in (bob, ann))
    five, four, publisher = mqtt_client(node, ann, 5, "five"), mqtt_client(node, ann, 4, "four"), mqtt_client(node, ann, 5, "pub")
    stranger = Wire(node, 5, "stranger")
    for number, web in enumerate(webs):
        web.subscribe(f"a/{number}")
    keeps.subscribe("#")
    drops.subscribe("a/x")
    drops.subscribe("b/x")
    five.subscribe("a/x")
    four.subscribe("b/x", "a/+")
    stranger.subscribe("a/x")
    stream = Stream(node, f"Authorization: Bearer {ann}\r\n", topic="a/x")
    assert stream.status == 200
    assert publisher.publish("a/x", b"before") == 0  # its right is remembered from here on
    for who in (five, four, stranger):
        assert who.message().payload == b"before"

    configure(file, acl=OPEN + DENY)
    assert "changed acl: 1 item -> 2 items" in reload(node).stdout
    # The very next publish is judged anew, at every door.
    publisher.send(mqtt_publish("a/x", b"after", 1, 9))
    assert publisher.expect(PUBACK)[:3] == b"\x00\x09\x87"
    assert publisher.publish("b/x", b"after") == 0
    assert webs[0].ask({"pub": {"topic": "a/0", "data": 1}})["err"]["code"] == "forbidden"
    publish(node, "a/x", b"1", *bearer(ann), check=403)
    # Subscriptions that are not allowed any more are over, and their clients know.
    for number, web in enumerate(webs):
        end = web.next("end")
        assert (end["topic"], end["code"]) == (f"a/{number}", "forbidden")
        assert web.ask({"sub": {"topic": f"a/{number}"}})["err"]["code"] == "forbidden"
    first, body = five.packet()
    assert first >> 4 == DISCONNECT and body[0] == 0x87
    assert four.rest() == b""
    assert stream.block()[0] == "message" and json.loads(stream.block()[1])["code"] == 4202
    # Others do not notice, and nobody gets what he may not.
    publish(node, "a/x", b"for bob", *KEY)
    publish(node, "b/x", b"for all", *KEY)
    assert stranger.message().payload == b"for bob"
    assert [keeps.next()["text"] for _ in range(4)] == ["before", "after", "for bob", "for all"]
    assert drops.next()["text"] == "before" and drops.next("end")["topic"] == "a/x"
    assert [drops.next()["text"] for _ in range(2)] == ["after", "for all"]

    configure(file, acl=OPEN)
    assert reload(node).returncode == 0
    assert publisher.publish("a/x", b"again") == 0
    assert "ok" in webs[0].ask({"sub": {"topic": "a/0"}})
    configure(file)
    assert reload(node).returncode == 0  # anybody may look at the counters again
    assert node.metric("tidegate_disconnects_total", 'reason="revoked"') == 2, "five and four"
    for connection in (*webs, keeps, drops, publisher, stranger):
        connection.close()


def test_anonymous_clients_and_tickets_too(make_node, file):
    configure(file, acl=OPEN)
    node = make_node(config=file)
    ticket = curl(node.api("/v1/tickets"), *KEY, "-H", "Content-Type: application/json", data=b'{"user":"ann"}').json()["ticket"]
    with Web(node) as web:
        web.subscribe("a/x")
        configure(file, acl=[{"principal": "$users", "topic": "#"}, *DENY])
        assert reload(node).returncode == 0
        assert web.next("end")["topic"] == "a/x"
        assert web.ask({"pub": {"topic": "b", "data": 1}})["err"]["code"] == "forbidden"
    with At(node, f"/ws?ticket={ticket}") as web:  # given under the former rules
        assert web.ask({"pub": {"topic": "a/x", "data": 1}})["err"]["code"] == "forbidden"
        assert "ok" in web.ask({"pub": {"topic": "b", "data": 1}})


def key_set(path, *names):
    keys = [{"kty": "oct", "alg": "HS256", "kid": name, "k": base64.urlsafe_b64encode(SECRETS[name]).rstrip(b"=").decode()}
            for name in names]
    path.write_text(json.dumps({"keys": keys}))
    return json.dumps({"keys": keys})


def signed(node, name, user="ann"):
    return make(node, user, key=SECRETS[name], headers={"kid": name})


def test_key_files_are_read_again_or_nothing_is(make_node, file, tmp_path):
    keys = tmp_path / "keys.json"
    key_set(keys, "one")
    configure(file, auth={"keys": [str(keys)]}, acl=OPEN)
    node = make_node({"node.loops": 2}, config=file)
    with Web(node, hello={"token": signed(node, "one")}) as web:
        key_set(keys, "two")
        assert ws_says(node, signed(node, "two"))[0] == "unauthorized", "nobody has said that it is to be read"
        assert reload(node).returncode == 0
        for _ in range(3):  # whatever loop
            assert ws_says(node, signed(node, "two")) == ("ann", None)
            assert ws_says(node, signed(node, "one")) == ("unauthorized", 4200)
        assert "ok" in web.ask({"pub": {"topic": "a", "data": 1}}), "who is in stays in"
        # One part that is wrong, and none of the others counts.
        configure(file, auth={"keys": [str(keys)]}, acl=[])
        keys.write_text("no keys")
        result = reload(node)
        assert result.returncode == 78 and str(keys) in result.stderr and "nothing has changed" in result.stderr
        assert ws_says(node, signed(node, "two")) == ("ann", None)
        key_set(keys, "one", "two")
        (node.data / "users").write_text("ann:nonsense\n")
        result = reload(node)
        assert result.returncode == 78 and str(node.data / "users") in result.stderr
        assert ws_says(node, signed(node, "one"))[0] == "unauthorized"
        (node.data / "users").write_text("")
        assert reload(node).returncode == 0
        assert ws_says(node, signed(node, "one")) == ("ann", None)
        # Another file, by the configuration.
        other = tmp_path / "other.json"
        key_set(other, "one")
        configure(file, auth={"keys": [str(other)]})
        assert "changed auth.keys" in reload(node).stdout
        assert ws_says(node, signed(node, "two"))[0] == "unauthorized"


def test_a_reload_fetches_the_key_set(make_node, file, tmp_path, issuer):  # noqa: F811
    issuer.body = json.loads(key_set(tmp_path / "set.json", "one", "two"))["keys"]
    configure(file)
    node = make_node({"auth.jwks_url": issuer.url, "auth.jwks_refresh_ms": "1h"}, config=file)
    wait_until(lambda: ws_says(node, signed(node, "one"))[0] == "ann", "the first fetch")
    issuer.body = json.loads(key_set(tmp_path / "set.json", "two"))["keys"]
    assert reload(node).returncode == 0
    wait_until(lambda: ws_says(node, signed(node, "one"))[0] == "unauthorized", "the key to be withdrawn")
    assert ws_says(node, signed(node, "two")) == ("ann", None)


def test_limits_that_are_live(make_node, file):
    configure(file, limit={"connections": 2, "publish_open": 100})
    node = make_node(config=file)

    def receive_maximum(client):
        props = client.connack[3:]
        return int.from_bytes(props[props.index(0x21) + 1:][:2], "big")

    with Wire(node, 5, "a") as first, Wire(node, 5, "b") as second:
        assert receive_maximum(first) == 100
        third = Wire(node, 5, "c", connected=False)
        assert third.rest() == b""
        configure(file, limit={"connections": 3, "publish_open": 50})
        assert "0 need a restart" in reload(node).stdout
        with Wire(node, 5, "d") as fourth:
            assert receive_maximum(fourth) == 50
        assert first.publish("a", b"1") == 0 and second.publish("a", b"1") == 0
        assert curl(node.api("/v1/capabilities"), *KEY).json()["limits"]["connections"] == 3
