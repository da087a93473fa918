"""Users: messages to one, his inbox, and where he is connected."""

import json
import re
import time
import urllib.parse

import pytest

from clients import Web, curl, publish
from log_tool import messages
from node import spans, wait_until
from test_http import problem
from tokens import make, mqtt_client


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
        "user": "alice", "online": False, "count": 0, "connections": [], "inbox": {"pos": None, "unread": 0}}
    assert curl(node.api("/v1/users?user=a%2Fb")).json()["user"] == "a/b"


# --- the inbox by WebSocket ------------------------------------------------------------------------------------------

def come(node, user="alice", **hello):
    """A connection of the user with his inbox."""
    return Web(node, hello={"token": make(node, user), "inbox": True, **hello})


def value(item):
    return json.loads(item["msg"]["text"])


def take(web, count):
    """The next messages of the inbox: their payloads, in order."""
    return [value(web.next_item("msg")) for _ in range(count)]


def numbered(web, count):
    items = [web.next_item("msg") for _ in range(count)]
    assert all(item["n"] for item in items)
    return [value(item) for item in items], items[-1]["n"]


def nothing_more(web, node):
    """What is sent from now on is the next that comes."""
    send(node, web.hello["user"], b'"mark"')
    assert take(web, 1) == ["mark"]


def unread(node, user="alice"):
    return curl(node.api(f"/v1/users/{user}")).json()["inbox"]["unread"]


def settled(node, count, user="alice"):
    wait_until(lambda: unread(node, user) == count, f"{count} unread messages")


def test_messages_wait_for_a_user_who_was_never_here(node):
    for number in range(3):
        send(node, "alice", b"%d" % number, below=f"/topic/{number}" if number else "")
    send(node, "bob", b'"not his"')
    assert unread(node) == 3
    with come(node) as web:
        assert web.hello["user"] == "alice" and web.hello["inbox"] == "$user/alice/#" and web.hello["lost"] == []
        items = [web.next_item("msg") for _ in range(3)]
        assert [value(item) for item in items] == [0, 1, 2]
        assert [item["n"] for item in items] == [1, 2, 3]
        assert [item["sub"] for item in items] == ["$user/alice/#"] * 3
        assert items[1]["msg"]["topic"] == "$user/alice/topic/1"
        assert web.next("live")["topic"] == "$user/alice/#"
        nothing_more(web, node)


def test_what_was_acknowledged_does_not_come_again(node):
    for number in range(4):
        send(node, "alice", b"%d" % number)
    with come(node) as web:
        assert take(web, 4) == [0, 1, 2, 3]
        web.post({"ack": {"n": 3}})
        settled(node, 1)
    with come(node) as web:
        assert take(web, 1) == [3]
        nothing_more(web, node)


def test_a_second_connection_begins_where_the_first_has_got(make_node):
    # Long before it is durable.
    node = make_node({"session.save_ms": 3600000, "session.save_count": 1000000, "node.loops": 3})
    for number in range(4):
        send(node, "alice", b"%d" % number)
    with come(node) as first:
        assert take(first, 4) == [0, 1, 2, 3]
        first.post({"ack": {"n": 2}})
        settled(node, 2)
        with come(node) as second, come(node) as third:
            assert take(second, 2) == [2, 3] and take(third, 2) == [2, 3]
            # All have what comes now; the furthest acknowledgement counts.
            send(node, "alice", b"4")
            assert take(first, 1) == take(second, 1) == take(third, 1) == [4]
            second.post({"ack": {"n": 3}})
            settled(node, 0)
            first.post({"ack": {"n": 3}})  # behind: it does not go back
            first.ask({"get": {"topic": "$user/alice", "max": 1}})
            assert unread(node) == 0
    with come(node) as web:
        nothing_more(web, node)


@pytest.mark.parametrize("loops", [1, 3])
def test_the_cursor_survives_kill9(make_node, loops):
    node = make_node({"session.save_count": 5, "session.save_ms": 3600000, "node.loops": loops}, keep_ports=True)
    for number in range(20):
        send(node, "alice", b"%d" % number)
    with come(node) as web:
        assert take(web, 20) == list(range(20))
        for n in range(1, 13):  # written with every five or more, so at most four are not durable
            web.post({"ack": {"n": n}})
        settled(node, 8)
        # A publish that is durable: what was appended before it is, too.
        send(node, "alice", b"20")
        node.kill9()
    node.restart()
    with come(node) as web:
        first = take(web, 1)[0]
        assert 8 <= first <= 12
        assert take(web, 20 - first) == list(range(first + 1, 21))
        nothing_more(web, node)


def test_the_cursor_is_durable_when_the_connection_ends(make_node):
    node = make_node({"session.save_ms": 3600000}, keep_ports=True)
    for number in range(3):
        send(node, "alice", b"%d" % number)
    with come(node) as web:
        assert take(web, 3) == [0, 1, 2]
        web.post({"ack": {"n": 2}})
        settled(node, 1)
        web.abort()
    wait_until(lambda: node.metric("tidegate_inbox_writes_total", "ok") == 1, "the cursor to be written")
    send(node, "alice", b"3")
    node.kill9()
    node.restart()
    with come(node) as web:
        assert take(web, 2) == [2, 3]


def test_after_its_time(make_node):
    node = make_node({"session.save_ms": 50})
    send(node, "alice", b"1")
    with come(node) as web:
        take(web, 1)
        web.post({"ack": {"n": 1}})
        wait_until(lambda: node.metric("tidegate_inbox_writes_total", "ok") == 1, "the cursor to be written")
        assert node.metric("tidegate_inboxes") == 1


def test_so_many_are_kept(make_node):
    node = make_node({"inbox.keep_messages": 3})
    for number in range(5):
        send(node, "alice", b"%d" % number)
    with come(node) as web:
        assert take(web, 1) == [2]  # he was never here: he has missed nothing
        web.post({"ack": {"n": 1}})
        settled(node, 2)
    for number in range(5, 9):
        send(node, "alice", b"%d" % number)
    with come(node) as web:
        gap = web.next("gap")
        assert (gap["topic"], gap["why"], gap["count"]) == ("$user/alice/#", "retention", 3)
        assert take(web, 3) == [6, 7, 8]
        assert gap["from"] < gap["to"]
    assert node.metric("tidegate_messages_dropped_total", "retention") == 3


@spans(0.5, 3, 15)
def test_so_long_they_are_kept(make_node, span):
    node = make_node({"inbox.keep_ms": int(1000 * span)})
    send(node, "alice", b"1")
    with come(node) as web:
        take(web, 1)
        web.post({"ack": {"n": 1}})
        settled(node, 0)
    send(node, "alice", b"2")
    settled(node, 0)  # too old
    send(node, "alice", b"3")
    with come(node) as web:
        send(node, "alice", b"4")
        assert take(web, 1)[0] in (3, 4)  # a loaded machine may be slower than that time
    # Nobody comes for so long that the cursor itself goes.
    wait_until(lambda: node.metric("tidegate_inboxes") == 0, "the cursor to expire")


def test_a_session_goes_on_where_it_was(make_node):
    """What another device has acknowledged is no matter to a session: each has its own place."""
    node = make_node(keep_ports=True)
    phone = come(node)
    phone.subscribe("news", ack=True)  # now the session is durable
    session = phone.hello["session"]
    send(node, "alice", b"1")
    take(phone, 1)
    phone.abort()
    with come(node) as desk:
        assert take(desk, 1) == [1]
        desk.post({"ack": {"n": 1}})
        settled(node, 0)
    send(node, "alice", b"2")
    with come(node, session=session) as phone:
        assert phone.hello["resumed"] and phone.hello["inbox"] == "$user/alice/#" and phone.hello["lost"] == []
        assert take(phone, 2) == [1, 2]
        phone.post({"ack": {"n": 2}})
        settled(node, 0)
        phone.abort()
    # It is in the session now, and comes without being asked for.
    send(node, "alice", b"3")
    with Web(node, hello={"token": make(node, "alice"), "session": session}) as phone:
        assert phone.hello["resumed"] and take(phone, 1) == [3]
        phone.post({"ack": {"n": 1}})
        settled(node, 0)


def test_after_says_where_it_begins(node):
    places = [send(node, "alice", b"%d" % number).json()["pos"] for number in range(4)]
    with come(node, after={"$user/alice/#": [places[1]]}) as web:
        assert web.hello["inbox"] == "$user/alice/#"
        items = [web.next_item("msg") for _ in range(2)]
        assert [(item["n"], value(item)) for item in items] == [(1, 2), (2, 3)]
        assert unread(node) == 4
        web.post({"ack": {"n": 1}})  # everything up to there counts as seen
        settled(node, 1)


def test_a_subscription_that_began_with_the_present_does_not_move_it(node):
    send(node, "alice", b"1")
    with Web(node, hello={"token": make(node, "alice")}) as web:
        web.subscribe("$user/alice/#", ack=True)
        web.subscribe("$user/alice/x", "earliest", ack=True)
        send(node, "alice", b"2")
        web.post({"ack": {"n": web.next_item("msg")["n"]}})
        send(node, "alice", b"3", below="/x")
        web.post({"ack": {"n": max(web.next_item("msg")["n"] for _ in range(2))}})
        web.ask({"get": {"topic": "news"}})
        assert unread(node) == 3
        web.subscribe("$user/alice/#", "earliest", ack=True)
        assert take(web, 3) == [1, 2, 3]
        web.post({"ack": {"n": 6}})
        settled(node, 0)


def test_nobody_has_the_inbox_of_another(node):
    with Web(node) as web:
        assert web.ask({"hello": {"inbox": True}})["err"]["code"] == "forbidden"
        assert "ok" in web.ask({"hello": {"token": make(node, "bob"), "inbox": True}})
        for filter in ("$user/alice/#", "$user/alice", "$user/+/#", "$user/#", "$inbox/bob", "$inbox/#", "$session/#"):
            assert web.ask({"sub": {"topic": filter, "ack": True}})["err"]["code"] in ("forbidden", "unsupported")
        answer = web.ask({"hello": {"inbox": True}})  # once more: as any sub of the same filter
        assert answer["ok"]["inbox"] == "$user/bob/#"
        send(node, "alice", b"1")
        send(node, "bob", b"2")
        assert take(web, 1) == [2]
    with Web(node, hello={"token": make(node, "bob"), "after": {"$user/alice/#": "b00000000.1"}}) as web:
        assert web.hello["lost"] == ["$user/alice/#"]


@pytest.mark.parametrize("user", ["a/b", "100%", "+", "#", "..", "$SYS", "a\nb", "x" * 200, "Jörg 🐟", "messages"])
def test_users_of_every_kind(node, user):
    target = "/v1/users?" + urllib.parse.urlencode({"user": user, "topic": "x/y"})
    topic = curl(node.api(target), "-X", "POST", data=b"1").json()["topic"]
    with come(node, user) as web, mqtt_client(node, make(node, user)) as wire:
        assert web.hello["inbox"] == topic.removesuffix("/x/y") + "/#"
        assert take(web, 1) == [1]
        web.post({"ack": {"n": 1}})
        wire.subscribe(web.hello["inbox"])
        curl(node.api(target), "-X", "POST", data=b"2")
        assert take(web, 1) == [2]
        message = wire.message(acknowledge=False)
        assert (message.topic, message.payload) == (topic, b"2")
        told = curl(node.api("/v1/users?" + urllib.parse.urlencode({"user": user}))).json()
        assert told["user"] == user and told["online"] and told["inbox"]["unread"] == 1
        assert sorted(entry["door"] for entry in told["connections"]) == ["mqtt", "ws"]


def test_where_a_user_is(make_node):
    node = make_node({"node.loops": 3, "node.id": "n-1"})
    before = time.time() * 1000
    with come(node) as first, come(node) as second, mqtt_client(node, make(node, "alice"), version=4, client="phone"):
        told = wait_until(lambda: (said := curl(node.api("/v1/users/alice")).json())["count"] == 3 and said, "them all")
        assert told["online"] is True and [entry["node"] for entry in told["connections"]] == ["n-1"] * 3
        assert len({entry["id"] for entry in told["connections"]}) == 3
        assert all(re.fullmatch(r"n-1-[0-9a-f]+-[0-9]+", entry["id"]) for entry in told["connections"])
        assert all(before - 1000 <= entry["since_ms"] <= time.time() * 1000 + 1000 for entry in told["connections"])
        assert node.metric("tidegate_user_connections") == 3
        first.close()
        wait_until(lambda: curl(node.api("/v1/users/alice")).json()["count"] == 2, "one to have gone")
        del second
    wait_until(lambda: not curl(node.api("/v1/users/alice")).json()["online"], "all to have gone")


def test_many_users_and_few_cursors(make_node):
    node = make_node({"limit.inboxes": 2, "log.partitions": 1, "session.save_count": 1})
    for user in ("a", "b", "c"):
        send(node, user, b"1")
        with come(node, user) as web:
            take(web, 1)
            web.post({"ack": {"n": 1}})
            wait_until(lambda: node.metric("tidegate_inbox_writes_total") >= 1 + ord(user) - ord("a"), "it to be written")
    assert node.metric("tidegate_inboxes") == 2 and node.metric("tidegate_inbox_writes_total", "refused") >= 1
    assert unread(node, "a") == unread(node, "b") == 0 and unread(node, "c") == 1  # it comes again


def test_cursors_have_a_limit_of_bytes(make_node):
    node = make_node({"limit.inboxes_bytes": 100, "log.partitions": 1, "session.save_count": 1})
    send(node, "a", b"1")
    with come(node, "a") as web:
        take(web, 1)
        web.post({"ack": {"n": 1}})
        wait_until(lambda: node.metric("tidegate_inbox_writes_total", "refused") >= 1, "it to be refused")
    assert node.metric("tidegate_inboxes") == 0


def test_cursors_survive_retention(make_node):
    node = make_node({"log.partitions": 1, "log.segment_bytes": 65536, "log.retention_bytes": 131072,
                      "session.save_count": 1}, keep_ports=True)
    send(node, "alice", b"1")
    with come(node) as web:
        take(web, 1)
        web.post({"ack": {"n": 1}})
        settled(node, 0)
    wait_until(lambda: node.metric("tidegate_inboxes") == 1, "the cursor")
    for _ in range(12):
        publish(node, "noise", b"x" * 30000)
    wait_until(lambda: node.metric("tidegate_log_trimmed_segments_total") > 1, "retention")
    send(node, "alice", b"2")
    node.kill9()
    node.restart()
    with come(node) as web:
        assert web.next("gap")["why"] == "retention"  # nobody knows what lay in what was removed
        assert take(web, 1) == [2]


def test_a_slow_connection_loses_nothing_of_its_inbox(make_node):
    node = make_node({"out.bytes_max": 4096})
    with come(node, window={"msgs": 10}) as web:
        for number in range(50):
            send(node, "alice", b"%d" % number)
        got = []
        while len(got) < 50:
            data, n = numbered(web, 10)
            got += data
            web.post({"ack": {"n": n}})
        assert got == list(range(50))
        settled(node, 0)


def test_cursors_are_no_messages(make_node):
    node = make_node({"session.save_count": 1})
    send(node, "alice", b"1")
    with come(node) as web:
        take(web, 1)
        web.post({"ack": {"n": 1}})
        wait_until(lambda: node.metric("tidegate_inboxes") == 1, "the cursor")
    node.stop()
    assert [message["topic"] for message in messages(node.data)] == ["$user/alice"]
    assert [message["topic"] for message in messages(node.data, "--topic", "$inbox/#")] == ["$inbox/alice"]
