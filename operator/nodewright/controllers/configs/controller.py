"""Reviews NodeAgentConfigs: whether they agree with each other, and how far the nodes are with applying them.

kopf watches the objects, which change at the rate of people and of nodes that report; what it sees only wakes the
reconciliation, so that a thousand reports are a few reviews. SchedulerProfile is not here: the scheduler itself says
whether it serves one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, ClassVar

from nodewright.controllers.configs import review
from nodewright.framework.controller import Controller, Result
from nodewright.framework.lean import kopf
from nodewright.kube.api.meta import PartialObject
from nodewright.kube.api.nodeconfigs import NodeAgentConfig
from nodewright.kube.client import Client
from nodewright.kube.errors import Conflict, NotFound
from nodewright.kube.resources import NODEAGENTCONFIGS, NODES, Resource
from nodewright.kube.times import now_rfc3339

log = logging.getLogger(__name__)

KEY = "all"
"""The only key: objects may contradict each other, so they are reviewed together; they are few."""
COALESCE = 0.5
"""Seconds in which changes are collected."""
MANAGER = "nodewright-operator"


class ConfigController(Controller):
    """Reviews all objects whenever one of them, or the labels of a Node, has changed."""

    name: ClassVar[str] = "configs"
    workers = 1

    def __init__(self, client: Client, *, identity: str = "") -> None:
        """Declare what is watched."""
        super().__init__(client, identity=identity)
        self.nodes = self.watch(NODES, type=PartialObject, enqueue=self._node_changed)

    def custom_kinds(self) -> set[Resource]:
        """The kind that kopf watches for us."""
        return {NODEAGENTCONFIGS}

    def register_kopf(self, registry: kopf.OperatorRegistry) -> None:
        """Have every event of an object lead to a review; events need neither finalizers nor annotations."""

        async def handle(**_: Any) -> None:
            self.queue.add_after(KEY, COALESCE)

        where = (NODEAGENTCONFIGS.group, NODEAGENTCONFIGS.version, NODEAGENTCONFIGS.plural)
        kopf.on.event(*where, registry=registry, id="review")(handle)

    def _node_changed(self, old: PartialObject | None, new: PartialObject | None) -> Iterable[str]:
        if old is None or new is None or old.metadata.labels != new.metadata.labels:
            self.queue.add_after(KEY, COALESCE)
        return ()

    async def reconcile(self, key: str) -> Result | None:
        """Judge all objects, and write what changed. Raises ApiError."""
        found = await self.client.list(NODEAGENTCONFIGS, type=NodeAgentConfig)
        objects = [obj for obj in found.items if not obj.metadata.deletion_timestamp]
        labels = {node.metadata.name: node.metadata.labels for node in self.nodes.values()}
        for name, verdict in review.node_configs(objects, labels).items():
            obj = next(obj for obj in objects if obj.metadata.name == name)
            patch = review.status_patch(obj, verdict, now_rfc3339())
            pruned = review.prune(obj, labels)
            if patch is None and pruned is None:
                continue
            try:
                if pruned is not None:
                    await self.client.patch(NODEAGENTCONFIGS, name, pruned, subresource="status")
                if patch is not None:
                    await self.client.apply(NODEAGENTCONFIGS, patch, field_manager=MANAGER, subresource="status")
            except (NotFound, Conflict):
                # Deleted, another one by this name, or a node that was faster: the event of that leads here again.
                continue
            extra = {"object": name, "accepted": verdict.accepted.value, "applied": verdict.applied.value}
            log.info("reviewed", extra=extra)
        return None
