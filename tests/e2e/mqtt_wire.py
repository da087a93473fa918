"""MQTT by hand, from the standards alone: bytes to send that no library would, and answers as they came."""

import select
import socket
import struct
import time

from clients import WAIT_S

CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK, PINGRESP, DISCONNECT = (
    2, 3, 4, 5, 6, 7, 9, 11, 13, 14)


def varint(number):
    out = b""
    while True:
        number, byte = number >> 7, number & 0x7F
        out += bytes([byte | (0x80 if number else 0)])
        if not number:
            return out


def text(value):
    value = value.encode() if isinstance(value, str) else value
    return struct.pack(">H", len(value)) + value


def packet(first, body=b""):
    return bytes([first]) + varint(len(body)) + body


def properties(raw):
    return varint(len(raw)) + raw


def user(name, value):
    return b"\x26" + text(name) + text(value)


def connect(version=5, client_id="", flags=0x02, keep_alive=0, props=b"", rest=b"", name=None, level=None):
    body = text(name or ("MQIsdp" if version == 3 else "MQTT"))
    body += bytes([version if level is None else level, flags]) + struct.pack(">H", keep_alive)
    if version == 5:
        body += properties(props)
    return packet(0x10, body + text(client_id) + rest)


def publish(topic, payload=b"", qos=0, number=0, version=5, props=b"", flags=None):
    body = text(topic)
    if qos:
        body += struct.pack(">H", number)
    if version == 5:
        body += properties(props)
    return packet(0x30 | (qos << 1 if flags is None else flags), body + payload)


def subscribe(number, *filters, version=5, props=b"", first=0x82):
    """filters: text (QoS 1) or (text, options byte)"""
    body = struct.pack(">H", number)
    if version == 5:
        body += properties(props)
    for item in filters:
        name, options = item if isinstance(item, tuple) else (item, 1)
        body += text(name) + bytes([options])
    return packet(first, body)


def unsubscribe(number, *filters, version=5, first=0xA2):
    body = struct.pack(">H", number) + (b"\x00" if version == 5 else b"")
    return packet(first, body + b"".join(text(name) for name in filters))


def puback(number):
    return packet(0x40, struct.pack(">H", number))


def pubrec(number, rest=b""):
    return packet(0x50, struct.pack(">H", number) + rest)


def pubrel(number, rest=b""):
    return packet(0x62, struct.pack(">H", number) + rest)


def pubcomp(number, rest=b""):
    return packet(0x70, struct.pack(">H", number) + rest)


PING = b"\xc0\x00"
PONG = b"\xd0\x00"
BYE = b"\xe0\x00"


class End(Exception):
    """The server has closed the connection."""


class Message:
    """A PUBLISH that came."""

    def __init__(self, first, body, version):
        self.qos = first >> 1 & 3
        self.dup = bool(first & 8)
        self.retained = bool(first & 1)
        length, = struct.unpack_from(">H", body)
        self.topic = body[2:2 + length].decode()
        place = 2 + length
        self.number = 0
        if self.qos:
            self.number, = struct.unpack_from(">H", body, place)
            place += 2
        self.props = b""
        if version == 5:
            length, place = read_varint(body, place)
            self.props = body[place:place + length]
            place += length
        self.payload = body[place:]


def read_varint(data, place):
    number = shift = 0
    while True:
        byte = data[place]
        place += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return number, place


def bare(kind, body):
    """The body of an answer of 5.0 without its properties (Reason String ...), and short where it may be short."""
    if kind in (PUBACK, PUBREC, PUBREL, PUBCOMP):
        return body[:3]
    if kind in (SUBACK, UNSUBACK):
        length, place = read_varint(body, 2)
        return body[:2] + b"\x00" + body[place + length:]
    return body[:1] if kind == DISCONNECT else body


def bare_stream(data):
    """Answers one after the other; what is no whole packet stays as it is."""
    out = b""
    while data:
        try:
            length, place = read_varint(data, 1)
        except IndexError:
            break
        if len(data) < place + length:
            break
        out += packet(data[0], bare(data[0] >> 4, data[place:place + length]))
        data = data[place + length:]
    return out + data


class Wire:
    """One socket. With connect=True it is a client of that version already."""

    def __init__(self, node, version=5, client_id="", connected=True, receive_buffer=None, **options):
        self.version = version
        self.socket = node.connect("mqtt", receive_buffer)
        self.kept = b""
        self.connack = None
        if connected:
            self.send(connect(version, client_id, **options))
            first, self.connack = self.packet()
            assert first >> 4 == CONNACK and self.connack[1] == 0, self.connack.hex()

    def send(self, data):
        self.socket.sendall(data)

    def fill(self):
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            raise End from None
        if not data:
            raise End
        self.kept += data

    def packet(self):
        """(first byte, body) of the next packet."""
        while True:
            for end in range(2, min(len(self.kept), 5) + 1):
                if self.kept[end - 1] < 0x80:
                    length, place = read_varint(self.kept, 1)
                    if len(self.kept) < place + length:
                        break
                    first, body = self.kept[0], self.kept[place:place + length]
                    self.kept = self.kept[place + length:]
                    return first, body
            self.fill()

    def expect(self, kind):
        first, body = self.packet()
        assert first >> 4 == kind, f"packet {first:02x} {body[:64].hex()} instead of type {kind}"
        return body

    def message(self, acknowledge=True):
        first, body = self.packet()
        assert first >> 4 == PUBLISH, f"packet {first:02x} {body[:64].hex()} instead of a PUBLISH"
        message = Message(first, body, self.version)
        if message.qos == 1 and acknowledge:
            self.send(puback(message.number))
        return message

    def subscribe(self, *filters, number=1, **options):
        """The codes of SUBACK."""
        self.send(subscribe(number, *filters, version=self.version, **options))
        body = self.expect(SUBACK)
        assert struct.unpack_from(">H", body)[0] == number
        return bare(SUBACK, body)[3:] if self.version == 5 else body[2:]

    def publish(self, topic, payload=b"", number=1, props=b""):
        """QoS 1; the code of PUBACK."""
        self.send(publish(topic, payload, 1, number, self.version, props))
        body = self.expect(PUBACK)
        assert struct.unpack_from(">H", body)[0] == number
        return body[2] if len(body) > 2 else 0

    def ping(self):
        self.send(PING)
        first, body = self.packet()
        assert first == 0xD0 and body == b"", f"{first:02x} {body[:64].hex()} instead of PINGRESP"

    def quiet(self, seconds):
        """Nothing comes for so long."""
        ready, _, _ = select.select([self.socket], [], [], seconds)
        return not ready and not self.kept

    def rest(self, seconds=WAIT_S):
        """All that still comes until the server closes; it must close."""
        deadline = time.monotonic() + seconds
        try:
            while time.monotonic() < deadline:
                self.fill()
        except End:
            kept, self.kept = self.kept, b""
            return kept
        raise AssertionError(f"the connection is still open after {seconds} s")

    def disconnect_code(self):
        """The reason of the server's DISCONNECT, and then it closes."""
        rest = self.rest()
        assert rest[:1] == b"\xe0", f"{rest[:64].hex()} instead of DISCONNECT"
        return rest[2] if len(rest) > 2 else 0

    def close(self):
        self.socket.close()

    __enter__ = lambda self: self
    __exit__ = lambda self, *_: self.close()
