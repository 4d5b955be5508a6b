"""Label selectors, node selectors, taints and tolerations: the matching rules of upstream, pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from nodewright.kube.api.meta import LabelSelector, LabelSelectorRequirement, requirement_matches
from nodewright.kube.api.scheduling import NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Taint, Toleration

__all__ = [
    "LabelSelector",
    "SelectorError",
    "format",
    "node_selector_matches",
    "node_term_matches",
    "parse",
    "tolerates",
    "untolerated_taint",
]


class SelectorError(ValueError):
    """A selector text that can't be read; the message tells where."""


_TOKEN = re.compile(r"\s*(?:(==|=|!=|\(|\)|,|!|<|>)|([^\s()=,!<>]+))")
_NAME = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_PREFIX = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*")


def parse(text: str) -> LabelSelector:
    """Read a selector as kubectl takes it: `a=b,c!=d,e in (f,g),!h`. The empty text selects everything."""
    parser = _Parser(text)
    requirements = parser.requirements()
    return LabelSelector(match_expressions=requirements)


def format(selector: LabelSelector | None) -> str:
    """Write a selector for the API's labelSelector parameter. Raises ValueError for None, which selects nothing.

    The order is that of upstream: by key, and values sorted.
    """
    if selector is None:
        raise ValueError("no selector selects nothing, which a query can't express")
    parts = [(key, f"{key}={value}") for key, value in selector.match_labels.items()]
    for requirement in selector.match_expressions:
        values = sorted(set(requirement.values))
        key = requirement.key
        match requirement.operator:
            case "In":
                text = f"{key}={values[0]}" if len(values) == 1 else f"{key} in ({','.join(values)})"
            case "NotIn":
                text = f"{key}!={values[0]}" if len(values) == 1 else f"{key} notin ({','.join(values)})"
            case "Exists":
                text = key
            case "DoesNotExist":
                text = f"!{key}"
            case other:
                raise SelectorError(f"{key}: unknown operator {other!r}")
        parts.append((key, text))
    return ",".join(text for _, text in sorted(parts))


class _Parser:
    """Recursive descent over `requirement (',' requirement)*`."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[str] = []
        position = 0
        stripped = text.rstrip()
        while position < len(stripped):
            match = _TOKEN.match(stripped, position)
            if match is None:
                raise SelectorError(f"selector {text!r}: unexpected {stripped[position:]!r}")
            self._tokens.append(match.group(1) or match.group(2))
            position = match.end()
        self._at = 0

    def requirements(self) -> list[LabelSelectorRequirement]:
        if not self._tokens:
            return []
        found = [self._requirement()]
        while self._peek() == ",":
            self._next()
            found.append(self._requirement())
        if self._peek():
            raise self._error(f"expected ',', found {self._peek()!r}")
        return found

    def _requirement(self) -> LabelSelectorRequirement:
        if self._peek() == "!":
            self._next()
            return LabelSelectorRequirement(self._key(), "DoesNotExist")
        key = self._key()
        operator = self._peek()
        if operator in ("", ","):
            return LabelSelectorRequirement(key, "Exists")
        self._next()
        match operator:
            case "=" | "==":
                return LabelSelectorRequirement(key, "In", [self._value()])
            case "!=":
                return LabelSelectorRequirement(key, "NotIn", [self._value()])
            case "in":
                return LabelSelectorRequirement(key, "In", self._values())
            case "notin":
                return LabelSelectorRequirement(key, "NotIn", self._values())
        raise self._error(f"expected one of = == != in notin, found {operator!r}")

    def _values(self) -> list[str]:
        if self._next() != "(":
            raise self._error("expected '('")
        values = [self._value()]
        while self._peek() == ",":
            self._next()
            values.append(self._value())
        if self._next() != ")":
            raise self._error("expected ')'")
        return values

    def _key(self) -> str:
        key = self._next()
        prefix, slash, name = key.rpartition("/")
        if not _NAME.fullmatch(name) or (slash and (len(prefix) > 253 or not _PREFIX.fullmatch(prefix))):
            raise self._error(f"{key!r} is no label key")
        return key

    def _value(self) -> str:
        if self._peek() in ("", ",", ")"):
            return ""  # `a=` selects the empty value
        value = self._next()
        if not _NAME.fullmatch(value):
            raise self._error(f"{value!r} is no label value")
        return value

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _next(self) -> str:
        token = self._peek()
        self._at += 1
        return token

    def _error(self, message: str) -> SelectorError:
        return SelectorError(f"selector {self._text!r}: {message}")


def node_selector_matches(selector: NodeSelector | None, labels: Mapping[str, str], node_name: str) -> bool:
    """Tell whether a node fits: terms are alternatives. None selects every node, a selector without terms none."""
    if selector is None:
        return True
    return any(node_term_matches(term, labels, node_name) for term in selector.node_selector_terms)


def node_term_matches(term: NodeSelectorTerm, labels: Mapping[str, str], node_name: str) -> bool:
    """Tell whether a node fits one term: all requirements hold. An empty term fits no node (upstream's rule)."""
    if not term.match_expressions and not term.match_fields:
        return False
    # metadata.name is the only field that upstream knows
    fields = {"metadata.name": node_name}
    return all(_node_requirement(r, labels) for r in term.match_expressions) and all(
        r.key in fields and _node_requirement(r, fields) for r in term.match_fields
    )


def _node_requirement(requirement: NodeSelectorRequirement, labels: Mapping[str, str]) -> bool:
    if requirement.operator in ("Gt", "Lt"):
        have = _int64(labels.get(requirement.key, ""))
        want = _int64(requirement.values[0]) if len(requirement.values) == 1 else None
        if have is None or want is None:
            return False
        return have > want if requirement.operator == "Gt" else have < want
    as_label = LabelSelectorRequirement(requirement.key, requirement.operator, requirement.values)
    return requirement_matches(as_label, dict(labels))


def _int64(text: str) -> int | None:
    """Go's strconv.ParseInt(text, 10, 64)."""
    if not re.fullmatch(r"[+-]?[0-9]+", text):
        return None
    number = int(text)
    return number if -(2**63) <= number < 2**63 else None


def _tolerates_one(toleration: Toleration, taint: Taint) -> bool:
    """Apply Toleration.ToleratesTaint; Lt and Gt (KEP-5471) match nothing, as with upstream's default gates."""
    if toleration.effect and toleration.effect != taint.effect:
        return False
    if toleration.key and toleration.key != taint.key:
        return False
    match toleration.operator:
        case "" | "Equal":
            # an empty key is only valid with Exists, but upstream's matching does not ask
            return toleration.value == taint.value
        case "Exists":
            return True
    return False


def tolerates(tolerations: Iterable[Toleration], taint: Taint) -> bool:
    """Tell whether one of the tolerations covers the taint."""
    return any(_tolerates_one(toleration, taint) for toleration in tolerations)


def untolerated_taint(
    taints: Iterable[Taint],
    tolerations: Sequence[Toleration],
    effects: Collection[str] = ("NoSchedule", "NoExecute"),
) -> Taint | None:
    """Give the first taint of these effects that no toleration covers, None when all are covered."""
    for taint in taints:
        if taint.effect in effects and not tolerates(tolerations, taint):
            return taint
    return None
