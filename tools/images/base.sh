#!/usr/bin/env bash
# A base image without a registry: debootstrap from the mirror this machine's apt uses, then `docker import`.
# It holds the packages of both images, so that the Dockerfiles have nothing to install. Prints the image's name.
# The tree is kept as a tarball in the cache, under the hash of the list of packages and the release.
set -euo pipefail
cd "$(dirname "$0")"
release=${DEBIAN_RELEASE:-bookworm}
cache=${XDG_CACHE_HOME:-$HOME/.cache}/nodewright/images
packages=$(cat packages.operator packages.agent | sort -u | paste -sd,)
key=$(printf '%s %s' "$release" "$packages" | sha256sum | cut -c1-12)
archive=$cache/base-$key.tar name=localhost/nodewright-base:$key

fail() { printf 'error: %s\nhint: %s\n' "$1" "$2" >&2; exit 3; }

if [ ! -e "$archive" ]; then
  command -v debootstrap >/dev/null ||
    fail "debootstrap is not installed" "install it, or name a base image that the daemon has: BASE_IMAGE=debian:bookworm-slim"
  [ "$(id -u)" = 0 ] || fail "debootstrap needs root" "run as root, or name a base image: BASE_IMAGE=debian:bookworm-slim"
  mkdir -p "$cache"
  tree=$(mktemp -d "$cache/base.XXXXXX"); trap 'rm -rf "$tree" "$archive.part"' EXIT
  mirror=$(apt-get indextargets --format '$(SITE)' | grep -m1 -i debian)
  echo "making a base image of Debian $release with debootstrap" >&2
  debootstrap --variant=minbase --include="$packages" "$release" "$tree" "$mirror" >"$cache/debootstrap.log" 2>&1 ||
    fail "debootstrap failed: $(tail -1 "$cache/debootstrap.log")" "the whole log: $cache/debootstrap.log"
  rm -rf "$tree"/var/cache/apt/archives/*.deb "$tree"/var/lib/apt/lists/* "$tree"/usr/share/{doc,man,locale,info}
  tar -C "$tree" --sort=name --numeric-owner --one-file-system -cf "$archive.part" .
  mv "$archive.part" "$archive"
fi
docker image inspect "$name" >/dev/null 2>&1 || docker import "$archive" "$name" >/dev/null
echo "$name"
