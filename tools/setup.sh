#!/usr/bin/env bash
# Make .venv from hashed requirements and install the Debian packages that are missing. Quick when nothing is to do.
# `setup.sh bench` also installs what benchmarks compare with, `setup.sh conformance` what test images are made of.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}

fail() { printf 'error: %s\nhint: %s\n' "$1" "$2" >&2; exit 3; }
as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# command or file that shows that a package is there, and the package
needs='runc runc
conmon conmon
nft nftables
iptables iptables
ipset ipset
ipvsadm ipvsadm
conntrack conntrack
ip iproute2
nsenter util-linux
modprobe kmod
/bin/busybox busybox-static
gcc gcc
/usr/include/stdio.h libc6-dev
linux.uml user-mode-linux
docker-registry docker-registry
skopeo skopeo'
[ "${1:-}" != bench ] || needs="$needs
containerd containerd
/usr/lib/cni/bridge containernetworking-plugins"
[ "${1:-}" != conformance ] || needs="$needs
debootstrap debootstrap
bash-static bash-static"
PATH=$PATH:/usr/sbin:/sbin
missing=
while read -r probe package; do
  command -v "$probe" >/dev/null 2>&1 || [ -e "$probe" ] || missing="$missing $package"
done <<<"$needs"
command -v "$python" >/dev/null || missing="$missing python3"
"$python" -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"

if [ -n "$missing" ]; then
  command -v apt-get >/dev/null || fail "missing:$missing" "install these with your distribution's package manager, then run this again"
  [ "$(id -u)" = 0 ] || command -v sudo >/dev/null || fail "missing Debian packages:$missing" "run as root, or install sudo"
  echo "installing Debian packages:$missing"
  as_root apt-get update -qq || fail "apt-get update failed" "is there a network? Without one, install by hand:$missing"
  # shellcheck disable=SC2086
  as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends $missing >/dev/null ||
    fail "apt-get could not install:$missing" "see the lines above"
fi

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  fail "$("$python" --version) is too old" "Nodewright needs Python 3.11 or newer: make PYTHON=python3.11 ..."
want=$(cat requirements/dev.txt pyproject.toml | sha256sum | cut -d' ' -f1)
if [ "$(cat .venv/.complete 2>/dev/null || true)" != "$want" ]; then
  echo "making the Python environment in .venv"
  # Brought up to date in place: an environment that works is not thrown away for one that may not come about.
  "$python" -m venv .venv
  .venv/bin/pip install -q --disable-pip-version-check --require-hashes -r requirements/dev.txt ||
    fail "the Python packages could not be installed" "is the package index reachable? Their names and hashes: requirements/dev.txt"
  .venv/bin/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
  echo "$want" >.venv/.complete
fi
