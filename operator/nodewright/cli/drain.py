"""`nodewright drain` and `nodewright uncordon`: emptying a node in order, and taking it back into service."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated

import typer

from nodewright.cli.durations import patience
from nodewright.cli.options import StateDir
from nodewright.cli.output import stderr, stdout
from nodewright.cli.target import ClusterName, Kubeconfig, config_of

if TYPE_CHECKING:
    from nodewright.kube.client import Client
    from nodewright.kube.config import Config

NodeName = Annotated[str, typer.Argument(metavar="NODE", help="The node.", show_default=False)]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]


def command(
    node: NodeName,
    timeout: Annotated[
        str, typer.Option("--timeout", metavar="DURATION", help="How long to wait, such as 5m; 0s: without end.")
    ] = "0s",
    grace_period: Annotated[
        int,
        typer.Option(
            "--grace-period", metavar="SECONDS", help="What each Pod gets to end; negative: what it asks for itself."
        ),
    ] = -1,
    force: Annotated[
        bool, typer.Option("--force", help="Also delete Pods that no controller will make anew elsewhere.")
    ] = False,
    delete_emptydir_data: Annotated[
        bool, typer.Option("--delete-emptydir-data", help="Also delete Pods with emptyDir volumes; their data is lost.")
    ] = False,
    dry_run: DryRun = False,
    kubeconfig: Kubeconfig = None,
    cluster: ClusterName = None,
    state_dir: StateDir = None,
) -> None:
    """Empty a node: cordon it, evict its Pods, then wait until the DaemonSets that leave last have left.

    Budgets (PodDisruptionBudget) are respected: an eviction that one forbids is tried again. Pods of other DaemonSets
    and static Pods stay. Exit code 3: some Pods forbid the drain and nothing was done; 4: time ran out, and the node
    stays cordoned.
    """
    from nodewright.cli.draining import Drainer, DrainOptions

    options = DrainOptions(
        force=force,
        delete_emptydir_data=delete_emptydir_data,
        grace_period=grace_period,
        timeout=patience(timeout, "--timeout"),
        dry_run=dry_run,
    )
    config = config_of(kubeconfig, cluster, state_dir)
    asyncio.run(_with_client(config, lambda client: Drainer(client, node, options, _say).run()))


def uncordon_command(
    node: NodeName,
    dry_run: DryRun = False,
    kubeconfig: Kubeconfig = None,
    cluster: ClusterName = None,
    state_dir: StateDir = None,
) -> None:
    """Take a node back into service: Pods may be scheduled onto it, and its DaemonSets' Pods come back."""
    from nodewright.cli.draining import uncordon

    config = config_of(kubeconfig, cluster, state_dir)
    asyncio.run(_with_client(config, lambda client: uncordon(client, node, _say, dry_run=dry_run)))


async def _with_client(config: Config, work: Callable[[Client], Awaitable[None]]) -> None:
    from nodewright.kube.client import Client

    async with Client(config) as client:
        await work(client)


def _say(text: str) -> None:
    console = stderr() if text.startswith(("Warning:", "error ")) else stdout()
    console.print(text, markup=False)
