"""What a living cluster does beside a backlog: heartbeats, labels, Services, other Pods, a node that comes and goes.

Everything happens at fixed times and is left out where its time has passed, so that both contenders get the same
load, and a slow API server is not hit twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import Counter
from collections.abc import Awaitable, Callable

import msgspec
from scheduler_lab import CHURN_NAMESPACE, add_node
from scheduler_workloads import CHURN_LABEL, Template, node_name, node_object, pod_object, ready

from nodewright.kube.client import Client
from nodewright.kube.errors import NotFound
from nodewright.kube.resources import NODES, PODS, SERVICES
from nodewright.kube.times import now_rfc3339

# Per second.
HEARTBEATS = 20
LABELS = 5
SERVICES_RATE = 5
PODS_RATE = 10
NODES_RATE = 1
UNFIT_RATE = 1
# Services and Pods made and not yet deleted, of each kind.
KEPT = 5


class Churn:
    """Changes things until cancelled. `done` counts what was done, by kind."""

    def __init__(self, client: Client, nodes: int, scheduler_name: str) -> None:
        self._client = client
        self._nodes = nodes
        self._scheduler_name = scheduler_name
        self.done: Counter[str] = Counter()

    async def run(self) -> None:
        """Run all kinds at their rates."""
        kinds = (
            ("heartbeats", HEARTBEATS, self._heartbeat),
            ("labels", LABELS, self._label),
            ("services", SERVICES_RATE, self._service),
            ("pods", PODS_RATE, self._pod),
            ("nodes", NODES_RATE, self._node),
            ("unfit pods", UNFIT_RATE, self._unfit),
        )
        async with asyncio.TaskGroup() as group:
            for kind, rate, work in kinds:
                group.create_task(self._at_rate(kind, rate, work))

    async def clear(self) -> None:
        """Take away the node that comes and goes, when it is there. The rest goes with its namespace's objects."""
        with contextlib.suppress(NotFound):
            await self._client.delete(NODES, node_name(self._nodes))

    async def _at_rate(self, kind: str, rate: float, work: Callable[[int], Awaitable[None]]) -> None:
        begun = time.monotonic()
        number = itertools.count()
        while True:
            await work(next(number))
            self.done[kind] += 1
            turns = int((time.monotonic() - begun) * rate) + 1
            await asyncio.sleep(begun + turns / rate - time.monotonic())

    async def _heartbeat(self, number: int) -> None:
        name = node_name(number * 7 % self._nodes)
        patch = {"status": {"conditions": [ready(now_rfc3339())]}}
        await self._client.patch(NODES, name, patch, subresource="status")

    async def _label(self, number: int) -> None:
        name = node_name(number * 11 % self._nodes)
        await self._client.patch(NODES, name, {"metadata": {"labels": {CHURN_LABEL: str(number % 2)}}})

    async def _service(self, number: int) -> None:
        service = {"metadata": {"name": f"service-{number}"}, "spec": {"selector": {"a": "b"}, "ports": [{"port": 80}]}}
        await self._client.create(SERVICES, service, CHURN_NAMESPACE)
        if number >= KEPT:
            await self._client.delete(SERVICES, f"service-{number - KEPT}", CHURN_NAMESPACE)

    async def _pod(self, number: int) -> None:
        node = node_name(number * 13 % self._nodes)
        await self._create(pod_object(f"pod-{number}", Template(labels={"a": "b"}), self._scheduler_name, node))
        if number >= KEPT:
            await self._delete_pod(f"pod-{number - KEPT}")

    async def _node(self, number: int) -> None:
        """A cordoned node comes, and goes the next time: it must not keep any of the measured Pods."""
        if number % 2:
            await self._client.delete(NODES, node_name(self._nodes))
        else:
            await add_node(self._client, node_object(self._nodes) | {"spec": {"unschedulable": True}})

    async def _unfit(self, number: int) -> None:
        """A Pod that goes before all others and fits nowhere."""
        template = Template(cpu="72", labels={"a": "b"}, priority_class="bench-high")
        await self._create(pod_object(f"unfit-{number}", template, self._scheduler_name))
        if number:
            await self._delete_pod(f"unfit-{number - 1}")

    async def _create(self, pod: dict[str, object]) -> None:
        await self._client.request("POST", PODS.path(CHURN_NAMESPACE), body=msgspec.json.encode(pod))

    async def _delete_pod(self, name: str) -> None:
        await self._client.delete(PODS, name, CHURN_NAMESPACE, grace_period_seconds=0)
