"""What is short, since when, and which thresholds act now: the decisions of upstream's synchronize. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from nodewright.kube import quantity
from nodewright_agent.eviction.signals import (
    ALLOCATABLE,
    CONDITION,
    IMAGE_FS,
    IMAGE_INODES,
    MEMORY,
    NODE_FS,
    NODE_INODES,
    PIDS,
    RESOURCE,
    Settings,
    Threshold,
)
from nodewright_agent.usage.model import FsUsage, NodeUsage


@dataclass(frozen=True, slots=True)
class Observation:
    """What is left of a resource, in bytes or pieces."""

    available: int
    capacity: int
    binary: bool = True
    """Printed with binary suffixes; false for inodes and processes."""

    @property
    def shown(self) -> str:
        """What is left, as messages show it."""
        return (quantity.format_binary if self.binary else quantity.format_decimal)(self.available)


Observations = Mapping[str, Observation]


@dataclass(slots=True)
class Memory:
    """What the manager remembers between two looks; times in seconds of one clock."""

    first_met: dict[Threshold, float] = field(default_factory=dict)
    condition_seen: dict[str, float] = field(default_factory=dict)
    acting: tuple[Threshold, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """The node conditions that hold now, and the thresholds that demand action, the most urgent first."""

    conditions: tuple[str, ...]
    acting: tuple[Threshold, ...]
    next_look: float | None = None
    """When a grace period ends, in the clock's seconds."""


def look(memory: Memory, settings: Settings, seen: Observations, now: float) -> Verdict:
    """Judge an observation, and remember it."""
    met = exceeded(settings.thresholds, seen)
    # What has acted goes on until as much is free as the settings want reclaimed.
    known = set(settings.thresholds)
    unresolved = exceeded((one for one in memory.acting if one in known), seen, with_reclaim=True)
    met += [one for one in unresolved if one not in met]
    memory.first_met = {one: memory.first_met.get(one, now) for one in met}
    for one in met:
        memory.condition_seen[CONDITION[one.signal]] = now
    conditions = tuple(
        name for name, at in memory.condition_seen.items() if now - at < settings.transition_period or at == now
    )
    due = [one for one, since in memory.first_met.items() if now - since >= one.grace]
    later = [since + one.grace for one, since in memory.first_met.items() if now - since < one.grace]
    memory.acting = tuple(due)
    due.sort(key=lambda one: one.signal not in (MEMORY, ALLOCATABLE))
    return Verdict(conditions, tuple(due), min(later, default=None))


def exceeded(given: Iterable[Threshold], seen: Observations, *, with_reclaim: bool = False) -> list[Threshold]:
    """Which thresholds are met, whatever their grace; ``with_reclaim``: or have not regained their minimum."""
    found = []
    for one in given:
        at = seen.get(one.signal)
        if at is None:
            continue
        least = one.value.of(at.capacity)
        if with_reclaim and one.reclaim is not None:
            least += one.reclaim.of(at.capacity)
        if at.available < least:
            found.append(one)
    return found


def shortage(resource: str, acting: Iterable[Threshold], seen: Observations) -> tuple[str, str] | None:
    """The first acting threshold of a resource and what is left, as messages show them."""
    for one in acting:
        at = seen.get(one.signal)
        if RESOURCE[one.signal] == resource and at is not None:
            return one.value.shown(at.capacity), at.shown
    return None


def observe(usage: NodeUsage) -> dict[str, Observation]:
    """What of the usage the signals measure."""
    seen: dict[str, Observation] = {}
    _memory(seen, MEMORY, usage.usage.memory_available_bytes, usage.usage.memory_working_set_bytes)
    for one in usage.system:
        if one.name == "pods":
            _memory(seen, ALLOCATABLE, one.usage.memory_available_bytes, one.usage.memory_working_set_bytes)
    _file_system(seen, usage.fs, NODE_FS, NODE_INODES)
    _file_system(seen, usage.image_fs, IMAGE_FS, IMAGE_INODES)
    if usage.processes is not None:
        limit = usage.processes.limit
        seen[PIDS] = Observation(limit - usage.processes.running, limit, binary=False)
    return seen


def _memory(seen: dict[str, Observation], signal: str, available: int | None, working_set: int | None) -> None:
    if available is not None and working_set is not None:
        seen[signal] = Observation(available, available + working_set)


def _file_system(seen: dict[str, Observation], usage: FsUsage | None, space: str, inodes: str) -> None:
    if usage is None:
        return
    seen[space] = Observation(usage.available, usage.capacity)
    if usage.inodes:  # file systems without a fixed number of inodes say 0
        seen[inodes] = Observation(usage.inodes_free, usage.inodes, binary=False)


__all__ = ["Memory", "Observation", "Verdict", "exceeded", "look", "observe", "shortage"]
