"""The main job: what is published at any door reaches subscribers at every door, once, in order, byte for byte,
and is kept."""

import base64
import json
import subprocess

import pytest

from clients import WAIT_S, MosquittoSub, Web, curl, history, mosquitto_pub, need, paho_client, publish
from node import wait_until

# White space, a number that no double holds, and letters of two bytes: all of it must come out as it went in.
JSON = b'{"c":21.5,  "unit":"\xc2\xb0C", "big":12345678901234567890, "e":1e2}'
COUNT = 200


def by_curl(node, topic, payload):
    publish(node, topic, payload)


def by_mosquitto_pub(node, topic, payload):
    mosquitto_pub(node, topic, payload)


def by_websocket(node, topic, payload):
    # Written out by hand: json.dumps would not keep the payload's bytes.
    with Web(node) as web:
        web.post_text('{"id":1,"pub":{"topic":"%s","data":%s}}' % (topic, payload.decode()))
        assert "ok" in web.answer(1)


doors = pytest.mark.parametrize("send", [by_curl, by_mosquitto_pub, by_websocket],
                                ids=lambda send: send.__name__[3:])


@doors
def test_reaches_mosquitto_sub_byte_for_byte(node, send):
    with MosquittoSub(node, "home/#") as sub:
        send(node, "home/kitchen", JSON)
        assert sub.next() == ("home/kitchen", JSON)


@doors
def test_reaches_websocket_byte_for_byte(node, send):
    with Web(node) as web:
        web.subscribe("home/#")
        send(node, "home/kitchen", JSON)
        item = web.next_item()
        assert item["msg"]["topic"] == "home/kitchen"
        assert b'"data":' + JSON in item.raw, item.raw


@doors
def test_is_kept_and_read_back_byte_for_byte(node, send):
    send(node, "home/kitchen", JSON)
    answer = curl(node.api("/v1/history/home/kitchen?from=earliest"))
    assert len(answer.json()["messages"]) == 1
    assert JSON in answer.body, answer.body


@pytest.mark.parametrize("payload", [b"", b"\x00", bytes(range(256)), b"plain words", b"{not json", b"x" * 100_000],
                         ids=["empty", "nul", "every byte", "text", "almost json", "100 kB"])
def test_any_payload_by_mqtt_and_http(node, payload):
    with MosquittoSub(node, "raw/#") as sub, Web(node) as web:
        web.subscribe("raw/#")
        mosquitto_pub(node, "raw/mqtt", payload)
        publish(node, "raw/http", payload)
        for topic in ("raw/mqtt", "raw/http"):
            assert sub.next() == (topic, payload)
            message = web.next()
            assert message["topic"] == topic
            if "b64" in message:
                assert base64.b64decode(message["b64"]) == payload
            else:
                assert message["text"].encode() == payload


def mqtt_many(node, topic, count):
    """A window of QoS 1 publishes from one paho client."""
    client = paho_client("many")
    client.max_inflight_messages_set(20)
    client.connect("127.0.0.1", node.ports["mqtt"])
    client.loop_start()
    try:
        sent = [client.publish(topic, b"%d" % number, qos=1) for number in range(count)]
        wait_until(lambda: all(info.is_published() for info in sent), "all to be acknowledged", 30)
    finally:
        client.disconnect()
        client.loop_stop()


def web_many(node, topic, count):
    with Web(node) as web:
        numbers = [web.request({"pub": {"topic": topic, "data": number}}) for number in range(count)]
        for number in numbers:
            assert "ok" in web.answer(number)


def curl_many(node, topic, count):
    """One curl, one connection, a request for each message."""
    url = node.api(f"/v1/publish/{topic}")
    requests = [f'url = "{url}"\ndata = "{number}"\nnoproxy = "*"\nfail\n' for number in range(count)]
    subprocess.run([need("curl"), "-sS", "-K", "-"], input="next\n".join(requests), text=True, check=True,
                   stdout=subprocess.DEVNULL, timeout=WAIT_S)


@pytest.mark.parametrize("send", [mqtt_many, web_many, curl_many], ids=["mqtt", "websocket", "curl"])
def test_order_is_the_publishers(node, send):
    with MosquittoSub(node, "many/#") as sub, Web(node) as web:
        web.subscribe("many/#")
        send(node, "many/numbers", COUNT)
        want = list(range(COUNT))
        assert [int(sub.next()[1]) for _ in want] == want
        messages = [web.next() for _ in want]
        assert [message["data"] if "data" in message else int(message["text"]) for message in messages] == want
        positions = [message["pos"] for message in messages]
        assert positions == sorted(set(positions)), "positions of a topic grow"
        assert [message["pos"] for message in history(node, "many/numbers", page=70)] == positions


FILTERS = {"a/b": ["a/b"], "a/+": ["a/b", "a/c"], "a/#": ["a/b", "a/c", "a/b/d", "a"], "+": ["a", "x"],
           "#": ["a/b", "a/c", "a/b/d", "a", "x"], "b/#": []}
END = "end/of/test"


def test_each_filter_gets_what_it_names_and_nothing_else(node):
    # Everybody also asks for a last message, so that "nothing else" needs no waiting.
    webs = {text: Web(node) for text in FILTERS}
    subs = {text: MosquittoSub(node, text, "-t", END) for text in FILTERS}
    try:
        for text, web in webs.items():
            web.subscribe(text)
            web.subscribe(END)
        for topic in ["a/b", "a/c", "a/b/d", "a", "x", END]:
            publish(node, topic, topic.encode())
        for text, want in FILTERS.items():
            # "#" names the last one too.
            want = sorted(want + [END] * (2 if text == "#" else 1))
            assert sorted(webs[text].next()["topic"] for _ in want) == want, f"websocket {text}"
            got = [subs[text].next()[0] for _ in range(len(FILTERS[text]))]
            assert sorted(got) == sorted(FILTERS[text]), f"mosquitto_sub {text}"
            assert subs[text].next()[0] == END, f"mosquitto_sub {text}: more than it asked for"
    finally:
        for client in [*webs.values(), *subs.values()]:
            client.close()


def test_each_filter_replays_what_it_names_and_nothing_else(node):
    for topic in ["a/b", "a/c", "a/b/d", "a", "x"]:
        publish(node, topic, topic.encode())
    for text, want in FILTERS.items():
        with Web(node) as web:
            assert web.subscribe(text, "earliest")["replay"] == len(want), text
            got = []
            while "live" not in (item := web.event()):
                if "msg" in item:
                    got.append(item["msg"]["topic"])
            assert got == want, text


def test_earliest_replays_then_goes_live(node):
    for number in range(5):
        publish(node, "past/numbers", b"%d" % number)
    with Web(node) as web:
        assert web.subscribe("past/#", "earliest")["replay"] == 5
        got = [web.next_item() for _ in range(5)]
        web.next("live")
        publish(node, "past/numbers", b"5")
        got.append(web.next_item())
        assert [item["msg"]["text"] for item in got] == [str(number) for number in range(6)]


def test_resume_is_strictly_after(node):
    positions = [publish(node, "home/kitchen", b"%d" % number).json()["pos"] for number in range(5)]
    with Web(node) as web:
        web.subscribe("home/kitchen", {"after": [positions[1]]})
        assert [web.next()["pos"] for _ in range(3)] == positions[2:]


def test_nobody_listening_is_no_error(node):
    answer = publish(node, "home/kitchen", b'{"c":21.5}').json()
    assert answer["topic"] == "home/kitchen" and answer["dup"] is False and answer["pos"]


def test_stays_through_a_clean_restart(make_node):
    node = make_node()
    position = publish(node, "home/kitchen", JSON).json()["pos"]
    node.stop()
    node.restart()
    assert [message["pos"] for message in history(node, "home/kitchen")] == [position]
    assert json.loads(JSON) == history(node, "home/kitchen")[0]["data"]
