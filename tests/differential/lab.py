"""One API server with the real kube-scheduler in front of it, and one cluster after the other inside.

The harness is synchronous, since hypothesis is: `Lab.run` carries out coroutines in an event loop of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

import msgspec
from differential.standing import Standing
from differential.upstream import MADE, REGION, KubeScheduler, Seen, Trace

from nodewright.controlplane.cluster import LocalCluster
from nodewright.kube.client import Client
from nodewright.kube.config import load
from nodewright.kube.resources import NODES, PODS
from nodewright.scheduler.objects import Node, Pod

T = TypeVar("T")
Object = dict[str, Any]

CONCURRENCY = 8
TIMEOUT = 30.0
AT_ONCE = msgspec.json.encode({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0})


class Verdict(msgspec.Struct):
    """What upstream made of a Pod: the Pod as the API has it then, and the log's word where a node was chosen."""

    pod: Pod
    trace: Trace | None

    @property
    def node(self) -> str:
        """The node chosen, or ""."""
        return self.pod.spec.node_name

    @property
    def message(self) -> str:
        """Why no node was chosen, or ""."""
        return condition_message(self.pod) if not self.node else ""


def condition_message(pod: Pod) -> str:
    """The message of a Pod's PodScheduled condition, or ""."""
    return next((c.message for c in pod.status.conditions if c.type == "PodScheduled"), "")


class Lab:
    """Makes clusters for upstream to see, and asks it about Pods."""

    def __init__(self, cluster: LocalCluster, upstream: KubeScheduler, made: Standing) -> None:
        self.upstream = upstream
        self.standing = made
        self._client = Client(load(cluster.kubeconfig), user_agent="differential")
        self._runner = asyncio.Runner()
        self._pods: dict[str, Pod] = {}
        self._changed: asyncio.Event | None = None
        self._watching: asyncio.Task[None] | None = None

    def __enter__(self) -> Lab:
        self.run(self._begin())
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self._end())
        self._runner.close()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Carry out a coroutine."""
        return self._runner.run(coroutine)

    async def _begin(self) -> None:
        self._changed = asyncio.Event()
        version = (await self._client.list(PODS, limit=1)).resource_version
        self._watching = asyncio.create_task(self._watch(version))

    async def _end(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        await self._client.close()

    async def _watch(self, version: str) -> None:
        while True:  # the server ends a watch after some minutes
            async for event in self._client.watch(PODS, type=Pod, resource_version=version):
                version = event.resource_version
                if event.type in ("ADDED", "MODIFIED"):
                    self._pods[event.object.metadata.uid] = event.object
                elif event.type == "DELETED":
                    self._pods.pop(event.object.metadata.uid, None)
                self._changed.set()

    async def until_pod(self, uid: str, ready: Callable[[Pod], bool]) -> Pod:
        """Wait until the watch shows a Pod of which `ready` is true."""
        async with asyncio.timeout(TIMEOUT):
            while (pod := self._pods.get(uid)) is None or not ready(pod):
                if self._watching.done():
                    self._watching.result()
                self._changed.clear()
                await self._changed.wait()
        return pod

    # --- a cluster ------------------------------------------------------------------------------------------------

    async def reset(self, nodes: list[Object], pods: list[Object]) -> tuple[list[Node], list[Pod]]:
        """Replace all nodes and Pods, and wait until upstream has seen them; the objects as the API has them."""
        log = self.upstream.log
        log.forget()
        old_nodes = (await self._client.list(NODES, type=Node)).items
        old_pods = (await self._client.list(PODS, type=Pod)).items
        # Pods first: upstream would otherwise try those that wait again, at each node that goes.
        namespaces = {pod.metadata.namespace for pod in old_pods}
        await each(namespaces, lambda namespace: self._client.request("DELETE", PODS.path(namespace), body=AT_ONCE))
        await self._client.request("DELETE", NODES.path(), body=AT_ONCE)
        await self.upstream.until_seen(
            [
                *(("Delete event for node", node.metadata.name) for node in old_nodes),
                *((f"Delete event for {_kind(pod)} pod", pod.key) for pod in old_pods),
            ]
        )
        log.forget()
        await each(nodes, self._make_node)
        await each(pods, lambda pod: self._client.create(PODS, pod))
        await self.upstream.until_seen(
            [
                *((MADE, node["metadata"]["name"]) for node in nodes),
                *(("Add event for scheduled pod", key_of(pod)) for pod in pods),
            ]
        )
        made_nodes = (await self._client.list(NODES, type=Node)).items
        made_pods = (await self._client.list(PODS, type=Pod)).items
        self._pods.update({pod.metadata.uid: pod for pod in made_pods})
        return made_nodes, made_pods

    async def _make_node(self, node: Object) -> None:
        await self._client.create(NODES, node)
        # Admission taints every new node as not ready; here nobody would ever take that back.
        changes = {"metadata": {"labels": {REGION: MADE}}, "spec": {"taints": node["spec"].get("taints")}}
        await self._client.patch(NODES, node["metadata"]["name"], changes)

    # --- a Pod ----------------------------------------------------------------------------------------------------

    async def create(self, pod: Object) -> Pod:
        """Create a Pod; as the API answers it."""
        return await self._client.create(PODS, pod, type=Pod)

    async def verdict(self, created: Pod) -> Verdict:
        """Wait for upstream's decision about a Pod."""
        pod = await self.until_pod(created.metadata.uid, lambda p: bool(p.spec.node_name or condition_message(p)))
        return Verdict(pod, await self.upstream.trace(pod.key) if pod.spec.node_name else None)

    async def remove(self, pod: Pod) -> None:
        """Delete a Pod that waits, and wait until upstream has forgotten it."""
        name, namespace = pod.metadata.name, pod.metadata.namespace
        await self._client.delete(PODS, name, namespace, grace_period_seconds=0)
        self._pods.pop(pod.metadata.uid, None)
        await self.upstream.until_seen([("Delete event for unscheduled pod", pod.key)])


def _kind(pod: Pod) -> str:
    return "scheduled" if pod.spec.node_name else "unscheduled"


def key_of(obj: Object) -> str:
    """Namespace and name, joined by a slash."""
    return f"{obj['metadata']['namespace']}/{obj['metadata']['name']}"


async def each(items: Iterable[T], work: Callable[[T], Awaitable[object]]) -> None:
    """Run `work` for all items, some at a time."""
    queue = iter(list(items))

    async def worker() -> None:
        for item in queue:
            await work(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(CONCURRENCY):
            group.create_task(worker())
