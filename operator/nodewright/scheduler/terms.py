"""Terms that select Pods: by namespace and by labels, as affinity and topology spreading do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from nodewright.kube.api.meta import LabelSelector

from .objects import PodAffinityTerm, WeightedPodAffinityTerm

Labels = Mapping[str, str]

_encoder = msgspec.json.Encoder(order="sorted")


class Term:
    """Some Pods: those in certain namespaces whose labels a selector matches. Equal terms are one dictionary key.

    Without a selector nothing matches; an empty selector matches everything (upstream: LabelSelectorAsSelector).
    """

    __slots__ = ("_hash", "key", "namespace_selector", "namespaces", "selector")

    def __init__(
        self, namespaces: Iterable[str], selector: LabelSelector | None, namespace_selector: LabelSelector | None = None
    ) -> None:
        self.namespaces = frozenset(namespaces)
        self.selector = selector
        self.namespace_selector = namespace_selector
        self.key = (self.namespaces, _encoder.encode(selector), _encoder.encode(namespace_selector))
        self._hash = hash(self.key)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Term) and self.key == other.key

    def matches(self, namespace: str, labels: Labels, namespace_labels: Labels) -> bool:
        """Whether a Pod with these labels, in a namespace with those labels, is meant."""
        if self.selector is None:
            return False
        if namespace not in self.namespaces and (
            self.namespace_selector is None or not self.namespace_selector.matches(dict(namespace_labels))
        ):
            return False
        return self.selector.matches(dict(labels))


class PlacedTerm(msgspec.Struct, frozen=True):
    """A term of (anti-)affinity: which Pods, and the node label within whose value they count as near.

    `weight` is 0 for required terms; preferred anti-affinity has a negative one.
    """

    term: Term
    topology_key: str
    weight: int = 0


def placed_term(spec: PodAffinityTerm, namespace: str, weight: int = 0) -> PlacedTerm:
    """A term of a Pod in a namespace: its own namespace counts where it names none (upstream: newAffinityTerm)."""
    namespaces = spec.namespaces
    if not namespaces and spec.namespace_selector is None:
        namespaces = [namespace]
    return PlacedTerm(Term(namespaces, spec.label_selector, spec.namespace_selector), spec.topology_key, weight)


def weighted_terms(specs: Iterable[WeightedPodAffinityTerm], namespace: str, sign: int) -> tuple[PlacedTerm, ...]:
    """Preferred terms with their weights times `sign`; terms of weight 0 say nothing."""
    return tuple(placed_term(s.pod_affinity_term, namespace, sign * s.weight) for s in specs if s.weight)


class AffinityTerms:
    """The Pod (anti-)affinity of a Pod, ready to be counted. Without any, `NO_TERMS` is used."""

    __slots__ = ("affinity", "anti_affinity", "carried", "preferred")

    def __init__(
        self,
        affinity: tuple[PlacedTerm, ...] = (),
        anti_affinity: tuple[PlacedTerm, ...] = (),
        preferred: tuple[PlacedTerm, ...] = (),
    ) -> None:
        self.affinity = affinity
        self.anti_affinity = anti_affinity
        self.preferred = preferred
        # What other Pods have to look at once this one is placed, told apart by what it means to them.
        self.carried: tuple[tuple[str, PlacedTerm], ...] = (
            *((REQUIRED, term) for term in affinity),
            *((FORBIDDEN, term) for term in anti_affinity),
            *((PREFERRED, term) for term in preferred),
        )


REQUIRED, FORBIDDEN, PREFERRED = "required", "forbidden", "preferred"
NO_TERMS = AffinityTerms()
