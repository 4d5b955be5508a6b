"""Which cluster a verb asks, and the manifests that it is given: shared by `explain` and `simulate`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nodewright.cli.options import DEFAULT, existing_layout, layout_of
from nodewright.cli.output import USAGE, CliError

if TYPE_CHECKING:
    from nodewright.kube.config import Config
    from nodewright.scheduler.simulation.documents import Document

Kubeconfig = Annotated[Path | None, typer.Option("--kubeconfig", metavar="FILE", help="The cluster to ask.")]
ClusterName = Annotated[
    str | None, typer.Option("--name", envvar="NODEWRIGHT_CLUSTER", metavar="NAME", help="A local cluster's name.")
]
All = Annotated[bool, typer.Option("--all", help="Show every row of the tables.")]

_SUFFIXES = (".yaml", ".yml", ".json")


def config_of(kubeconfig: Path | None, cluster: str | None, state_dir: Path | None) -> Config:
    """The file named, the local cluster named, $KUBECONFIG, the default local cluster, or what kubectl would use."""
    from nodewright.kube.config import load

    if kubeconfig is None and (cluster is not None or not os.environ.get("KUBECONFIG")):
        layout = layout_of(DEFAULT, state_dir) if cluster is None else existing_layout(cluster, state_dir)
        local = layout.kubeconfig("admin")
        kubeconfig = local if local.exists() else None
    return load(kubeconfig)


def read_documents(path: Path) -> list[Document]:
    """The objects of a file, of all manifests of a folder, or of standard input for `-`."""
    from nodewright.scheduler.simulation.documents import ManifestError, read

    try:
        if str(path) == "-":
            return read(sys.stdin.read(), "standard input")
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES)
            return [document for file in files for document in read(file.read_text(), str(file))]
        return read(path.read_text(), str(path))
    except FileNotFoundError as error:
        raise CliError(f"{path}: no such file", exit_code=USAGE) from error
    except UnicodeDecodeError as error:
        raise CliError(f"{path}: not text: {error.reason} at byte {error.start}", exit_code=USAGE) from error
    except ManifestError as error:
        raise CliError(str(error), exit_code=USAGE) from error
