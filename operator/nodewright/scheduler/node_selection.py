"""Node selectors as masks over label columns (upstream: component-helpers/scheduling/corev1/nodeaffinity)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from .objects import NodeSelector, NodeSelectorTerm, PodSpec, Requirement
from .state import NodeView
from .state.arrays import BoolArray
from .state.columns import ABSENT, parse_int64


def match_labels(nodes: NodeView, wanted: dict[str, str]) -> BoolArray:
    """Where every label has the wanted value (a Pod's `nodeSelector`)."""
    mask = _everywhere(nodes)
    for key, value in wanted.items():
        ids, column = nodes.label(key)
        number = column.number(value)
        if number is None:
            return np.zeros(len(nodes), dtype=np.bool_)
        mask &= ids == number
    return mask


def match_selector(nodes: NodeView, selector: NodeSelector) -> BoolArray:
    """Where at least one term matches. Without terms, nowhere."""
    mask = np.zeros(len(nodes), dtype=np.bool_)
    for term in selector.node_selector_terms:
        mask |= match_term(nodes, term)
    return mask


def match_required(nodes: NodeView, spec: PodSpec) -> BoolArray:
    """Where a Pod's `nodeSelector` and required node affinity hold (upstream: RequiredNodeAffinity)."""
    mask = match_labels(nodes, spec.node_selector) if spec.node_selector else _everywhere(nodes)
    affinity = spec.affinity.node_affinity if spec.affinity else None
    if affinity is not None and affinity.required is not None:
        mask &= match_selector(nodes, affinity.required)
    return mask


def match_term(nodes: NodeView, term: NodeSelectorTerm) -> BoolArray:
    """Where all requirements of the term hold. An empty term, or one that cannot be read, matches nowhere."""
    if is_empty(term) or not is_readable(term):
        return np.zeros(len(nodes), dtype=np.bool_)
    mask = _everywhere(nodes)
    for requirement in term.match_expressions:
        mask &= _LABEL_OPERATORS[requirement.operator](nodes, requirement)
    for requirement in term.match_fields:
        mask &= _match_field(nodes, requirement)
    return mask


def is_empty(term: NodeSelectorTerm) -> bool:
    """Whether the term has no requirement at all."""
    return not term.match_expressions and not term.match_fields


def is_readable(term: NodeSelectorTerm) -> bool:
    """Whether upstream's parser accepts the term; one it does not accept selects no node, and is no error."""
    for requirement in term.match_expressions:
        count = len(requirement.values)
        match requirement.operator:
            case "In" | "NotIn" if count:
                pass
            case "Exists" | "DoesNotExist" if not count:
                pass
            case "Gt" | "Lt" if count == 1 and parse_int64(requirement.values[0]) is not None:
                pass
            case _:
                return False
    return all(r.operator in ("In", "NotIn") and len(r.values) == 1 for r in term.match_fields)


def named_nodes(selector: NodeSelector) -> set[str] | None:
    """The node names that the selector is confined to, or None when some term is open to any name.

    An empty set: the terms contradict themselves, no node can match.
    """
    if not selector.node_selector_terms:
        return None
    names: set[str] = set()
    for term in selector.node_selector_terms:
        own: set[str] | None = None
        for requirement in term.match_fields:
            if requirement.key == "metadata.name" and requirement.operator == "In":
                values = set(requirement.values)
                own = values if own is None else own & values
        if own is None:
            return None
        names |= own
    return names


def _everywhere(nodes: NodeView) -> BoolArray:
    return np.ones(len(nodes), dtype=np.bool_)


def _in(nodes: NodeView, requirement: Requirement) -> BoolArray:
    ids, column = nodes.label(requirement.key)
    numbers = [n for value in requirement.values if (n := column.number(value)) is not None]
    mask: BoolArray = ids == numbers[0] if len(numbers) == 1 else np.isin(ids, numbers)
    return mask


def _exists(nodes: NodeView, requirement: Requirement) -> BoolArray:
    mask: BoolArray = nodes.label(requirement.key)[0] != ABSENT
    return mask


def _compared(nodes: NodeView, requirement: Requirement, holds: Callable[[int, int], bool]) -> BoolArray:
    ids, column = nodes.label(requirement.key)
    bound = parse_int64(requirement.values[0])
    assert bound is not None  # is_readable has seen to it
    numbers: Iterable[int] = range(len(column.values))
    passing = [n for n in numbers if (value := column.integer(n)) is not None and holds(value, bound)]
    return np.isin(ids, passing)


_LABEL_OPERATORS: dict[str, Callable[[NodeView, Requirement], BoolArray]] = {
    "In": _in,
    "NotIn": lambda nodes, requirement: ~_in(nodes, requirement),
    "Exists": _exists,
    "DoesNotExist": lambda nodes, requirement: ~_exists(nodes, requirement),
    "Gt": lambda nodes, requirement: _compared(nodes, requirement, int.__gt__),
    "Lt": lambda nodes, requirement: _compared(nodes, requirement, int.__lt__),
}


def _match_field(nodes: NodeView, requirement: Requirement) -> BoolArray:
    value = requirement.values[0]
    if requirement.key == "metadata.name":
        mask = nodes.positions_of({value})
    else:
        mask = np.full(len(nodes), not value, dtype=np.bool_)  # an unknown field reads as ""
    return mask if requirement.operator == "In" else ~mask
