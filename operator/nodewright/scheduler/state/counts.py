"""How many Pods of a kind are at each node, counted as Pods come and go and never recounted.

Topology spreading asks how many Pods a selector matches; inter-pod affinity also asks the other way round, which nodes
hold Pods whose own terms match the Pod in question. Both are arrays with one count per row here. Pods with equal
namespace and labels form a class, and the counts that a class takes part in are looked up once, so that adding a Pod
matches no selector.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping

import numpy as np

from ..pods import PodInfo
from ..terms import PlacedTerm, Term
from .arrays import IntArray, grown

# Classes of Pods that ask and are not placed (yet), of which the answers are remembered.
VISITORS = 256
# Counts that nobody has asked for lately are dropped beyond this many; they are counted anew when asked for.
KEPT_COUNTS = 512

ClassKey = tuple[str, frozenset[tuple[str, str]], bool]
CountKey = tuple[tuple[Term, ...], bool]
CarrierKey = tuple[str, PlacedTerm]


class Count:
    """Pods at each row that all of `terms` match."""

    __slots__ = ("per_row", "skips_terminating", "terms")

    def __init__(self, terms: tuple[Term, ...], skips_terminating: bool, capacity: int) -> None:
        self.terms = terms
        self.skips_terminating = skips_terminating
        self.per_row: IntArray = np.zeros(capacity, dtype=np.int64)


class PodClass:
    """Pods that no selector can tell apart: where they are, and the counts they take part in."""

    __slots__ = ("carriers", "carriers_seen", "counts", "labels", "namespace", "rows", "terminating")

    def __init__(self, namespace: str, labels: Mapping[str, str], terminating: bool) -> None:
        self.namespace = namespace
        self.labels = labels
        self.terminating = terminating
        self.rows: dict[int, int] = {}
        self.counts: list[Count] = []
        self.carriers: list[Carrier] = []
        self.carriers_seen = -1


class Carrier:
    """Placed Pods that have the same term: how many of them at each row, and in all."""

    __slots__ = ("meaning", "per_row", "placed", "total")

    def __init__(self, meaning: str, placed: PlacedTerm, capacity: int) -> None:
        self.meaning = meaning
        self.placed = placed
        self.per_row: IntArray = np.zeros(capacity, dtype=np.int64)
        self.total = 0


class PodCounts:
    """All counts of a cluster. `namespaces` has the labels of each namespace."""

    def __init__(self, capacity: int) -> None:
        self.namespaces: dict[str, Mapping[str, str]] = {}
        self._capacity = capacity
        self._classes: dict[ClassKey, PodClass] = {}
        self._visitors: OrderedDict[ClassKey, PodClass] = OrderedDict()
        self._counts: OrderedDict[CountKey, Count] = OrderedDict()
        self._carriers: dict[CarrierKey, Carrier] = {}
        self._carrier_generation = 0

    # --- reading -------------------------------------------------------------------------------------------------

    def matching(self, terms: tuple[Term, ...], *, skip_terminating: bool = False) -> IntArray:
        """Per row, the Pods that every one of the terms matches. Read-only, and current until Pods change."""
        key = (terms, skip_terminating)
        count = self._counts.get(key)
        if count is None:
            count = self._counts[key] = self._counted(terms, skip_terminating)
            if len(self._counts) > KEPT_COUNTS:
                self._drop(self._counts.popitem(last=False)[1])
        else:
            self._counts.move_to_end(key)
        return count.per_row

    def carriers(self, pod: PodInfo) -> list[Carrier]:
        """The terms of placed Pods that match this Pod."""
        if not self._carriers:
            return []
        found = self._classes.get(pod.class_key) or self._visitor(pod)
        if found.carriers_seen != self._carrier_generation:
            found.carriers_seen = self._carrier_generation
            about = self.namespaces.get(found.namespace, {})
            found.carriers = [
                c for c in self._carriers.values() if c.placed.term.matches(found.namespace, found.labels, about)
            ]
        return found.carriers

    def matches(self, terms: Iterable[Term], pod: PodInfo) -> bool:
        """Whether every one of the terms matches the Pod."""
        meta = pod.pod.metadata
        about = self.namespaces.get(meta.namespace, {})
        return all(term.matches(meta.namespace, meta.labels, about) for term in terms)

    # --- changes -------------------------------------------------------------------------------------------------

    def add(self, row: int, pod: PodInfo) -> None:
        """A Pod is at a row."""
        found = self._class_of(pod)
        found.rows[row] = found.rows.get(row, 0) + 1
        for count in found.counts:
            count.per_row[row] += 1
        for key in pod.terms.carried:
            carrier = self._carriers.get(key)
            if carrier is None:
                carrier = self._carriers[key] = Carrier(*key, self._capacity)
                self._carrier_generation += 1
            carrier.per_row[row] += 1
            carrier.total += 1

    def remove(self, row: int, pod: PodInfo) -> None:
        """A Pod has left a row where it was added."""
        key = pod.class_key
        found = self._classes[key]
        left = found.rows[row] - 1
        if left:
            found.rows[row] = left
        else:
            del found.rows[row]
            if not found.rows:
                del self._classes[key]
        for count in found.counts:
            count.per_row[row] -= 1
        for carried in pod.terms.carried:
            carrier = self._carriers[carried]
            carrier.per_row[row] -= 1
            carrier.total -= 1
            if not carrier.total:
                del self._carriers[carried]
                self._carrier_generation += 1

    def set_namespace(self, name: str, labels: Mapping[str, str] | None) -> bool:
        """A namespace appeared, changed its labels, or went away (None). False when no term can see a difference."""
        before = self.namespaces.get(name)
        if labels is None:
            self.namespaces.pop(name, None)
        else:
            self.namespaces[name] = labels
        if (before or {}) == (labels or {}):
            return False
        # Rare, so everything that looks at namespaces' labels is simply counted anew.
        for count in [c for c in self._counts.values() if any(t.namespace_selector is not None for t in c.terms)]:
            del self._counts[(count.terms, count.skips_terminating)]
            self._drop(count)
        self._carrier_generation += 1
        return True

    def grow(self, capacity: int) -> None:
        """Make room for more rows."""
        self._capacity = capacity
        for count in self._counts.values():
            count.per_row = grown(count.per_row, capacity)
        for carrier in self._carriers.values():
            carrier.per_row = grown(carrier.per_row, capacity)

    # --- inside --------------------------------------------------------------------------------------------------

    def _class_of(self, pod: PodInfo) -> PodClass:
        key = pod.class_key
        found = self._classes.get(key)
        if found is None:
            found = self._classes[key] = self._visitor(pod)
            del self._visitors[key]
            found.counts = [count for count in self._counts.values() if self._takes_part(found, count)]
        return found

    def _visitor(self, pod: PodInfo) -> PodClass:
        key = pod.class_key
        found = self._visitors.get(key)
        if found is None:
            found = self._visitors[key] = PodClass(key[0], dict(key[1]), key[2])
            if len(self._visitors) > VISITORS:
                self._visitors.popitem(last=False)
        return found

    def _takes_part(self, found: PodClass, count: Count) -> bool:
        if count.skips_terminating and found.terminating:
            return False
        about = self.namespaces.get(found.namespace, {})
        return all(term.matches(found.namespace, found.labels, about) for term in count.terms)

    def _counted(self, terms: tuple[Term, ...], skips_terminating: bool) -> Count:
        count = Count(terms, skips_terminating, self._capacity)
        for found in self._classes.values():
            if self._takes_part(found, count):
                found.counts.append(count)
                for row, number in found.rows.items():
                    count.per_row[row] += number
        return count

    def _drop(self, count: Count) -> None:
        for found in self._classes.values():
            if count in found.counts:
                found.counts.remove(count)
