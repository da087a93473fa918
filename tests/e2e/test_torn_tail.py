"""A write that a crash has cut in half is no part of the log: it is cut off at the start, what was acknowledged stays,
and nobody is told of a loss. The file is read here by docs/FORMAT.md alone."""

import struct

import pytest

from clients import Web, history, publish
from node import wait_until

SEGMENT_HEADER = 64
FRAME_HEADER = 72


def crc32c(data, crc=0):
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


class Segment:
    """The newest segment of lane 0: its bytes, where its frames lie, which offset comes next."""

    def __init__(self, node):
        self.path = max((node.data / "0").glob("*.seg"))
        self.data = bytearray(self.path.read_bytes())
        assert self.data[:8] == b"TGSEG1\n\0"
        self.frames, self.end, self.next = [], SEGMENT_HEADER, None
        while self.end + FRAME_HEADER <= len(self.data):
            size, crc = struct.unpack_from("<II", self.data, self.end)
            if size == 0:
                break
            header = self.data[self.end:self.end + FRAME_HEADER]
            assert crc == crc32c(header[8:] + header[:4]), "the frame before the tear is whole"
            base, count = struct.unpack_from("<QI", header, 16)
            self.frames.append(self.end)
            self.next = base + count
            self.end += size

    def last_frame_with_records(self):
        for start in reversed(self.frames):
            size, = struct.unpack_from("<I", self.data, start)
            count, flags = struct.unpack_from("<II", self.data, start + 24)
            if count and not flags & 0x20:
                return bytes(self.data[start:start + size])
        raise AssertionError("no frame with messages")

    def write_at_end(self, tail):
        with open(self.path, "r+b") as file:
            file.seek(self.end)
            file.write(tail)


def whole_header(segment):
    """A frame header that verifies, for the next offset: only its records did not reach the disk."""
    frame = bytearray(segment.last_frame_with_records())
    struct.pack_into("<Q", frame, 16, segment.next)
    struct.pack_into("<I", frame, 4, crc32c(frame[8:FRAME_HEADER] + frame[:4]))
    return bytes(frame)


TEARS = {
    "half a header": lambda segment: whole_header(segment)[:30],
    "header without records": lambda segment: whole_header(segment)[:FRAME_HEADER],
    "header and half a record": lambda segment: whole_header(segment)[:FRAME_HEADER + 25],
    "records of another offset": lambda segment: whole_header(segment),
    "noise": lambda segment: bytes((7 * i * i + 13) % 251 for i in range(500)),
}


@pytest.mark.parametrize("tear", TEARS.values(), ids=TEARS.keys())
def test_torn_tail_is_cut_and_nothing_else(make_node, tear):
    node = make_node()
    positions = [publish(node, "home/kitchen", b"%d" % number).json()["pos"] for number in range(20)]
    node.kill9()
    segment = Segment(node)
    segment.write_at_end(tear(segment))

    node.restart()
    assert [message["pos"] for message in history(node, "home/kitchen")] == positions
    with Web(node) as web:
        web.subscribe("#", "earliest")
        for position in positions:
            item = web.event()
            while "ok" in item:
                item = web.event()
            assert item.get("msg", item).get("pos") == position, "in order, and no word of a gap"
        # Live at once: no gap is told behind the last one either.
        assert "live" in web.event()
        positions.append(publish(node, "home/kitchen", b"new").json()["pos"])
        assert web.next()["pos"] == positions[-1]
    assert positions == sorted(positions)

    # The same once more from the segment that the recovery has sealed.
    node.kill9()
    node.restart()
    assert [message["pos"] for message in history(node, "home/kitchen")] == positions


def test_damage_below_what_was_acknowledged_is_told(make_node):
    """The other side of the rule: rot is not a torn tail. What is damaged is told as a gap, the rest is served."""
    node = make_node()
    positions = [publish(node, "home/kitchen", b"payload %d" % number).json()["pos"] for number in range(20)]
    # A mark, written after a quiet second, vouches for the last flight (FORMAT.md 5).
    wait_until(lambda: is_vouched_for(node, positions[-1]), "the mark")
    node.kill9()
    segment = Segment(node)
    at = segment.data.index(b"payload 7")
    with open(segment.path, "r+b") as file:
        file.seek(at)
        file.write(b"PAYLOAD 7")

    node.restart()
    with Web(node) as web:
        web.subscribe("home/kitchen", "earliest")
        got, gaps = [], 0
        while True:
            item = web.event()
            if "msg" in item:
                got.append(item["msg"]["pos"])
            elif "gap" in item:
                gaps += 1
            elif "live" in item:
                break
        assert got == positions[:7] + positions[8:]
        assert gaps == 1
        error = web.ask({"get": {"topic": "home/kitchen", "from": {"after": [positions[6]]}}})["err"]
        assert error["code"] == "internal"
        rest = web.ask({"get": {"topic": "home/kitchen", "from": {"after": [error["next"]]}}})["ok"]["messages"]
        assert [message["pos"] for message in rest] == positions[8:]


def is_vouched_for(node, position):
    segment = Segment(node)
    synced_below, = struct.unpack_from("<Q", segment.data, segment.frames[-1] + 40)
    return synced_below > int(position.rsplit(".", 1)[1], 16)


def test_the_scrub_finds_rot_that_nobody_reads(make_node):
    node = make_node({"log.segment_bytes": 65536, "log.scrub_bytes_per_s": "64M"})
    for _ in range(60):
        publish(node, "rot/1", b"x" * 3000)
    wait_until(lambda: node.metric("tidegate_log_scrub_bytes_total") > 65536, "the scrub to run")
    assert node.metric("tidegate_log_scrub_damaged_records") == 0
    path = min((node.data / "0").glob("*.seg"))
    with open(path, "r+b") as file:
        file.seek(20000)
        byte = file.read(1)[0]
        file.seek(20000)
        file.write(bytes([byte ^ 4]))
    wait_until(lambda: node.metric("tidegate_log_scrub_damaged_records") == 1, "the scrub to find it")
    wait_until(lambda: any("found by the scrub" in line and str(path) in line for line in node.stderr), "the line")


def test_no_scrub_when_it_is_off(make_node):
    node = make_node({"log.segment_bytes": 65536, "log.scrub_bytes_per_s": 0})
    for _ in range(60):
        publish(node, "rot/1", b"x" * 3000)
    assert node.metric("tidegate_log_scrub_bytes_total") == 0
