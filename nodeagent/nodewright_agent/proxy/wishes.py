"""Settings that a running proxy is asked to take over, and what it answers. NodeAgentConfig comes in by this door."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import NamedTuple

from nodewright_agent.proxy.detect import Choice

MODE, SCHEDULER = "proxy.mode", "proxy.ipvs.scheduler"


class Wish(NamedTuple):
    """What is wanted; None leaves it to the proxy's own configuration."""

    mode: str | None = None
    scheduler: str | None = None
    source: str = ""
    """Who wants the mode, for the reason that people read."""


class Answer(NamedTuple):
    """How the proxy works now, after a wish."""

    wish: Wish
    choice: Choice
    scheduler: str
    """The IPVS scheduler; empty in other modes."""
    problems: Mapping[str, str]
    """Fields (MODE, SCHEDULER) that could not be had, with the reason."""


class Wishes:
    """Joins who wants something to the proxy. Both run in one event loop; a later wish replaces an earlier one."""

    def __init__(self) -> None:
        """Nothing is wanted yet."""
        self.wish = Wish()
        self.answer: Answer | None = None
        self.failure = ""
        """Why no proxy runs; empty while one does, or may."""
        self._known = asyncio.Event()
        self._changed = asyncio.Event()
        self._listeners: list[Callable[[], None]] = []

    def on_answer(self, listener: Callable[[], None]) -> None:
        """Have `listener` called after every answer and every failure."""
        self._listeners.append(listener)

    def want(self, wish: Wish) -> None:
        """Replace the wish."""
        if wish != self.wish:
            self.wish = wish
            self._changed.set()
        self._known.set()

    @property
    def pending(self) -> bool:
        """Tell whether the proxy has not answered the present wish yet."""
        return not self.failure and (self.answer is None or self.answer.wish != self.wish)

    async def first(self, patience: float) -> Wish:
        """Wait for a first wish, but no longer than `patience` seconds: Services cannot wait for settings."""
        try:
            async with asyncio.timeout(patience):
                await self._known.wait()
        except TimeoutError:
            pass  # what comes later is taken over then
        self._changed.clear()
        return self.wish

    async def next(self) -> Wish:
        """Wait for a wish that is not carried out yet."""
        await self._changed.wait()
        self._changed.clear()
        return self.wish

    def settle(self, answer: Answer) -> None:
        """Say how the proxy works now."""
        self.answer, self.failure = answer, ""
        self._tell()

    def fail(self, reason: str) -> None:
        """Say that no proxy runs."""
        self.answer, self.failure = None, reason
        self._tell()

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()


def no_wishes() -> Wishes:
    """Give wishes that nobody has: the proxy's own configuration stands."""
    wishes = Wishes()
    wishes.want(Wish())
    return wishes
