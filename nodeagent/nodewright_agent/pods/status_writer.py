"""Writes pod statuses to the API: at once, one request per pod under way, the newest status wins, never given up.

The base of each patch is the newest status known, be it the answer to our last write or what the watch has shown: by
resourceVersion, so that a cache that lags behind cannot make us undo our own writes. What somebody else overwrote is
written again, as kubelet reconciles it: the node controller marks all pods of a silent node as not ready, and nobody
but us marks them as ready again.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from nodewright.kube.client import Client, PatchType
from nodewright.kube.errors import ApiError, Conflict, Invalid, NotFound
from nodewright.kube.objects import Pod, PodStatus
from nodewright.kube.resources import PODS
from nodewright_agent.failpoints import failpoint
from nodewright_agent.pods.status_patch import status_patch

log = logging.getLogger(__name__)

LAZY, LAZY_MAX = 0.3, 1.5
"""Seconds that a status that says nothing new to a user may wait for a better one; the more pods have one that waits,
the longer: writes that tell little cost a burst of pods the CPU that it needs to get done."""
_CROWD = 0.05
"""Seconds more for each of them."""
RETRY_FIRST, RETRY_MAX = 0.2, 10.0
LAST_SECONDS = 1.0
"""How long the end waits for what is still to be written."""


@dataclass(slots=True)
class _Entry:
    pod: Pod
    base: PodStatus
    version: int
    """The resourceVersion that ``base`` is from; 0: not known."""
    published: PodStatus | None = None
    wanted: PodStatus | None = None
    """What is still to be written."""
    lazy: bool = False
    """Whether that can wait."""
    task: asyncio.Task[None] | None = None
    timer: asyncio.TimerHandle | None = None
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    gone: bool = False


class StatusWriter:
    """The status sink of all pod workers of a node."""

    def __init__(self, client: Client, written: Callable[[Pod, PodStatus], None] | None = None) -> None:
        """Write through ``client``; ``written`` is called after each status that the API server took."""
        self._client = client
        self._written = written or (lambda pod, status: None)
        self._entries: dict[str, _Entry] = {}
        self._waiting = 0
        """Entries with a timer."""
        self._deletes: set[asyncio.Task[None]] = set()

    def publish(self, pod: Pod, status: PodStatus, *, lazy: bool = False) -> None:
        """Have the status written; a newer one takes the place of one that still waits."""
        entry = self._entries.get(pod.metadata.uid)
        if entry is None:
            # Version 0: a pod from an earlier agent's record has that agent's status under the API's version.
            entry = self._entries[pod.metadata.uid] = _Entry(pod, pod.status, 0)
        entry.lazy = lazy and (entry.lazy or entry.wanted is None)
        entry.pod, entry.wanted, entry.published = pod, status, status
        entry.idle.clear()
        if entry.task is not None:
            return
        if entry.lazy:
            self._wait(entry)
        else:
            self._begin(entry)

    def observed(self, pod: Pod) -> None:
        """Take note of what the API shows; where others have overwritten what was published, it is written again."""
        entry = self._entries.get(pod.metadata.uid)
        if entry is None or _version(pod) <= entry.version:
            return
        entry.pod, entry.base, entry.version = pod, pod.status, _version(pod)
        idle = entry.task is None and entry.timer is None
        if idle and entry.published is not None and status_patch(entry.base, entry.published) is not None:
            self.publish(pod, entry.published, lazy=True)

    async def flushed(self, uid: str) -> None:
        """Wait until the newest published status of the pod is in the API, or the pod is gone from it."""
        entry = self._entries.get(uid)
        if entry is not None:
            entry.lazy = False
            if entry.wanted is not None and entry.task is None:
                self._begin(entry)
            await entry.idle.wait()

    async def delete(self, pod: Pod) -> None:
        """Delete the pod for good; a pod of the same name with another UID stays. Tried until it has an answer."""
        meta = pod.metadata

        async def attempt() -> None:
            await self._client.delete(PODS, meta.name, meta.namespace, grace_period_seconds=0, uid=meta.uid)
            failpoint("status.deleted")

        await _persist(attempt, f"delete pod {pod.key}")

    def forget(self, uid: str) -> None:
        """Drop what is still to be written."""
        entry = self._entries.pop(uid, None)
        if entry is None:
            return
        entry.gone, entry.wanted = True, None
        self._stop_waiting(entry)
        if entry.task is not None:
            entry.task.cancel()
        entry.idle.set()

    async def close(self) -> None:
        """Write what is left, then stop; what the API server does not take in time the next agent tells."""
        for entry in self._entries.values():
            entry.lazy = False
            if entry.wanted is not None:
                self._begin(entry)
        under_way = [entry.task for entry in self._entries.values() if entry.task is not None]
        if under_way:
            await asyncio.wait(under_way, timeout=LAST_SECONDS)
        for uid in list(self._entries):
            self.forget(uid)

    def _wait(self, entry: _Entry) -> None:
        if entry.timer is None:
            delay = min(LAZY_MAX, LAZY + _CROWD * self._waiting)
            entry.timer = asyncio.get_running_loop().call_later(delay, self._begin, entry)
            self._waiting += 1

    def _stop_waiting(self, entry: _Entry) -> None:
        if entry.timer is not None:
            entry.timer.cancel()
            entry.timer = None
            self._waiting -= 1

    def _begin(self, entry: _Entry) -> None:
        self._stop_waiting(entry)
        if entry.task is None and not entry.gone:
            entry.task = asyncio.get_running_loop().create_task(self._pump(entry))

    async def _pump(self, entry: _Entry) -> None:
        try:
            while (wanted := entry.wanted) is not None:
                taken = await _persist(lambda: self._write(entry), f"status of pod {entry.pod.key}")
                if not taken and entry.wanted is wanted:
                    entry.wanted = None
                if entry.lazy and entry.wanted not in (None, wanted):
                    self._wait(entry)
                    break
        finally:
            entry.task = None
            if entry.timer is None:
                entry.idle.set()

    async def _write(self, entry: _Entry) -> None:
        wanted = entry.wanted
        if wanted is None:
            return
        patch = status_patch(entry.base, wanted)
        again, believed = False, entry.version == 0
        if patch is not None:
            meta = entry.pod.metadata
            body = {"metadata": {"uid": meta.uid}, "status": patch}
            answer = await self._client.patch(
                PODS, meta.name, body, meta.namespace, type=Pod, kind=PatchType.STRATEGIC, subresource="status"
            )
            failpoint("status.written")
            # The watch may have shown a newer version meanwhile, with somebody else's write after ours.
            again = _version(answer) < entry.version and status_patch(entry.base, wanted) is not None
            if _version(answer) >= entry.version:
                entry.base, entry.version = answer.status, _version(answer)
            # A record tells what an earlier agent was about to write; whether it came to that, only the answer shows.
            again = again or (believed and status_patch(entry.base, wanted) is not None)
        self._written(entry.pod, wanted)
        if entry.wanted is wanted and not again:
            entry.wanted = None


def _version(pod: Pod) -> int:
    return int(pod.metadata.resource_version or 0)


async def _persist(attempt: Callable[[], Awaitable[None]], what: str) -> bool:
    """Try until it works (True) or makes no sense any more: the pod is gone or replaced, or the content is refused."""
    delay = RETRY_FIRST
    while True:
        try:
            await attempt()
        except (NotFound, Conflict):
            return False
        except Invalid as error:
            log.error("%s was refused: %s", what, error)
            return False
        except ApiError as error:
            log.warning("%s: %s; trying again in %.1f s", what, error, delay)
            await asyncio.sleep(delay * random.uniform(0.8, 1.2))
            delay = min(delay * 2, RETRY_MAX)
        else:
            return True
