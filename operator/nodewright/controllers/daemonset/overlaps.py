"""DaemonSets of one namespace whose selectors overlap: the younger one is told.

Pods that have an owner are safe: controllers touch nobody else's. Orphans go to the oldest that selects them, and so a
younger DaemonSet may wait for ever for pods that its author thinks are its own.
"""

from __future__ import annotations

from collections.abc import Callable

from nodewright.controllers.daemonset.caches import Caches
from nodewright.controllers.daemonset.claims import is_elder, overlap
from nodewright.controllers.daemonset.model import DaemonSet
from nodewright.kube.conditions import find_condition
from nodewright.kube.resources import Resource

REASON = "SelectorOverlap"


def message(resource: Resource, elder: DaemonSet) -> str:
    """What the younger one's event and condition say."""
    return (
        f"The selector overlaps that of DaemonSet {elder.metadata.name} ({resource.api_version}), which is older: "
        "it adopts pods of nobody that both select. Give each DaemonSet labels of its own."
    )


class Overlaps:
    """Knows which DaemonSets were told, and by what."""

    def __init__(self, caches: Caches) -> None:
        """The caches may still be empty."""
        self._caches = caches
        self._known: dict[str, tuple[object, tuple[Resource, DaemonSet] | None]] = {}
        self._told: dict[str, tuple[str, str]] = {}

    def elder(self, ds: DaemonSet) -> tuple[Resource, DaemonSet] | None:
        """The oldest DaemonSet that is older than this one and overlaps with it."""
        neighbours = self._caches.neighbours(ds)
        state = (_state(ds), sorted(_state(other) for _, other in neighbours))
        known = self._known.get(ds.key)
        if known is not None and known[0] == state:
            return known[1]
        found = [each for each in neighbours if is_elder(each[1], ds) and overlap(ds, each[1])]
        first = min(
            found, key=lambda each: (each[1].metadata.creation_timestamp or "", each[1].metadata.uid), default=None
        )
        self._known[ds.key] = (state, first)
        return first

    def is_news(self, ds: DaemonSet, elder: DaemonSet | None) -> bool:
        """Whether this has not been told yet; from now on it has."""
        if elder is None:
            self._told.pop(ds.key, None)
            return False
        pair = (ds.metadata.uid, elder.metadata.uid)
        degraded = find_condition(ds.status.conditions, "Degraded")
        was_told = self._told.get(ds.key) == pair or (degraded is not None and degraded.reason == REASON)
        self._told[ds.key] = pair
        return not was_told

    def forget(self, key: str) -> None:
        """The DaemonSet is gone."""
        self._known.pop(key, None)
        self._told.pop(key, None)


def juniors(
    old: DaemonSet | None, new: DaemonSet | None, neighbours: Callable[[DaemonSet], list[DaemonSet]]
) -> list[str]:
    """Keys of DaemonSets to which it matters that this one came, changed or went. Pure.

    When it goes, there may be orphans that were left to it.
    """
    if old is not None and new is not None and _state(old) == _state(new):
        return []
    goes = new is None or new.metadata.deletion_timestamp is not None
    changed = [ds for ds in (old, new) if ds is not None]
    found = {other.key: other for ds in changed for other in neighbours(ds) if other.metadata.uid != ds.metadata.uid}
    return sorted(key for key, other in found.items() if goes or any(overlap(ds, other) for ds in changed))


def _state(ds: DaemonSet) -> tuple[str, int, bool]:
    return (ds.metadata.uid, ds.metadata.generation, ds.metadata.deletion_timestamp is not None)
