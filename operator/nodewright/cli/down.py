"""`nodewright down`: stop a cluster, with --purge without a trace."""

from __future__ import annotations

from typing import Annotated

import typer

from nodewright.cli.options import DEFAULT, Name, StateDir, layout_of
from nodewright.cli.output import PRECONDITION, CliError, RichProgress
from nodewright.controlplane.cluster import lock, remove_data, stop


def command(
    name: Name = DEFAULT,
    purge: Annotated[
        bool, typer.Option("--purge", help="Remove its data too, and every host object that it made.")
    ] = False,
    state_dir: StateDir = None,
) -> None:
    """Stop the cluster; `nodewright up` resumes it with all its objects. With --purge nothing of it is left.

    Containers end with their node hosts, as when a machine is switched off.
    """
    layout = layout_of(name, state_dir)
    if not layout.dir.exists():
        if purge:
            return  # it is as the user wants it
        raise CliError(f"there is no cluster {name} below {layout.root}", "see `nodewright status`", PRECONDITION)
    progress = RichProgress()
    with lock(layout, lambda: progress.console.print("waiting for another command on this cluster…")):
        with progress.step("stopping") as step:
            stopped = stop(layout, step.update)
            step.result(", ".join(stopped) if stopped else "nothing was running")
        if layout.node("").exists():
            from nodewright.cli import localnodes

            localnodes.stop_hosts(layout, progress)
        if purge:
            with progress.step("removing data") as step:
                remove_data(layout)
                step.result(str(layout.dir))
