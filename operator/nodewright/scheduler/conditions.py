"""The PodScheduled condition of Pods that could not be placed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

import msgspec

from nodewright.kube.client import Client, PatchType
from nodewright.kube.errors import ApiError, Conflict, NotFound
from nodewright.kube.resources import PODS
from nodewright.kube.times import now_rfc3339

from .objects import Condition
from .pods import PodInfo

log = logging.getLogger(__name__)

UNSCHEDULABLE = "Unschedulable"
SCHEDULER_ERROR = "SchedulerError"


class Refusal(msgspec.Struct):
    """Why a Pod is still without a node: the condition's reason, and the whole message."""

    pod: PodInfo
    reason: str
    message: str


class ConditionWriter:
    """Patches conditions, the newest per Pod only, `workers` at a time. A failed write waits for the next refusal."""

    def __init__(self, client: Client, *, workers: int = 4) -> None:
        self._client = client
        self._workers = workers
        self._waiting: dict[str, Refusal] = {}
        self._arrived = asyncio.Event()
        # What was written last and the watch may not have shown yet: equal refusals are not written twice.
        self._written: dict[str, tuple[str, str]] = {}

    def write(self, refusal: Refusal) -> None:
        """Write this refusal soon; returns at once."""
        uid = refusal.pod.uid
        if self._written.get(uid) == (refusal.reason, refusal.message) or is_recorded(refusal):
            return
        self._waiting[uid] = refusal
        self._arrived.set()

    def forget(self, uid: str) -> None:
        """The Pod has a node, or is gone: its condition is no longer ours."""
        self._waiting.pop(uid, None)
        self._written.pop(uid, None)

    async def run(self) -> None:
        """Write until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._workers):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            while not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
            uid, refusal = next(iter(self._waiting.items()))
            del self._waiting[uid]
            self._written[uid] = (refusal.reason, refusal.message)
            meta = refusal.pod.pod.metadata
            try:
                await self._client.patch(
                    PODS,
                    meta.name,
                    condition_patch(refusal, now_rfc3339()),
                    meta.namespace,
                    kind=PatchType.STRATEGIC,
                    subresource="status",
                    type=msgspec.Raw,
                )
            except (NotFound, Conflict):
                self._written.pop(uid, None)  # gone, or another Pod of that name by now
            except ApiError as error:
                self._written.pop(uid, None)
                log.warning("condition not written", extra={"pod": refusal.pod.key, "error": str(error)})


def is_recorded(refusal: Refusal) -> bool:
    """Whether the Pod, as the watch shows it, has this very condition already."""
    current = _current(refusal.pod)
    return current is not None and (current.status, current.reason, current.message) == (
        "False",
        refusal.reason,
        refusal.message,
    )


def condition_patch(refusal: Refusal, now: str) -> Mapping[str, object]:
    """A strategic merge patch for the one condition, and for this very Pod: the UID makes it fail for another."""
    meta = refusal.pod.pod.metadata
    condition: dict[str, object] = {
        "type": "PodScheduled",
        "status": "False",
        "reason": refusal.reason,
        "message": refusal.message,
    }
    if meta.generation:
        condition["observedGeneration"] = meta.generation
    current = _current(refusal.pod)
    if current is None or current.status != "False":
        condition["lastTransitionTime"] = now
    return {"metadata": {"uid": meta.uid}, "status": {"conditions": [condition]}}


def _current(pod: PodInfo) -> Condition | None:
    return next((c for c in pod.pod.status.conditions if c.type == "PodScheduled"), None)
