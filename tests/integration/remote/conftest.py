"""One API server, and for each runtime one agent that drives it, in a network namespace of their own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nodewright.controlplane.assets import Assets
from nodewright.controlplane.bootstrap import apply_all
from nodewright.controlplane.cluster import LocalCluster
from nodewright.controlplane.layout import Layout
from support.agent_node import AgentNode
from support.network import own_namespace
from support.pod_lab import PodLab
from support.remote_runtimes import Containerd, NodewrightCri, RemoteRuntime


@pytest.fixture(scope="module")
def lab_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    if os.geteuid() != 0:
        pytest.fail("these tests make namespaces, mounts and cgroups: run them as root")
    binaries = Assets().obtain(["etcd", "kube-apiserver"])
    with own_namespace():
        cluster = LocalCluster.ensure(Layout(tmp_path_factory.mktemp("c"), "remote"))
        try:
            cluster.prepare()
            cluster.start_etcd(binaries["etcd"], unsafe_no_fsync=True)
            cluster.start_apiserver(binaries["kube-apiserver"])
            apply_all(cluster.kubeconfig)
            yield cluster
        finally:
            cluster.stop()


@pytest.fixture(scope="module", params=["nodewright", "containerd"])
def runtime(
    request: pytest.FixtureRequest, lab_cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RemoteRuntime]:
    if request.param == "containerd" and (missing := Containerd.missing()):
        pytest.skip(f"not installed: {', '.join(missing)} (tools/setup.sh bench)")
    directory = tmp_path_factory.mktemp("r")
    made: RemoteRuntime = NodewrightCri(directory) if request.param == "nodewright" else Containerd(directory)
    try:
        made.start()
        yield made
    finally:
        made.purge()


@pytest.fixture(scope="module")
def make_node(
    lab_cluster: LocalCluster, runtime: RemoteRuntime, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., AgentNode]]:
    made: list[AgentNode] = []

    def make(**settings: object) -> AgentNode:
        directory: Path = tmp_path_factory.mktemp("n")
        quick = {"crash_backoff_initial": 0.5, "crash_backoff_max": 4.0, "image_backoff_initial": 4.0}
        endpoint = f"unix://{runtime.socket}"
        given = {"image_root": "", "container_runtime_endpoint": endpoint, "pod_cidr": runtime.cidr}
        node = AgentNode(lab_cluster, directory, **{**given, **quick, **settings})
        made.append(node)
        return node

    yield make
    for node in made:
        node.close()


@pytest.fixture(scope="module")
def node(make_node: Callable[..., AgentNode]) -> AgentNode:
    made = make_node()
    made.start()
    return made


@pytest.fixture
def lab(lab_cluster: LocalCluster, node: AgentNode) -> Iterator[PodLab]:
    """Pods on the node; they are deleted afterwards."""
    with PodLab(lab_cluster, node) as made:
        made.wait_ready()
        yield made
