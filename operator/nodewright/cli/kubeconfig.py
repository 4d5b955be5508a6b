"""`nodewright kubeconfig`: the administrator's kubeconfig, or its path."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from nodewright.cli.options import DEFAULT, Name, StateDir, layout_of
from nodewright.cli.output import PRECONDITION, CliError
from nodewright.controlplane.cluster import LocalCluster


def command(
    name: Name = DEFAULT,
    state_dir: StateDir = None,
    path: Annotated[bool, typer.Option("--path", help="Print where the file is instead of its content.")] = False,
) -> None:
    """Print the cluster's kubeconfig (administrator), or with --path where it is.

    Example: export KUBECONFIG=$(nodewright kubeconfig --path)
    """
    cluster = LocalCluster.load(layout_of(name, state_dir))
    if not cluster.kubeconfig.exists():
        raise CliError(f"the cluster {name} has no kubeconfig yet", "run `nodewright up` again", PRECONDITION)
    if path:
        print(cluster.kubeconfig)
    else:
        sys.stdout.write(cluster.kubeconfig.read_text())
