"""The reading loops and the chat backends of `examples/`, run for real through restarts of the server and of themselves."""

import json
import os
import subprocess
import sys
import tempfile
import threading
import unittest
from http.cookiejar import CookieJar
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import HTTPCookieProcessor, Request, build_opener, urlopen

from program import ROOT, Halley, answers, free_port, until

CLIENTS = ROOT / "examples" / "clients"
CHAT = ROOT / "examples" / "chat"
GSON = "/usr/share/java/gson.jar"


class Tokens:
    """An app's token endpoint: `/NAME` is a token of that user."""

    def __init__(self, halley):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                try:
                    status, body = 200, halley.token(self.path[1:]).encode()
                except OSError:
                    status, body = 503, b"Halley does not answer"
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class Reader:
    """One of the reading loops, as its own process."""

    def __init__(self, user, command, halley, tokens, folder):
        self.user, self.command = user, command
        self.cursor, self.output = Path(folder, user + ".cursor"), Path(folder, user + ".out")
        self.environment = os.environ | {
            "HALLEY_URL": halley.client,
            "TOKEN_URL": f"{tokens.url}/{user}",
            "CURSOR_FILE": str(self.cursor),
        }
        self.start()

    def start(self):
        with open(self.output, "ab") as output:
            self.process = subprocess.Popen(self.command, stdout=output, env=self.environment)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def bodies(self):
        return [json.loads(line)["body"] for line in self.output.read_text().split("\n")[:-1]]

    def has_saved(self, id):
        """Whether the cursor is at or behind this direct message."""
        return self.cursor.exists() and int((self.cursor.read_text() or "0").split(".")[0]) >= id


class ReadingLoops(unittest.TestCase):
    def commands(self, folder):
        subprocess.run(["go", "build", "-o", f"{folder}/reader", CLIENTS / "reader.go"], check=True)
        subprocess.run(["javac", "-cp", GSON, "-d", folder, CLIENTS / "Reader.java"], check=True)
        return {
            "python": [sys.executable, CLIENTS / "reader.py"],
            "php": ["php", CLIENTS / "reader.php"],
            "go": [f"{folder}/reader"],
            "java": ["java", "-Xshare:auto", "-cp", f"{GSON}:{folder}", "Reader"],
        }

    def test_every_message_once_through_restarts_of_server_and_reader(self):
        with Halley() as halley, tempfile.TemporaryDirectory() as folder:
            tokens = Tokens(halley)
            self.addCleanup(tokens.close)
            users = {}
            for user, command in self.commands(folder).items():
                users[user] = Reader(user, command, halley, tokens, folder)
                self.addCleanup(users[user].kill)

            def push(numbers):
                for number in numbers:
                    for user in users:
                        last = halley.push(user, {"n": number, "text": "é \u2028 \U0001f642"})
                for user, reader in users.items():
                    until(f"{user} to have {numbers}", lambda: reader.has_saved(last - len(users) + 1))

            push(range(5))
            halley.kill()
            halley.start()
            push(range(5, 10))
            for reader in users.values():
                reader.kill()
                reader.start()
            push(range(10, 15))
            halley.stop()
            halley.start()
            # Tokens of a secret that is no longer there are refused: each asks its backend for a fresh one.
            halley.stop()
            os.remove(os.path.join(halley.data, "token.secret"))
            halley.start()
            push(range(15, 20))
            for user, reader in users.items():
                self.assertEqual([body["n"] for body in reader.bodies()], list(range(20)), user)
                self.assertEqual({body["text"] for body in reader.bodies()}, {"é \u2028 \U0001f642"}, user)

    def test_no_reader_is_longer_than_a_page(self):
        for file in CLIENTS.iterdir():
            self.assertLessEqual(len(file.read_text().splitlines()), 60, file.name)


class Browser:
    """What a browser keeps of one person: the cookies."""

    def __init__(self, url):
        self.url, self.opener = url, build_opener(HTTPCookieProcessor(CookieJar()))

    def ask(self, path, body=None):
        request = Request(self.url + path, body and json.dumps(body).encode())
        try:
            with self.opener.open(request, timeout=30) as reply:
                return reply.status, reply.read().decode()
        except HTTPError as refused:
            return refused.code, refused.read().decode()

    def post(self, path, **fields):
        return self.ask(path, fields)


class ChatBackends(unittest.TestCase):
    def check(self, command):
        port = free_port()
        with Halley() as halley:
            environment = os.environ | {
                "HALLEY_ADMIN": halley.admin,
                "HALLEY_URL": halley.client,
                "HALLEY_ADMIN_KEY": halley.key,
                "PHP_CLI_SERVER_WORKERS": "4",
                "PORT": str(port),
            }
            command = [str(part).replace("PORT", str(port)) for part in command]
            backend = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, start_new_session=True)
            try:
                until("the backend", lambda: answers(f"http://127.0.0.1:{port}/"))
                self.talk(f"http://127.0.0.1:{port}", halley)
            finally:
                os.killpg(backend.pid, 9)
                backend.wait()

    def talk(self, url, halley):
        ann, bob, stranger = Browser(url), Browser(url), Browser(url)
        self.assertIn("halley.js", ann.ask("/")[1])
        self.assertIn(stranger.ask("/token")[0], (401, 403))
        self.assertIn(stranger.post("/messages", to="bob", text="x", key="1")[0], (401, 403))
        self.assertEqual(ann.post("/login", user="a/../b")[0], 400)
        self.assertEqual(ann.post("/login", user="ann")[0], 200)
        self.assertEqual(bob.post("/login", user="bob")[0], 200)
        self.assertEqual(json.loads(ann.ask("/session")[1]), {"user": "ann", "halley": halley.client})
        self.assertEqual(ann.post("/rooms", room="team")[0], 200)
        self.assertEqual(bob.post("/messages", room="team", text="x", key="1")[0], 403, "not a member yet")
        self.assertEqual(bob.post("/rooms", room="team")[0], 200)
        self.assertEqual(halley.ask("GET", "/v1/groups/team")["members"], ["ann", "bob"], "joining puts nobody out")
        first = ann.post("/messages", room="team", text="Lunch? \U0001f355", key="0b44b0a4-9f0f-4a6f-8d0e-3f6c2d0a9a11")
        again = ann.post("/messages", room="team", text="Lunch? \U0001f355", key="0b44b0a4-9f0f-4a6f-8d0e-3f6c2d0a9a11")
        self.assertEqual(json.loads(first[1])["id"], json.loads(again[1])["id"], "a repeat is stored once")
        self.assertEqual(ann.post("/messages", room="team", text="x" * 4001, key="k2")[0], 400)
        self.assertLess(ann.post("/messages", to="bob", text="Just us", key="k3")[0], 300)
        status, token = bob.ask("/token")
        self.assertEqual(status, 200)
        request = Request(halley.client + "/v1/inbox?wait=0", headers={"Authorization": "Bearer " + token})
        with urlopen(request, timeout=30) as reply:
            messages = json.load(reply)["messages"]
        self.assertEqual([message["body"]["text"] for message in messages], ["Lunch? \U0001f355", "Just us"])
        self.assertEqual({message["from"] for message in messages}, {"ann"})

    def test_python(self):
        self.check([sys.executable, CHAT / "backend.py"])

    def test_node(self):
        self.check(["node", CHAT / "backend.mjs"])

    def test_php(self):
        self.check(["php", "-S", "127.0.0.1:PORT", CHAT / "backend.php"])


if __name__ == "__main__":
    unittest.main(verbosity=2, warnings="ignore")
