"""One drained backlog: what is measured meanwhile, and whether the outcome is right."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import scheduler_lab as lab
from scheduler_checks import State, violations
from scheduler_churn import Churn
from scheduler_contenders import SCHEDULER_NAME, Contender, Running, cpu, free_port, usage
from scheduler_metrics import DECISION, SENT, histogram, scrape
from scheduler_workloads import Object, Workload, measured_names, unfit_names

from nodewright.controlplane.cluster import LocalCluster
from nodewright.kube.client import Client
from nodewright.kube.resources import EVENTS_V1, NODES, PODS

# Seconds without any change of a Pod, and in all, after which a contender has failed.
STALLED = 60.0
TIMEOUT = 600.0
# How long a Pod that fits nowhere may wait for its condition once all others are told.
TOLD = 10.0


class Stalled(Exception):
    """The scheduler does not bind what is left, or takes too long."""


class Round(msgspec.Struct):
    """One drained backlog. Times in seconds, memory in MiB, `cpu_per_pod` and decisions in milliseconds.

    The drain lasts from the first change of a Pod that a watch shows (a binding, a refusal, the end of a victim) to the
    last binding. `cpu` is the scheduler's from its start until every event is posted, `cpu_per_pod` the part of it from
    the first change on; shares are percent of one core during the drain. `decisions` counts attempts, `decision_...`
    say how long they took, and `sent_...` how long until the binding was sent, which upstream does not tell. `widest`
    is the largest number of measured Pods on a node, `victims` are Pods that were there before and are gone.
    """

    workload: str
    contender: str
    nodes: int
    pods: int
    rate: float
    startup: float
    steady: float
    with_events: float
    cpu: float
    cpu_per_pod: float
    apiserver_share: float
    etcd_share: float
    peak_rss: float
    pss: float
    decisions: int
    decision_mean: float
    decision_p50: float
    decision_p99: float
    sent_p50: float | None
    sent_p99: float | None
    events: int
    widest: int
    victims: int
    churned: dict[str, int]
    wrong: list[str]


class BoundMeta(msgspec.Struct, rename="camel"):
    name: str = ""
    resource_version: str = ""


class BoundSpec(msgspec.Struct, rename="camel"):
    node_name: str = ""


class BoundPod(msgspec.Struct):
    metadata: BoundMeta
    spec: BoundSpec = msgspec.field(default_factory=BoundSpec)


class Moment(msgspec.Struct):
    """The CPU seconds that processes have used, by name, and the monotonic clock."""

    at: float
    cpu: dict[str, float]


class Observer:
    """Notes when a watch shows each of the Pods `wanted` with a node for the first time."""

    def __init__(self, client: Client, wanted: set[str], version: str, moment: Callable[[], Moment]) -> None:
        self._client = client
        self._wanted = wanted
        self._version = version
        self._moment = moment
        self.times: dict[str, float] = {}
        self.nodes: Counter[str] = Counter()
        self.changes = 0
        self.first: Moment | None = None
        self.last: Moment | None = None

    async def run(self) -> None:
        """Watch until all have a node."""
        while self.last is None:  # a busy server ends the watch of a reader that cannot keep up
            watch = self._client.watch(
                PODS, lab.NAMESPACE, type=BoundPod, resource_version=self._version, timeout_seconds=3600
            )
            async for event in watch:
                self._version = event.resource_version
                if event.type == "BOOKMARK":
                    continue
                self.changes += 1
                if self.first is None:
                    self.first = self._moment()
                self._note(event.object)
                if self.last is not None:
                    return

    def _note(self, pod: BoundPod) -> None:
        name, node = pod.metadata.name, pod.spec.node_name
        if not node or name in self.times or name not in self._wanted:
            return
        self.times[name] = time.monotonic()
        self.nodes[node] += 1
        if len(self.times) == len(self._wanted):
            self.last = self._moment()

    async def watch_over(self, running: Running) -> None:
        """Run while the scheduler does. Raises Stalled when nothing happens for too long."""
        observing = asyncio.create_task(self.run())
        try:
            seen, progress = 0, time.monotonic()
            while not observing.done():
                await asyncio.wait({observing}, timeout=1.0)
                running.require_alive()
                now = time.monotonic()
                if self.changes != seen:
                    seen, progress = self.changes, now
                if not observing.done() and (now - progress > STALLED or now - running.started > TIMEOUT):
                    bound = f"{len(self.times)} of {len(self._wanted)} Pods bound"
                    raise Stalled(f"{bound} in {now - running.started:.0f} s, no change for {now - progress:.0f} s")
            await observing
        finally:
            observing.cancel()


async def drain(cluster: LocalCluster, client: Client, contender: Contender, workload: Workload) -> Round:
    """Make the workload's Pods, let the contender place them, judge the outcome, and remove them again."""
    folder = cluster.dir / "bench"
    folder.mkdir(exist_ok=True)
    try:
        await lab.make_pods(client, workload, SCHEDULER_NAME)
        return await _drained(cluster, client, contender, workload, folder)
    finally:
        await lab.remove_pods(client)


async def _drained(
    cluster: LocalCluster, client: Client, contender: Contender, workload: Workload, folder: Path
) -> Round:
    version = (await client.list(PODS, lab.NAMESPACE, limit=1)).resource_version
    port = free_port()
    with Running(contender.argv(cluster, folder, port), folder / f"{contender.name}.log") as running:
        pids = {"scheduler": running.process.pid}
        for part in ("kube-apiserver", "etcd"):
            record = cluster.component(part).running()
            assert record is not None, f"{part} has ended"
            pids[part] = record.pid

        def moment() -> Moment:
            return Moment(time.monotonic(), {part: cpu(pid) for part, pid in pids.items()})

        observer = Observer(client, set(measured_names(workload)), version, moment)
        async with _churning(client, workload) as churn:
            await observer.watch_over(running)
        posted, told = await until_told(client, workload)
        cost = usage(running.process.pid)
        told_metrics = await asyncio.to_thread(scrape, contender.metrics_url(port))
        survivors, wrong = await judge(client, workload)
    assert observer.first is not None
    assert observer.last is not None
    first, last = observer.first, observer.last
    ordered = sorted(observer.times.values())
    seconds = max(last.at - first.at, 1e-6)
    tenth = len(ordered) // 10
    middle = ordered[-tenth - 1] - ordered[tenth]
    return Round(
        workload=workload.name,
        contender=contender.name,
        nodes=workload.nodes,
        pods=workload.pods,
        rate=workload.pods / seconds,
        startup=first.at - running.started,
        steady=(len(ordered) - 2 * tenth - 1) / middle if middle else 0.0,
        with_events=workload.pods / (told - first.at),
        cpu=cost.cpu,
        cpu_per_pod=1000 * (cost.cpu - first.cpu["scheduler"]) / workload.pods,
        apiserver_share=100 * (last.cpu["kube-apiserver"] - first.cpu["kube-apiserver"]) / seconds,
        etcd_share=100 * (last.cpu["etcd"] - first.cpu["etcd"]) / seconds,
        peak_rss=cost.peak_rss,
        pss=cost.pss,
        **_decided(told_metrics),
        events=posted,
        widest=max(observer.nodes.values()),
        victims=workload.placed_pods - survivors,
        churned=dict(churn.done) if churn else {},
        wrong=wrong,
    )


def _decided(metrics: str) -> dict[str, Any]:
    decided, sent = histogram(metrics, DECISION), histogram(metrics, SENT)
    assert decided is not None, f"no {DECISION} in the metrics"
    return {
        "decisions": int(decided.count),
        "decision_mean": 1000 * decided.mean,
        "decision_p50": 1000 * decided.quantile(0.5),
        "decision_p99": 1000 * decided.quantile(0.99),
        "sent_p50": 1000 * sent.quantile(0.5) if sent else None,
        "sent_p99": 1000 * sent.quantile(0.99) if sent else None,
    }


@contextlib.asynccontextmanager
async def _churning(client: Client, workload: Workload) -> AsyncIterator[Churn | None]:
    """The cluster's other life while the context lasts, when the workload has one."""
    if not workload.churn:
        yield None
        return
    churn = Churn(client, workload.nodes, SCHEDULER_NAME)
    task = asyncio.create_task(churn.run())
    try:
        yield churn
        if task.done():
            task.result()  # it never ends by itself but by an error
    finally:
        task.cancel()
        await asyncio.wait({task})
        await churn.clear()


async def until_told(client: Client, workload: Workload) -> tuple[int, float]:
    """The number of events posted, and when the last was: as soon as all are there, or no more come for 3 s."""
    wanted = workload.pods + workload.unfit_pods
    if workload.placed_pods:
        # Each Pod is refused once, preempts, and is placed.
        survivors = len((await client.list(PODS, lab.NAMESPACE, type=BoundPod)).items) - workload.pods
        wanted += workload.pods + workload.placed_pods - survivors
    seen, changed = -1, time.monotonic()
    while seen < wanted and time.monotonic() - changed < 3.0:
        now = await lab.count(client, EVENTS_V1.path(lab.NAMESPACE))
        if now != seen:
            seen, changed = now, time.monotonic()
        if seen < wanted:
            await asyncio.sleep(0.2)
    return seen, changed


async def judge(client: Client, workload: Workload) -> tuple[int, list[str]]:
    """How many of the Pods that were there before still are, and what is wrong with the outcome."""
    deadline = time.monotonic() + TOLD
    while True:
        pods = (await client.list(PODS)).items
        untold = _untold(workload, pods)
        if not untold or time.monotonic() > deadline:
            break
        await asyncio.sleep(0.5)
    wrong = [f"{name} fits nowhere, and its status does not say so" for name in untold]
    bound = {pod["metadata"]["name"] for pod in pods if pod["spec"].get("nodeName")}
    wrong += [f"{name} has no node" for name in measured_names(workload) if name not in bound]
    wrong += [f"{name} fits nowhere, but has a node" for name in unfit_names(workload) if name in bound]
    wrong += violations(State((await client.list(NODES)).items, pods))
    return sum(name.startswith("placed-") for name in bound), wrong


def _untold(workload: Workload, pods: list[Object]) -> list[str]:
    told = {
        pod["metadata"]["name"]
        for pod in pods
        for condition in pod["status"].get("conditions", [])
        if (condition["type"], condition["status"], condition.get("reason"))
        == ("PodScheduled", "False", "Unschedulable")
    }
    return [name for name in unfit_names(workload) if name not in told]
