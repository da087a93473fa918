"""A real Redis, and its Sentinel, on ports of their own. They keep nothing on disk and end with the test."""

import signal
import subprocess
import time

from clients import need
from node import free_ports, wait_until


class Redis:
    """`words`: further options, as on the command line. `port`: that of one before it, to take its place. `host`:
    the address it listens at, of the network that the caller's thread is in."""

    def __init__(self, folder, *words, port=None, tls=None, program="redis-server", host="127.0.0.1"):
        self.host = host
        self.folder, self.words, self.tls, self.program = folder, words, tls, program
        self.port = port or free_ports(1)[0]
        self.process = None

    def command(self):
        port = ["--port", "0", "--tls-port", str(self.port)] if self.tls else ["--port", str(self.port)]
        return [need(self.program), *port, "--bind", self.host, "--protected-mode", "no", "--save", "", "--appendonly", "no",
                "--dir", str(self.folder), "--enable-debug-command", "yes", *map(str, self.words)]

    def start(self):
        self.log = open(self.folder / f"redis-{self.port}.log", "a")
        self.process = subprocess.Popen(self.command(), stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL)
        wait_until(self.answers, "Redis to answer")
        return self

    def answers(self):
        assert self.process.poll() is None, (self.folder / f"redis-{self.port}.log").read_text()
        return self.ask("PING", check=False) in ("PONG", "NOAUTH Authentication required.")

    def ask(self, *words, check=True, user=None):
        login = ["--user", user[0], "--pass", user[1], "--no-auth-warning"] if user else []
        done = subprocess.run([need("redis-cli"), "-h", self.host, "-p", str(self.port), *(self.tls or []), *login, *map(str, words)],
                              capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 or not check, done.stderr
        return done.stdout.strip()

    def url(self, login="", scheme="redis"):
        return f"{scheme}://{login}{self.host}:{self.port}"

    def stop(self, how=signal.SIGKILL):
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(how)
            self.process.wait(30)
        self.log.close()

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)


class Sentinel(Redis):
    """It writes into its configuration."""

    def __init__(self, folder, configuration):
        super().__init__(folder, program="redis-sentinel")
        self.configuration = configuration

    def command(self):
        return [need(self.program), str(self.configuration)]
