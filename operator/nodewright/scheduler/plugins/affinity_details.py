"""Which Pods are in the way, or missing, by inter-pod affinity: the sentences that `explain` shows."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from .. import wording
from ..plugin import Context
from ..pods import PodInfo
from ..state.arrays import BoolArray, IntArray
from ..state.columns import ABSENT
from ..state.counts import Carrier
from ..terms import PlacedTerm


def missing_company(ctx: Context, terms: tuple[PlacedTerm, ...], position: int) -> Iterator[str]:
    """The Pod's required affinity: no Pod that all terms match is near the node by one of them."""
    counts = ctx.nodes.state.counts
    per_row = counts.matching(tuple(t.term for t in terms))
    who = _all_of(terms, ctx.pod.pod.metadata.namespace)
    for term in terms:
        place = _Place(ctx, term.topology_key, position)
        if not place.has_label:
            yield f"affinity to {who}: the node has no label {place.key}"
        elif not place.total(per_row):
            there = place.elsewhere(per_row)
            where = f"they are in {there}" if there else "no such pod is placed anywhere"
            yield f"affinity to {who}: none in {place.name}; {where}"


def unwanted_company(ctx: Context, terms: tuple[PlacedTerm, ...], position: int) -> Iterator[str]:
    """The Pod's required anti-affinity: who is there."""
    counts = ctx.nodes.state.counts
    for term in terms:
        place = _Place(ctx, term.topology_key, position)
        per_row = counts.matching((term.term,))
        if total := place.total(per_row):
            found = place.pods(per_row, functools.partial(counts.matches, (term.term,)))
            who = wording.pods_of(term.term, ctx.pod.pod.metadata.namespace)
            yield f"anti-affinity to {who} within {place.name}: {wording.names(found, total)}"


def unwelcoming(ctx: Context, carriers: Iterable[Carrier], position: int) -> Iterator[str]:
    """Placed Pods whose required anti-affinity is about this Pod."""
    for carrier in carriers:
        place = _Place(ctx, carrier.placed.topology_key, position)
        if total := place.total(carrier.per_row):
            found = place.pods(carrier.per_row, functools.partial(_carries, carrier.placed))
            who = wording.pods_of(carrier.placed.term, ctx.pod.pod.metadata.namespace)
            yield f"anti-affinity of {wording.names(found, total)} to {who} within {place.name}"


def _carries(placed: PlacedTerm, pod: PodInfo) -> bool:
    return placed in pod.terms.anti_affinity


def _all_of(terms: tuple[PlacedTerm, ...], namespace: str) -> str:
    return " that are also ".join(dict.fromkeys(wording.pods_of(t.term, namespace) for t in terms))


class _Place:
    """The value that a node has under a topology key, and the nodes that share it."""

    def __init__(self, ctx: Context, key: str, position: int) -> None:
        self._state = state = ctx.nodes.state
        self.key = key
        self._column = state.labels.column(key)
        self._ids = self._column.ids[: state.height]
        self._own = int(self._ids[ctx.nodes.row(position)])
        self.has_label = self._own != ABSENT

    @property
    def name(self) -> str:
        return f"{self.key}={self._column.values[self._own]}"

    def total(self, per_row: IntArray) -> int:
        return int(self._counts(per_row)[self._here].sum()) if self.has_label else 0

    def pods(self, per_row: IntArray, is_meant: Callable[[PodInfo], bool]) -> list[str]:
        """The first few Pods in this place that are meant, by name."""
        found: list[str] = []
        for row in np.flatnonzero(self._here & (self._counts(per_row) > 0)):
            found += [pod.key for pod in self._state.pods_at[int(row)].values() if is_meant(pod)]
            if len(found) > wording.SHOWN:
                break
        return sorted(found)

    def elsewhere(self, per_row: IntArray) -> str:
        """Where else there are any: `zone=a (2), zone=b (1)`."""
        sums = np.bincount(self._ids + 1, weights=self._counts(per_row), minlength=len(self._column.values) + 1)[1:]
        order = np.argsort(-sums, kind="stable")
        found = [f"{self.key}={self._column.values[i]} ({int(sums[i])})" for i in order if sums[i]]
        return wording.names(found)

    @property
    def _here(self) -> BoolArray:
        here: BoolArray = self._ids == self._own
        return here

    def _counts(self, per_row: IntArray) -> IntArray:
        return per_row[: self._state.height]
