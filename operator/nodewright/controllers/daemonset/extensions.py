"""The optional fields that our DaemonSet has beyond apps/v1. docs/daemonset.md tells what each does.

They are read from our own kind only: an apps/v1 object cannot carry them, and gets the defaults, which are upstream's
behaviour.
"""
# ruff: noqa: RUF012 - msgspec gives every instance its own copy of an empty list or dict default

from __future__ import annotations

from typing import Any

import msgspec

from nodewright.kube.api.base import KubeStruct
from nodewright.kube.objects import LabelSelector


class Step(KubeStruct):
    """A part of a rollout. Its nodes come on top of those of the steps before it.

    Nodes are chosen by labels, or as a count or percentage of the eligible nodes that are in scope.
    """

    nodes: int | str | None = None
    node_selector: LabelSelector | None = None
    # The readiness budget: so many of the nodes updated so far must be available before the next step; all by default.
    min_available: int | str | None = None
    wait_seconds: int = 0
    wait_for_resume: bool = False


class PrePull(KubeStruct):
    """Images of the new template are pulled on a node before its old pod goes, on so many nodes at a time."""

    max_parallel: int = 5


class RollingUpdate(KubeStruct):
    """How pods are replaced. Counts may be percentages of the nodes that should run a pod, rounded up."""

    max_unavailable: int | str | None = None
    max_surge: int | str | None = None
    partition: int | str | None = None  # so many nodes keep the old template
    node_selector: LabelSelector | None = None  # only these nodes get the new template
    steps: list[Step] = []
    max_failed: int | str | None = None  # with new pods failing on more nodes than this, the rollout stops
    on_failure: str = "Pause"  # or Rollback
    unavailable_pods: str = "Immediate"  # old pods that are not available: replaced at once, or WithinBudget
    pod_update: str = "Recreate"  # or InPlaceIfPossible
    pre_pull: PrePull | None = None


class ContainerOverride(KubeStruct):
    """What a container has otherwise on nodes of a class: its resources are replaced, its environment is merged."""

    name: str = ""
    resources: dict[str, Any] | None = None
    env: list[dict[str, Any]] = []


class NodeOverride(KubeStruct):
    """A class of nodes; of several that match a node, the first counts."""

    name: str = ""
    node_selector: LabelSelector = msgspec.field(default_factory=LabelSelector)
    containers: list[ContainerOverride] = []


class NodeReadiness(KubeStruct):
    """New nodes get a taint that goes when this DaemonSet's pod is ready there.

    `after` names DaemonSets of the same kind with nodeReadiness (`NAME` or `NAMESPACE/NAME`) whose taints this one does
    not tolerate.
    """

    effect: str = "NoSchedule"
    after: list[str] = []
