"""The past from a time, of the last n, and backwards, at every door, in a log of many small segments: compared with what
reading everything from the earliest on gives. After kill -9, too, and while publishing goes on."""

import random
import threading
import urllib.parse

import pytest

from clients import MosquittoSub, Web, curl, history, publish

SEGMENTS = {"log.segment_bytes": "64K"}
TOPICS = [f"past/{name}" for name in "abcdef"]
RARE = "past/rare"


def fill(node, count, first=0):
    """So many messages, each with its number, on topics in turn; one in a hundred on the rare one."""
    with Web(node) as web:
        for start in range(first, first + count, 50):
            requests = []
            for number in range(start, start + 50):
                topic = RARE if number % 100 == 7 else TOPICS[number % len(TOPICS)]
                requests.append(web.request({"pub": {"topic": topic, "text": f"{number} " + "x" * 900}}))
            for request in requests:
                assert "ok" in web.answer(request)


def segments(node):
    return len(list(node.data.glob("*/*.seg")))


def get(web, topic, **options):
    return web.ask({"get": {"topic": topic, **options}})["ok"]


def places(messages):
    return [message["pos"] for message in messages]


def pages(node, topic, start=None, page=7, **options):
    """All pages of HTTP history with the same parameters, and how many came in each."""
    messages, sizes = [], []
    while True:
        query = {"max": page, **options, **({} if start is None else {"from": start})}
        answer = curl(node.api(f"/v1/history/{topic}?{urllib.parse.urlencode(query)}")).json()
        messages += answer["messages"]
        sizes.append(len(answer["messages"]))
        if not answer["messages"]:
            return messages, sizes
        start = answer["next"]


def next_of_subscription(web):
    while True:
        item = web.event()
        if "id" not in item:
            return item


def check_topic(node, web, topic, dice):
    everything = history(node, topic)
    all_places = places(everything)
    assert len(set(all_places)) == len(all_places)
    # Backwards, by pages.
    backwards, sizes = pages(node, topic, page=11, reverse=1)
    assert places(backwards) == all_places[::-1] and set(sizes[:-2]) <= {11}
    assert backwards == everything[::-1]
    for _ in range(4):
        at = dice.randrange(len(everything))
        time_ms = everything[at]["ts"] + dice.choice((0, 0, 1, -1))
        newer = [message["pos"] for message in everything if message["ts"] >= time_ms]
        older = [message["pos"] for message in everything if message["ts"] < time_ms]
        assert places(pages(node, topic, f"time:{time_ms}", page=50)[0]) == newer
        assert places(pages(node, topic, f"time:{time_ms}", page=50, reverse=1)[0]) == older[::-1]
        assert places(get(web, topic, **{"from": {"time": time_ms}, "max": 1000})["messages"]) == newer
        count = dice.randrange(1, len(everything) + 5)
        last = all_places[-count:]
        assert places(pages(node, topic, f"last:{count}", page=50)[0]) == last
        assert places(get(web, topic, **{"from": {"last": count}, "max": 1000})["messages"]) == last
        page = get(web, topic, **{"from": {"last": count}, "max": 1000, "reverse": True})
        assert places(page["messages"]) == last[::-1]
        # Its `next`, and a position, go on strictly before.
        rest = get(web, topic, **{"from": {"after": [page["next"]]}, "max": 1000, "reverse": True})
        assert places(rest["messages"]) == all_places[:-count][::-1]
        before = get(web, topic, **{"from": {"after": [all_places[at]]}, "max": 1000, "reverse": True})
        assert places(before["messages"]) == all_places[:at][::-1]
        # Subscriptions: the same, then live.
        for start, wanted in (({"time": time_ms}, newer), ({"last": count}, last)):
            answer = web.subscribe(topic, start)
            assert answer["replay"] == len(wanted)
            assert [web.next()["pos"] for _ in wanted] == wanted
            assert "live" in next_of_subscription(web)
            web.ask({"unsub": {"topic": topic}})


@pytest.mark.parametrize("lanes", (1, 4))
def test_every_start_gives_what_the_whole_past_says(make_node, lanes):
    node = make_node({**SEGMENTS, "log.partitions": lanes})
    dice = random.Random(lanes)
    fill(node, 300)
    node.stop()
    node.restart()
    fill(node, 300, first=300)
    assert segments(node) >= 8
    with Web(node) as web:
        for topic in (*TOPICS[:2], RARE):
            check_topic(node, web, topic, dice)


def test_after_kill_9(make_node):
    node = make_node({**SEGMENTS, "log.partitions": 2})
    fill(node, 600)
    before = {topic: history(node, topic) for topic in (TOPICS[0], RARE)}
    for round_ in range(2):
        node.kill9()
        node.restart()
        fill(node, 300, first=600 + 300 * round_)
    with Web(node) as web:
        for topic, messages in before.items():
            assert history(node, topic)[:len(messages)] == messages
            check_topic(node, web, topic, random.Random(9))


def test_what_there_is_not_is_empty_and_what_cannot_be_is_refused(node):
    position = publish(node, "some/topic", b"1").json()["pos"]
    with Web(node) as web:
        assert {"get.reverse", "from.time", "from.last"} <= set(web.ask({"hello": {}})["ok"]["features"])
        assert get(web, "no/such", reverse=True)["messages"] == []
        assert get(web, "no/such", **{"from": {"last": 3}})["messages"] == []
        assert get(web, "some/topic", **{"from": {"time": 2 ** 53 - 1}})["messages"] == []
        assert places(get(web, "some/topic", **{"from": {"time": 0}})["messages"]) == [position]
        assert get(web, "some/topic", **{"from": {"after": [position]}, "reverse": True})["messages"] == []
        assert web.subscribe("no/such", {"last": 3})["replay"] == 0
        assert web.subscribe("some/+", {"time": 0})["replay"] == 1
        assert web.ask({"sub": {"topic": "some/+", "from": {"last": 3}}})["err"]["code"] == "unsupported"
        for request in ({"from": {"last": 0}}, {"from": {"time": -1}}, {"from": {"time": 1, "last": 1}},
                        {"from": "earliest", "reverse": True}, {"reverse": 1}, {"from": {}}):
            assert web.ask({"get": {"topic": "some/topic", **request}})["err"]["code"] == "bad_request", request
    for query in ("from=time:", "from=last:0", "from=earliest&reverse=1", "reverse=2", "from=time:-5"):
        assert curl(node.api(f"/v1/history/some/topic?{query}"), check=None).status == 400, query
    features = curl(node.api("/v1/capabilities")).json()["features"]
    assert {"history.from.time", "history.from.last", "history.reverse"} <= set(features)


def test_mosquitto_from_a_time(make_node):
    node = make_node({**SEGMENTS, "log.partitions": 4})
    fill(node, 400)
    everything = history(node, TOPICS[1])
    time_ms = everything[len(everything) // 2]["ts"]
    wanted = [message["text"].encode() for message in everything if message["ts"] >= time_ms]
    with MosquittoSub(node, TOPICS[1], "-V", "5", "-D", "subscribe", "user-property", "tg-from",
                      f"time:{time_ms}") as sub:
        assert [sub.next()[1] for _ in wanted] == wanted
        publish(node, TOPICS[1], b"now")
        assert sub.next() == (TOPICS[1], b"now")


def test_while_publishing_goes_on(make_node):
    """One publisher counts up; whoever looks sees a stretch without holes that ends with what is newest."""
    node = make_node({**SEGMENTS, "log.partitions": 2, "node.loops": 2})
    stop, sent, failed = threading.Event(), [0], []

    def publisher():
        try:
            with Web(node) as web:
                while not stop.is_set():
                    requests = [web.request({"pub": {"topic": "busy", "text": f"{sent[0] + i} " + "y" * 500}})
                                for i in range(20)]
                    for request in requests:
                        assert "ok" in web.answer(request)
                    sent[0] += 20
        except Exception as error:
            failed.append(error)

    def number(message):
        return int(message["text"].split()[0])

    thread = threading.Thread(target=publisher)
    thread.start()
    try:
        with Web(node) as web:
            while sent[0] < 300 and not failed:
                get(web, "busy", **{"from": {"last": 1}})
            for round_ in range(15):
                least = sent[0]
                newest = [number(message) for message in get(web, "busy", reverse=True, max=40)["messages"]]
                assert newest == list(range(newest[0], newest[0] - 40, -1)) and newest[0] >= least - 1
                start = {"last": 60}
                if round_ % 2:
                    start = {"time": get(web, "busy", reverse=True, max=60)["messages"][-1]["ts"]}
                answer = web.subscribe("busy", start)
                got = [number(web.next()) for _ in range(answer["replay"] + 100)]
                assert answer["replay"] >= 60 and got == list(range(got[0], got[0] + len(got)))
                assert got[answer["replay"] - 1] >= least - 1
                web.ask({"unsub": {"topic": "busy"}})
                while not web.events.empty():
                    web.event()
            backwards = [number(message) for message in pages(node, "busy", page=97, reverse=1)[0]]
            assert backwards == list(range(backwards[0], -1, -1))
    finally:
        stop.set()
        thread.join()
    assert not failed, failed
