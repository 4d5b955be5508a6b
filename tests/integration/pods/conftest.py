"""One API server and one node agent in a network namespace of their own, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from nodewright.controlplane.cluster import LocalCluster
from support import lab_cluster as labs
from support.agent_node import AgentNode, load_demo_image
from support.pod_lab import PodLab


@pytest.fixture(scope="module")
def lab_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with labs.lab_cluster(tmp_path_factory.mktemp("c"), "pods") as cluster:
        yield cluster


@pytest.fixture(scope="module")
def image_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("images")
    load_demo_image(directory / "store", directory / "demo.tar")
    return directory / "store"


@pytest.fixture(scope="module")
def make_node(
    lab_cluster: LocalCluster, image_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., AgentNode]]:
    with labs.agents(
        lab_cluster, partial(tmp_path_factory.mktemp, "n"), image_root=str(image_root), **labs.QUICK
    ) as make:
        yield make


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
