"""Which existing volume each unbound claim of a Pod would get on each node (upstream: FindMatchingVolume).

Upstream looks at every volume for every node. Here volumes are sorted once, and what they say about nodes is turned
into tables: most volumes name the values of one label (a host name, a zone), so a table from the label's values to
the best volumes answers for all nodes at once.
"""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Iterable, Sequence

import msgspec
import numpy as np

from ..node_selection import match_selector
from ..objects import NodeSelector, NodeSelectorTerm
from ..requests import nano
from ..state import NodeView
from ..state.arrays import BoolArray, IntArray
from ..state.storage import StorageState
from ..storage_objects import Claim, PersistentVolume

NO_VOLUME = -1


class Matches(msgspec.Struct):
    """For each claim, in the order given to `match_volumes`: per node an index into `volumes`, or NO_VOLUME."""

    volumes: list[PersistentVolume]
    picks: list[IntArray]


def size_of(claim: Claim) -> int:
    """How many billionths of a byte the claim asks for; 0 for none. Raises ValueError for text that is no quantity."""
    return nano(claim.spec.resources.requests.get("storage", "0"))


def match_volumes(nodes: NodeView, storage: StorageState, claims: Sequence[Claim]) -> Matches:
    """The smallest volume that suits each claim, per node; no volume twice at one node. Give smaller claims first.

    A volume that is set aside for the claim is taken before any other, and if a node does not reach it, no other is.
    """
    matches = Matches([], [])
    known: dict[str, int] = {}
    for claim in claims:
        aside = next((v for v in storage.volumes_for(claim) if _is_usable(v, claim, size_of(claim))), None)
        found = [aside] if aside is not None else _candidates(storage, claim)
        numbers = []
        for volume in found:
            number = known.get(volume.key)
            if number is None:
                number = known[volume.key] = len(matches.volumes)
                matches.volumes.append(volume)
            numbers.append(number)
        matches.picks.append(_Picker(nodes, found, numbers, matches.picks).pick())
    return matches


def reachable(nodes: NodeView, volume: PersistentVolume) -> BoolArray | None:
    """Where the volume can be reached; None for everywhere (upstream: CheckNodeAffinity)."""
    return None if volume.affinity is None else _selected(nodes, volume.affinity)


def _selected(nodes: NodeView, affinity: NodeSelector) -> BoolArray:
    if any(term.match_fields for term in affinity.node_selector_terms):
        affinity = _without_fields(affinity)
    return match_selector(nodes, affinity)


def _without_fields(selector: NodeSelector) -> NodeSelector:
    """Upstream shows volumes the labels of a node only: no name is in any list, and none is excluded."""
    terms = [
        NodeSelectorTerm(match_expressions=term.match_expressions)
        for term in selector.node_selector_terms
        if all(requirement.operator == "NotIn" for requirement in term.match_fields)
    ]
    return NodeSelector(node_selector_terms=terms)


def _candidates(storage: StorageState, claim: Claim) -> list[PersistentVolume]:
    """Free volumes that suit the claim, the smallest first."""
    modes, selector, size = set(claim.spec.access_modes), claim.spec.selector, size_of(claim)
    suiting = [
        (nano(volume.spec.capacity.get("storage", "0")), volume.metadata.name, volume)
        for volume in storage.free_volumes(claim.class_name)
        if volume.status.phase == "Available"
        and modes.issubset(volume.spec.access_modes)
        and (selector is None or selector.matches(volume.metadata.labels))
        and _is_usable(volume, claim, size)
    ]
    suiting.sort(key=operator.itemgetter(0, 1))
    return [volume for _, _, volume in suiting]


def _is_usable(volume: PersistentVolume, claim: Claim, size: int) -> bool:
    """What must hold even for a volume that is set aside for the claim."""
    spec = volume.spec
    return (
        volume.metadata.deletion_timestamp is None
        and (spec.volume_mode or "Filesystem") == (claim.spec.volume_mode or "Filesystem")
        and (spec.volume_attributes_class_name or "") == (claim.spec.volume_attributes_class_name or "")
        and nano(spec.capacity.get("storage", "0")) >= size
    )


class _Picker:
    """Picks the best volume per node for one claim; `numbers` identify the volumes across claims."""

    def __init__(
        self, nodes: NodeView, volumes: Sequence[PersistentVolume], numbers: Sequence[int], earlier: list[IntArray]
    ) -> None:
        self._nodes = nodes
        self._volumes = volumes
        self._earlier = earlier
        self._none = len(volumes)  # stands for no volume where ranks are compared
        # Rank in `volumes` -> number; at the end the one of no volume.
        self._numbers: IntArray = np.array([*numbers, NO_VOLUME], dtype=np.int64)
        # At most one volume per earlier claim is gone at a node, so one more than those is enough of each kind.
        self._depth = len(earlier) + 1

    def pick(self) -> IntArray:
        """Per node the number of the best volume, or NO_VOLUME."""
        anywhere: list[int] = []
        by_value: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        others: dict[bytes, tuple[NodeSelector, list[int]]] = {}
        for rank, volume in enumerate(self._volumes):
            affinity = volume.affinity
            if affinity is None:
                self._note(anywhere, rank)
            elif (label := _single_label(affinity)) is not None:
                for value in label[1]:
                    self._note(by_value[label[0]][value], rank)
            else:
                _, ranks = others.setdefault(msgspec.json.encode(affinity), (affinity, []))
                self._note(ranks, rank)
        best: IntArray = np.full(len(self._nodes), self._none, dtype=np.int64)
        for rank in anywhere:
            self._improve(best, np.full(len(best), rank, dtype=np.int64))
        for key, values in by_value.items():
            self._by_label(best, key, values)
        for affinity, ranks in others.values():
            where = _selected(self._nodes, affinity)
            for rank in ranks:
                self._improve(best, np.where(where, rank, self._none))
        return self._numbers[best]

    def _note(self, ranks: list[int], rank: int) -> None:
        if len(ranks) < self._depth:
            ranks.append(rank)

    def _by_label(self, best: IntArray, key: str, values: dict[str, list[int]]) -> None:
        ids, column = self._nodes.label(key)
        for depth in range(self._depth):
            # One entry more than there are values: nodes without the label have the number -1.
            table: IntArray = np.full(len(column.values) + 1, self._none, dtype=np.int64)
            for value, ranks in values.items():
                number = column.number(value)
                if number is not None and depth < len(ranks):
                    table[number] = ranks[depth]
            self._improve(best, table[ids])

    def _improve(self, best: IntArray, ranks: IntArray) -> None:
        """Take these ranks where they are better, and not those of a volume that an earlier claim has there."""
        better = ranks < best
        numbers = self._numbers[ranks]
        for taken in self._earlier:
            better &= taken != numbers
        best[better] = ranks[better]


def _single_label(affinity: NodeSelector) -> tuple[str, Iterable[str]] | None:
    """Key and values of an affinity that only asks for one label to be one of some values."""
    if len(affinity.node_selector_terms) != 1:
        return None
    term = affinity.node_selector_terms[0]
    if term.match_fields or len(term.match_expressions) != 1:
        return None
    requirement = term.match_expressions[0]
    return (requirement.key, dict.fromkeys(requirement.values)) if requirement.operator == "In" else None
