"""Clients and libraries that nobody here wrote, with their usual settings, against the real server: each gives every message
once and unchanged, from a backlog that is longer than its buffers, with text that splits lines, over silence with heartbeats
and, where it reconnects by itself, over a kill of the server."""

import json
import os
import subprocess
import threading
import time
import unittest
from pathlib import Path

from program import Halley, until

HERE = Path(__file__).with_name("clients")
WORK = Path(os.environ["WORK"])
PYTHON = WORK / "python" / "bin" / "python"
HEARTBEAT_S = 5
# What some libraries take for the end of a line, and what JSON escapes anyway.
SPLITTERS = "".join(map(chr, [0x0B, 0x0C, 0x1C, 0x1D, 0x1E, 0x85, 0x2028, 0x2029, 0x0D, 0x0A]))
BACKLOG = [{"n": n, "text": "x" * 1200} for n in range(300)] + [f"a{mark}b" for mark in SPLITTERS] + ["data: x\n\nid: 9"]
AFTER = [f"later {mark}" for mark in SPLITTERS]


class Client:
    def __init__(self, command, halley, user):
        query = f"after=0&heartbeat={HEARTBEAT_S}&token={halley.token(user)}"
        command = [str(part) for part in [*command, halley.client, query]]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.bodies, self.complaints = [], ""
        self.threads = [threading.Thread(target=self.read), threading.Thread(target=self.hear)]
        for thread in self.threads:
            thread.start()

    def read(self):
        for line in self.process.stdout:
            self.bodies.append(json.loads(line))

    def hear(self):
        self.complaints = self.process.stderr.read()

    def finish(self):
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
        for thread in self.threads:
            thread.join()


class Clients(unittest.TestCase):
    def check(self, command, reconnects=False):
        with Halley() as halley:
            push = lambda bodies: [halley.push("bob", body) for body in bodies]
            push(BACKLOG)
            client = Client(command, halley, "bob")
            self.addCleanup(client.finish)
            here = lambda count: len(client.bodies) >= count or client.process.poll() is not None
            until(f"the backlog; {client.complaints}", lambda: here(len(BACKLOG)))
            time.sleep(HEARTBEAT_S + 1)  # the silence that is tested: a heartbeat comes in it
            expected = list(BACKLOG)
            if reconnects:
                halley.kill()
                halley.start()
            push([*AFTER, "end"])
            expected += [*AFTER, "end"]
            client.finish()
            self.assertEqual(client.bodies, expected, client.complaints)
            self.assertEqual(client.process.returncode, 0, client.complaints)

    def python(self, name):
        self.check([PYTHON, HERE / "python_clients.py", name])

    def node(self, name, reconnects=False):
        self.check(["node", HERE / "node_clients.mjs", name], reconnects)

    def test_python_websockets(self):
        self.python("websockets")

    def test_python_aiohttp_lines(self):
        self.python("aiohttp_lines")

    def test_python_aiohttp_socket(self):
        self.python("aiohttp_socket")

    def test_python_httpx_lines(self):
        self.python("httpx_lines")

    def test_python_httpx_sse(self):
        self.python("httpx_sse")

    def test_python_requests_lines(self):
        self.python("requests_lines")

    def test_python_sseclient(self):
        self.python("sseclient_py")

    def test_node_event_source_polyfill_through_a_kill(self):
        self.node("event-source-polyfill", reconnects=True)

    def test_node_eventsource_through_a_kill(self):
        self.node("eventsource", reconnects=True)

    def test_node_eventsource_parser(self):
        self.node("eventsource-parser")

    def test_node_ws(self):
        self.node("ws")

    def test_go_scanner(self):
        self.check([WORK / "scanner"])

    def test_go_websocket(self):
        self.check([WORK / "websocket"])


if __name__ == "__main__":
    unittest.main(verbosity=2, warnings="ignore")
