"""Back-off for pods that fail again and again on a node (upstream: flowcontrol.Backoff, 1 s to 15 min). Pure."""

from __future__ import annotations

from collections.abc import Hashable

import msgspec


class _Entry(msgspec.Struct):
    delay: float
    since: float


class FailureBackoff:
    """The first failure is acted on at once; each further one waits twice as long, up to the limit.

    An entry that was not needed for twice the limit starts over. Times are seconds of any clock that never goes back.
    """

    def __init__(self, base: float = 1.0, limit: float = 900.0) -> None:
        """Upstream's numbers by default."""
        self._base = base
        self._limit = limit
        self._entries: dict[Hashable, _Entry] = {}

    def check(self, key: Hashable, now: float) -> float:
        """0 when it may be acted on now, which then counts as done; else the seconds left to wait."""
        entry = self._entries.get(key)
        if entry is None or now - entry.since > 2 * self._limit:
            self._entries[key] = _Entry(self._base, now)
            return 0.0
        left = entry.since + entry.delay - now
        if left > 0:
            return left
        entry.delay = min(self._limit, entry.delay * 2)
        entry.since = now
        return 0.0

    def collect(self, now: float) -> None:
        """Forget what starts over anyway."""
        for key in [k for k, e in self._entries.items() if now - e.since > 2 * self._limit]:
            del self._entries[key]
