"""`nodewright kubectl ...`: kubectl of the cluster's version, pointed at the cluster."""

from __future__ import annotations

import os

import typer

from nodewright.cli.options import DEFAULT, Name, StateDir, layout_of
from nodewright.cli.output import PRECONDITION, CliError, RichProgress
from nodewright.controlplane.assets import Assets
from nodewright.controlplane.cluster import LocalCluster


def command(context: typer.Context, name: Name = DEFAULT, state_dir: StateDir = None) -> None:
    """Run kubectl against the cluster. Everything from the first argument of kubectl's own on is passed through."""
    cluster = LocalCluster.load(layout_of(name, state_dir))
    if not cluster.kubeconfig.exists():
        raise CliError(f"the cluster {name} has no kubeconfig yet", "run `nodewright up` again", PRECONDITION)
    binary = Assets().obtain(["kubectl"], RichProgress())["kubectl"]
    # replaces this process: signals, terminals and exit codes are kubectl's own
    os.execve(binary, ["kubectl", *context.args], {**os.environ, "KUBECONFIG": str(cluster.kubeconfig)})
