"""Options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nodewright.cli.output import Format
from nodewright.controlplane import state
from nodewright.controlplane.layout import Layout, state_root
from nodewright.controlplane.slots import DEFAULT_NAME, check_name

Name = Annotated[str, typer.Option("--name", envvar="NODEWRIGHT_CLUSTER", metavar="NAME", help="The cluster's name.")]
StateDir = Annotated[
    Path | None,
    typer.Option(
        "--state-dir",
        metavar="DIR",
        # Round brackets: square ones are markup in help texts, and vanish.
        help="Where clusters are kept (env: NODEWRIGHT_STATE_DIR; default: /var/lib/nodewright for root, "
        "else below XDG_STATE_HOME).",
    ),
]
Output = Annotated[Format, typer.Option("--output", "-o", help="Output format.")]

DEFAULT = DEFAULT_NAME


def layout_of(name: str, state_dir: Path | None) -> Layout:
    """The paths of the cluster that the options name."""
    return Layout(state_root(state_dir), check_name(name))


def existing_layout(name: str, state_dir: Path | None) -> Layout:
    """The paths of a cluster that exists; PreconditionError when it does not."""
    layout = layout_of(name, state_dir)
    state.require(layout)
    return layout
