"""The command `tidegate log`, as a person runs it."""

import json
import os
import subprocess

from node import CRASH_REPORT, PATIENCE, PROGRAM

RUN_S = 60 * PATIENCE


def environment():
    return {key: value for key, value in os.environ.items() if not key.startswith("TIDEGATE_")}


class Ran:
    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    def lines(self):
        return [json.loads(line) for line in self.out.splitlines()]


def log(verb, *arguments, data=None, stdin=None, check=0):
    """`data`: a folder. `check`: the exit code that it must have; None: any."""
    command = [str(PROGRAM), "log", verb, *map(str, arguments)]
    if data is not None:
        command += ["--data", str(data)]
    result = subprocess.run(command, input=stdin, capture_output=True, text=True, env=environment(), timeout=RUN_S)
    assert not CRASH_REPORT.search(result.stderr), result.stderr
    assert check is None or result.returncode == check, f"{result.returncode}: {result.stdout}{result.stderr}"
    return Ran(result.returncode, result.stdout, result.stderr)


def verify(data, check=0):
    """(faults, summary)"""
    lines = log("verify", "--json", data=data, check=check).lines()
    return lines[:-1], lines[-1]


def messages(data, *arguments):
    """What an export holds but for the places, in an order that does not depend on them."""
    lines = log("export", *arguments, data=data).lines()
    for line in lines:
        del line["pos"]
    return sorted(lines, key=lambda line: json.dumps(line, sort_keys=True))
