"""Access rules: one table, every door (PROTOCOL.md 6)."""

import struct

import pytest

from clients import Web, curl, publish
from mqtt_wire import PUBACK, SUBACK, End, Wire, subscribe, user
from mqtt_wire import publish as mqtt_publish
from node import Node
from tokens import bearer, feed_status, login, make, mqtt_client, tidegate

RULES = """
acl:
  - {principal: "*", topic: "public/#"}
  - {principal: "$users", op: read, topic: "news/#"}
  - {principal: editor, op: publish, topic: "news/#"}
  - {principal: "*", effect: deny, topic: "public/secret/#"}
  - {principal: ann, topic: "public/secret/ann"}
  - {principal: "$users", topic: "users/%u/#"}
  - {principal: "$users", op: publish, topic: "clients/%c"}
  - {principal: "$anonymous", op: subscribe, topic: "lobby/+"}
  - {principal: ann, op: subscribe, topic: "live/#"}
  - {principal: ann, op: history, topic: "past/+"}
  - {principal: bob, effect: deny, op: subscribe, topic: "users/bob/private"}
  - {principal: bob, effect: deny, op: read, topic: "$user/bob/#"}
  - {principal: ann, op: publish, topic: "deep/+/+/leaf"}
"""

# principal ("" = anonymous), operation, topic or filter, may he?
TABLE = [
    ("", "publish", "public/a", True), ("", "subscribe", "public/a/+", True), ("", "subscribe", "public/+", False), ("", "history", "public/a", True),
    ("ann", "publish", "public/a/b", True), ("ann", "subscribe", "public/a/#", True), ("ann", "publish", "public", True),
    ("ann", "publish", "public/secret/x", False), ("ann", "publish", "public/secret/ann", False),
    ("ann", "subscribe", "public/#", False), ("ann", "subscribe", "public/+/ann", False), ("ann", "subscribe", "public/secret", False),
    ("", "publish", "public/secret", False), ("ann", "subscribe", "#", False), ("ann", "subscribe", "+", False),
    ("ann", "subscribe", "news/#", True), ("ann", "history", "news/x", True), ("ann", "publish", "news/x", False),
    ("editor", "publish", "news/x", True), ("", "subscribe", "news/x", False), ("", "history", "news/x", False),
    ("ann", "publish", "users/ann/x", True), ("ann", "subscribe", "users/ann/#", True), ("ann", "publish", "users/bob/x", False),
    ("ann", "subscribe", "users/+/x", False), ("ann", "subscribe", "users/#", False), ("", "publish", "users//x", False),
    ("a/b", "publish", "users/a%2Fb/x", True), ("a/b", "publish", "users/a/b/x", False), ("+", "subscribe", "users/+/x", False),
    ("", "subscribe", "lobby/1", True), ("", "subscribe", "lobby/#", False), ("", "publish", "lobby/1", False),
    ("ann", "subscribe", "lobby/1", False), ("ann", "subscribe", "live/x", True), ("ann", "history", "live/x", False),
    ("ann", "subscribe", "past/x", False), ("ann", "history", "past/x", False), ("bob", "subscribe", "users/bob/private", False),
    ("bob", "subscribe", "users/bob/#", False), ("bob", "publish", "users/bob/private", True), ("bob", "history", "users/bob/private", False),
    ("ann", "publish", "deep/a/b/leaf", True), ("ann", "publish", "deep/a/leaf", False), ("ann", "publish", "nowhere", False),
    ("ann", "publish", "clients/other", False), ("ann", "subscribe", "$user/ann/#", True), ("bob", "subscribe", "$user/bob/x", False),
    ("ann", "subscribe", "$user/bob", False),
]
assert len(TABLE) >= 40
# A right to read the past alone: `get` and HTTP read; a subscription needs the right to subscribe too.
HISTORY_ALONE = (("ann", "past/x"), ("bob", "users/bob/private"))


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    folder = tmp_path_factory.mktemp("acl")
    (folder / "acl.yaml").write_text(RULES)

    class Configured(Node):
        def command(self):
            command = super().command()
            return command[:2] + ["--config", str(folder / "acl.yaml")] + command[2:]

    made = Configured(folder, {"api.key": "s3cret"}).start()
    yield made
    made.stop()


def by_ws(node, who, op, topic):
    request = {"publish": {"pub": {"topic": topic, "data": 1}}, "subscribe": {"sub": {"topic": topic}},
               "history": {"sub": {"topic": topic, "from": "earliest"}}}[op]
    with Web(node, hello={"token": make(node, who)} if who else None) as web:
        answer = web.ask(request)
        assert "ok" in answer or answer["err"]["code"] == "forbidden", answer
        return "ok" in answer


def connected(node, who, version, client):
    if who:
        return mqtt_client(node, make(node, who), version, client)
    wire = Wire(node, connected=False, version=version)
    wire.send(login(version, client))
    assert wire.packet()[1][1] == 0
    return wire


def by_mqtt(node, who, op, topic, version=5, client="me"):
    wire = connected(node, who, version, client)
    try:
        if op == "publish":
            wire.send(mqtt_publish(topic, b"1", 1, 7, version))
            try:
                first, body = wire.packet()
            except End:
                assert version == 4
                return False
            assert first >> 4 == PUBACK and body[:2] == b"\x00\x07"
            assert body[2:] in (b"", b"\x87", b"\x87\x00"), body
            return body[2:] == b""
        wire.send(subscribe(7, topic, version=version, props=user("tg-from", "earliest") if op == "history" else b""))
        first, body = wire.packet()
        assert first >> 4 == SUBACK and body[-1] in (1, 0x87 if version == 5 else 0x80), body
        return body[-1] == 1
    finally:
        wire.socket.close()


def by_http(node, who, op, topic):
    url = {"publish": "/v1/publish", "subscribe": "/v1/retained", "history": "/v1/history"}[op]
    quoted = topic.replace("%", "%25").replace("#", "%23").replace("+", "%2B")
    answer = curl(node.api(f"{url}?topic={quoted}"), *(bearer(make(node, who)) if who else ()), check=None,
                  **({"data": b"1"} if op == "publish" else {}))
    assert answer.status in (200, 403), answer.body
    assert answer.status == 200 or answer.json()["code"] == "forbidden"
    return answer.status == 200


def by_feed(node, who, op, topic, door):
    quoted = topic.replace("%", "%25").replace("#", "%23").replace("+", "%2B")
    status = feed_status(node, f"/{door}?topic={quoted}" + ("&from=earliest" if op == "history" else ""), make(node, who) if who else None)
    assert status in (200, 403), status
    return status == 200


@pytest.mark.parametrize("who, op, topic, may", TABLE, ids=[f"{row[0] or 'nobody'} {row[1]} {row[2]}" for row in TABLE])
def test_the_rules_at_every_door(node, who, op, topic, may):
    alone = (who, topic) in HISTORY_ALONE and op == "history"
    assert by_ws(node, who, op, topic) is may
    assert by_mqtt(node, who, op, topic) is may
    if op != "history":  # 3.1.1 has no tg-from
        assert by_mqtt(node, who, op, topic, 4) is may
    if op != "publish":  # they only read
        assert by_feed(node, who, op, topic, "sse") is may
        assert by_feed(node, who, op, topic, "poll") is may
    assert by_http(node, who, op, topic) is (may or alone)


def test_the_past_alone(node):
    with Web(node, hello={"token": make(node)}) as web:
        assert "ok" in web.ask({"get": {"topic": "past/x"}})
        assert web.ask({"get": {"topic": "live/x"}})["err"]["code"] == "forbidden"


def test_client_identifiers(node):
    assert by_mqtt(node, "ann", "publish", "clients/me") is True
    assert by_mqtt(node, "ann", "publish", "clients/you") is False
    assert by_mqtt(node, "ann", "publish", "clients/a%2Fb", client="a/b") is True
    assert by_mqtt(node, "ann", "publish", "clients/a/b", client="a/b") is False
    assert by_mqtt(node, "", "publish", "clients/me") is False
    assert by_ws(node, "ann", "publish", "clients/me") is False and by_http(node, "ann", "publish", "clients/me") is False


def test_a_token_narrows_and_does_not_undo_a_denial(node):
    token = make(node, "ann", tidegate={"pub": ["other/#", "public/secret/#"]})
    with Web(node, hello={"token": token}) as web:
        says = [web.ask({"pub": {"topic": topic, "data": 1}}) for topic in ("other/x", "public/secret/x", "public/a")]
        assert ["ok" in said for said in says] == [True, False, False]
    admin = make(node, "root", tidegate={"admin": True})
    publish(node, "public/secret/x", b"1", *bearer(admin))


def test_the_key_may_everything_and_nobody_administers_namelessly(node):
    key = ("-H", "Authorization: Bearer s3cret")
    publish(node, "nowhere", b"1", *key)
    curl(node.api("/v1/drops"), *key)
    curl(node.api("/v1/drops"), check=403)
    curl(node.api("/v1/users/bob"), check=403)
    curl(node.api("/v1/users/bob/messages"), data=b"1", check=403)


def test_a_will_is_judged_at_connect(node):
    def says(topic):
        wire = Wire(node, connected=False)
        body = struct.pack(">H", 4) + b"MQTT\x05\xc6\x00\x00\x00" + struct.pack(">H", 1) + b"w" + b"\x00"
        body += b"".join(struct.pack(">H", len(part)) + part for part in (topic.encode(), b"gone", b"jwt", make(node).encode()))
        remaining, length = len(body), b""
        while True:
            length += bytes([remaining & 127 | (128 if remaining > 127 else 0)])
            remaining >>= 7
            if not remaining:
                break
        wire.send(b"\x10" + length + body)
        code = wire.packet()[1][1]
        wire.socket.close()
        return code

    assert says("public/a") == 0 and says("nowhere") == 0x87


def test_refusals_are_counted(node):
    before = node_metric(node)
    by_http(node, "ann", "publish", "nowhere")
    by_ws(node, "ann", "publish", "nowhere")
    by_mqtt(node, "ann", "publish", "nowhere")
    assert node_metric(node) == before + 3


def node_metric(node):
    text = curl(node.api("/metrics"), "-H", "Authorization: Bearer s3cret").body.decode()
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines()
               if line.startswith('tidegate_messages_refused_total{reason="forbidden"}'))


def test_a_sessions_filters_are_judged_again(node):
    with Web(node, hello={"token": make(node, tidegate={"sub": ["s/#"]})}) as web:
        session = web.hello["session"]
        web.subscribe("s/1", ack=True)
        web.subscribe("s/2", ack=True)
        web.abort()
    with Web(node, hello={"session": session, "token": make(node, tidegate={"sub": ["s/2"]})}) as web:
        assert web.hello["resumed"] is True and web.hello["lost"] == ["s/1"]


@pytest.mark.parametrize("rule, why", [('{topic: "a#"}', "topic"), ('{topic: "$share/g/a"}', "topic"), ('{principal: "", topic: a}', "principal"),
                                       ('{effect: maybe, topic: a}', "effect"), ('{op: dance, topic: a}', "op")])
def test_a_rule_that_is_none_is_told(rule, why):
    assert why in tidegate("config", "check", "--set", f"acl=[{rule}]", code=78).stderr


def test_without_rules_nothing_is_forbidden_but_what_begins_with_dollar(make_node):
    node = make_node()
    for who in ("", "ann"):
        for op, topic in (("publish", "any/thing"), ("subscribe", "#"), ("history", "any/thing")):
            assert by_ws(node, who, op, topic) and by_mqtt(node, who, op, topic) and by_http(node, who, op, topic)
            assert op == "publish" or by_feed(node, who, op, topic, "sse") and by_feed(node, who, op, topic, "poll")
