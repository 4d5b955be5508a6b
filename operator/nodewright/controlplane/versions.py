"""Which releases the embedded control plane and the kind clusters of the tests run, and which Go builds them."""

from __future__ import annotations

import platform

KUBERNETES = "v1.36.3"
ETCD = "v3.6.8"
KIND = "v0.33.0"
HELM3 = "v3.22.0"
HELM4 = "v4.3.1"
COREDNS = "v1.14.7"
CRI_TOOLS = "v1.37.0"
AGNHOST = "2.63.0"  # the version that the tests of KUBERNETES ask for
SAMPLE_APISERVER = "v0.29.2"  # likewise: a newer one would want rights that the tests do not give it
GO_MINIMUM = (1, 26)

KUBERNETES_BINARIES = ("kube-apiserver", "kube-controller-manager", "kubectl", "kube-scheduler")
BINARIES = ("etcd", *KUBERNETES_BINARIES)
# What `make kind-up` and `make e2e-kind` need besides; "helm" is Helm 3, "helm4" stands beside it.
TOOLS = ("kind", "helm", "helm4")
# What benchmarks run in turns with our own parts, besides the binaries above.
COUNTERPARTS = ("kubelet",)
# What `make conformance` runs: no release has them as files of their own, they are always built.
CONFORMANCE = ("e2e.test", "ginkgo", "agnhost", "nonewprivs", "sample-apiserver", "coredns")
# What drives `nodewright cri` in tests: always built, too.
CRI_CLIENTS = ("crictl", "critest")
KNOWN = (*BINARIES, *TOOLS, *COUNTERPARTS, *CONFORMANCE, *CRI_CLIENTS)

_RELEASES = {
    "etcd": ("etcd", ETCD),
    "kind": ("kind", KIND),
    "helm": ("helm", HELM3),
    "helm4": ("helm", HELM4),
    "coredns": ("coredns", COREDNS),
    "sample-apiserver": ("sample-apiserver", SAMPLE_APISERVER),
    "crictl": ("cri-tools", CRI_TOOLS),
    "critest": ("cri-tools", CRI_TOOLS),
}


def release_of(name: str) -> tuple[str, str]:
    """Project and version that the binary `name` belongs to."""
    return _RELEASES.get(name, ("kubernetes", KUBERNETES))


def architecture() -> str:
    """This machine's architecture by Go's name."""
    machine = platform.machine()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)
