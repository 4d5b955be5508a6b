"""What is neither Pod nor node and yet decides: namespaces, Services, owners of Pods, disruption budgets."""
# ruff: noqa: RUF012 - msgspec gives every instance its own copy of an empty list or dict default

from __future__ import annotations

import msgspec

from nodewright.kube.api.meta import LabelSelector

from .objects import Lean, ObjectMeta


class ServiceSpec(Lean):
    """The Pods that a Service is for."""

    selector: dict[str, str] = {}


class Service(Lean):
    """A Service, projected."""

    metadata: ObjectMeta
    spec: ServiceSpec = msgspec.field(default_factory=ServiceSpec)


class OwnerSpec(Lean):
    """The Pods that a controller owns: a LabelSelector, or in a ReplicationController plain labels."""

    selector: msgspec.Raw = msgspec.Raw(b"null")


class SelectorOwner(Lean):
    """A ReplicaSet, StatefulSet or ReplicationController, projected."""

    metadata: ObjectMeta
    spec: OwnerSpec = msgspec.field(default_factory=OwnerSpec)

    @property
    def label_selector(self) -> LabelSelector | None:
        """The selector; None where there is none."""
        raw = msgspec.json.decode(self.spec.selector)
        if not raw:
            return None
        if "matchLabels" not in raw and "matchExpressions" not in raw:
            return LabelSelector(match_labels=raw)
        return msgspec.convert(raw, LabelSelector)


class Namespace(Lean):
    """A Namespace, projected."""

    metadata: ObjectMeta


class DisruptedPods(Lean):
    """How many Pods a budget lets go now, and those that are on their way already."""

    disruptions_allowed: int = 0
    disrupted_pods: dict[str, str] = {}


class BudgetSpec(Lean):
    """The Pods that a budget protects."""

    selector: LabelSelector | None = None


class DisruptionBudget(Lean):
    """A PodDisruptionBudget, projected."""

    metadata: ObjectMeta
    spec: BudgetSpec = msgspec.field(default_factory=BudgetSpec)
    status: DisruptedPods = msgspec.field(default_factory=DisruptedPods)
