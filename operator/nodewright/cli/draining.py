"""Draining a node: cordon it, mark it, evict what may be evicted, and see to it that all of it is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Any

import msgspec

from nodewright.cli.drainplan import DrainPlan, Rules, names, plan
from nodewright.cli.output import PRECONDITION, TIMED_OUT, CliError
from nodewright.controllers.daemonset.drain import LEAVE_LAST
from nodewright.controllers.daemonset.owntaints import DRAIN_TAINT
from nodewright.kube.backoff import Backoff
from nodewright.kube.cache import WatchCache
from nodewright.kube.client import Client
from nodewright.kube.errors import Conflict, NotFound, TooManyRequests
from nodewright.kube.objects import Pod
from nodewright.kube.resources import DAEMONSETS, NODES, PODS

_HEARTBEAT = 15.0  # seconds without news until those that are waited for are named again
_RETRY_FIRST, _RETRY_MOST = 1.0, 10.0  # seconds between tries of an eviction that a budget forbids

Say = Callable[[str], None]
Node = dict[str, Any]


class DrainOptions(msgspec.Struct, frozen=True):
    """What the user wants. `grace_period` below zero: each Pod's own; `timeout` None: without end (seconds)."""

    force: bool = False
    delete_emptydir_data: bool = False
    grace_period: int = -1
    timeout: float | None = None
    dry_run: bool = False


class Drainer:
    """One drain of one node. Every step finds out by itself what is left to do, so a second run goes on."""

    def __init__(self, client: Client, node: str, options: DrainOptions, say: Say) -> None:
        """`say` gets what has happened, line by line."""
        self._client, self._node, self._options, self._say = client, node, options, say
        self._evicting: dict[str, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Drain. Raises CliError where Pods forbid it or time runs out, ApiError where the server refuses."""
        rules = Rules(self._options.force, self._options.delete_emptydir_data, await self._leaving())
        found = await self._client.list(PODS, type=Pod, field_selector=f"spec.nodeName={self._node}")
        first = plan(found.items, rules)
        if first.refused:
            # Nothing has been touched yet.
            raise self._refusal(first)
        await self._mark()
        for what, pods in first.warned.items():
            self._say(f"Warning: deleting {what}: {names(pods)}")
        if first.stay:
            self._say(f"Warning: ignoring DaemonSet-managed Pods: {names(first.stay)}")
        if self._options.dry_run:
            self._tell(first)
        else:
            await self._empty(rules)
        self._say(f"node/{self._node} drained{self._dry}")

    @property
    def _dry(self) -> str:
        return " (dry run)" if self._options.dry_run else ""

    def _tell(self, found: DrainPlan) -> None:
        for pod in found.evict:
            self._say(f"evicting pod {pod.key} (dry run)")
        for pod in sorted(found.leave_last, key=_priority):
            self._say(f"pod {pod.key} leaves last, with priority {_priority(pod)} (dry run)")

    async def _leaving(self) -> Collection[str]:
        """UIDs of the DaemonSets whose Pods leave last; none in a cluster that has not our kinds."""
        try:
            found = await self._client.list(DAEMONSETS)
        except NotFound:
            return frozenset()
        return {ds["metadata"]["uid"] for ds in found.items if ds["spec"].get("nodeDrain") == LEAVE_LAST}

    def _refusal(self, found: DrainPlan) -> CliError:
        reasons = "; ".join(f"cannot delete {reason}: {names(pods)}" for reason, pods in found.refused.items())
        return CliError(f"unable to drain node {self._node}: {reasons}", exit_code=PRECONDITION)

    async def _mark(self) -> None:
        """Cordon the node, and say by a taint that it is being drained."""
        was_cordoned = False

        def change(node: Node) -> Node | None:
            nonlocal was_cordoned
            spec = node.get("spec") or {}
            taints = spec.get("taints") or []
            was_cordoned = bool(spec.get("unschedulable"))
            if was_cordoned and any(taint["key"] == DRAIN_TAINT for taint in taints):
                return None
            others = [taint for taint in taints if taint["key"] != DRAIN_TAINT]
            return {"unschedulable": True, "taints": [*others, {"key": DRAIN_TAINT, "effect": "NoSchedule"}]}

        await change_node(self._client, self._node, change, dry_run=self._options.dry_run)
        self._say(f"node/{self._node} {'already ' if was_cordoned else ''}cordoned{self._dry}")

    # -- until the node is empty ------------------------------------------------------------------------------------

    async def _empty(self, rules: Rules) -> None:
        cache: WatchCache[Pod] = WatchCache(
            self._client, PODS, type=Pod, field_selector=f"spec.nodeName={self._node}", name="drain"
        )
        cache.add_handler(self._note)
        watching = asyncio.create_task(cache.run(), name="drain")
        left = plan((), rules)
        try:
            async with asyncio.timeout(self._options.timeout):
                await cache.wait_synced()
                while True:
                    self._changed.clear()
                    left = plan(cache.values(), rules)
                    if left.refused:
                        raise self._refusal(left)
                    if not (left.evict or left.leave_last):
                        return
                    self._evict(left.evict)
                    await self._news(left)
        except TimeoutError:
            raise CliError(
                f"drain of node {self._node} did not complete within {self._options.timeout:g}s: {_waits(left)}",
                f"the node stays cordoned; run the same command again to go on, or nodewright uncordon {self._node}",
                TIMED_OUT,
            ) from None
        finally:
            tasks = [watching, *self._evicting.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _news(self, left: DrainPlan) -> None:
        """Wait for a change; name those that are waited for when there is none for a while."""
        while True:
            try:
                async with asyncio.timeout(_HEARTBEAT):
                    await self._changed.wait()
                    break
            except TimeoutError:
                self._say(f"waiting for {_waits(left)}")
        for task in self._evicting.values():
            if task.done():
                task.result()  # raises what made it fail

    def _note(self, old: Pod | None, new: Pod | None) -> None:
        if new is None and old is not None:
            self._say(f"pod/{old.metadata.name} {'evicted' if old.metadata.uid in self._evicting else 'is gone'}")
        self._changed.set()

    def _evict(self, pods: list[Pod]) -> None:
        for pod in pods:
            if pod.metadata.uid not in self._evicting and pod.metadata.deletion_timestamp is None:
                self._say(f"evicting pod {pod.key}")
                task = asyncio.create_task(self._evict_one(pod), name=f"evict {pod.key}")
                task.add_done_callback(lambda _task: self._changed.set())
                self._evicting[pod.metadata.uid] = task

    async def _evict_one(self, pod: Pod) -> None:
        """Ask until the Pod may go: a disruption budget may forbid it for a while."""
        meta = pod.metadata
        options: dict[str, Any] = {"preconditions": {"uid": meta.uid}}
        if self._options.grace_period >= 0:
            options["gracePeriodSeconds"] = self._options.grace_period
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": meta.name, "namespace": meta.namespace},
            "deleteOptions": options,
        }
        path, backoff = PODS.path(meta.namespace, meta.name, "eviction"), Backoff(_RETRY_FIRST, _RETRY_MOST)
        while True:
            try:
                await self._client.request("POST", path, body=msgspec.json.encode(body), retry_busy=False)
                return
            except (NotFound, Conflict):
                return  # it is gone, or another Pod has its name by now
            except TooManyRequests as error:
                delay = max(backoff.next(), error.retry_after or 0.0)
                what = f'error when evicting pods/"{meta.name}" -n "{meta.namespace}"'
                self._say(f"{what} (will retry after {delay:.0f}s): {error.message}")
                await asyncio.sleep(delay)


async def uncordon(client: Client, name: str, say: Say, *, dry_run: bool = False) -> None:
    """Let Pods onto the node again, and end its drain."""
    is_changed = False

    def change(node: Node) -> Node | None:
        nonlocal is_changed
        spec = node.get("spec") or {}
        taints = spec.get("taints") or []
        others = [taint for taint in taints if taint["key"] != DRAIN_TAINT]
        is_changed = bool(spec.get("unschedulable")) or len(others) < len(taints)
        return {"unschedulable": None, "taints": others} if is_changed else None

    await change_node(client, name, change, dry_run=dry_run)
    say(f"node/{name} {'' if is_changed else 'already '}uncordoned{' (dry run)' if dry_run else ''}")


async def change_node(
    client: Client, name: str, change: Callable[[Node], Node | None], *, dry_run: bool = False
) -> None:
    """Merge what `change` makes of the Node into its spec; done anew where somebody else was faster. None: nothing."""
    while True:
        try:
            node: Node = await client.get(NODES, name)
        except NotFound:
            raise CliError(f'node "{name}" not found', "see `nodewright kubectl get nodes`") from None
        spec = change(node)
        if spec is None or dry_run:
            return
        try:
            await client.patch(
                NODES, name, {"metadata": {"resourceVersion": node["metadata"]["resourceVersion"]}, "spec": spec}
            )
            return
        except Conflict:
            continue


def _priority(pod: Pod) -> int:
    return pod.spec.priority or 0


def _waits(left: DrainPlan) -> str:
    """Who is waited for, for people."""
    ending = [pod for pod in left.evict if pod.metadata.deletion_timestamp is not None]
    others = [pod for pod in left.evict if pod.metadata.deletion_timestamp is None]
    last = sorted(left.leave_last, key=lambda pod: (_priority(pod), pod.key))
    parts = [
        (ending, "{} to end"),
        (others, "the eviction of {}"),
        (last, "{}, which leave last, when the operator lets them"),
    ]
    return "; ".join(text.format(names(pods)) for pods, text in parts if pods)
