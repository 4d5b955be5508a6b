"""`nodewright agent`: make this host a Node."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from nodewright.cli.component import Component, Option
from nodewright.cli.output import PRECONDITION, USAGE, CliError


@dataclass(frozen=True)
class Options:
    """Run the Pods that are bound to this node, and keep its Node object, until stopped.

    Stopping the agent leaves its Pods running; the next one goes on with them.
    """

    config: Annotated[Path | None, Option("--config", metavar="FILE", help="Settings of the agent, YAML or JSON.")] = (
        None
    )
    kubeconfig: Annotated[
        Path | None, Option("--kubeconfig", metavar="FILE", help="How to reach the API server as this node.")
    ] = None
    node_name: Annotated[
        str | None, Option("--node-name", metavar="NAME", help="The Node's name (default: this host's name).")
    ] = None
    host_node_name: Annotated[
        str | None,
        Option("--host-node-name", metavar="NAME", help="The Node of the kubelet on this host, if there is one."),
    ] = None
    node_ip: Annotated[
        str | None, Option("--node-ip", metavar="IP", help="The Node's address (default: the outgoing one).")
    ] = None
    endpoint: Annotated[
        str | None,
        Option(
            "--container-runtime-endpoint",
            metavar="ENDPOINT",
            help="Another runtime's CRI socket that runs the containers, such as unix:///run/containerd/containerd.sock.",
        ),
    ] = None
    verbose: Annotated[int, Option("-v", "--verbose", count=True, help="Log more.")] = 0


def run(options: Options) -> None:
    """Run it; returns when it is told to end. Raises ``CliError``."""
    import asyncio
    import os

    from nodewright.kube import errors, logs
    from nodewright_agent import config as settings
    from nodewright_agent.main import run
    from nodewright_agent.runtime.errors import RuntimeUnavailable

    if os.geteuid() != 0:
        raise CliError("the node agent makes namespaces, mounts and cgroups", "run it as root", PRECONDITION)
    logs.setup(logging.DEBUG if options.verbose else logging.INFO)
    path = str(options.kubeconfig) if options.kubeconfig is not None else None
    try:
        loaded = settings.load(
            options.config,
            kubeconfig=path,
            node_name=options.node_name,
            host_node_name=options.host_node_name,
            node_ip=options.node_ip,
            container_runtime_endpoint=options.endpoint,
        )
        asyncio.run(run(loaded))
    except (settings.ConfigError, errors.ConfigError) as error:
        raise CliError(str(error), "correct the setting that the message names", USAGE) from error
    except RuntimeUnavailable as error:
        raise CliError(str(error), "`nodewright doctor` tells what this host lacks", PRECONDITION) from error


COMPONENT = Component(Options, run)
