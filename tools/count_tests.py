"""Sums JUnit files and prints `N passed, N failed, N skipped`. Exit code 1: something failed, or nothing ran. A file that
is not there or not whole is a suite that was cut off: it counts as one failure."""

import sys
import xml.etree.ElementTree as tree


def outcome(case):
    if case.find("failure") is not None or case.find("error") is not None or case.get("status") == "fail":
        return "failed"
    if case.find("skipped") is not None or case.get("status") in ("notrun", "disabled"):
        return "skipped"
    return "passed"


def main(paths):
    counts = dict.fromkeys(("passed", "failed", "skipped"), 0)
    for path in paths:
        try:
            suite = tree.parse(path)
        except (OSError, tree.ParseError) as error:
            print(f"failed: {path}: no whole result: {error}")
            counts["failed"] += 1
            continue
        # A test that also fails in its teardown has two elements.
        cases = {}
        for case in suite.iter("testcase"):
            name = (case.get("classname"), case.get("name"))
            cases[name] = max(cases.get(name, "passed"), outcome(case), key=("passed", "skipped", "failed").index)
        for name, result in cases.items():
            counts[result] += 1
            if result == "failed":
                print(f"failed: {name[0]} {name[1]}")
    print(", ".join(f"{count} {result}" for result, count in counts.items()))
    return 1 if counts["failed"] or not counts["passed"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
