"""One API server with the real kube-scheduler in front of it, and one cluster after the other inside.

The harness is synchronous, since hypothesis is: `Lab.run` carries out coroutines in an event loop of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

import msgspec

from differential.clusters import HOSTNAME, Object
from differential.standing import Standing
from differential.upstream import MADE, REGION, KubeScheduler, Trace
from nodewright.controlplane.cluster import LocalCluster
from nodewright.kube.client import Client
from nodewright.kube.config import load
from nodewright.kube.resources import NODES, PODS
from nodewright.scheduler.objects import Node, Pod

T = TypeVar("T")
CONCURRENCY = 8
TIMEOUT = 30.0
AT_ONCE = msgspec.json.encode({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0})


class Verdict(msgspec.Struct):
    """What upstream made of a Pod: the Pod as the API has it then, what the log says, and the Pods to be evicted."""

    pod: Pod
    trace: Trace
    victims: list[Pod] = []

    @property
    def node(self) -> str:
        """The node chosen, or ""."""
        return self.pod.spec.node_name

    @property
    def nominated(self) -> str:
        """The node where Pods are evicted for this one, or ""."""
        return self.pod.status.nominated_node_name

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
        # Pods as the watch showed them when upstream had just decided for the first time.
        self._decided: dict[str, Pod] = {}
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
        # Once upstream has placed a Pod, it follows everything, and logs every event by itself.
        labels, amounts = {HOSTNAME: "warm"}, {"cpu": "1", "memory": "1Gi", "pods": "1"}
        node = {"metadata": {"name": "warm", "labels": labels}, "spec": {}, "status": {"allocatable": amounts}}
        await self.reset([node], [])
        spec = {"automountServiceAccountToken": False, "containers": [{"name": "c", "image": "none:1"}]}
        pod = await self.create({"metadata": {"name": "warm", "namespace": "bare"}, "spec": spec})
        await self.verdict(pod, evicts=False)

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
                    pod = event.object
                    self._pods[pod.metadata.uid] = pod
                    if pod.spec.node_name or condition_message(pod):
                        self._decided.setdefault(pod.metadata.uid, pod)
                elif event.type == "DELETED":
                    self._pods.pop(event.object.metadata.uid, None)
                    self._decided.pop(event.object.metadata.uid, None)
                self._changed.set()

    async def _until_shown(self, find: Callable[[], T | None]) -> T:
        """Wait until the watch has shown what `find` looks for."""
        async with asyncio.timeout(TIMEOUT):
            while (found := find()) is None:
                if self._watching.done():
                    self._watching.result()
                self._changed.clear()
                await self._changed.wait()
        return found

    # --- a cluster ------------------------------------------------------------------------------------------------

    async def reset(self, nodes: list[Object], pods: list[Object]) -> tuple[list[Node], list[Pod]]:
        """Replace all nodes and Pods, and wait until upstream has seen them; the objects as the API has them.

        Pods that have a status get their start time from it.
        """
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
        await each(nodes, self.make_node)
        await each(pods, self._make_pod)
        await self.upstream.until_seen(
            [
                *((MADE, node["metadata"]["name"]) for node in nodes),
                *(("Add event for scheduled pod", key_of(pod)) for pod in pods),
                *(("Update event for scheduled pod", key_of(pod)) for pod in pods if "status" in pod),
            ]
        )
        made_nodes = (await self._client.list(NODES, type=Node)).items
        made_pods = (await self._client.list(PODS, type=Pod)).items
        self._pods.update({pod.metadata.uid: pod for pod in made_pods})
        return made_nodes, made_pods

    async def make_node(self, node: Object) -> Node:
        """Create a node."""
        await self._client.create(NODES, node)
        # Admission taints every new node as not ready; here nobody would ever take that back.
        changes = {"metadata": {"labels": {REGION: MADE}}, "spec": {"taints": node["spec"].get("taints")}}
        return await self._client.patch(NODES, node["metadata"]["name"], changes, type=Node)

    async def _make_pod(self, pod: Object) -> None:
        await self._client.create(PODS, pod)
        if "status" in pod:
            await self._start(pod)

    async def _start(self, pod: Object) -> Pod:
        meta, start = pod["metadata"], {"status": {"startTime": pod["status"]["startTime"]}}
        return await self._client.patch(PODS, meta["name"], start, meta["namespace"], subresource="status", type=Pod)

    # --- changes --------------------------------------------------------------------------------------------------

    async def change_node(self, change: Object, number: int) -> Node:
        """Change labels, spec or allocatable of a node; `number` has not been used in this case."""
        self.upstream.log.forget()
        name, region = change["name"], f"changed-{number}"
        if "allocatable" in change:
            # All of it: a merge would keep the resources that are not named.
            status = {"allocatable": None, "capacity": None}
            await self._client.patch(NODES, name, {"status": status}, subresource="status")
            status = {"allocatable": change["allocatable"], "capacity": change["allocatable"]}
            await self._client.patch(NODES, name, {"status": status}, subresource="status")
        patch = {"metadata": {"labels": {**change.get("labels", {}), REGION: region}}, "spec": change.get("spec", {})}
        changed = await self._client.patch(NODES, name, patch, type=Node)
        await self.upstream.until_seen([(region, name)])
        return changed

    async def replace_node(self, node: Object) -> Node:
        """Make a node that may have been there before."""
        self.upstream.log.forget()
        made = await self.make_node(node)
        await self.upstream.until_seen([(MADE, node["metadata"]["name"])])
        return made

    async def delete_node(self, name: str) -> None:
        """Delete a node; its Pods stay."""
        self.upstream.log.forget()
        await self._client.delete(NODES, name)
        await self.upstream.until_seen([("Delete event for node", name)])

    async def label_pod(self, pod: Pod, labels: dict[str, str | None]) -> Pod:
        """Change the labels of a Pod that has a node."""
        self.upstream.log.forget()
        name, namespace = pod.metadata.name, pod.metadata.namespace
        patch = {"metadata": {"labels": labels}}
        changed = await self._client.patch(PODS, name, patch, namespace, type=Pod)
        if changed.metadata.resource_version != pod.metadata.resource_version:
            await self.upstream.until_seen([("Update event for scheduled pod", pod.key)])
        return changed

    async def delete_pod(self, pod: Pod) -> None:
        """Delete a Pod, and wait until upstream has forgotten it."""
        self.upstream.log.forget()
        name, namespace = pod.metadata.name, pod.metadata.namespace
        await self._client.delete(PODS, name, namespace, grace_period_seconds=0)
        await self.upstream.until_seen([(f"Delete event for {_kind(pod)} pod", pod.key)])

    # --- a Pod ----------------------------------------------------------------------------------------------------

    async def create(self, pod: Object) -> Pod:
        """Create a Pod; as the API answers it."""
        self.upstream.log.forget()
        return await self._client.create(PODS, pod, type=Pod)

    async def verdict(self, created: Pod, *, evicts: bool) -> Verdict:
        """Wait for upstream's decision about a Pod, and until all that follows from it has been done.

        `evicts`: Pods are expected to be evicted. Where it turns out that all victims were ending already, the log says
        nothing more about it.
        """
        pod = await self._until_shown(lambda: self._decided.get(created.metadata.uid))
        if pod.spec.node_name:
            # The API adds labels of the node's topology, which upstream sees only now.
            await self.upstream.until_seen([("Add event for scheduled pod", pod.key)])
            return Verdict(pod, await self.upstream.trace(pod.key, lambda t: t.feasible is not None))
        if not pod.status.nominated_node_name:
            return Verdict(pod, await self.upstream.trace(pod.key, lambda _: True))
        await self.upstream.until_seen([("Update event for unscheduled pod", pod.key)])
        try:
            trace = await self.upstream.trace(
                pod.key, lambda trace: trace.is_preempted or not (evicts or trace.is_preempting), TIMEOUT / 5
            )
        except TimeoutError:  # we expect too much, which the comparison is to tell
            trace = self.upstream.log.traces[pod.key]
        # Each victim gets a condition and is deleted.
        await self.upstream.until_seen([("Update event for scheduled pod", victim) for victim in trace.victims] * 2)
        victims = [await self._until_shown(lambda key=key: self._ending(key)) for key in trace.victims]
        return Verdict(pod, trace, victims)

    def _ending(self, key: str) -> Pod | None:
        return next((p for p in self._pods.values() if p.key == key and p.metadata.deletion_timestamp), None)

    async def start(self, bound: Pod, body: Object) -> Pod:
        """Give a bound Pod the start time that its body has; without one, the Pod as it is."""
        if "status" not in body:
            return bound
        started = await self._start(body)
        await self.upstream.until_seen([("Update event for scheduled pod", bound.key)])
        return started


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
