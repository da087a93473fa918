"""The README's commands, taken from the README and run as they stand there, against ./dev demo."""

import json
import os
import re
import signal
import socket
import subprocess
import threading
import time

import pytest

from clients import Web, need
from node import PRESET, ROOT, STOP_S, free_ports, wait_until

README = (ROOT / "README.md").read_text()
# On a machine whose standard ports are taken by somebody else, this test takes others, also in the lines it runs.
STANDARD = {"mqtt": 1883, "http": 8080, "api": 8081}


def environment_of(folder, ports):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE_")}
    environment.update({f"TIDEGATE_{door.upper()}__PORT": str(port) for door, port in ports.items()})
    return {**environment, "TIDEGATE_DATA__DIR": str(folder / "tidegate-data")}


@pytest.fixture
def demo(tmp_path):
    """./dev demo in a copy of the README's world: own ports, own data."""
    ports = dict(zip(STANDARD, free_ports(3)))
    process = subprocess.Popen(["./dev", "demo"], cwd=ROOT, env=environment_of(tmp_path, ports), stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    said = []
    reader = threading.Thread(target=lambda: said.extend(process.stdout), daemon=True)
    reader.start()
    try:
        def is_up():
            assert process.poll() is None, "".join(said)
            return any("Ctrl-C ends it" in line for line in said)

        wait_until(is_up, "./dev demo to be up", 300)
        yield Demo(process, ports, tmp_path, said)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)  # what Ctrl-C does
            process.wait(STOP_S)
        reader.join(5)
    assert process.returncode == 130, "".join(said)


class Demo:
    tls = None

    def __init__(self, process, ports, folder, said):
        self.process, self.ports, self.folder, self.said = process, ports, folder, said

    def ws(self):
        return f"ws://127.0.0.1:{self.ports['http']}/ws"

    def translate(self, command):
        command = command.replace(":8081", f":{self.ports['api']}").replace(":8080", f":{self.ports['http']}")
        return re.sub(r"^(mosquitto_(?:pub|sub))", rf"\1 -p {self.ports['mqtt']}", command)

    def run(self, command, **options):
        return subprocess.run(["bash", "-c", self.translate(command)], cwd=self.folder, check=True, timeout=STOP_S,
                              capture_output=True, text=True, **options).stdout


def command_of_readme(start):
    """The one line of the README's code blocks that starts so."""
    lines = [line.split("   #")[0].strip() for block in re.findall(r"```\w*\n(.*?)```", README, re.S)
             for line in block.splitlines()]
    found = [line for line in lines if line.startswith(start)]
    assert len(found) == 1, f"README has {len(found)} lines that start with {start!r}"
    return found[0]


def console_lines_of_readme():
    block = re.search(r"```js\n(.*?)```", README, re.S).group(1)
    return block.strip().splitlines()


@pytest.mark.deadline(420)
@pytest.mark.skipif(PRESET != "dev", reason="./dev demo builds its own program")
def test_quick_start_to_the_letter(demo):
    need("mosquitto_sub")
    assert command_of_readme("./dev demo") == "./dev demo"
    assert command_of_readme("./dev test") == "./dev test"
    assert len(console_lines_of_readme()) == 5

    watcher = subprocess.Popen(["bash", "-c", "exec " + demo.translate(command_of_readme("mosquitto_sub"))],
                               stdout=subprocess.PIPE, text=True, bufsize=1)
    lines = []
    threading.Thread(target=lambda: lines.extend(iter(watcher.stdout.readline, "")), daemon=True).start()
    try:
        def sent_and_seen():
            # mosquitto_sub without -d does not say when it is subscribed: publish until it has seen one.
            answer = json.loads(demo.run(command_of_readme("curl")))
            assert answer["topic"] == "home/kitchen" and answer["pos"]
            time.sleep(0.1)
            return 'home/kitchen {"c":21.5}\n' in lines

        wait_until(sent_and_seen, "mosquitto_sub to print curl's message")
        demo.run(command_of_readme("mosquitto_pub"))
        wait_until(lambda: 'home/kitchen {"c":22}\n' in lines, "mosquitto_sub to print mosquitto_pub's message")
    finally:
        watcher.kill()
        watcher.wait()

    pid = (demo.folder / "tidegate-data/pid").read_text().strip()
    demo.run(command_of_readme("kill -9"))
    wait_until(lambda: any(f"(pid {pid}) died of signal 9" in line for line in demo.said), "the supervisor's word")

    def is_back():
        try:
            demo.run(command_of_readme("curl"))
            return (demo.folder / "tidegate-data/pid").read_text().strip() != pid
        except subprocess.CalledProcessError:
            return False

    wait_until(is_back, "the node to be back")
    with Web(demo) as web:
        replay = web.subscribe("home/#", "earliest")["replay"]
        assert replay >= 6, "the proof's four messages and ours, all from before the kill"


@pytest.mark.deadline(420)
@pytest.mark.skipif(PRESET != "dev", reason="./dev demo builds its own program")
def test_demo_once_ends_with_0_and_a_taken_port_with_69(tmp_path):
    ports = dict(zip(STANDARD, free_ports(3)))

    def demo_once():
        return subprocess.run(["./dev", "demo", "--once"], cwd=ROOT, env=environment_of(tmp_path, ports),
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)

    result = demo_once()
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Proved:" in result.stdout

    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", ports["mqtt"]))
        taken.listen()
        result = demo_once()
    assert result.returncode == 69, result.stdout + result.stderr
    said = result.stderr
    assert str(ports["mqtt"]) in said and f"pid {os.getpid()}" in said and "TIDEGATE_MQTT__PORT" in said, said
