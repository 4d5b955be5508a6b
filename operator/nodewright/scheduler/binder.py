"""Posting bindings: the one write that a Pod waits for."""

from __future__ import annotations

import asyncio
import enum
import json
import logging
from collections import deque
from collections.abc import Callable

import msgspec

from nodewright.kube.client import Client
from nodewright.kube.errors import ApiError, Conflict, NotFound

from .pods import PodInfo
from .queue import QueuedPod

log = logging.getLogger(__name__)


class BindResult(enum.Enum):
    """What became of a binding."""

    BOUND = "bound"
    # The Pod does not exist any more.
    GONE = "gone"
    # Another Pod has its name by now, or it has a node already. The watch tells which; if neither, it is tried again.
    CONFLICT = "conflict"
    # Refused for another reason, or nobody knows: try the Pod again after backoff, and say so.
    FAILED = "failed"


class Binding(msgspec.Struct, eq=False):
    """A decision on its way to the API server. `decided` is the scheduler's clock."""

    queued: QueuedPod
    node: str
    profile: str
    decided: float


Settled = Callable[[Binding, BindResult, str], None]


class Binder:
    """Posts bindings, up to `in_flight` at a time, in the order of the decisions.

    `on_settled(binding, result, message)` is called once for each binding submitted.
    """

    def __init__(self, client: Client, on_settled: Settled, *, in_flight: int = 32) -> None:
        self._client = client
        self._on_settled = on_settled
        self._limit = in_flight
        self._waiting: deque[Binding] = deque()
        self._arrived: deque[asyncio.Future[None]] = deque()
        self._active = 0
        self._room = asyncio.Event()
        self._room.set()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def is_full(self) -> bool:
        """Whether deciding more would only make decisions wait and age."""
        return len(self._waiting) >= self._limit

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
            if len(self._waiting) < self._limit // 2:
                self._room.set()
            self._active += 1
            try:
                result, message = await self._bind(binding)
            finally:
                self._active -= 1
            self._on_settled(binding, result, message)
            if not self._active and not self._waiting:
                self._idle.set()

    async def _bind(self, binding: Binding) -> tuple[BindResult, str]:
        pod = binding.queued.pod
        meta = pod.pod.metadata
        try:
            await self._client.request(
                "POST",
                f"/api/v1/namespaces/{meta.namespace}/pods/{meta.name}/binding",
                body=binding_body(pod, binding.node),
            )
        except NotFound as error:
            return BindResult.GONE, str(error)
        except Conflict as error:
            return BindResult.CONFLICT, str(error)
        except ApiError as error:
            return BindResult.FAILED, str(error)
        return BindResult.BOUND, ""


def binding_body(pod: PodInfo, node: str) -> bytes:
    """The Binding that gives the Pod, and no other of its name, to the node. Names need no escapes in JSON."""
    meta = pod.pod.metadata
    return (
        f'{{"apiVersion":"v1","kind":"Binding","metadata":{{"name":"{meta.name}","namespace":"{meta.namespace}",'
        f'"uid":"{pod.uid}"}},"target":{{"apiVersion":"v1","kind":"Node","name":{json.dumps(node)}}}}}'
    ).encode()
