"""Clients for the model test: raw sockets that one thread looks after, so that a client can stop reading for as long
as the dice say, and so that a hundred thousand steps take minutes. What they know of the protocols is what RFC 6455,
the MQTT standards and docs/PROTOCOL.md say."""

import base64
import json
import os
import select
import socket
import struct


class Gone(Exception):
    """The connection has ended."""


class Stream:
    """A socket whose bytes are cut into units (frames, packets) by `cut`; whole ones go to `take`."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.settimeout(60)
        self.inbox = bytearray()
        self.paused = False
        self.gone = self.draining = False

    def send(self, data):
        try:
            self.socket.sendall(data)
        except OSError as error:
            if not self.draining:
                self.gone = True
                raise Gone from error

    def read(self):
        """What has come is taken; called when the socket is readable."""
        try:
            data = self.socket.recv(1 << 16)
        except OSError:
            data = b""
        if not data:
            self.gone = True
            return
        self.inbox += data
        while (used := self.cut()) > 0:
            del self.inbox[:used]

    def drain(self):
        """Everything that came before the end of the connection."""
        self.draining = True  # what is answered meanwhile reaches nobody
        while not self.gone:
            self.read()

    def close(self):
        self.gone = True
        self.socket.close()


class Web(Stream):
    """tidegate.v1.json. `on_item(object)` is called with each object but answers, which are kept by id."""

    def __init__(self, port, on_item):
        super().__init__(port)
        self.on_item = on_item
        self.answers, self.number = {}, 0
        key = base64.b64encode(os.urandom(16)).decode()
        self.send((f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                   f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
                   "Sec-WebSocket-Protocol: tidegate.v1.json\r\n\r\n").encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = self.socket.recv(1)
            if not byte:
                raise Gone
            head += byte
        assert head.startswith(b"HTTP/1.1 101 "), head

    def frame(self, opcode, data):
        mask = os.urandom(4)
        size = len(data)
        length = (bytes([0x80 | size]) if size < 126 else b"\xfe" + struct.pack(">H", size) if size < 1 << 16
                  else b"\xff" + struct.pack(">Q", size))
        masked = bytes(byte ^ mask[i & 3] for i, byte in enumerate(data))
        self.send(bytes([0x80 | opcode]) + length + mask + masked)

    def request(self, item):
        self.number += 1
        self.frame(1, json.dumps({"id": self.number, **item}, separators=(",", ":")).encode())
        return self.number

    def tell(self, item):
        self.frame(1, json.dumps(item, separators=(",", ":")).encode())

    def cut(self):
        box = self.inbox
        if len(box) < 2:
            return 0
        assert box[0] & 0x80 and not box[1] & 0x80, "server frames are whole here, and not masked"
        size, at = box[1] & 0x7F, 2
        if size >= 126:
            wide = 2 if size == 126 else 8
            if len(box) < 2 + wide:
                return 0
            size, at = int.from_bytes(box[2:2 + wide], "big"), 2 + wide
        if len(box) < at + size:
            return 0
        self.frame_came(box[0] & 0x0F, bytes(box[at:at + size]))
        return at + size

    def frame_came(self, opcode, data):
        if opcode == 9:
            self.frame(10, data)
        elif opcode == 1:
            for line in data.decode().split("\n"):
                item = json.loads(line)
                if "id" in item:
                    self.answers[item["id"]] = item
                self.on_item(item)


def varint(number):
    out = b""
    while True:
        number, byte = number >> 7, number & 0x7F
        out += bytes([byte | (0x80 if number else 0)])
        if not number:
            return out


class Mqtt(Stream):
    """MQTT 3.1.1, or with a token 5.0. `on_message(topic, payload, retained)`. PUBACKs to the node are held back while
    `lazy` is set, as a client does that is slow to handle what it gets."""

    def __init__(self, port, name, on_message, clean=True, token=None):
        super().__init__(port)
        self.on_message = on_message
        self.acknowledged, self.answered, self.pongs = set(), set(), 0
        self.connected, self.lazy, self.owed, self.number = False, False, [], 0
        self.present, self.five = False, token is not None
        flags = bytes([2 * clean | (0x40 if token else 0)])
        level, props = (b"\5", b"\0") if self.five else (b"\4", b"")
        self.packet(0x10, b"\0\4MQTT" + level + flags + b"\0\0" + props + self.text(name) + (self.text(token) if token else b""))

    @staticmethod
    def text(value):
        return struct.pack(">H", len(value.encode())) + value.encode()

    def packet(self, first, body=b""):
        self.send(bytes([first]) + varint(len(body)) + body)

    def next_number(self):
        self.number = self.number % 65535 + 1
        return self.number

    def publish(self, topic, payload, qos, retain):
        number = self.next_number() if qos else 0
        self.packet(0x30 | qos << 1 | retain, self.text(topic) + (struct.pack(">H", number) if qos else b"") + payload)
        return number

    def subscribe(self, topic, qos, start=None):
        """start: tg-from, 5.0 only."""
        number = self.next_number()
        props = b"\x26" + self.text("tg-from") + self.text(start) if start else b""
        head = bytes([len(props)]) + props if self.five else b""
        self.packet(0x82, struct.pack(">H", number) + head + self.text(topic) + bytes([qos]))
        return number

    def unsubscribe(self, topic):
        number = self.next_number()
        self.packet(0xA2, struct.pack(">H", number) + self.text(topic))
        return number

    def pay(self):
        """Sends the PUBACKs that were held back."""
        for number in self.owed:
            self.packet(0x40, struct.pack(">H", number))
        self.owed = []

    def cut(self):
        box = self.inbox
        size, shift, at = 0, 0, 1
        while True:
            if len(box) <= at:
                return 0
            size |= (box[at] & 0x7F) << shift
            shift, at = shift + 7, at + 1
            if not box[at - 1] & 0x80:
                break
        if len(box) < at + size:
            return 0
        self.packet_came(box[0], bytes(box[at:at + size]))
        return at + size

    def packet_came(self, first, body):
        kind = first >> 4
        if kind == 2:
            assert body[1] == 0, f"CONNACK {body[1]}"
            self.connected, self.present = True, bool(body[0] & 1)
        elif kind == 4:
            self.acknowledged.add(struct.unpack(">H", body)[0])
        elif kind in (9, 11):
            assert kind == 11 or body[-1] < 3, "SUBACK refuses"
            self.answered.add(struct.unpack(">H", body[:2])[0])
        elif kind == 14:  # 5.0: the node stops
            assert self.draining, "DISCONNECT"
        elif kind == 13:
            self.pongs += 1
        elif kind == 3:
            end = 2 + struct.unpack(">H", body[:2])[0]
            topic, at = body[2:end].decode(), end
            if first >> 1 & 3:
                self.owed.append(struct.unpack(">H", body[at:at + 2])[0])
                at += 2
            if self.five:
                assert body[at] < 0x80, "properties of one byte's length"
                at += 1 + body[at]
            self.on_message(topic, body[at:], bool(first & 1))
            if not self.lazy:
                self.pay()
        else:
            raise AssertionError(f"packet type {kind}")


class Events(Stream):
    """/sse. `on_event(object)` with each message, `on_id(text)` with each bookmark."""

    def __init__(self, port, target, on_event, on_id, last=None):
        super().__init__(port)
        self.on_event, self.on_id, self.head = on_event, on_id, None
        again = f"Last-Event-ID: {last}\r\n" if last else ""
        self.send(f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{again}\r\n".encode())

    def cut(self):
        end = self.inbox.find(b"\n\n" if self.head else b"\r\n\r\n")
        if end < 0:
            return 0
        if not self.head:
            self.head = bytes(self.inbox[:end])
            assert self.head.startswith(b"HTTP/1.1 200 "), self.head
            return end + 4
        block = bytes(self.inbox[:end]).decode().split("\n")
        if "event: bye" in block:
            assert self.draining, block
            return end + 2
        for line in block:
            name, _, value = line.partition(": ")
            if name == "data":
                self.on_event(json.loads(value))
            elif name == "id":
                self.on_id(value)
            else:
                assert not name or name == "retry" or line.startswith(":"), f"a block of another kind: {line}"
        return end + 2


def turn(streams, seconds):
    """Reads whatever has come to those that read."""
    reading = [s for s in streams if not s.paused and not s.gone]
    if not reading:
        return
    ready, _, _ = select.select([s.socket for s in reading], [], [], seconds)
    ready = {id(s) for s in ready}
    for stream in reading:
        if id(stream.socket) in ready:
            stream.read()
