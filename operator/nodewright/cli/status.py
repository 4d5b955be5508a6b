"""`nodewright status`: what runs, and whether it is healthy."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import typer
from rich.markup import escape

from nodewright.cli.options import DEFAULT, Name, Output, StateDir, layout_of
from nodewright.cli.output import FAILED, Format, emit, human_bytes, print_table, stdout
from nodewright.cli.waiting import not_ready_reason
from nodewright.controlplane import processes
from nodewright.controlplane.cluster import APISERVER, STOP_ORDER, LocalCluster
from nodewright.kube import config as kubeconfigs
from nodewright.kube.client import Client
from nodewright.kube.errors import ApiError
from nodewright.kube.resources import NODES

_START_ORDER = tuple(reversed(STOP_ORDER))


class ComponentStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    """One process. `memory` is its proportional set size in bytes, `health` the problem or empty when healthy."""

    name: str
    state: str
    health: str = ""
    pid: int | None = None
    memory: int | None = None
    age: float | None = None


_READINESS = {True: "[green]Ready[/]", False: "[red]NotReady[/]", None: "[yellow]Unknown[/]"}


class NodeStatus(msgspec.Struct, frozen=True, omit_defaults=True):
    """One Node as the API server knows it."""

    name: str
    ready: bool | None
    """None: not known, as nobody can be asked."""
    reason: str = ""
    address: str = ""
    pod_cidr: str = ""


class ClusterStatus(msgspec.Struct, frozen=True):
    """What `nodewright status -o json` prints."""

    name: str
    server: str
    healthy: bool
    components: list[ComponentStatus]
    nodes: list[NodeStatus]


def command(name: Name = DEFAULT, state_dir: StateDir = None, output: Output = Format.TABLE) -> None:
    """Show the cluster's processes and nodes. Exit code 1 when anything is not as it should be."""
    found = examine(LocalCluster.load(layout_of(name, state_dir)))
    if output is Format.TABLE:
        _print(found)
    else:
        emit(found, output)
    if not found.healthy:
        raise typer.Exit(FAILED)


def examine(cluster: LocalCluster) -> ClusterStatus:
    """Look at every component and every node."""
    agents = [f"agent-{host.name}" for host in cluster.state.node_hosts()]
    with ThreadPoolExecutor(max_workers=8) as pool:  # one that hangs must not hold up the others
        components = list(pool.map(lambda name: _component(cluster, name), [*_START_ORDER, *agents]))
    found = _nodes(cluster) if any(c.name == APISERVER and c.state == "running" for c in components) else None
    nodes = found or []
    why = "the API server does not answer" if found is None else "has not registered"
    missing = {host.name for host in cluster.state.node_hosts()} - {node.name for node in nodes}
    nodes += [NodeStatus(name, None if found is None else False, why) for name in sorted(missing)]
    healthy = all(c.state == "running" and not c.health for c in components) and all(node.ready for node in nodes)
    return ClusterStatus(cluster.name, cluster.server, healthy, components, nodes)


def _component(cluster: LocalCluster, name: str) -> ComponentStatus:
    part = cluster.component(name)
    record = part.record()
    if record is None:
        return ComponentStatus(name, "stopped")
    if not processes.is_alive(record):
        return ComponentStatus(name, "died", f"ended without being asked to; see {part.log_path}")
    problem = cluster.health(name) if name in STOP_ORDER else None
    age = max(0.0, time.time() - record.started)
    return ComponentStatus(name, "running", problem or "", record.pid, processes.memory(record.pid), age)


def _nodes(cluster: LocalCluster) -> list[NodeStatus] | None:
    async def read() -> list[dict[str, Any]]:
        async with Client(kubeconfigs.load(cluster.kubeconfig)) as client, asyncio.timeout(10):
            return (await client.list(NODES)).items

    try:
        return [_node(node) for node in asyncio.run(read())]
    except (ApiError, TimeoutError):
        return None  # the components' table says what is wrong with the API server


def _node(node: dict[str, Any]) -> NodeStatus:
    reason = not_ready_reason(node)
    addresses = {a["type"]: a["address"] for a in (node.get("status") or {}).get("addresses") or []}
    pod_cidr = (node.get("spec") or {}).get("podCIDR", "")
    return NodeStatus(node["metadata"]["name"], not reason, reason, addresses.get("InternalIP", ""), pod_cidr)


def _print(found: ClusterStatus) -> None:
    stdout().print(f"cluster [bold]{found.name}[/] at {found.server}\n")
    rows = []
    for part in found.components:
        good = part.state == "running" and not part.health
        state = f"[{'green' if part.state == 'running' else 'red'}]{part.state}[/]"
        health = "[green]√[/]" if good else f"[red]×[/] {escape(part.health)}" if part.health else ""
        memory = "" if part.memory is None else human_bytes(part.memory)
        rows.append([part.name, str(part.pid or ""), state, memory, _age(part.age), health])
    print_table(["component", "pid", "state", "memory", "age", "health"], rows)
    if found.nodes:
        stdout().print()
        rows = [
            [
                node.name,
                _READINESS[node.ready],
                node.address,
                node.pod_cidr,
                escape(node.reason),
            ]
            for node in found.nodes
        ]
        print_table(["node", "status", "address", "pod cidr", "reason"], rows)


def _age(seconds: float | None) -> str:
    if seconds is None:
        return ""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"
