"""`nodewright assets`: have the control plane's binaries ready before they are needed."""

from __future__ import annotations

from typing import Annotated

import typer

from nodewright.cli.output import USAGE, CliError, Format, RichProgress, emit, print_table
from nodewright.controlplane import versions
from nodewright.controlplane.assets import Assets

DEFAULTS = ["etcd", "kube-apiserver", "kube-controller-manager", "kubectl"]


def command(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Which; all that `up` needs.")] = None,
    output: Annotated[Format, typer.Option("--output", "-o", help="Output format.")] = Format.TABLE,
) -> None:
    """Find, download or build the control plane's binaries (or kind, helm, helm4) and say where each is."""
    for name in names or ():
        if name not in versions.KNOWN:
            raise CliError(f"{name} is none of the binaries", f"known: {', '.join(versions.KNOWN)}", USAGE)
    found = Assets().obtain(names or DEFAULTS, RichProgress())
    if output is Format.TABLE:
        print_table(["name", "path"], [[name, str(path)] for name, path in found.items()])
    else:
        emit({name: str(path) for name, path in found.items()}, output)
