"""Evicting victims: the condition that says why, the deletion, the event."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

import msgspec

from nodewright.kube.client import Client, PatchType
from nodewright.kube.errors import ApiError, Conflict, NotFound
from nodewright.kube.resources import PODS
from nodewright.kube.times import now_rfc3339

from ..pods import PodInfo
from .choice import Candidate

log = logging.getLogger(__name__)

# Seconds after each try; after the last there is no other.
PAUSES = (0.1, 0.3, 0.9, None)

# Tells of an eviction: victim, preemptor, node.
Told = Callable[[PodInfo, PodInfo, str], None]


class Evictor:
    """Sends evictions in tasks of its own, a bounded number of requests at a time."""

    def __init__(self, client: Client, on_evicted: Told, *, in_flight: int = 16) -> None:
        """`on_evicted(victim, preemptor, node)` is called for each victim that this process has deleted."""
        self._client = client
        self._on_evicted = on_evicted
        self._room = asyncio.Semaphore(in_flight)

    async def evict(self, candidate: Candidate, preemptor: PodInfo, outranked: Iterable[PodInfo]) -> bool:
        """Delete all victims that are not on their way already. False when one could not be: look again then."""
        await asyncio.gather(*(self._clear_nomination(pod) for pod in outranked))
        leaving = [victim for victim in candidate.victims if victim.pod.metadata.deletion_timestamp is None]
        done = await asyncio.gather(*(self._evict_one(victim, preemptor, candidate.node) for victim in leaving))
        return all(done)

    async def _evict_one(self, victim: PodInfo, preemptor: PodInfo, node: str) -> bool:
        unsure = False  # an earlier try may have been carried out
        for pause in PAUSES:
            try:
                await self._send(victim, preemptor)
                break
            except (NotFound, Conflict):
                if not unsure:
                    return True  # gone already, or another Pod of that name by now
                break
            except ApiError as error:
                log.warning("victim not evicted", extra={"pod": victim.key, "for": preemptor.key, "error": str(error)})
                if 400 <= error.status < 500 or pause is None:
                    return False
            unsure = True
            await asyncio.sleep(pause)
        log.info("evicted", extra={"pod": victim.key, "for": preemptor.key, "node": node})
        self._on_evicted(victim, preemptor, node)
        return True

    async def _send(self, victim: PodInfo, preemptor: PodInfo) -> None:
        meta = victim.pod.metadata
        async with self._room:
            await self._patch_status(victim, {"conditions": [disruption_condition(victim, preemptor)]})
            try:
                await self._client.delete(PODS, meta.name, meta.namespace, uid=meta.uid)
            except (NotFound, Conflict):
                pass  # it was there a moment ago: a try whose answer was lost has done it, maybe one of aiohttp's own

    async def _clear_nomination(self, pod: PodInfo) -> None:
        try:
            async with self._room:
                await self._patch_status(pod, {"nominatedNodeName": None})
        except (NotFound, Conflict):
            pass
        except ApiError as error:
            # Not critical: the Pod is tried anew anyway.
            log.warning("nomination not cleared", extra={"pod": pod.key, "error": str(error)})

    async def _patch_status(self, pod: PodInfo, status: dict[str, object]) -> None:
        meta = pod.pod.metadata
        await self._client.patch(
            PODS,
            meta.name,
            {"metadata": {"uid": meta.uid}, "status": status},
            meta.namespace,
            kind=PatchType.STRATEGIC,
            subresource="status",
            type=msgspec.Raw,
        )


def disruption_condition(victim: PodInfo, preemptor: PodInfo) -> dict[str, object]:
    """Upstream's DisruptionTarget condition of a preempted Pod."""
    condition: dict[str, object] = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "PreemptionByScheduler",
        "message": f"{preemptor.spec.scheduler_name}: preempting to accommodate a higher priority pod",
        "lastTransitionTime": now_rfc3339(),
    }
    if victim.pod.metadata.generation:
        condition["observedGeneration"] = victim.pod.metadata.generation
    return condition
