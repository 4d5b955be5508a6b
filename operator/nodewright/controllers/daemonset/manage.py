"""Which pods to create and delete so that every eligible node has one (upstream: podsShouldBeOnNode). Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime

import msgspec

from nodewright.controllers.daemonset.eligibility import Verdict
from nodewright.controllers.daemonset.model import Pod
from nodewright.controllers.daemonset.pods import PodsByNode, is_available, is_ready, is_updated


class PodEvent(msgspec.Struct, frozen=True):
    """An event on the DaemonSet that goes with a decision."""

    type: str
    reason: str
    message: str


class Plan(msgspec.Struct):
    """Nodes that get a pod, pods that go, events to tell, and when to look again at pods in back-off (seconds)."""

    create: list[str] = msgspec.field(default_factory=list)
    delete: list[Pod] = msgspec.field(default_factory=list)
    events: list[PodEvent] = msgspec.field(default_factory=list)
    retry_after: float | None = None

    def retry(self, delay: float) -> None:
        """Ask to look again after at most `delay` seconds."""
        self.retry_after = delay if self.retry_after is None else min(self.retry_after, delay)


class Rules(msgspec.Struct, frozen=True):
    """The DaemonSet's numbers that `manage` and `rollout` go by."""

    hash: str
    min_ready_seconds: int = 0
    surge: bool = False
    template_generation: str | None = None


# Asks whether a failed pod on this node may be killed now: 0 means yes, else the seconds to wait.
FailureGate = Callable[[str], float]


def manage(
    verdicts: Mapping[str, Verdict], pods: PodsByNode, rules: Rules, now: datetime, failure_gate: FailureGate
) -> Plan:
    """Plan for all nodes. `verdicts` has an entry for every node that exists."""
    plan = Plan()
    for node in sorted(verdicts):
        _node(node, verdicts[node], pods.get(node), rules, now, failure_gate, plan)
    # Pods pinned to a node that is gone would wait for it for ever. Those that ran there are podgc's.
    for node in sorted(pods.keys() - verdicts.keys()):
        plan.delete += [pod for pod in pods[node] if not pod.spec.node_name and not pod.deleting]
    return plan


def _node(
    node: str,
    verdict: Verdict,
    found: list[Pod] | None,
    rules: Rules,
    now: datetime,
    failure_gate: FailureGate,
    plan: Plan,
) -> None:
    if not found:
        if verdict.should_run:
            plan.create.append(node)
        return
    if not verdict.should_continue:
        plan.delete += [pod for pod in found if not pod.deleting]
        return
    running = list(_running(node, found, failure_gate, plan))
    if not rules.surge:
        plan.delete += running[1:]
    elif not running:
        # A pod that is on its way out does not count while surging: its successor may start beside it.
        if verdict.should_run:
            plan.create.append(node)
    elif len(running) > 1:
        plan.delete += surplus(running, rules, now)


def _running(node: str, found: list[Pod], failure_gate: FailureGate, plan: Plan) -> Iterable[Pod]:
    """The pods that neither ended nor are being deleted; ended ones go into the plan."""
    for pod in found:
        if pod.deleting:
            continue
        if pod.status.phase == "Failed":
            delay = failure_gate(node)
            if delay > 0:
                plan.retry(delay)
                continue
            plan.events.append(
                PodEvent(
                    "Warning",
                    "FailedDaemonPod",
                    f"Found failed daemon pod {pod.key} on node {node}, will try to kill it",
                )
            )
            plan.delete.append(pod)
        elif pod.status.phase == "Succeeded":
            plan.events.append(
                PodEvent(
                    "Normal",
                    "SucceededDaemonPod",
                    f"Found succeeded daemon pod {pod.key} on node {node}, will try to delete it",
                )
            )
            plan.delete.append(pod)
        else:
            yield pod


def surplus(running: list[Pod], rules: Rules, now: datetime) -> list[Pod]:
    """With surge: what must go of several running pods of a node.

    One old and one new pod may stay together, as long as the old one is ready and the new one is not available.
    """
    delete: list[Pod] = []
    new: Pod | None = None
    old: Pod | None = None
    for pod in running:
        if is_updated(pod, rules.hash, rules.template_generation):
            if new is None:
                new = pod
                continue
        elif old is None:
            old = pod
            continue
        delete.append(pod)
    if new and old and (not is_ready(old) or is_available(new, rules.min_ready_seconds, now)):
        delete.append(old)
    return delete
