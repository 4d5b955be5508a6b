#!/usr/bin/env bash
# The end-to-end tests in kind: both variants, one after the other, each in a cluster of its own that is always removed.
# usage: e2e.sh [full] [stock]     environment: see common.sh; KIND_REQUIRED=1 makes a missing node image a failure
# What failed is gathered in build/kind/NAME/artifacts.
set -uo pipefail
. "$(dirname "$0")/common.sh"
. "$(dirname "$0")/cluster.sh"
choose_cluster "nw-e2e-$$"

cleanup() { # whatever happens: no cluster stays behind, and nothing to look at where nothing failed
  local outcome=$?
  if [ -n "${kind:-}" ] && "$kind" get clusters 2>/dev/null | grep -qx "$cluster"; then delete_cluster; fi
  stop_dockerd
  [ $outcome != 0 ] || rm -rf "$work"
}

run_tests() { # PYTEST'S ARGUMENTS...
  inside env NODEWRIGHT_E2E_KIND="$cluster" NODEWRIGHT_E2E_ARTIFACTS="$artifacts" HELM="$helm" HELM4="$helm4" \
    KUBECTL="$kubectl" "$root/.venv/bin/python" -m pytest "$@" | tee "$work/tests.log"
  local outcome=${PIPESTATUS[0]}
  grep -E '^(FAILED|ERROR) ' "$work/tests.log" >>"$work/failures" || true
  return $outcome
}

# Tests beside real processes can be hit by a busy machine: as in the Makefile, in CI what failed gets one more chance.
# Each folder has its own, before the next one's tests: those of helm leave the cluster without the release.
run_folder() { # FOLDER
  run_tests "$1" && return
  [ -n "${CI:-}" ] || return 1
  step "once more (in CI only): what failed"
  run_tests --last-failed "$1"
}

run_folders() { # FOLDERS...
  local failed=0 folder
  for folder; do run_folder "$folder" || failed=1; done
  return $failed
}

variant() { # NAME CONFIG-FILE TESTS... -- HELM ARGUMENTS
  local name=$1 file=$2; shift 2
  local tests=(); while [ "$1" != -- ]; do tests+=("$root/tests/e2e/$1"); shift; done; shift
  local artifacts=$work/artifacts/$name
  create_cluster "$file" && load_images && install_chart "$@" &&
    step "tests of the $name variant" && run_folders "${tests[@]}"
  local outcome=$?
  [ $outcome = 0 ] || inside "$kind" export logs --name "$cluster" "$artifacts/kind" -q
  delete_cluster
  step "$name variant: $([ $outcome = 0 ] && echo passed || echo "FAILED, see $artifacts")"
  return $outcome
}

variants=("$@"); [ $# -gt 0 ] || variants=(full stock)
failed=0
trap cleanup EXIT
trap 'exit 130' INT TERM
set -e; prepare; helm4=$(tool helm4); build_images; set +e
step "tests of the images"
"$root/.venv/bin/python" -m pytest "$root/tests/integration/packaging" || failed=1
for each in "${variants[@]}"; do
  case $each in
    full) variant full "$root/kind-config.yaml" common chaos helm -- || failed=1 ;;
    stock) variant stock "$root/kind-config-stock.yaml" common -- --set proxy.serviceProxyName=nodewright || failed=1 ;;
    *) fail "there is no variant $each" "full, stock" ;;
  esac
done
# What failed stands at the end, also what passed the second time: who reads the end of a long log knows where to look.
[ ! -s "$work/failures" ] || { step "failed at least once:"; cat "$work/failures"; }
step "$([ $failed = 0 ] && echo "all variants passed" || echo "FAILED")"
exit $failed
