"""One API server with a DaemonSet controller in front of it: what is there, and acting as people and kubelets.

Nodes are objects only. Both sides get the same inputs; as names of Pods, and the nodes upstream picks in a rollout, are
random, steps name things by what they are like (see `picture`), never by their names.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nodewright.kube.cache import WatchCache
from nodewright.kube.client import Client, PatchType
from nodewright.kube.config import load
from nodewright.kube.errors import Conflict, NotFound
from nodewright.kube.resources import (
    APPS_DAEMONSETS,
    CONTROLLERREVISIONS,
    EVENTS,
    NAMESPACES,
    NODES,
    PODS,
    SERVICEACCOUNTS,
    Resource,
)

Object = dict[str, Any]

PROBE = "probe"
TIMEOUT = 30.0
ENDING = 0.05  # seconds that a Pod takes to end
LONG_AGO = "2020-01-01T00:00:00Z"
AT_ONCE = b'{"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0}'
CONTAINER: Object = {"name": "c", "image": "v1"}


class Side:
    """An API server, watched. Everything is called in one event loop."""

    def __init__(self, name: str, kubeconfig: Path) -> None:
        self.name = name
        self.namespace = ""
        self.kubelet = True  # bind Pods, and end those that are deleted, as soon as they are seen
        self.changed = asyncio.Event()
        self.last_change = 0.0
        self.client = Client(load(kubeconfig), user_agent="differential")
        self._caches: dict[Resource, WatchCache[Object]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._written: dict[Resource, int] = {}
        self._deleted: list[tuple[Resource, str, str]] = []
        self._acts: set[asyncio.Task[None]] = set()
        self._probes = 0
        self._nodes = 0

    async def start(self) -> None:
        """Watch, and make the DaemonSet that tells how far the controller has come."""
        for resource in (PODS, APPS_DAEMONSETS, CONTROLLERREVISIONS, EVENTS, NODES):
            indexes = {"namespace": lambda obj: (obj["metadata"].get("namespace", ""),)}
            cache = WatchCache(self.client, resource, type=dict, indexes=indexes, name=f"{self.name} {resource.plural}")
            cache.add_handler(lambda old, new, counts=resource is not EVENTS: self._note(old, new, counts))
            if resource is PODS:
                cache.add_handler(self._as_kubelet)
            self._caches[resource] = cache
            self._tasks.append(asyncio.create_task(cache.run()))
        for cache in self._caches.values():
            await cache.wait_synced()
        await self.make_namespace(PROBE)
        labels = {"app": PROBE}
        template = {"metadata": {"labels": labels}, "spec": {"nodeSelector": labels, "containers": [CONTAINER]}}
        body = {"metadata": {"name": PROBE}, "spec": {"selector": {"matchLabels": labels}, "template": template}}
        await self.client.create(APPS_DAEMONSETS, body, PROBE)

    async def stop(self) -> None:
        """Stop watching."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.client.close()

    def _note(self, old: Object | None, new: Object | None, counts: bool) -> None:
        meta = (new or old or {})["metadata"]
        if counts and meta.get("namespace") != PROBE:
            self.last_change = asyncio.get_running_loop().time()
        self.changed.set()

    def _as_kubelet(self, old: Object | None, new: Object | None) -> None:
        if not self.kubelet or new is None or new["metadata"]["namespace"] != self.namespace:
            return
        node = node_of(new)
        if "deletionTimestamp" in new["metadata"]:
            if new["metadata"].get("finalizers"):
                return
            act = self._finish_later(new)
        elif "nodeName" not in new["spec"] and self._caches[NODES].get(node):
            act = self.bind(new, node)
        else:
            return
        task = asyncio.get_running_loop().create_task(act)
        self._acts.add(task)
        task.add_done_callback(self._acts.discard)

    # --- what is there --------------------------------------------------------------------------------------------

    def all(self, resource: Resource) -> list[Object]:
        """Objects of the present namespace, or all of a cluster-scoped kind."""
        namespace = self.namespace if resource.namespaced else ""
        return sorted(self._caches[resource].by_index("namespace", namespace), key=lambda o: o["metadata"]["name"])

    def daemonset(self, name: str = "ds") -> Object | None:
        """The DaemonSet, if it is there."""
        return self._caches[APPS_DAEMONSETS].get(f"{self.namespace}/{name}")

    async def until(self, condition: Callable[[], Any], what: str, timeout: float = TIMEOUT) -> Any:
        """Wait for something to be seen."""
        try:
            async with asyncio.timeout(timeout):
                while not (value := condition()):
                    self.changed.clear()
                    await self.changed.wait()
                return value
        except TimeoutError:
            raise AssertionError(f"{self.name}: not within {timeout} s: {what}") from None

    async def barrier(self, timeout: float = TIMEOUT) -> None:
        """Wait until the controller has dealt with a change that is made now, and with what it was told before."""
        self._probes += 1
        patch = {"spec": {"minReadySeconds": self._probes}}
        done = await self.client.patch(APPS_DAEMONSETS, PROBE, patch, PROBE)
        generation = done["metadata"]["generation"]

        def is_seen() -> bool:
            probe = self._caches[APPS_DAEMONSETS].get(f"{PROBE}/{PROBE}") or {}
            return bool((probe.get("status") or {}).get("observedGeneration", 0) >= generation)

        await self.until(is_seen, "the controller has seen a change", timeout)

    async def quiet(self, seconds: float) -> None:
        """Wait until nothing has changed for so long."""
        loop = asyncio.get_running_loop()
        left = seconds
        while left > 0:
            await asyncio.gather(*self._acts)
            await asyncio.sleep(left)
            left = self.last_change + seconds - loop.time()

    async def caught_up(self) -> None:
        """Wait until the watches show all that was written here."""
        for resource, version in list(self._written.items()):
            assert await self._caches[resource].wait_for(version, TIMEOUT), f"{self.name}: {resource.plural} are behind"
        for resource, name, uid in self._deleted:
            await self.until(lambda r=resource, n=name, u=uid: self._is_ending(r, n, u), f"{name} is deleted")
        self._deleted.clear()
        self.last_change = asyncio.get_running_loop().time()

    def _is_ending(self, resource: Resource, name: str, uid: str) -> bool:
        meta = (self._caches[resource].get(f"{self.namespace}/{name}" if resource.namespaced else name) or {}).get(
            "metadata"
        )
        return meta is None or meta["uid"] != uid or "deletionTimestamp" in meta

    # --- writing --------------------------------------------------------------------------------------------------

    async def create(self, resource: Resource, body: Object) -> None:
        """Create an object in the present namespace."""
        self._wrote(resource, await self.client.create(resource, body, self._namespace_of(resource)))

    async def patch(
        self,
        resource: Resource,
        name: str,
        patch: Any,
        kind: PatchType = PatchType.MERGE,
        subresource: str | None = None,
    ) -> None:
        """Change an object, unless it is gone."""
        with contextlib.suppress(NotFound):
            namespace = self._namespace_of(resource)
            self._wrote(
                resource, await self.client.patch(resource, name, patch, namespace, kind=kind, subresource=subresource)
            )

    async def delete(self, resource: Resource, obj: Object, **more: Any) -> None:
        """Delete an object, unless it is gone."""
        meta = obj["metadata"]
        with contextlib.suppress(NotFound):
            await self.client.delete(resource, meta["name"], self._namespace_of(resource), **more)
            self._deleted.append((resource, meta["name"], meta["uid"]))

    def _namespace_of(self, resource: Resource) -> str | None:
        return self.namespace if resource.namespaced else None

    def _wrote(self, resource: Resource, answer: Object) -> None:
        if resource in self._caches:
            version = int(answer["metadata"]["resourceVersion"])
            self._written[resource] = max(version, self._written.get(resource, 0))

    # --- namespaces and nodes -------------------------------------------------------------------------------------

    async def make_namespace(self, name: str) -> None:
        """A namespace in which Pods can be made."""
        await self.client.create(NAMESPACES, {"metadata": {"name": name}})
        await self.client.create(SERVICEACCOUNTS, {"metadata": {"name": "default"}}, name)

    async def clean(self) -> None:
        """Remove the present case's objects and all nodes."""
        await self.client.request("DELETE", APPS_DAEMONSETS.path(self.namespace), body=AT_ONCE)
        await self.until(lambda: not self.all(APPS_DAEMONSETS), "DaemonSets are gone")
        # The controller may make another Pod just then; by the next look it has nothing to make one for.
        while pods := self.all(PODS):
            for pod in pods:
                if pod["metadata"].get("finalizers"):
                    await self.patch(PODS, pod["metadata"]["name"], {"metadata": {"finalizers": None}})
            await self.client.request("DELETE", PODS.path(self.namespace), body=AT_ONCE)
            uids = {pod["metadata"]["uid"] for pod in pods}
            await self.until(
                lambda uids=uids: not uids & {p["metadata"]["uid"] for p in self.all(PODS)}, "Pods are gone"
            )
        for path in (CONTROLLERREVISIONS.path(self.namespace), NODES.path()):
            await self.client.request("DELETE", path, body=AT_ONCE)
        await self.until(lambda: not (self.all(NODES) or self.all(CONTROLLERREVISIONS)), "the rest is gone")
        self._nodes = 0

    async def add_node(self, labels: dict[str, str], taints: list[Object]) -> None:
        """A node, without the taint that admission gives to new ones."""
        name = f"n{self._nodes}"
        self._nodes += 1
        await self.create(NODES, {"metadata": {"name": name, "labels": {"name": name, **labels}}})
        await self.patch(NODES, name, {"spec": {"taints": taints or None}})

    # --- Pods -----------------------------------------------------------------------------------------------------

    async def set_status(self, pod: Object, phase: str, ready: str | None) -> None:
        """Report a Pod as a kubelet would; `ready` is since when, None for not."""
        condition = {"type": "Ready", "status": str(ready is not None), "lastTransitionTime": ready or LONG_AGO}
        status = {"status": {"phase": phase, "conditions": [condition]}}
        await self.patch(PODS, pod["metadata"]["name"], status, subresource="status")

    async def bind(self, pod: Object, node: str) -> None:
        """Schedule a Pod."""
        name = pod["metadata"]["name"]
        target = {"apiVersion": "v1", "kind": "Node", "name": node}
        body = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target}
        with contextlib.suppress(NotFound, Conflict):
            await self.client.create(PODS, body, pod["metadata"]["namespace"], name=name, subresource="binding")

    async def _finish_later(self, pod: Object) -> None:
        """End a Pod that is being deleted, not at once.

        Upstream counts a deletion when it begins and again when it ends. If both come within one of its steps, it takes
        the second one for that of another Pod, looks at the cluster too early, and deletes more than it should.
        """
        await asyncio.sleep(ENDING)
        meta = pod["metadata"]
        with contextlib.suppress(NotFound, Conflict):
            await self.client.delete(PODS, meta["name"], meta["namespace"], grace_period_seconds=0, uid=meta["uid"])


def node_of(pod: Object) -> str:
    """The node a Pod is on, or meant for; "" for none."""
    if name := pod["spec"].get("nodeName"):
        return str(name)
    affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    terms = (affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}).get("nodeSelectorTerms") or []
    for term in terms:
        for field in term.get("matchFields") or ():
            return str(field["values"][0])
    return ""
