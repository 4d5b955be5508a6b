"""A lab for the whole session: etcd, kube-apiserver and kube-scheduler 1.36."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from differential import standing
from differential.lab import Lab
from differential.upstream import KubeScheduler
from nodewright.controlplane.assets import Assets
from nodewright.controlplane.cluster import LocalCluster
from nodewright.controlplane.layout import Layout
from support.lab_cluster import start_control_plane


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    binaries: dict[str, Path] = Assets().obtain(["etcd", "kube-apiserver", "kube-scheduler"])
    cluster = LocalCluster.ensure(Layout(tmp_path_factory.mktemp("d"), "differential"))
    try:
        start_control_plane(cluster, binaries)
        made = asyncio.run(standing.make(cluster.kubeconfig))
        upstream = KubeScheduler(binaries["kube-scheduler"], cluster, tmp_path_factory.mktemp("u"))
        with upstream, Lab(cluster, upstream, made) as running:
            yield running
    finally:
        cluster.stop()
