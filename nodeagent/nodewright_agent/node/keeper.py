"""Keeps the node alive in the API: registration, Lease, status; and tells what the cluster decided about it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from nodewright.kube.cache import WatchCache
from nodewright.kube.client import PatchType
from nodewright.kube.errors import ApiError
from nodewright.kube.leases import LeaseHolder
from nodewright.kube.objects import Node, NodeStatus, ObjectReference, OwnerReference
from nodewright.kube.resources import NODES
from nodewright_agent.bootstrap.clients import Clients
from nodewright_agent.config import AgentConfig
from nodewright_agent.node.conditions import doubted, node_conditions, transitions
from nodewright_agent.node.facts import HostFacts, read_facts
from nodewright_agent.node.registration import register
from nodewright_agent.node.status import OtherRuntime, allocatable, changed, extended, node_status, node_status_patch
from nodewright_agent.pods.ports import Clock, Events
from nodewright_agent.pods.times import rfc3339
from nodewright_agent.runtime.features import RuntimeFeatures
from nodewright_agent.runtime.hostspace import HostSpace
from nodewright_agent.runtime.images.model import Image

log = logging.getLogger(__name__)

LEASE_NAMESPACE = "kube-node-lease"
STATUS_INTERVAL = 10.0
"""Seconds between looks at what no event tells: memory, disk, processes (nodeStatusUpdateFrequency)."""


class NodeKeeper:
    """One node's presence in the API."""

    def __init__(
        self,
        clients: Clients,
        config: AgentConfig,
        events: Events,
        images: Callable[[], Iterable[Image]],
        clock: Clock,
    ) -> None:
        """Describe the node; nothing is sent before ``run``."""
        client = clients.node
        self.facts: HostFacts = read_facts(Path(config.state_dir), HostSpace(root=config.host_root))
        self.problems: dict[str, str] = {}
        """What keeps the node from being Ready, by component; change it with ``report``."""
        self.pressures: Callable[[], Mapping[str, bool]] = dict
        """Which resources the node is short of, by condition; the eviction manager tells."""
        self.user_namespaces = False
        """Whether pods can have user namespaces here."""
        self.recursive_read_only = False
        """Whether mounts can be made read-only with those below them."""
        self.handlers: Mapping[str, RuntimeFeatures] = {}
        """What the runtime handlers of the settings can do of this."""
        self.other: OtherRuntime | None = None
        """The runtime that runs the containers, where that is not the agent itself."""
        self.node: Node | None = None
        self.known = asyncio.Event()
        """Set once ``node`` is what the API server has: before, nobody can say which pods it would match."""
        self.cache: WatchCache[Node] = WatchCache(
            client, NODES, type=Node, field_selector=f"metadata.name={config.node_name}", name="node"
        )
        self._clients = clients
        self._client, self._config, self._events, self._images, self._clock = client, config, events, images, clock
        self._listeners: list[Callable[[Node], None]] = []
        self._changed = asyncio.Event()
        self._posted_at = 0.0
        self.cache.add_handler(self._seen)

    @property
    def reference(self) -> ObjectReference:
        """The reference for events about the node; kubelet puts the name where the UID belongs."""
        return ObjectReference(kind="Node", name=self._config.node_name, uid=self._config.node_name)

    def on_change(self, listener: Callable[[Node], None]) -> None:
        """Have ``listener`` called with every new version of the Node."""
        self._listeners.append(listener)

    def report(self, component: str, problem: str | None) -> None:
        """Note what keeps the node from being Ready, or that it is solved; the status follows at once."""
        before = self.problems.get(component)
        if problem is None:
            self.problems.pop(component, None)
        else:
            self.problems[component] = problem
        if before != problem:
            self._changed.set()

    def refresh(self) -> None:
        """Have the status looked at now: something in it may have changed."""
        self._changed.set()

    async def run(self) -> None:
        """Register, then keep Lease and status until cancelled."""
        self.node = await self._register(self.status())
        self.known.set()
        self._events.event(self.reference, "Normal", "Starting", "Starting kubelet.")
        self._report_reboot(self.node)
        lease = LeaseHolder(
            self._client,
            LEASE_NAMESPACE,
            self._config.node_name,
            self._config.node_name,
            duration_seconds=self._config.lease_duration_seconds,
            owner=OwnerReference("v1", "Node", self._config.node_name, self.node.metadata.uid),
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(self.cache.run())
            group.create_task(lease.run(self._config.lease_duration_seconds / 4))
            group.create_task(self._keep_status())

    def status(self) -> NodeStatus:
        """Return the status as it should be now."""
        old = self.node.status.conditions if self.node is not None else []
        conditions = node_conditions(old, self.pressures(), self.problems.values(), rfc3339(self._clock()))
        present = self.node.status if self.node is not None else None
        return node_status(
            self._config,
            self.facts,
            conditions,
            self._images(),
            present,
            user_namespaces=self.user_namespaces,
            recursive_read_only=self.recursive_read_only,
            handlers=self.handlers,
            other=self.other,
        )

    def allocatable(self) -> dict[str, str]:
        """Return what pods may ask for now, extended resources included."""
        others = extended(self.node.status.capacity) if self.node is not None else {}
        return {**allocatable(self._config, self.facts), **others}

    async def _register(self, status: NodeStatus) -> Node:
        return await register(self._clients.node, self._clients.cluster, self._config, self.facts, status)

    async def _keep_status(self) -> None:
        while True:
            self._changed.clear()
            await self._post()
            try:
                async with asyncio.timeout(STATUS_INTERVAL):
                    await self._changed.wait()
            except TimeoutError:
                pass  # time to look again

    async def _post(self) -> None:
        node = self.node
        assert node is not None
        wanted = self.status()
        due = self._clock() - self._posted_at >= self._config.status_report_seconds
        if not due and not changed(node.status, wanted):
            return
        try:
            answer = await self._client.patch(
                NODES,
                self._config.node_name,
                node_status_patch(wanted, node.status),
                type=Node,
                kind=PatchType.STRATEGIC,
                subresource="status",
            )
        except ApiError as error:
            log.warning("cannot post the node's status: %s", error)
            if error.status == 404:
                # Somebody deleted the Node: a kubelet only comes back when it is restarted; we do at once.
                self.node = await self._register(wanted)
            return
        for reason in transitions(node.status.conditions, wanted.conditions):
            text = f"Node {self._config.node_name} status is now: {reason}"
            self._events.event(self.reference, "Normal", reason, text)
        self._posted_at = self._clock()
        self._take(answer)

    def _seen(self, old: Node | None, new: Node | None) -> None:
        if new is None:
            self._posted_at = 0.0  # somebody deleted the Node: the next post finds that out, and registers it again
            self.refresh()
            return
        self._take(new)
        if extended(new.status.capacity) != extended(new.status.allocatable):
            self.refresh()  # somebody has added or removed an extended resource
        if doubted(new.status.conditions):
            self.refresh()  # every second more costs pods: they are not ready and will be evicted

    def _take(self, node: Node) -> None:
        """Keep the newest version; the watch and the answers to our own writes race."""
        current = self.node
        if current is not None and _version(node) < _version(current):
            return
        self.node = node
        for listener in self._listeners:
            listener(node)

    def _report_reboot(self, node: Node) -> None:
        before = node.status.node_info.boot_id if node.status.node_info is not None else ""
        if before and before != self.facts.boot_id:
            text = f"Node {self._config.node_name} has been rebooted, boot id: {self.facts.boot_id}"
            self._events.event(self.reference, "Warning", "Rebooted", text)


def _version(node: Node) -> int:
    return int(node.metadata.resource_version or 0)
