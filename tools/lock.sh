#!/usr/bin/env bash
# Pin every Python package with its hashes. The result names packages and hashes only, no download addresses.
set -euo pipefail
cd "$(dirname "$0")/.."
lock=$(mktemp -d); trap 'rm -rf "$lock"' EXIT
python3 -m venv "$lock"
"$lock/bin/pip" install -q --disable-pip-version-check uv
compile() { # compile OUTPUT INPUT [OPTION...]
  "$lock/bin/uv" pip compile "${@:2}" --no-header --no-emit-index-url --no-annotate --generate-hashes \
    --python-version 3.11 -q -o "$1"
}
compile requirements/dev.txt requirements/dev.in --universal
# What goes into the images comes from pyproject.toml, in the versions that the tests ran with.
for image in operator agent; do
  compile "requirements/$image.txt" pyproject.toml --extra "$image" --extra cli -c requirements/dev.txt --python-platform linux
done
