# Sourced after common.sh: the phases that kind-up and e2e-kind have in common. All of them may be repeated.
namespace=nodewright-system
# The chart takes images with its appVersion as tag unless told otherwise.
version=$(sed -n 's/^appVersion: *"\{0,1\}\([^"]*\)"\{0,1\}$/\1/p' "$root/charts/nodewright/Chart.yaml")

# Set by `prepare`: paths of the programs, the node image, and that docker, kind and kubectl are ours.
prepare() {
  choose_node
  kind=$(tool kind) helm=$(tool helm) kubectl=$(tool kubectl)
  export KUBECONFIG=$config
  step "kind $("$kind" version | cut -d' ' -f2), node image $node_image${private:+, in the private dockerd of $private}"
}

create_cluster() { # CONFIG-FILE
  if "$kind" get clusters 2>/dev/null | grep -qx "$cluster"; then
    step "cluster $cluster is there already"
    "$kind" export kubeconfig --name "$cluster" --kubeconfig "$config" -q
  else
    step "creating cluster $cluster from $(basename "$1")"
    inside "$kind" create cluster --name "$cluster" --image "$node_image" --config "$1" --kubeconfig "$config" --wait 120s -q
  fi
  inside "$kubectl" wait --for=condition=Ready nodes --all --timeout=120s >/dev/null
}

build_images() {
  step "building the images, tag $version"
  "$root/tools/images/build.sh" --tag "$version" >"$work/images.log" 2>&1 || { tail -20 "$work/images.log" >&2; fail "the images could not be built" "$work/images.log"; }
  cat "$work/images.log"
  "$root/.venv/bin/nodewright" image demo "$work/demo.tar" >/dev/null
  "$root/.venv/bin/nodewright" image demo --as localhost/nodewright-demo:2 "$work/demo-2.tar" >/dev/null
}

load_images() {
  step "loading the images into the nodes"
  inside "$kind" load docker-image --name "$cluster" nodewright/operator:"$version" nodewright/agent:"$version"
  inside "$kind" load image-archive --name "$cluster" "$work/demo.tar"
  inside "$kind" load image-archive --name "$cluster" "$work/demo-2.tar"
}

# Same tag, other image: an annotation with the image's id has Helm replace the Pods exactly when it has changed.
image_annotations() {
  local component image
  for component in operator scheduler agent proxy; do
    case $component in operator | scheduler) image=operator ;; *) image=agent ;; esac
    printf -- '--set-string=%s.podAnnotations.nodewright\\.dev/image=%s\n' "$component" \
      "$(docker image inspect -f '{{.Id}}' "nodewright/$image:$version" | cut -c8-19)"
  done
}

install_chart() { # extra arguments of helm
  step "helm upgrade --install nodewright"
  local from=$SECONDS annotations
  mapfile -t annotations < <(image_annotations)
  inside "$helm" upgrade --install nodewright "$root/charts/nodewright" --namespace "$namespace" --create-namespace \
    --wait --timeout 180s "${annotations[@]}" "$@" >"$work/helm.log" 2>&1 || { tail -20 "$work/helm.log" >&2; return 1; }
  wait_ready
  step "everything Ready, $((SECONDS - from)) s after helm was called"
}

wait_ready() {
  inside "$kubectl" wait --for=condition=Ready nodes --all --timeout=120s >/dev/null
  inside "$kubectl" -n kube-system wait --for=condition=Available deployment/coredns --timeout=120s >/dev/null
}

delete_cluster() {
  step "deleting cluster $cluster"
  inside "$kind" delete cluster --name "$cluster" --kubeconfig "$config" -q || return
  rm -f "$config"
}

# A dockerd that we started and that runs nothing any more is not left on the user's machine. The last step of all: the
# network namespace goes with it.
stop_dockerd() {
  if [ -n "${private:-}" ] && [ -e "$dockerd_is_ours" ] && [ -z "$(docker ps -q)" ]; then
    rm -f "$dockerd_is_ours"
    "$private/stop.sh"
  fi
}
