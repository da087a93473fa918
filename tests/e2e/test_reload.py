"""SIGHUP and `tidegate reload`: all or nothing, told key by key, and live for connections that are there."""

import json
import os
import re
import signal
import subprocess
import threading

import pytest

from clients import Web, curl, publish
from node import PROGRAM, wait_until

KEY = "first-secret-key"


def write(path, text):
    """As an editor does it: the whole file, or the old one."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.rename(path)


def reload(node, *arguments):
    return subprocess.run([PROGRAM, "reload", "--data", node.data, *arguments], capture_output=True, text=True, timeout=60)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "tidegate.yaml"


def test_live_keys_change_and_are_told(make_node, file):
    write(file, "logging:\n  level: info\nws:\n  ping_ms: 25s\n")
    node = make_node({"node.loops": 2}, config=file)
    with Web(node) as before:
        assert before.ask({"hello": {}})["ok"]["ping_ms"] == 25000
        write(file, "logging:\n  level: debug\nws:\n  ping_ms: 24s\n")
        result = reload(node)
        assert result.returncode == 0, result.stderr
        assert sorted(result.stdout.splitlines()) == [
            "2 changed, 0 need a restart", "changed logging.level: info -> debug", "changed ws.ping_ms: 25s -> 24s"]
        with Web(node) as web:
            assert web.ask({"hello": {}})["ok"]["ping_ms"] == 24000
        assert before.ask({"pub": {"topic": "t", "data": 1}})["ok"]["dup"] is False
    assert "configuration changed ws.ping_ms: 25s -> 24s" in node.log()
    result = reload(node)
    assert result.returncode == 0 and result.stdout == "0 changed, 0 need a restart\n"


def test_a_bad_file_changes_nothing(make_node, file):
    write(file, "ws:\n  ping_ms: 25s\n")
    node = make_node(config=file)
    for text, told in (("ws:\n  ping_ms: 20s\n  pong_timeout: 3\n", f"{file}:3: unknown key \"ws.pong_timeout\" - did you mean "
                                                                  "\"ws.pong_timeout_ms\"?"),
                       ("ws:\n  ping_ms: 20s\n  ping_ms: 21s\n", f"{file}:3"),
                       ("ws:\n  ping_ms: 20s\napi:\n  bind: 0.0.0.0\n", "api.key")):
        write(file, text)
        result = reload(node)
        assert result.returncode == 78, result.stdout
        assert "nothing has changed" in result.stderr and told in result.stderr, result.stderr
        with Web(node) as web:
            assert web.ask({"hello": {}})["ok"]["ping_ms"] == 25000
    file.unlink()
    result = reload(node)
    assert result.returncode == 78 and "cannot be read" in result.stderr
    publish(node, "t", b"1")
    write(file, "")  # the check behind the test starts the node again


def test_keys_that_need_a_restart_are_named_and_stay(make_node, file):
    write(file, "log:\n  partitions: 1\n")
    node = make_node(config=file)
    write(file, "log:\n  partitions: 2\nlimit:\n  message_bytes: 100\n  history_count: 7\n")
    for _ in range(2):
        result = reload(node)
        assert result.returncode == 0
        assert "needs a restart log.partitions: 1 -> 2" in result.stdout
        assert "needs a restart limit.message_bytes: 1M -> 100" in result.stdout
        assert result.stdout.splitlines()[-1].endswith("changed, 2 need a restart")
        limits = curl(node.api("/v1/capabilities")).json()["limits"]
        assert limits["message_bytes"] == 1 << 20 and limits["history_count"] == 7
    publish(node, "t", b"x" * 1000)
    write(file, "log:\n  partitions: 1\n")  # the check behind the test starts the node again


def test_keys_of_the_api(make_node, file):
    """The key is read anew, and is in no message."""
    write(file, f"api:\n  key: {KEY}\n")
    node = make_node(config=file)
    curl(node.api("/v1/capabilities"), "-H", f"Authorization: Bearer {KEY}")
    write(file, "api:\n  key: second-secret-key\n  hosts: [api.example]\nhttp:\n  origins: [https://app.example]\n")
    result = reload(node)
    assert result.returncode == 0 and "changed api.key: *** -> ***" in result.stdout
    curl(node.api("/v1/capabilities"), "-H", f"Authorization: Bearer {KEY}", check=401)
    curl(node.api("/v1/capabilities"), "-H", "Authorization: Bearer second-secret-key")
    curl(node.api("/v1/capabilities"), "-H", "Host: api.example", "-H", "Origin: https://app.example")
    write(file, f"api:\n  key: {KEY}\n")
    assert reload(node).returncode == 0
    curl(node.api("/v1/capabilities"), "-H", "Host: api.example", check=403)
    assert "secret" not in node.log() + result.stdout + (node.data / "reload").read_text()


def test_policies_change(make_node, file):
    write(file, "topics: []\n")
    node = make_node({"node.loops": 2, "log.partitions": 3}, config=file)
    for _ in range(3):
        assert "pos" in publish(node, "cursor/1", b"1").json()
        write(file, "topics:\n- filter: cursor/#\n  store: false\n")
        result = reload(node)
        assert "changed topics: 0 items -> 1 item" in result.stdout
        assert publish(node, "cursor/1", b"1").json()["stored"] is False
        write(file, "topics: []\n")
        assert reload(node).returncode == 0


def test_reloads_under_load(make_node, file):
    """Every loop reads the settings all the time while they are exchanged: nothing is refused, lost or raced for."""
    write(file, "out:\n  stall_ms: 30s\n")
    node = make_node({"node.loops": 3, "log.partitions": 4}, config=file)
    stop = threading.Event()
    failures = []

    def load(number):
        try:
            with Web(node) as web:
                web.subscribe(f"load/{number}")
                count = 0
                while not stop.is_set():
                    web.ask({"pub": {"topic": f"load/{number}", "data": count}})
                    assert web.next()["data"] == count
                    count += 1
        except Exception as error:  # noqa: BLE001 (told below)
            failures.append(error)

    threads = [threading.Thread(target=load, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for turn in range(20):
        write(file, f"out:\n  stall_ms: {20 + turn}s\napi:\n  hosts: [h{turn}.example]\n"
                    f"topics:\n- filter: t{turn}/#\n  ttl_ms: 1h\n- filter: load/#\n  ttl_ms: {turn + 1}h\n")
        assert reload(node).returncode == 0
        with Web(node) as web:
            web.ask({"hello": {}})
    stop.set()
    for thread in threads:
        thread.join(60)
    assert not failures, failures


def test_signals_that_do_not_kill(make_node, file):
    write(file, "ws:\n  ping_ms: 25s\n")
    node = make_node(config=file)
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE):
        os.kill(node.pid, number)
    write(file, "ws:\n  ping_ms: 20s\n")
    for _ in range(50):
        os.kill(node.pid, signal.SIGHUP)
    wait_until(lambda: re.search("configuration changed ws.ping_ms: 25s -> 20s", node.log()), "the reload")
    publish(node, "t", b"1")


def test_reload_without_a_node(make_node, tmp_path):
    result = subprocess.run([PROGRAM, "reload", "--data", tmp_path / "nothing"], capture_output=True, text=True)
    assert result.returncode == 69 and "no node runs on" in result.stderr
    node = make_node()
    node.kill9()
    assert (node.data / "pid").exists(), "what a killed node leaves must not be believed"
    result = reload(node)
    assert result.returncode == 69 and "no node runs on" in result.stderr
    assert json.dumps(result.stdout) == '""'
