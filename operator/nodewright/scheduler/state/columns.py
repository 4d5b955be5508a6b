"""Labels and taints of nodes as integers, so that a selector is a comparison of arrays."""

from __future__ import annotations

import numpy as np

from ..objects import Node, Taint
from .arrays import IdArray, grown

ABSENT = -1


class LabelColumn:
    """One label key: per row the number of its value, or ABSENT. Values are numbered as they are first seen."""

    def __init__(self, capacity: int) -> None:
        self.ids: IdArray = np.full(capacity, ABSENT, dtype=np.int32)
        self.values: list[str] = []
        self._numbers: dict[str, int] = {}
        self._integers: dict[int, int | None] = {}

    def set(self, row: int, value: str | None) -> None:
        """Record the value at a row; None for no such label."""
        self.ids[row] = ABSENT if value is None else self._number(value)

    def number(self, value: str) -> int | None:
        """The number of a value, or None when no node has ever had it."""
        return self._numbers.get(value)

    def integer(self, number: int) -> int | None:
        """The value with that number as an integer, or None where it is none (Gt and Lt then never match)."""
        if number not in self._integers:
            self._integers[number] = parse_int64(self.values[number])
        return self._integers[number]

    def _number(self, value: str) -> int:
        number = self._numbers.get(value)
        if number is None:
            number = self._numbers[value] = len(self.values)
            self.values.append(value)
        return number


def parse_int64(text: str) -> int | None:
    """Go's strconv.ParseInt(text, 10, 64): an optional sign and ASCII digits within 64 bits, or None."""
    digits = text[1:] if text[:1] in ("+", "-") else text
    if not digits.isascii() or not digits.isdigit():
        return None
    value = int(text)
    return value if -(2**63) <= value < 2**63 else None


class LabelColumns:
    """Columns of the label keys that some selector has asked for; built on first use, then kept up to date."""

    def __init__(self, nodes: list[Node | None], capacity: int) -> None:
        self._nodes = nodes
        self._capacity = capacity
        self._columns: dict[str, LabelColumn] = {}

    def column(self, key: str) -> LabelColumn:
        """The column of a label key."""
        column = self._columns.get(key)
        if column is None:
            column = self._columns[key] = LabelColumn(self._capacity)
            for row, node in enumerate(self._nodes):
                if node is not None and (value := node.metadata.labels.get(key)) is not None:
                    column.set(row, value)
        return column

    def update(self, row: int, node: Node | None) -> None:
        """Record the labels of the node at a row; None when the node is gone."""
        for key, column in self._columns.items():
            column.set(row, None if node is None else node.metadata.labels.get(key))

    def grow(self, capacity: int) -> None:
        """Make room for more rows."""
        self._capacity = capacity
        for column in self._columns.values():
            column.ids = grown(column.ids, capacity, ABSENT)


class TaintSets:
    """Distinct sets of taints, numbered. Clusters have few, so a Pod is compared with sets and not with nodes."""

    def __init__(self, capacity: int) -> None:
        self.ids: IdArray = np.zeros(capacity, dtype=np.int32)
        self.sets: list[tuple[Taint, ...]] = [()]
        self._numbers: dict[tuple[Taint, ...], int] = {(): 0}

    def set(self, row: int, taints: tuple[Taint, ...]) -> None:
        """Record the taints of the node at a row."""
        number = self._numbers.get(taints)
        if number is None:
            number = self._numbers[taints] = len(self.sets)
            self.sets.append(taints)
        self.ids[row] = number

    def grow(self, capacity: int) -> None:
        """Make room for more rows."""
        self.ids = grown(self.ids, capacity)
