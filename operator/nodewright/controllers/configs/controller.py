"""Kopf handlers for NodeAgentConfig. It changes at the rate of people, which is what kopf is best at.

SchedulerProfile is not here: the scheduler itself says whether it serves one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from nodewright.controllers.configs import review
from nodewright.framework.controller import Controller
from nodewright.framework.lean import kopf
from nodewright.kube.errors import ApiError, Conflict, NotFound
from nodewright.kube.resources import NODEAGENTCONFIGS, Resource
from nodewright.kube.times import now_rfc3339

log = logging.getLogger(__name__)

Judge = Callable[[Sequence[dict[str, Any]]], dict[str, review.Verdict]]
ATTEMPTS = 5
RETRY = 5.0  # seconds until kopf calls a handler again that could not write


class ConfigController(Controller):
    """Reviews all objects of a kind whenever one of them changes; they are few, and may contradict each other."""

    name: ClassVar[str] = "configs"
    workers = 0  # no queue of its own: kopf calls

    def register_kopf(self, registry: kopf.OperatorRegistry) -> None:
        """Handle create, update, resume and (without a finalizer) delete."""
        self._register(registry, NODEAGENTCONFIGS, review.node_configs)

    def _register(self, registry: kopf.OperatorRegistry, resource: Resource, judge: Judge) -> None:
        one_at_a_time = asyncio.Lock()

        async def handle(**_: Any) -> None:
            try:
                async with one_at_a_time:
                    await self.review(resource, judge)
            except ApiError as error:
                raise kopf.TemporaryError(str(error), delay=RETRY) from error

        where = (resource.group, resource.version, resource.plural)
        kopf.on.resume(*where, registry=registry, id="review")(handle)
        kopf.on.create(*where, registry=registry, id="review")(handle)
        kopf.on.update(*where, registry=registry, id="review", field="spec")(handle)
        # Optional: it needs no finalizer, which would keep objects from going away while the operator is down.
        kopf.on.delete(*where, registry=registry, id="review", optional=True)(handle)

    async def review(self, resource: Resource, judge: Judge) -> None:
        """Judge all objects of the kind and write the conditions that changed. Raises ApiError."""
        for attempt in range(ATTEMPTS):
            try:
                return await self._review(resource, judge)
            except Conflict:
                # kopf annotates the object that it calls us for, often at the very same time.
                if attempt == ATTEMPTS - 1:
                    raise
        return None

    async def _review(self, resource: Resource, judge: Judge) -> None:
        found = await self.client.list(resource, type=dict)
        objects = [obj for obj in found.items if not obj["metadata"].get("deletionTimestamp")]
        verdicts = judge(objects)
        for obj in objects:
            name = obj["metadata"]["name"]
            patch = review.status_patch(obj, verdicts[name], now_rfc3339())
            if patch is None:
                continue
            try:
                await self.client.patch(resource, name, patch, subresource="status")
            except NotFound:
                continue
            log.info("reviewed", extra={"kind": resource.kind, "object": name, "accepted": verdicts[name].accepted})
