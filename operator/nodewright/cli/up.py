"""`nodewright up`: start or resume a cluster on this machine.

A row of steps, each of which looks at what is there and does the rest: running `up` again after anything (a reboot,
a killed `up`, a killed component) continues instead of starting over.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from nodewright.cli.options import DEFAULT, Name, StateDir, layout_of
from nodewright.cli.output import PRECONDITION, CliError, RichProgress, stdout
from nodewright.controlplane import slots
from nodewright.controlplane.assets import Assets
from nodewright.controlplane.cluster import (
    APISERVER,
    CONTROLLER_MANAGER,
    ETCD,
    OPERATOR,
    SCHEDULER,
    LocalCluster,
    lock,
)
from nodewright.controlplane.layout import Layout
from nodewright.controlplane.progress import Progress

# the embedded cluster has no other scheduler, so ours serves the default name too
_SCHEDULER_NAMES = ("default-scheduler", "nodewright")
# nor another controller for DaemonSets
_TAKE_OVER = ("apps/v1",)
_BINARIES = (ETCD, APISERVER, CONTROLLER_MANAGER, "kubectl")


def command(
    name: Name = DEFAULT,
    nodes: Annotated[
        int | None,
        typer.Option(
            "--nodes",
            metavar="K",
            help="Node hosts to run on this machine (root only). Kept from the last time when left out; 0 at first.",
        ),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Return when every node is Ready.")] = False,
    timeout: Annotated[float, typer.Option("--timeout", help="With --wait: give up after so many seconds.")] = 120.0,
    state_dir: StateDir = None,
) -> None:
    """Start a cluster on this machine, or resume one: what runs is kept, what died is started again.

    Without --nodes it is a control plane alone and needs no root. The binaries come from $NODEWRIGHT_ASSETS, the
    cache, the official releases, or are built, which takes some minutes once.
    """
    layout = layout_of(name, state_dir)
    if nodes is not None:
        slots.check_nodes(nodes)
    progress = RichProgress()
    with lock(layout, lambda: progress.console.print("waiting for another command on this cluster…")):
        cluster = _bring_up(layout, nodes, progress)
        if wait:
            from nodewright.cli import waiting

            waiting.until_ready(cluster, progress, timeout)
    _say_how_to_go_on(cluster)


def _bring_up(layout: Layout, nodes: int | None, progress: Progress) -> LocalCluster:
    if nodes:
        _require_root(nodes)  # before anything is written: a first `up` that cannot work leaves nothing behind
    cluster = LocalCluster.ensure(layout, nodes)
    if cluster.state.nodes:
        _require_root(cluster.state.nodes)
    binaries = Assets().obtain(_BINARIES, progress)
    with progress.step("keys and certificates") as step:
        made = cluster.prepare()
        step.result(f"{len(made)} made" if made else "all good")
    if cluster.state.nodes:
        from nodewright.cli import localnodes

        localnodes.start_network(cluster, progress)
    start_control_plane(cluster, binaries, progress)
    start_own(cluster, progress)
    if cluster.state.nodes or cluster.layout.node("").exists():
        from nodewright.cli import localnodes

        localnodes.start_agents(cluster, progress)
    wait_own(cluster, progress)
    return cluster


def start_control_plane(cluster: LocalCluster, binaries: dict[str, Path], progress: Progress) -> None:
    """etcd, kube-apiserver, the cluster's own objects, kube-controller-manager."""
    from nodewright.controllers import registry
    from nodewright.controlplane.bootstrap import apply_all

    with progress.step(ETCD) as step:
        step.result(_verb(cluster.start_etcd(binaries[ETCD], update=step.update)))
    with progress.step(APISERVER) as step:
        started = cluster.start_apiserver(binaries[APISERVER], update=step.update)
        step.result(f"{_verb(started)}, {cluster.server}")
    with progress.step("roles and custom resources") as step:
        step.result(f"{apply_all(cluster.kubeconfig)} objects applied")
    with progress.step(CONTROLLER_MANAGER) as step:
        off = registry.replaced(_TAKE_OVER)
        started = cluster.start_controller_manager(binaries[CONTROLLER_MANAGER], replaced=off, update=step.update)
        step.result(_verb(started))


def start_own(cluster: LocalCluster, progress: Progress) -> None:
    """Our operator and our scheduler. One instance each per local cluster, so they need no election."""
    ports = cluster.state.ports
    served = [f"--scheduler-name={name}" for name in _SCHEDULER_NAMES]
    taken = [f"--take-over={','.join(_TAKE_OVER)}"]
    for name, port, more in ((OPERATOR, ports.operator, taken), (SCHEDULER, ports.scheduler, served)):
        kubeconfig = cluster.layout.kubeconfig(name)
        arguments = [name, f"--kubeconfig={kubeconfig}", "--no-leader-elect", f"--metrics-bind=127.0.0.1:{port}", *more]
        with progress.step(name) as step:
            step.result(_verb(cluster.start_own(name, arguments, inputs=[kubeconfig])))


def wait_own(cluster: LocalCluster, progress: Progress) -> None:
    """Both start while the node hosts are made; here their readiness is waited for."""
    with progress.step("operator and scheduler ready") as step:
        for name in (OPERATOR, SCHEDULER):
            cluster.wait_healthy(name, update=step.update)


def _verb(started: bool) -> str:
    return "started" if started else "running"


def _require_root(nodes: int) -> None:
    if os.geteuid() != 0:
        raise CliError(
            f"{nodes} node hosts need root: they are network namespaces, mounts and cgroups of this machine",
            "run the command with sudo, or leave out --nodes for a control plane alone",
            PRECONDITION,
        )


def _say_how_to_go_on(cluster: LocalCluster) -> None:
    option = "" if cluster.name == DEFAULT else f" --name {cluster.name}"
    stdout().print(
        f"\nThe cluster {cluster.name} runs at {cluster.server}.\n"
        f"  export KUBECONFIG={cluster.kubeconfig}\n"
        f"  nodewright kubectl{option} get nodes\n"
        f"  nodewright status{option}      nodewright down{option}"
    )
