# Sourced by the scripts here: which Docker, node image, programs and files a kind cluster is made with.
#   KIND_NODE_IMAGE          node image to use as it is
#   NODEWRIGHT_KIND_RECIPE   directory of a recipe that makes a node image and a private dockerd (env.sh, all.sh, stop.sh)
#   KIND_KUBERNETES          Kubernetes version of the released node image, e.g. v1.36.4@sha256:... (default: what kind is released with)
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
recipe=${NODEWRIGHT_KIND_RECIPE:-$root/../shared/kind}
# The default node image of kind v0.33.0, digest included, as its release notes ask.
KIND_KUBERNETES=${KIND_KUBERNETES:-v1.37.0@sha256:a1ed56cfb0e7b93589bdf97c8cd566405a265939e3620fc4f5de89adff580ae5}
dockerd_is_ours=$root/build/kind/.dockerd   # there when we started the recipe's dockerd, and so may stop it
began=$SECONDS

step() { printf '==> [%4d s] %s\n' "$((SECONDS - began))" "$*"; }
fail() { printf 'error: %s\n' "$1" >&2; [ $# -lt 2 ] || printf 'hint: %s\n' "$2" >&2; exit 1; }
tool() { "$root/tools/kind/tools.sh" "$1"; }

# Everything that talks to the cluster goes through `inside`: with the recipe, API server and nodes are only reachable
# from the network namespace of its dockerd.
inside() { "$@"; }

# Only reaches for a registry when the name is not there yet; asking for the manifest is quick, pulling is not.
released_image() {
  local name=kindest/node:$KIND_KUBERNETES
  docker image inspect "$name" >/dev/null 2>&1 || timeout 30 docker manifest inspect "$name" >/dev/null 2>&1 || return 1
  docker image inspect "$name" >/dev/null 2>&1 || docker pull -q "$name" >/dev/null || return 1
  printf '%s\n' "$name"
}

use_recipe() {
  [ -x "$recipe/all.sh" ] || return 1
  [ "$(id -u)" = 0 ] || { echo "the recipe in $recipe starts a dockerd of its own and needs root for that" >&2; return 1; }
  step "node image and private dockerd by $recipe (minutes from nothing, a second when all is there)"
  # shellcheck source=/dev/null
  . "$recipe/env.sh"
  docker info >/dev/null 2>&1 || touch "$dockerd_is_ours"
  "$recipe/all.sh" >"$work/recipe.log" 2>&1 || { tail -20 "$work/recipe.log" >&2; return 1; }
  inside() { in_kind "$@"; }
  node_image=$IMAGE private=$recipe
}

# Sets node_image, private (the recipe's directory when its dockerd is used) and `inside`. Ends with 2 when there is no way.
choose_node() {
  private=
  if docker info >/dev/null 2>&1; then
    if [ -n "${KIND_NODE_IMAGE:-}" ]; then node_image=$KIND_NODE_IMAGE; return 0; fi
    node_image=$(released_image) && return 0
  fi
  use_recipe && { node_image=${KIND_NODE_IMAGE:-$node_image}; return 0; }
  cat >&2 <<TXT
error: there is nothing to make a kind cluster from here; one of these is needed:
  - Docker on this machine (docker info works), and the node image kindest/node can be pulled
  - Docker, and KIND_NODE_IMAGE names a node image that it has
  - root, and NODEWRIGHT_KIND_RECIPE names a directory with a recipe for a node image ($recipe is none)
TXT
  exit 2
}

# Names of one cluster's files: $work (logs, archives), $config (kubeconfig).
choose_cluster() {
  cluster=$1 work=$root/build/kind/$1
  mkdir -p "$work"
  config=$work/kubeconfig
}
