"""One API server, and for each runtime one agent that drives it, in a network namespace of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest

from nodewright.controlplane.cluster import LocalCluster
from support import lab_cluster as labs
from support.agent_node import AgentNode
from support.pod_lab import PodLab
from support.remote_runtimes import Containerd, NodewrightCri, RemoteRuntime


@pytest.fixture(scope="module")
def lab_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with labs.lab_cluster(tmp_path_factory.mktemp("c"), "remote") as cluster:
        yield cluster


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
    given = {"image_root": "", "container_runtime_endpoint": f"unix://{runtime.socket}", "pod_cidr": runtime.cidr}
    with labs.agents(lab_cluster, partial(tmp_path_factory.mktemp, "n"), **given, **labs.QUICK) as make:
        yield make


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
