"""`nodewright explain pod`: why the scheduler puts a Pod where it is, or nowhere."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nodewright.cli.options import DEFAULT, Output, StateDir, existing_layout, layout_of
from nodewright.cli.output import USAGE, CliError, Format, emit, print_table, stdout

if TYPE_CHECKING:
    from nodewright.kube.config import Config
    from nodewright.scheduler.explain import Explanation, NodeVerdict

app = typer.Typer(no_args_is_help=True, help="Say why something was decided.")


@app.callback()
def _root() -> None:
    """Say why the scheduler put a Pod where it is, or nowhere."""


@app.command("pod")
def pod(
    name: Annotated[str | None, typer.Argument(metavar="[NAMESPACE/]NAME", help="The Pod.")] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", metavar="FILE", help="A Pod that need not exist; - for standard input."),
    ] = None,
    kubeconfig: Annotated[Path | None, typer.Option("--kubeconfig", metavar="FILE", help="The cluster to ask.")] = None,
    cluster: Annotated[
        str | None, typer.Option("--name", envvar="NODEWRIGHT_CLUSTER", metavar="NAME", help="A local cluster's name.")
    ] = None,
    state_dir: StateDir = None,
    output: Output = Format.TABLE,
) -> None:
    """Per node: the first filter that rejected it and why, else each plugin's score and the total.

    Works for pending and for bound Pods (as if they were placed anew), and with -f for Pods that do not exist.
    """
    if (name is None) == (file is None):
        raise CliError("name a Pod, or a file with -f", "nodewright explain pod default/web-0", USAGE)
    manifest = None if file is None else _manifest(file)
    config = _config(kubeconfig, cluster, state_dir)
    explanation = asyncio.run(_explain(config, name, manifest))
    if output is Format.TABLE:
        _print(explanation)
    else:
        emit(explanation, output)


def _config(kubeconfig: Path | None, cluster: str | None, state_dir: Path | None) -> Config:
    """The file named, the local cluster named, $KUBECONFIG, the default local cluster, or what kubectl would use."""
    from nodewright.kube.config import load

    if kubeconfig is None and (cluster is not None or not os.environ.get("KUBECONFIG")):
        layout = layout_of(DEFAULT, state_dir) if cluster is None else existing_layout(cluster, state_dir)
        local = layout.kubeconfig("admin")
        kubeconfig = local if local.exists() else None
    return load(kubeconfig)


def _manifest(file: Path) -> dict[str, Any]:
    import yaml

    where = "standard input" if str(file) == "-" else str(file)
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text()
        documents = [d for d in yaml.safe_load_all(text) if d]
    except FileNotFoundError as error:
        raise CliError(f"{file}: no such file", exit_code=USAGE) from error
    except yaml.YAMLError as error:
        raise CliError(f"{where}: {error}", exit_code=USAGE) from error
    pods = [d for d in documents if isinstance(d, dict) and d.get("kind") == "Pod"]
    if len(pods) != 1:
        raise CliError(f"{where}: expected one object of kind Pod, found {len(pods)}", exit_code=USAGE)
    return pods[0]


async def _explain(config: Config, name: str | None, manifest: dict[str, Any] | None) -> Explanation:
    from nodewright.kube.client import Client
    from nodewright.kube.errors import NotFound
    from nodewright.kube.resources import PODS
    from nodewright.scheduler.live import hypothetical, read_cluster, read_profile
    from nodewright.scheduler.objects import Pod
    from nodewright.scheduler.plugin import PluginError

    async with Client(config) as client:
        if manifest is not None:
            found = await hypothetical(client, manifest, config.namespace)
        else:
            namespace, _, short = (name or "").rpartition("/")
            try:
                found = await client.get(PODS, short, namespace or config.namespace, type=Pod)
            except NotFound as error:
                raise CliError(str(error), "give the namespace too: nodewright explain pod NAMESPACE/NAME") from error
        if found.status.phase in ("Succeeded", "Failed"):
            raise CliError(f"pod {found.key} has ended ({found.status.phase}); it is not scheduled again")
        profile, _ = await read_profile(client, found.spec.scheduler_name)
        picture = await read_cluster(client)
    try:
        return picture.explain(profile, found)
    except PluginError as error:
        raise CliError(str(error), "this is what the Pod's FailedScheduling event says too") from error


def _print(explanation: Explanation) -> None:
    console = stdout()
    console.print(
        f"Pod {explanation.pod}: {explanation.state} (schedulerName {explanation.scheduler_name})", markup=False
    )
    if explanation.message:
        console.print(explanation.message, markup=False)
    scoring = list(dict.fromkeys(name for v in explanation.nodes for name in v.scores))
    rejected = any(not v.fits for v in explanation.nodes)
    columns = ["node", "fits", *(["total", *scoring] if scoring else []), *(["filter", "reason"] if rejected else [])]
    rows = [_row(v, scoring, rejected) for v in explanation.nodes]
    if rows:
        console.print()
        print_table(columns, rows)


def _row(verdict: NodeVerdict, scoring: list[str], rejected: bool) -> list[str]:
    marks = "".join((" (bound)" if verdict.bound else "", " *" if verdict.best else ""))
    row = [verdict.node + marks, "yes" if verdict.fits else "no"]
    if scoring:
        row.append("" if verdict.total is None else str(verdict.total))
        for name in scoring:
            score = verdict.scores.get(name)
            row.append("" if score is None else f"{score.normalized}×{score.weight}")
    if rejected:
        row += [verdict.plugin, ", ".join(verdict.reasons)]
    return row
