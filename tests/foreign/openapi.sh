#!/usr/bin/env bash
# The OpenAPI documents in other people's tools: linters, generators of clients, and requests made up from them.
# needs: python3 python3-venv node=nodejs npm
set -euo pipefail
cp -r tests/foreign/openapi "$WORK/openapi"
python3 -m venv "$WORK/venv"
"$WORK/venv/bin/pip" install --quiet --disable-pip-version-check --no-deps -r "$WORK/openapi/requirements.txt"
(cd "$WORK/openapi" && npm ci --ignore-scripts --silent)
exec "$WORK/venv/bin/python" tests/foreign/openapi.py
