"""`tidegate log verify|stat|cat|export|import` on real logs, sound and damaged, at rest and in use."""

import json
import os
import random
import shutil
import subprocess
import threading
import time

import pytest

from clients import Web, curl, history, module, mosquitto_pub, publish
from http_wire import Wire, request
from log_tool import environment, log, messages, verify
from node import PROGRAM, wait_until

SMALL = {"log.segment_bytes": "64K"}


def fill(node, count=300, size=900):
    """Many messages over one connection, all acknowledged."""
    wire = Wire(node, 30)
    for number in range(count):
        body = json.dumps({"n": number, "pad": "x" * size}).encode()
        assert wire.ask(request(f"/v1/publish/t/{number % 7}", body=body)).status == 200
    wire.close()


def segments(node, lane=0, suffix="seg"):
    return sorted((node.data / str(lane)).glob(f"*.{suffix}"))


def flip(path, at):
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0x20]))


def snapshot_of(folder):
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


def test_verify_of_a_sound_log_changes_nothing(make_node):
    node = make_node({**SMALL, "log.partitions": 2})
    fill(node)
    node.stop()
    before = snapshot_of(node.data)
    faults, summary = verify(node.data)
    assert faults == [] and summary["ok"] and not summary["running"]
    assert summary["messages"] == 300 and summary["partitions"] == 2 and summary["segments"] > 4
    assert "ok: 0 faults" in log("verify", data=node.data).out
    assert snapshot_of(node.data) == before


def test_verify_names_every_planted_damage(make_node):
    node = make_node(SMALL)
    fill(node)
    node.stop()
    files = segments(node)
    assert len(files) > 4
    dice = random.Random(4)
    planted = {}
    for path in dice.sample(files, 3):
        at = dice.randrange(200, path.stat().st_size - 1)
        flip(path, at)
        planted[str(path)] = at
    faults, summary = verify(node.data, check=1)
    assert not summary["ok"] and summary["faults"] == 3
    lost = 0
    for fault in faults:
        assert fault["fault"] == "records" and fault["partition"] == 0
        assert fault["position"] <= planted.pop(fault["file"]) < fault["position_end"]
        lost += fault["to"] - fault["from"]
    assert planted == {} and summary["messages"] == 300 - lost
    # What the node says of it when it starts is the same.
    node.restart()
    assert len([line for line in node.stderr if "answered as damaged" in line]) <= 3
    assert len(history_with_holes(node)) == 300 - lost


def history_with_holes(node):
    """Reads past what is damaged."""
    found, start = [], "earliest"
    for topic in range(7):
        start = "earliest"
        while True:
            answer = curl(node.api(f"/v1/history/t/{topic}?max=1000&from={start}"), check=None)
            page = answer.json()
            found += page.get("messages", [])
            if answer.status == 200 and not page["messages"]:
                break
            start = page["next"]
    return found


@pytest.mark.parametrize("which", ["first", "middle", "last"])
def test_verify_names_a_missing_file(make_node, which):
    node = make_node(SMALL)
    fill(node)
    node.stop()
    files = segments(node)
    path = {"first": files[0], "middle": files[len(files) // 2], "last": files[-1]}[which]
    path.unlink()
    faults, summary = verify(node.data, check=1)
    assert [fault["fault"] for fault in faults] == ["missing"]
    assert faults[0]["file"] == str(path)
    lost = faults[0]["to"] - faults[0]["from"] - (which == "first")  # START has an offset too
    assert summary["messages"] == 300 - lost


def test_verify_names_a_truncated_file_and_a_bad_index(make_node):
    node = make_node(SMALL)
    fill(node)
    node.stop()
    files = segments(node)
    with open(files[1], "r+b") as file:
        file.truncate(20000)
    flip(segments(node, suffix="idx")[3], 100)
    faults, _ = verify(node.data, check=1)
    assert sorted(fault["fault"] for fault in faults) == ["index", "index", "records"]
    text = log("verify", data=node.data, check=1).out
    assert str(files[1]) in text and "DAMAGED: 3 faults" in text


def test_a_torn_end_is_told_and_is_no_damage(make_node):
    node = make_node()
    fill(node, 50)
    node.kill9()
    active = segments(node)[-1]
    data = active.read_bytes()
    end = len(data.rstrip(b"\0"))
    with open(active, "r+b") as file:
        file.seek(end + 8)
        file.write(data[64:64 + 5000])  # a flight that did not arrive whole
    faults, summary = verify(node.data)
    assert faults == [] and summary["ok"] and summary["messages"] == 50
    assert "was not clean" in log("verify", data=node.data).out


@pytest.mark.deadline(180)
def test_verify_beside_a_running_node_is_clean(make_node):
    """Under load, with segments ending and retention removing them all the time."""
    node = make_node({**SMALL, "log.retention_bytes": "512K", "log.partitions": 2})
    end = threading.Event()

    def load():
        wire = Wire(node, 60)
        number = 0
        while not end.is_set():
            body = b"x" * (200 + number % 3000)
            assert wire.ask(request(f"/v1/publish/t/{number % 5}", body=body)).status == 200
            number += 1
        wire.close()

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: node.metric("tidegate_log_trimmed_segments_total") > 0, "retention to remove something", 60)
        for _ in range(10):
            faults, summary = verify(node.data)
            assert faults == [] and summary["running"], faults
        assert log("cat", data=node.data).err == ""
    finally:
        end.set()
        for thread in threads:
            thread.join()


def test_stat_counts(make_node):
    node = make_node({**SMALL, "log.partitions": 2})
    fill(node, 100)
    publish(node, "big", b"y" * 50000)
    publish(node, "kept", b"1", "-H", "Tidegate-Retain: 1")
    publish(node, "cleared", b"1", "-H", "Tidegate-Retain: 1")
    curl(node.api("/v1/retained/cleared"), "-X", "DELETE")
    running = log("stat", "--json", data=node.data).lines()[0]
    assert running["state"] == "running"
    node.stop()
    (stat,) = log("stat", "--json", "--topics", 1, data=node.data).lines()
    assert stat["state"] == "stopped" and stat["messages"] == running["messages"] == 104
    assert stat["topics"] == 10 and stat["retained"] == 1 and stat["faults"] == 0
    assert stat["largest"] == [{"topic": "big", "messages": 1, "payload_bytes": 50000}]
    assert sum(part["messages"] for part in stat["partitions"]) == 104
    assert stat["first_ts"] <= stat["last_ts"]
    text = log("stat", "--topics", 3, data=node.data).out
    assert "retained   1" in text and "big" in text
    log("stat", "--topics", "x", data=node.data, check=2)


def test_cat_is_what_history_shows(make_node):
    node = make_node({"log.partitions": 2})
    fill(node, 40, 10)
    publish(node, "b", b"\xff\0", "-H", "Content-Type: image/png", "-H", "Tidegate-Key: k")
    want = [message for topic in range(7) for message in history(node, f"t/{topic}")] + history(node, "b")
    key = lambda message: message["pos"]
    assert sorted(log("cat", data=node.data).lines(), key=key) == sorted(want, key=key)
    one = history(node, "t/3")
    assert log("cat", "--topic", "t/3", data=node.data).lines() == one
    assert log("cat", "--topic", "t/+", "--max", 4, data=node.data).lines() == sorted(
        (m for m in want if m["topic"] != "b"), key=lambda m: (m["ts"], m["pos"]))[:4]
    # Strictly after a position, up to and with another; by time; by partition.
    assert log("cat", "--topic", "t/3", "--from", one[1]["pos"], "--to", one[3]["pos"], data=node.data).lines() == one[2:4]
    middle = one[3]["ts"]
    assert log("cat", "--topic", "t/3", "--from", f"time:{middle}", data=node.data).lines() == [
        m for m in one if m["ts"] >= middle]
    assert log("cat", "--topic", "t/3", "--to", f"time:{middle}", data=node.data).lines() == [
        m for m in one if m["ts"] < middle]
    lanes = [log("cat", "--partition", lane, data=node.data).lines() for lane in (0, 1)]
    assert all(lanes) and len(lanes[0]) + len(lanes[1]) == 41
    for wrong in (["--partition", 2], ["--from", "x"], ["--to", "earliest"], ["--topic", "a/#/b"], ["--max", 0],
                  ["--from", "00000000" + one[0]["pos"][8:]], ["--what", 1], ["more"], ["--max"]):
        log("cat", *wrong, data=node.data, check=2)


def test_cat_tells_damage_and_ends_with_1(make_node):
    node = make_node(SMALL)
    fill(node, 100)
    node.stop()
    flip(segments(node)[0], 5000)
    ran = log("cat", data=node.data, check=1)
    assert len(ran.out.splitlines()) == 99
    assert "do not verify" in ran.err and str(segments(node)[0]) in ran.err
    assert len(log("export", data=node.data, check=1).out.splitlines()) == 99


def test_cat_into_a_pipe_that_closes_is_no_error(make_node):
    node = make_node()
    fill(node, 300)
    node.stop()
    process = subprocess.Popen([str(PROGRAM), "log", "cat", "--data", str(node.data)], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, env=environment())
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(30) == 0


def everything(node):
    """A message for each thing that the log keeps of one."""
    paho = module("paho.mqtt.client")
    properties = module("paho.mqtt.properties").Properties(module("paho.mqtt.packettypes").PacketTypes.PUBLISH)
    properties.UserProperty = [("b", "1"), ("a", "2"), ("b", "3")]
    properties.ContentType = "text/x"
    properties.ResponseTopic = "answers/here"
    properties.CorrelationData = b"\0\xff"
    properties.MessageExpiryInterval = 100000
    properties.PayloadFormatIndicator = 1
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=5) if hasattr(paho, "CallbackAPIVersion") \
        else paho.Client(protocol=5)
    client.connect("127.0.0.1", node.ports["mqtt"])
    client.loop_start()
    client.publish("m/all", "täxt", qos=1, retain=True, properties=properties).wait_for_publish(20)
    client.publish("m/bytes", b"\x80\x81", qos=1).wait_for_publish(20)
    client.loop_stop()
    client.disconnect()
    mosquitto_pub(node, "m/empty", "")
    publish(node, "h/json", b'{"a":\r\n  1.50}\n', "-H", "Content-Type: application/json", "-H", "Tidegate-Key: kk",
            "-H", "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    publish(node, "h/ttl", b"[1]", "-H", "Tidegate-Ttl-Ms: 9007199254740991")
    publish(node, "h/once", b"1", "-H", "Idempotency-Key: abc")
    with Web(node, hello={}) as web:
        web.subscribe("x/#", ack=True)  # leaves a record of the session, which is no message
        web.ask({"pub": {"topic": "w/p", "data": 1, "producer": "p", "seq": 7}})
        web.ask({"pub": {"topic": "w/x", "data": {"deep": [1, {"x": None}]}, "key": "k", "props": {"p": ["1", "2"]}}})
    fill(node, 60, 50)


@pytest.mark.parametrize("partitions", [1, 3])
def test_export_import_export_gives_the_same_messages(make_node, tmp_path, partitions):
    node = make_node({"log.partitions": 2})
    everything(node)
    node.stop()
    want = messages(node.data)
    assert len(want) == 68
    full = next(line for line in want if line["topic"] == "m/all")
    assert full["qos"] == 1 and full["retain"] and full["pfi"] and full["expires"] > full["ts"]
    assert full["props"] == [["b", "1"], ["a", "2"], ["b", "3"]] and [pair[0] for pair in full["more"]] == [4, 5]
    file = tmp_path / "export"
    file.write_text(log("export", data=node.data).out)
    copy = tmp_path / "copy"
    ran = log("import", file, "--set", f"log.partitions={partitions}", data=copy)
    assert "imported 68 messages" in ran.out and "0 times raised" in ran.out
    assert messages(copy) == want
    assert verify(copy)[1]["messages"] == 68
    # A node serves it, and what it says of each message is the same but for the position.
    other = make_node({"log.partitions": partitions}, data=copy)
    for line in want:
        (message,) = [m for m in read_back(other, line["topic"]) if m["ts"] == line["ts"]][:1]
        assert message.get("key") == line.get("key") and message.get("type") == line.get("type")
    assert curl(other.api("/v1/retained/m/all")).json()["messages"][0]["text"] == "täxt"


def read_back(node, topic):
    other = curl(node.api(f"/v1/history?topic={topic}&max=1000")).json()
    return other["messages"]


def test_import_appends_to_a_log_that_exists(make_node, tmp_path):
    node = make_node()
    fill(node, 20)
    node.stop()
    text = log("export", data=node.data).out
    log("import", "-", data=node.data, stdin=text)
    # The times of the second run begin before those of the first: that is allowed, and kept.
    assert len(messages(node.data)) == 40
    assert verify(node.data)[0] == []
    node.restart()
    found = history(node, "t/1")
    assert len(found) == 6 and found[0]["ts"] == found[3]["ts"] and found[0]["pos"] < found[3]["pos"]
    assert publish(node, "t/1", b"new").json()["pos"] > found[-1]["pos"]


def test_import_stops_at_a_bad_line_or_goes_on(make_node, tmp_path):
    lines = [json.dumps({"topic": "a", "ts": 1000 + number, "text": str(number)}) for number in range(6)]
    lines[2] = '{"topic":"a/#","text":"x"}'
    lines[4] = lines[4][:-5]
    text = "\n".join(lines) + "\n"
    first = tmp_path / "first"
    ran = log("import", "-", data=first, stdin=text, check=1)
    assert "imported 2 messages" in ran.out and "line 3 topic is not" in ran.err
    assert [m["text"] for m in log("cat", data=first).lines()] == ["0", "1"]
    # The rest can follow from that line on.
    log("import", "-", "--keep-going", data=first, stdin="\n".join(lines[3:]), check=1)
    assert [m["text"] for m in log("cat", data=first).lines()] == ["0", "1", "3", "5"]
    second = tmp_path / "second"
    ran = log("import", "-", "--keep-going", data=second, stdin=text, check=1)
    assert "imported 4 messages" in ran.out and "2 lines refused" in ran.out
    assert "line 3 " in ran.err and "line 5 " in ran.err
    assert [(m["text"], m["ts"]) for m in log("cat", data=second).lines()] == [
        ("0", 1000), ("1", 1001), ("3", 1003), ("5", 1005)]


def test_import_raises_times_that_fall(make_node, tmp_path):
    times = [50, 40, 60, 59]
    text = "".join(json.dumps({"topic": "a", "ts": ts, "text": ""}) + "\n" for ts in times)
    ran = log("import", "-", data=tmp_path / "log", stdin=text)
    assert "2 times raised" in ran.out
    assert [m["ts"] for m in log("cat", data=tmp_path / "log").lines()] == [50, 50, 60, 60]


def test_import_refuses_the_future(tmp_path):
    """Times never fall within a run, so one from the far future would become that of all that follow."""
    day = 24 * 3600 * 1000
    text = "".join(json.dumps({"topic": "a", "ts": ts, "text": str(ts)}) + "\n"
                   for ts in (1, 2**53 - 1, int(time.time() * 1000) + 2 * day, int(time.time() * 1000) + day // 2, 5))
    ran = log("import", "-", data=tmp_path / "log", stdin=text, check=1)
    assert "line 2" in ran.err and "a day ahead" in ran.err
    ran = log("import", "-", "--keep-going", data=tmp_path / "other", stdin=text, check=1)
    assert len(log("cat", data=tmp_path / "other").lines()) == 3


def test_import_holds_lines_to_the_limits(tmp_path):
    line = json.dumps({"topic": "a", "text": "x" * 100}) + "\n"
    ran = log("import", "-", "--set", "limit.message_bytes=99", data=tmp_path / "log", stdin=line, check=1)
    assert "limit.message_bytes" in ran.err
    log("import", "-", "--set", "limit.message_bytes=100", data=tmp_path / "log", stdin=line)
    ran = log("import", "-", "--set", "limit.message_bytes=100", data=tmp_path / "log", check=1,
              stdin='{"topic":"a","text":"' + "x" * (2 << 20) + '"}\n')
    assert "line 1 is too long" in ran.err


def test_import_into_a_log_in_use_is_refused(make_node):
    node = make_node()
    line = '{"topic":"a","text":"x"}\n'
    ran = log("import", "-", data=node.data, stdin=line, check=69)
    assert f"process {node.pid} uses this log" in ran.err
    node.stop()
    log("import", "-", data=node.data, stdin=line)


def test_export_keeps_what_is_retained_when_its_record_has_gone(make_node, tmp_path):
    """Retention has removed the segment: the message lives on as a carried record, and must not be lost."""
    node = make_node({**SMALL, "log.retention_bytes": "192K"})
    publish(node, "kept", b"still here", "-H", "Tidegate-Retain: 1")
    (before,) = curl(node.api("/v1/retained/kept")).json()["messages"]
    wait_until(lambda: fill(node, 100) or not history(node, "kept"), "its segment to be removed", 60)
    node.stop()
    assert log("cat", "--topic", "kept", data=node.data).out == ""
    (line,) = log("export", "--topic", "kept", data=node.data).lines()
    assert line["text"] == "still here" and line["ts"] == before["ts"] and line["pos"] == before["pos"]
    copy = tmp_path / "copy"
    log("import", "-", data=copy, stdin=log("export", data=node.data).out)
    assert messages(copy) == messages(node.data)
    other = make_node(data=copy)
    (after,) = curl(other.api("/v1/retained/kept")).json()["messages"]
    assert after["text"] == "still here" and after["ts"] == before["ts"]


def test_exit_codes(make_node, tmp_path):
    node = make_node()
    node.stop()
    assert "there is no log" in log("verify", data=tmp_path / "nothing", check=1).err
    log("verify", "--config", tmp_path / "nothing.yaml", check=78)
    (tmp_path / "file").write_text("no folder")
    for verb in ("verify", "cat", "stat"):
        log(verb, data=tmp_path / "file", check=78)
    assert "ot a directory" in log("import", "-", data=tmp_path / "file", stdin='{"topic":"a","text":""}\n', check=78).err
    log("verify", "--set", f"data.dir={node.data}")
    log("nonsense", check=2)
    log("import", data=tmp_path / "x", check=2)
    log("import", tmp_path / "nothing", data=tmp_path / "x", check=1)
    assert "verify" in log("help").out
    if os.geteuid() != 0:
        (node.data / "MANIFEST").chmod(0)
        log("verify", data=node.data, check=77)
        (node.data / "MANIFEST").chmod(0o640)
    shutil.copy(node.data / "MANIFEST", tmp_path)
    flip(node.data / "MANIFEST", 20)
    assert "MANIFEST is damaged" in log("verify", data=node.data, check=1).err
    shutil.copy(tmp_path / "MANIFEST", node.data)
