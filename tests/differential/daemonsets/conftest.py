"""Two control planes for the whole session. Each has a garbage collector; the DaemonSet controllers differ."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from differential.daemonsets.lab import Lab
from differential.daemonsets.processes import COLLECTOR, DAEMONSETS, ControllerManager
from differential.daemonsets.side import Side
from nodewright.controllers.daemonset.apps import AppsDaemonSetController
from nodewright.controlplane.assets import Assets
from nodewright.controlplane.cluster import LocalCluster
from nodewright.controlplane.layout import Layout
from nodewright.framework.process import Options
from support.lab_cluster import start_control_plane
from support.operator_thread import OperatorThread

CONTROLLERS = {"upstream": (DAEMONSETS, COLLECTOR), "ours": (COLLECTOR,)}


class DaemonSetLab(Lab):
    """The lab with its loop."""

    def __init__(self, runner: asyncio.Runner, upstream: Side, ours: Side) -> None:
        super().__init__(upstream, ours)
        self.runner = runner


@pytest.fixture(scope="session")
def daemonset_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonSetLab]:
    binaries: dict[str, Path] = Assets().obtain(["etcd", "kube-apiserver", "kube-controller-manager"])
    root = tmp_path_factory.mktemp("d")
    with ExitStack() as stack:
        runner = stack.enter_context(asyncio.Runner())
        sides: dict[str, Side] = {}
        for name, controllers in CONTROLLERS.items():
            cluster = LocalCluster.ensure(Layout(root, name))
            stack.callback(cluster.stop)
            start_control_plane(cluster, binaries)
            log = root / f"{name}-kube-controller-manager.log"
            stack.enter_context(ControllerManager(binaries["kube-controller-manager"], cluster, log, *controllers))
            if DAEMONSETS not in controllers:
                options = Options(
                    kubeconfig=cluster.layout.kubeconfig("operator"), leader_elect=False, metrics_port=None
                )
                thread = OperatorThread(options, [AppsDaemonSetController])
                stack.callback(lambda thread=thread: asyncio.run(thread.stop()))
                asyncio.run(thread.wait_started())
            sides[name] = Side(name, cluster.kubeconfig)
            stack.callback(lambda side=sides[name]: runner.run(side.stop()))
            runner.run(sides[name].start())
            runner.run(sides[name].barrier(60))
        yield DaemonSetLab(runner, sides["upstream"], sides["ours"])
