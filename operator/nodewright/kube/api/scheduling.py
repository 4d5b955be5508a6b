"""What steers a Pod to a Node: node selectors, affinity, taints, tolerations, topology spread (core/v1)."""
# ruff: noqa: RUF012 - msgspec gives every instance its own copy of an empty list or dict default

from __future__ import annotations

import msgspec

from nodewright.kube.api.base import KubeStruct, NullableList, no_nulls
from nodewright.kube.api.meta import LabelSelector


class Taint(KubeStruct):
    """A Node's taint; effect is NoSchedule, PreferNoSchedule or NoExecute."""

    key: str
    effect: str
    value: str = ""
    time_added: str | None = None


class Toleration(KubeStruct):
    """A Pod's toleration; operator "" means Equal, an empty effect every effect, an empty key with Exists every key."""

    key: str = ""
    operator: str = ""
    value: str = ""
    effect: str = ""
    toleration_seconds: int | None = None


class NodeSelectorRequirement(KubeStruct):
    """`key In|NotIn|Exists|DoesNotExist|Gt|Lt values`."""

    key: str
    operator: str
    values: list[str] = []


class NodeSelectorTerm(KubeStruct):
    """Requirements that all hold; a term with none at all matches no node."""

    match_expressions: list[NodeSelectorRequirement] = []
    match_fields: list[NodeSelectorRequirement] = []


class NodeSelector(KubeStruct):
    """Terms of which one must match."""

    node_selector_terms: NullableList[NodeSelectorTerm] = msgspec.field(default_factory=list)

    def __post_init__(self) -> None:
        """Read null as no terms."""
        no_nulls(self, "node_selector_terms")


class PreferredSchedulingTerm(KubeStruct):
    """A term that adds its weight (1..100) to a node that matches."""

    weight: int
    preference: NodeSelectorTerm


class NodeAffinity(KubeStruct):
    """Required and preferred node terms."""

    required_during_scheduling_ignored_during_execution: NodeSelector | None = None
    preferred_during_scheduling_ignored_during_execution: list[PreferredSchedulingTerm] = []


class PodAffinityTerm(KubeStruct):
    """Pods that this Pod wants near or far, by topology domain."""

    topology_key: str
    label_selector: LabelSelector | None = None
    namespaces: list[str] = []
    namespace_selector: LabelSelector | None = None
    match_label_keys: list[str] = []
    mismatch_label_keys: list[str] = []


class WeightedPodAffinityTerm(KubeStruct):
    """A preferred PodAffinityTerm."""

    weight: int
    pod_affinity_term: PodAffinityTerm


class PodAffinity(KubeStruct):
    """Affinity or anti-affinity to Pods; both have this shape."""

    required_during_scheduling_ignored_during_execution: list[PodAffinityTerm] = []
    preferred_during_scheduling_ignored_during_execution: list[WeightedPodAffinityTerm] = []


class Affinity(KubeStruct):
    """All affinities of a Pod."""

    node_affinity: NodeAffinity | None = None
    pod_affinity: PodAffinity | None = None
    pod_anti_affinity: PodAffinity | None = None


class TopologySpreadConstraint(KubeStruct):
    """How evenly matching Pods are spread over topology domains."""

    max_skew: int
    topology_key: str
    when_unsatisfiable: str
    label_selector: LabelSelector | None = None
    min_domains: int | None = None
    node_affinity_policy: str | None = None
    node_taints_policy: str | None = None
    match_label_keys: list[str] = []
