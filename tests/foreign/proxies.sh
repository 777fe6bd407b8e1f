#!/usr/bin/env bash
# The ready files of docs/proxies/ in the proxies themselves.
# needs: python3 openssl nginx haproxy caddy apache2
set -euo pipefail
export PATH="$PATH:/usr/sbin"
exec python3 tests/foreign/proxies.py
