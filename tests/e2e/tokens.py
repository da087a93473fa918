"""Tokens made by an independent library (PyJWT), and what the doors say to one."""

import subprocess
import time

from clients import Closed, Web, curl, module
from mqtt_wire import CONNACK, Wire, connect, text
from node import PROGRAM

jwt = module("jwt")


def secret(node):
    return bytes.fromhex((node.data / "token.key").read_text())


def make(node, user="ann", key=None, alg="HS256", headers=None, **claims):
    """A value of None leaves the claim out."""
    claims = {"sub": user, "exp": int(time.time()) + 600, **claims}
    claims = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(claims, secret(node) if key is None else key, algorithm=alg, headers=headers)


def tidegate(*words, code=0, data=None):
    done = subprocess.run([str(PROGRAM), *words], capture_output=True, text=True, input=data, timeout=60)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done


def create(node, user, *words):
    return tidegate("token", "create", user, "--data", str(node.data), *words).stdout.strip()


def bearer(token):
    return "-H", f"Authorization: Bearer {token}"


def headers(fields):
    """Options of a Web that sends further header fields; their name has changed with the library."""
    version = int(module("websockets.version").version.split(".")[0])
    return {"additional_headers" if version >= 14 else "extra_headers": fields}


def ws_says(node, token):
    """(error code or user, close code or None)"""
    with Web(node) as web:
        number = web.request({"hello": {"token": token}})
        answer = web.answer(number)
        if "ok" in answer:
            return answer["ok"].get("user"), None
        return answer["err"]["code"], web.close_code()


def login(version, client="", name=None, password=None):
    flags = 0x02 | (0x80 if name is not None else 0) | (0x40 if password is not None else 0)
    rest = (text(name) if name is not None else b"") + (text(password) if password is not None else b"")
    return connect(version, client, flags, rest=rest)


def mqtt_says(node, token, version=5, name="jwt"):
    """The reason or return code of CONNACK."""
    wire = Wire(node, version, connected=False)
    wire.send(login(version, "", name, token))
    first, body = wire.packet()
    wire.socket.close()
    assert first >> 4 == CONNACK
    return body[1]


def mqtt_client(node, token, version=5, client="", name="jwt"):
    wire = Wire(node, version, connected=False)
    wire.send(login(version, client, name, token))
    first, body = wire.packet()
    assert first >> 4 == CONNACK and body[1] == 0, body.hex()
    return wire


def http_says(node, token, path="/v1/history/a"):
    """(status, code)"""
    answer = curl(node.api(path), *bearer(token), check=None)
    return answer.status, None if answer.status == 200 else answer.json()["code"]


def feed_status(node, target, token=None):
    """The status of a GET at the public port, which may go on for ever."""
    credential = f"Authorization: Bearer {token}\r\n" if token else ""
    with node.connect("http", seconds=30) as wire:
        wire.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n{credential}\r\n".encode())
        with wire.makefile("rb") as file:
            return int(file.readline().split()[1])


def feeds_say(node, token):
    """The statuses of /sse and /poll."""
    return [feed_status(node, f"/{door}?topic=a", token) for door in ("sse", "poll")]


__all__ = ["Closed", "bearer", "create", "feed_status", "feeds_say", "headers", "http_says", "jwt", "login", "make", "mqtt_client", "mqtt_says", "secret", "tidegate",
           "ws_says"]
