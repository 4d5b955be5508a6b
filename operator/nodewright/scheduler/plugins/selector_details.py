"""Which label of a node does not match a selector: the sentences that `explain` shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from .. import wording
from ..node_selection import is_empty, is_readable, match_term
from ..objects import NodeSelector, NodeSelectorTerm, Requirement
from ..plugin import Context
from ..state import NodeView


def unmatched_labels(ctx: Context, wanted: Mapping[str, str], position: int) -> Iterator[str]:
    """The labels of a nodeSelector that the node lacks or has with another value."""
    labels = _labels(ctx, position)
    for key, value in wanted.items():
        if labels.get(key) != value:
            yield f"nodeSelector {key}={value}: the node has {wording.label(labels, key)}"


def unmatched_terms(ctx: Context, selector: NodeSelector, position: int, what: str) -> Iterator[str]:
    """What each term asks for in vain; nothing when one of the terms matches."""
    here = NodeView(ctx.nodes.state, np.array([ctx.nodes.row(position)], dtype=np.intp))
    terms = selector.node_selector_terms
    if any(match_term(here, term)[0] for term in terms):
        return
    if not terms:
        yield f"{what} has no terms, so that it selects no node"
    for index, term in enumerate(terms):
        name = what if len(terms) == 1 else f"{what}, term {index + 1} of {len(terms)}"
        if is_empty(term) or not is_readable(term):
            yield f"{name} selects no node as it is written: {wording.selector_term(term)}"
            continue
        labels = _labels(ctx, position)
        for one in term.match_expressions:
            if not match_term(here, NodeSelectorTerm(match_expressions=[one]))[0]:
                yield f"{name}: wants {wording.requirement(one)}, the node has {wording.label(labels, one.key)}"
        for one in term.match_fields:
            if not match_term(here, NodeSelectorTerm(match_fields=[one]))[0]:
                yield f"{name}: {_field(one)}"


def _field(one: Requirement) -> str:
    if one.key == "metadata.name" and one.operator == "In":
        return f"the pod is for node {one.values[0]}"
    return f"wants {wording.requirement(one)}"


def _labels(ctx: Context, position: int) -> Mapping[str, str]:
    node = ctx.nodes.node(position)
    return node.metadata.labels if node is not None else {}
