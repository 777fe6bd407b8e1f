"""The documents at `/openapi.json`, as linters, generators of clients and a maker of requests take them."""

import json
import os
import subprocess
import sys
import unittest
from pathlib import Path
from urllib.request import urlopen

from program import Halley

WORK = Path(os.environ["WORK"]) / "openapi"
NODE = WORK / "node_modules" / ".bin"
PYTHON = Path(sys.executable).parent
LISTENERS = ["client", "admin"]
# For each listener; what is held would only be waited for.
SCHEMATHESIS_S = 45
HELD = ["inboxEvents", "inboxLines", "inboxSocket"]


def run(*command, **more):
    subprocess.run([str(part) for part in command], check=True, cwd=WORK, **more)


class OpenApi(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.halley = cls.enterClassContext(Halley("--poll-wait-s-max", "1"))
        for name in LISTENERS:
            with urlopen(getattr(cls.halley, name) + "/openapi.json", timeout=30) as reply:
                (WORK / f"{name}.json").write_text(json.dumps(json.load(reply), indent=2))

    def test_redocly_finds_nothing(self):
        for name in LISTENERS:
            report = subprocess.run(
                [NODE / "redocly", "lint", "--format=json", f"{name}.json"], cwd=WORK, stdout=subprocess.PIPE, check=True
            )
            self.assertEqual(json.loads(report.stdout)["problems"], [], name)

    def test_spectral_finds_nothing(self):
        for name in LISTENERS:
            run(NODE / "spectral", "lint", "--ruleset", "spectral.yaml", "--fail-severity=hint", f"{name}.json")

    def test_types_for_typescript_are_strict(self):
        for name in LISTENERS:
            run(NODE / "openapi-typescript", f"{name}.json", "--output", f"{name}.d.ts")
        run(NODE / "tsc", "--project", "tsconfig.json")

    def test_a_client_for_python_pushes_and_reads(self):
        for name in LISTENERS:
            options = ["--path", f"{name}.json", "--output-path", f"halley_{name}", "--meta", "none"]
            options += ["--config", "python-client.yaml", "--fail-on-warning", "--overwrite"]
            run(PYTHON / "openapi-python-client", "generate", *options)
        sys.path.insert(0, str(WORK))
        from halley_admin import AuthenticatedClient as AdminClient
        from halley_admin.api.messages import push_direct
        from halley_admin.models import Problem, Push, Receipt
        from halley_client import AuthenticatedClient
        from halley_client.api.inbox import poll_inbox
        from halley_client.models import DirectMessage, InboxPage

        with AdminClient(self.halley.admin, self.halley.key) as admin:
            receipt = push_direct.sync("bob", client=admin, body=Push(from_="alice", body={"text": "hi"}))
            self.assertIsInstance(receipt, Receipt)
            refused = push_direct.sync("..", client=admin, body=Push(from_="", body=1))
            self.assertIsInstance(refused, Problem)
        with AuthenticatedClient(self.halley.client, self.halley.token("bob")) as client:
            page = poll_inbox.sync(client=client, wait=0)
        self.assertIsInstance(page, InboxPage)
        message = page.messages[0]
        self.assertIsInstance(message, DirectMessage)
        self.assertEqual((message.from_, message.to, message.body), ("alice", "bob", {"text": "hi"}))

    def test_schemathesis_finds_nothing(self):
        for name, bearer in [("client", self.halley.token("carol", send=True)), ("admin", self.halley.key)]:
            command = ["--config-file", "schemathesis.toml", "run", f"{name}.json", "--url", getattr(self.halley, name)]
            command += ["--header", f"Authorization: Bearer {bearer}", "--seed", "1", "--max-time", SCHEMATHESIS_S]
            command += ["--phases", "examples,coverage,fuzzing"]
            for operation in HELD if name == "client" else []:
                command += ["--exclude-operation-id", operation]
            run(PYTHON / "schemathesis", *command)


if __name__ == "__main__":
    unittest.main(verbosity=2)
