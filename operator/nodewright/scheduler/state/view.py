"""What plugins see of the nodes: equal-length arrays over all rows, or over a few."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ..objects import Node
from .arrays import BoolArray, IdArray, IntArray, RowArray
from .cluster import ClusterState
from .columns import LabelColumn

T = TypeVar("T", bound=np.generic)


class NodeView:
    """Nodes under evaluation. All arrays have `len(view)` entries, in the same order; treat them as read-only.

    Rows that are not `present` hold no node; what a plugin answers for them is ignored.
    """

    __slots__ = ("_index", "rows", "size", "state")

    def __init__(self, state: ClusterState, rows: RowArray | None = None) -> None:
        self.state = state
        self.rows = rows
        self._index: Any = slice(0, state.height) if rows is None else rows
        self.size = state.height if rows is None else len(rows)

    def __len__(self) -> int:
        return self.size

    def take(self, array: npt.NDArray[T]) -> npt.NDArray[T]:
        """The part of an array over all rows that belongs to this view."""
        return array[..., self._index]

    def row(self, position: int) -> int:
        """The row in the cluster state of a position in this view."""
        return position if self.rows is None else int(self.rows[position])

    def name(self, position: int) -> str:
        """The name of the node at a position."""
        return self.state.names[self.row(position)]

    def node(self, position: int) -> Node | None:
        """The node at a position, or None where there is none."""
        return self.state.nodes[self.row(position)]

    @property
    def present(self) -> BoolArray:
        """Where there is a node."""
        return self.take(self.state.present)

    @property
    def unschedulable(self) -> BoolArray:
        """Where the node is cordoned."""
        return self.take(self.state.unschedulable)

    @property
    def pod_count(self) -> IntArray:
        """Pods at each node, assumed ones included."""
        return self.take(self.state.pod_count)

    @property
    def pod_limit(self) -> IntArray:
        """How many Pods each node takes."""
        return self.take(self.state.pod_limit)

    def allocatable(self, resource: str) -> IntArray:
        """How much of a resource each node offers."""
        index = self.state.resource(resource)  # first: a new name may replace the array
        return self.take(self.state.allocatable[index])

    def requested(self, resource: str) -> IntArray:
        """How much of a resource each node's Pods request."""
        index = self.state.resource(resource)  # first: a new name may replace the array
        return self.take(self.state.requested[index])

    def nonzero_requested(self, resource: str) -> IntArray:
        """As `requested` for cpu and memory, where a container without a request counts with the default."""
        return self.take(self.state.nonzero[("cpu", "memory").index(resource)])

    @property
    def taint_sets(self) -> IdArray:
        """The number of each node's set of taints in `state.taints.sets`."""
        return self.take(self.state.taints.ids)

    def label(self, key: str) -> tuple[IdArray, LabelColumn]:
        """The numbers of the values of a label, with the column that tells what they mean."""
        column = self.state.labels.column(key)
        return self.take(column.ids), column

    def positions_of(self, names: set[str]) -> BoolArray:
        """Where the node's name is one of `names`."""
        rows = [row for name in names if (row := self.state.rows.get(name)) is not None]
        everywhere = np.zeros(self.state.height, dtype=np.bool_)
        everywhere[rows] = True
        return everywhere if self.rows is None else everywhere[self.rows]

    def mask_of_rows(self, rows: set[int] | list[int]) -> BoolArray:
        """Where the node's row is one of `rows`."""
        if self.rows is None:
            mask = np.zeros(self.size, dtype=np.bool_)
            mask[list(rows)] = True
            return mask
        return np.isin(self.rows, list(rows))
