"""Waiting for a cluster to be of use: every node Ready, our components answering."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, cast

from nodewright.cli.output import TIMED_OUT, CliError
from nodewright.controlplane.cluster import LocalCluster
from nodewright.controlplane.progress import Progress, Step
from nodewright.kube import config as kubeconfigs
from nodewright.kube.client import Client, WatchEvent
from nodewright.kube.errors import Gone, ServerUnavailable
from nodewright.kube.resources import NODES
from nodewright.kube.times import parse_rfc3339


def until_ready(cluster: LocalCluster, progress: Progress, timeout: float) -> None:
    """Return when every node host is a Ready Node; CliError with the reasons after `timeout` seconds."""
    wanted = {}
    for host in cluster.state.node_hosts():
        record = cluster.component(f"agent-{host.name}").record()
        wanted[host.name] = record.started if record is not None else 0.0
    if not wanted:
        return
    with progress.step("nodes Ready") as step:
        waiting = Readiness(wanted)
        try:
            ended = asyncio.run(asyncio.wait_for(_ready_or_ended(cluster, waiting, step), timeout))
        except TimeoutError:
            raise CliError(
                f"after {timeout:.0f} s: {waiting.describe()}",
                f"see the agents' logs in {cluster.layout.log('').parent}",
                TIMED_OUT,
            ) from None
        if ended:
            agent = cluster.component(f"agent-{ended}")
            raise CliError(
                f"the agent of {ended} ended while it was starting:\n{agent.log_tail()}",
                f"the whole log is in {agent.log_path}",
            )
        step.result(", ".join(sorted(wanted)))


class Readiness:
    """Which nodes are Ready, and why the others are not.

    `wanted` maps each name to when its agent started (Unix seconds): what was posted before that is of an earlier run.
    """

    def __init__(self, wanted: Mapping[str, float]) -> None:
        self._since = dict(wanted)
        self._reasons = dict.fromkeys(wanted, "has not registered")

    def see(self, node: dict[str, Any], deleted: bool = False) -> None:
        """Take note of a Node's state."""
        name = node["metadata"]["name"]
        if name in self._reasons:
            self._reasons[name] = "was deleted" if deleted else not_ready_reason(node, self._since[name])

    @property
    def complete(self) -> bool:
        """Whether every node is Ready."""
        return not any(self._reasons.values())

    def describe(self) -> str:
        """The nodes that are not Ready, with reasons."""
        return "; ".join(f"{name} {reason}" for name, reason in sorted(self._reasons.items()) if reason)


def not_ready_reason(node: dict[str, Any], since: float = 0.0) -> str:
    """Empty when the Node is Ready by a status posted after `since` (Unix seconds), else what its condition says."""
    conditions = (node.get("status") or {}).get("conditions") or []
    ready = next((c for c in conditions if c["type"] == "Ready"), None)
    if ready is None:
        return "has posted no status"
    if ready["status"] != "True":
        return f"is not Ready: {ready.get('message') or ready.get('reason')}"
    beat = ready.get("lastHeartbeatTime")
    # heartbeats are in whole seconds
    if beat is None or parse_rfc3339(beat).timestamp() >= int(since):
        return ""
    return "has posted no status since its agent started"


async def _ready_or_ended(cluster: LocalCluster, waiting: Readiness, step: Step) -> str:
    """Wait until every node is Ready (the answer is empty), or until an agent's process ends (its node's name)."""
    watching = asyncio.create_task(_watch(cluster, waiting, step))
    agents = {asyncio.create_task(_ended(cluster, host.name)): host.name for host in cluster.state.node_hosts()}
    tasks = {watching, *agents}
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if watching in done:
            await watching
            return ""
        return agents[done.pop()]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _ended(cluster: LocalCluster, node: str) -> None:
    """Return when the process of the node's agent has ended."""
    record = cluster.component(f"agent-{node}").record()
    if record is None:
        return
    try:
        pidfd = os.pidfd_open(record.pid)
    except ProcessLookupError:
        return
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(pidfd, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)


async def _watch(cluster: LocalCluster, waiting: Readiness, step: Step) -> None:
    async with Client(kubeconfigs.load(cluster.kubeconfig)) as client:
        while True:
            nodes = await client.list(NODES)
            for node in nodes.items:
                waiting.see(node)
            if waiting.complete:
                return
            step.update(waiting.describe())
            try:
                changes = client.watch(NODES, resource_version=nodes.resource_version)
                async with aclosing(cast("AsyncGenerator[WatchEvent[dict[str, Any]]]", changes)) as events:
                    async for event in events:
                        if event.type != "BOOKMARK":
                            waiting.see(event.object, deleted=event.type == "DELETED")
                        if waiting.complete:
                            return
                        step.update(waiting.describe())
            except (Gone, ServerUnavailable):
                await asyncio.sleep(0.5)  # listed again from the start
