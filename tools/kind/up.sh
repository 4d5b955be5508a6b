#!/usr/bin/env bash
# A kind cluster with Nodewright in it, left for you to play with. Safe to repeat: brings images and chart up to date.
# usage: up.sh [NAME]        environment: see common.sh; KIND_CONFIG names another kind configuration
set -euo pipefail
. "$(dirname "$0")/common.sh"
. "$(dirname "$0")/cluster.sh"
choose_cluster "${1:-nodewright}"
prepare
create_cluster "${KIND_CONFIG:-$root/kind-config.yaml}"
build_images
load_images
install_chart
inside "$kubectl" get nodes
prefix=${private:+nsenter --net=/run/netns/$NS }
cat <<TXT

Nodewright runs in the kind cluster $cluster. Go on with:
  export KUBECONFIG=$config PATH=$(dirname "$kubectl"):\$PATH
  ${prefix}kubectl apply -f examples/
  ${prefix}kubectl get nds,pods -o wide
  ${prefix}kubectl logs client
  make kind-down                # deletes it
TXT
[ -z "$private" ] || echo "(nsenter, because the API server listens in the network namespace of the private dockerd only.)"
