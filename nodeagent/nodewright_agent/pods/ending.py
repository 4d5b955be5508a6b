"""Waits for Pods to be gone from the host: their containers, and what they used."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Protocol

from nodewright_agent.pods.model import PodState

_PAUSE = 0.2


class Ending(Protocol):
    """What is needed of a Pod's worker."""

    state: PodState


async def torn_down(workers: Iterable[Ending], seconds: float) -> bool:
    """Wait until nothing of the Pods is left, at most so long; whether that is so."""
    left = list(workers)
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while left := [one for one in left if not one.state.teardown.ready]:
        if loop.time() >= until:
            return False
        # Workers have no listeners, and this is done once in a Pod's life.
        await asyncio.sleep(_PAUSE)
    return True
