"""One API server and one node agent in a network namespace of their own, for the tests of this folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nodewright.controlplane.assets import Assets
from nodewright.controlplane.bootstrap import apply_all
from nodewright.controlplane.cluster import LocalCluster
from nodewright.controlplane.layout import Layout
from support.agent_node import AgentNode, load_demo_image
from support.network import own_namespace
from support.pod_lab import PodLab


@pytest.fixture(scope="module")
def lab_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    if os.geteuid() != 0:
        pytest.fail("these tests make namespaces, mounts and cgroups: run them as root")
    binaries = Assets().obtain(["etcd", "kube-apiserver"])
    with own_namespace():
        cluster = LocalCluster.ensure(Layout(tmp_path_factory.mktemp("c"), "pods"))
        try:
            cluster.prepare()
            cluster.start_etcd(binaries["etcd"], unsafe_no_fsync=True)
            cluster.start_apiserver(binaries["kube-apiserver"])
            apply_all(cluster.kubeconfig)
            yield cluster
        finally:
            cluster.stop()


@pytest.fixture(scope="module")
def image_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("images")
    load_demo_image(directory / "store", directory / "demo.tar")
    return directory / "store"


@pytest.fixture(scope="module")
def make_node(
    lab_cluster: LocalCluster, image_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., AgentNode]]:
    made: list[AgentNode] = []

    def make(**settings: object) -> AgentNode:
        quick = {"crash_backoff_initial": 0.5, "crash_backoff_max": 4.0, "image_backoff_initial": 4.0}
        directory = tmp_path_factory.mktemp("n")
        node = AgentNode(lab_cluster, directory, **{"image_root": str(image_root), **quick, **settings})
        made.append(node)
        return node

    yield make
    for node in made:
        node.close()


@pytest.fixture(scope="module")
def shared_node(make_node: Callable[..., AgentNode]) -> AgentNode:
    node = make_node()
    node.start()
    return node


@pytest.fixture
def lab(lab_cluster: LocalCluster, shared_node: AgentNode, request: pytest.FixtureRequest) -> Iterator[PodLab]:
    """Pods on the shared node; they are deleted afterwards, and the node's log is shown when the test failed."""
    with PodLab(lab_cluster, shared_node) as made:
        made.wait_ready()
        yield made


@pytest.fixture
def own_lab(lab_cluster: LocalCluster, make_node: Callable[..., AgentNode]) -> Iterator[PodLab]:
    """Pods on a node of the test's own, which it may kill."""
    node = make_node()
    node.start()
    try:
        with PodLab(lab_cluster, node) as made:
            made.wait_ready()
            yield made
    finally:
        node.close()
