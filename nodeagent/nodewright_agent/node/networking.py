"""Brings the pod network up once the cluster has given the node a pod CIDR, and keeps the routes to other nodes."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Protocol

from nodewright.kube.backoff import Backoff
from nodewright.kube.cache import WatchCache
from nodewright.kube.client import Client
from nodewright.kube.objects import Node
from nodewright.kube.resources import NODES
from nodewright_agent.network.addresses import NetworkError, NodeRoute, wanted_routes
from nodewright_agent.node.keeper import NodeKeeper

log = logging.getLogger(__name__)

COMPONENT = "network"
_NOT_READY = (
    "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady "
    "message:Network plugin returns error: {0}"
)


class PodNetwork(Protocol):
    """What is needed of the pod network."""

    async def start(self, pod_cidr: str) -> None:
        """Make the bridge and rules for the CIDR."""

    async def sync_routes(self, wanted: frozenset[NodeRoute]) -> None:
        """Make our routes exactly these."""


class NodeNetworking:
    """Starts the network of one node and follows the other nodes."""

    def __init__(self, client: Client, keeper: NodeKeeper, network: PodNetwork, state_dir: Path, pod_cidr: str) -> None:
        """``pod_cidr`` overrides what the cluster says; the last one is remembered below ``state_dir``."""
        self.ready = asyncio.Event()
        self._keeper, self._network = keeper, network
        self._memory = state_dir / "pod-cidr"
        self._given = pod_cidr
        self._cidr = ""
        self._cidr_known = asyncio.Event()
        self._routes_changed = asyncio.Event()
        self._nodes: WatchCache[Node] = WatchCache(client, NODES, type=Node, name="nodes")
        self._nodes.add_handler(lambda old, new: self._routes_changed.set())
        keeper.on_change(self._node_changed)
        keeper.report(COMPONENT, _NOT_READY.format("the node has no pod CIDR yet"))

    async def run(self) -> None:
        """Start the network, then follow the routes; never returns."""
        await self._start()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._nodes.run())
            group.create_task(self._keep_routes())

    async def _start(self) -> None:
        # What the cluster gave once stays; so pods of a node can be restarted while the API server is away.
        self._use(self._given or _read(self._memory))
        await self._cidr_known.wait()
        backoff = Backoff(1.0, 30.0)
        while True:
            try:
                await self._network.start(self._cidr)
            except (NetworkError, OSError) as error:
                log.error("the pod network cannot be started: %s", error)
                self._keeper.report(COMPONENT, _NOT_READY.format(error))
                await asyncio.sleep(backoff.next())
            else:
                break
        self._memory.parent.mkdir(parents=True, exist_ok=True)
        self._memory.write_text(self._cidr)
        self._keeper.report(COMPONENT, None)
        self.ready.set()

    async def _keep_routes(self) -> None:
        backoff = Backoff(1.0, 30.0)
        await self._nodes.wait_synced()
        while True:
            self._routes_changed.clear()
            try:
                await self._network.sync_routes(wanted_routes(map(_facts, self._nodes.values()), self._own_name))
            except (NetworkError, OSError) as error:
                log.error("routes to other nodes cannot be set: %s", error)
                await asyncio.sleep(backoff.next())
                continue
            backoff.reset()
            await self._routes_changed.wait()

    @property
    def _own_name(self) -> str:
        return self._keeper.reference.name

    def _node_changed(self, node: Node) -> None:
        if not self._given and node.spec.pod_cidr:
            self._use(node.spec.pod_cidr)

    def _use(self, cidr: str) -> None:
        if not cidr:
            return
        if self._cidr and cidr != self._cidr:
            log.error(
                "the node's pod CIDR changed from %s to %s: restart the agent on a drained node", self._cidr, cidr
            )
            return
        self._cidr = cidr
        self._cidr_known.set()


def _facts(node: Node) -> tuple[str, str, str]:
    addresses = [entry.address for entry in node.status.addresses if entry.type == "InternalIP"]
    return node.metadata.name, node.spec.pod_cidr, next(iter(addresses), "")


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return ""
