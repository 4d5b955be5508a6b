"""Pods by the dozen, and waiting for what becomes of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from nodewright.kube.resources import EVENTS_V1, PODS
from support.scheduler_chaos import until

from ..conftest import Space


async def make_pods(space: Space, names: Sequence[str], pause: float = 0.0, **how: Any) -> None:
    """Make Pods, eight at a time, with a pause after each."""

    async def some(part: Sequence[str]) -> None:
        for name in part:
            await space.pod(name, **how)
            await asyncio.sleep(pause)

    await asyncio.gather(*(some(names[start::8]) for start in range(8)))


async def bound(space: Space) -> int:
    """How many Pods have a node."""
    found = await space.client.list(PODS, space.namespace)
    return sum(1 for pod in found.items if pod["spec"].get("nodeName"))


async def all_bound(space: Space, count: int, timeout: float = 60.0) -> None:
    """Wait until so many Pods have a node."""

    async def check() -> bool:
        return await bound(space) >= count

    await until(check, timeout, every=0.25)


async def told(space: Space, reason: str) -> set[str]:
    """The Pods that have such an event."""
    found = await space.client.list(EVENTS_V1, space.namespace)
    return {e["regarding"]["name"] for e in found.items if e["reason"] == reason}


async def all_told(space: Space, count: int, reason: str = "Scheduled") -> None:
    """Wait until so many Pods have such an event."""

    async def check() -> bool:
        return len(await told(space, reason)) >= count

    await until(check, every=0.25)
