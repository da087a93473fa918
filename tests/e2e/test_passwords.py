"""The password file (PROTOCOL.md 6)."""

import stat

from clients import Web, curl, publish
from mqtt_wire import Wire, subscribe
from node import wait_until
from tokens import login, make, mqtt_client, mqtt_says, tidegate

FAILURES = "tidegate_auth_failures_total"


def add(node, name, password):
    tidegate("user", "add", name, "--data", str(node.data), data=password + "\n")


def basic(name, password):
    return "-u", f"{name}:{password}"


def test_users_are_added_listed_and_removed(tmp_path):
    data = ("--data", str(tmp_path))
    for name in ("bob", "ann", "é/+#"):
        tidegate("user", "add", name, *data, data="secret\n")
    assert stat.S_IMODE((tmp_path / "users").stat().st_mode) == 0o600
    assert tidegate("user", "list", *data).stdout.split() == ["ann", "bob", "é/+#"]
    text = (tmp_path / "users").read_text()
    assert "secret" not in text and text.startswith("ann:$scrypt$ln=15,r=8,p=1$")
    tidegate("user", "add", "ann", *data, data="other\n")
    assert (tmp_path / "users").read_text() != text
    tidegate("user", "remove", "ann", *data)
    tidegate("user", "remove", "ann", *data, code=1)
    assert tidegate("user", "list", *data).stdout.split() == ["bob", "é/+#"]
    for words, password in ((("add", "a:b"), "x\n"), (("add", ""), "x\n"), (("add", "#x"), "x\n"), (("add", "a" * 257), "x\n"), (("add", "a"), ""),
                            (("add", "a"), "\n"), (("add", "a"), "x" * 1025 + "\n"), (("add",), "x\n"), (("list", "a"), None), (("change",), None)):
        tidegate("user", *words, *data, code=2, data=password)
    tidegate("user", "add", "a", "--data", str(tmp_path / "none"), code=69, data="x\n")
    (tmp_path / "users").write_text("ann\n")
    assert "users:1" in tidegate("user", "list", *data, code=78).stderr
    tidegate("user", "add", "ann", "--set", f"auth.users={tmp_path / 'other'}", data="x\n")
    assert (tmp_path / "other").exists()


def test_a_password_at_every_door_that_has_one(make_node):
    node = make_node()
    assert mqtt_says(node, "secret", 5, "ann") == 0x86  # there is no file yet
    add(node, "ann", "secret")
    for version in (4, 5):
        assert mqtt_says(node, "secret", version, "ann") == 0
        for name, password in (("ann", "secre"), ("ann", "secrets"), ("ann", ""), ("bob", "secret"), ("Ann", "secret"), ("", "secret")):
            assert mqtt_says(node, password, version, name) == (0x86 if version == 5 else 4)
    publish(node, "a", b"1", *basic("ann", "secret"))
    assert publish(node, "a", b"1", *basic("ann", "wrong"), check=401).json()["code"] == "unauthorized"
    publish(node, "a", b"1", "-H", "Authorization: Basic !", check=401)
    curl(node.api("/v1/history/a"), *basic("ann", "secret"))
    curl(node.api("/v1/drops"), *basic("ann", "secret"), check=403)
    curl(node.api("/v1/history?topic=$user/bob"), *basic("ann", "secret"), check=403)
    curl(node.api("/v1/users/bob/messages"), *basic("ann", "secret"), data=b"1", check=403)
    assert node.metric(FAILURES, "password") == 12 + 1 + 2
    with Web(node) as web:
        wire = mqtt_client(node, "secret", name="ann")
        wire.send(subscribe(1, "$user/ann"))
        wire.packet()
        web.subscribe("a")
        wait_until(lambda: curl(node.api("/v1/users/ann")).json()["count"] == 1, "ann to be there")
        wire.socket.close()


def test_a_changed_file_counts_at_once(make_node):
    node = make_node()
    add(node, "ann", "one")
    assert mqtt_says(node, "one", 5, "ann") == 0
    add(node, "ann", "two")
    assert mqtt_says(node, "one", 5, "ann") == 0x86 and mqtt_says(node, "two", 5, "ann") == 0
    (node.data / "users").write_text("broken\n")
    assert mqtt_says(node, "two", 5, "ann") == 0, "a broken file changes nothing"
    wait_until(lambda: "password file not read" in node.log(), "it to be logged")
    (node.data / "users").unlink()
    assert mqtt_says(node, "two", 5, "ann") == 0x86


def test_passwords_do_not_hold_the_loop(make_node):
    """Twelve of them take the thread most of a second; others are served meanwhile, and packets behind CONNECT wait."""
    node = make_node({"auth.queue": 10})
    add(node, "ann", "secret")
    wires = [Wire(node, connected=False) for _ in range(30)]
    for number, wire in enumerate(wires):
        wire.send(login(5, f"c{number}", "ann", f"wrong{number}") + subscribe(1, "a"))
    token = make(node)
    with Web(node, hello={"token": token}) as web:
        assert "ok" in web.ask({"pub": {"topic": "a", "data": 1}})
    codes = [wire.packet()[1][1] for wire in wires]
    assert set(codes) <= {0x86, 0x89} and codes.count(0x86) >= 10
    assert node.metric(FAILURES, "busy") == codes.count(0x89)
    for wire in wires:
        wire.socket.close()
    good = Wire(node, connected=False)
    good.send(login(5, "c", "ann", "secret") + subscribe(7, "a"))
    assert good.packet()[1][1] == 0 and good.packet()[1][:2] == b"\x00\x07"
    good.socket.close()


def test_clients_that_leave_while_their_password_is_checked(make_node):
    node = make_node({"node.loops": 2})
    add(node, "ann", "secret")
    for _ in range(10):
        wire = Wire(node, connected=False)
        wire.send(login(5, "", "ann", "wrong"))
        wire.socket.close()
    assert mqtt_says(node, "secret", 5, "ann") == 0
    for _ in range(5):  # and a node that stops meanwhile
        wire = Wire(node, connected=False)
        wire.send(login(5, "", "ann", "wrong again"))
    node.stop()
