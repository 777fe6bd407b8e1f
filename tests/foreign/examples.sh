#!/usr/bin/env bash
# The reading loops and the chat backends of examples/, through restarts.
# needs: python3 php=php-cli go=golang-go javac=default-jdk-headless libgoogle-gson-java
set -euo pipefail
export GOCACHE="$WORK/go" GOPATH="$WORK/gopath" GO111MODULE=off
unformatted=$(gofmt -l examples/clients)
[ -z "$unformatted" ] || { echo "gofmt would change $unformatted" >&2; exit 1; }
exec python3 tests/foreign/examples.py
