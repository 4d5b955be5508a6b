#!/usr/bin/env bash
# A real cluster on this machine, a workload of our own parts in it, and proof that it works. Safe to repeat.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PWD/.venv/bin:$PATH

step() { printf '\n\033[1m==> %s\033[0m\n' "$*"; }
show() { printf '\033[2m$ %s\033[0m\n' "$*"; "$@"; }

[ "$(id -u)" = 0 ] || {
  printf 'error: the demo makes network namespaces and containers, and needs root for that\nhint: sudo make demo\n' >&2
  exit 3
}

step "A control plane and two node hosts"
show nodewright up --nodes 2 --wait

step "An image, made here from Debian's busybox, so that no registry is needed"
image=$(mktemp -d); trap 'rm -rf "$image"' EXIT
show nodewright image demo "$image/demo.tar"
show nodewright image load "$image/demo.tar"

step "The examples: a nodewright.dev DaemonSet, a Service, and a client"
show nodewright kubectl apply -f examples/
show nodewright kubectl wait --for=jsonpath='{.status.numberReady}'=2 nds/hello --timeout=60s
show nodewright kubectl wait --for=condition=Ready pod/client --timeout=60s
show nodewright kubectl get nodes -o wide
show nodewright kubectl get pods -o wide

step "The Service, asked from node host 1 over its ClusterIP"
ip=$(nodewright kubectl get service hello -o 'jsonpath={.spec.clusterIP}')
backends=$(nodewright kubectl get pods -l app=hello -o 'jsonpath={.items[*].metadata.name}')
answers=$(for _ in $(seq 20); do
  nsenter --net=/run/netns/nw-default-node1 timeout 5 busybox wget -q -O - "http://$ip/" || echo "no answer"
done)
sort <<<"$answers" | uniq -c

step "The same from inside a Pod"
all_seen() { for backend in $backends; do grep -q "$backend" <<<"$1" || return 1; done; }
for _ in $(seq 30); do
  from_pod=$(nodewright kubectl logs client --tail=30)
  all_seen "$from_pod" && break
  sleep 1
done
sort <<<"$from_pod" | uniq -c
all_seen "$answers" && all_seen "$from_pod" || {
  echo "error: not every backend of $backends answered" >&2
  exit 1
}

step "One Pod's way from kubectl apply to Running"
show nodewright trace pod "default/${backends%% *}"

cat <<TXT

It works. Go on with:
  .venv/bin/nodewright kubectl get pods -A
  .venv/bin/nodewright kubectl logs -f client
  .venv/bin/nodewright status
  .venv/bin/nodewright down            # stop; down --purge removes everything
TXT
