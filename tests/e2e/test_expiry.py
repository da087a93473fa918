"""What ends with a token, and what a new one changes (PROTOCOL.md 6)."""

import time

import pytest

from clients import Web, publish
from mqtt_wire import DISCONNECT, End
from node import spans, wait_until
from tokens import make, mqtt_client

SOON = {"auth.leeway_ms": 0}


@spans(2, 5, 15)
def test_an_expired_token_ends_its_connections(make_node, span):
    node = make_node(SOON)
    token = make(node, exp=int(time.time()) + span)
    with Web(node, hello={"token": token}) as web, Web(node, hello={"token": make(node)}) as other:
        five, three = mqtt_client(node, token), mqtt_client(node, token, 4)
        web.subscribe("a")
        assert web.next("bye")["code"] == 4100 and web.close_code() == 4100
        first, body = five.packet()
        assert first >> 4 == DISCONNECT and body[0] == 0xA0
        with pytest.raises(End):
            three.packet()
        assert "ok" in other.ask({"pub": {"topic": "a", "data": 1}})
        wait_until(lambda: node.metric("tidegate_disconnects_total", "token_expired") == 3, "three to be counted")
        five.socket.close()
        three.socket.close()


@spans(2, 5, 15)
def test_a_new_token_in_time_goes_on(make_node, span):
    node = make_node(SOON)
    end = int(time.time()) + span
    with Web(node, hello={"token": make(node, exp=end)}) as web:
        web.subscribe("a")
        assert web.ask({"auth": {"token": make(node)}})["ok"] == {"user": "ann"}
        wait_until(lambda: time.time() > end + 0.3, "the first token to expire")
        publish(node, "a", b"1")
        assert web.next("msg")["topic"] == "a"


def test_the_leeway_counts_for_live_connections_too(make_node):
    node = make_node({"auth.leeway_ms": "60s"})
    with Web(node, hello={"token": make(node, exp=int(time.time()) - 5)}) as web:
        assert "ok" in web.ask({"pub": {"topic": "a", "data": 1}})


def test_auth_judges_subscriptions_again(make_node):
    node = make_node()
    with Web(node, hello={"token": make(node)}) as web:
        session = web.hello["session"]
        for topic in ("a/1", "a/+", "b", "$user/ann"):
            web.subscribe(topic)
        web.subscribe("kept", ack=True)
        web.subscribe("a/2", ack=True)
        assert "ok" in web.ask({"auth": {"token": make(node, tidegate={"sub": ["a/1", "a/2"], "pub": []})}})
        ended = {web.next("end")["topic"] for _ in range(3)}
        assert ended == {"a/+", "b", "kept"}
        assert web.ask({"unsub": {"topic": "b"}})["err"]["code"] == "not_found"
        assert web.ask({"pub": {"topic": "a/1", "data": 0}})["err"]["code"] == "forbidden"
        for topic in ("a/9", "b", "kept", "a/1"):
            publish(node, topic, b"1")
        assert web.next("msg")["topic"] == "a/1"
        assert "ok" in web.ask({"auth": {"token": make(node)}})
        assert "ok" in web.ask({"pub": {"topic": "b", "data": 0}})
        web.abort()
    with Web(node, hello={"token": make(node), "session": session}) as web:  # the record knows it too
        assert web.hello["resumed"] is True and "kept" not in web.hello["lost"]
        publish(node, "kept", b"2")
        publish(node, "a/2", b"2")
        assert web.next("msg")["topic"] == "a/2"


def test_auth_needs_a_good_token_of_the_same_user(make_node):
    node = make_node()
    for token, code in ((make(node, "bob"), 4200), (make(node, exp=1), 4100), ("x", 4200)):
        with Web(node, hello={"token": make(node)}) as web:
            assert web.ask({"auth": {"token": token}})["err"]["code"] == "unauthorized"
            assert web.close_code() == code
    with Web(node) as web:  # who has said nothing yet may begin with it
        assert web.ask({"auth": {"token": make(node)}})["ok"] == {"user": "ann"}
        web.subscribe("$user/ann")


def test_a_later_hello_judges_subscriptions_too(make_node):
    node = make_node()
    with Web(node, hello={"token": make(node)}) as web:
        web.subscribe("b")
        web.post({"hello": {"token": make(node, tidegate={"sub": ["a"]})}})
        assert web.next("end")["topic"] == "b"
