"""A control plane, nodes without kubelets, and a backlog of Pods: what scheduler benchmarks and comparisons run on.

All of it is the product's own control plane with its own flags, audit log included; only etcd's fsync is off and its
data is in memory, so that the disk of the machine does not decide.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import msgspec
from scheduler_workloads import PRIORITIES, Object, Workload, backlog, node_object, placed_objects

from nodewright.controlplane.assets import Assets
from nodewright.controlplane.bootstrap import apply_all
from nodewright.controlplane.cluster import LocalCluster
from nodewright.controlplane.layout import Layout
from nodewright.kube.client import Client
from nodewright.kube.resources import EVENTS_V1, NAMESPACES, NODES, PODS, PRIORITYCLASSES, SERVICEACCOUNTS, SERVICES

# The measured Pods, and apart from them what churns.
NAMESPACE = "bench"
CHURN_NAMESPACE = "bench-churn"
CONCURRENCY = 32

T = TypeVar("T")


@contextlib.contextmanager
def control_plane(configure: Callable[[LocalCluster], None] | None = None) -> Iterator[LocalCluster]:
    """etcd and kube-apiserver on loopback, in memory; stopped and removed at the end.

    `configure` may change configuration files before they start.
    """
    memory = Path("/dev/shm")
    root = Path(tempfile.mkdtemp(prefix="nodewright-bench-", dir=memory if memory.is_dir() else None))
    cluster = LocalCluster.ensure(Layout(root, "bench"))
    try:
        binaries = Assets().obtain(["etcd", "kube-apiserver"])
        cluster.prepare()
        if configure is not None:
            configure(cluster)
        cluster.start_etcd(binaries["etcd"], unsafe_no_fsync=True)
        cluster.start_apiserver(binaries["kube-apiserver"])
        apply_all(cluster.kubeconfig)
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(root, ignore_errors=True)


async def each(items: Iterable[T], work: Callable[[T], Awaitable[object]]) -> None:
    """Run `work` for all items, CONCURRENCY at a time."""
    queue = iter(items)

    async def worker() -> None:
        for item in queue:
            await work(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(CONCURRENCY):
            group.create_task(worker())


async def furnish(client: Client, nodes: int) -> None:
    """Namespaces, ServiceAccounts, PriorityClasses and nodes, ready for Pods."""
    for namespace in (NAMESPACE, CHURN_NAMESPACE):
        await client.create(NAMESPACES, {"metadata": {"name": namespace}})
        await client.create(SERVICEACCOUNTS, {"metadata": {"name": "default", "namespace": namespace}})
    for name, value in PRIORITIES.items():
        await client.create(PRIORITYCLASSES, {"metadata": {"name": name}, "value": value})
    await each((node_object(number) for number in range(nodes)), lambda node: add_node(client, node))


async def add_node(client: Client, node: Object) -> None:
    """Create a node that takes Pods at once."""
    made = await client.create(NODES, node)
    # Admission taints every new node as not ready; here nobody would ever take that back.
    if made["spec"].get("taints"):
        await client.patch(NODES, made["metadata"]["name"], {"spec": {"taints": None}})


async def make_pods(client: Client, workload: Workload, scheduler_name: str) -> None:
    """The Pods that stand beside it, then the backlog, created while no scheduler runs."""
    path = PODS.path(NAMESPACE)

    async def make(pod: Object) -> None:
        await client.request("POST", path, body=msgspec.json.encode(pod))

    await each(placed_objects(workload, scheduler_name), make)
    await each(backlog(workload, scheduler_name), make)


async def remove_pods(client: Client) -> None:
    """Delete all Pods, Services and events, so that every round starts from the same state."""
    now = {"gracePeriodSeconds": "0"}

    async def remove(path: str) -> None:
        await client.request("DELETE", path, params=now, timeout=300)
        if left := await count(client, path):
            raise RuntimeError(f"{left} objects are left at {path} after their deletion")

    # The server deletes the objects of a collection one after another; what is apart may go at the same time.
    kinds = (PODS, SERVICES, EVENTS_V1)
    await each((kind.path(namespace) for kind in kinds for namespace in (NAMESPACE, CHURN_NAMESPACE)), remove)


class Meta(msgspec.Struct, rename="camel"):
    remaining_item_count: int = 0


class Page(msgspec.Struct):
    metadata: Meta
    items: list[msgspec.Raw]


async def count(client: Client, path: str) -> int:
    """How many objects a collection holds, without reading them all."""
    page = msgspec.json.decode(await client.request("GET", path, params={"limit": "1"}), type=Page)
    return page.metadata.remaining_item_count + len(page.items)
