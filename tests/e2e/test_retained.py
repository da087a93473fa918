"""Retained messages: the newest of each topic comes first, at every door, and survives kill -9."""

import json
import threading
import time

import pytest

from clients import WAIT_S, MosquittoSub, Web, curl, mosquitto_pub, paho_client, publish
from mqtt_wire import Wire, publish as publish_packet
from node import spans, wait_until
from test_limits import StoppedWeb

RETAIN, NO_LOCAL, AS_PUBLISHED = 0x01, 0x04, 0x08
KEEP = ("-H", "Tidegate-Retain: 1")
RSS_GROWTH_MAX = 24 << 20


def set_by_http(node, topic, payload):
    publish(node, topic, payload, *KEEP)


def set_by_mosquitto(node, topic, payload):
    mosquitto_pub(node, topic, payload, "-r")


def set_by_mosquitto5(node, topic, payload):
    mosquitto_pub(node, topic, payload, "-r", "-V", "5")


def set_by_mosquitto_qos0(node, topic, payload):
    mosquitto_pub(node, topic, payload, "-r", qos=0)
    wait_until(lambda: kept(node, topic) == ([payload.decode()] if payload else []), "QoS 0 to be there")


def set_by_paho(node, topic, payload):
    client = paho_client("keeper", 5)
    client.connect("127.0.0.1", node.ports["mqtt"])
    client.loop_start()
    client.publish(topic, payload, qos=1, retain=True).wait_for_publish(10)
    client.disconnect()
    client.loop_stop()


def set_by_web(node, topic, payload):
    with Web(node) as web:
        assert "ok" in web.ask({"pub": {"topic": topic, "text": payload.decode(), "retain": True}})


def page(node, what, check=200):
    return curl(node.api(f"/v1/retained{what}"), check=check).json()


def kept(node, topic):
    return [message.get("text", message.get("data")) for message in page(node, f"?topic={topic}")["messages"]]


def all_kept(node, topic, size=1000):
    """All retained messages of a filter, by as many pages as it takes."""
    messages, start = [], "earliest"
    while True:
        answer = page(node, f"?topic={topic}&max={size}&from={start}")
        if not answer["messages"]:
            return messages
        messages += answer["messages"]
        start = answer["next"]


def values(messages):
    return {message["topic"]: message.get("text", message.get("data")) for message in messages}


def replayed(web, topic, **options):
    """What a new subscription brings before it is live."""
    answer = web.subscribe(topic, **options)
    items = []
    while True:
        item = web.event()
        if "msg" in item:
            assert item["msg"]["retained"] is True, item
            items.append(item["msg"])
        elif "live" in item:
            assert len(items) == answer["replay"], (len(items), answer)
            return items


DOORS = [set_by_http, set_by_mosquitto, set_by_mosquitto5, set_by_mosquitto_qos0, set_by_paho, set_by_web]


@pytest.mark.parametrize("put", DOORS, ids=[door.__name__ for door in DOORS])
def test_set_replace_and_clear_at_every_door(node, put):
    put(node, "home/a", b"1")
    put(node, "home/b", b"1")
    put(node, "home/a", b"2")
    with MosquittoSub(node, "home/+") as sub, MosquittoSub(node, "home/+", "-V", "5") as sub5, Web(node) as web:
        for one in (sub, sub5):
            first = [one.messages.get(timeout=WAIT_S) for _ in range(2)]
            assert first == [("home/b", b"1", True), ("home/a", b"2", True)], "the newest of each topic, in order"
        assert [message["topic"] for message in replayed(web, "home/+")] == ["home/b", "home/a"]
        put(node, "home/a", b"3")  # live: no RETAIN
        for one in (sub, sub5):
            assert one.messages.get(timeout=WAIT_S) == ("home/a", b"3", False)
        assert "retained" not in web.next()
        put(node, "home/a", b"")  # clearing is a message, too
        for one in (sub, sub5):
            assert one.messages.get(timeout=WAIT_S) == ("home/a", b"", False)
        assert web.next()["topic"] == "home/a"
    assert kept(node, "home/a") == [], "what was cleared is not kept"
    assert kept(node, "home/b") in (["1"], [1])
    assert node.metric("tidegate_retained_messages") == 1
    with MosquittoSub(node, "#") as sub:
        assert sub.messages.get(timeout=WAIT_S) == ("home/b", b"1", True)
        publish(node, "home/end", b"end")
        assert sub.messages.get(timeout=WAIT_S) == ("home/end", b"end", False)


def test_paho_sees_the_flag(node):
    set_by_http(node, "a", b"1")
    for version in (4, 5):
        client, got = paho_client(f"reader{version}", version), []
        client.on_message = lambda _client, _data, message: got.append((message.payload, bool(message.retain)))
        client.connect("127.0.0.1", node.ports["mqtt"])
        client.loop_start()
        client.subscribe("a", 1)
        wait_until(lambda: got == [(b"1", True)], "the retained message")
        publish(node, "a", b"2")
        wait_until(lambda: got[1:] == [(b"2", False)], "the live message")
        client.disconnect()
        client.loop_stop()


def test_retain_as_published(node):
    with Wire(node, 5) as plain, Wire(node, 5) as keeps, Wire(node, 4) as old:
        plain.subscribe(("a", 1))
        keeps.subscribe(("a", 1 | AS_PUBLISHED))
        old.subscribe(("a", 1))
        for flags, want in ((0x02 | RETAIN, True), (0x02, False)):
            with Wire(node, 5) as publisher:
                publisher.send(publish_packet("a", b"x", 1, 1, flags=flags))
                publisher.expect(4)
            assert keeps.message().retained == want
            assert not plain.message().retained and not old.message().retained
        for options, wire in ((1, Wire(node, 5)), (1 | AS_PUBLISHED, Wire(node, 5))):
            with wire:
                wire.subscribe(("a", options))
                assert wire.message().retained


def test_retain_handling(node):
    set_by_http(node, "a", b"1")
    with Wire(node, 5) as wire:
        def comes(handling):
            wire.subscribe(("a", 1 | handling << 4))
            publish(node, "a", b"live")
            first = wire.message()
            if not first.retained:
                return False
            assert wire.message().payload == b"live"
            return True

        assert not comes(2)
        assert not comes(1), "the subscription is not new"
        assert comes(0)
        assert comes(0), "also when it is not new"
    with Wire(node, 5) as wire:
        wire.subscribe(("a", 1 | 1 << 4))
        assert wire.message().retained, "the subscription is new"
    with Wire(node, 4) as wire:
        for _ in range(2):
            wire.subscribe("a")
            assert wire.message().retained, "MQTT-3.8.4-3: 3.1.1 sends them each time"


def test_qos_and_no_local(node):
    with Wire(node, 5, "me") as wire:
        wire.send(publish_packet("a", b"mine", 1, 1, flags=0x03))
        wire.expect(4)
        wire.subscribe(("a", 1 | NO_LOCAL))
        wire.subscribe(("+", 0))
        message = wire.message()
        assert message.qos == 0 and message.retained and message.payload == b"mine"
        wire.ping()
    with Wire(node, 5, "me") as wire:
        wire.subscribe(("a", 1))
        assert wire.message().qos == 1


@spans(0.3, 2, 10)
def test_expiry(make_node, span):
    node = make_node()
    publish(node, "short", b"1", *KEEP, "-H", f"Tidegate-Ttl-Ms: {int(1000 * span)}")
    publish(node, "long", b"1", *KEEP, "-H", "Tidegate-Ttl-Ms: 3000000")
    assert node.metric("tidegate_retained_messages") == 2
    with Wire(node, 5) as wire:
        wire.subscribe(("long", 1))
        message = wire.message()
        assert message.props[0] == 0x02 and int.from_bytes(message.props[1:5], "big") <= 3000, "what is left of it"
    # Nobody asks for it, and it goes all the same.
    wait_until(lambda: node.metric("tidegate_retained_messages") == 1, "what has expired to go")
    assert kept(node, "short") == []
    with Web(node) as web:
        assert list(values(replayed(web, "#"))) == ["long"]


@spans(0.2, 2, 10)
def test_what_expires_makes_room(make_node, span):
    node = make_node({"limit.retained": 2})
    publish(node, "a", b"1", *KEEP, "-H", f"Tidegate-Ttl-Ms: {int(1000 * span)}")
    set_by_http(node, "b", b"1")
    publish(node, "c", b"1", *KEEP, check=503)
    wait_until(lambda: publish(node, "c", b"1", *KEEP, check=None).status == 200, "room")
    assert list(values(all_kept(node, "%23"))) == ["b", "c"]


def test_websocket_without_retained(node):
    set_by_http(node, "a", b"1")
    with Web(node) as web:
        assert replayed(web, "a", retained=False) == []
        assert [m["text"] if "text" in m else m["data"] for m in replayed(web, "a", retained=True)]
        answer = web.subscribe("+", "earliest")
        assert answer["replay"] == 1 and "retained" not in web.next(), "the past is no retained message"


def test_limits(make_node):
    node = make_node({"limit.retained": 2})
    set_by_http(node, "a", b"1")
    set_by_http(node, "b", b"1")
    refused = publish(node, "c", b"1", *KEEP, check=503).json()
    assert refused["code"] == "quota_exceeded"
    with Web(node) as web:
        answer = web.ask({"pub": {"topic": "c", "text": "1", "retain": True}})
        assert answer["err"]["code"] == "quota_exceeded"
        assert "ok" in web.ask({"pub": {"topic": "a", "text": "2", "retain": True}}), "replacing is no problem"
    with Wire(node, 5) as wire:
        wire.send(publish_packet("c", b"1", 1, 1, flags=0x03))
        assert wire.expect(4)[2] == 0x97
        wire.send(publish_packet("b", b"2", 1, 2, flags=0x03))
        assert wire.expect(4)[2:] == b""
    assert node.metric("tidegate_messages_refused_total", "quota") == 3
    assert values(all_kept(node, "%23")) == {"a": "2", "b": "2"}
    publish(node, "c", b"1")  # without RETAIN it is a message as any other
    set_by_http(node, "a", b"")
    set_by_http(node, "c", b"1")


# --- HTTP --------------------------------------------------------------------------------------------------------

def test_http_reads_pages(make_node):
    node = make_node({"log.partitions": 4})
    for number in range(25):
        set_by_http(node, f"page/{number}", b"%d" % number)
    whole = page(node, "/page/%23")["messages"]
    assert len(whole) == 25 and all(message["retained"] for message in whole)
    assert all_kept(node, "page/%23", 4) == whole and all_kept(node, "page/+", 1) == whole
    assert page(node, "/page/+")["messages"] == whole
    assert [m["topic"] for m in page(node, "/page/7")["messages"]] == ["page/7"]
    assert page(node, "/other")["messages"] == []
    # What has changed since: `next` goes on.
    end = page(node, "/page/%23")["next"]
    set_by_http(node, "page/3", b"new")
    assert values(page(node, f"/page/%23?from={end}")["messages"]) == {"page/3": "new"}
    for what in ("", "?topic=", "/a%23", "/a/%23/b", "/a?max=0", "/a?from=x", "/a?reverse=1"):
        page(node, what, 400)
    page(node, "/$SYS/%23", 403)
    page(node, "/a?from=last:3", 501)
    page(node, "/a?from=b00000001.1", 410)


def test_http_pages_end_by_their_bytes(node):
    for number in range(5):
        set_by_http(node, f"large/{number}", b"%d" % number + b"x" * 500_000)
    first = page(node, "/large/%23")["messages"]
    assert 2 <= len(first) < 5
    assert len(all_kept(node, "large/%23")) == 5


def test_http_deletes(node):
    def delete(what, check):
        return curl(node.api(f"/v1/retained{what}"), "-X", "DELETE", check=check).json()

    set_by_http(node, "a/b", b"1")
    with Web(node) as web:
        web.subscribe("a/#", retained=False)
        answer = delete("/a/b", 200)
        assert answer["topic"] == "a/b" and set(answer) == {"topic", "pos"}
        message = web.next()
        assert message["pos"] == answer["pos"] and message["b64"] == "", "subscribers are told"
    assert kept(node, "a/b") == []
    assert delete("/a/b", 404)["code"] == "not_found"
    delete("/a/+", 400)
    delete("", 400)
    delete("/$SYS/a", 403)
    node.kill9()
    node.restart()
    assert kept(node, "a/b") == []


def test_capabilities(node):
    said = curl(node.api("/v1/capabilities")).json()
    assert {"retained", "publish.retain"} <= set(said["features"]) and said["limits"]["retained"] == 1_000_000
    with Web(node, hello={}) as web:
        assert "retain" in web.hello["features"]


# --- restarts, many lanes, many topics ---------------------------------------------------------------------------

@pytest.mark.parametrize("settings", [{}, {"log.partitions": 4, "node.loops": 2, "log.segment_bytes": "64K"}],
                         ids=["one lane", "four lanes, two loops"])
def test_kill9_changes_nothing(make_node, settings):
    node = make_node(settings)
    with Web(node) as web:
        asked = []
        for number in range(3000):
            asked.append(web.request({"pub": {"topic": f"t/{number * 7 % 500}", "text": "" if number % 11 == 0 else
                                              f"{number}" + "x" * 100, "retain": number % 3 > 0}}))
        for request in asked:
            assert "ok" in web.answer(request)
    before = all_kept(node, "%23")
    assert 300 < len(before) < 500
    figures = [node.metric("tidegate_retained_messages"), node.metric("tidegate_retained_bytes")]
    assert figures[0] == len(before)
    for end in (node.kill9, node.stop):
        end()
        node.restart()
        assert all_kept(node, "%23") == before, "a start folds the same out of the log"
        assert [node.metric("tidegate_retained_messages"), node.metric("tidegate_retained_bytes")] == figures
    with Web(node) as web:
        assert values(replayed(web, "t/#")) == values(before)


def test_four_lanes_and_two_loops(make_node):
    node = make_node({"log.partitions": 4, "node.loops": 2})
    for number in range(40):
        set_by_http(node, f"t/{number}", b"%d" % number)
    want = {f"t/{number}": b"%d" % number for number in range(40)}
    for _ in range(4):  # connections go to both loops
        with Wire(node, 5) as wire:
            wire.subscribe(("t/#", 1))
            got = [wire.message() for _ in range(40)]
            assert {message.topic: message.payload for message in got} == want
            assert all(message.retained for message in got)
            publish(node, "t/live", b"x")
            assert wire.message().topic == "t/live"
        with Web(node) as web:
            assert {m["topic"]: str(m["data"] if "data" in m else m["text"]).encode()
                    for m in replayed(web, "t/#")} == want
            with Wire(node, 4) as wire:
                wire.subscribe("t/17")
                assert wire.message().payload == b"17"


TOPICS = 20_000


def items(slow):
    frame, slow.first = slow.first or slow.frame(), None
    return [json.loads(line) for line in frame.split(b"\n")]


@pytest.mark.deadline(180)
@pytest.mark.parametrize("settings", [{}, {"log.partitions": 4, "node.loops": 2}], ids=["one loop", "two loops"])
def test_many_topics_to_a_slow_reader_while_publishing_goes_on(make_node, settings):
    node = make_node({**settings, "out.bytes_max": "64K", "out.stall_ms": 600_000, "limit.publish_open": 512})
    with Web(node) as web:
        asked = []
        for number in range(TOPICS):
            asked.append(web.request({"pub": {"topic": f"many/{number}", "text": f"{number:0200d}", "retain": True}}))
            if len(asked) == 256:
                assert "ok" in web.answer(asked.pop(0))
        for request in asked:
            assert "ok" in web.answer(request)
    assert node.metric("tidegate_retained_messages") == TOPICS
    base = node.rss_bytes()

    stop, replaced = threading.Event(), {}

    def go_on():
        with Web(node) as web:
            number = 0
            while not stop.is_set():
                topic = f"many/{number * 9973 % TOPICS}"
                assert "ok" in web.ask({"pub": {"topic": topic, "text": f"new {number}", "retain": True}})
                replaced[topic] = f"new {number}"
                number += 1
                time.sleep(0.001)

    publisher = threading.Thread(target=go_on, daemon=True)
    publisher.start()
    with StoppedWeb(node, "many/#") as slow:
        wait_until(lambda: len(replaced) > 500, "publishing to go on while it reads nothing", 60)
        # Far behind what the sockets' buffers have taken: these must come as they are now, and only live. (Of
        # several lanes one may be far ahead of the others.)
        early = {topic for topic in dict(replaced) if int(topic.split("/")[1]) >= 19_000 and not settings}
        assert len(early) > 10 or settings
        most = max(node.rss_bytes() for _ in range(10))
        seen, newest = {}, {}
        live = False
        while not live:
            for item in items(slow):
                if "live" in item:
                    live = True
                elif "msg" in item:
                    message = item["msg"]
                    if message.get("retained"):
                        assert message["topic"] not in seen, f"{message['topic']} came again"
                        assert message["topic"] not in early or "new" in message["text"], "replaced, and came"
                        seen[message["topic"]] = message["pos"]
                    newest[message["topic"]] = message
            most = max(most, node.rss_bytes())
        stop.set()
        publisher.join(30)
        publish(node, "many/end", b"end")
        while "many/end" not in newest:
            for item in items(slow):
                if "msg" in item:
                    newest[item["msg"]["topic"]] = item["msg"]
    assert most - base < RSS_GROWTH_MAX, f"{(most - base) >> 20} MiB more for one slow reader"
    assert len(newest) == TOPICS + 1, "each topic has come"
    assert len(replaced) > 100
    for topic, text in replaced.items():
        assert newest[topic]["text"] == text, f"{topic}: {newest[topic]} and not {text}"
    assert json.dumps(values(all_kept(node, "many/%23")), sort_keys=True) == json.dumps(
        {topic: message["text"] for topic, message in newest.items() if topic != "many/end"}, sort_keys=True)
