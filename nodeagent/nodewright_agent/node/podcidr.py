"""The pod CIDR that the node used last, on disk: restarts find it, and a Node that somebody deleted gets it back."""

from __future__ import annotations

from pathlib import Path

from nodewright.kube.client import Client
from nodewright.kube.errors import NotFound
from nodewright.kube.objects import Node
from nodewright.kube.resources import NODES
from nodewright_agent.config import AgentConfig


def in_use(state: Path) -> str:
    """Return the last CIDR while any pod has an address of it; empty when the node is free to take another."""
    try:
        cidr = _file(state).read_text().strip()
        return cidr if any((state / "network" / "ipam").iterdir()) else ""
    except FileNotFoundError:
        return ""


def remember(state: Path, cidr: str) -> None:
    """Keep what the cluster gave."""
    path = _file(state)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(cidr)


async def to_claim(client: Client, cluster: Client, config: AgentConfig) -> str:
    """Return the CIDR that a new Node has to have for pods that run already; empty: whatever the cluster gives.

    ``client`` may read the node's own Node, ``cluster`` those of others, one of which may have been given it meanwhile.
    """
    cidr = "" if config.pod_cidr else in_use(config.state)
    if not cidr or await _exists(client, config.node_name):
        return ""
    others = await cluster.list(NODES, type=Node)
    return "" if any(other.spec.pod_cidr == cidr for other in others.items) else cidr


async def _exists(client: Client, name: str) -> bool:
    try:
        await client.get(NODES, name, type=Node)
    except NotFound:
        return False
    return True


def _file(state: Path) -> Path:
    return state / "network" / "pod-cidr"
