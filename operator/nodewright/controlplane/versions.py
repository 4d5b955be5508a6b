"""Which releases the embedded control plane runs, and which Go builds them."""

from __future__ import annotations

import platform

KUBERNETES = "v1.36.3"
ETCD = "v3.6.8"
GO_MINIMUM = (1, 26)

KUBERNETES_BINARIES = ("kube-apiserver", "kube-controller-manager", "kubectl", "kube-scheduler")
BINARIES = ("etcd", *KUBERNETES_BINARIES)


def architecture() -> str:
    """This machine's architecture by Go's name."""
    machine = platform.machine()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)
