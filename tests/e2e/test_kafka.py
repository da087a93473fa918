"""The log on Kafka (log.backend: kafka): real brokers, one node and several. What of an acknowledged message is promised
holds wherever it was published; what the node cannot do there it says."""

import json
import os
import shutil
import subprocess

import pytest

from clients import WAIT_S, Resuming, Web, curl, history, publish
from kafka_server import PASSWORD, USER, Kafka, join
from mqtt_wire import PUBACK, SUBACK, Wire, subscribe
from mqtt_wire import publish as mqtt_publish
from node import PRESET, PROGRAM, ROOT, c11_threads, kafka_settings, wait_until
from test_mqtt_qos2 import publish2
from test_mqtt_sessions import keep
from tokens import bearer, create

LANES = {"log.partitions": 4}
REQUEST_S = 150  # what is in flight to a frozen broker: until librdkafka has given up its request, and the connection


def settings(kafka, **more):
    return {**kafka_settings(kafka.servers(), kafka.prefix, kafka.brokers.count), **LANES, **more}


@pytest.fixture
def shared_log(make_node, kafka):
    """Makes nodes of one log, by their names."""
    def make(name, key=None, **more):
        if key:  # the tokens of another node
            more["data.dir"] = key.parent / f"data-{name}"
            more["data.dir"].mkdir()
            shutil.copy(key, more["data.dir"] / "token.key")
        return make_node(settings(kafka, **{"node.id": name, **more}), data=more.get("data.dir"))
    return make


def epoch(node):
    return curl(node.api("/v1/capabilities")).json()["epoch"]


def texts(node, topic, start="earliest"):
    return [item["text"] for item in history(node, topic, start)]


def texts_of(web, count):
    return [web.next()["text"] for _ in range(count)]


def has_all(node, topic, wanted):
    wait_until(lambda: texts(node, topic) == wanted, f"{topic} to be {wanted} at {node.settings['node.id']}")


# --- one node ------------------------------------------------------------------------------------------------------

def test_every_door_of_one_node(shared_log):
    node = shared_log("a", **{"node.loops": 2})
    with Web(node) as web, Wire(node, 5, "listens") as listener, Wire(node, 5, "speaks") as speaker:
        web.subscribe("#")
        assert listener.subscribe(("#", 2)) == b"\x02"
        answer = publish(node, "d/http", b"1").json()
        assert answer["pos"].startswith(epoch(node)) and not answer["dup"]
        assert "pos" in web.ask({"pub": {"topic": "d/ws", "text": "2"}})["ok"]
        assert speaker.publish("d/one", b"3", 1) == 0
        assert publish2(speaker, "d/two", b"4", 2) == (0, 0)
        speaker.send(b"\x30\x08\x00\x04d/no\x005")  # QoS 0
        assert sorted(texts_of(web, 5)) == ["1", "2", "3", "4", "5"]
        assert sorted(listener.message().payload for _ in range(5)) == [b"1", b"2", b"3", b"4", b"5"]
        listener.quiet(0.1)
    assert texts(node, "d/http") == ["1"]
    publish(node, "kept", b"old", "-H", "Tidegate-Retain: 1")
    publish(node, "kept", b"new", "-H", "Tidegate-Retain: 1")
    with Wire(node, 5, "late") as late:
        late.send(subscribe(1, ("kept", 1)))
        assert late.expect(SUBACK)
        assert late.message().payload == b"new"
    said = curl(node.api("/v1/capabilities")).json()
    assert said["backend"] == "kafka" and said["durability"]["acknowledged"] == "acks=all"
    assert said["durability"]["copies"] == 1 and {"shared_subscriptions", "takeover_of_sessions_that_are_not_kept"} <= set(said["missing"])
    assert curl(node.api("/readyz")).json() == {"status": "ok"}
    assert node.metric("tidegate_kafka_up") == 1


def test_no_local_and_once_hold(shared_log):
    node = shared_log("a")
    with Wire(node, 5, "own") as own:
        own.send(subscribe(1, ("n/#", 1 | 4)))  # No Local
        assert own.expect(SUBACK)
        assert own.publish("n/x", b"mine", 1) == 0
        publish(node, "n/x", b"another's")
        assert own.message().payload == b"another's"
    key = ["-H", "Idempotency-Key: k1"]
    first = publish(node, "o", b"x", *key).json()
    again = publish(node, "o", b"x", *key).json()
    assert not first["dup"] and again["dup"] and first["pos"] == again["pos"]
    publish(node, "o", b"y", *key, check=422)
    assert texts(node, "o") == ["x"]
    node.kill9()
    node.restart()
    assert publish(node, "o", b"x", *key).json()["dup"] and texts(node, "o") == ["x"]


@pytest.mark.parametrize("way", ["kill -9", "mirror lost", "killed and mirror lost"])
def test_clients_go_on_after(shared_log, way):
    """Sessions, positions and retained messages outlive the process, and the folder."""
    node = shared_log("a")
    before, reader = epoch(node), Resuming("r/#")
    reader.open(node)
    kept = keep(node, 5, "kept")
    assert kept.subscribe(("r/#", 1)) == b"\x01"
    for i in range(20):
        publish(node, f"r/{i % 5}", b"%d" % i)
    publish(node, "r/kept", b"20", "-H", "Tidegate-Retain: 1")
    reader.run(lambda: len(reader.messages) == 21, "21 messages")
    for _ in range(21):
        kept.message()
    kept.ping()
    if "kill" in way:
        node.kill9()
    else:
        node.stop()
    reader.drain()
    if "lost" in way:
        shutil.rmtree(node.data)
    node.restart()
    assert epoch(node) == before, "the same records have the same places"
    for i in range(21, 31):
        publish(node, f"r/{i % 5}", b"%d" % i)
    reader.open(node)
    reader.run(lambda: len(reader.messages) >= 31, "31 messages")
    reader.web.close()
    assert not reader.gaps and sorted(int(m["text"]) for m in reader.messages) == list(range(31))
    back = keep(node, 5, "kept")
    assert back.connack[0] == 1, "the session is there"
    wait_for = {b"%d" % i for i in range(21, 31)}
    while wait_for:
        wait_for.discard(back.message().payload)
    back.close()


# --- the mirror is another log's -----------------------------------------------------------------------------------

def rewrite(kafka, node, change):
    """The topic deleted and made anew, with the records that `change` makes of those of each partition."""
    topic = f"{kafka.prefix}.log"
    wanted = {key: value for key, value in {
        "message.timestamp.type": "LogAppendTime", "retention.ms": "-1", "retention.bytes": "-1",
        "cleanup.policy": "delete", "unclean.leader.election.enable": "false", "max.message.bytes": "2000000"}.items()}
    ends = {i: history_end(kafka, topic, i) for i in range(LANES["log.partitions"])}
    records = {i: [item.value for item in kafka.read(topic, end, i)] for i, end in ends.items()}
    with kafka.admin() as admin:
        admin.delete_topics([topic])
    wait_until(lambda: topic not in topics(kafka), "the topic to be gone")
    wait_until(lambda: made(kafka, wanted), "the topic to be there again")
    producer = kafka.producer()
    try:
        for i, values in records.items():
            for value in change(i, values):
                producer.send(topic, value, partition=i).get(60)
    finally:
        producer.close()


def topics(kafka):
    with kafka.admin() as admin:
        return admin.list_topics()


def made(kafka, wanted):
    try:
        kafka.topic("log", LANES["log.partitions"], **wanted)
        return True
    except kafka.module.errors.TopicAlreadyExistsError:
        return False  # of the old one


def history_end(kafka, topic, partition):
    consumer = kafka.module.KafkaConsumer(**kafka.options())
    try:
        place = kafka.module.TopicPartition(topic, partition)
        return consumer.end_offsets([place])[place]
    finally:
        consumer.close()


@pytest.mark.parametrize("how", ["made anew", "its end is another"])
def test_a_mirror_is_never_spliced(shared_log, kafka, how):
    node = shared_log("a", **{"log.partitions": 4})
    before = epoch(node)
    places = [publish(node, "m/x", b"%d" % i).json()["pos"] for i in range(3)]
    node.stop()
    if how == "made anew":
        rewrite(kafka, node, lambda lane, values: [])
        left = []
    else:  # as after an election of a copy that was behind: others stand in their places
        rewrite(kafka, node, lambda lane, values: values[:1] + values[:0:-1])
        left = ["2", "1", "0"]
    node.restart()
    assert epoch(node) != before and texts(node, "m/x") == left
    with Web(node) as web:
        answer = web.ask({"sub": {"topic": "m/x", "from": {"after": [places[-1]]}}})
        assert "ok" in answer and web.next("gap")["why"] == "epoch"
    assert publish(node, "m/x", b"new").json()["pos"].startswith(epoch(node))
    has_all(node, "m/x", left + ["new"])
    text = "have different records" if left else "is filled anew"
    assert any(text in line for line in node.stderr)


def test_records_of_others_keep_their_place_and_say_nothing(shared_log, kafka):
    node = shared_log("a")
    publish(node, "f", b"1")
    producer = kafka.producer()
    try:
        for partition in range(LANES["log.partitions"]):
            for value in (b"", b"junk", b"x" * 5000, None):
                producer.send(f"{kafka.prefix}.log", value, key=b"k", partition=partition).get(60)
    finally:
        producer.close()
    publish(node, "f", b"2")
    assert texts(node, "f") == ["1", "2"] and node.metric("tidegate_kafka_foreign_records_total") == 16
    node.stop()
    node.restart()
    assert texts(node, "f") == ["1", "2"]


# --- what is refused -----------------------------------------------------------------------------------------------

def refused(tmp_path, given):
    command = [str(PROGRAM), "serve", "--set", f"data.dir={tmp_path / 'refused'}"]
    for key, value in {"mqtt.port": 0, "http.port": 0, "api.port": 0, **given}.items():
        command += ["--set", f"{key}={value}"]
    environment = {**os.environ, "LD_PRELOAD": str(c11_threads())} if PRESET == "tsan" else None
    ended = subprocess.run(command, capture_output=True, text=True, timeout=8 * WAIT_S, env=environment)
    assert ended.returncode not in (0, -6, -11), ended.stderr
    return ended.stderr


def test_what_the_settings_may_not_ask_for(tmp_path):
    log = {"log.backend": "kafka", "kafka.brokers": "127.0.0.1:1"}
    for more, said in (({"kafka.brokers": ""}, "kafka.brokers"), ({"log.retention_ms": 1000}, "retention"),
                       ({"log.retention_bytes": 1 << 30}, "retention"), ({"kafka.prefix": "a b"}, "kafka.prefix"),
                       ({"kafka.min_isr": 4}, "kafka.min_isr"), ({"kafka.ca_file": "x"}, "kafka.tls"),
                       ({"kafka.user": "x"}, "kafka.sasl"), ({"kafka.start_ms": 1000}, "does not answer")):
        assert said in refused(tmp_path, {**log, **more}), more


def test_a_topic_that_promises_less_is_refused(shared_log, kafka, tmp_path, make_node):
    wanted = {"message.timestamp.type": "LogAppendTime", "retention.ms": "-1", "retention.bytes": "-1",
              "unclean.leader.election.enable": "false", "max.message.bytes": "2000000"}
    base = settings(kafka)
    for key, value in (("retention.ms", "1000"), ("message.timestamp.type", "CreateTime"), ("cleanup.policy", "compact"),
                       ("unclean.leader.election.enable", "true"), ("max.message.bytes", "1000")):
        name = key.replace(".", "-")
        kafka.topic(f"{name}.log", LANES["log.partitions"], **{**wanted, key: value})
        assert key in refused(tmp_path, {**base, "kafka.prefix": f"{kafka.prefix}.{name}"})
    kafka.topic("two.log", 2, **wanted)
    assert "log.partitions" in refused(tmp_path, {**base, "kafka.prefix": f"{kafka.prefix}.two"})
    kafka.topic("few.log", LANES["log.partitions"], **wanted)
    few = {**base, "kafka.prefix": f"{kafka.prefix}.few", "kafka.replication": 3, "kafka.min_isr": 2}
    assert "kafka.accept_less" in refused(tmp_path, few)
    node = make_node({**few, "kafka.accept_less": "true"})
    said = curl(node.api("/v1/capabilities")).json()["durability"]
    assert said["accepted_less"] and said["copies"] == 1 and said["min_copies"] == 1


def test_folders_are_not_mixed(shared_log, make_node, tmp_path):
    own = make_node()
    publish(own, "mine", b"x")
    own.stop()
    mirror = shared_log("a")
    mirror.stop()
    keys = {key: value for key, value in mirror.settings.items() if key.split(".")[0] in ("kafka", "log")}
    assert "holds a log of its own" in refused(tmp_path, {**keys, "data.dir": own.data})
    assert "mirror" in refused(tmp_path, {"data.dir": mirror.data})
    own.restart()
    assert texts(own, "mine") == ["x"]


@pytest.mark.parametrize("listener,login", [("sasl", True), ("tls", False)])
def test_with_tls(make_node, kafka, tmp_path, listener, login):
    (tmp_path / "password").write_text(PASSWORD + "\n")
    options = kafka.secure("sasl" if login else "tls", "PLAIN" if login else None)
    more = {"kafka.brokers": kafka.servers(listener), "kafka.tls": "true", "kafka.ca_file": options["ssl_cafile"]}
    if login:
        more.update({"kafka.sasl": "plain", "kafka.user": USER, "kafka.password_file": tmp_path / "password"})
    else:
        more.update({"kafka.cert_file": options["ssl_certfile"], "kafka.key_file": options["ssl_keyfile"]})
    node = make_node(settings(kafka, **more))
    publish(node, "t", b"x")
    assert texts(node, "t") == ["x"]


@pytest.mark.skipif(PRESET == "tsan", reason="Criterion does not run under ThreadSanitizer")
def test_the_contract_of_a_log_holds_for_kafka(kafka):
    """tests/unit/routing/test_log_contract.c, which ctest runs over the embedded log and the fake."""
    program = ROOT / "build" / PRESET / "tests" / "unit.routing.log_contract"
    if not program.exists():
        pytest.skip(f"{program} is not built")
    ended = subprocess.run([program, "--short-filename"], capture_output=True, text=True, timeout=240,
                           env={**os.environ, "TG_KAFKA": kafka.servers()})
    assert ended.returncode == 0 and "Sanitizer" not in ended.stderr, ended.stderr


# --- several nodes -------------------------------------------------------------------------------------------------

def states(nodes):
    """What each folds out of the log, started anew after a clean stop: node by node."""
    found = []
    for node in nodes:
        node.stop()
        found.append(node.states("stop"))
    return found


def test_published_anywhere_delivered_everywhere(shared_log):
    a, b, c = nodes = [shared_log(name) for name in "abc"]
    assert len({epoch(node) for node in nodes}) == 1
    with Web(a) as web, Wire(b, 5, "device") as device:
        web.subscribe("n/#")
        assert device.subscribe(("n/#", 1)) == b"\x01"
        sent = []
        for i in range(60):
            sent.append(publish(nodes[i % 3], f"n/{i % 7}", b"%d" % i).json()["pos"])
        assert sorted(int(text) for text in texts_of(web, 60)) == list(range(60))
        assert sorted(int(device.message().payload) for _ in range(60)) == list(range(60))
        device.quiet(0.1)
        assert web.events.empty(), "once each"
        assert len(set(sent)) == 60
    for topic in range(7):
        has_all(b, f"n/{topic}", texts(a, f"n/{topic}"))
        has_all(c, f"n/{topic}", texts(a, f"n/{topic}"))
    # Retained, and once, wherever.
    publish(a, "kept", b"1", "-H", "Tidegate-Retain: 1")
    wait_until(lambda: curl(c.api("/v1/retained?topic=kept")).json()["messages"], "the retained message at c")
    key = ["-H", "Idempotency-Key: k"]
    answers = [publish(node, "once", b"x", *key).json() for node in nodes]
    assert [answer["dup"] for answer in answers] == [False, True, True] and len({x["pos"] for x in answers}) == 1
    for node in nodes:
        has_all(node, "once", ["x"])
    first, *others = states(nodes)
    assert others == [first, first], "the same state at every node"


def test_a_session_goes_to_another_node(shared_log):
    a, b = shared_log("a"), shared_log("b")
    first = keep(a, 5, "moves")
    assert first.subscribe(("s/#", 1)) == b"\x01"
    publish(a, "s/1", b"1")
    assert first.message().payload == b"1"
    first.send(b"\xe0\x00")
    first.rest()
    first.close()
    publish(b, "s/2", b"2")
    has_all(b, "s/2", ["2"])
    def resumed():
        back = keep(b, 5, "moves")
        if back.connack[0] == 1:
            return back
        back.close()
        return None
    back = resumed()
    assert back, "the session is at b too"
    while back.message().payload != b"2":
        pass
    publish(a, "s/3", b"3")
    assert back.message().payload == b"3"
    back.close()


def test_one_client_at_two_nodes_is_one_connection(shared_log):
    a, b = shared_log("a"), shared_log("b")
    first = keep(a, 5, "same")
    assert first.subscribe(("c/#", 1)) == b"\x01"
    second = keep(b, 5, "same")
    assert second.connack[0] == 1 and first.disconnect_code() == 0x8E
    publish(a, "c/1", b"1")
    assert second.message().payload == b"1"
    second.close()
    first.close()


def test_the_revoked_are_closed_at_every_node(shared_log, tmp_path):
    a = shared_log("a")
    b = shared_log("b", key=a.data / "token.key")
    token = create(a, "ann")
    with Web(b, {"token": token}) as web:
        curl(a.api("/v1/revocations"), "-H", "Content-Type: application/json", data=json.dumps({"user": "ann"}).encode())
        assert web.close_code() == 4101
    b.stop()
    b.restart()
    assert curl(b.web("/poll?topic=x"), *bearer(token), check=None).status == 401


def test_shared_subscriptions_are_refused(shared_log):
    node = shared_log("a")
    with Wire(node, 5, "member") as member:
        member.send(subscribe(1, ("$share/g/x", 1)))
        assert member.expect(SUBACK)[-1] >= 0x80


# --- Kafka away ----------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def mortal_broker(tmp_path_factory):
    brokers = join(tmp_path_factory.mktemp("kafka") / "mortal")
    yield brokers
    brokers.leave()


@pytest.fixture
def mortal(mortal_broker):
    """One broker that the tests here may end."""
    mortal_broker.begin(1)
    return Kafka(mortal_broker)


def test_kafka_is_away_and_comes_back(make_node, mortal, tmp_path):
    slow = {"kafka.message_timeout_ms": 120000}  # what is not refused at once waits
    a, b = (make_node(settings(mortal, **{"node.id": name, **slow})) for name in "ab")
    publish(a, "x", b"1")
    has_all(b, "x", ["1"])
    with Web(b) as web:
        web.subscribe("x")
        mortal.brokers.kill(1)
        wait_until(lambda: curl(a.api("/readyz"), check=None).status == 503, "not ready")
        assert "log_unreachable" in curl(a.api("/readyz"), check=503).body.decode()
        refused_at_once = publish(a, "x", b"no", check=503).json()
        assert refused_at_once["code"] == "unavailable" and "unknown" not in refused_at_once
        with Wire(a, 5, "device") as device:
            assert device.publish("x", b"no", 1) == 0x97
        assert texts(a, "x") == ["1"], "history goes on"
        a.stop()
        assert "does not answer" in refused(tmp_path, settings(mortal, **{"kafka.start_ms": 1000}))
        mortal.brokers.begin(1)
        a.restart()
        wait_until(lambda: curl(b.api("/readyz"), check=None).status == 200, "ready again")
        wait_until(lambda: publish(a, "x", b"2", check=None).status == 200, "a publish")
        assert web.next()["text"] == "2", "who was there has stayed"


def test_a_node_that_hears_nothing_is_not_ready(make_node, mortal):
    """It publishes nothing, so no publish tells it that it is cut off."""
    node = make_node(settings(mortal))
    mortal.brokers.freeze(1)
    try:
        wait_until(lambda: "behind" in curl(node.api("/readyz"), check=None).body.decode(), "not ready")
    finally:
        mortal.brokers.thaw(1)
    wait_until(lambda: curl(node.api("/readyz"), check=None).status == 200, "ready again")
    publish(node, "x", b"1")


def test_an_unknown_outcome_is_told_and_is_no_end(make_node, mortal):
    node = make_node(settings(mortal, **{"kafka.message_timeout_ms": 2000, "log.partitions": 1}))
    publish(node, "u", b"1")
    with Web(node) as web, Wire(node, 5, "device") as device:
        mortal.brokers.freeze(1)
        try:
            asked = web.request({"pub": {"topic": "u", "text": "3"}})
            device.send(mqtt_publish("u", b"4", 1, 1))
            said = publish(node, "u", b"2", check=503).json()
            device.socket.settimeout(REQUEST_S)
            error, code = web.answer(asked, REQUEST_S), device.expect(PUBACK)[2]
        finally:
            mortal.brokers.thaw(1)
        assert said["code"] == "unavailable" and said.get("unknown") is True, said
        assert error["err"]["code"] == "unavailable" and error["err"]["unknown"] is True and error["err"]["temporary"] is True, error
        assert code == 0x80
    unknown, number = {"2", "3", "4"}, 5

    def taken():
        nonlocal number
        answer = publish(node, "u", b"%d" % number, check=None)
        if answer.status != 200 and answer.json().get("unknown"):
            unknown.add(str(number))
        number += 1
        return answer.status == 200
    wait_until(taken, "a publish")
    wait_until(lambda: node.metric("tidegate_publishes_unknown") == len(unknown - set(texts(node, "u"))),
               "each outcome to be what it is")
    there = texts(node, "u")
    ordered = [text for text in there if text not in {"2", "3", "4"}]  # these three were under way at once
    assert ordered == sorted(set(ordered), key=int) and {"1", str(number - 1)} <= set(there)
    assert len(set(there)) == len(there)
