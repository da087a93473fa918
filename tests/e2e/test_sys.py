"""What a node says of itself at $SYS/ (PROTOCOL.md 3): mosquitto's names, its own figures, nothing in the log."""

import subprocess

import pytest

from clients import WAIT_S, MosquittoSub, Web, mosquitto_pub, need, publish
from mqtt_wire import SUBACK, Wire, subscribe
from node import wait_until
from tokens import make, mqtt_client, tidegate

LOADS = ("messages/received", "messages/sent", "publish/received", "publish/sent", "publish/dropped", "bytes/received",
         "bytes/sent", "sockets", "connections")
# What mosquitto 2.0.11 publishes, as its program text has it ...
MOSQUITTO = {"version", "uptime", "clients/total", "clients/maximum", "clients/inactive", "clients/active", "clients/connected",
             "clients/expired", "clients/disconnected", "messages/stored", "messages/received", "messages/sent", "bytes/received",
             "bytes/sent", "heap/current", "heap/maximum", "store/messages/count", "store/messages/bytes", "subscriptions/count",
             "shared_subscriptions/count", "retained messages/count", "publish/messages/dropped", "publish/messages/received",
             "publish/messages/sent", "publish/bytes/received", "publish/bytes/sent",
             *(f"load/{load}/{span}" for load in LOADS for span in ("1min", "5min", "15min"))}
# ... and what has no like here (PROTOCOL.md says why).
ABSENT = {"clients/expired", "messages/stored", "store/messages/count", "heap/current", "heap/maximum", "shared_subscriptions/count"}
FAST = {"sys.interval_ms": "100ms"}


def now(node, filter="$SYS/#", *arguments):
    """topic below $SYS/broker/ -> text, as a new subscriber gets it. It ends with the first message that is not retained,
    or with another one."""
    done = subprocess.run([need("mosquitto_sub"), "-h", "127.0.0.1", "-p", str(node.ports["mqtt"]), "-t", filter,
                           "--retained-only", "-F", "%r %p %t", "-W", str(WAIT_S), *arguments], capture_output=True, text=True,
                          timeout=WAIT_S + 10)
    found = {}
    for line in done.stdout.splitlines():
        head, topic = line.split("$SYS/broker/")
        assert head.startswith("1 "), line
        found[topic] = head[2:].strip()
    return found


def test_the_names_are_mosquittos(make_node):
    node = make_node({**FAST, "node.loops": 2})
    values = now(node)
    assert set(values) == MOSQUITTO - ABSENT
    assert values["version"].startswith("tidegate version ") and values["uptime"].endswith(" seconds")
    for name, text in values.items():
        if name not in ("version", "uptime"):
            assert float(text) >= 0, name


def test_the_figures_are_the_nodes(make_node):
    """Counters move by exactly what has happened, and a change reaches who is subscribed already."""
    node = make_node(FAST)
    before = now(node)
    for number in range(3):
        mosquitto_pub(node, f"room/{number}", b"12345", "-r")
    with Wire(node, 5, "kept-or-not"):
        with MosquittoSub(node, "$SYS/broker/publish/messages/received", qos=0) as client:
            publish(node, "room/4", b"1234567")
            wait_until(lambda: client.next()[1] == b"%d" % (int(before["publish/messages/received"]) + 4), "the fourth message")
        after = wait_until(lambda: (found := now(node))["retained messages/count"] == "3" and found, "three retained messages")
    assert int(after["publish/messages/received"]) - int(before["publish/messages/received"]) == 4
    assert int(after["publish/bytes/received"]) - int(before["publish/bytes/received"]) == 22
    assert int(after["clients/maximum"]) >= 2 and int(after["clients/connected"]) >= 1 and after["clients/disconnected"] == "0"
    assert int(after["messages/received"]) - int(before["messages/received"]) >= 3 * 3 + 1  # CONNECT, PUBLISH, DISCONNECT
    assert int(after["bytes/sent"]) > int(before["bytes/sent"]) and int(after["store/messages/bytes"]) > 0
    assert float(after["load/publish/received/1min"]) > float(after["load/publish/received/15min"]) > 0
    assert float(after["load/connections/1min"]) > 0 == float(after["load/publish/dropped/1min"])


def test_a_session_that_is_away_is_a_client(make_node):
    node = make_node(FAST)
    subprocess.run([need("mosquitto_sub"), "-h", "127.0.0.1", "-p", str(node.ports["mqtt"]), "-V", "5", "-i", "away", "-c",
                    "-x", "3600", "-q", "1", "-t", "away/#", "-E"], check=True, timeout=WAIT_S)
    values = wait_until(lambda: (found := now(node))["clients/disconnected"] == "1" and found, "the session")
    assert values["clients/inactive"] == "1" and int(values["clients/total"]) == int(values["clients/connected"]) + 1
    assert node.metric("tidegate_sessions_attached") == 0


def test_nothing_of_it_is_in_the_log_and_wildcards_pass_it_by(make_node):
    node = make_node(FAST)
    records = node.metric("tidegate_log_records_total")
    with MosquittoSub(node, "#", qos=0) as everything, MosquittoSub(node, "+/#", qos=0) as levels, \
            MosquittoSub(node, "+/broker/uptime", qos=0) as first, MosquittoSub(node, "$SYS/+/uptime", qos=0) as named:
        assert named.next()[0] == named.next()[0] == "$SYS/broker/uptime"
        publish(node, "x", b"1")
        assert everything.next() == levels.next() == ("x", b"1")
        publish(node, "y/broker/uptime", b"2")
        assert first.next()[0] == "y/broker/uptime"
        assert node.metric("tidegate_log_records_total") == records + 2


def test_by_websocket(make_node):
    node = make_node(FAST)
    with Web(node) as web:
        web.subscribe("$SYS/broker/clients/+")
        said = {}
        while (item := web.event()) and "live" not in item:
            if "msg" in item:
                message = item["msg"]
                assert message["retained"] is True and message["stored"] is False and "pos" not in message
                said[message["topic"]] = message["text"]
        assert len(said) == 6 and said["$SYS/broker/clients/connected"].isdigit()
        with Web(node):
            changed = web.next()
            assert changed["topic"].startswith("$SYS/broker/clients/") and "retained" not in changed
        web.subscribe("$SYS/broker/uptime", retained=False)
        assert "retained" not in web.next()
        for wish in ({"ack": True}, {"from": "earliest"}, {"from": {"last": 1}}, {"from": {"time": 1}}):
            assert web.ask({"sub": {"topic": "$SYS/#", **wish}})["err"]["code"] == "unsupported", wish
        assert web.ask({"get": {"topic": "$SYS/broker/uptime", "from": "earliest"}})["err"]["code"] == "unsupported"
        assert web.ask({"pub": {"topic": "$SYS/broker/uptime", "text": "0"}})["err"]["code"] == "forbidden"
        assert "ok" in web.ask({"unsub": {"topic": "$SYS/broker/uptime"}})


@pytest.mark.parametrize("version", [4, 5])
def test_who_may_read(make_node, tmp_path, version):
    """Without rules anonymous clients, who are here, may; users may not. With rules, whom they permit. Nobody publishes."""
    allowed, denied = 1, 0x87 if version == 5 else 0x80
    rules = tmp_path / "acl.yaml"
    rules.write_text("acl:\n  - {principal: operator, op: subscribe, topic: \"$SYS/#\"}\n")
    for config, users in ((None, {None: allowed, "operator": denied}), (rules, {None: denied, "operator": allowed, "ann": denied})):
        node = make_node(FAST, config=config)
        for user, answer in users.items():
            wire = Wire(node, version) if user is None else mqtt_client(node, make(node, user).encode(), version)
            with wire:
                wire.send(subscribe(7, "$SYS/#", version=version))
                assert wire.expect(SUBACK)[-1] == answer, user


def test_off_and_on_by_reload(make_node, tmp_path):
    file = tmp_path / "tidegate.yaml"

    def set_interval(text):
        file.write_text(f"sys:\n  interval_ms: {text}\n")
        tidegate("reload", "--data", str(node.data))  # waits for the outcome

    file.write_text("sys:\n  interval_ms: 0\n")
    node = make_node(config=file)
    with Web(node) as web:
        sub = {"sub": {"topic": "$SYS/broker/version"}}
        assert web.ask(sub)["err"]["code"] == "unsupported"
        set_interval("100ms")
        assert "ok" in web.ask(sub)
        assert web.next()["text"].startswith("tidegate version")
        set_interval("1h")
        assert set(now(node, "$SYS/#", "-C", str(len(MOSQUITTO - ABSENT)))) == MOSQUITTO - ABSENT
        set_interval("0")
        assert web.ask({"sub": {"topic": "$SYS/broker/uptime"}})["err"]["code"] == "unsupported"
    for wrong in ("99ms", "61m"):
        done = subprocess.run([*node.command()[:1], "config", "check", "--set", f"sys.interval_ms={wrong}"], capture_output=True, text=True)
        assert done.returncode == 78 and "sys.interval_ms" in done.stderr
