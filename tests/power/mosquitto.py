#!/usr/bin/python3
"""For comparison: the same cuts (disk.py), and kill -9, under mosquitto with persistence and its default autosave.

    tests/power/mosquitto.py [--rounds N]

A durable subscriber (clean session off) is known to the broker and saved by a clean stop; it is away while QoS 1
publishes are acknowledged for two seconds, then the process or the power goes. What it is given after the restart is
compared with what was acknowledged. Nothing in ./dev or .ci/run calls this."""

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "e2e")]

from clients import paho_client  # noqa: E402
from disk import Disk  # noqa: E402
from ground import freeze, scratch_folder, stand  # noqa: E402
from load import MqttPublisher, number_of  # noqa: E402
from node import free_ports, wait_until  # noqa: E402

LOAD_S = 2.0
TOPIC = "load/mqtt"


class Mosquitto:
    """As Node, as far as the publisher needs it."""

    def __init__(self, folder):
        self.folder = folder
        self.ports = {"mqtt": free_ports(1)[0]}
        folder.mkdir()
        self.config = folder / "mosquitto.conf"
        self.config.write_text(f"listener {self.ports['mqtt']} 127.0.0.1\nallow_anonymous true\nuser root\n"
                               f"persistence true\npersistence_location {folder}/\nmax_queued_messages 0\n")

    def start(self):
        self.process = subprocess.Popen(["mosquitto", "-c", self.config], stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        client = paho_client("prober")

        def answers():
            try:
                return client.connect("127.0.0.1", self.ports["mqtt"]) == 0
            except OSError:
                return False

        wait_until(answers, "mosquitto to listen")
        client.disconnect()

    def end(self, how):
        os.kill(self.process.pid, how)
        self.process.wait()


def keeper(broker, idle_s):
    """The durable subscriber: connects, takes what comes until nothing has for idle_s, leaves. Its numbers."""
    client = paho_client("keeper")
    client._clean_session = False
    got, last, subscribed = [], [time.monotonic()], threading.Event()

    def on_message(_client, _userdata, message):
        got.append(number_of(message.payload))
        last[0] = time.monotonic()

    client.on_message = on_message
    client.on_connect = lambda *_: client.subscribe(TOPIC, qos=1)
    client.on_subscribe = lambda *_: subscribed.set()
    client.connect("127.0.0.1", broker.ports["mqtt"])
    client.loop_start()
    assert subscribed.wait(10)
    wait_until(lambda: time.monotonic() - last[0] > idle_s, "the end of the queue", 60)
    client.disconnect()
    client.loop_stop()
    return got


def one_round(folder, how):
    with Disk(folder, True) as disk:
        broker = Mosquitto(disk.root / "data")
        broker.start()
        try:
            keeper(broker, 0.2)
            broker.end(signal.SIGTERM)
            os.sync()
            broker.start()
            publisher = MqttPublisher(broker, TOPIC, 0)
            publisher.start()
            time.sleep(LOAD_S)
            if how == "power cut":
                freeze(broker.process)  # in this order: run.py says why
                disk.cut()
                disk.take_copy()
            broker.end(signal.SIGTERM if how == "clean stop" else signal.SIGKILL)
            publisher.halt.set()
            publisher.join()
            if how == "power cut":
                disk.replace_by_copy()
            broker.start()
            acknowledged = {number for number, _ in publisher.acknowledged}
            return len(acknowledged), len(acknowledged - set(keeper(broker, 1.0)))
        finally:
            if broker.process.poll() is None:
                broker.end(signal.SIGKILL)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    stand(60 + 60 * options.rounds)
    with scratch_folder() as folder:
        for how in ("clean stop", "kill -9", "power cut"):  # the first loses nothing: the control
            pairs = [one_round(folder / f"{how}{number}", how) for number in range(options.rounds)]
            print(f"mosquitto, {how}: acknowledged {sum(a for a, _ in pairs)}, "
                  f"lost {sum(lost for _, lost in pairs)}, by round {pairs}", flush=True)


if __name__ == "__main__":
    main()
