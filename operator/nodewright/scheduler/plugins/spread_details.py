"""How far topology spreading is out of step at a node, in numbers: the sentences that `explain` shows."""

from __future__ import annotations

from collections.abc import Iterator

from .. import wording
from ..state import ClusterState
from ..state.columns import ABSENT
from .spreading import Constraint, SpreadPlan


def skews(plan: SpreadPlan, state: ClusterState, row: int) -> Iterator[str]:
    """One sentence for each hard constraint that rejects the node at a row."""
    for constraint in plan.hard:
        domain, sums, minimum = plan.standing(state, constraint)
        number = int(domain.column.ids[row])
        what = f"spread over {constraint.key} (maxSkew {constraint.max_skew})"
        if number == ABSENT:
            yield f"{what}: the node has no label {constraint.key}"
            continue
        held = int(sums[number + 1])
        if held > minimum + constraint.max_skew - constraint.counts_itself:
            value = domain.column.values[number]
            after = held + constraint.counts_itself
            with_it = "with this pod " if constraint.counts_itself else ""
            yield (
                f"{what}: {value} would have {wording.counted(after, 'matching pod')} {with_it}and the lowest count is "
                f"{minimum}, a skew of {after - minimum}; {_standing(plan, state, constraint)}"
            )


def _standing(plan: SpreadPlan, state: ClusterState, constraint: Constraint) -> str:
    counts = sorted(plan.counts(state, constraint).items(), key=lambda item: (item[1], item[0]))
    text = f"now {wording.names([f'{value}: {count}' for value, count in counts])}"
    if len(counts) < constraint.min_domains:
        text += f"; counted from 0, as there are {len(counts)} of minDomains {constraint.min_domains}"
    return text
