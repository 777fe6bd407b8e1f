"""A chat app's backend: logs people in, gives them tokens, keeps rooms, sends. Python 3.9, no packages.

HALLEY_ADMIN_KEY=$(cat data/admin.key) python3 examples/chat/backend.py
"""
import json
import os
import re
import secrets
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

ADMIN, KEY = os.environ.get("HALLEY_ADMIN", "http://127.0.0.1:8000"), os.environ["HALLEY_ADMIN_KEY"]
CLIENTS = os.environ.get("HALLEY_URL", "http://127.0.0.1:8100")  # where browsers find Halley
PAGE = Path(__file__).with_name("index.html")
sessions = {}  # cookie -> user; your app has its own accounts and sessions


def halley(method, path, body=None, **headers):
    headers["Authorization"] = "Bearer " + KEY
    request = Request(ADMIN + path, None if body is None else json.dumps(body).encode(), headers, method=method)
    with urlopen(request, timeout=30) as reply:
        return json.load(reply)


def check(value, pattern, rule):
    if not isinstance(value, str) or not re.fullmatch(pattern, value, re.DOTALL):
        raise ValueError(rule)
    return value


def name(value):
    return check(value, r"[A-Za-z0-9_-]{1,32}", "a name has 1 to 32 letters, digits, - and _")


class Backend(BaseHTTPRequestHandler):
    def route(self, path, user, body):
        if path == "GET /session":
            return {"user": user, "halley": CLIENTS}
        if path == "POST /login":
            cookie = secrets.token_urlsafe()
            sessions[cookie] = name(body.get("user"))  # your app checks a password here
            self.cookie = f"session={cookie}; HttpOnly; SameSite=Strict; Path=/"
            return {}
        if not user:
            raise PermissionError("log in first")
        if path == "GET /token":  # halley.js asks for it again before it expires
            return halley("POST", "/v1/tokens", {"user": user, "ttl_s": 3600})["token"]
        if path == "POST /rooms":  # makes the room if there is none, and joins it
            room = "/v1/groups/" + name(body.get("room"))
            halley("PUT", room, {})
            return halley("PUT", f"{room}/members/{user}")
        if path == "POST /messages":
            place = "groups/" + name(body["room"]) if "room" in body else "direct/" + name(body.get("to"))
            if "room" in body and user not in halley("GET", "/v1/" + place)["members"]:
                raise PermissionError("join the room first")
            text = check(body.get("text"), ".{1,4000}", "a text has 1 to 4000 characters")
            key = check(body.get("key"), r"[A-Za-z0-9_-]{1,64}", "a key has 1 to 64 letters, digits, - and _")
            message = {"from": user, "body": {"text": text}}  # with the key, a repeated request is stored once
            return halley("POST", f"/v1/{place}/messages", message, **{"Idempotency-Key": f"{user}-{key}"})
        raise ValueError("there is no such page")

    def do_GET(self):
        self.cookie, status, kind = None, 200, "application/json"
        try:
            cookie = SimpleCookie(self.headers.get("Cookie", "")).get("session")
            text = self.rfile.read(min(int(self.headers.get("Content-Length", 0)), 65536))
            user = sessions.get(cookie and cookie.value)
            if self.path == "/":
                body, kind = PAGE.read_text(), "text/html; charset=utf-8"
            else:
                body = self.route(f"{self.command} {self.path}", user, json.loads(text or "{}"))
        except HTTPError as problem:  # what Halley refuses
            status, body = problem.code, {"error": json.load(problem).get("detail")}
        except PermissionError as error:
            status, body = 403, {"error": str(error)}
        except (AttributeError, ValueError) as error:
            status, body = 400, {"error": str(error)}
        except OSError:
            status, body = 503, {"error": "Halley does not answer"}
        body = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if self.cookie:
            self.send_header("Set-Cookie", self.cookie)
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET


ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "3000"))), Backend).serve_forever()
