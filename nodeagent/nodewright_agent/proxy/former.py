"""Backends that were replaced: their rules go once no connection needs them."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from nodewright_agent.proxy.backends.base import Backend, Draining

log = logging.getLogger(__name__)

LINGER = 900.0
"""Seconds that connections through a former backend may take to end, where they need its rules for that."""

Call = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Runs something that blocks where backends are called."""


@dataclass(slots=True)
class _Former:
    backend: Backend
    until: float
    due: float = 0.0


class FormerBackends:
    """Those that still have rules in the kernel. Their sockets are closed with `close`; the rules stay then."""

    def __init__(self, call: Call, clock: Callable[[], float] = time.monotonic) -> None:
        """Have none yet."""
        self._call, self._clock = call, clock
        self._left: list[_Former] = []

    def add(self, backend: Backend) -> None:
        """Take one that was replaced."""
        self._left.append(_Former(backend, self._clock() + LINGER))

    async def taken_over(self, name: str) -> None:
        """Forget those of a kind: a new one of that kind has taken their rules over."""
        for former in [former for former in self._left if former.backend.name == name]:
            self._left.remove(former)
            await self._call(former.backend.close)

    async def remove(self) -> float | None:
        """Remove the rules of those that nothing needs any more; raises what the backend raises.

        Gives the seconds after which to call again, None when none is left.
        """
        for former in list(self._left):
            backend = former.backend
            if former.due > self._clock():
                continue
            if isinstance(backend, Draining) and self._clock() < former.until:
                pause = await self._call(backend.retire)
                if pause is not None:
                    former.due = self._clock() + pause
                    continue
            await self._call(backend.cleanup)
            self._left.remove(former)
            await self._call(backend.close)
            log.info("rules of the former proxy mode removed", extra={"mode": backend.name})
        return max(0.0, min(former.due for former in self._left) - self._clock()) if self._left else None

    def close(self) -> None:
        """Close the sockets; blocks."""
        for former in self._left:
            former.backend.close()
