#!/usr/bin/env bash
# Delete the kind cluster that up.sh made. Nothing to do when there is none.
# usage: down.sh [NAME]
set -euo pipefail
. "$(dirname "$0")/common.sh"
. "$(dirname "$0")/cluster.sh"
choose_cluster "${1:-nodewright}"
[ -e "$config" ] || { echo "there is no cluster $cluster"; exit 0; }
prepare
delete_cluster
stop_dockerd
