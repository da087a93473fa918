"""docs/METRICS.md from what a node with TLS says at /metrics:  curl -s .../metrics | tools/metrics_doc.py > docs/METRICS.md

tests/e2e/test_metrics.py compares the file with a running node by the same function.
"""

import re
import sys

HEAD = """# Metrics

`GET /metrics` of the private API, Prometheus text format. Counters begin with the process. No metric has users, topics or clients as labels.
`conf/grafana/tidegate.json` is a dashboard of them, `conf/prometheus/tidegate.rules.yml` has alerts. What adds up to what: PROTOCOL.md 2, Counting.
This page is made by `tools/metrics_doc.py` and compared with a running node by a test.

| metric | type | labels | meaning |
|---|---|---|---|
"""


def document(text):
    helps, types, labels = {}, {}, {}
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name, text_of = line[7:].split(" ", 1)
            helps[name] = text_of
        elif line.startswith("# TYPE "):
            name, types[name] = line[7:].split(" ")
            labels[name] = {}
        elif line:
            for label, value in re.findall(r'(\w+)="([^"]*)"', line):
                if label != "le":
                    labels[name].setdefault(label, []).append("..." if label == "version" else value)
    rows = []
    for name in sorted(helps):
        told = "; ".join(f"`{label}`: {', '.join(dict.fromkeys(values))}" for label, values in labels[name].items())
        rows.append(f"| `{name}` | {types[name]} | {told} | {helps[name]} |")
    return HEAD + "\n".join(rows) + "\n"


if __name__ == "__main__":
    sys.stdout.write(document(sys.stdin.read()))
