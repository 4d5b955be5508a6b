"""NodeAffinityArgs: terms that upstream's parser does not accept make the profile wrong.

In a Pod such a term selects no node; here it would silently shut the whole profile out.
"""

from __future__ import annotations

from ..arguments import Faults, label_name_fault
from ..objects import NodeAffinity, NodeSelectorTerm, Requirement
from ..state.columns import parse_int64

_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt")


def check_added_affinity(added: NodeAffinity) -> None:
    """Upstream's ValidateNodeAffinityArgs. Raises ValueError with all that is wrong."""
    faults = Faults()
    if added.required is not None:
        field = "addedAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms"
        for index, term in enumerate(added.required.node_selector_terms):
            _check_term(term, f"{field}[{index}]", faults)
    field = "addedAffinity.preferredDuringSchedulingIgnoredDuringExecution"
    for index, preferred in enumerate(added.preferred):
        faults.in_range(f"{field}[{index}].weight", preferred.weight, 0, 100)
        _check_term(preferred.preference, f"{field}[{index}].preference", faults)
    faults.check()


def _check_term(term: NodeSelectorTerm, field: str, faults: Faults) -> None:
    for index, requirement in enumerate(term.match_expressions):
        _check_expression(requirement, f"{field}.matchExpressions[{index}]", faults)
    for index, requirement in enumerate(term.match_fields):
        where = f"{field}.matchFields[{index}]"
        if requirement.operator not in ("In", "NotIn"):
            faults.unsupported(f"{where}.operator", requirement.operator, ("In", "NotIn"))
        if len(requirement.values) != 1:
            faults.required(f"{where}.values", "must have one element")


def _check_expression(requirement: Requirement, field: str, faults: Faults) -> None:
    if why := label_name_fault(requirement.key):
        faults.invalid(f"{field}.key", requirement.key, why)
    values = requirement.values
    match requirement.operator:
        case "In" | "NotIn":
            if not values:
                faults.required(f"{field}.values", "must be specified when `operator` is 'In' or 'NotIn'")
        case "Exists" | "DoesNotExist":
            if values:
                faults.forbidden(
                    f"{field}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
                )
        case "Gt" | "Lt":
            if len(values) != 1:
                faults.required(f"{field}.values", "must be specified single value when `operator` is 'Lt' or 'Gt'")
            elif parse_int64(values[0]) is None:
                faults.invalid(
                    f"{field}.values[0]", values[0], "for 'Gt', 'Lt' operators, the value must be an integer"
                )
        case _:
            faults.unsupported(f"{field}.operator", requirement.operator, _OPERATORS)
