#!/usr/bin/python3
"""The statements of both standards beside their tests: docs/CONFORMANCE.md is made of them.

table.py            writes the page
table.py --check    says what is wrong: a row without a test or a reason, a test that is not there, a number twice or out of
                    place, a test of these that no row names, a page that is another than the rows make (lint.conformance)
"""

import ast
import re
import sys
from pathlib import Path

import mqtt5
import mqtt311

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PAGE = ROOT / "docs" / "CONFORMANCE.md"
STANDARDS = (("MQTT 3.1.1", mqtt311.STATEMENTS, 142), ("MQTT 5.0", mqtt5.STATEMENTS, 251))
REASON = re.compile(r"(client|no occasion|pending): .")
NUMBER = re.compile(r"(\d+)(?:[.-](\d+))?(?:\.(\d+))?[.-](\d+)$")
# Tests of behaviour that has no numbered statement.
UNNUMBERED = {
    "test_conf_connect.py": {"test_mqisdp", "test_mqisdp_may_repeat_with_dup",
                             "test_a_will_leaves_when_the_session_ends_before_its_delay"},
    "test_conf_end.py": {"test_disconnect_and_the_session", "test_a_body_of_disconnect_before_5", "test_data_without_a_method",
                         "test_auth_is_unknown_before_5"},
    "test_conf_reasons.py": {"test_every_reason_code_in_its_situation"},
    "test_conf_format.py": {"test_a_server_s_packets_are_not_a_client_s"},
}


def place_of(test):
    """'connect::x' -> (file, function)."""
    where, _, function = test.partition("::")
    if where.startswith("e2e/"):
        return ROOT / "tests" / where, function
    return HERE / f"test_conf_{where}.py", f"test_{function}"


def functions(path, known={}):
    if path not in known:
        known[path] = ({node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}
                       if path.exists() else set())
    return known[path]


def kind_of(evidence):
    match = REASON.match(evidence)
    return match[1] if match else "test"


def order(number):
    return [int(part) for part in re.split(r"[.-]", number)]


def flaws():
    named = {}
    for standard, rows, count in STANDARDS:
        numbers = [row[0] for row in rows]
        if len(rows) != count:
            yield f"{standard}: {len(rows)} statements instead of {count}"
        for number in {number for number in numbers if numbers.count(number) > 1}:
            yield f"{standard}: {number} is there twice"
        for number, binds, text, evidence in rows:
            where = f"{standard} {number}"
            if not NUMBER.match(number):
                yield f"{where}: no number of a statement"
            if binds not in ("server", "client", "both") or not text.endswith(".") or not evidence:
                yield f"{where}: whom it binds, a sentence and what shows it are wanted"
            kind = kind_of(evidence)
            if kind == "client" and binds == "server":
                yield f"{where}: it binds the server and needs a test"
            for test in evidence.split() if kind == "test" else re.findall(r"\b(?:format|connect|publish|subscribe|end)::\w+", evidence):
                path, function = place_of(test)
                if function not in functions(path):
                    yield f"{where}: there is no {function} in {path.relative_to(ROOT)}"
                named.setdefault(path.name, set()).add(function)
    for path in sorted(HERE.glob("test_conf_*.py")):
        tests = {name for name in functions(path) if name.startswith("test_")}
        for test in sorted(tests - named.get(path.name, set()) - UNNUMBERED.get(path.name, set())):
            yield f"{path.name}: no statement names {test}"


def shown(evidence):
    kind = kind_of(evidence)
    if kind == "test":
        cells = []
        for test in evidence.split():
            path, function = place_of(test)
            cells.append(f"`{path.name.removesuffix('.py')}::{function.removeprefix('test_')}`")
        return ", ".join(cells)
    label, _, why = evidence.partition(": ")
    return f"**{label}**: {why}"


def page():
    lines = ["# Conformance to MQTT", "",
             "Every numbered statement of MQTT 3.1.1 and 5.0, in a few words of ours, and the test that shows it. The tests speak",
             "bytes over a socket (`tests/conformance/`, some in `tests/e2e/`). Made by `tests/conformance/table.py`, which also checks",
             "that each test is there; do not edit. MQTT 3.1 (`MQIsdp`) has no numbers; its tests are among those for all versions.", "",
             "* **client**: only a client can keep or break it.",
             "* **no occasion**: what it speaks of does not happen here; the test in brackets shows that.",
             "* **pending**: it binds the server, and what it is about is not in this build, or not shown yet.", "",
             "| | statements | shown by tests | client | no occasion | pending |", "|---|---|---|---|---|---|"]
    for standard, rows, _ in STANDARDS:
        kinds = [kind_of(row[3]) for row in rows]
        lines.append(f"| {standard} | {len(rows)} | " + " | ".join(
            str(kinds.count(kind)) for kind in ("test", "client", "no occasion", "pending")) + " |")
    for standard, rows, _ in STANDARDS:
        lines += ["", f"## {standard}", "", "| MQTT- | binds | what it says | shown by |", "|---|---|---|---|"]
        lines += [f"| {number} | {binds} | {text} | {shown(evidence)} |" for number, binds, text, evidence in rows]
    return "\n".join(lines) + "\n"


def main():
    found = list(flaws())
    for flaw in found:
        print(flaw)
    if "--check" not in sys.argv:
        PAGE.write_text(page())
    elif not PAGE.exists() or PAGE.read_text() != page():
        print(f"{PAGE.relative_to(ROOT)} is not what tests/conformance/table.py makes: run it")
        return 1
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
