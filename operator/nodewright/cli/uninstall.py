"""`nodewright uninstall`: take Nodewright's nodes out of a cluster, before Helm deletes the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nodewright.cli.output import stdout


def command(
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", metavar="NAMESPACE", help="Where Nodewright is installed.")
    ] = "nodewright-system",
    release: Annotated[
        str, typer.Option("--release", metavar="NAME", help="What the names of the chart's objects begin with.")
    ] = "nodewright",
    daemonset: Annotated[
        list[str] | None,
        typer.Option("--daemonset", metavar="NAME", help="To delete; default: RELEASE-agent and RELEASE-proxy."),
    ] = None,
    cleanup_daemonset: Annotated[
        str | None,
        typer.Option("--cleanup-daemonset", metavar="NAME", help='Waited for; default: RELEASE-cleanup; "": none.'),
    ] = None,
    node_selector: Annotated[
        str, typer.Option("--node-selector", metavar="SELECTOR", help="Labels of the Nodes that agents registered.")
    ] = "nodewright.dev/agent=true",
    timeout: Annotated[float, typer.Option("--timeout", metavar="SECONDS", help="For all of it.")] = 300.0,
    kubeconfig: Annotated[
        Path | None, typer.Option("--kubeconfig", metavar="FILE", help="How to reach the API server.")
    ] = None,
) -> None:
    """End the Pods on Nodewright's nodes, delete agents and proxies, wait until the hosts are clean, delete the Nodes.

    Other Pods and nodes are left alone. Can be repeated. Exit code 4 when it takes too long (the output says what).
    """
    import asyncio
    import logging

    from nodewright.cli.uninstalling import Uninstaller
    from nodewright.kube import logs
    from nodewright.kube.client import Client
    from nodewright.kube.config import load

    logs.setup(logging.WARNING)
    console = stdout()
    names = daemonset if daemonset is not None else [f"{release}-agent", f"{release}-proxy"]
    cleanup = cleanup_daemonset if cleanup_daemonset is not None else f"{release}-cleanup"

    async def run() -> None:
        async with Client(load(kubeconfig), user_agent="nodewright-uninstall") as client:
            uninstaller = Uninstaller(client, namespace, timeout, lambda text: console.print(text, markup=False))
            await uninstaller.run(node_selector, names, cleanup)

    asyncio.run(run())
