#!/usr/bin/env bash
# Clients and libraries of other people, with their usual settings.
# needs: python3 node=nodejs npm go=golang-go golang-nhooyr-websocket-dev
set -euo pipefail
python3 -m venv "$WORK/python"
"$WORK/python/bin/pip" install --quiet --disable-pip-version-check \
    websockets==15.0.1 aiohttp==3.12.15 httpx==0.28.1 httpx-sse==0.4.1 requests==2.32.5 sseclient-py==1.8.0
mkdir "$WORK/node"
npm install --silent --no-audit --no-fund --prefix "$WORK/node" \
    event-source-polyfill@1.0.31 eventsource@4.0.0 eventsource-parser@3.0.3 ws@8.18.3
export GOCACHE="$WORK/go" GOPATH=/usr/share/gocode GO111MODULE=off GOFLAGS=-modcacherw
go build -o "$WORK/scanner" tests/foreign/clients/scanner.go
go build -o "$WORK/websocket" tests/foreign/clients/websocket.go
exec python3 tests/foreign/clients.py
