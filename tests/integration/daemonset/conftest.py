"""A controller in this process, against the real API server; nodes are objects only, pods are moved on by the tests."""

import asyncio
import contextlib
import uuid
from collections.abc import Callable

import pytest

from nodewright.controllers.daemonset.controller import DaemonSetController
from nodewright.framework.leader import LeadershipLost
from nodewright.framework.process import Options
from nodewright.kube.cache import WatchCache
from nodewright.kube.client import Client, PatchType
from nodewright.kube.config import load
from nodewright.kube.errors import AlreadyExists, NotFound
from nodewright.kube.resources import (
    CONTROLLERREVISIONS,
    DAEMONSETS,
    EVENTS,
    NAMESPACES,
    NODES,
    PODS,
    SERVICEACCOUNTS,
    Resource,
)
from nodewright.kube.times import now_rfc3339
from support.operator_thread import OperatorThread


class World:
    """What the API server shows of one namespace, and the means to change it as kubelets and people do."""

    def __init__(self, client: Client, namespace: str):
        self.client = client
        self.namespace = namespace
        self.mark = f"m{uuid.uuid4().hex[:8]}"  # label that keeps the nodes of one test apart from others
        self.changed = asyncio.Event()
        self.log: list[tuple[str, str, str]] = []  # (kind, what happened, name), as seen
        self._caches: dict[Resource, WatchCache] = {}
        self._tasks: list[asyncio.Task] = []
        self._nodes: list[str] = []

    async def start(self):
        for resource in (PODS, DAEMONSETS, CONTROLLERREVISIONS, EVENTS):
            cache = WatchCache(
                self.client, resource, type=dict, namespace=self.namespace, name=f"test {resource.plural}"
            )
            cache.add_handler(lambda old, new, kind=resource.kind: self._note(kind, old, new))
            self._caches[resource] = cache
            self._tasks.append(asyncio.create_task(cache.run()))
        for cache in self._caches.values():
            await cache.wait_synced()

    async def stop(self):
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for obj in self.all(DAEMONSETS):
            with contextlib.suppress(NotFound):
                await self.client.delete(DAEMONSETS, obj["metadata"]["name"], self.namespace)
        for name in self._nodes:
            with contextlib.suppress(NotFound):
                await self.client.delete(NODES, name)

    def on_pods(self, handler):
        """Call handler(old, new) on each change of a pod from now on."""
        self._caches[PODS].add_handler(handler)

    def _note(self, kind, old, new):
        what = "added" if old is None else "deleted" if new is None else "modified"
        self.log.append((kind, what, (new or old)["metadata"]["name"]))
        self.changed.set()

    def all(self, resource):
        return sorted(self._caches[resource].values(), key=lambda o: o["metadata"]["name"])

    async def until(self, condition: Callable[[], object], timeout: float = 15.0):
        """Wait for a condition on what is seen; it is looked at after every change."""
        try:
            async with asyncio.timeout(timeout):
                while not (value := condition()):
                    self.changed.clear()
                    await self.changed.wait()
                return value
        except TimeoutError:
            pods = {node: (pod["metadata"]["name"], pod.get("status")) for node, pod in self.pods_by_node().items()}
            status = [ds.get("status") for ds in self.all(DAEMONSETS)]
            raise AssertionError(
                f"not seen in {timeout} s; pods: {pods}, status: {status}, events: {self.events()}"
            ) from None

    # -- nodes -----------------------------------------------------------------------------------------------------

    async def add_node(self, name, *, taints=(), **labels):
        """A node without the taint that admission gives to new ones."""
        full = f"{self.mark}-{name}"
        meta = {"name": full, "labels": {"test": self.mark, **labels}}
        await self.client.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": meta})
        self._nodes.append(full)
        await self.taint(full, *taints)
        return full

    async def taint(self, node, *taints):
        found = []
        for text in taints:
            key, _, effect = text.rpartition(":")
            found.append({"key": key, "effect": effect})
        await self.client.patch(NODES, node, {"spec": {"taints": found or None}})

    # -- daemon sets and pods --------------------------------------------------------------------------------------

    def manifest(self, name="ds", *, image="v1", labels=None, **spec):
        """A DaemonSet for this test's nodes."""
        selector = {"app": name}
        pod = {"nodeSelector": {"test": self.mark}, "containers": [{"name": "c", "image": image}]}
        return {
            "apiVersion": "nodewright.dev/v1alpha1",
            "kind": "DaemonSet",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {
                "selector": {"matchLabels": selector},
                "template": {"metadata": {"labels": {**selector, **(labels or {})}}, "spec": pod},
                **spec,
            },
        }

    async def create(self, *args, **more):
        return await self.client.create(DAEMONSETS, self.manifest(*args, **more), self.namespace)

    async def set_image(self, image, name="ds"):
        patch = [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": image}]
        await self.client.patch(DAEMONSETS, name, patch, self.namespace, kind=PatchType.JSON)

    def ds(self, name="ds"):
        return next((o for o in self.all(DAEMONSETS) if o["metadata"]["name"] == name), {"metadata": {"generation": 0}})

    def status(self, name="ds"):
        return self.ds(name).get("status") or {}

    def condition(self, name="ds"):
        return next((c for c in self.status(name).get("conditions") or [] if c["type"] == "Ready"), {})

    def observed(self, name="ds"):
        """The controller has dealt with the newest generation."""
        return self.status(name).get("observedGeneration") == self.ds(name)["metadata"]["generation"]

    def pods(self):
        return [p for p in self.all(PODS) if not p["metadata"].get("deletionTimestamp")]

    def pods_by_node(self):
        found = {}
        for pod in self.pods():
            if "affinity" not in pod["spec"]:
                continue  # not of a DaemonSet
            terms = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
            (node,) = terms["nodeSelectorTerms"][0]["matchFields"][0]["values"]
            found[node] = pod
        return found

    def images(self):
        return {node: pod["spec"]["containers"][0]["image"] for node, pod in self.pods_by_node().items()}

    def events(self, reason=None):
        found = [(e["type"], e["reason"], e["message"]) for e in self.all(EVENTS)]
        return [e for e in found if reason is None or e[1] == reason]

    async def set_status(self, pod, *, phase="Running", ready=True):
        conditions = [{"type": "Ready", "status": str(ready), "lastTransitionTime": now_rfc3339()}]
        patch = {"metadata": {"uid": pod["metadata"]["uid"]}, "status": {"phase": phase, "conditions": conditions}}
        with contextlib.suppress(NotFound):
            await self.client.patch(PODS, pod["metadata"]["name"], patch, self.namespace, subresource="status")

    def is_ready(self, pod):
        return any(
            c["type"] == "Ready" and c["status"] == "True" for c in (pod.get("status") or {}).get("conditions") or []
        )

    async def make_all_ready(self):
        for pod in self.pods():
            if not self.is_ready(pod):
                await self.set_status(pod)


@pytest.fixture
async def client(cluster):
    async with Client(load(cluster.kubeconfig)) as client:
        yield client


@pytest.fixture
async def namespace(client):
    """As the shared fixture, but sure to work while kube-controller-manager, too, makes the ServiceAccount."""
    name = f"t-{uuid.uuid4().hex[:8]}"
    await client.create(NAMESPACES, {"metadata": {"name": name}})
    with contextlib.suppress(AlreadyExists):
        await client.create(SERVICEACCOUNTS, {"metadata": {"name": "default"}}, name)
    yield name
    await client.delete(NAMESPACES, name)


@pytest.fixture
async def world(client, namespace):
    world = World(client, namespace)
    await world.start()
    yield world
    await world.stop()


@pytest.fixture
async def start_operator(cluster, namespace):
    """A factory of operators that run until the end of the test; each test has a Lease of its own."""
    running = []

    async def start(controllers=(DaemonSetController,), *, wait=True, **options):
        settings = {"lease_name": f"operator-{namespace}", "metrics_port": None, **options}
        thread = OperatorThread(Options(kubeconfig=cluster.kubeconfig, **settings), controllers)
        running.append(thread)
        if wait:
            await thread.wait_started()
        return thread

    yield start
    failures = await asyncio.gather(*(thread.stop() for thread in running), return_exceptions=True)
    assert all(failure is None or isinstance(failure, LeadershipLost) for failure in failures), failures


@pytest.fixture
async def operator(start_operator):
    return await start_operator()
