"""Plants each fault of table.py in a copy of the tree, builds it, and expects the named test to fail for the named
reason. First the same tests run without a fault and must pass. Copies of the tree work side by side, one more than CPUs:
most of the time tests wait.

What a fault takes away is waited for in vain. So a test waits for a few seconds only, if it passes so without a fault; what
is red for another reason than the named one, or green, is tried once more, with all the patience that tests have.

Usage: run.py [NAME...]          Last line: N passed, N failed (a mutant that was caught has passed)
"""

import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from table import MUTANTS

ROOT = Path(__file__).resolve().parents[2]
BUILD_S, TEST_S = 600, 900
IMPATIENT = {"TIDEGATE_WAIT_S": "4"}
PATIENT = {}  # as all tests are: see tests/e2e/node.py


def is_program(test):
    return test.startswith(("unit.", "crash."))


class Copy:
    """The tree's files as they are now (committed or not), with a build of their own."""

    def __init__(self, folder):
        self.root = Path(folder)
        names = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                               check=True, capture_output=True, text=True).stdout.split("\0")
        for name in filter(None, names):
            source, target = ROOT / name, self.root / name
            if source.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)
        launcher = ["-DCMAKE_C_COMPILER_LAUNCHER=ccache"] if shutil.which("ccache") else []
        self.run(["cmake", "--preset", "dev", *launcher], BUILD_S)

    def run(self, command, seconds, more=None):
        environment = {**os.environ, "TIDEGATE_PRESET": "dev", "CCACHE_BASEDIR": str(self.root), **(more or {})}
        environment.pop("TIDEGATE_PROGRAM", None)
        result = subprocess.run(command, cwd=self.root, env=environment, stdin=subprocess.DEVNULL, timeout=seconds,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        return result.returncode, result.stdout

    def build(self, *targets):
        # A planted fault may leave a variable unused; that is not what shall catch it.
        code, output = self.run(["cmake", "--build", "build/dev", "--target", *(targets or ["tidegate"])], BUILD_S)
        if code != 0:
            raise SystemExit(f"{output[-4000:]}\nthe build failed")

    def test(self, names, patience, *options):
        """Of end-to-end tests, or one program (`unit.*`), with a fresh seed of its own."""
        if is_program(names[0]):
            return self.run(f"build/dev/tests/{names[0]}".split(), TEST_S, patience)
        return self.run(["/usr/bin/python3", "-m", "pytest", "-q", "-p", "no:cacheprovider", *options,
                         *(f"tests/e2e/{name}" for name in names)], TEST_S, patience)

    def slow_tests(self, names):
        """Which of them need more time than a few seconds on this machine, without a fault."""
        for name in filter(is_program, names):
            self.build(name.split()[0])
            code, output = self.test([name], PATIENT)
            if code != 0:
                raise SystemExit(f"{output[-4000:]}\n{name} is not green without a fault")
        names = [name for name in names if not is_program(name)]
        if not names:
            return []
        code, output = self.test(names, IMPATIENT, "-n", "2")
        if code == 0:
            return []
        red = re.findall(r"^(?:FAILED|ERROR) (\S+)", output, re.M)
        slow = [name for name in names if any(test.startswith(os.path.normpath(f"tests/e2e/{name}")) for test in red)]
        code, output = self.test(slow, PATIENT) if slow else (code, output)
        if code != 0:
            raise SystemExit(f"{output[-4000:]}\nthe tests are not green without a fault")
        return slow


def plant(copy, mutant):
    """Writes the fault; returns what undoes it."""
    file = copy.root / mutant["file"]
    text = file.read_text()
    if text.count(mutant["old"]) != 1:
        raise SystemExit(f"{mutant['name']}: its text is {text.count(mutant['old'])} times in {mutant['file']}; "
                         "bring tests/mutants/table.py up to date")
    file.write_text(text.replace(mutant["old"], mutant["new"]))
    return lambda: file.write_text(text)


def judge(copy, mutant, patience):
    """None when the fault was seen, else what went wrong."""
    undo = plant(copy, mutant)
    try:
        copy.build(*([mutant["test"].split()[0]] if is_program(mutant["test"]) else []))
        code, output = copy.test([mutant["test"]], patience, "-x")
        if code == 0 or (patience is IMPATIENT and not re.search(mutant["red"], output)):
            code, output = copy.test([mutant["test"]], PATIENT, "-x")
    finally:
        undo()
    if code == 0:
        return f"{mutant['test']} is green with this fault in {mutant['file']}"
    if code not in (1, -signal.SIGABRT) or not re.search(mutant["red"], output):  # a crash.* program aborts
        return f"{output[-3000:]}\n{mutant['test']} is red, but not because of /{mutant['red']}/"
    return None


def main(names):
    chosen = [mutant for mutant in MUTANTS if not names or mutant["name"] in names]
    if not chosen:
        raise SystemExit("no such mutant; there are: " + ", ".join(mutant["name"] for mutant in MUTANTS))
    workers = min((os.cpu_count() or 1) + 1, len(chosen))
    copies = queue.Queue()
    began = time.monotonic()

    def judge_one(mutant):
        copy, began = copies.get(), time.monotonic()
        try:
            trouble = judge(copy, mutant, PATIENT if mutant["test"] in slow else IMPATIENT)
        except (SystemExit, subprocess.TimeoutExpired) as error:  # it says what could not be judged
            trouble = str(error)
        copies.put(copy)
        print(f"{mutant['name']}: {'NOT SEEN' if trouble else 'seen'} ({time.monotonic() - began:.0f} s)", flush=True)
        return trouble and f"{mutant['name']}:\n{trouble}"

    with tempfile.TemporaryDirectory(prefix="tidegate-mutants-") as folder, ThreadPoolExecutor(workers) as pool:
        made = [Copy(Path(folder) / str(number)) for number in range(workers)]
        for copy in made:
            copy.build()
            copies.put(copy)
        tests = sorted({mutant["test"] for mutant in chosen})
        shares = [tests[number::workers] for number in range(workers)]
        slow = {name for names in pool.map(Copy.slow_tests, made, shares) for name in names}
        print(f"without a fault: green ({time.monotonic() - began:.0f} s), {len(slow)} need time", flush=True)
        troubles = list(filter(None, pool.map(judge_one, chosen)))
    print(*troubles, sep="\n\n")  # at the end: whoever sees only the log's last lines sees these
    print(f"{len(chosen) - len(troubles)} passed, {len(troubles)} failed")
    return 1 if troubles else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
