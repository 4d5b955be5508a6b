"""Keeps the picture of the runtime's containers: by its events where it tells them, else by asking each second."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from nodewright.kube.backoff import Backoff
from nodewright_agent.cri import wire
from nodewright_agent.remote.client import CallFailed, Client
from nodewright_agent.remote.containers import RemoteContainers

log = logging.getLogger(__name__)

PERIOD, PERIOD_WITH_EVENTS = 1.0, 60.0
"""Seconds between two looks (kubelet's PLEG: 1; with events it looks every 300)."""


class Watcher:
    """Looks until cancelled. A runtime that does not answer changes nothing: what ran is taken to run."""

    def __init__(self, client: Client, containers: RemoteContainers) -> None:
        """Nothing is asked before ``run``."""
        self._client, self._containers = client, containers
        self._period = PERIOD
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """Look now."""
        self._wake.set()

    async def run(self) -> None:
        """Follow the runtime; never returns."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._look())
            group.create_task(self._listen())

    async def _look(self) -> None:
        down = False
        while True:
            self._wake.clear()
            try:
                await self._containers.look()
            except CallFailed as error:
                if not down:
                    log.warning("the runtime does not tell of its containers: %s", error)
                down = True
            else:
                down = False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PERIOD if down else self._period):
                    await self._wake.wait()

    async def _listen(self) -> None:
        backoff = Backoff(1.0, 30.0)
        while True:
            try:
                await self._follow()
            except CallFailed as error:
                if error.unknown_call:
                    log.info("the runtime tells no events: its containers are asked for each second")
                    return
                log.info("the runtime's events have ended: %s", error)
            self._period = PERIOD
            await asyncio.sleep(backoff.next())

    async def _follow(self) -> None:
        first = asyncio.get_running_loop().call_later(PERIOD, self._settled)
        try:
            async for event in self._client.events():
                if event.container_event_type in (wire.CONTAINER_STOPPED_EVENT, wire.CONTAINER_DELETED_EVENT):
                    await self._ended(event.container_id)
        finally:
            first.cancel()

    def _settled(self) -> None:
        """The stream has lasted: nothing is missed from now on, and one look finds what was before."""
        self._period = PERIOD_WITH_EVENTS
        self._wake.set()

    async def _ended(self, cid: str) -> None:
        record = self._containers.find(cid)
        if record is None or record.exit is not None:
            self._wake.set()  # a sandbox, or nothing of ours
            return
        await self._containers.refresh(cid)
