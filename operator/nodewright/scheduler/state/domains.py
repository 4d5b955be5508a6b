"""Counts per value of a node label: what a topology is to spreading and to affinity."""

from __future__ import annotations

import numpy as np

from .arrays import BoolArray, IntArray
from .cluster import ClusterState
from .columns import ABSENT
from .view import NodeView


class Domain:
    """The values of one node label over a whole cluster, as it is now. Make a new one when nodes have changed."""

    __slots__ = ("_bins", "_size", "column", "key")

    def __init__(self, state: ClusterState, key: str) -> None:
        self.key = key
        self.column = state.labels.column(key)
        # Bin 0 is for nodes without the label.
        self._bins = self.column.ids[: state.height].astype(np.intp) + 1
        self._size = len(self.column.values) + 1

    def sums(self, per_row: IntArray, counted: BoolArray | None = None) -> IntArray:
        """The sum of `per_row` over the nodes of each value, at index 1 + its number; index 0 (no label) has 0.

        With `counted`, only over the nodes where it is true.
        """
        weights = per_row[: len(self._bins)]
        if counted is not None:
            weights = weights * counted
        sums: IntArray = np.bincount(self._bins, weights=weights, minlength=self._size).astype(np.int64)
        sums[0] = 0
        return sums

    def values_of(self, nodes: BoolArray) -> BoolArray:
        """Which values some of the given nodes (a mask over all rows) have, indexed as `sums`."""
        seen: BoolArray = np.bincount(self._bins[nodes], minlength=self._size) > 0
        seen[0] = False
        return seen

    def at(self, nodes: NodeView, table: IntArray) -> IntArray:
        """The entry of a table that is indexed as `sums` for each node of a view."""
        bins = self._bins if nodes.rows is None else self._bins[nodes.rows]
        return table[bins]

    def has(self, nodes: NodeView) -> BoolArray:
        """Where the node has the label."""
        has: BoolArray = nodes.take(self.column.ids) != ABSENT
        return has


class Domains:
    """The domains that one kind of Pod looks at, kept until some node changes."""

    __slots__ = ("_generation", "_kept")

    def __init__(self) -> None:
        self._generation = (-1, -1)
        self._kept: dict[str, Domain] = {}

    def of(self, state: ClusterState, key: str) -> Domain:
        """The domain of a label key."""
        generation = (state.node_generation, state.height)
        if generation != self._generation:
            self._generation = generation
            self._kept = {}
        domain = self._kept.get(key)
        if domain is None:
            domain = self._kept[key] = Domain(state, key)
        return domain
