"""./dev demo --nodes 3: its own proof, and its page in Chromium."""

import os
import signal
import subprocess
import threading

import pytest

from clients import curl
from node import PRESET, ROOT, STOP_S, free_ports, wait_until
from test_demo_page import opened_browser
from test_quickstart import environment_of

DOORS = ("mqtt", "http", "api")


def row_of_free_ports():
    """Those of three nodes: MQTT follow each other, HTTP and API are ten apart. `free_ports` are 16 apart from each other."""
    return dict(zip(DOORS, free_ports(3)))


@pytest.fixture
def demo(tmp_path):
    environment = {**environment_of(tmp_path, row_of_free_ports()), "DEMO_PORT": str(free_ports(1)[0])}
    process = subprocess.Popen(["./dev", "demo", "--nodes", "3"], cwd=ROOT, env=environment, stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    said = []
    reader = threading.Thread(target=lambda: said.extend(process.stdout), daemon=True)
    reader.start()
    try:
        def is_up():
            assert process.poll() is None, "".join(said)
            return any("Ctrl-C ends it" in line for line in said)

        wait_until(is_up, "./dev demo --nodes 3 to be up", 300)
        yield f"http://127.0.0.1:{environment['DEMO_PORT']}", said
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)  # what Ctrl-C does
            process.wait(STOP_S)
        reader.join(5)
    assert process.returncode == 130, "".join(said)


@pytest.mark.deadline(420)
@pytest.mark.skipif(PRESET != "dev", reason="./dev demo builds its own program")
def test_three_nodes_side_by_side(demo):
    page, said = demo
    assert any(line.startswith("Proved: published anywhere") for line in said), "".join(said)

    def state(name):
        told = curl(f"{page}/state").json()
        return next(part["up"] and part.get("ready", True) for part in told["nodes"] + told["parts"] if part["name"] == name)

    assert curl(f"{page}/kill?redis", "-X", "POST", check=403), "another page may not kill"
    with opened_browser() as browser:
        browser.get(page)
        wait_until(lambda: len(browser.find_elements("css selector", "iframe")) == 2, "two nodes' pages")
        for frame in browser.find_elements("css selector", "iframe"):
            browser.switch_to.frame(frame)
            wait_until(lambda: browser.find_element("id", "state").get_attribute("data-state") == "live", "the page to be live")
            browser.switch_to.default_content()
        for name in ("node a", "broker 2", "redis"):
            wait_until(lambda: state(name), f"{name} to be up")
            browser.find_element("id", name.replace(" ", "-")).click()
            wait_until(lambda: not state(name), f"{name} to be gone")
        for name in ("node a", "broker 2", "redis"):
            wait_until(lambda: state(name), f"{name} to be back", 60)
        browser.switch_to.frame(browser.find_elements("css selector", "iframe")[0])
        wait_until(lambda: browser.find_element("id", "state").get_attribute("data-state") == "live", "the page to be live again")
        logs = [entry["message"] for entry in browser.get_log("browser") if "Content Security Policy" in entry["message"]]
        assert not logs, logs
