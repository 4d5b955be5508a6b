"""Brings the pod network up once the cluster has given the node a pod CIDR, and keeps the routes to other nodes."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from nodewright.kube.backoff import Backoff
from nodewright.kube.cache import WatchCache
from nodewright.kube.client import Client
from nodewright.kube.objects import Node
from nodewright.kube.resources import NODES
from nodewright_agent.config import AgentConfig
from nodewright_agent.network.addresses import AGENT_LABEL, NetworkError, NodeRoute, wanted_routes
from nodewright_agent.node import podcidr
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

    async def keep(self) -> None:
        """Put rules right that others remove; never returns."""


class NodeNetworking:
    """Starts the network of one node and follows the other nodes."""

    def __init__(self, client: Client, keeper: NodeKeeper, network: PodNetwork, config: AgentConfig) -> None:
        """``client`` may watch all Nodes. The pod CIDR of before is remembered below the state directory.

        Beside a kubelet, only pods of other agents are routed to: its CNI routes to the pods of kubelets, and the
        host's ``nodewright proxy --routes``, where there is one, makes the same routes as we do.
        """
        beside_kubelet = bool(config.host_node_name)
        self.ready = asyncio.Event()
        self._keeper, self._network = keeper, network
        self._state = config.state
        self._given = config.pod_cidr
        # The kubelet's Node has our address: its pods are reached through its own CNI.
        self._own_names = {config.node_name, config.host_node_name}
        self._own_addresses = {config.node_ip}
        self._cidr = ""
        self._mismatch: str | None = None
        self._cidr_known = asyncio.Event()
        self._routes_changed = asyncio.Event()
        self._nodes: WatchCache[Node] = WatchCache(
            client,
            NODES,
            type=Node,
            label_selector=f"{AGENT_LABEL}=true" if beside_kubelet else "",
            name="nodes",
        )
        self._nodes.add_handler(lambda old, new: self._routes_changed.set())
        keeper.on_change(self._node_changed)
        keeper.report(COMPONENT, _NOT_READY.format("the node has no pod CIDR yet"))

    async def run(self) -> None:
        """Start the network, then follow the routes; never returns."""
        await self._start()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._network.keep())
            group.create_task(self._nodes.run())
            group.create_task(self._keep_routes())

    async def run_alone(self) -> None:
        """Start the network of a node that knows of no others; never returns."""
        await self._start()
        await self._network.keep()

    async def _start(self) -> None:
        # What pods have addresses of stays; so they can be restarted while the API server is away.
        self._use(self._given or podcidr.in_use(self._state))
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
        podcidr.remember(self._state, self._cidr)
        self.ready.set()
        self._keeper.report(COMPONENT, self._mismatch)

    async def _keep_routes(self) -> None:
        backoff = Backoff(1.0, 30.0)
        await self._nodes.wait_synced()
        while True:
            self._routes_changed.clear()
            try:
                nodes = self._nodes.values()
                await self._network.sync_routes(wanted_routes(nodes, self._own_names, self._own_addresses))
            except (NetworkError, OSError) as error:
                log.error("routes to other nodes cannot be set: %s", error)
                await asyncio.sleep(backoff.next())
                continue
            backoff.reset()
            await self._routes_changed.wait()

    def _node_changed(self, node: Node) -> None:
        if not self._given and node.spec.pod_cidr:
            self._use(node.spec.pod_cidr)

    def _use(self, cidr: str) -> None:
        if not cidr:
            return
        self._cidr = self._cidr or cidr
        self._cidr_known.set()
        self._compare(cidr)

    def _compare(self, cidr: str) -> None:
        """A node whose pods others look for elsewhere is not Ready."""
        before, self._mismatch = self._mismatch, None
        if cidr != self._cidr:
            text = (
                f"pods have addresses of {self._cidr}, but the node's pod CIDR is {cidr} now: remove the pods from "
                "the node, then restart the agent"
            )
            self._mismatch = _NOT_READY.format(text)
            if before != self._mismatch:
                log.error(text)
        if self.ready.is_set():
            self._keeper.report(COMPONENT, self._mismatch)
