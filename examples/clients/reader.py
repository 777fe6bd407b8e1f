"""Reads a user's inbox with long polls: every message once, through restarts of either side. Python 3.9, no packages.

HALLEY_URL: the client address. TOKEN_URL: your backend's token endpoint. CURSOR_FILE: where the cursor is kept.
"""
import json
import os
import random
import sys
import time
from urllib.error import HTTPError
from urllib.request import Request, urlopen

URL = os.environ.get("HALLEY_URL", "http://127.0.0.1:8100")
CURSOR_FILE = os.environ.get("CURSOR_FILE", "cursor")
last_numbers = {}  # the newest `n` of each conversation and group


def handle(message):
    """An app stores the message here, and the cursor in the same transaction; then no crash repeats one."""
    talk = message.get("group") or tuple(sorted([message["from"], message["to"]]))
    if last_numbers.get(talk, message["n"] - 1) != message["n"] - 1:
        print("a message is missing before", message["id"], file=sys.stderr)  # read the history here
    last_numbers[talk] = message["n"]
    print(json.dumps(message), flush=True)


def save(cursor):
    with open(CURSOR_FILE + ".new", "w") as file:
        file.write(cursor)
    os.replace(CURSOR_FILE + ".new", CURSOR_FILE)
    return cursor


cursor = open(CURSOR_FILE).read() if os.path.exists(CURSOR_FILE) else "0"
token, pause = None, 0.5
while True:
    wait = pause * random.uniform(0.5, 1)
    try:
        token = token or urlopen(os.environ["TOKEN_URL"], timeout=15).read().decode().strip()
        request = Request(f"{URL}/v1/inbox?after={cursor}&wait=30", headers={"Authorization": "Bearer " + token})
        with urlopen(request, timeout=45) as reply:
            page = json.load(reply)
        for message in page["messages"]:
            handle(message)
        cursor, pause = save(page["next"]), 0.5
        continue
    except HTTPError as error:
        if error.code in (409, 410):  # another history, or one that begins later: go on from where it says
            problem = json.load(error)
            cursor = save(problem["restart"] if error.code == 409 else problem["first"])
        elif error.code == 401:
            token = None  # expired: ask the backend for a fresh one
        elif error.code < 500 and error.code != 429:
            sys.exit(f"{error.code}: {error.read().decode()}")  # a fault of this program: do not repeat
        wait = max(wait, float(error.headers.get("Retry-After") or 0))
    except OSError as error:
        print("no connection:", error, file=sys.stderr)
    time.sleep(wait)
    pause = min(pause * 2, 30)
