"""Keeps the picture of the runtime's containers: by its events where it tells them, else by asking each second."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from nodewright.kube.backoff import Backoff
from nodewright_agent.cri import wire
from nodewright_agent.remote.client import CallFailed, Client
from nodewright_agent.remote.containers import RemoteContainers

log = logging.getLogger(__name__)

PERIOD, PERIOD_WITH_EVENTS = 1.0, 60.0
"""Seconds between two looks (kubelet's PLEG: 1; with events it looks every 300)."""


class Watcher:
    """Looks until cancelled. A runtime that does not answer changes nothing: what ran is taken to run."""

    def __init__(self, client: Client, containers: RemoteContainers, *, events: bool = True) -> None:
        """Nothing is asked before ``run``; ``events``: whether the runtime's events can be relied on."""
        self._client, self._containers, self._events = client, containers, events
        self._period = PERIOD
        self._wake = asyncio.Event()
        self._told = time.monotonic()
        self.on_silence: Callable[[], None] = lambda: None
        """Called when the runtime does not tell any more."""
        self._tasks: set[asyncio.Task[None]] = set()

    def wake(self) -> None:
        """Look now."""
        self._wake.set()

    def silent(self) -> float:
        """Seconds since the runtime last told of all sandboxes and containers."""
        return time.monotonic() - self._told

    async def run(self) -> None:
        """Follow the runtime; never returns."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._look())
            if self._events:
                group.create_task(self._listen())

    async def _look(self) -> None:
        down, whole = False, True
        while True:
            self._wake.clear()
            try:
                whole = await self._containers.look()
            except CallFailed as error:
                if not down:
                    log.warning("the runtime does not tell of its containers: %s", error)
                    self.on_silence()
                down = True
            else:
                down, self._told = False, time.monotonic()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._period if whole and not down else PERIOD):
                    await self._wake.wait()

    async def _listen(self) -> None:
        backoff = Backoff(1.0, 30.0)
        while True:
            try:
                await self._follow(backoff)
            except CallFailed as error:
                if error.unknown_call:
                    log.info("the runtime tells no events: its containers are asked for each second")
                    return
                log.info("the runtime's events have ended: %s", error)
            self._period = PERIOD
            self._wake.set()
            await asyncio.sleep(backoff.next())

    async def _follow(self, backoff: Backoff) -> None:
        loop = asyncio.get_running_loop()
        first = loop.call_later(PERIOD, self._settled, backoff)
        try:
            async for event in self._client.events():
                if event.container_event_type in (wire.CONTAINER_STOPPED_EVENT, wire.CONTAINER_DELETED_EVENT):
                    task = loop.create_task(self._ended(event.container_id))  # an answer that is late holds up no other
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
        finally:
            first.cancel()

    def _settled(self, backoff: Backoff) -> None:
        """The stream has lasted: nothing is missed from now on, and one look finds what was before."""
        backoff.reset()
        self._period = PERIOD_WITH_EVENTS
        self._wake.set()

    async def _ended(self, cid: str) -> None:
        record = self._containers.find(cid)
        if record is None or record.exit is not None:
            self._wake.set()  # a sandbox, or nothing of ours
            return
        try:
            await self._containers.refresh(cid)
        except CallFailed as error:
            log.warning("the runtime does not tell how a container ended: %s", error, extra={"container": cid})
            self._wake.set()
