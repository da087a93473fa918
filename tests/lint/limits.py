"""Every `limit.*` setting is in the table of limits in docs/PROTOCOL.md, and what that table names is there: settings, metrics,
tests."""

import fnmatch
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS, E2E = ROOT / "docs", ROOT / "tests" / "e2e"


def rows():
    text = (DOCS / "PROTOCOL.md").read_text()
    table = text[text.index("| limit | setting | metric | reaction | test |"):]
    for line in table.split("\n\n")[0].splitlines()[2:]:
        yield [cell.strip() for cell in line.strip("|").split(" | ")]


def names(cell, pattern):
    return re.findall(rf"`({pattern})", cell)


def test_flaws(cell):
    for part in cell.split(";"):
        file, _, wanted = part.strip().partition(":")
        if file.startswith("unit."):
            continue
        if not (E2E / file).exists():
            yield f"there is no tests/e2e/{file}"
            continue
        functions = re.findall(r"^def (test_\w+)", (E2E / file).read_text(), re.M)
        for name in filter(None, (name.strip() for name in wanted.split(","))):
            if not any(name in function for function in functions):
                yield f"tests/e2e/{file} has no test {name}"


def flaws():
    config = (DOCS / "CONFIG.md").read_text()
    keys = re.findall(r"^\| `([a-z_.]+)`", config, re.M)
    metrics = (DOCS / "METRICS.md").read_text()
    listed = []
    for limit, setting, metric, _, test in rows():
        for name in names(setting, r"[a-z_]+\.[a-z_*]+"):
            listed.append(name)
            if not fnmatch.filter(keys, name):
                yield f"{limit}: there is no setting {name}"
        found = names(metric, r"tidegate_[a-z_]+")
        if not found:
            yield f"{limit}: no metric"
        for name in found:
            if f"`{name}`" not in metrics:
                yield f"{limit}: there is no metric {name}"
        yield from (f"{limit}: {flaw}" for flaw in test_flaws(test))
    for key in keys:
        if key.startswith("limit.") and not any(fnmatch.fnmatch(key, name) for name in listed):
            yield f"{key} is not in the table"


def main():
    found = list(flaws())
    print("\n".join(found) if found else "ok")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
