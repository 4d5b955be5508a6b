"""Which nodes a DaemonSet's pods run on (upstream: NodeShouldRunDaemonPod). Pure.

A pod is simulated on the node: node name, node selector, required node affinity and taints count. Resources and
ports do not: a node that is full still should run the pod. Neither do readiness and `unschedulable`, by the default
tolerations.
"""

from __future__ import annotations

import msgspec

from nodewright.controllers.daemonset.model import Node, Template, TemplatePodSpec
from nodewright.controllers.daemonset.owntaints import OwnTaints
from nodewright.kube.objects import Taint, Toleration
from nodewright.kube.selectors import node_selector_matches, untolerated_taint

_ALWAYS = (
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
)
_HOST_NETWORK = ("node.kubernetes.io/network-unavailable", "NoSchedule")


class Verdict(msgspec.Struct, frozen=True):
    """Whether a node should get a pod, whether one that is there may stay, and why not."""

    should_run: bool
    should_continue: bool
    reason: str = ""


_YES = Verdict(True, True)
_AS_ANY = OwnTaints()


def default_tolerations(host_network: bool) -> list[Toleration]:
    """The tolerations that every daemon pod has."""
    pairs = [*_ALWAYS, *([_HOST_NETWORK] if host_network else [])]
    return [Toleration(key=key, operator="Exists", effect=effect) for key, effect in pairs]


def judge(template: Template, node: Node, own: OwnTaints = _AS_ANY) -> Verdict:
    """Decide on one node; `own` tells how the DaemonSet treats this project's taints."""
    spec, name = template.spec, node.metadata.name
    if spec.node_name and spec.node_name != name:
        return Verdict(False, False, f"the template names node {spec.node_name}")
    labels = node.metadata.labels
    for key, value in spec.node_selector.items():
        if labels.get(key) != value:
            return Verdict(False, False, f"node selector {key}={value} does not match")
    affinity = spec.affinity and spec.affinity.node_affinity
    required = affinity.required_during_scheduling_ignored_during_execution if affinity else None
    if required is not None and not node_selector_matches(required, labels, name):
        return Verdict(False, False, "required node affinity does not match")
    taints = [taint for taint in node.spec.taints if not own.ignores(taint)]
    return _judge_taints(spec, taints, own) if taints else _YES


def _judge_taints(spec: TemplatePodSpec, taints: list[Taint], own: OwnTaints) -> Verdict:
    tolerations = [*spec.tolerations, *default_tolerations(spec.host_network)]
    blocking = untolerated_taint(taints, tolerations, ("NoSchedule", "NoExecute"))
    evicting = untolerated_taint(taints, tolerations, ("NoExecute",))
    waits = next((taint for taint in taints if taint.key in own.waits_for), None)
    if waits is not None:
        # The order that the user asked for, so a template that tolerates everything waits as well.
        return Verdict(False, evicting is None, f"waits for another DaemonSet: startup taint {_show(waits)}")
    if blocking is None:
        return _YES
    return Verdict(False, evicting is None, f"untolerated taint {_show(evicting or blocking)}")


def _show(taint: Taint) -> str:
    return f"{taint.key}={taint.value}:{taint.effect}" if taint.value else f"{taint.key}:{taint.effect}"
