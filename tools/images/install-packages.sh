#!/bin/sh
# In the builder stage: install those of the listed packages that the base image lacks. Without any, no network is used.
set -eu
cd "$(dirname "$0")"
missing=
for package in $(cat packages); do
  case $package in python3) command -v python3 >/dev/null && continue ;; esac
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
echo "installing:$missing"
apt-get update -qq
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
rm -rf /var/lib/apt/lists/*
