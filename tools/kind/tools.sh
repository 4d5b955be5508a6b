#!/usr/bin/env bash
# Print the path of kind, helm, helm4 or kubectl: found, downloaded with its checksum, or built, then cached.
# usage: tools.sh NAME
set -euo pipefail
cd "$(dirname "$0")/../.."
.venv/bin/nodewright assets -o json "$1" | .venv/bin/python -c 'import json, sys; print(*json.load(sys.stdin).values())'
