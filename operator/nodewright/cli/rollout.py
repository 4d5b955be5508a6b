"""`nodewright rollout`: follow, look back at, undo, pause, resume and restart rollouts of DaemonSets of both kinds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from nodewright.cli.daemonsettarget import ApiOption, Chosen, Namespace, Words, choose, parse
from nodewright.cli.durations import patience
from nodewright.cli.options import Output, StateDir
from nodewright.cli.output import TIMED_OUT, CliError, Format, emit, stderr
from nodewright.cli.target import ClusterName, Kubeconfig, config_of

if TYPE_CHECKING:
    from nodewright.controllers.daemonset.model import Revision
    from nodewright.controllers.daemonset.outside import Recorded

R = TypeVar("R")

# How often an undo is tried where somebody else changes the spec at the same time.
_TRIES = 5
_UPSTREAM = (
    "kube-controller-manager wrote the status of this DaemonSet last. While it serves it, pausing has no effect; with "
    "nodewright operator --take-over apps/v1 it has."
)

app = typer.Typer(no_args_is_help=True, help="Manage the rollout of a DaemonSet.")


@app.callback()
def _root() -> None:
    """Manage the rollout of a DaemonSet, of nodewright.dev or of apps/v1."""


def _run(
    words: list[str],
    namespace: str | None,
    api: Any,
    cluster: tuple[Path | None, str | None, Path | None],
    act: Callable[[Chosen], Awaitable[R]],
) -> R:
    """Find the DaemonSet and do something with it."""
    target = parse(words, namespace, api)
    config = config_of(*cluster)

    async def work() -> R:
        from nodewright.cli.rolloutchanges import Refused

        async with choose(config, target) as chosen:
            try:
                return await act(chosen)
            except Refused as error:
                raise chosen.refused(str(error), error.hint) from None

    return asyncio.run(work())


@app.command("status")
def status(
    words: Words,
    namespace: Namespace = None,
    api: ApiOption = None,
    watch: Annotated[bool, typer.Option("--watch/--no-watch", "-w", help="Wait for the end of the rollout.")] = True,
    timeout: Annotated[
        str, typer.Option("--timeout", metavar="DURATION", help="Give up after so long (as 90s or 5m); 0s is never.")
    ] = "0s",
    kubeconfig: Kubeconfig = None,
    cluster: ClusterName = None,
    state_dir: StateDir = None,
) -> None:
    """Show how a rollout goes until it is done, and what it waits for.

    Exit code 0: rolled out; 1: it failed, was rolled back or exceeded its deadline; 3: it is paused; 4: timeout. With
    --no-watch, 0 also while it goes on.
    """
    limit = patience(timeout, "--timeout")

    async def act(chosen: Chosen) -> int:
        from nodewright.cli.rolloutprogress import Follower

        follower = Follower(chosen, lambda line: print(line, flush=True))
        try:
            async with asyncio.timeout(limit):
                return await (follower.follow() if watch else follower.look())
        except TimeoutError:
            raise CliError("timed out waiting for the condition", exit_code=TIMED_OUT) from None

    code = _run(words, namespace, api, (kubeconfig, cluster, state_dir), act)
    if code:
        raise typer.Exit(code)


@app.command("history")
def history(
    words: Words,
    namespace: Namespace = None,
    api: ApiOption = None,
    revision: Annotated[int, typer.Option("--revision", min=0, metavar="N", help="Show this one's template.")] = 0,
    kubeconfig: Kubeconfig = None,
    cluster: ClusterName = None,
    state_dir: StateDir = None,
    output: Output = Format.TABLE,
) -> None:
    """Show the revisions of a DaemonSet: their causes, hashes, images and how many pods carry them.

    `current` is the revision that was rolled out to its end last, `update` the one that holds today's template. With
    --revision N, the template itself and what is different in today's.
    """

    async def act(chosen: Chosen) -> None:
        from nodewright.controllers.daemonset.lookup import own_history, own_pods

        recorded = await own_history(chosen.client, chosen.ds)
        if revision:
            _show_revision(chosen, recorded, revision, output)
            return
        claimed = (await own_pods(chosen.client, chosen.ds)).claimed
        _show_history(chosen, recorded, [*claimed.mine, *claimed.adopt], output)

    _run(words, namespace, api, (kubeconfig, cluster, state_dir), act)


def _show_history(chosen: Chosen, recorded: list[Recorded], pods: list[Any], output: Format) -> None:
    from nodewright.cli.rollouttables import entries, print_history
    from nodewright.kube.times import now

    found = entries(chosen.ds, recorded, pods)
    if output is not Format.TABLE:
        emit(found, output)
    elif not found:
        print("No rollout history found.")
    else:
        print_history(chosen.title, found, now())


def _show_revision(chosen: Chosen, recorded: list[Recorded], number: int, output: Format) -> None:
    import msgspec

    from nodewright.cli.rollouttables import difference, template_text
    from nodewright.controllers.daemonset.revisions import template_of

    found = next((each.revision for each in recorded if each.revision.revision == number), None)
    if found is None:
        raise CliError("unable to find the specified revision", "without --revision all are listed")
    template = template_of(found) or {}
    if output is not Format.TABLE:
        emit(template, output)
        return
    print(f"{chosen.title} with revision #{number}")
    print(template_text(template), end="")
    today = msgspec.json.decode(chosen.ds.spec.template)
    print(difference(template, today, f"revision {number}", "today") or "\nThis is today's template.", end="\n")


@app.command("undo")
def undo(
    words: Words,
    namespace: Namespace = None,
    api: ApiOption = None,
    to_revision: Annotated[
        int, typer.Option("--to-revision", min=0, metavar="N", help="Which one; 0: the one before today's.")
    ] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change; the server checks it.")] = (
        False
    ),
    kubeconfig: Kubeconfig = None,
    cluster: ClusterName = None,
    state_dir: StateDir = None,
) -> None:
    """Go back to an earlier template."""

    async def act(chosen: Chosen) -> None:
        from nodewright.cli import rolloutchanges as changes
        from nodewright.controllers.daemonset.lookup import own_history
        from nodewright.controllers.daemonset.model import DaemonSet
        from nodewright.controllers.daemonset.revisions import holds_template

        for last in [False] * (_TRIES - 1) + [True]:
            recorded = await own_history(chosen.client, chosen.ds)
            revision = changes.undo_target(chosen.ds, [each.revision for each in recorded], to_revision)
            patch = changes.undo(chosen.ds, revision)
            if holds_template(chosen.ds, revision):
                print(
                    f"{chosen.title} skipped rollback (current template already matches revision {revision.revision})"
                )
                return
            if await _put_back(chosen, patch, last, dry_run):
                _tell_undone(chosen, revision, dry_run)
                return
            meta = chosen.ds.metadata
            fresh = await chosen.client.get(chosen.kind.resource, meta.name, meta.namespace, type=DaemonSet)
            chosen = chosen._replace(ds=fresh)

    _run(words, namespace, api, (kubeconfig, cluster, state_dir), act)


async def _put_back(chosen: Chosen, patch: list[dict[str, Any]], last: bool, dry_run: bool) -> bool:
    """Send the patch; False where the spec has changed since it was read, and another try is left."""
    from nodewright.kube.client import PatchType
    from nodewright.kube.codec import encode
    from nodewright.kube.errors import Conflict, Invalid

    meta = chosen.ds.metadata
    path = chosen.kind.resource.path(meta.namespace, meta.name)
    params = {"dryRun": "All"} if dry_run else None
    try:
        await chosen.client.request("PATCH", path, params=params, body=encode(patch), content_type=PatchType.JSON.value)
    except (Conflict, Invalid) as error:
        is_test = isinstance(error, Conflict) or not error.causes
        if last or not is_test:
            raise
        return False
    return True


def _tell_undone(chosen: Chosen, revision: Revision, dry_run: bool) -> None:
    import msgspec

    from nodewright.cli.rollouttables import difference
    from nodewright.controllers.daemonset.revisions import template_of

    if dry_run:
        today = msgspec.json.decode(chosen.ds.spec.template)
        print(difference(today, template_of(revision) or {}, "today", f"revision {revision.revision}"), end="")
    print(f"{chosen.title} rolled back{' (server dry run)' if dry_run else ''}")


@app.command("pause")
def pause(
    words: Words,
    namespace: Namespace = None,
    api: ApiOption = None,
    kubeconfig: Kubeconfig = None,
    cluster: ClusterName = None,
    state_dir: StateDir = None,
) -> None:
    """Let a rollout stand still. Pods that are missing are still made, each with the template that its node had."""

    async def act(chosen: Chosen) -> None:
        from nodewright.cli import rolloutchanges as changes
        from nodewright.controllers.daemonset.outside import is_upstreams

        await _merge(chosen, changes.pause(chosen.kind, chosen.ds))
        print(f"{chosen.title} paused")
        if is_upstreams(chosen.kind, chosen.ds):
            stderr().print(f"warning: {_UPSTREAM}", markup=False)

    _run(words, namespace, api, (kubeconfig, cluster, state_dir), act)


@app.command("resume")
def resume(
    words: Words,
    namespace: Namespace = None,
    api: ApiOption = None,
    kubeconfig: Kubeconfig = None,
    cluster: ClusterName = None,
    state_dir: StateDir = None,
) -> None:
    """Let a rollout go on that is paused, waits for a person at a step, or was stopped by failures."""

    async def act(chosen: Chosen) -> None:
        from nodewright.cli import rolloutchanges as changes

        patch, done = changes.resume(chosen.kind, chosen.ds)
        await _merge(chosen, patch)
        print(f"{chosen.title} resumed: {'; '.join(done)}")

    _run(words, namespace, api, (kubeconfig, cluster, state_dir), act)


@app.command("restart")
def restart(
    words: Words,
    namespace: Namespace = None,
    api: ApiOption = None,
    kubeconfig: Kubeconfig = None,
    cluster: ClusterName = None,
    state_dir: StateDir = None,
) -> None:
    """Replace all pods, as a rollout of the same template."""

    async def act(chosen: Chosen) -> None:
        from nodewright.cli import rolloutchanges as changes
        from nodewright.kube.times import now_rfc3339

        await _merge(chosen, changes.restart(chosen.ds, now_rfc3339()))
        print(f"{chosen.title} restarted")

    _run(words, namespace, api, (kubeconfig, cluster, state_dir), act)


async def _merge(chosen: Chosen, patch: dict[str, Any]) -> None:
    """Send a merge patch to the very DaemonSet that was read."""
    from nodewright.kube.objects import PartialObject

    meta = chosen.ds.metadata
    body = {**patch, "metadata": {**patch.get("metadata", {}), "uid": meta.uid}}
    await chosen.client.patch(chosen.kind.resource, meta.name, body, meta.namespace, type=PartialObject)
