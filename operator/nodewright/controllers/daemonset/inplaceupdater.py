"""Carrying out what `inplace` decides: pods get new images by a patch."""

from __future__ import annotations

import asyncio
import logging

from nodewright.controllers.daemonset import inplace
from nodewright.controllers.daemonset.actions import BURST, PodActions, reference
from nodewright.controllers.daemonset.kinds import Kind
from nodewright.controllers.daemonset.model import HASH_LABEL, Pod
from nodewright.controllers.daemonset.template import PodFactory
from nodewright.controllers.daemonset.view import Plan, Targets, View
from nodewright.framework.consistency import ConsistencyGuard
from nodewright.kube.cache import WatchCache
from nodewright.kube.client import Client, PatchType
from nodewright.kube.errors import BadRequest, Conflict, Forbidden, Invalid, NotFound, ServerUnavailable
from nodewright.kube.events import EventRecorder
from nodewright.kube.objects import PartialObject
from nodewright.kube.resources import PODS

log = logging.getLogger(__name__)

AGAIN = 1.0  # seconds; the change itself mostly leads to another look sooner


class InPlaceUpdater:
    """Updates pods in place."""

    def __init__(
        self,
        client: Client,
        kind: Kind,
        pods: WatchCache[Pod],
        guard: ConsistencyGuard,
        events: EventRecorder,
        actions: PodActions,
    ) -> None:
        """`guard` learns of every write; `actions` deletes the pods that the API server lets nobody update."""
        self._client = client
        self._kind = kind
        self._pods = pods
        self._guard = guard
        self._events = events
        self._actions = actions

    async def apply(self, view: View, targets: Targets, factory: PodFactory, plan: Plan) -> None:
        """Update the pods that the plan says, at most BURST of them; raises the first failure at the end.

        One whose update is refused is deleted in place of it: the budget was for its replacement. One that has changed
        meanwhile is left for another look, for which the plan's retry is set.
        """
        pods = plan.in_place[:BURST]
        results = await asyncio.gather(
            *(self._update(view, targets, factory, pod) for pod in pods), return_exceptions=True
        )
        if errors := [each for each in results if isinstance(each, Exception)]:
            raise errors[0]
        if not all(results):
            plan.retry(AGAIN)

    async def _update(self, view: View, targets: Targets, factory: PodFactory, pod: Pod) -> bool:
        ds, meta = view.ds, pod.metadata
        images = inplace.changed_images(view, meta.labels.get(HASH_LABEL, ""), targets.hash) or {}
        patch = inplace.patch(pod, images, targets.hash)
        ref = reference(self._kind, ds)
        try:
            done = await self._client.patch(
                PODS, meta.name, patch, meta.namespace, type=PartialObject, kind=PatchType.STRATEGIC
            )
        except (NotFound, Conflict):
            log.info("pod has changed meanwhile", extra={"pod": meta.name})
            return False
        except ServerUnavailable:
            self._guard.doubt(ds.key, self._pods)
            raise
        except (Invalid, Forbidden, BadRequest) as error:
            text = f"Error updating pod in place, it is replaced: {error.message}"
            self._events.event(ref, "Warning", "FailedUpdate", text)
            await self._actions.apply(ds, factory, [], [pod])
            return True
        self._guard.wrote(ds.key, self._pods, done.metadata.resource_version)
        self._events.event(ref, "Normal", "SuccessfulUpdate", f"Updated pod in place: {meta.name}")
        log.info("updated pod in place", extra={"pod": meta.name, "node": pod.target_node or ""})
        return True
