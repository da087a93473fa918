"""MQTT in WebSocket frames, by hand: what mqtt_wire.Wire needs of a socket, on top of one."""

import socket
import struct

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def frame(payload, opcode=BINARY, final=True):
    size = len(payload)
    head = bytes([(0x80 if final else 0) | opcode])
    if size < 126:
        head += bytes([0x80 | size])
    elif size < 65536:
        head += bytes([0x80 | 126]) + struct.pack("!H", size)
    else:
        head += bytes([0x80 | 127]) + struct.pack("!Q", size)
    mask = b"\x37\xfa\x21\x3d"  # fixed: frames are parameters of tests
    repeated = (mask * (size // 4 + 1))[:size]
    masked = (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(size, "big")
    return head + mask + masked


def upgrade(path="/mqtt", protocol="mqtt"):
    return (f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n").encode()


class Carrier:
    """`cut`: bytes of MQTT that go into a frame; 0 = what is sent at once is one frame."""

    def __init__(self, wire, cut=0):
        self.socket, self.cut = wire, cut
        self.kept, self.close_code, self.pongs = b"", None, []
        wire.sendall(upgrade())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = wire.recv(1)
            if not byte:
                raise ConnectionResetError
            head += byte
        self.head = head.decode()
        assert head.startswith(b"HTTP/1.1 101") and "sec-websocket-protocol: mqtt\r\n" in self.head.lower(), head

    def sendall(self, data):
        step = self.cut or len(data) or 1
        self.socket.sendall(b"".join(frame(data[at:at + step]) for at in range(0, len(data), step)))

    def exactly(self, count):
        while len(self.kept) < count:
            data = self.socket.recv(65536)
            if not data:
                return None
            self.kept += data
        data, self.kept = self.kept[:count], self.kept[count:]
        return data

    def next_frame(self):
        """(opcode, payload), or None at the end."""
        if (head := self.exactly(2)) is None:
            return None
        assert head[0] & 0x70 == 0 and not head[1] & 0x80, head
        size = head[1]
        if size == 126:
            size, = struct.unpack("!H", self.exactly(2))
        elif size == 127:
            size, = struct.unpack("!Q", self.exactly(8))
        return head[0] & 15, self.exactly(size)

    def recv(self, _):
        while (item := self.next_frame()) is not None:
            opcode, payload = item
            if opcode == BINARY:
                return payload
            if opcode == PONG:
                self.pongs.append(payload)
            elif opcode == CLOSE:
                self.close_code = struct.unpack("!H", payload)[0] if payload else 1005
            else:
                raise AssertionError(f"a frame of opcode {opcode} from the server")
        return b""

    def settimeout(self, seconds):
        self.socket.settimeout(seconds)

    def shutdown(self, how):
        socket.socket.shutdown(self.socket, how)  # an SSLSocket's own would end TLS for reading too

    def setsockopt(self, *arguments):
        self.socket.setsockopt(*arguments)

    def fileno(self):
        return self.socket.fileno()

    def close(self):
        self.socket.close()

    __enter__ = lambda self: self
    __exit__ = lambda self, *_: self.close()
