"""`nodewright simulate`: where Pods would go, on a live cluster or a dump of one, changing nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nodewright.cli.options import Output, StateDir
from nodewright.cli.output import PRECONDITION, USAGE, CliError, Format, emit
from nodewright.cli.target import All, ClusterName, Kubeconfig, config_of, read_documents

if TYPE_CHECKING:
    from nodewright.kube.client import Client
    from nodewright.kube.config import Config
    from nodewright.scheduler.simulation.documents import Document
    from nodewright.scheduler.simulation.scenario import Scenario
    from nodewright.scheduler.simulation.snapshot import Snapshot

ROWS = 20
_AT_ONCE = 16

_FILES_HELP = (
    "Manifests, several times if need be: Pods and what makes Pods are tried, Nodes, claims and the like are added to "
    "the picture; a folder, or - for standard input."
)
_DUMP_HELP = (
    "A picture of the cluster instead of a live one: what --save-dump wrote, or what kubectl get nodes,pods,... -A "
    "-o yaml prints."
)


def command(
    files: Annotated[list[Path] | None, typer.Option("--file", "-f", metavar="FILE", help=_FILES_HELP)] = None,
    dump: Annotated[Path | None, typer.Option("--dump", metavar="FILE", help=_DUMP_HELP)] = None,
    save_dump: Annotated[
        Path | None,
        typer.Option("--save-dump", metavar="FILE", help="Write the picture of the cluster (.yaml or .json)."),
    ] = None,
    schedule_pending: Annotated[
        bool, typer.Option("--schedule-pending", help="Try the Pods that wait in the cluster too, before the others.")
    ] = False,
    nodes: Annotated[
        int, typer.Option("--nodes", min=0, max=100_000, metavar="N", help="Add N copies of the node --node-template.")
    ] = 0,
    node_template: Annotated[
        str | None, typer.Option("--node-template", metavar="NODE", help="A node of the cluster or of the files.")
    ] = None,
    kubeconfig: Kubeconfig = None,
    cluster: ClusterName = None,
    state_dir: StateDir = None,
    everything: All = False,
    output: Output = Format.TABLE,
) -> None:
    """Run the scheduler on a picture of a cluster: which Pod goes where, what stays pending and why, who is evicted.

    Nothing is changed; a live cluster is only read and asked what it would make of the Pods (dry runs). Exit code 3:
    some Pods stay pending.
    """
    documents = [document for file in files or [] for document in read_documents(file)]
    if not files and not schedule_pending and save_dump is None:
        hint = "nodewright simulate -f pods.yaml; --schedule-pending tries the Pods that wait in the cluster"
        raise CliError("nothing to do: no -f, no --schedule-pending, no --save-dump", hint, USAGE)
    if (nodes > 0) != (node_template is not None):
        raise CliError("--nodes and --node-template go together", "--nodes 3 --node-template worker-1", USAGE)
    pictured = read_documents(dump) if dump is not None else None
    config = None if dump is not None else config_of(kubeconfig, cluster, state_dir)
    from nodewright.scheduler.simulation.documents import ManifestError

    try:
        scenario = asyncio.run(_prepare(config, pictured, documents, save_dump, nodes, node_template))
        if not files and not schedule_pending:
            return
        result = scenario.run(schedule_pending=schedule_pending)
    except ManifestError as error:
        raise CliError(str(error), exit_code=USAGE) from error
    if output is Format.TABLE:
        from nodewright.cli.simulatetables import print_result

        print_result(result, None if everything else ROWS)
    else:
        emit(result, output)
    if result.pending:
        raise typer.Exit(PRECONDITION)


async def _prepare(
    config: Config | None,
    pictured: list[Document] | None,
    documents: list[Document],
    save_dump: Path | None,
    nodes: int,
    node_template: str | None,
) -> Scenario:
    from nodewright.kube.client import Client
    from nodewright.scheduler.simulation import snapshot

    if config is None:
        picture = snapshot.from_documents(pictured or [])
        _save(picture, save_dump)
        scenario = _scenario(picture, documents, "default", nodes, node_template)
        for one in scenario.workloads:
            scenario.fill_offline(one)
        return scenario
    async with Client(config, user_agent="nodewright-simulate") as client:
        picture = await snapshot.from_cluster(client)
        _save(picture, save_dump)
        scenario = _scenario(picture, documents, config.namespace, nodes, node_template)
        await _ask(client, scenario)
        return scenario


def _scenario(
    picture: Snapshot, documents: list[Document], namespace: str, nodes: int, node_template: str | None
) -> Scenario:
    from nodewright.scheduler.simulation.scenario import Scenario

    scenario = Scenario(picture, documents, namespace)
    if node_template is not None:
        scenario.add_nodes(nodes, node_template)
    return scenario


async def _ask(client: Client, scenario: Scenario) -> None:
    """Let the API server fill in the defaults of one Pod of each workload, by dry runs."""
    from nodewright.kube.errors import ApiError
    from nodewright.scheduler.live import dry_run
    from nodewright.scheduler.simulation.workloads import Workload

    room = asyncio.Semaphore(_AT_ONCE)

    async def ask(one: Workload) -> None:
        if missing := scenario.stranger(one):
            scenario.fill_offline(one)
            scenario.notes.append(f"{one.title}: defaults are our own, as the cluster has no {missing}")
            return
        async with room:
            try:
                scenario.fill(one, await dry_run(client, one.first(), one.namespace))
            except ApiError as error:
                raise CliError(f"{one.document.place}: {error}", "the API server refuses this Pod") from error

    try:
        async with asyncio.TaskGroup() as group:
            for one in scenario.workloads:
                group.create_task(ask(one))
    except* (ValueError, CliError, ApiError) as errors:
        raise _first(errors) from None


def _first(group: BaseExceptionGroup[Exception]) -> Exception:
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    assert isinstance(found, Exception)
    return found


def _save(picture: Snapshot, file: Path | None) -> None:
    if file is None:
        return
    import msgspec

    if file.suffix in (".yaml", ".yml"):
        import yaml

        dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
        text = yaml.dump(picture.dump(), Dumper=dumper, sort_keys=False, allow_unicode=True)
    else:
        text = msgspec.json.format(msgspec.json.encode(picture.dump()), indent=1).decode() + "\n"
    file.write_text(text)
