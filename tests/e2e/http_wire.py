"""HTTP as bytes on a socket, for what no client library would send."""

import socket

from node import PATIENCE, WAIT_S


def request(target="/v1/publish/a", fields="", body=b"", method="POST", host="Host: localhost\r\n", version="HTTP/1.1"):
    """One request; Content-Length is added when there is a body and `fields` says nothing of it."""
    if body and "content-length" not in fields.lower():
        fields += f"Content-Length: {len(body)}\r\n"
    return f"{method} {target} {version}\r\n{host}{fields}\r\n".encode("latin-1") + body


class Answer:
    def __init__(self, status, fields, body):
        self.status, self.fields, self.body = status, fields, body

    def __repr__(self):
        return f"{self.status} {self.body[:200]!r}"


class Wire:
    """A connection to the private API, or to the public port (door="http")."""

    def __init__(self, node, seconds=WAIT_S, door="api"):
        self.socket = socket.create_connection(("127.0.0.1", node.ports[door]))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(seconds * PATIENCE)
        self.file = self.socket.makefile("rb")

    def send(self, data):
        """The node may close before all is sent."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def answer(self):
        """The next answer; None when the connection was closed without one."""
        try:
            line = self.file.readline()
            if not line:
                return None
            fields = {}
            while (field := self.file.readline().strip()):
                name, value = field.decode("latin-1").split(":", 1)
                fields[name.lower()] = value.strip()
            status = int(line.split()[1])
            length = 0 if status < 200 else int(fields.get("content-length", 0))
            return Answer(status, fields, self.file.read(length))
        except ConnectionResetError:
            return None

    def ask(self, data):
        self.send(data)
        return self.answer()

    def is_closed(self):
        """Waits for the end of the connection."""
        try:
            return self.file.read(1) == b""
        except ConnectionResetError:
            return True

    def close(self):
        self.file.close()
        self.socket.close()

    __enter__ = lambda self: self
    __exit__ = lambda self, *_: self.close()
