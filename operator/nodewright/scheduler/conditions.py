"""The PodScheduled condition of Pods that could not be placed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

import msgspec

from nodewright.kube.backoff import Backoff
from nodewright.kube.client import Client, PatchType
from nodewright.kube.errors import ApiError, Conflict, NotFound
from nodewright.kube.resources import PODS
from nodewright.kube.times import now_rfc3339

from .objects import Condition, Pod
from .pods import PodInfo

log = logging.getLogger(__name__)

UNSCHEDULABLE = "Unschedulable"
SCHEDULER_ERROR = "SchedulerError"


class Refusal(msgspec.Struct):
    """Why a Pod is still without a node: the condition's reason, and the whole message.

    `nominated` is what `status.nominatedNodeName` is to become with it; None leaves that alone.
    """

    pod: PodInfo
    reason: str
    message: str
    nominated: str | None = None

    @property
    def said(self) -> tuple[str, str, str | None]:
        """What tells one refusal of a Pod from another."""
        return self.reason, self.message, self.nominated


class ConditionWriter:
    """Patches conditions, the newest per Pod only, `workers` at a time.

    Each write is for one version of the Pod, so that a late one cannot say of a Pod with a node that it has none.
    A write that fails for a passing reason is tried again until a newer refusal takes its place, or `forget` drops it.
    """

    def __init__(self, client: Client, *, workers: int = 4) -> None:
        self._client = client
        self._workers = workers
        self._waiting: dict[str, Refusal] = {}
        self._arrived = asyncio.Event()
        # What was written last and the watch may not have shown yet: equal refusals are not written twice.
        self._written: dict[str, tuple[str, str, str | None]] = {}

    def write(self, refusal: Refusal) -> None:
        """Write this refusal soon; returns at once."""
        uid = refusal.pod.uid
        waiting = self._waiting.get(uid)
        if waiting is None:
            # The watch may not have come as far as what was written last.
            said = self._written.get(uid)
            if said == refusal.said or (said is None and is_recorded(refusal)):
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
            said = self._written[uid] = refusal.said
            backoff = Backoff(0.2, 10.0)
            while not await self._try(refusal):
                await asyncio.sleep(backoff.next())
                if uid in self._waiting or self._written.get(uid) != said:
                    break  # there is newer news, or the Pod has a node by now

    async def _try(self, refusal: Refusal) -> bool:
        """Write once; False when another try may help."""
        pod: Pod | None = refusal.pod.pod
        try:
            # What is not the newest word any more must not overwrite a newer one that was quicker.
            while pod is not None and self._is_newest(refusal) and not is_recorded(refusal, pod):
                pod = await self._patch(refusal, pod)
        except NotFound:
            pass  # gone
        except ApiError as error:
            log.warning("condition not written", extra={"pod": refusal.pod.key, "error": str(error)})
            if not 400 <= error.status < 500 or error.status == 429:
                return False
            self._written.pop(refusal.pod.uid, None)
        return True

    def _is_newest(self, refusal: Refusal) -> bool:
        return self._written.get(refusal.pod.uid) == refusal.said

    async def _patch(self, refusal: Refusal, pod: Pod) -> Pod | None:
        """Patch this version of the Pod. A newer version, when there is one that still lacks a node."""
        meta = pod.metadata
        body = condition_patch(refusal, now_rfc3339(), pod)
        try:
            await self._client.patch(
                PODS, meta.name, body, meta.namespace, kind=PatchType.STRATEGIC, subresource="status", type=msgspec.Raw
            )
        except Conflict:
            newer = await self._client.get(PODS, meta.name, meta.namespace, type=Pod)
            is_ours = newer.metadata.uid == meta.uid and not newer.spec.node_name
            return newer if is_ours else None
        return None


def is_recorded(refusal: Refusal, pod: Pod | None = None) -> bool:
    """Whether the Pod, as given or as it was when it was refused, has this very condition already."""
    pod = pod or refusal.pod.pod
    current = _current(pod)
    if refusal.nominated is not None and refusal.nominated != pod.status.nominated_node_name:
        return False
    return current is not None and (current.status, current.reason, current.message) == (
        "False",
        refusal.reason,
        refusal.message,
    )


def condition_patch(refusal: Refusal, now: str, pod: Pod | None = None) -> Mapping[str, object]:
    """A strategic merge patch for the one condition, and for this very version of the Pod: it fails for any other."""
    pod = pod or refusal.pod.pod
    meta = pod.metadata
    condition: dict[str, object] = {
        "type": "PodScheduled",
        "status": "False",
        "reason": refusal.reason,
        "message": refusal.message,
    }
    if meta.generation:
        condition["observedGeneration"] = meta.generation
    current = _current(pod)
    if current is None or current.status != "False":
        condition["lastTransitionTime"] = now
    version = {"resourceVersion": meta.resource_version} if meta.resource_version else {}
    status: dict[str, object] = {"conditions": [condition]}
    if refusal.nominated is not None:
        status["nominatedNodeName"] = refusal.nominated or None
    return {"metadata": {"uid": meta.uid, **version}, "status": status}


def _current(pod: Pod) -> Condition | None:
    return next((c for c in pod.status.conditions if c.type == "PodScheduled"), None)
