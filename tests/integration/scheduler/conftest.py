"""The scheduler in front of a real API server of its own: nodes are cluster-wide, and others' would change messages."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from nodewright.controlplane.cluster import LocalCluster
from nodewright.controlplane.layout import Layout
from nodewright.kube.client import Client
from nodewright.kube.config import load
from nodewright.kube.errors import NotFound
from nodewright.kube.resources import EVENTS_V1, NAMESPACES, NODES, PODS, SCHEDULERPROFILES, SERVICEACCOUNTS
from nodewright.scheduler.process import Options, SchedulerProcess
from support.lab_cluster import start_control_plane


@pytest.fixture(scope="session")
def lab(binaries: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    cluster = LocalCluster.ensure(Layout(tmp_path_factory.mktemp("sched"), "sched"))
    try:
        start_control_plane(cluster, binaries)
        yield cluster
    finally:
        cluster.stop()


async def eventually(check: Callable[[], Awaitable[object]], timeout: float = 15.0) -> object:
    """The first true answer of `check`; the last failure when there is none in time."""
    deadline = asyncio.get_running_loop().time() + timeout
    while True:
        try:
            answer = await check()
            failure: Exception | None = None
            if answer:
                return answer
        except (AssertionError, NotFound) as error:
            failure = error
        if asyncio.get_running_loop().time() > deadline:
            raise failure or AssertionError(f"{check} was not true within {timeout} s")
        await asyncio.sleep(0.05)


class Space:
    """A namespace and nodes for one test."""

    def __init__(self, client: Client, namespace: str) -> None:
        self.client = client
        self.namespace = namespace

    async def node(self, name: str, cpu: str = "4", memory: str = "8Gi", **spec: object) -> None:
        amounts = {"cpu": cpu, "memory": memory, "pods": "20"}
        labels = {"kubernetes.io/hostname": name, **spec.pop("labels", {})}
        body = {"metadata": {"name": name, "labels": labels}, "spec": spec, "status": {"allocatable": amounts}}
        await self.client.create(NODES, body)
        # admission taints new nodes as not ready, which is the node lifecycle controller's to take back
        await self.client.patch(NODES, name, {"spec": {"taints": spec.get("taints")}})

    async def pod(self, name: str, requests: dict[str, str] | None = None, **spec: object) -> dict[str, object]:
        container = {"name": "c", "image": "none:1", "resources": {"requests": requests or {}}}
        body = {
            "metadata": {"name": name},
            "spec": {
                "schedulerName": "nodewright",
                "terminationGracePeriodSeconds": 0,
                "containers": [container],
                **spec,
            },
        }
        return await self.client.create(PODS, body, self.namespace)

    async def get(self, name: str) -> dict[str, object]:
        return await self.client.get(PODS, name, self.namespace)

    async def node_of(self, name: str) -> str:
        return (await self.get(name))["spec"].get("nodeName", "")

    async def condition(self, name: str) -> dict[str, str]:
        conditions = (await self.get(name)).get("status", {}).get("conditions", [])
        return next((c for c in conditions if c["type"] == "PodScheduled"), {})

    async def events(self, name: str, reason: str) -> list[dict[str, object]]:
        found = await self.client.list(EVENTS_V1, self.namespace)
        return [e for e in found.items if e["regarding"]["name"] == name and e["reason"] == reason]

    async def bound(self, *names: str) -> dict[str, str]:
        """Wait until all have nodes; which."""

        async def check() -> dict[str, str] | None:
            nodes = {name: await self.node_of(name) for name in names}
            return nodes if all(nodes.values()) else None

        return await eventually(check)

    async def refused(self, name: str) -> dict[str, str]:
        """Wait until the Pod's condition says that it was not placed."""

        async def check() -> dict[str, str] | None:
            condition = await self.condition(name)
            return condition if condition.get("status") == "False" else None

        return await eventually(check)


@pytest.fixture
async def client(lab: LocalCluster) -> AsyncIterator[Client]:
    async with Client(load(lab.kubeconfig), user_agent="test") as one:
        yield one


@pytest.fixture
async def space(client: Client) -> AsyncIterator[Space]:
    name = f"s-{uuid.uuid4().hex[:8]}"
    await client.create(NAMESPACES, {"metadata": {"name": name}})
    await client.create(SERVICEACCOUNTS, {"metadata": {"name": "default", "namespace": name}})
    yield Space(client, name)
    for pod in (await client.list(PODS, name)).items:
        with contextlib.suppress(NotFound):
            await client.delete(PODS, pod["metadata"]["name"], name, grace_period_seconds=0)
    for node in (await client.list(NODES)).items:
        await client.delete(NODES, node["metadata"]["name"])


Start = Callable[..., SchedulerProcess]


@pytest.fixture
async def start(lab: LocalCluster) -> AsyncIterator[Start]:
    """Starts schedulers in this process; all are stopped at the end. The user is the scheduler's own, not an admin."""
    tasks: list[asyncio.Task[None]] = []

    def start_one(registry: object = None, **options: object) -> SchedulerProcess:
        defaults = {"kubeconfig": lab.layout.kubeconfig("scheduler"), "leader_elect": False, "metrics_port": None}
        process = SchedulerProcess(Options(**{**defaults, **options}), registry=registry)
        process.task = asyncio.ensure_future(process.run())
        tasks.append(process.task)
        return process

    yield start_one
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(r, asyncio.CancelledError) or r is None for r in results), results


Make = Callable[..., Awaitable[dict[str, object]]]


@pytest.fixture
async def profile(client: Client) -> AsyncIterator[Make]:
    """Makes SchedulerProfiles, each for the schedulerName of its own name, and deletes them at the end."""
    made: list[str] = []

    async def make(name: str, **spec: object) -> dict[str, object]:
        made.append(name)
        body = {"metadata": {"name": name}, "spec": {"schedulerName": name, **spec}}
        return await client.create(SCHEDULERPROFILES, body)

    yield make
    for name in made:
        with contextlib.suppress(NotFound):
            await client.delete(SCHEDULERPROFILES, name)


async def verdict(client: Client, name: str, generation: int = 1) -> dict[str, str]:
    """Wait for a profile's condition Accepted of this generation or a later one."""

    async def check() -> dict[str, str] | None:
        item = await client.get(SCHEDULERPROFILES, name)
        conditions = item.get("status", {}).get("conditions", [])
        return next((c for c in conditions if c["type"] == "Accepted" and c["observedGeneration"] >= generation), None)

    return await eventually(check)


def enabling(*names: str) -> dict[str, object]:
    """A profile's `plugins` that enables these at all their extension points."""
    return {"multiPoint": {"enabled": [{"name": name} for name in names]}}
