"""Amounts, selectors and lists of Pods in words, for the sentences in which plugins say what is missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from nodewright.kube import quantity
from nodewright.kube.api.meta import LabelSelector

from .objects import NodeSelectorTerm, Requirement, Taint
from .pods import HostPort
from .terms import Term

# How many names or values a sentence shows before it only counts.
SHOWN = 5

_BINARY = ("memory", "ephemeral-storage", "storage")


def amount(resource: str, number: int) -> str:
    """A scheduler's amount (millicores, bytes, whole units) as a quantity: 1500m, 2Gi, 3."""
    if resource == "cpu":
        return f"{number}m"
    if resource in _BINARY or resource.startswith("hugepages-"):
        return _bytes(number)
    return str(number)


def names(found: Sequence[str], total: int | None = None) -> str:
    """Some names, the first few in full, and how many there are beyond."""
    total = len(found) if total is None else total
    shown = ", ".join(found[:SHOWN])
    rest = total - min(len(found), SHOWN)
    return f"{shown} and {rest} more" if rest > 0 else shown


def taint(one: Taint) -> str:
    """`key=value:effect`, as kubectl writes it."""
    return f"{one.key}={one.value}:{one.effect}" if one.value else f"{one.key}:{one.effect}"


def port(one: HostPort) -> str:
    """`8080/TCP`, with the address where it is not all of them."""
    return f"{one.ip}:{one.port}/{one.protocol}" if one.ip else f"{one.port}/{one.protocol}"


def requirement(one: Requirement) -> str:
    """`zone In [a, b]`."""
    return f"{one.key} {one.operator} [{', '.join(one.values)}]" if one.values else f"{one.key} {one.operator}"


def selector_term(term: NodeSelectorTerm) -> str:
    """The requirements of a node selector term, joined by `and`."""
    return " and ".join(requirement(r) for r in (*term.match_expressions, *term.match_fields)) or "nothing"


def label(labels: Mapping[str, str], key: str) -> str:
    """What a node has under a label key, as the end of a sentence that starts with `the node has`."""
    return f"{key}={labels[key]}" if key in labels else f"no label {key}"


def pod_selector(selector: LabelSelector | None) -> str:
    """A label selector: `app=web, tier In [a, b]`."""
    if selector is None:
        return "nothing"
    parts = [f"{key}={value}" for key, value in selector.match_labels.items()]
    parts += [requirement(Requirement(key=r.key, operator=r.operator, values=r.values)) for r in _expressions(selector)]
    return ", ".join(parts) or "any labels"


def pods_of(term: Term, namespace: str) -> str:
    """The Pods that a term means, seen from a namespace: `pods with app=web in namespaces a, b`."""
    text = f"pods with {pod_selector(term.selector)}"
    if term.namespace_selector is not None:
        chosen = pod_selector(term.namespace_selector)
        text += " in all namespaces" if chosen == "any labels" else f" in namespaces with {chosen}"
    elif term.namespaces != {namespace}:
        text += f" in {'namespace' if len(term.namespaces) == 1 else 'namespaces'} {', '.join(sorted(term.namespaces))}"
    return text


def counted(number: int, noun: str) -> str:
    """`1 pod`, `2 pods`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _expressions(selector: LabelSelector) -> Iterable[Requirement]:
    return [Requirement(key=r.key, operator=r.operator, values=list(r.values)) for r in selector.match_expressions]


def _bytes(number: int) -> str:
    """The largest binary unit in which the number reads well; three digits are enough where it is not exact."""
    sign, number = ("-", -number) if number < 0 else ("", number)
    exact = quantity.format_binary(number)
    if len(exact) <= 6:
        return sign + exact
    for suffix, exponent in (("Ti", 40), ("Gi", 30), ("Mi", 20), ("Ki", 10)):
        if number >= 1 << exponent:
            return f"{sign}{number / (1 << exponent):.4g}{suffix}"
    return sign + exact
