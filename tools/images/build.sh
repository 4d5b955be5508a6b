#!/usr/bin/env bash
# Build the images nodewright/operator and nodewright/agent:   tools/images/build.sh [--tag TAG] [--save DIR] [IMAGE...]
#
# Environment: BASE_IMAGE (see below), PYTHON_VERSION (of the base image, 3.11), REPOSITORY (nodewright), DOCKER (docker),
# NO_CACHE (1: build every stage anew).
# Base image: BASE_IMAGE when given; else debian:bookworm-slim when the daemon has it or can pull it; else one made
# with debootstrap (base.sh). Wheels are downloaded once per lock file, checked against its hashes, and kept in the cache.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd); project=$(cd "$here/../.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/nodewright/images
docker=${DOCKER:-docker} repository=${REPOSITORY:-nodewright} version=${PYTHON_VERSION:-3.11}
default_base=debian:bookworm-slim
python=$project/.venv/bin/python
tag=dev save=

fail() { printf 'error: %s\nhint: %s\n' "$1" "$2" >&2; exit 3; }

images=()
while [ $# -gt 0 ]; do
  case $1 in
    --tag) tag=$2; shift 2 ;;
    --save) save=$2; shift 2 ;;
    operator | agent) images+=("$1"); shift ;;
    *) fail "unknown argument: $1" "tools/images/build.sh [--tag TAG] [--save DIR] [operator] [agent]" ;;
  esac
done
[ ${#images[@]} -gt 0 ] || images=(operator agent)

[ -x "$python" ] || fail "there is no Python environment in .venv" "make setup"
$docker version >/dev/null 2>&1 || fail "no docker daemon answers" "start one, or set DOCKER_HOST"
# One time for all files, ever (1980, the first that a wheel can hold): an image follows from its contents alone. The time
# of the commit would not do: Docker's cache takes layers that differ in times for the same.
export SOURCE_DATE_EPOCH=315532800
revision=$(git -C "$project" rev-parse HEAD)
[ -z "$(git -C "$project" status --porcelain)" ] || revision=$revision-dirty
source=$(git -C "$project" remote get-url origin 2>/dev/null | sed -E 's#^(https?://)[^/@]*@#\1#') || true
package_version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$project/pyproject.toml" | head -1)

base_image() {
  if [ -n "${BASE_IMAGE:-}" ]; then echo "$BASE_IMAGE"; return; fi
  if $docker image inspect "$default_base" >/dev/null 2>&1 || timeout 60 "$docker" pull -q "$default_base" >/dev/null 2>&1; then
    echo "$default_base"; return
  fi
  echo "$default_base cannot be pulled here: a base image of this machine's own takes its place" >&2
  "$here/base.sh"
}

wheelhouse() { # wheelhouse IMAGE: the folder with the wheels of its lock file
  local lock=$project/requirements/$1.txt machine key wheels
  machine=$(uname -m)
  key=$( (cat "$lock"; echo "$version $machine") | sha256sum | cut -c1-12)
  wheels=$cache/wheels-$1-$key
  if [ ! -d "$wheels" ]; then
    echo "getting the wheels of the $1 image" >&2
    rm -rf "$wheels.part"; mkdir -p "$wheels.part"
    "$python" -m pip download -q --disable-pip-version-check --no-deps --require-hashes --only-binary=:all: \
      --implementation cp --python-version "$version" --platform "manylinux_2_28_$machine" \
      --platform "manylinux_2_17_$machine" --platform "manylinux2014_$machine" -d "$wheels.part" -r "$lock" >&2 ||
      fail "the wheels could not be downloaded" "is the package index reachable? Their names and hashes: requirements/$1.txt"
    mv "$wheels.part" "$wheels"
  fi
  echo "$wheels"
}

own_wheel() { # own_wheel DIRECTORY: our packages, built from the tree, with their hash in requirements.txt
  local wheel
  (cd "$project" && "$python" -m hatchling build -t wheel -d "$1" >/dev/null 2>&1) ||
    fail "the project's own wheel could not be built" "$python -m hatchling build -t wheel"
  wheel=$(cd "$1" && echo nodewright-*.whl)
  printf 'nodewright==%s --hash=sha256:%s\n' "$package_version" "$(sha256sum "$1/$wheel" | cut -d' ' -f1)" >>"$1/requirements.txt"
}

build() { # build IMAGE DOCKERFILE
  local context=$scratch/$1
  mkdir -p "$context/wheels"
  cp "$(wheelhouse "$1")"/*.whl "$context/wheels/"
  cp "$project/requirements/$1.txt" "$context/wheels/requirements.txt"
  own_wheel "$context/wheels"
  cp "$here"/*.py "$here/install-packages.sh" "$context/"
  cp "$here/packages.$1" "$context/packages"; cp "$here/$1.toml" "$context/image.toml"; cp "$2" "$context/Dockerfile"
  $docker build ${NO_CACHE:+--no-cache} --build-arg "BASE_IMAGE=$base" --build-arg "SOURCE_DATE_EPOCH=$SOURCE_DATE_EPOCH" \
    --label "org.opencontainers.image.version=$package_version" --label "org.opencontainers.image.revision=$revision" \
    ${source:+--label "org.opencontainers.image.source=$source"} -t "$repository/$1:$tag" "$context" >"$scratch/log" 2>&1 ||
    { cat "$scratch/log" >&2; fail "the image of the $1 could not be built" "see the lines above"; }
  echo "$repository/$1:$tag, $($docker image inspect -f '{{.Size}}' "$repository/$1:$tag" | awk '{printf "%.1f MB unpacked", $1 / 1e6}')"
  # Docker's older builder leaves every builder stage behind as an image without a name: those of today's work suffice.
  $docker image prune --force --filter label=dev.nodewright.builder --filter until=30m >/dev/null
  if [ -n "$save" ]; then mkdir -p "$save"; $docker save -o "$save/$1.tar" "$repository/$1:$tag"; fi
}

scratch=$(mktemp -d); trap 'rm -rf "$scratch"' EXIT
# Without its buildx part the command line falls back to the older builder, which serves as well, but complains at length.
$docker buildx version >/dev/null 2>&1 || export DOCKER_BUILDKIT=0
base=$(base_image)
for image in "${images[@]}"; do
  case $image in operator) build operator "$project/operator/Dockerfile" ;; agent) build agent "$project/nodeagent/Dockerfile" ;; esac
done
