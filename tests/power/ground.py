"""What the power cut stands on: root, loop devices, a mount namespace of its own."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

from node import wait_until

INSIDE = "TIDEGATE_POWER_INSIDE"
TOOLS = ("mkfs.ext4", "mount", "umount", "losetup", "unshare", "gcc")


def what_is_missing():
    if os.geteuid() != 0:
        return "only root can mount"
    for tool in TOOLS:
        if not shutil.which(tool):
            return f"{tool} is not installed"
    if not Path("/dev/loop-control").exists() or subprocess.run(["losetup", "-f"], capture_output=True).returncode:
        return "no loop devices"
    if subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"], capture_output=True).returncode:
        return "no mount namespace of our own"
    return None


def stand(seconds):
    """Runs the program again in a namespace with which its mounts, loop devices and processes end, however it ends.
    Where that cannot be: a failure in CI, else a skip. Ends what takes longer than `seconds`."""
    if INSIDE in os.environ:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        signal.signal(signal.SIGALRM, lambda *_: sys.exit("power cut: FAILED: it hangs"))
        signal.alarm(seconds)
        return
    reason = what_is_missing()
    if reason:
        print(f"power cut: {'FAILED' if os.environ.get('CI') else 'skipped'}: {reason}")
        raise SystemExit(bool(os.environ.get("CI")))
    os.environ[INSIDE] = "1"
    os.execvp("unshare", ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child=TERM",
                          "--mount-proc", sys.executable, *sys.argv])


@contextmanager
def scratch_folder():
    with tempfile.TemporaryDirectory(prefix="tidegate-power-") as name:
        yield Path(name)


def freeze(process):
    """SIGSTOP, and no thread runs any more: each is stopped, or in the kernel on its way there. A process that has
    ended of its own accord, of a failed sync, runs no more either."""
    process.send_signal(signal.SIGSTOP)

    def all_stopped():
        if process.poll() is not None:
            return True
        try:
            tasks = [(task / "stat").read_text() for task in Path(f"/proc/{process.pid}/task").iterdir()]
        except OSError:  # a thread or the process ends just now
            return False
        return all(task.rsplit(")", 1)[1].split()[0] in "TtDZX" for task in tasks)

    wait_until(all_stopped, "the process to be stopped")
