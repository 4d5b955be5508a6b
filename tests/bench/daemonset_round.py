"""One controller's turn on a control plane of its own: what is measured, and whether the outcome is right."""
# ruff: noqa: RUF012 - msgspec gives every instance its own copy of an empty list or dict default

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any, ClassVar

import msgspec
import scheduler_lab as lab
from daemonset_lab import Requests, daemonset, make_account
from scheduler_contenders import Contender, Running, cpu, usage

from nodewright.controlplane.cluster import APISERVER, LocalCluster
from nodewright.kube.api.base import KubeStruct
from nodewright.kube.cache import WatchCache
from nodewright.kube.client import Client
from nodewright.kube.config import load
from nodewright.kube.errors import NotFound
from nodewright.kube.objects import ObjectMeta
from nodewright.kube.resources import CONTROLLERREVISIONS, PODS, Resource

HASH = "controller-revision-hash"
# Seconds without any change after which a contender has failed, and without any request after which it is at rest.
STALLED = 60.0
REST = 1.5
# How many requests the kubelets' part has under way at a time.
KUBELETS = 8


class Stalled(Exception):
    """The controller does not do what is left."""


class Round(msgspec.Struct, kw_only=True):
    """One figure of one contender. Memory in MiB, `cpu_per_pod` and `apiserver_per_pod` in milliseconds.

    `seconds` lasts from the user's request until the outcome is there; CPU and requests are counted until the
    controller is at rest again. `idle` is its CPU in percent of one core, where nothing happens.
    """

    scenario: str
    contender: str
    daemonsets: int
    nodes: int
    pods: int
    seconds: float
    rate: float
    cpu_per_pod: float
    apiserver_per_pod: float
    requests_per_pod: float
    requests: dict[str, int]
    peak_rss: float
    pss: float
    idle: float | None = None
    startup: float | None = None


class BenchCondition(KubeStruct):
    type: str
    status: str


class BenchStatus(KubeStruct):
    conditions: list[BenchCondition] = []


class BenchPod(KubeStruct):
    metadata: ObjectMeta
    spec: dict[str, Any]
    status: BenchStatus = msgspec.field(default_factory=BenchStatus)

    @property
    def ready(self) -> bool:
        return any(c.type == "Ready" and c.status == "True" for c in self.status.conditions)

    @property
    def node(self) -> str:
        """The node that it is pinned to."""
        required = self.spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        node: str = required["nodeSelectorTerms"][0]["matchFields"][0]["values"][0]
        return node


class Counts(KubeStruct):
    observed_generation: int = 0
    desired_number_scheduled: int = 0
    current_number_scheduled: int = 0
    number_ready: int = 0
    updated_number_scheduled: int = 0
    number_available: int = 0
    number_unavailable: int = 0
    number_misscheduled: int = 0


class BenchDaemonSet(KubeStruct):
    metadata: ObjectMeta
    status: Counts = msgspec.field(default_factory=Counts)


class BenchRevision(KubeStruct):
    metadata: ObjectMeta
    revision: int = 0


class World:
    """The cluster as watches show it, and the kubelets' part in it once `kubelets` is set."""

    RUNNING: ClassVar[bytes] = msgspec.json.encode(
        {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}
    )

    def __init__(self, client: Client, kind: Resource) -> None:
        self.client = client
        self.kind = kind
        self.kubelets = False
        self.changes = 0
        self.changed = asyncio.Event()
        self.pods = WatchCache(client, PODS, type=BenchPod, namespace=lab.NAMESPACE)
        self.daemonsets = WatchCache(client, kind, type=BenchDaemonSet, namespace=lab.NAMESPACE)
        self._work: asyncio.Queue[BenchPod] = asyncio.Queue()
        self.pods.add_handler(self._pod)
        self.daemonsets.add_handler(lambda _old, _new: self._tell())

    @contextlib.asynccontextmanager
    async def followed(self) -> AsyncIterator[None]:
        """Follow, and play the kubelets, while the context lasts."""
        work = [self.pods.run(), self.daemonsets.run(), *(self._kubelet() for _ in range(KUBELETS))]
        tasks = [asyncio.create_task(each) for each in work]
        try:
            await self.pods.wait_synced()
            await self.daemonsets.wait_synced()
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def start_kubelets(self) -> None:
        """From now on Pods become Running and Ready, and end when they are deleted."""
        self.kubelets = True
        for pod in self.pods.values():
            self._pod(None, pod)

    async def until(self, done: Callable[[], bool], what: str, running: Running) -> float:
        """Wait until `done`; gives when it was seen. Raises Stalled when nothing changes for too long."""
        seen, progress = -1, time.monotonic()
        while not done():
            self.changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self.changed.wait()
            running.require_alive()
            if self.changes != seen:
                seen, progress = self.changes, time.monotonic()
            elif time.monotonic() - progress > STALLED:
                raise Stalled(f"{what}: no change for {STALLED:.0f} s, {len(self.pods)} Pods")
        return time.monotonic()

    def _tell(self) -> None:
        self.changes += 1
        self.changed.set()

    def _pod(self, _old: BenchPod | None, new: BenchPod | None) -> None:
        self._tell()
        if self.kubelets and new is not None and (new.metadata.deletion_timestamp or not new.ready):
            self._work.put_nowait(new)

    async def _kubelet(self) -> None:
        while True:
            pod = await self._work.get()
            meta = pod.metadata
            with contextlib.suppress(NotFound):
                if meta.deletion_timestamp:
                    await self.client.delete(PODS, meta.name, meta.namespace, grace_period_seconds=0)
                else:
                    await self.client.patch(
                        PODS, meta.name, self.RUNNING, meta.namespace, type=msgspec.Raw, subresource="status"
                    )


class Turn:
    """A contender that runs, and the world it runs in."""

    def __init__(
        self, cluster: LocalCluster, world: World, contender: Contender, running: Running, nodes: int, daemonsets: int
    ) -> None:
        self.world = world
        self.running = running
        self.nodes = nodes
        self.daemonsets = daemonsets
        self._contender = contender
        self._requests = Requests(cluster)
        record = cluster.component(APISERVER).running()
        assert record is not None, "kube-apiserver has ended"
        self._apiserver = record.pid

    @property
    def pods(self) -> int:
        """How many Pods there are when all is done."""
        return self.nodes * self.daemonsets

    async def measure(self, scenario: str, do: Callable[[], Any], done: Callable[[], bool]) -> Round:
        """Do it, wait until it is done and the controller at rest, and tell what it took."""
        await self.rest()
        self._requests.since()
        pid = self.running.process.pid
        before, server_before = cpu(pid), cpu(self._apiserver)
        started = time.monotonic()
        await do()
        seconds = await self.world.until(done, f"{self._contender.name}, {scenario}", self.running) - started
        server = cpu(self._apiserver) - server_before
        await self.rest()
        cost = usage(pid)
        requests = self._requests.since()
        return Round(
            scenario=scenario,
            contender=self._contender.name,
            daemonsets=self.daemonsets,
            nodes=self.nodes,
            pods=self.pods,
            seconds=seconds,
            rate=self.pods / seconds,
            cpu_per_pod=1000 * (cost.cpu - before) / self.pods,
            apiserver_per_pod=1000 * server / self.pods,
            requests_per_pod=sum(requests.values()) / self.pods,
            requests=requests,
            peak_rss=cost.peak_rss,
            pss=cost.pss,
        )

    async def rest(self) -> None:
        """Wait until the controller has asked nothing for a while."""
        seen, since = -1, time.monotonic()
        while time.monotonic() - since < REST:
            if (size := self._requests.size()) != seen:
                seen, since = size, time.monotonic()
            await asyncio.sleep(0.1)

    async def idle(self, seconds: float) -> float:
        """The controller's CPU in percent of one core while nothing happens."""
        pid = self.running.process.pid
        before, started = cpu(pid), time.monotonic()
        await asyncio.sleep(seconds)
        return 100 * (cpu(pid) - before) / (time.monotonic() - started)

    async def judge(self) -> list[str]:
        """What is wrong with the outcome: a node without its Pod or with two, an old revision, a wrong status."""
        wrong = []
        pods = (await self.world.client.list(PODS, lab.NAMESPACE, type=BenchPod)).items
        revisions = (await self.world.client.list(CONTROLLERREVISIONS, lab.NAMESPACE, type=BenchRevision)).items
        for ds in (await self.world.client.list(self.world.kind, lab.NAMESPACE, type=BenchDaemonSet)).items:
            uid = ds.metadata.uid
            mine = [pod for pod in pods if pod.metadata.owner_references[0].uid == uid]
            current = max((r for r in revisions if r.metadata.owner_references[0].uid == uid), key=_number)
            at = Counter(pod.node for pod in mine)
            wrong += [f"{ds.metadata.name}: {n} Pods on {node}" for node, n in at.items() if n > 1]
            if len(at) != self.nodes:
                wrong.append(f"{ds.metadata.name}: Pods on {len(at)} of {self.nodes} nodes")
            old = sum(pod.metadata.labels[HASH] != current.metadata.labels[HASH] for pod in mine)
            if old:
                wrong.append(f"{ds.metadata.name}: {old} Pods of an old revision")
            if ds.status != _complete(ds.metadata.generation, self.nodes):
                wrong.append(f"{ds.metadata.name}: {ds.status}")
        return wrong


def _number(revision: BenchRevision) -> int:
    return revision.revision


def _complete(generation: int, nodes: int) -> Counts:
    return Counts(
        observed_generation=generation,
        desired_number_scheduled=nodes,
        current_number_scheduled=nodes,
        number_ready=nodes,
        updated_number_scheduled=nodes,
        number_available=nodes,
    )


@contextlib.asynccontextmanager
async def turn(
    cluster: LocalCluster, contender: Contender, kind: Resource, nodes: int, daemonsets: int
) -> AsyncIterator[tuple[Turn, float]]:
    """Nodes, and a contender that has shown that it works; gives the turn and the seconds until then."""
    folder = cluster.dir / "bench"
    folder.mkdir(exist_ok=True)
    async with Client(load(cluster.kubeconfig), user_agent="bench") as client:
        await lab.furnish(client, nodes)
        await make_account(cluster, client, folder)
        # It matches no node; that its status is written tells that the controller is at work.
        probe = daemonset("probe", node_selector={"bench": "none"})
        await client.create(kind, probe)
        world = World(client, kind)
        with Running(contender.argv(cluster, folder, 0), folder / f"{contender.name}.log") as running:
            async with world.followed():
                key = f"{lab.NAMESPACE}/probe"
                ready = await world.until(
                    lambda: (ds := world.daemonsets.get(key)) is not None and ds.status.observed_generation == 1,
                    f"{contender.name} starts",
                    running,
                )
                await client.delete(kind, "probe", lab.NAMESPACE, propagation_policy="Background")
                for revision in (await client.list(CONTROLLERREVISIONS, lab.NAMESPACE)).items:
                    await client.delete(CONTROLLERREVISIONS, revision["metadata"]["name"], lab.NAMESPACE)
                yield Turn(cluster, world, contender, running, nodes, daemonsets), ready - running.started


async def one_large(
    cluster: LocalCluster, contender: Contender, kind: Resource, nodes: int
) -> tuple[list[Round], list[str]]:
    """One DaemonSet on all nodes: made, then rolled out anew."""
    async with turn(cluster, contender, kind, nodes, 1) as (now, startup):
        world, name, key = now.world, "large", f"{lab.NAMESPACE}/large"

        def status_is(generation: int) -> bool:
            ds = world.daemonsets.get(key)
            return ds is not None and ds.status == _complete(generation, nodes)

        created = await now.measure(
            "create", lambda: world.client.create(kind, daemonset(name)), lambda: len(world.pods) == nodes
        )
        created.startup = startup
        ready = await now.measure("ready", world.start_kubelets, lambda: status_is(1))
        template = {"spec": {"template": daemonset(name, image="pause:2")["spec"]["template"]}}
        rolled = await now.measure(
            "rollout", lambda: world.client.patch(kind, name, template, lab.NAMESPACE), lambda: status_is(2)
        )
        return [created, ready, rolled], await now.judge()


async def many_small(
    cluster: LocalCluster, contender: Contender, kind: Resource, nodes: int, daemonsets: int, idle: float
) -> tuple[list[Round], list[str]]:
    """Many DaemonSets on fewer nodes: made, all Pods ready, then at rest."""
    async with turn(cluster, contender, kind, nodes, daemonsets) as (now, startup):
        world = now.world

        async def make() -> None:
            await lab.each(
                (daemonset(f"small-{number:03}") for number in range(daemonsets)),
                lambda ds: world.client.create(kind, ds),
            )

        def all_complete() -> bool:
            found = world.daemonsets.values()
            return len(found) == daemonsets and all(ds.status.number_available == nodes for ds in found)

        created = await now.measure("create many", make, lambda: len(world.pods) == now.pods)
        created.startup = startup
        steady = await now.measure("steady", world.start_kubelets, all_complete)
        steady.idle = await now.idle(idle)
        return [created, steady], await now.judge()
