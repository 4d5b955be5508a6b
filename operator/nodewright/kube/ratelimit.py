"""A token bucket, pure (the caller brings the time) and as an awaitable limiter."""

from __future__ import annotations

import asyncio


class TokenBucket:
    """`rate` tokens a second up to `burst`; `reserve` may go into debt, and tells how long to wait."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, rate: float, burst: int, now: float) -> None:
        """Start full."""
        if rate <= 0 or burst < 1:
            raise ValueError(f"rate {rate} and burst {burst} must be positive")
        self._rate = rate
        self._burst = float(burst)
        self._tokens = float(burst)
        self._at = now

    def _refill(self, now: float) -> None:
        self._tokens = min(self._burst, self._tokens + max(0.0, now - self._at) * self._rate)
        self._at = max(self._at, now)

    def try_take(self, now: float) -> bool:
        """Take a token if there is one."""
        self._refill(now)
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def reserve(self, now: float) -> float:
        """Take a token, if need be one of the future; give the seconds until it is there."""
        self._refill(now)
        self._tokens -= 1.0
        return max(0.0, -self._tokens / self._rate)


class RateLimiter:
    """Lets `rate` callers a second pass, in order of arrival."""

    def __init__(self, rate: float, burst: int) -> None:
        """Take the rate in 1/s; the bucket is made by the first caller, whose loop's clock it uses."""
        self._rate = rate
        self._burst = burst
        self._bucket: TokenBucket | None = None

    async def acquire(self) -> float:
        """Wait for a token; give the seconds waited."""
        now = asyncio.get_running_loop().time()
        if self._bucket is None:
            self._bucket = TokenBucket(self._rate, self._burst, now)
        delay = self._bucket.reserve(now)
        if delay > 0:
            await asyncio.sleep(delay)
        return delay
