"""A disk whose power can be cut.

    with a write cache                           without
    disk.img   what survives                     disk.img   what survives
      loop, ext4 "platter"                         loop, ext4 "root": the node's data
        inner.img in its page cache: the           its page cache: the machine's memory
        disk's volatile write cache
          loop, ext4 "root": the node's data
          its page cache: the machine's memory

What the node writes is dirty memory until ext4 hands it to its loop device. Without a write cache it is then in
disk.img: a disk that keeps whatever reaches it. With one, it only lies in the page cache of the outer ext4, and the
FLUSH that a sync ends with (the loop device turns it into an fsync of inner.img) is what brings it to disk.img.

The cut is ext4's own shutdown without a log flush on the outermost file system (what xfstests calls `godown`): from
that instant nothing more is submitted and the journal is aborted. Then disk.img is copied when its loop device has no
request in flight, so the copy is what the disk held at one moment. It never sees the page cache of a mounted file
system. `prove()` in run.py shows that on the spot: what was synced is in the copy, what was not is not.

Everything is mounted in a mount namespace of the test's own and loop devices clear themselves with their mount
(run.py), so nothing is left behind even if the test is killed."""

import fcntl
import os
import struct
import subprocess
import time
from pathlib import Path

EXT4_IOC_SHUTDOWN = 0x8004587D  # _IOR('X', 125, u32)
NO_LOG_FLUSH = 2
ROOT_MB, PLATTER_MB = 600, 700
# No commit of ext4's own accord: only a sync makes anything durable.
MOUNT_OPTIONS = "loop,commit=300"
SETTLE_S = 10


def command(*arguments):
    result = subprocess.run(arguments, capture_output=True, text=True)
    if result.returncode != 0:
        raise OSError(f"{' '.join(map(str, arguments))}: {result.stderr.strip()}")
    return result.stdout


def make_filesystem(path, megabytes):
    with open(path, "wb") as file:
        file.truncate(megabytes << 20)
    command("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", path)


def wait_for(condition, what):
    deadline = time.monotonic() + SETTLE_S
    while not condition():
        if time.monotonic() > deadline:
            raise OSError(f"waited {SETTLE_S} s in vain for {what}")
        time.sleep(0.002)


class Disk:
    def __init__(self, folder, write_cache):
        folder = Path(folder)
        self.write_cache = write_cache
        self.image, self.copy = folder / "disk.img", folder / "copy.img"
        self.root, self.platter = folder / "root", folder / "platter"
        self.mounted = []  # outermost first
        self.root.mkdir(parents=True)
        self.platter.mkdir()
        make_filesystem(self.image, PLATTER_MB if write_cache else ROOT_MB)
        try:
            if write_cache:
                self.mount(self.image, self.platter)
                make_filesystem(self.platter / "inner.img", ROOT_MB)
                self.unmount_all()
            self.power_on()
        except BaseException:
            self.unmount_all()
            raise

    def mount(self, image, point):
        command("mount", "-t", "ext4", "-o", MOUNT_OPTIONS, image, point)
        self.mounted.append(point)

    def power_on(self):
        """The journals are replayed by the kernel, as after any power cut."""
        if self.write_cache:
            self.mount(self.image, self.platter)
        self.mount(self.platter / "inner.img" if self.write_cache else self.image, self.root)

    def unmount_all(self):
        while self.mounted:
            wait_for(lambda: subprocess.run(["umount", self.mounted[-1]], capture_output=True).returncode == 0,
                     f"{self.mounted[-1]} to be free")
            self.mounted.pop()

    def device(self):
        """The lowest loop device in /sys: all that disk.img is ever given passes through it."""
        number = os.stat(self.mounted[0]).st_dev
        return Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")

    def cut(self):
        """Ends the power; disk.img stays as it is from here on."""
        fd = os.open(self.mounted[0], os.O_RDONLY)
        try:
            fcntl.ioctl(fd, EXT4_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(fd)

    def take_copy(self):
        """After cut(): disk.img as it lies still."""
        device = self.device()

        def sectors_written():
            return (device / "stat").read_text().split()[6]

        def is_idle():
            return (device / "inflight").read_text().split() == ["0", "0"]

        def copy_of_one_moment():
            # What the disk was writing at the cut may still arrive, as it may in a real one; then nothing does.
            wait_for(is_idle, "the disk to be idle")
            before = sectors_written()
            command("cp", "--sparse=always", self.image, self.copy)
            return before == sectors_written() and is_idle()

        wait_for(copy_of_one_moment, "the disk to lie still")

    def replace_by_copy(self):
        """After take_copy() and the end of whoever used the file system: the copy is the disk from now on."""
        self.unmount_all()
        os.replace(self.copy, self.image)
        self.power_on()

    def close(self):
        self.unmount_all()
        self.image.unlink(missing_ok=True)
        self.copy.unlink(missing_ok=True)

    __enter__ = lambda self: self
    __exit__ = lambda self, *_: self.close()
