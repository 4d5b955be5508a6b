"""Where a Pod may run: nodeSelector, tolerations and affinity, checked with upstream's messages. Pure.

Source: pkg/apis/core/validation/validation.go (ValidateTolerations, ValidateNodeSelectorRequirement,
validatePodAffinityTerm), Kubernetes 1.36.
"""

from __future__ import annotations

import re

from nodewright.controllers.admission.fields import (
    Json,
    child,
    entries,
    forbidden,
    invalid,
    invalid_each,
    not_supported,
    required,
)
from nodewright.controllers.admission.labels import check_key, check_labels, check_selector, value_faults
from nodewright.framework.webhook.review import Cause

_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_INT64 = 2**63


def check_placement(spec: Json, path: str) -> list[Cause]:
    """Faults of the fields of a Pod spec that choose nodes."""
    causes = check_labels(child(spec, "nodeSelector"), f"{path}.nodeSelector")
    for where, toleration in entries(spec, "tolerations", path):
        causes += _check_toleration(toleration, where)
    affinity = child(spec, "affinity")
    causes += _check_node_affinity(child(affinity, "nodeAffinity"), f"{path}.affinity.nodeAffinity")
    for kind in ("podAffinity", "podAntiAffinity"):
        causes += _check_pod_affinity(child(affinity, kind), f"{path}.affinity.{kind}")
    return causes


def _check_toleration(toleration: Json, path: str) -> list[Cause]:
    key, operator, value = (str(toleration.get(name) or "") for name in ("key", "operator", "value"))
    effect = str(toleration.get("effect") or "")
    causes = check_key(key, f"{path}.key") if key else []
    if not key and operator != "Exists":
        text = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
        causes.append(invalid(f"{path}.operator", operator, text))
    if toleration.get("tolerationSeconds") is not None and effect != "NoExecute":
        causes.append(invalid(f"{path}.effect", effect, "effect must be 'NoExecute' when `tolerationSeconds` is set"))
    causes += _check_toleration_operator(operator, value, path)
    if effect and effect not in _EFFECTS:
        causes.append(not_supported(f"{path}.effect", effect, _EFFECTS))
    return causes


def _check_toleration_operator(operator: str, value: str, path: str) -> list[Cause]:
    if operator in ("", "Equal"):
        faults = value_faults(value)
        return [invalid(f"{path}.operator", value, ";".join(faults))] if faults else []
    if operator == "Exists":
        text = "value must be empty when `operator` is 'Exists'"
        return [invalid(f"{path}.operator", value, text)] if value else []
    if operator in ("Lt", "Gt"):  # KEP-5471; whether the cluster has it, is the dry run's to say
        whole = re.fullmatch(r"0|-?[1-9][0-9]*", value) is not None and -_INT64 <= int(value) < _INT64
        return [] if whole else [invalid(f"{path}.value", value, "must be a decimal integer of 64 bits")]
    return [not_supported(f"{path}.operator", operator, ("Equal", "Exists"))]


def _check_node_affinity(affinity: Json, path: str) -> list[Cause]:
    causes: list[Cause] = []
    must = affinity.get(_REQUIRED)
    if isinstance(must, dict):
        if not must.get("nodeSelectorTerms"):
            causes.append(
                required(f"{path}.{_REQUIRED}.nodeSelectorTerms", "must have at least one node selector term")
            )
        for where, term in entries(must, "nodeSelectorTerms", f"{path}.{_REQUIRED}"):
            causes += _check_term(term, where)
    for where, wish in entries(affinity, _PREFERRED, path):
        causes += _check_weight(wish, where)
        causes += _check_term(child(wish, "preference"), f"{where}.preference")
    return causes


def _check_term(term: Json, path: str) -> list[Cause]:
    causes: list[Cause] = []
    for where, requirement in entries(term, "matchExpressions", path):
        causes += _check_node_requirement(requirement, where)
    for where, requirement in entries(term, "matchFields", path):
        causes += _check_node_field(requirement, where)
    return causes


def _check_node_requirement(requirement: Json, path: str) -> list[Cause]:
    causes: list[Cause] = []
    operator, values = requirement.get("operator", ""), requirement.get("values") or []
    if operator in ("In", "NotIn"):
        if not values:
            causes.append(required(f"{path}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            text = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            causes.append(forbidden(f"{path}.values", text))
    elif operator in ("Gt", "Lt"):
        if len(values) != 1:
            text = "must be specified single value when `operator` is 'Lt' or 'Gt'"
            causes.append(required(f"{path}.values", text))
    else:
        causes.append(invalid(f"{path}.operator", operator, "not a valid selector operator"))
    causes += check_key(requirement.get("key", ""), f"{path}.key")
    for index, value in enumerate(values):
        causes += invalid_each(f"{path}.values[{index}]", value, value_faults(str(value)))
    return causes


def _check_node_field(requirement: Json, path: str) -> list[Cause]:
    """ValidateNodeFieldSelectorRequirement: only `metadata.name`, In or NotIn, and one value."""
    causes: list[Cause] = []
    operator, values = requirement.get("operator", ""), requirement.get("values") or []
    if operator not in ("In", "NotIn"):
        causes.append(invalid(f"{path}.operator", operator, "not a valid selector operator"))
    elif len(values) != 1:
        text = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector"
        causes.append(required(f"{path}.values", text))
    if requirement.get("key") != "metadata.name":
        causes.append(invalid(f"{path}.key", requirement.get("key", ""), "not a valid field selector key"))
    return causes


def _check_pod_affinity(affinity: Json, path: str) -> list[Cause]:
    causes: list[Cause] = []
    for where, term in entries(affinity, _REQUIRED, path):
        causes += _check_pod_term(term, where)
    for where, wish in entries(affinity, _PREFERRED, path):
        causes += _check_weight(wish, where)
        causes += _check_pod_term(child(wish, "podAffinityTerm"), f"{where}.podAffinityTerm")
    return causes


def _check_pod_term(term: Json, path: str) -> list[Cause]:
    causes: list[Cause] = []
    for name in ("labelSelector", "namespaceSelector"):
        causes += check_selector(child(term, name), f"{path}.{name}")
    key = str(term.get("topologyKey") or "")
    if not key:
        causes.append(required(f"{path}.topologyKey", "can not be empty"))
    return causes + check_key(key, f"{path}.topologyKey")


def _check_weight(wish: Json, path: str) -> list[Cause]:
    weight = wish.get("weight", 0)
    return [] if 1 <= weight <= 100 else [invalid(f"{path}.weight", weight, "must be in the range 1-100")]
