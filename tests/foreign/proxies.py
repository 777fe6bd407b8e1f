"""The ready proxy files of `docs/proxies/`, run for real with TLS: every transport comes through at once, and a browser's
`EventSource` outlives a stop and a kill of the server."""

import base64
import glob
import json
import os
import socket
import ssl
import struct
import subprocess
import threading
import time
import unittest
from contextlib import closing
from http.client import HTTPException, HTTPSConnection
from pathlib import Path

from program import ROOT, Halley, free_port, until

FILES = ROOT / "docs" / "proxies"
WORK = Path(os.environ["WORK"])
LOG = WORK / "access.log"
HEARTBEAT_S = 5
TLS = ssl.create_default_context()
TLS.check_hostname, TLS.verify_mode = False, ssl.CERT_NONE  # the certificate is made for this run


def certificate():
    pem, key = WORK / "push.pem", WORK / "push.key"
    if not pem.exists():
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
            + ["-subj", "/CN=push.example.com", "-addext", "subjectAltName=DNS:push.example.com,IP:127.0.0.1"]
            + ["-keyout", key, "-out", pem],
            check=True,
            stderr=subprocess.DEVNULL,
        )
        (WORK / "both.pem").write_text(pem.read_text() + key.read_text())
    return pem, key


def render(name, changes):
    """The documented file with this machine's ports and paths; each change must have something to change."""
    text = (FILES / name).read_text()
    for old, new in changes.items():
        assert old in text, f"{name} has no {old}"
        text = text.replace(old, str(new))
    path = WORK / name
    path.write_text(text)
    return path


def nginx(port, upstream):
    pem, key = certificate()
    file = render("nginx.conf", {
        "127.0.0.1:8100": upstream,
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "/etc/ssl/push.example.com.pem": pem,
        "/etc/ssl/push.example.com.key": key,
        "/var/log/nginx/halley.log": LOG,
    })
    folders = "".join(
        f"{kind}_temp_path {WORK}/{kind};\n" for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
    )
    main = WORK / "nginx-main.conf"
    main.write_text(
        f"daemon off;\npid {WORK}/nginx.pid;\nerror_log stderr error;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{folders}include {file};\n}}\n"
    )
    os.chmod(WORK, 0o755)
    return ["nginx", "-p", WORK, "-c", main]


def haproxy(port, upstream):
    certificate()
    return ["haproxy", "-db", "-f", render("haproxy.cfg", {
        "127.0.0.1:8100": upstream,
        "bind :443": f"bind 127.0.0.1:{port}",
        "/etc/ssl/push.example.com.pem": WORK / "both.pem",
    })]


def caddy(port, upstream):
    pem, key = certificate()
    file = render("Caddyfile", {
        "push.example.com {": f"{{\n    admin off\n    auto_https off\n}}\nhttps://push.example.com:{port} {{\n    bind 127.0.0.1\n    tls {pem} {key}",
        "127.0.0.1:8100": upstream,
    })
    return ["caddy", "run", "--adapter", "caddyfile", "--config", file]


def apache(port, upstream):
    pem, key = certificate()
    file = render("apache.conf", {
        "127.0.0.1:8100": upstream,
        "<VirtualHost *:443>": f"Listen 127.0.0.1:{port}\n<VirtualHost 127.0.0.1:{port}>",
        "127.0.0.1:8199": f"127.0.0.1:{free_port()}",
        "/etc/ssl/push.example.com.pem": pem,
        "/etc/ssl/push.example.com.key": key,
        "/var/log/apache2/halley.log": LOG,
        "/etc/apache2/restarting.sse": FILES / "restarting.sse",
    })
    modules = ["mpm_event", "authz_core", "alias", "mime", "ssl", "socache_shmcb", "slotmem_shm", "headers"]
    modules += ["proxy", "proxy_http", "proxy_balancer", "lbmethod_byrequests"]
    loads = "".join(
        f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n"
        for name in modules
        if glob.glob(f"/usr/lib/apache2/modules/mod_{name}.so")
    )
    main = WORK / "apache-main.conf"
    main.write_text(
        f"ServerRoot {WORK}\nServerName localhost\nDefaultRuntimeDir {WORK}\nPidFile {WORK}/apache.pid\nMutex file:{WORK} default\n"
        f"ErrorLog {WORK}/apache.log\nUser www-data\nGroup www-data\nTypesConfig /dev/null\n{loads}Include {file}\n"
    )
    return ["apache2", "-DFOREGROUND", "-f", main]


class Connection(HTTPSConnection):
    """A connection to the proxy under its public name."""

    def __init__(self, port, timeout):
        super().__init__("127.0.0.1", port, timeout=timeout, context=TLS)

    def connect(self):
        raw = socket.create_connection((self.host, self.port), self.timeout)
        self.sock = TLS.wrap_socket(raw, server_hostname="push.example.com")

    def get(self, path, headers={}):
        self.request("GET", path, headers={"Host": "push.example.com"} | headers)
        return self.getresponse()


class EventSource(threading.Thread):
    """What a browser does (HTML standard, 9.2): comes again after a broken or ended answer, gives up for good when an
    answer is not 200 or no event stream."""

    def __init__(self, port, path):
        super().__init__(daemon=True)
        self.port, self.path = port, path
        self.data, self.gave_up, self.last_id, self.retry_ms = [], None, None, 2000
        self.opened, self.stopped = 0, threading.Event()
        self.start()

    def run(self):
        while not (self.gave_up or self.stopped.is_set()):
            try:
                self.connect()
            except (OSError, HTTPException):
                pass  # a broken connection is no refusal
            self.stopped.wait(self.retry_ms / 1000)

    def connect(self):
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": self.last_id} if self.last_id else {})
        with closing(Connection(self.port, 4 * HEARTBEAT_S)) as connection:
            self.read(connection.get(self.path, headers))

    def read(self, reply):
        if reply.status != 200 or not reply.headers.get("Content-Type", "").startswith("text/event-stream"):
            self.gave_up = f"{reply.status} {reply.headers.get('Content-Type')}"
            return
        self.opened += 1
        data, kind = [], "message"
        while line := reply.readline().decode():
            field, _, value = line.rstrip("\n").partition(":")
            value = value.removeprefix(" ")
            if field == "data":
                data.append(value)
            elif field == "event":
                kind = value
            elif field == "id":
                self.last_id = value
            elif field == "retry":
                self.retry_ms = int(value)
            elif line == "\n":
                if data and kind == "message":
                    self.data.append(json.loads("\n".join(data)))
                data, kind = [], "message"
            if self.stopped.is_set():
                return


def web_socket_frames(port, path):
    """Opens a WebSocket and yields its text frames."""
    connection = Connection(port, 30)
    connection.connect()
    tls = connection.sock
    key = base64.b64encode(os.urandom(16)).decode()
    tls.sendall(
        f"GET {path} HTTP/1.1\r\nHost: push.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
    )
    stream = tls.makefile("rb")
    assert b"101" in stream.readline()
    while stream.readline() != b"\r\n":
        pass
    while True:
        kind, length = struct.unpack("!BB", stream.read(2))
        if length == 126:
            length = struct.unpack("!H", stream.read(2))[0]
        elif length == 127:
            length = struct.unpack("!Q", stream.read(8))[0]
        body = stream.read(length)
        if kind & 15 == 1:
            yield json.loads(body)


class Proxies(unittest.TestCase):
    def check(self, make):
        port = free_port()
        with Halley() as halley:
            command = [str(part) for part in make(port, f"127.0.0.1:{halley.client_port}")]
            environment = os.environ | {"HOME": str(WORK), "XDG_DATA_HOME": str(WORK), "XDG_CONFIG_HOME": str(WORK)}
            proxy = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
            threading.Thread(target=lambda: setattr(self, "said", proxy.stderr.read()), daemon=True).start()
            try:
                until(f"{command[0]} ({getattr(self, 'said', '')})", lambda: "ok" in self.get(port, "/readyz", proxy)[1])
                self.transports(port, halley)
                self.bridge(port, halley)
            finally:
                proxy.terminate()
                proxy.wait(30)
            if LOG.exists():
                written = LOG.read_text()
                LOG.unlink()
                self.assertIn("/v1/inbox/ws", written)
                self.assertNotIn("token", written)

    def get(self, port, path, proxy=None):
        if proxy and proxy.poll() is not None:
            raise AssertionError(f"the proxy ended: {getattr(self, 'said', '')}")
        try:
            with closing(Connection(port, 60)) as connection:
                reply = connection.get(path)
                return reply.status, reply.read().decode()
        except OSError:
            return 0, ""

    def transports(self, port, halley):
        """Each gets a message that is pushed while it is held, long before the request would end by itself."""
        token = f"token={halley.token('bob')}&heartbeat=300&wait=300"
        seen = {}

        def poll():
            status, body = self.get(port, f"/v1/inbox?after=now&{token}")
            seen["poll"] = (status, json.loads(body)["messages"][0]["body"])

        def stream():
            with closing(Connection(port, 60)) as connection:
                reply = connection.get(f"/v1/inbox/stream?after=now&{token}")
                while "stream" not in seen:
                    for message in json.loads(reply.readline())["messages"]:
                        seen["stream"] = (reply.status, message["body"])

        def web_socket():
            for page in web_socket_frames(port, f"/v1/inbox/ws?after=now&{token}"):
                for message in page["messages"]:
                    seen["socket"] = (101, message["body"])
                    return

        threads = [threading.Thread(target=act, daemon=True) for act in (poll, stream, web_socket)]
        for thread in threads:
            thread.start()
        source = EventSource(port, f"/v1/inbox/sse?after=now&{token}")
        held = lambda: halley.ask("GET", "/v1/users/bob/presence")["connections"] == 4
        until("four held requests", held)
        halley.push("bob", "now")
        for thread in threads:
            thread.join(30)
        until("the event", lambda: source.data)
        source.stopped.set()
        self.assertEqual(seen, {"poll": (200, "now"), "stream": (200, "now"), "socket": (101, "now")})
        self.assertEqual(source.data[0]["body"], "now")

    def bridge(self, port, halley):
        """An EventSource lives through a stop and a kill, with three seconds of nobody there each time."""
        source = EventSource(port, f"/v1/inbox/sse?token={halley.token('ann')}&heartbeat={HEARTBEAT_S}")
        expected = []

        def push(body):
            halley.push("ann", body)
            expected.append(body)
            until(f"{body} ({source.gave_up})", lambda: len(source.data) >= len(expected) or source.gave_up)
            self.assertIsNone(source.gave_up, "the browser gave up for good")
            self.assertEqual([message["body"] for message in source.data], expected)

        push("before")
        for end in (halley.stop, halley.kill):
            end()
            time.sleep(3)  # so long nobody is there; not a wait for anything
            halley.start()
            push(f"after {end.__name__}")
        source.stopped.set()

    def test_nginx(self):
        self.check(nginx)

    def test_haproxy(self):
        self.check(haproxy)

    def test_caddy(self):
        self.check(caddy)

    def test_apache(self):
        self.check(apache)


if __name__ == "__main__":
    unittest.main(verbosity=2, warnings="ignore")
