"""Taking Nodewright's nodes out of a cluster, in an order in which nothing is lost from sight half done.

Pods are ended by the agents that run them, then agents and proxies end, then each host is cleaned (`nodewright
cleanup` in a DaemonSet of the chart), and last the Node objects go: as long as they are there, everything can be seen.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Generic, TypeVar

import msgspec

from nodewright.cli.output import TIMED_OUT, CliError
from nodewright.kube.api.base import KubeStruct
from nodewright.kube.api.meta import ObjectMeta
from nodewright.kube.cache import WatchCache
from nodewright.kube.client import Client
from nodewright.kube.errors import Conflict, NotFound
from nodewright.kube.objects import Node, Pod
from nodewright.kube.resources import APPS_DAEMONSETS, NODES, PODS, Resource

TAINT = "nodewright.dev/uninstall"
"""Keeps controllers from putting new Pods on a Node that goes: those of DaemonSets tolerate a mere cordon."""

T = TypeVar("T")
Say = Callable[[str], None]


class DaemonSetStatus(KubeStruct):
    """What of the status tells that all Pods are Ready."""

    observed_generation: int = 0
    desired_number_scheduled: int = 0
    updated_number_scheduled: int = 0
    number_ready: int = 0


class DaemonSet(KubeStruct):
    """An apps/v1 DaemonSet, as far as it is waited for."""

    metadata: ObjectMeta
    status: DaemonSetStatus = msgspec.field(default_factory=DaemonSetStatus)

    @property
    def ready(self) -> bool:
        """Whether every host that should have a Pod has one that is up to date and Ready (0 of 0 is all)."""
        status = self.status
        return (
            status.observed_generation >= self.metadata.generation
            and status.updated_number_scheduled == status.desired_number_scheduled == status.number_ready
        )


class Uninstaller:
    """One run. Every step finds out by itself what is left of it to do, so a second run goes on where one ended."""

    def __init__(self, client: Client, namespace: str, timeout: float, say: Say) -> None:
        """Take `timeout` seconds at most, all together; tell through `say` what is done."""
        self._client, self._namespace, self._say = client, namespace, say
        self._timeout, self._deadline = timeout, time.monotonic() + timeout

    async def run(self, selector: str, daemonsets: Sequence[str], cleanup: str) -> None:
        """Remove the Nodes of a label selector, after their Pods, these DaemonSets, and what is on the hosts.

        `cleanup` names the DaemonSet that cleans the hosts; empty: nobody does. Raises CliError when a step takes too
        long, ApiError when the server refuses one.
        """
        nodes = (await self._client.list(NODES, type=Node, label_selector=selector)).items
        for node in nodes:
            await self._close(node)
        # Half of the time: what does not end by then is ended by the clean-up.
        until = time.monotonic() + self._timeout / 2
        await asyncio.gather(*(self._end_pods(node, until) for node in nodes))
        for name in daemonsets:
            await self._delete_daemonset(name)
        if cleanup:
            await self._await_cleanup(cleanup)
        for node in nodes:
            await self._remove(node)
        self._say(f"{len(nodes)} Nodes removed")

    async def _close(self, node: Node) -> None:
        """Let nothing new come to a Node."""
        taints = [{"key": t.key, "effect": t.effect, "value": t.value} for t in node.spec.taints if t.key != TAINT]
        body = {"spec": {"unschedulable": True, "taints": [*taints, {"key": TAINT, "effect": "NoSchedule"}]}}
        with suppress(NotFound):
            await self._client.patch(NODES, node.metadata.name, body)

    async def _end_pods(self, node: Node, until: float) -> None:
        """Delete the Pods of a Node gracefully, and wait for those that were there; later ones are not waited for."""
        name = node.metadata.name
        async with self._followed(PODS, Pod, f"spec.nodeName={name}") as pods:
            first = {pod.metadata.uid for pod in pods.cache.values()}
            for pod in list(pods.cache.values()):
                await self._delete_pod(pod)
            self._say(f"{name}: ending {len(first)} Pods")
            if not any(
                condition.type == "Ready" and condition.status == "True" for condition in node.status.conditions
            ):
                self._say(f"{name}: the agent does not answer, so nobody ends them; the clean-up will")
                return
            if not await pods.until(lambda: first.isdisjoint(_uids(pods.cache.values())), until):
                left = sorted(pod.key for pod in pods.cache.values() if pod.metadata.uid in first)
                self._say(f"{name}: have not ended in time, and will be by the clean-up: {', '.join(left)}")

    async def _delete_daemonset(self, name: str) -> None:
        """Delete a DaemonSet with its Pods, and wait for them: the object goes last."""
        async with self._followed(APPS_DAEMONSETS, DaemonSet, f"metadata.name={name}", self._namespace) as found:
            if not found.cache.values():
                self._say(f"DaemonSet {name} is gone")
                return
            with suppress(NotFound):
                await self._client.delete(APPS_DAEMONSETS, name, self._namespace, propagation_policy="Foreground")
            if not await found.until(lambda: not found.cache.values(), self._deadline):
                raise self._late(f"the Pods of DaemonSet {name} do not end", f"get pods -n {self._namespace} -o wide")
            self._say(f"DaemonSet {name} is deleted, its Pods have ended")

    async def _await_cleanup(self, name: str) -> None:
        async with self._followed(APPS_DAEMONSETS, DaemonSet, f"metadata.name={name}", self._namespace) as found:
            if not await found.until(lambda: any(one.ready for one in found.cache.values()), self._deadline):
                status = next((one.status for one in found.cache.values()), None)
                if status is None:
                    raise self._late(f"there is no DaemonSet {name}", f"get daemonsets -n {self._namespace}")
                count = f"{status.number_ready} of {status.desired_number_scheduled} hosts are clean"
                hint = f"logs -n {self._namespace} daemonset/{name} -c cleanup"
                raise self._late(f"DaemonSet {name}: {count}", hint)
            hosts = max(one.status.desired_number_scheduled for one in found.cache.values())
            self._say(f"{hosts} hosts are clean")

    async def _remove(self, node: Node) -> None:
        """Remove what is left of Pods, of which nothing runs any more, and the Node."""
        name = node.metadata.name
        pods = await self._client.list(PODS, type=Pod, field_selector=f"spec.nodeName={name}")
        for pod in pods.items:
            await self._delete_pod(pod, grace=0)
        with suppress(NotFound, Conflict):
            await self._client.delete(NODES, name, uid=node.metadata.uid)

    async def _delete_pod(self, pod: Pod, grace: int | None = None) -> None:
        meta = pod.metadata
        with suppress(NotFound, Conflict):  # Conflict: another Pod of that name by now, perhaps elsewhere
            await self._client.delete(PODS, meta.name, meta.namespace, uid=meta.uid, grace_period_seconds=grace)

    @asynccontextmanager
    async def _followed(
        self, resource: Resource, kind: type[T], fields: str, namespace: str | None = None
    ) -> AsyncIterator[_Followed[T]]:
        cache: WatchCache[T] = WatchCache(self._client, resource, type=kind, namespace=namespace, field_selector=fields)
        task = asyncio.create_task(cache.run())
        try:
            async with asyncio.timeout(max(0.1, self._deadline - time.monotonic())):
                await cache.wait_synced()
            yield _Followed(cache)
        except TimeoutError:
            raise self._late(f"the API server does not answer: {resource.plural}", "get --raw /readyz") from None
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def _late(self, what: str, look: str) -> CliError:
        return CliError(f"{what} (after {self._timeout:g} s)", f"see `kubectl {look}`, then run it again", TIMED_OUT)


class _Followed(Generic[T]):
    """A collection that is watched, to wait for what becomes of it."""

    def __init__(self, cache: WatchCache[T]) -> None:
        self.cache = cache
        self._changed = asyncio.Event()
        cache.add_handler(lambda old, new: self._changed.set())

    async def until(self, condition: Callable[[], bool], deadline: float) -> bool:
        """Wait until the condition holds; False at the deadline (of the monotonic clock)."""
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True


def _uids(pods: Iterable[Pod]) -> set[str]:
    return {pod.metadata.uid for pod in pods}
