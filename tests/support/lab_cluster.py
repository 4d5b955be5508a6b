"""Control planes and node agents that a folder of tests makes for itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from nodewright.controlplane.assets import Assets
from nodewright.controlplane.bootstrap import apply_all
from nodewright.controlplane.cluster import LocalCluster
from nodewright.controlplane.layout import Layout
from support.agent_node import AgentNode
from support.network import own_namespace

QUICK = {"crash_backoff_initial": 0.5, "crash_backoff_max": 4.0, "image_backoff_initial": 4.0}
"""Settings of agents whose tests wait for back-offs."""


def start_control_plane(cluster: LocalCluster, binaries: Mapping[str, Path]) -> None:
    """PKI, etcd (without fsync: the data is thrown away) and kube-apiserver with our RBAC and CRDs."""
    cluster.prepare()
    cluster.start_etcd(binaries["etcd"], unsafe_no_fsync=True)
    cluster.start_apiserver(binaries["kube-apiserver"])
    apply_all(cluster.kubeconfig)


@contextmanager
def lab_cluster(directory: Path, name: str) -> Iterator[LocalCluster]:
    """A control plane in a network namespace of its own, in which what the caller starts is, too."""
    if os.geteuid() != 0:
        pytest.fail("these tests make namespaces, mounts and cgroups: run them as root")
    binaries = Assets().obtain(["etcd", "kube-apiserver"])
    with own_namespace():
        cluster = LocalCluster.ensure(Layout(directory, name))
        try:
            start_control_plane(cluster, binaries)
            yield cluster
        finally:
            cluster.stop()


@contextmanager
def agents(
    cluster: LocalCluster, directory: Callable[[], Path], **common: object
) -> Iterator[Callable[..., AgentNode]]:
    """Gives a function that makes agents with the ``common`` settings and more; all are ended, and removed."""
    made: list[AgentNode] = []

    def make(**settings: object) -> AgentNode:
        made.append(AgentNode(cluster, directory(), **{**common, **settings}))
        return made[-1]

    try:
        yield make
    finally:
        for node in made:
            node.close()
