#!/usr/bin/python3
"""The power is cut under the node, over and over: no acknowledged message may be lost, no position used twice.

    tests/power/run.py [--rounds N]      the proof, on two disks in turn (disk.py): with and without a write cache
    tests/power/run.py --expect-loss     the proof of the proof: with the sync taken out the same rounds must find loss
    tests/power/run.py --report FILE     also writes the rounds as a table in Markdown

kill -9 cannot tell a sync from none, because the kernel keeps what was written. A round is: publishers and resuming
subscribers at all doors; SIGSTOP of the node, and the disk's power goes (disk.py); the clients read what the doors had
answered; SIGKILL; the copy of the disk is mounted and the log is judged by docs/FORMAT.md alone
(log_files.py); the node starts there and must serve all that was ever acknowledged, byte for byte and in order, to
readers of the past and to resuming subscribers alike (tests/e2e/load.py). Of three rounds one has a second cut while
the node recovers, and one a second cut after it was ready and had delivered messages that no sync covered yet.

A round that finds a fault leaves the disks as they were at their last two cuts, what the node said and what was
acknowledged in a folder that it prints (KEPT).

Needs root, loop devices, mkfs.ext4 and unshare (ground.py). Where they are missing: a failure with CI set, else a
skip."""

import argparse
import contextlib
import ctypes
import json
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "e2e")]

from disk import Disk, command  # noqa: E402
from ground import freeze, scratch_folder, stand  # noqa: E402
from load import FILTERS, Ledger, Load, Watcher, history_bytes  # noqa: E402
from log_files import Crc32c, read_log  # noqa: E402
from node import PATIENCE, PROGRAM, Node, wait_until  # noqa: E402

KINDS = ("under load", "and while it recovers", "and just after")
SEGMENT_BYTES = ("64K", "1M", "16M")  # so that segments also end, begin and are made ahead under the cut
LOAD_S = (0.1, 0.7)
RECOVERY_S = (0.0, 0.06)
QUIET_S = 0.1
KEPT = Path("/var/tmp/tidegate-power-cut")  # of the last run that found a fault
CUTS_KEPT = 2  # images a disk
MUTANT_ROUNDS = 8
MUTANTS = (
    ("log.sync=never", False, {"log.sync": "never"}, None),
    ("fdatasync does nothing", False, {}, "none"),
    ("fdatasync does nothing", True, {}, "none"),
    ("fdatasync without FLUSH", True, {}, "writeback"),
    ("fdatasync not waited for", True, {}, "early"),
)


def shared_library(folder, source):
    library = folder / f"{source.stem}.so"
    subprocess.run(["gcc", "-O2", "-D_GNU_SOURCE", "-shared", "-fPIC", "-o", library, source], check=True)
    return library


# --- the disk does what it is said to do ------------------------------------------------------------------------

OLD, NEW = b"o" * 8192, b"n" * 8192


def write(path, data, sync=None):
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.pwrite(fd, data, 0)
        if sync:
            sync(fd)
    finally:
        os.close(fd)


def to_device_only(fd):
    """What the mutant `writeback` does for a sync: the disk has the pages, and no FLUSH makes it keep them."""
    if ctypes.CDLL(None, use_errno=True).sync_file_range(fd, ctypes.c_int64(0), ctypes.c_int64(0), 7):
        raise OSError(ctypes.get_errno(), "sync_file_range")


def prove(folder):
    """The control experiment: of writes before a cut exactly the synced ones are in the copy. Overwritten blocks, so
    that nothing but data is at stake; and a new file, which is a name, a size and blocks."""
    for write_cache in (False, True):
        with Disk(folder / "proof", write_cache) as disk:
            names = ("synced", "flushless", "unsynced")
            for name in names:
                write(disk.root / name, OLD)
            os.sync()
            write(disk.root / "synced", NEW, os.fdatasync)
            write(disk.root / "flushless", NEW, to_device_only)
            write(disk.root / "unsynced", NEW)
            write(disk.root / "unsynced-new", NEW)
            disk.cut()
            disk.take_copy()
            disk.replace_by_copy()
            kept = {name: (disk.root / name).read_bytes() == NEW for name in names}
            kept["unsynced-new"] = (disk.root / "unsynced-new").exists()
            wanted = {"synced": True, "flushless": not write_cache, "unsynced": False, "unsynced-new": False}
            print(f"control, {disk_name(write_cache)}: kept after the cut: {kept}")
            if kept != wanted:
                raise SystemExit(f"the cut is none: wanted {wanted}")
        shutil.rmtree(folder / "proof")


def disk_name(write_cache):
    return "write cache" if write_cache else "no write cache"


# --- rounds ----------------------------------------------------------------------------------------------------

class Run:
    """One log through any number of cuts, on one disk."""

    def __init__(self, folder, write_cache, partitions, seed, crc32c, settings=None, environment=None):
        self.disk = Disk(folder, write_cache)
        self.crc32c = crc32c
        self.dice = random.Random(f"{seed} {write_cache}")
        self.ledger = Ledger()
        self.watchers = [Watcher(text, self.ledger) for text in FILTERS]
        self.cuts = folder / "cuts"
        self.cuts.mkdir()
        self.cut_count = 0
        self.node = Node(self.disk.root, {"log.partitions": partitions, **(settings or {})}, environment=environment)
        self.cut_first = False
        self.torn_bytes = 0
        self.rows = []
        self.begun = False

    def close(self):
        process = self.node.process
        if process and process.poll() is None:
            process.kill()
            process.wait()
        self.disk.close()
        with contextlib.suppress(Exception):  # their node is gone
            self.close_watchers()

    __enter__ = lambda self: self
    __exit__ = lambda self, *_: self.close()

    def fault(self, kind, text):
        self.ledger.fault(kind, text)

    # Until ready, in ms.
    def start(self):
        self.node.settings["log.segment_bytes"] = self.dice.choice(SEGMENT_BYTES)
        began = time.monotonic()
        lines = len(self.node.stderr)
        self.node.start()
        for line in self.node.stderr[lines:]:
            if "verif" in line or "are not there" in line:
                self.fault("log", line.strip())
        return 1000 * (time.monotonic() - began)

    def open_watchers(self):
        for watcher in self.watchers:
            watcher.open(self.node)

    def close_watchers(self):
        for watcher in self.watchers:
            if watcher.web:
                watcher.web.close()
                watcher.web = None

    def cut(self, load=None):
        # The node is stopped first: after the cut ext4 may call a sync good that failed (docs/results/power-cut.md). A
        # stopped node tells nobody, and what its sync was doing is cut half done all the same. Only planted faults are cut
        # first: of a sync that is not waited for more gets out so.
        if not self.cut_first:
            freeze(self.node.process)
        self.disk.cut()
        if self.cut_first:
            freeze(self.node.process)
        self.disk.take_copy()
        self.keep_copy()
        # What had left the node before is in the sockets: an acknowledgement there is one.
        heard = None
        while load and heard != (heard := load.heard()):
            time.sleep(QUIET_S)
        if self.node.process.poll() is None:
            self.node.kill9()
        self.node.killed = True
        if load:
            load.end()
        self.disk.replace_by_copy()
        lanes, faults = read_log(self.node.data, self.crc32c, stopped=False)
        for text in faults:
            self.fault("log", text)
        self.torn_bytes += sum(lane.torn_bytes for lane in lanes.values())

    def keep_copy(self):
        """As it is before the journal is replayed. The oldest goes."""
        self.cut_count += 1
        command("cp", "--sparse=always", self.disk.copy, self.cuts / f"{self.cut_count}.img")
        (self.cuts / f"{self.cut_count - CUTS_KEPT}.img").unlink(missing_ok=True)

    def leave(self, folder):
        """What somebody needs who looks for the fault."""
        shutil.move(self.cuts, folder)
        (folder / "node.log").write_text("".join(self.node.stderr))
        (folder / "ledger.json").write_text(json.dumps(
            {"faults": self.ledger.faults, "rows": self.rows, "acknowledged": self.ledger.acknowledged,
             "seen": {position: list(message) for position, message in self.ledger.seen.items()}}))

    def cut_while_it_recovers(self):
        def start():
            try:
                self.start()
            except AssertionError as error:  # killed under its start, or it saw the disk go and said so
                code = re.search("ended with (-?[0-9]+):", str(error))
                last_line = str(error).strip().splitlines()[-1]
                if not code or code[1] not in ("-9", "75") and (code[1] != "1" or "Input/output" not in last_line):
                    self.fault("start", str(error))

        before = self.node.process
        starter = threading.Thread(target=start, daemon=True)
        starter.start()
        wait_until(lambda: self.node.process is not before, "the node to begin")
        time.sleep(self.dice.uniform(*RECOVERY_S))
        self.cut()
        starter.join()

    def cut_just_after(self):
        self.start()
        self.open_watchers()
        load = Load(self.node, self.ledger, self.watchers, topics=["load/qos0"])
        first = self.ledger.next_number["load/qos0"]
        wait_until(lambda: any(number >= first for number in self.watchers[0].got.get("load/qos0", [])[-5:]),
                   "a message that is delivered and not synced")
        self.cut(load)

    def round(self, kind):
        before, seen = self.ledger.count(), len(self.ledger.seen)
        if not self.begun:
            self.start()
            self.open_watchers()
            self.begun = True
        load = Load(self.node, self.ledger, self.watchers)
        load.wait_for_each_door()
        time.sleep(self.dice.uniform(*LOAD_S))
        self.cut(load)
        if kind == KINDS[1]:
            self.cut_while_it_recovers()
        elif kind == KINDS[2]:
            self.cut_just_after()
        ready_ms = self.start()
        lost = self.ledger.check_kept(self.node)
        for watcher in self.watchers:
            self.ledger.check_watcher(self.node, watcher)
        row = {"disk": disk_name(self.disk.write_cache), "cut": kind, "acknowledged": self.ledger.count() - before,
               "acknowledged in all": self.ledger.count(), "lost": lost, "seen": len(self.ledger.seen) - seen,
               "delivered, not kept": len(self.ledger.unkept), "torn bytes": self.torn_bytes,
               "ready ms": round(ready_ms), "faults": len(self.ledger.faults)}
        self.rows.append(row)
        print(", ".join(f"{name} {value}" for name, value in row.items()), flush=True)

    def finish(self):
        """A clean stop; then the files hold exactly what was served."""
        served = {topic: history_bytes(self.node, topic) for topic in self.ledger.acknowledged}
        self.close_watchers()
        self.node.stop()
        lanes, faults = read_log(self.node.data, self.crc32c, stopped=True)
        held = {topic: [] for topic in served}
        for lane, content in lanes.items():
            for record in content.records:
                if not record.internal:
                    held[record.topic].append((lane, record.offset, record.payload))
        for topic, messages in served.items():
            if held[topic] != [(int(pos[8:12], 16), int(pos[13:], 16), data) for pos, data in messages]:
                faults.append(f"{topic}: the files do not hold what history served")
        for text in faults:
            self.fault("log", text)


# --- the two proofs --------------------------------------------------------------------------------------------

def cut_rounds(folder, crc32c, rounds, seed):
    """Alternating between the two disks, each with one log through all its cuts. The rows, the faults."""
    runs = []
    try:
        for write_cache, partitions in ((True, 1), (False, 4)):
            runs.append(Run(folder / disk_name(write_cache).replace(" ", "-"), write_cache, partitions, seed, crc32c))
        rows = []
        for number in range(rounds):
            run = runs[number % 2]
            run.round(KINDS[number % 3])
            rows.append(run.rows[-1])
        for run in runs:
            if run.begun:
                run.finish()
        return rows, [fault for run in runs for fault in run.ledger.faults]
    except BaseException as error:
        runs[-1].fault("round", repr(error))
        raise
    finally:
        if any(run.ledger.faults for run in runs):
            shutil.rmtree(KEPT, ignore_errors=True)
            KEPT.mkdir(parents=True)
            for run in runs:
                run.leave(KEPT / disk_name(run.disk.write_cache).replace(" ", "-"))
            print(f"disks, node's words and ledger are kept in {KEPT}", flush=True)
        with contextlib.ExitStack() as stack:  # each, whatever happens to the others
            for run in runs:
                stack.callback(run.close)


def expect_loss(folder, crc32c, library, seed):
    """The rows of the mutants. Each must have lost what it had acknowledged, within a few rounds."""
    rows = []
    for number, (name, write_cache, settings, mutant) in enumerate(MUTANTS):
        environment = {"LD_PRELOAD": str(library), "SYNC_MUTANT": mutant} if mutant else {}
        with Run(folder / f"mutant{number}", write_cache, 1, seed, crc32c, settings, environment) as run:
            run.cut_first = True
            rounds = 0
            while rounds < MUTANT_ROUNDS and not run.ledger.faults:
                rounds += 1
                try:
                    run.round(KINDS[0])
                except AssertionError as error:
                    run.fault("start", str(error))
            kinds = sorted({kind for kind, _ in run.ledger.faults})
            rows.append({"taken out": name, "disk": disk_name(write_cache), "rounds": rounds,
                         "acknowledged": run.ledger.count(), "lost": run.rows[-1]["lost"] if run.rows else "-",
                         "found": "yes" if "lost" in kinds else "no"})
            print(", ".join(f"{key} {value}" for key, value in rows[-1].items()))
            for kind, text in run.ledger.faults:
                print(f"  {kind}: {text[-300:]}", flush=True)
    return rows


def table(rows):
    names = list(rows[0])
    lines = [names, ["---"] * len(names)] + [[str(row[name]) for name in names] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=4)
    parser.add_argument("--expect-loss", action="store_true", help="plant the faults that must be found")
    parser.add_argument("--report", type=Path, help="file for a table of the rounds (Markdown)")
    options = parser.parse_args()
    stand((120 + 15 * options.rounds) * PATIENCE)
    assert PROGRAM.exists(), f"{PROGRAM} is not built (./dev build)"
    began = time.monotonic()
    with scratch_folder() as folder:
        crc32c = Crc32c(shared_library(folder, HERE / "crc32c.c"))
        library = shared_library(folder, HERE / "sync_mutant.c")
        prove(folder)
        if options.expect_loss:
            rows = expect_loss(folder, crc32c, library, options.seed)
            good = all(row["found"] == "yes" for row in rows)
        else:
            rows, faults = cut_rounds(folder, crc32c, options.rounds, options.seed)
            for kind, text in faults[:50]:
                print(f"FAULT {kind}: {text}")
            good = not faults
    if options.report:
        options.report.write_text(table(rows))
    print(f"power cut: {'ok' if good else 'FAILED'} in {time.monotonic() - began:.0f} s")
    raise SystemExit(not good)


if __name__ == "__main__":
    main()
