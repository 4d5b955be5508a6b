"""Exponential backoff with jitter, as client-go's reflector uses it."""

from __future__ import annotations

import random
from collections.abc import Callable


class Backoff:
    """Doubles from `initial` to `maximum` seconds; every pause is stretched by a random part of up to `jitter`."""

    def __init__(
        self, initial: float, maximum: float, *, jitter: float = 1.0, rand: Callable[[], float] = random.random
    ) -> None:
        """Start at `initial`; `rand` gives numbers in [0, 1)."""
        self._initial = initial
        self._maximum = maximum
        self._jitter = jitter
        self._rand = rand
        self._current = initial

    def next(self) -> float:
        """Give the pause before the next attempt, never more than `maximum`."""
        pause = min(self._maximum, self._current * (1.0 + self._jitter * self._rand()))
        self._current = min(self._maximum, self._current * 2)
        return pause

    def reset(self) -> None:
        """Start over after a success."""
        self._current = self._initial
