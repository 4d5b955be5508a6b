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

import msgspec

from nodewright.controlplane.assets import Assets
from nodewright.controlplane.bootstrap import apply_all
from nodewright.controlplane.cluster import LocalCluster
from nodewright.controlplane.layout import Layout
from nodewright.kube.client import Client
from nodewright.kube.resources import EVENTS_V1, NAMESPACES, NODES, PODS, SERVICEACCOUNTS

NAMESPACE = "bench"
CONCURRENCY = 32


class Workload(msgspec.Struct, frozen=True):
    """How many nodes and Pods of which size. The Pod is scheduler_perf's default one."""

    nodes: int = 1000
    pods: int = 5000
    node_cpu: str = "32"
    node_memory: str = "256Gi"
    node_pods: str = "110"
    zones: int = 3
    pod_cpu: str = "100m"
    pod_memory: str = "500Mi"


@contextlib.contextmanager
def control_plane() -> Iterator[LocalCluster]:
    """etcd and kube-apiserver on loopback, in memory; stopped and removed at the end."""
    memory = Path("/dev/shm")
    root = Path(tempfile.mkdtemp(prefix="nodewright-bench-", dir=memory if memory.is_dir() else None))
    cluster = LocalCluster.ensure(Layout(root, "bench"))
    try:
        binaries = Assets().obtain(["etcd", "kube-apiserver"])
        cluster.prepare()
        cluster.start_etcd(binaries["etcd"], unsafe_no_fsync=True)
        cluster.start_apiserver(binaries["kube-apiserver"])
        apply_all(cluster.kubeconfig)
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(root, ignore_errors=True)


async def each(items: Iterable[object], work: Callable[[object], Awaitable[object]]) -> None:
    """Run `work` for all items, CONCURRENCY at a time."""
    queue = iter(items)

    async def worker() -> None:
        for item in queue:
            await work(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(CONCURRENCY):
            group.create_task(worker())


async def make_nodes(client: Client, load: Workload) -> None:
    """Namespace, ServiceAccount and nodes, ready for Pods."""
    await client.create(NAMESPACES, {"metadata": {"name": NAMESPACE}})
    await client.create(SERVICEACCOUNTS, {"metadata": {"name": "default", "namespace": NAMESPACE}})

    async def make(number: object) -> None:
        node = await client.create(NODES, node_object(int(str(number)), load))
        # Admission taints every new node as not ready; here nobody would ever take that back.
        if node["spec"].get("taints"):
            await client.patch(NODES, node["metadata"]["name"], {"spec": {"taints": None}})

    await each(range(load.nodes), make)


def node_object(number: int, load: Workload) -> dict[str, object]:
    name = f"node-{number:05}"
    amounts = {"cpu": load.node_cpu, "memory": load.node_memory, "pods": load.node_pods}
    return {
        "metadata": {
            "name": name,
            "labels": {
                "kubernetes.io/hostname": name,
                "topology.kubernetes.io/zone": f"zone-{number % load.zones}",
            },
        },
        "status": {
            "capacity": amounts,
            "allocatable": amounts,
            "conditions": [{"type": "Ready", "status": "True", "reason": "Bench", "message": "no kubelet"}],
        },
    }


async def make_pods(client: Client, load: Workload, scheduler_name: str) -> None:
    """The backlog, created while no scheduler runs."""
    path = PODS.path(NAMESPACE)

    async def make(number: object) -> None:
        body = msgspec.json.encode(pod_object(f"pod-{number}", load, scheduler_name))
        await client.request("POST", path, body=body)

    await each(range(load.pods), make)


def pod_object(name: str, load: Workload, scheduler_name: str) -> dict[str, object]:
    requests = {"cpu": load.pod_cpu, "memory": load.pod_memory}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "bench"}},
        "spec": {
            "schedulerName": scheduler_name,
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "pause", "image": "pause:bench", "resources": {"requests": requests}}],
        },
    }


async def remove_pods(client: Client) -> None:
    """Delete all Pods and events, so that every round starts from the same state."""
    names = [item["metadata"]["name"] for item in (await client.list(PODS, NAMESPACE)).items]
    await each(names, lambda name: client.delete(PODS, str(name), NAMESPACE, grace_period_seconds=0))
    await client.request("DELETE", EVENTS_V1.path(NAMESPACE), timeout=300)


class Meta(msgspec.Struct, rename="camel"):
    remaining_item_count: int = 0


class Page(msgspec.Struct):
    metadata: Meta
    items: list[msgspec.Raw]


async def count(client: Client, path: str) -> int:
    """How many objects a collection holds, without reading them all."""
    page = msgspec.json.decode(await client.request("GET", path, params={"limit": "1"}), type=Page)
    return page.metadata.remaining_item_count + len(page.items)
