"""Posting bindings: the one write that a Pod waits for.

An answer that does not come says nothing: the binding may be stored. Until its fate is known the Pod keeps its room,
and the same binding is posted again, which stores it or meets a Conflict, since a Pod is bound once. A Conflict is
looked into. So no room is given away that somebody has, and no Pod is told of twice.
"""

from __future__ import annotations

import asyncio
import enum
import json
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable

import msgspec

from nodewright.kube.backoff import Backoff
from nodewright.kube.client import Client
from nodewright.kube.errors import ApiError, Conflict, NotFound
from nodewright.kube.quickpost import QuickPoster
from nodewright.kube.resources import PODS

from . import metrics
from .objects import Pod
from .pods import PodInfo
from .queue import QueuedPod

log = logging.getLogger(__name__)

# How often a binding is posted before the Pod is read to see whether one of the tries was stored.
TRIES = 3
_SEEN_TIMEOUT = 30.0
_FENCE_POLL = 0.05


class BindResult(enum.Enum):
    """What became of a binding."""

    BOUND = "bound"
    # The Pod does not exist any more.
    GONE = "gone"
    # Another Pod has its name by now, or it has a node already. The watch tells which; if neither, it is tried again.
    CONFLICT = "conflict"
    # Refused for another reason: try the Pod again after backoff, and say so.
    FAILED = "failed"


class Binding(msgspec.Struct, eq=False):
    """A decision on its way to the API server. `decided` is when its cycle began, by the monotonic clock."""

    queued: QueuedPod
    node: str
    profile: str
    decided: float
    sent: bool = False


Settled = Callable[[Binding, BindResult, str], None]
# Waits until the watch has shown a resourceVersion; False when that takes longer than the seconds given.
Seen = Callable[[str, float], Awaitable[bool]]


async def _seen_at_once(_version: str, _timeout: float) -> bool:
    return True


class Binder:
    """Posts bindings, up to `in_flight` at a time, in the order of the decisions.

    `on_settled(binding, result, message)` is called once for each binding submitted, when its fate is known: until then
    the Pod has to count at its node. `may_bind` is asked before every write: while it says no, nothing is posted.
    `seen` is how far the watch of Pods has come.
    """

    def __init__(
        self,
        client: Client,
        on_settled: Settled,
        *,
        in_flight: int = 32,
        may_bind: Callable[[], bool] = lambda: True,
        seen: Seen = _seen_at_once,
        quick: QuickPoster | None = None,
    ) -> None:
        """With `quick`, the first try of each binding goes that way."""
        self._client = client
        self._on_settled = on_settled
        self._limit = in_flight
        self.may_bind = may_bind
        self.seen = seen
        self._quick = quick
        self._waiting: deque[Binding] = deque()
        self._arrived: deque[asyncio.Future[None]] = deque()
        self._active = 0
        self._room = asyncio.Event()
        self._room.set()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def is_full(self) -> bool:
        """Whether all connections are taken: deciding more would only make decisions wait and age."""
        return self._active + len(self._waiting) >= self._limit

    @property
    def is_idle(self) -> bool:
        """Whether no binding waits or is under way."""
        return self._idle.is_set()

    async def wait_room(self) -> None:
        """Wait until not full."""
        await self._room.wait()

    async def wait_idle(self) -> None:
        """Wait until no binding waits or is under way."""
        await self._idle.wait()

    def submit(self, binding: Binding) -> None:
        """Post a binding as soon as a connection is free."""
        self._waiting.append(binding)
        self._idle.clear()
        if self.is_full:
            self._room.clear()
        while self._arrived:
            waiter = self._arrived.popleft()
            if not waiter.done():
                waiter.set_result(None)
                break

    async def run(self) -> None:
        """Post until cancelled. Bindings under way are then cut off: their Pods are seen again after a restart."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._limit):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            while not self._waiting:
                waiter = asyncio.get_running_loop().create_future()
                self._arrived.append(waiter)
                await waiter
            binding = self._waiting.popleft()
            self._active += 1
            started = metrics.now()
            try:
                result, message = await self._bind(binding)
            finally:
                self._active -= 1
                if not self.is_full:
                    self._room.set()
            status = metrics.SUCCESS if result is BindResult.BOUND else metrics.ERROR
            metrics.POINT_DURATION.labels(metrics.BIND, status, binding.profile).observe(metrics.now() - started)
            self._on_settled(binding, result, message)
            if not self._active and not self._waiting:
                self._idle.set()

    # --- one binding -----------------------------------------------------------------------------------------------

    async def _bind(self, binding: Binding) -> tuple[BindResult, str]:
        """Post until the fate of the binding is known."""
        backoff: Backoff | None = None
        tries = 0
        quick = self._quick
        while True:
            if not self.may_bind():
                await asyncio.sleep(_FENCE_POLL)
                continue
            if quick is not None:
                status = await self._post_quickly(quick, binding)
                if 200 <= status < 300:
                    return BindResult.BOUND, ""
                quick = None
                # After a refusal, which the ordinary way tells the reason of, it is as if nothing had been tried.
                tries += not 400 <= status < 500
                continue
            tries += 1
            try:
                await self._post(binding)
                return BindResult.BOUND, ""
            except NotFound as error:
                return BindResult.GONE, str(error)
            except ApiError as error:
                last = error
            if isinstance(last, Conflict) or tries % TRIES == 0 or (tries > 1 and _is_refusal(last)):
                known = await self._look(binding, last)
                if known is not None:
                    return known
            elif _is_refusal(last):
                return BindResult.FAILED, str(last)
            backoff = backoff or Backoff(0.05, 2.0)
            await asyncio.sleep(backoff.next())

    async def _post_quickly(self, quick: QuickPoster, binding: Binding) -> int:
        _observe_sent(binding)
        return await quick.post(binding_path(binding.queued.pod), binding_body(binding.queued.pod, binding.node))

    async def _post(self, binding: Binding) -> None:
        _observe_sent(binding)
        pod = binding.queued.pod
        await self._client.request("POST", binding_path(pod), body=binding_body(pod, binding.node))

    async def _look(self, binding: Binding, error: ApiError) -> tuple[BindResult, str] | None:
        """What the Pod itself says about an attempt that ended with `error`; None when it cannot be read now."""
        meta = binding.queued.pod.pod.metadata
        try:
            found = await self._client.get(PODS, meta.name, meta.namespace, type=Pod)
        except NotFound as gone:
            return BindResult.GONE, str(gone)
        except ApiError as other:
            log.debug("fate of a binding unknown", extra={"pod": binding.queued.pod.key, "error": str(other)})
            return None
        if found.metadata.uid != meta.uid:
            return BindResult.CONFLICT, str(error)
        if found.spec.node_name == binding.node:
            return BindResult.BOUND, ""
        # Whoever is told now takes the watch's word for it, so the watch must have come as far.
        while not await self.seen(found.metadata.resource_version, _SEEN_TIMEOUT):
            log.warning("the watch is late", extra={"pod": binding.queued.pod.key})
        is_conflict = bool(found.spec.node_name) or isinstance(error, Conflict)
        return BindResult.CONFLICT if is_conflict else BindResult.FAILED, str(error)


def _is_refusal(error: ApiError) -> bool:
    """Whether the server said no, so that this try was not stored; other failures say nothing."""
    return 400 <= error.status < 500


def _observe_sent(binding: Binding) -> None:
    if not binding.sent:
        binding.sent = True
        metrics.DECISION_TO_BINDING.observe(time.monotonic() - binding.decided)


def binding_path(pod: PodInfo) -> str:
    """The path of a Pod's binding. Names need no escapes."""
    meta = pod.pod.metadata
    return f"/api/v1/namespaces/{meta.namespace}/pods/{meta.name}/binding"


def binding_body(pod: PodInfo, node: str) -> bytes:
    """The Binding that gives the Pod, and no other of its name, to the node. Names need no escapes in JSON."""
    meta = pod.pod.metadata
    return (
        f'{{"apiVersion":"v1","kind":"Binding","metadata":{{"name":"{meta.name}","namespace":"{meta.namespace}",'
        f'"uid":"{pod.uid}"}},"target":{{"apiVersion":"v1","kind":"Node","name":{json.dumps(node)}}}}}'
    ).encode()
