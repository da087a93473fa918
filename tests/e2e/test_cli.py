"""The commands for people: pub, sub, status, doctor, config env, version; their exit codes (PROTOCOL.md 4)."""

import json
import os
import re
import socket
import subprocess
import threading

import pytest

from clients import curl, history, publish
from node import PATIENCE, PROGRAM, wait_until

WAIT_S = 30 * PATIENCE


def run(*arguments, text=None, cwd=None, environment=None):
    return subprocess.run([PROGRAM, *map(str, arguments)], input=text, capture_output=True, timeout=WAIT_S, cwd=cwd,
                          env={**os.environ, **(environment or {})})


class Sub:
    """`tidegate sub`, subscribed: a retained message of its own says when."""

    def __init__(self, node, *arguments):
        self.process = subprocess.Popen([PROGRAM, "sub", *arguments, "--data", node.data], stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE)
        wait_until(lambda: self.process.poll() is not None or node.metric("tidegate_subscriptions") > 0, "the subscription")

    def end(self):
        out, err = self.process.communicate(timeout=WAIT_S)
        return self.process.returncode, out, err


def test_pub(make_node):
    node = make_node()
    where = ["--data", node.data]
    assert run("pub", "a/b c", "-d", '{"x":1}', "--key", "k", "--ttl", "60000", *where).returncode == 0
    got = curl(node.api("/v1/history?topic=a/b%20c")).json()["messages"]
    assert len(got) == 1 and got[0]["data"] == {"x": 1} and got[0]["key"] == "k"
    assert run("pub", "lines", *where, text=b"one\ntwo\n\nlast").returncode == 0
    assert [m.get("text", "") for m in history(node, "lines")] == ["one", "two", "", "last"]
    (node.data / "payload").write_bytes(b"\x00\xff\n")
    assert run("pub", "file", "-f", node.data / "payload", *where).returncode == 0
    assert history(node, "file")[0]["b64"] == "AP8K"
    assert run("pub", "file", "-f", "-", *where, text=b"by pipe\n").returncode == 0
    assert history(node, "file")[1]["text"] == "by pipe\n"
    assert run("pub", "kept", "-d", "1", "--retain", *where).returncode == 0
    assert curl(node.api("/v1/retained/kept")).json()["messages"][0]["text"] == "1"
    assert run("pub", "news", "-d", "for her", "--user", "ann", *where).returncode == 0
    assert run("pub", "--user", "ann", "-d", "too", *where).returncode == 0


def test_pub_that_fails(make_node, tmp_path):
    node = make_node({"api.key": "secret", "limit.message_bytes": 16})
    where = ["--data", node.data]
    result = run("pub", "a", "-d", "1", *where)
    assert result.returncode == 0, "anonymous on loopback"
    result = run("pub", "a", "-d", "1", "--token", "wrong", *where)
    assert result.returncode == 77 and b"HTTP 401" in result.stderr
    assert run("pub", "a", "-d", "1", "--set", "api.key=secret", *where).returncode == 0
    result = run("pub", "a/+", "-d", "1", *where)
    assert result.returncode == 1 and b"HTTP 400" in result.stderr
    result = run("pub", "a", "-d", "x" * 17, *where)
    assert result.returncode == 1 and b"HTTP 413" in result.stderr
    assert run("pub", *where).returncode == 2
    assert run("pub", "a", "-d", "1", "-f", "x", *where).returncode == 2
    assert run("pub", "a", "-d", "1", "--key", "a\r\nX: y", *where).returncode == 2
    assert run("pub", "a", "-f", tmp_path / "none", *where).returncode == 1
    node.stop()
    result = run("pub", "a", "-d", "1", *where, "--set", "api.port=1")
    assert result.returncode == 69 and b"no node answers" in result.stderr


def test_sub(make_node):
    node = make_node()
    plain, objects = Sub(node, "a/#", "--count", "3"), Sub(node, "a/#", "--count", "3", "--json")
    wait_until(lambda: node.metric("tidegate_subscriptions") == 2, "both subscriptions")
    publish(node, "a/1", b'{"x": 1}')
    publish(node, "a/2", b"text")
    publish(node, "a/3", b"\x00\xff")
    code, out, err = plain.end()
    assert (code, out) == (0, b'a/1 {"x": 1}\na/2 text\na/3 \x00\xff\n'), err
    code, out, err = objects.end()
    got = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and [m["topic"] for m in got] == ["a/1", "a/2", "a/3"] and got[2]["b64"] == "AP8="
    result = run("sub", "a/#", "--from", "earliest", "--count", "2", "--data", node.data)
    assert result.returncode == 0 and result.stdout == b'a/1 {"x": 1}\na/2 text\n'
    result = run("sub", "a/#", "--from", got[1]["pos"], "--count", "1", "--data", node.data)
    assert result.returncode == 0 and result.stdout == b"a/3 \x00\xff\n"


def test_sub_that_fails(make_node):
    node = make_node()
    for arguments, code in ((["a/#/b"], 1), ([], 2), (["a", "--count", "0"], 2), (["a", "--count", "x"], 2),
                            (["a", "--from", "nonsense"], 1), (["a", "--token", "x"], 77)):
        result = run("sub", *arguments, "--data", node.data)
        assert result.returncode == code, (arguments, result)
        assert result.stderr.startswith(b"tidegate: ") and result.stdout == b""
    forever = Sub(node, "a")
    threading.Timer(0.1, node.stop).start()
    code, _, err = forever.end()
    assert code == 75 and b'bye {"code":4001' in err
    wait_until(lambda: node.process.poll() is not None, "the end of the node")
    assert run("sub", "a", "--data", node.data, "--set", "http.port=1").returncode == 69


def test_status(make_node, tmp_path):
    node = make_node({"drain.delay_ms": "1m"})
    result = run("status", "--data", node.data)
    assert result.returncode == 0 and result.stdout.decode() == f"process {node.pid}: ready\n"
    curl(node.api("/v1/node/drain"), "-X", "POST", check=202)
    result = run("status", "--data", node.data)
    assert result.returncode == 1 and b"draining" in result.stdout
    node.process.terminate()
    node.process.wait(WAIT_S)
    assert run("status", "--data", node.data).returncode == 69


def verdicts(result):
    return {line.split()[1]: line.split()[0] for line in result.stdout.decode().splitlines()}


def test_doctor(make_node, tmp_path):
    ports = ["--set", "mqtt.port=0", "--set", "http.port=0", "--set", "api.port=0"]
    result = run("doctor", "--data", tmp_path / "new" / "data", *ports)
    found = verdicts(result)
    assert result.returncode == 0 and found["data"] == "ok" and found["mqtt.port"] == "ok", result.stdout
    assert {"config", "disk", "sync", "descriptors", "clock", "node", "http.port", "api.port"} < set(found)
    assert not (tmp_path / "new").exists(), "it leaves nothing behind"
    with socket.create_server(("127.0.0.1", 0)) as holder:
        result = run("doctor", "--data", tmp_path / "x", *ports, "--set", f"api.port={holder.getsockname()[1]}")
        assert result.returncode == 1 and verdicts(result)["api.port"] == "FAIL"
        assert f"(pid {os.getpid()})" in result.stdout.decode()
    (tmp_path / "file").write_text("")
    assert verdicts(run("doctor", "--data", tmp_path / "file", *ports))["data"] == "FAIL"
    result = run("doctor", "--data", tmp_path / "x", *ports, "--set", "log.disk_refuse_percent=1", "--set",
                 "log.disk_warn_percent=1")
    assert verdicts(result)["disk"] == "FAIL" or re.search(rb"disk +0% full", result.stdout)
    assert run("doctor", "--set", "no.key=1").returncode == 78
    node = make_node()
    result = run("doctor", "--data", node.data)
    assert result.returncode == 0 and f"process {node.pid} is ready" in result.stdout.decode(), result.stdout
    assert "mqtt.port" not in verdicts(result), "its own ports are its own"


@pytest.mark.parametrize("command, code", [(("config", "check"), 78), (("doctor",), 1)])
def test_what_a_start_would_refuse(tmp_path, certificates, command, code):
    pem, key = certificates.pem("ec"), certificates.key("ec")
    data = f"data.dir={tmp_path / 'data'}"
    ports = ("mqtt.port=0", "http.port=0", "api.port=0", "mqtt.tls_port=0", "http.tls_port=0")

    def says(*settings):
        done = run(*command, *(word for setting in (data, *ports, *settings) for word in ("--set", setting)))
        return done.returncode, (done.stdout + done.stderr).decode()

    for settings, words in {
        ("auth.keys=/nowhere/a.pem",): "/nowhere/a.pem",
        (f"tls.cert_file={pem}", f"tls.key_file={certificates.key('rsa')}"): "rsa.key",
        ("mqtt.bind=not an address",): "mqtt.bind: 'not an address' is no IP address",
        ("mqtt.port=1999", "api.port=1999"): "mqtt.port and api.port are both 1999",
    }.items():
        got, said = says(*settings)
        assert got == code and words in said, said
    assert says(f"tls.cert_file={pem}", f"tls.key_file={key}")[0] == 0
    assert not (tmp_path / "data").exists()


def test_config_and_version(tmp_path):
    file = tmp_path / "t.yaml"
    file.write_text("http:\n  origins: [https://a.example, https://b.example]\nnode:\n  id: \"x y\"\n")
    lines = run("config", "env", "--config", file).stdout.decode().splitlines()
    environment = dict(line.split("=", 1) for line in lines)
    assert environment["TIDEGATE_HTTP__ORIGINS"] == "https://a.example,https://b.example"
    assert environment["TIDEGATE_NODE__ID"] == "x y" and environment["TIDEGATE_LIMIT__MESSAGE_BYTES"] == "1M"
    shown = run("config", "show", "--config", file).stdout
    assert run("config", "show", environment={k: v for k, v in environment.items() if v}).stdout == shown
    file.write_text("http:\n  prot: 1\n")
    result = run("config", "check", "--config", file)
    assert result.returncode == 78 and f"{file}:2: unknown key \"http.prot\" - did you mean \"http.port\"?" in result.stderr.decode()
    result = run("version")
    assert result.returncode == 0 and re.match(r"tidegate \d+\.\d+\.\d+\n", result.stdout.decode())
    assert all(name in result.stdout for name in (b"libwebsockets", b"OpenSSL", b"jansson"))
    assert run("version", "x").returncode == 2 and run("nonsense").returncode == 2


def test_every_command_has_its_help():
    listed = run("help")
    commands = re.findall(r"^  tidegate (\w+)", listed.stdout.decode(), re.MULTILINE)
    assert listed.returncode == 0 and len(commands) > 10
    for command in commands:
        for word in ("--help", "-h"):
            result = run(command, word)
            assert result.returncode == 0 and f"tidegate {command}" in result.stdout.decode(), (command, result)
            assert result.stderr == b""
    assert run("log", "verify", "--help").stdout == run("log", "help").stdout
    for words in (["nonsense"], ["pub", "--nonsense"], ["config"]):
        result = run(*words)
        assert result.returncode == 2 and result.stdout == b"" and b"See: tidegate help" in result.stderr, result
    # A value is a value.
    assert run("pub", "a", "-d", "--help", "--data", "/nonexistent").returncode == 69
