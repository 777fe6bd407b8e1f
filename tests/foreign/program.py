"""Halley's real program, and other processes, for tests in Python: on free ports of the loopback, ended with the test."""

import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.request import Request, urlopen

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 60


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(what, condition):
    """Waits for a condition; says what it waited for if it does not come."""
    end = time.monotonic() + DEADLINE_S
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"waited {DEADLINE_S} s for {what}")
        time.sleep(0.05)
    return value


def answers(url):
    try:
        with urlopen(url, timeout=5):
            return True
    except OSError:
        return False


class Halley:
    """The server, which can be killed and started again on its directory and ports."""

    def __init__(self, *options):
        self.folder = tempfile.TemporaryDirectory()
        self.data = os.path.join(self.folder.name, "data")
        self.client_port, self.admin_port = free_port(), free_port()
        self.client = f"http://127.0.0.1:{self.client_port}"
        self.admin = f"http://127.0.0.1:{self.admin_port}"
        self.options = options
        self.start()

    def start(self):
        command = [os.environ["HALLEY_BIN"], "--data", self.data, "--listen", f"127.0.0.1:{self.client_port}"]
        command += ["--admin-listen", f"127.0.0.1:{self.admin_port}", *self.options]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        until("the server to be ready", lambda: answers(self.admin + "/readyz"))

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        self.process.terminate()
        self.process.wait(DEADLINE_S)

    @property
    def key(self):
        return Path(self.data, "admin.key").read_text().strip()

    def ask(self, method, path, body=None):
        headers = {"Authorization": "Bearer " + self.key}
        request = Request(self.admin + path, body and json.dumps(body, ensure_ascii=False).encode(), headers, method=method)
        with urlopen(request, timeout=30) as reply:
            return json.load(reply)

    def token(self, user, **more):
        return self.ask("POST", "/v1/tokens", {"user": user, "ttl_s": 3600, **more})["token"]

    def push(self, to, body):
        return self.ask("POST", f"/v1/direct/{to}/messages", {"from": "backend", "body": body})["id"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.kill()
        self.folder.cleanup()
