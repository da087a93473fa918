"""/metrics as an operator's tools see it: promtool, the document, the dashboard and the alerts agree with a running node."""

import json
import re
import subprocess
import sys
import urllib.request

import pytest

from clients import MosquittoSub, Web, curl, mosquitto_pub, need, publish
from mqtt_wire import Wire
from node import ROOT, Node, wait_until

sys.path.insert(0, str(ROOT / "tools"))
from metrics_doc import document  # noqa: E402

DASHBOARD = ROOT / "conf/grafana/tidegate.json"
RULES = ROOT / "conf/prometheus/tidegate.rules.yml"


def said(node):
    with urllib.request.urlopen(node.api("/metrics")) as answer:
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4"
        return answer.read().decode()


def series_names(text):
    return {re.match(r"\w+", line)[0] for line in text.splitlines() if line and not line.startswith("#")}


def queried(expression):
    """The metrics of a PromQL expression: words that are neither functions, labels nor what stands in braces or quotes."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]|\bby\s*\([^)]*\)', " ", expression)
    return {word for word in re.findall(r"\b(?:tidegate|process)_\w+", bare)}


@pytest.fixture(scope="module")
def text(tmp_path_factory, certificates):
    """What a node with TLS says: all there is."""
    node = Node(tmp_path_factory.mktemp("metrics"), certificates.settings("ec"))
    node.data.parent.mkdir(exist_ok=True)
    node.start()
    publish(node, "a", b"1")
    yield said(node)
    node.check()


def test_promtool_has_no_complaint(text):
    done = subprocess.run([need("promtool"), "check", "metrics"], input=text, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and not done.stderr and not done.stdout, done.stdout + done.stderr


def test_the_document_lists_what_the_node_says(text):
    wanted, is_there = document(text), (ROOT / "docs/METRICS.md").read_text()
    assert is_there == wanted, "docs/METRICS.md is old: curl -s .../metrics of a node with TLS | python3 tools/metrics_doc.py > docs/METRICS.md"


def test_the_dashboard_asks_for_what_is_there(text):
    names = series_names(text)
    panels = [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]
    assert len({panel["id"] for panel in panels}) == len(panels) > 20
    for panel in panels:
        for target in panel["targets"]:
            asked = queried(target["expr"])
            assert asked and asked <= names, (panel["title"], asked - names)


def test_the_alerts_ask_for_what_is_there(text):
    names = series_names(text)
    expressions = re.findall(r"^ +expr: (.*)$", RULES.read_text(), re.M)
    assert len(expressions) > 10
    for expression in expressions:
        assert queried(expression) <= names, expression
    for label, value in re.findall(r'(\w+)="(\w+)"', " ".join(expressions)):
        assert label == "job" or f'{label}="{value}"' in text, (label, value)
    done = subprocess.run([need("promtool"), "check", "rules", RULES], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_doors_reasons_and_qualities_are_told_apart(make_node):
    """Exactly what has happened, door by door."""
    node = make_node({"api.timeout_ms": "1s"})
    for qos in (0, 1, 1, 2, 2, 2):
        mosquitto_pub(node, "qos/t", b"123", qos=qos)
    rows = node.metrics()
    for qos, count in ((0, 1), (1, 2), (2, 3)):
        assert rows[f'tidegate_messages_received_total{{proto="mqtt",qos="{qos}"}}'] == count
    assert rows["tidegate_payload_bytes_received_total"] == 18 and rows["tidegate_payload_bytes_sent_total"] == 0
    with MosquittoSub(node, "qos/t", qos=1) as client, Web(node) as web:
        web.subscribe("qos/t")
        for qos in (0, 1, 2):
            mosquitto_pub(node, "qos/t", b"1234", qos=qos)
            client.next()
            web.next()
        rows = node.metrics()
        assert rows['tidegate_messages_sent_total{proto="mqtt",qos="0"}'] == 1
        assert rows['tidegate_messages_sent_total{proto="mqtt",qos="1"}'] == 2
        assert rows['tidegate_messages_sent_total{proto="ws"}'] == 3
        assert rows["tidegate_payload_bytes_sent_total"] == 24
    wait_until(lambda: node.metrics()['tidegate_disconnects_total{proto="ws",reason="client"}'] == 1, "the WebSocket to be gone")
    curl(node.web("/poll?topic=qos/t&wait_ms=10"))
    wait_until(lambda: node.metric("tidegate_disconnects_total", "poll") == 1, "the poll to be counted as one")
    wire = Wire(node)
    wire.send(b"\xf0\x01\x00\x00")  # a packet type that is none (MQTT 5.0, 2.1.2: AUTH without a method)
    wait_until(lambda: node.metrics()['tidegate_disconnects_total{proto="mqtt",reason="protocol"}'] == 1, "the bad client to be counted")
    wire.close()
    silent = node.connect("api")
    silent.sendall(b"GET /healthz HTTP/1.1\r\n")
    wait_until(lambda: node.metrics()['tidegate_disconnects_total{proto="http",reason="timeout"}'] == 1, "the slow request to be counted")
    silent.close()


def test_queues_are_empty_when_all_is_done(make_node):
    """What is open goes up while it is, and back to nothing: letters, records of sessions, publishes."""
    node = make_node({"node.loops": 2})
    with Web(node, {}) as web:
        web.subscribe("q/#", ack=True)
        for number in range(50):
            publish(node, f"q/{number}", b"x")
        for _ in range(50):
            item = web.next_item()
        web.post({"ack": {"n": item["n"]}})
        wait_until(lambda: node.metric("tidegate_messages_unacknowledged") == 0, "the acknowledgement")
        assert node.metric("tidegate_sessions_attached") == 1
    for name in ("tidegate_letters_open", "tidegate_session_writes_open", "tidegate_publishes_open", "tidegate_outbound_queue_bytes",
                 "tidegate_sessions_attached", "tidegate_subscriptions_behind"):
        wait_until(lambda: node.metric(name) == 0, f"{name} to be 0 again")
    rows = node.metrics()
    for histogram in ("log_append", "delivery", "log_fsync"):
        count = rows[f"tidegate_{histogram}_seconds_count"]
        assert count > 0 and rows[f'tidegate_{histogram}_seconds_bucket{{le="+Inf"}}'] == count
