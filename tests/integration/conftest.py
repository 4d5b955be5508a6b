"""A real control plane for integration tests: etcd and kube-apiserver on loopback, one per session.

`cluster`             the running cluster (.kubeconfig, .dir, .server), without kube-controller-manager
`controller_manager`  the same cluster with kube-controller-manager running, but for its daemonset-controller
`namespace`           a fresh namespace with its default ServiceAccount
`kubectl`             runs kubectl against the cluster and returns its output
`make_cluster`        a factory of further clusters, each stopped at the end of the test;
                      `start_cluster` starts one, `kubectl_for` gives its kubectl
"""

from __future__ import annotations

import functools
import json
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nodewright.controlplane.assets import Assets
from nodewright.controlplane.cluster import LocalCluster
from nodewright.controlplane.layout import Layout
from support.lab_cluster import start_control_plane


@pytest.fixture(scope="session")
def binaries() -> dict[str, Path]:
    """The control plane's binaries, obtained the product's way."""
    return Assets().obtain(["etcd", "kube-apiserver", "kube-controller-manager", "kubectl"])


@pytest.fixture(scope="session")
def cluster(binaries: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    running = LocalCluster.ensure(Layout(tmp_path_factory.mktemp("c"), "test"))
    try:
        start_control_plane(running, binaries)
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="session")
def controller_manager(cluster: LocalCluster, binaries: dict[str, Path]) -> LocalCluster:
    # without its daemonset-controller: tests serve apps/v1 DaemonSets by ours, and start upstream's where they want it
    cluster.start_controller_manager(binaries["kube-controller-manager"], replaced=("daemonset-controller",))
    return cluster


def run_kubectl(binaries: dict[str, Path], kubeconfig: Path, *arguments: str, stdin: str | None = None) -> str:
    """kubectl's standard output; its standard error in the exception when it fails."""
    argv = [str(binaries["kubectl"]), f"--kubeconfig={kubeconfig}", *arguments]
    result = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise RuntimeError(f"kubectl {' '.join(arguments)}: {result.stderr.strip()}")
    return result.stdout


@pytest.fixture(scope="session")
def kubectl(cluster: LocalCluster, binaries: dict[str, Path]) -> Callable[..., str]:
    return functools.partial(run_kubectl, binaries, cluster.kubeconfig)


@pytest.fixture
def namespace(kubectl: Callable[..., str]) -> Iterator[str]:
    """A fresh namespace. Without kube-controller-manager nobody makes its ServiceAccount, so it is made here, and
    its deletion is only begun: nobody finishes that either."""
    name = f"t-{uuid.uuid4().hex[:8]}"
    objects = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": name}},
    ]
    # server-side: kube-controller-manager may make the ServiceAccount at the same moment
    kubectl(
        "apply",
        "--server-side",
        "--force-conflicts",
        "-f",
        "-",
        stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}),
    )
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="session")
def start_cluster(binaries: dict[str, Path]) -> Callable[[LocalCluster], None]:
    return functools.partial(start_control_plane, binaries=binaries)


@pytest.fixture(scope="session")
def kubectl_for(binaries: dict[str, Path]) -> Callable[[LocalCluster], Callable[..., str]]:
    return lambda cluster: functools.partial(run_kubectl, binaries, cluster.kubeconfig)


@pytest.fixture
def make_cluster(tmp_path: Path) -> Iterator[Callable[[str], LocalCluster]]:
    made: list[LocalCluster] = []

    def make(name: str) -> LocalCluster:
        made.append(LocalCluster.ensure(Layout(tmp_path / "s", name)))
        return made[-1]

    yield make
    for one in made:
        one.stop()
