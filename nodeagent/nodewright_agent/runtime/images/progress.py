"""How far a pull has come: as figures, as a sentence, and as a record in the store that everybody on it can read."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Final

import msgspec

from nodewright_agent.runtime.images.fsutil import locked, write_atomically
from nodewright_agent.runtime.images.model import PullProgress
from nodewright_agent.runtime.images.records import Layout

log = logging.getLogger(__name__)

WINDOW: Final = 10.0
"""Seconds over which the rate is taken."""
FIRST_RECORD, RECORD_EVERY = 0.5, 1.0
"""Seconds after which a pull shows up in the store's folder, and between updates: most are over before."""
_UNITS: Final = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("B", 1.0))


class PullUnderWay(msgspec.Struct, frozen=True):
    """A pull as others see it. Bytes are those of the compressed layers; times in seconds since the epoch."""

    image: str
    by: str
    """Who pulls, such as `agent node-1`."""
    pid: int
    started: float
    updated: float
    layers: int = 0
    layers_done: int = 0
    bytes: int = 0
    total: int = 0
    rate: float = 0.0
    """Bytes a second."""

    @property
    def text(self) -> str:
        """`120 of 300 MB, 3 of 5 layers, 12 MB/s`."""
        if not self.layers:
            return "waiting for its turn, or for the registry"
        unit, size = _unit(self.total)
        of = f"{_figure(self.bytes / size)} of {_figure(self.total / size)} {unit}"
        rate_unit, rate_size = _unit(self.rate)
        return f"{of}, {self.layers_done} of {self.layers} layers, {_figure(self.rate / rate_size)} {rate_unit}/s"


class Meter:
    """Adds up the steps of one pull."""

    def __init__(self, image: str, by: str = "", clock: Callable[[], float] = time.time) -> None:
        """`image` and `by` are for the record."""
        self._image, self._by, self._clock = image, by, clock
        self._started = clock()
        self._layers: dict[str, PullProgress] = {}
        self._fetched = 0
        self._samples: deque[tuple[float, int]] = deque([(self._started, 0)])

    @property
    def steps(self) -> list[PullProgress]:
        """The last step of each layer."""
        return list(self._layers.values())

    def take(self, step: PullProgress) -> None:
        """Take a step of the pull."""
        if step.state == "pulling":
            before = self._layers.get(step.layer)
            self._fetched += max(0, step.current - (before.current if before is not None else 0))
        self._layers[step.layer] = step

    def read(self) -> PullUnderWay:
        """The figures now; the rate is that since an earlier reading, some ten seconds ago."""
        now = self._clock()
        while len(self._samples) > 1 and self._samples[1][0] <= now - WINDOW:
            self._samples.popleft()
        since, before = self._samples[0]
        self._samples.append((now, self._fetched))
        steps = self._layers.values()
        return PullUnderWay(
            image=self._image,
            by=self._by,
            pid=os.getpid(),
            started=self._started,
            updated=now,
            layers=len(steps),
            layers_done=sum(step.state in ("done", "exists") for step in steps),
            bytes=sum(step.current for step in steps),
            total=sum(step.total for step in steps),
            rate=(self._fetched - before) / (now - since) if now > since else 0.0,
        )


@contextlib.asynccontextmanager
async def shown(layout: Layout, meter: Meter) -> AsyncIterator[None]:
    """Have a pull's progress in the store's folder while the block runs; a short one never gets there."""
    task = asyncio.create_task(_keep(layout, meter))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _keep(layout: Layout, meter: Meter) -> None:
    await asyncio.sleep(FIRST_RECORD)
    path = layout.pulls / f"{os.urandom(8).hex()}.json"
    new, lock = path.with_suffix(".new"), path.with_suffix(".lock")
    try:
        with locked(new):  # nobody knows it; under its other name it is seen held, and the record counts
            try:
                new.rename(lock)
                while True:
                    write_atomically(path, msgspec.json.encode(meter.read()), sync=False)
                    await asyncio.sleep(RECORD_EVERY)
            finally:
                path.unlink(missing_ok=True)
                lock.unlink(missing_ok=True)
    except OSError as error:
        log.warning("cannot show the progress of a pull: %s", error)


def under_way(layout: Layout) -> list[PullUnderWay]:
    """The pulls of all processes on a store, oldest first; what killed ones left is removed. Blocking."""
    found = []
    for lock in layout.pulls.glob("*.lock"):
        path = lock.with_suffix(".json")
        try:
            with locked(lock, shared=True, blocking=False):
                for left in (*layout.pulls.glob(f".{path.name}.*"), path, lock):
                    left.unlink(missing_ok=True)
        except BlockingIOError:
            with contextlib.suppress(FileNotFoundError, msgspec.MsgspecError):  # it has just begun, or ended
                found.append(msgspec.json.decode(path.read_bytes(), type=PullUnderWay))
    return sorted(found, key=lambda one: one.started)


def _unit(amount: float) -> tuple[str, float]:
    return next(((unit, size) for unit, size in _UNITS if amount >= size), _UNITS[-1])


def _figure(value: float) -> str:
    return f"{value:.1f}" if 0 < value < 10 else f"{value:.0f}"
