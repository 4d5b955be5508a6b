#!/usr/bin/env bash
# Pin every Python package with its hashes. The result names packages and hashes only, no download addresses.
set -euo pipefail
cd "$(dirname "$0")/.."
lock=$(mktemp -d); trap 'rm -rf "$lock"' EXIT
python3 -m venv "$lock"
"$lock/bin/pip" install -q --disable-pip-version-check uv
"$lock/bin/uv" pip compile requirements/dev.in --no-header --no-emit-index-url --no-annotate --generate-hashes \
  --python-version 3.11 --universal -q -o requirements/dev.txt
