"""Rate limiters for retries, with client-go's defaults. The clock is a parameter; nothing here sleeps."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable


class ItemBackoff:
    """Per-item exponential delay: base, 2*base, 4*base ... up to the limit; `forget` starts over.

    Defaults as client-go's DefaultTypedControllerRateLimiter: 5 ms to 1000 s.
    """

    def __init__(self, base: float = 0.005, limit: float = 1000.0) -> None:
        """`base` and `limit` are seconds."""
        self._base = base
        self._limit = limit
        self._failures: dict[Hashable, int] = {}

    def when(self, item: Hashable) -> float:
        """Count a failure and give the delay before the next try, in seconds."""
        failures = self._failures.get(item, 0)
        self._failures[item] = failures + 1
        if failures > 60:  # 2**60 is far beyond any limit, and floats would overflow later
            return self._limit
        return min(self._limit, self._base * 2.0**failures)

    def forget(self, item: Hashable) -> None:
        """Start over for this item."""
        self._failures.pop(item, None)

    def failures(self, item: Hashable) -> int:
        """How often the item failed since it was last forgotten."""
        return self._failures.get(item, 0)


class TokenBucket:
    """A bucket of `burst` tokens, refilled at `rate` per second; `reserve` takes one and tells how long that takes."""

    def __init__(self, rate: float = 10.0, burst: int = 100, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds and never goes back."""
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._tokens = float(burst)
        self._last = clock()

    def reserve(self) -> float:
        """Take a token, possibly one of the future; give the seconds until it is there."""
        now = self._clock()
        self._tokens = min(float(self._burst), self._tokens + (now - self._last) * self._rate)
        self._last = now
        self._tokens -= 1.0
        return max(0.0, -self._tokens / self._rate)


class RetryLimiter:
    """What a work queue asks: the longer of the item's own delay and the bucket shared by all items."""

    def __init__(self, backoff: ItemBackoff | None = None, bucket: TokenBucket | None = None) -> None:
        """Default parts are client-go's: 5 ms..1000 s per item, 10 per second with bursts of 100 over all."""
        self._backoff = backoff or ItemBackoff()
        self._bucket = bucket or TokenBucket()

    def when(self, item: Hashable) -> float:
        """Seconds until the item may be tried again."""
        return max(self._backoff.when(item), self._bucket.reserve())

    def forget(self, item: Hashable) -> None:
        """The item succeeded."""
        self._backoff.forget(item)

    def failures(self, item: Hashable) -> int:
        """How often the item failed in a row."""
        return self._backoff.failures(item)
