"""`nodewright agent`: make this host a Node."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from nodewright.cli.output import PRECONDITION, USAGE, CliError


def command(
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="Settings of the agent, YAML or JSON.")
    ] = None,
    kubeconfig: Annotated[
        Path | None, typer.Option("--kubeconfig", metavar="FILE", help="How to reach the API server as this node.")
    ] = None,
    node_name: Annotated[
        str | None, typer.Option("--node-name", metavar="NAME", help="The Node's name [default: this host's name].")
    ] = None,
    host_node_name: Annotated[
        str | None,
        typer.Option("--host-node-name", metavar="NAME", help="The Node of the kubelet on this host, if there is one."),
    ] = None,
    node_ip: Annotated[
        str | None, typer.Option("--node-ip", metavar="IP", help="The Node's address [default: the outgoing one].")
    ] = None,
    verbose: Annotated[int, typer.Option("-v", "--verbose", count=True, help="Log more.")] = 0,
) -> None:
    """Run the Pods that are bound to this node, and keep its Node object, until stopped.

    Stopping the agent leaves its Pods running; the next one goes on with them.
    """
    import asyncio
    import os

    from nodewright.kube import errors, logs
    from nodewright_agent import config as settings
    from nodewright_agent.main import run
    from nodewright_agent.runtime.errors import RuntimeUnavailable

    if os.geteuid() != 0:
        raise CliError("the node agent makes namespaces, mounts and cgroups", "run it as root", PRECONDITION)
    logs.setup(logging.DEBUG if verbose else logging.INFO)
    # Each netlink message in full, several thousand lines per second: of use to nobody who asks for more of the agent.
    logging.getLogger("pyroute2").setLevel(logging.WARNING)
    path = str(kubeconfig) if kubeconfig is not None else None
    try:
        loaded = settings.load(
            config, kubeconfig=path, node_name=node_name, host_node_name=host_node_name, node_ip=node_ip
        )
        asyncio.run(run(loaded))
    except (settings.ConfigError, errors.ConfigError) as error:
        raise CliError(str(error), "correct the setting that the message names", USAGE) from error
    except RuntimeUnavailable as error:
        raise CliError(str(error), "`nodewright doctor` tells what this host lacks", PRECONDITION) from error
