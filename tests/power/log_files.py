"""Reads a node's log by docs/FORMAT.md alone and judges it: a second opinion on what the node says of its own files."""

import ctypes
import re
import struct
from collections import namedtuple
from pathlib import Path

SEGMENT_HEADER = struct.Struct("<8sHHIQQQIIQII")
FRAME_HEADER = struct.Struct("<IIQQIIQQQHHIII")
RECORD_HEADER = struct.Struct("<IIIIQQHHHBB")
CONTROL = 1 << 5
EXPIRES, INTERNAL = 0x02, 0x10

Record = namedtuple("Record", "offset topic payload internal")
Lane = namedtuple("Lane", "records end torn_bytes")


class Crc32c:
    def __init__(self, library):
        self.function = ctypes.CDLL(str(library)).crc32c
        self.function.restype = ctypes.c_uint32
        self.function.argtypes = [ctypes.c_uint32, ctypes.c_char_p, ctypes.c_size_t]

    def __call__(self, data):
        return self.function(0, data, len(data))


class Segment:
    """`records` up to the first place that does not verify; there, `bad` is its frame's base offset (None: no such
    place), `end` the offset behind the last whole frame, `noise` the written bytes from the bad place on."""

    def __init__(self, path, crc32c):
        self.crc32c, self.data = crc32c, path.read_bytes()
        self.base = self.end = int(path.stem)
        self.records, self.bad, self.synced_below = [], None, 0
        self.epoch, self.previous_next = None, self.base
        self.at = SEGMENT_HEADER.size
        if self.read_header():
            while self.at < len(self.data) and self.read_frame():
                pass
        tail = self.data[self.at:].rstrip(b"\0")
        self.noise = len(tail)
        if tail and self.bad is None:
            self.bad = self.end

    def read_header(self):
        header = self.data[:SEGMENT_HEADER.size]
        if len(header) < SEGMENT_HEADER.size or header[:8] != b"TGSEG1\n\0":
            return False
        fields = SEGMENT_HEADER.unpack(header)
        if fields[11] != self.crc32c(header[:60]) or fields[4] != self.base:
            return False
        self.epoch, self.previous_next = fields[6], fields[9]
        return True

    def read_frame(self):
        start, header = self.at, self.data[self.at:self.at + FRAME_HEADER.size]
        if len(header) < FRAME_HEADER.size:
            return False
        size, crc, epoch, base, count, flags, _, synced_below, *_, body_bytes, _ = FRAME_HEADER.unpack(header)
        if (crc != self.crc32c(header[8:] + header[:4]) or epoch != self.epoch or size != len(header) + body_bytes
                or start + size > len(self.data) or base != self.end or flags & ~CONTROL):
            return False
        records = self.read_records(start + len(header), start + size, base, count)
        if records is None:
            self.bad = base
            return False
        self.records += records
        self.end, self.at = base + count, start + size
        self.synced_below = max(self.synced_below, synced_below)
        return True

    def read_records(self, at, end, base, count):
        found = []
        for number in range(count):
            if at + RECORD_HEADER.size > end:
                return None
            crc, size, delta, _, _, _, topic, key, props, _, flags = RECORD_HEADER.unpack_from(self.data, at)
            padded = (size + 7) & ~7
            if (size < RECORD_HEADER.size or at + padded > end or delta != number
                    or crc != self.crc32c(struct.pack("<QQ", self.epoch, base) + self.data[at + 4:at + padded])):
                return None
            start = at + RECORD_HEADER.size + (8 if flags & EXPIRES else 0)
            name = self.data[start:start + topic].decode()
            found.append(Record(base + delta, name, self.data[start + topic + key + props:at + size],
                                bool(flags & INTERNAL)))
            at += padded
        return found if at == end else None


def read_manifest(path, crc32c):
    text = Path(path).read_text()
    body, crc = re.fullmatch(r"(.*\n)crc ([0-9a-f]{8})\n", text, re.DOTALL).groups()
    assert int(crc, 16) == crc32c(body.encode()), "MANIFEST: wrong CRC"
    lanes = {int(lane): (int(first), int(end), int(next_)) for lane, first, end, next_ in
             re.findall(r"lane (\d+) first (\d+) end (\d+) next (\d+)", body)}
    return re.search(r"^state (\w+)$", body, re.MULTILINE)[1], lanes


def read_lane(folder, first, manifest_end, crc32c, faults):
    """FORMAT.md 9: what is below the greatest witness of a sync must verify, and nothing above it is owed."""
    segments = [Segment(path, crc32c) for path in sorted(folder.glob("*.seg"))]
    witness = max([manifest_end] + [segment.synced_below for segment in segments])
    records, end, torn_bytes = [], first, 0
    for number, segment in enumerate(segments):
        if segment.base < end:
            faults.append(f"lane {folder.name}: segment {segment.base} overlaps the one that ends at {end}")
        if segment.previous_next > end and end < witness:
            faults.append(f"lane {folder.name}: {end} to {segment.previous_next} are not there, synced below {witness}")
        if segment.bad is not None and segment.bad < witness:
            faults.append(f"lane {folder.name}: {segment.bad} does not verify and was synced, below {witness}")
        records += segment.records
        torn_bytes += segment.noise
        if segment.end > segment.base:
            end = segment.end
        elif number < len(segments) - 1 and segments[-1].end > segments[-1].base:
            faults.append(f"lane {folder.name}: segment {segment.base} is empty and not the last")
    if end < witness:
        faults.append(f"lane {folder.name} ends at {end}, and below {witness} all was synced")
    return Lane(records, end, torn_bytes)


def read_log(data, crc32c, stopped):
    """{lane: Lane}, [fault]. With `stopped` the log must be that of a node that has stopped cleanly."""
    faults = []
    if not (data / "MANIFEST").exists():
        return {}, [] if not stopped else ["no MANIFEST"]
    state, bounds = read_manifest(data / "MANIFEST", crc32c)
    lanes = {number: read_lane(data / str(number), first, end, crc32c, faults)
             for number, (first, end, _) in bounds.items()}
    if stopped:
        if state != "stopped":
            faults.append(f"the MANIFEST says {state} after a clean stop")
        for number, (_, end, next_) in bounds.items():
            if not lanes[number].end == end == next_ or lanes[number].torn_bytes:
                faults.append(f"lane {number}: end {lanes[number].end}, MANIFEST {end} and {next_}, "
                              f"{lanes[number].torn_bytes} torn bytes")
    return lanes, faults
