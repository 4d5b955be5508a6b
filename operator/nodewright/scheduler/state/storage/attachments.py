"""How many volumes of each CSI driver are attached to each node, and how many may be.

One column of counts and limits per driver that has a limit somewhere. Rows are computed anew when what they depend on
has changed, and only once somebody asks: a cluster without limits or without claims pays nothing.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from ..arrays import IntArray, grown

if TYPE_CHECKING:
    from ..cluster import ClusterState
    from .picture import StorageState

NO_LIMIT = int(np.iinfo(np.int64).max)

# A volume by driver and handle.
VolumeId = tuple[str, str]


class DriverColumn:
    """One driver: volumes attached and allowed, per row."""

    def __init__(self, capacity: int) -> None:
        self.counts: IntArray = np.zeros(capacity, dtype=np.int64)
        self.limits: IntArray = np.full(capacity, NO_LIMIT, dtype=np.int64)

    def grow(self, capacity: int) -> None:
        """Make room for more rows."""
        if capacity > len(self.counts):
            self.counts = grown(self.counts, capacity)
            self.limits = grown(self.limits, capacity, NO_LIMIT)


class AttachIndex:
    """Counts per driver and row. Ask after `refresh`."""

    def __init__(self, storage: StorageState) -> None:
        self._storage = storage
        self._columns: dict[str, DriverColumn] = {}
        self._dirty: set[int] = set()
        self._dirty_nodes: set[str] = set()
        self._all_dirty = False
        # What each row was computed for, and with which of its volumes.
        self._names: list[str] = []
        self._node_generation = -1
        self._at: dict[int, set[VolumeId]] = {}
        self._rows: dict[VolumeId, set[int]] = {}

    def touch(self, row: int) -> None:
        """The row's Pods, or a volume of theirs, changed."""
        self._dirty.add(row)

    def touch_node(self, name: str) -> None:
        """What is known of the node of that name changed."""
        self._dirty_nodes.add(name)

    def touch_all(self) -> None:
        """Something changed that may count anywhere."""
        self._all_dirty = True

    def column(self, driver: str) -> DriverColumn | None:
        """Counts and limits of a driver, or None where no node limits it."""
        return self._columns.get(driver)

    def rows_with(self, volume: VolumeId) -> set[int]:
        """Rows of limited nodes where a Pod uses the volume."""
        return self._rows.get(volume, set())

    def refresh(self, state: ClusterState) -> None:
        """Bring all rows up to date."""
        capacity = len(state.present)
        for column in self._columns.values():
            column.grow(capacity)
        if self._all_dirty:
            self._dirty.update(range(len(state.names)))
            self._all_dirty = False
        if self._node_generation != state.node_generation or len(self._names) != len(state.names):
            # Rows are used again for other nodes.
            known = len(self._names)
            self._dirty.update(row for row, name in enumerate(state.names) if row >= known or name != self._names[row])
            self._names = list(state.names)
            self._node_generation = state.node_generation
        for name in self._dirty_nodes:
            row = state.rows.get(name)
            if row is not None:
                self._dirty.add(row)
        self._dirty_nodes.clear()
        for row in self._dirty:
            self._compute(row, state.names[row], capacity)
        self._dirty.clear()

    def _compute(self, row: int, name: str, capacity: int) -> None:
        self._forget(row)
        self._names[row] = name
        node = self._storage.csi_nodes.get(name) if name else None
        limits = node.limits if node is not None else {}
        if not limits:
            return
        counts: Counter[str] = Counter()
        attached: set[VolumeId] = set()
        for key in self._storage.usage.claims_at(row):
            claim = self._storage.claims.get(key)
            volume = self._storage.csi_volume(claim) if claim is not None else None
            if volume is not None and volume not in attached:
                attached.add(volume)
                counts[volume[0]] += 1
        # Volumes that are attached though no Pod here uses them (any more) take room too.
        for volume in self._storage.attached_to(name) - attached:
            counts[volume[0]] += 1
        for driver, limit in limits.items():
            column = self._columns.get(driver)
            if column is None:
                column = self._columns[driver] = DriverColumn(capacity)
            column.limits[row] = limit
            column.counts[row] = counts[driver]
        if attached:
            self._at[row] = attached
            for volume in attached:
                self._rows.setdefault(volume, set()).add(row)

    def _forget(self, row: int) -> None:
        for column in self._columns.values():
            column.limits[row] = NO_LIMIT
            column.counts[row] = 0
        for volume in self._at.pop(row, ()):
            rows = self._rows[volume]
            rows.discard(row)
            if not rows:
                del self._rows[volume]
