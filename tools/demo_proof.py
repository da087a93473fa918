"""The proof of ./dev demo: independent clients (curl, mosquitto, Python's websockets) against the running
node, one printed step after the other. Exit code 0: every step held.

Usage: demo_proof.py DATA_DIR        (a supervisor restarts the node when it is killed)
"""

import asyncio
import json
import os
import signal
import sys
import time

import websockets

WAIT_S = 10
RESTART_S = 30
TOPIC = "home/kitchen"


class Failed(Exception):
    pass


def ports(data):
    with open(os.path.join(data, "ports"), encoding="ascii") as file:
        return {name: int(value) for name, value in (line.strip().split("=") for line in file if "=" in line)}


async def within(seconds, what, awaitable):
    try:
        return await asyncio.wait_for(awaitable, seconds)
    except asyncio.TimeoutError:
        raise Failed(f"waited {seconds} s in vain for {what}") from None


async def run(*command):
    """Runs a program to its end; its output."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    try:
        out, err = await within(WAIT_S, f"{command[0]} to end", process.communicate())
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode != 0:
        raise Failed(f"{' '.join(command)}: exit code {process.returncode}: {err.decode().strip()}")
    return out.decode()


async def curl(*arguments):
    return json.loads(await run("curl", "-sS", "--fail-with-body", *arguments))


async def publish(api, payload):
    return await curl("-d", payload, f"http://127.0.0.1:{api}/v1/publish/{TOPIC}")


class Web:
    """A WebSocket subscriber. Messages: (monotonic arrival, the object)."""

    async def open(self, port, start):
        self.messages = asyncio.Queue()
        self.answers = asyncio.Queue()
        self.socket = await within(WAIT_S, "the WebSocket handshake", websockets.connect(
            f"ws://127.0.0.1:{port}/ws", subprotocols=["tidegate.v1.json"]))
        self.reader = asyncio.create_task(self.read())
        answer = await self.ask({"id": 1, "sub": {"topic": "home/#", "from": start}})
        self.start = answer["ok"]["pos"]

    async def read(self):
        try:
            async for frame in self.socket:
                now = time.monotonic()
                for line in frame.split("\n"):
                    item = json.loads(line)
                    if "msg" in item:
                        self.messages.put_nowait((now, item["msg"]))
                    elif "id" in item:
                        self.answers.put_nowait(item)
        except websockets.ConnectionClosed:
            pass

    async def ask(self, request):
        await self.socket.send(json.dumps(request))
        answer = await within(WAIT_S, f"the answer to {request}", self.answers.get())
        if "ok" not in answer:
            raise Failed(f"{request} was answered {answer}")
        return answer

    async def next(self):
        return await within(WAIT_S, "a message at the WebSocket subscriber", self.messages.get())

    async def close(self):
        await self.socket.close()
        await self.reader


class Mosquitto:
    """mosquitto_sub as a subscriber; -d makes it say when it is subscribed, stdbuf at once."""

    async def open(self, port):
        self.process = await asyncio.create_subprocess_exec(
            "stdbuf", "-oL", "mosquitto_sub", "-h", "127.0.0.1", "-p", str(port), "-d", "-q", "1", "-t", "home/#", "-F", "= %t %p",
            stdout=asyncio.subprocess.PIPE)
        await within(WAIT_S, "mosquitto_sub to be subscribed", self.line("Subscribed "))

    async def line(self, start):
        while True:
            line = (await self.process.stdout.readline()).decode()
            if not line:
                raise Failed("mosquitto_sub has ended")
            if line.startswith(start):
                return time.monotonic(), line.rstrip("\n")

    async def next(self):
        when, line = await within(WAIT_S, "a message at mosquitto_sub", self.line("= "))
        return when, line[2:]

    async def close(self):
        if self.process.returncode is None:
            self.process.terminate()
        await self.process.wait()


def check(got, want, where):
    if got != want:
        raise Failed(f"{where}: expected {want!r}, got {got!r}")


async def three_doors(port, web, mosquitto):
    """A message in at each door, out at both kinds of subscriber, with the time it took."""
    doors = [
        ("curl", '{"c":21.5}', lambda payload: publish(port["api"], payload)),
        ("mosquitto_pub -q 1", '{"c":22}', lambda payload: run(
            "mosquitto_pub", "-h", "127.0.0.1", "-p", str(port["mqtt"]), "-q", "1", "-t", TOPIC, "-m", payload)),
        ("WebSocket", '{"c":22.5}', lambda payload: web.ask(
            {"id": 2, "pub": {"topic": TOPIC, "data": json.loads(payload)}})),
    ]
    for name, payload, send in doors:
        began = time.monotonic()
        acknowledged = asyncio.create_task(send(payload))
        web_at, message = await web.next()
        mqtt_at, line = await mosquitto.next()
        await acknowledged
        check((message["topic"], message["data"]), (TOPIC, json.loads(payload)), "WebSocket subscriber")
        if name != "WebSocket":  # Python's json puts spaces of its own into what it sends
            check(line, f"{TOPIC} {payload}", "mosquitto_sub")
        print(f"  {name:<19} {TOPIC} {payload:<11} "
              f"WebSocket after {1e3 * (web_at - began):5.1f} ms, mosquitto_sub after {1e3 * (mqtt_at - began):5.1f} ms")
    return message["pos"]


async def restarted(data, old_pid):
    """The node that the supervisor has started instead: its ports."""
    deadline = time.monotonic() + RESTART_S
    while time.monotonic() < deadline:
        try:
            with open(os.path.join(data, "pid"), encoding="ascii") as file:
                if int(file.read()) != old_pid:
                    port = ports(data)
                    await run("curl", "-fsS", "-m", "2", f"http://127.0.0.1:{port['api']}/readyz")
                    return port
        except (OSError, ValueError, Failed):
            pass
        await asyncio.sleep(0.02)
    raise Failed(f"the node was not back and ready within {RESTART_S} s")


async def survives(data, port, web, seen):
    await web.close()
    answer = await publish(port["api"], '{"c":23}')
    with open(os.path.join(data, "pid"), encoding="ascii") as file:
        pid = int(file.read())
    os.kill(pid, signal.SIGKILL)
    print(f"  the WebSocket subscriber is gone; curl published {{\"c\":23}} and was told {answer['pos']}; kill -9 {pid}")
    killed = time.monotonic()
    port = await restarted(data, pid)
    print(f"  the next node is ready after {1e3 * (time.monotonic() - killed):.0f} ms")

    page = await curl(f"http://127.0.0.1:{port['api']}/v1/history/{TOPIC}?from={seen}")
    check([m["pos"] for m in page["messages"]], [answer["pos"]], "history after the last message seen")
    print(f"  history: {TOPIC} {json.dumps(page['messages'][0]['data'], separators=(',', ':'))} is still there")
    resumed = Web()
    await resumed.open(port["http"], {"after": [seen]})
    _, message = await resumed.next()
    check((message["pos"], message["data"]), (answer["pos"], {"c": 23}), "resumed WebSocket subscription")
    print(f"  the WebSocket subscriber resumes after {seen} and gets it, and only it")
    await resumed.close()


async def prove(data):
    port = ports(data)
    print(f"\n1. A node is up: MQTT {port['mqtt']}, WebSocket and demo page {port['http']}, HTTP API {port['api']}")
    print("2. Subscribing to home/# by WebSocket and by mosquitto_sub")
    web, mosquitto = Web(), Mosquitto()
    await web.open(port["http"], "live")
    await mosquitto.open(port["mqtt"])
    try:
        print("3. Publishing at each door (times from starting the publisher)")
        seen = await three_doors(port, web, mosquitto)
    finally:
        await mosquitto.close()
    print("4. kill -9, at once after an acknowledgement")
    await survives(data, port, web, seen)
    print("Proved: acknowledged means durable, and subscribers resume where they were.")


def main():
    try:
        asyncio.run(prove(sys.argv[1]))
    except (Failed, OSError, KeyError, ValueError, websockets.WebSocketException) as error:
        print(f"demo: {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)
    sys.exit(main())
