"""`nodewright explain pod`: why the scheduler puts a Pod where it is, or nowhere. `explain daemonset` is beside it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nodewright.cli import explaindaemonset
from nodewright.cli.options import Output, StateDir
from nodewright.cli.output import USAGE, CliError, Format, emit
from nodewright.cli.target import All, ClusterName, Kubeconfig, config_of, read_documents

if TYPE_CHECKING:
    from nodewright.kube.config import Config
    from nodewright.scheduler.explain import Explanation
    from nodewright.scheduler.simulation.documents import Document

# Rows of each table without --all.
ROWS = 10

app = typer.Typer(no_args_is_help=True, help="Say why something was decided.")


@app.callback()
def _root() -> None:
    """Say why a Pod is where it is, or why nodes have or have not a Pod of a DaemonSet."""


app.command("daemonset")(explaindaemonset.command)


@app.command("pod")
def pod(
    name: Annotated[str | None, typer.Argument(metavar="[NAMESPACE/]NAME", help="The Pod.")] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file", "-f", metavar="FILE", help="A Pod, or what makes Pods, that need not exist; - for standard input."
        ),
    ] = None,
    kubeconfig: Kubeconfig = None,
    cluster: ClusterName = None,
    state_dir: StateDir = None,
    everything: All = False,
    output: Output = Format.TABLE,
) -> None:
    """Per node: what rejects the Pod and what is missing, nearest nodes first, else each plugin's score and the total.

    For a Pod that fits nowhere, also what preemption would evict. Works for pending and for bound Pods (as if they were
    placed anew), and with -f for Pods that do not exist: a Pod, or the template of a Deployment, StatefulSet, Job...
    """
    if (name is None) == (file is None):
        raise CliError("name a Pod, or a file with -f", "nodewright explain pod default/web-0", USAGE)
    document = None if file is None else _document(file)
    config = config_of(kubeconfig, cluster, state_dir)
    detailed = ROWS if output is Format.TABLE and not everything else None
    explanation = asyncio.run(_explain(config, name, document, detailed))
    if output is Format.TABLE:
        from nodewright.cli.explaintables import print_explanation

        print_explanation(explanation, None if everything else ROWS)
    else:
        emit(explanation, output)


def _document(file: Path) -> Document:
    from nodewright.scheduler.simulation.workloads import is_workload

    found = [document for document in read_documents(file) if is_workload(document)]
    if len(found) != 1:
        where = "standard input" if str(file) == "-" else str(file)
        what = "expected one object of kind Pod, or of a kind that makes Pods"
        raise CliError(f"{where}: {what}; found {len(found)}", exit_code=USAGE)
    return found[0]


async def _explain(config: Config, name: str | None, document: Document | None, detailed: int | None) -> Explanation:
    from nodewright.kube.client import Client
    from nodewright.kube.errors import NotFound
    from nodewright.kube.resources import PODS
    from nodewright.scheduler.live import hypothetical, read_cluster
    from nodewright.scheduler.objects import Pod
    from nodewright.scheduler.plugin import PluginError
    from nodewright.scheduler.simulation.documents import ManifestError
    from nodewright.scheduler.simulation.quantities import quantities_as_text
    from nodewright.scheduler.simulation.workloads import workload

    async with Client(config, user_agent="nodewright-explain") as client:
        if document is not None:
            try:
                quantities_as_text(document)
                found = await hypothetical(client, workload(document, config.namespace).first(), config.namespace)
            except ManifestError as error:
                raise CliError(str(error), exit_code=USAGE) from error
        else:
            namespace, _, short = (name or "").rpartition("/")
            try:
                found = await client.get(PODS, short, namespace or config.namespace, type=Pod)
            except NotFound as error:
                raise CliError(str(error), "give the namespace too: nodewright explain pod NAMESPACE/NAME") from error
        if found.status.phase in ("Succeeded", "Failed"):
            raise CliError(f"pod {found.key} has ended ({found.status.phase}); it is not scheduled again")
        picture, profiles = await read_cluster(client, [found.spec.scheduler_name])
    try:
        return picture.explain(profiles[found.spec.scheduler_name], found, detailed=detailed)
    except PluginError as error:
        raise CliError(str(error), "this is what the Pod's FailedScheduling event says too") from error
