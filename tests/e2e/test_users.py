"""Users: messages to one, his inbox, and where he is connected."""

import pytest

from clients import curl
from test_http import problem


def send(node, user, data, *arguments, below="", check=200):
    return curl(node.api(f"/v1/users/{user}/messages{below}"), "-X", "POST", *arguments, data=data, check=check)


def test_a_message_to_a_user_has_a_topic(node):
    answer = send(node, "alice", b"1").json()
    assert answer["topic"] == "$user/alice" and answer["dup"] is False and answer["pos"]
    assert send(node, "alice", b"2", below="/orders/new").json()["topic"] == "$user/alice/orders/new"
    # What a path cannot carry goes into the query; every user has one spelling.
    any_user = curl(node.api("/v1/users?user=a%2Fb%23&topic=x//y"), "-X", "POST", data=b"3").json()
    assert any_user["topic"] == "$user/a%2Fb%23/x//y"
    assert send(node, "100%25", b"4").json()["topic"] == "$user/100%25"


def test_it_is_published_as_any_other(node):
    once = ("-H", "Idempotency-Key: k1")
    first = send(node, "alice", b"1", *once).json()
    assert send(node, "alice", b"1", *once).json() == {**first, "dup": True}
    assert send(node, "alice", b"2", *once, check=422)
    assert send(node, "alice", b"3", "-H", "Tidegate-Wait: accepted", check=202).json() == {"topic": "$user/alice"}
    problem(node, "/v1/users/alice/messages", "-X", "POST", "-H", "Content-Type: application/json", data=b"{",
            status=400, code="bad_request")
    assert node.metric("tidegate_messages_refused_total", "conflict") == 1


@pytest.mark.parametrize("target", [
    "/v1/users//messages", "/v1/users/a%2Fb/messages", "/v1/users/../messages", "/v1/users/%00/messages",
    "/v1/users/%FF/messages", "/v1/users?user=", "/v1/users", "/v1/users/alice/messages/+", "/v1/users/alice/messages/%23",
    "/v1/users/alice/messages?user=bob", "/v1/users/alice/messages/a?topic=b", "/v1/users?user=a&user=b",
    "/v1/users/alice/messages" + "/x" * 31, "/v1/users/" + "x" * 1019 + "/messages",
])
def test_what_is_no_inbox(node, target):
    problem(node, target, "--path-as-is", "-g", "-X", "POST", data=b"1", status=400, code="bad_request")
    assert node.metric("tidegate_messages_stored_total") == 0


def test_nobody_else_publishes_or_reads_there(node):
    for topic in ("$user/alice", "$user/alice/x", "$inbox/alice"):
        problem(node, f"/v1/publish/{topic}", data=b"1", status=403, code="forbidden")
        problem(node, f"/v1/history/{topic}", status=403, code="forbidden")
        problem(node, f"/v1/retained/{topic}", status=403, code="forbidden")


def test_a_user_who_is_not_here(node):
    assert curl(node.api("/v1/users/alice")).json() == {
        "user": "alice", "online": False, "count": 0, "connections": []}
    assert curl(node.api("/v1/users?user=a%2Fb")).json()["user"] == "a/b"
