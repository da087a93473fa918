"""Snapshots by hard links, of a node that runs and of a folder at rest, and what a log that was made from one says to
those who knew the old one."""

import json
import os
import shutil
import subprocess
import threading

import pytest

from clients import Web, curl, history, publish
from http_wire import Wire, request
from log_tool import log, messages, verify
from node import ROOT, Node, wait_until
from test_log_tool import SMALL, fill, flip, segments


def snapshot(node, name=None, check=200):
    body = b"" if name is None else json.dumps({"name": name}).encode()
    return curl(node.api("/v1/node/snapshot"), "-X", "POST", data=body, check=check).json()


@pytest.mark.parametrize("loops", [1, 3])
def test_a_snapshot_holds_what_was_acknowledged_and_costs_only_names(make_node, loops):
    node = make_node({**SMALL, "log.partitions": 4, "node.loops": loops})
    fill(node, 100)
    made = snapshot(node, "first")
    folder = node.data / "snapshots" / "first"
    assert made["path"] == str(folder) and len(made["next"]) == 4 and made["segments"] >= 4
    want = messages(folder)
    assert len(want) == 100 and verify(folder)[1]["ok"]
    for path in folder.glob("*/*.seg"):
        assert path.stat().st_nlink == 2
        assert path.samefile(node.data / path.parent.name / path.name)
    # The node goes on, the snapshot does not.
    fill(node, 100)
    assert messages(folder) == want
    # Nothing was published since the last one: a second has nothing to end, a third neither.
    for name in ("second", "third"):
        assert snapshot(node, name)["path"].endswith(name)
        assert len(messages(node.data / "snapshots" / name)) == 200
    named_by_time = snapshot(node)["path"].rsplit("/", 1)[1]
    assert len(named_by_time) == 16 and named_by_time[8] == "T"
    assert node.metric("tidegate_snapshots_total") == 4
    assert verify(node.data)[0] == []


def test_a_snapshot_of_nothing(make_node):
    node = make_node()
    snapshot(node, "empty")
    assert messages(node.data / "snapshots" / "empty") == []


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x", "a.b", "-x", "x" * 65, "a b", "ä", "a\0"])
def test_names_are_checked(make_node, name):
    node = make_node()
    assert snapshot(node, name, check=400)["code"] == "bad_request"
    if "\0" not in name:  # no argument can hold that
        log("snapshot", name, data=node.data, check=2)
    assert not (node.data / "snapshots").exists() and not (node.data.parent / "x").exists()


def test_refusals(make_node):
    node = make_node({"log.snapshots_max": 2})
    for body in (b"[]", b"{", b'{"name":1}', b'{"name":"a","name":"b"}', b'{"other":"a"}', b"x" * 2000):
        curl(node.api("/v1/node/snapshot"), "-X", "POST", data=body, check=400)
    curl(node.api("/v1/node/snapshot?name=a"), "-X", "POST", data=b"", check=400)
    curl(node.api("/v1/node/snapshot"), check=405)
    snapshot(node, "one")
    assert snapshot(node, "one", check=409)["code"] == "conflict"
    (node.data / "snapshots" / "cut.tmp").mkdir()  # of one that was cut short: it goes, and does not count
    snapshot(node, "two")
    assert "log.snapshots_max" in snapshot(node, "three", check=409)["detail"]
    shutil.rmtree(node.data / "snapshots" / "one")
    snapshot(node, "three")
    assert sorted(path.name for path in (node.data / "snapshots").iterdir()) == ["three", "two"]


def test_one_at_a_time(make_node):
    node = make_node()
    fill(node, 20, 10)
    codes = []

    def ask(number):
        codes.append(curl(node.api("/v1/node/snapshot"), "-X", "POST", data=b'{"name":"n%d"}' % number,
                          check=None).status)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 200 in codes and set(codes) <= {200, 409}
    made = [path.name for path in (node.data / "snapshots").iterdir()]
    assert len(made) == codes.count(200)
    assert all(len(messages(node.data / "snapshots" / name)) == 20 for name in made)


def test_the_command_asks_the_node_or_does_it_itself(make_node):
    node = make_node({"api.key": "secret", "log.partitions": 2})
    fill(node, 20)
    made = log("snapshot", "running", "--set", "api.key=secret", data=node.data)
    assert json.loads(made.out)["segments"] >= 2
    assert "401" not in made.out and log("snapshot", "no-key", "--set", "api.key=wrong", data=node.data, check=77).err
    node.stop()
    log("snapshot", "at-rest", "--set", "log.partitions=2", data=node.data)
    node.restart()
    fill(node, 20)
    node.kill9()
    log("snapshot", "crashed", data=node.data)
    count = {name: len(messages(node.data / "snapshots" / name)) for name in ("running", "at-rest", "crashed")}
    assert count == {"running": 20, "at-rest": 20, "crashed": 40}
    assert log("snapshot", "crashed", data=node.data, check=69).err  # there is one of this name


def test_a_snapshot_is_not_served(node):
    """It is of the log's epoch: what it gave a position to, the log gives that position too."""
    fill(node, 5)
    log("snapshot", "one", data=node.data)
    copy = Node(node.data.parent / "served", data=node.data / "snapshots/one")
    ended = subprocess.run(copy.command(), cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert ended.returncode == 78 and "log restore" in ended.stderr
    assert len(messages(copy.data)) == 5


@pytest.mark.deadline(180)
def test_snapshot_under_load_then_kill_9_then_restore(make_node, tmp_path):
    """Every message that was acknowledged before the snapshot's answer is in it, also while retention removes."""
    node = make_node({**SMALL, "log.partitions": 2, "log.retention_bytes": "1M"})
    end = threading.Event()
    sent = {}

    def load(number):
        wire = Wire(node, 60)
        acknowledged = sent.setdefault(number, [])
        while not end.is_set():
            body = f"{number}-{len(acknowledged)}-".encode() + b"x" * 300
            try:
                answer = wire.ask(request(f"/v1/publish/load/{number}", body=body))
            except OSError:
                return
            if answer is None:
                return
            if answer.status == 200:
                acknowledged.append(body.decode())

    threads = [threading.Thread(target=load, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    kept = []
    for number in range(3):
        wait_until(lambda: all(len(sent.get(k, [])) > 50 * (number + 1) for k in range(4)), "messages", 60)
        before = {key: len(value) for key, value in sent.items()}
        snapshot(node, f"s{number}")
        kept.append(before)
    node.kill9()
    end.set()
    for thread in threads:
        thread.join()
    for number, before in enumerate(kept):
        copy = tmp_path / f"copy{number}"
        log("restore", node.data / "snapshots" / f"s{number}", data=copy)
        assert verify(copy)[0] == []
        found = {line["text"] for line in messages(copy)}
        first = {}
        for line in log("cat", data=copy).lines():
            first.setdefault(line["topic"], int(line["text"].split("-")[1]))
        for key, count in before.items():  # what retention had removed before the snapshot is not in it
            assert set(sent[key][first[f"load/{key}"]:count]) <= found
    assert make_node({"log.partitions": 2}, data=tmp_path / "copy2")


def test_a_restored_log_is_of_a_new_epoch(make_node, tmp_path):
    node = make_node({"log.partitions": 2})
    fill(node, 30, 10)
    publish(node, "kept", b"retained", "-H", "Tidegate-Retain: 1")
    before = history(node, "t/1")
    bookmark = curl(node.api("/v1/history/t/1?max=1")).json()["next"]
    snapshot(node, "s")
    after_snapshot = publish(node, "t/1", b"lost").json()["pos"]
    node.stop()

    copy = tmp_path / "copy"
    told = log("restore", node.data / "snapshots" / "s", data=copy).out
    assert "restored 31 messages" in told
    assert messages(copy) == [m for m in messages(node.data) if m.get("text") != "lost"]
    other = make_node({"log.partitions": 2}, data=copy)
    assert curl(other.api("/v1/capabilities")).json()["epoch"] != curl_epoch(before)
    found = history(other, "t/1")
    assert [m["ts"] for m in found] == [m["ts"] for m in before]
    assert {m["pos"][:8] for m in found}.isdisjoint({before[0]["pos"][:8]})
    # Old positions: gone, and nothing is guessed.
    for old in (before[0]["pos"], after_snapshot, bookmark):
        answer = curl(other.api(f"/v1/history/t/1?from={old}"), check=410).json()
        assert answer["code"] == "position_gone" and answer["earliest"]
    with Web(other) as web:
        web.subscribe("t/1", {"after": [before[2]["pos"]]})
        gap = web.next("gap")
        assert gap["why"] == "epoch"
        assert [web.next()["pos"] for _ in found] == [m["pos"] for m in found]
    (retained,) = curl(other.api("/v1/retained/kept")).json()["messages"]
    assert retained["text"] == "retained"
    new = publish(other, "t/1", b"new").json()["pos"]
    assert new[:8] == found[0]["pos"][:8] and new > found[-1]["pos"]
    # A file of the old log that is put beside its own is refused.
    other.stop()
    shutil.copy(segments(node)[0], segments(other)[0])
    assert "foreign" in [fault["fault"] for fault in verify(copy, check=1)[0]]
    shutil.rmtree(copy)


def curl_epoch(found):
    return found[0]["pos"][:8]


def test_restore_refuses_and_leaves_nothing(make_node, tmp_path):
    node = make_node(SMALL)
    fill(node, 200)
    snapshot(node, "s")
    folder = node.data / "snapshots" / "s"
    assert "in use" in log("restore", node.data, data=tmp_path / "x", check=78).err
    node.stop()
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "something").write_text("x")
    assert "not empty" in log("restore", folder, data=taken, check=69).err
    assert [path.name for path in taken.iterdir()] == ["something"]
    log("restore", tmp_path / "nothing", data=tmp_path / "x", check=1)
    log("restore", data=tmp_path / "x", check=2)
    # Damage: the links share their bytes with the log, so this is a copy of the snapshot.
    bad = tmp_path / "bad"
    shutil.copytree(folder, bad)
    flip(sorted((bad / "0").glob("*.seg"))[1], 3000)
    assert "damaged" in log("restore", bad, data=tmp_path / "y", check=1).err
    assert not (tmp_path / "y").exists(), "it was not there before"
    (tmp_path / "y").mkdir()
    (tmp_path / "y" / "lost+found").mkdir()
    assert "damaged" in log("restore", bad, data=tmp_path / "y", check=1).err
    assert [path.name for path in (tmp_path / "y").iterdir()] == ["lost+found"]
    log("restore", folder, data=tmp_path / "y")  # a folder with nothing in it is fine
    assert len(messages(tmp_path / "y")) == 200
    assert "does not exist" in log("restore", folder, data=tmp_path / "no" / "such", check=78).err


def test_retention_and_reuse_leave_a_snapshot_alone(make_node):
    node = make_node({**SMALL, "log.retention_bytes": "128K"})
    fill(node, 200)
    snapshot(node, "s")
    folder = node.data / "snapshots" / "s"
    want = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    names = {path.name for path in segments(node)}
    wait_until(lambda: fill(node, 100) or names.isdisjoint({path.name for path in segments(node)}),
               "retention to remove all that is in the snapshot", 60)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == want
    assert verify(folder)[1]["ok"]
    assert all(os.stat(path).st_nlink == 1 for path in want)
