"""Which pods to create and delete so that every eligible node has one (upstream: podsShouldBeOnNode). Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from nodewright.controllers.daemonset.availability import is_available, is_ready
from nodewright.controllers.daemonset.extensions import RollingUpdate
from nodewright.controllers.daemonset.model import Pod
from nodewright.controllers.daemonset.numbers import scaled
from nodewright.controllers.daemonset.targets import is_current
from nodewright.controllers.daemonset.view import Plan, PodEvent, Targets, View

# Asks whether a failed pod on this node may be killed now: 0 means yes, else the seconds to wait.
FailureGate = Callable[[str], float]


def allows_surge(rolling: RollingUpdate) -> bool:
    """Whether maxSurge is above zero; 100 stands for any total."""
    return scaled(rolling.max_surge, 100, 0) > 0


def manage(view: View, targets: Targets, failure_gate: FailureGate) -> Plan:
    """Plan for all nodes."""
    plan, surges = Plan(), allows_surge(view.ds.rolling)
    for node in sorted(view.verdicts):
        verdict, found = view.verdicts[node], view.pods.get(node)
        if not found:
            if verdict.should_run:
                plan.create.append(node)
        elif not verdict.should_continue:
            plan.delete += [pod for pod in found if not pod.deleting]
        else:
            running = list(_running(view, node, found, failure_gate, plan))
            if not surges:
                plan.delete += running[1:]
            elif len(running) > 1:
                plan.delete += surplus(view, targets, node, running)
            elif not running and verdict.should_run:
                # A pod that is on its way out does not count while surging: its successor may start beside it.
                plan.create.append(node)
    # Pods pinned to a node that is gone would wait for it for ever. Those that ran there are podgc's.
    for node in sorted(view.pods.keys() - view.verdicts.keys()):
        plan.delete += [pod for pod in view.pods[node] if not pod.spec.node_name and not pod.deleting]
    return plan


def _running(view: View, node: str, found: list[Pod], failure_gate: FailureGate, plan: Plan) -> Iterable[Pod]:
    """The pods that neither ended nor are being deleted; ended ones go into the plan.

    A pod that was to run once, and has, stays as the record of it.
    """
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
        elif pod.status.phase == "Succeeded" and not view.ds.spec.run_once:
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


def surplus(view: View, targets: Targets, node: str, running: list[Pod]) -> list[Pod]:
    """With surge: what must go of several running pods of a node.

    One old and one new pod may stay together, as long as the old one is ready and the new one is not available.
    """
    delete: list[Pod] = []
    new: Pod | None = None
    old: Pod | None = None
    for pod in running:
        if is_current(view, targets, node, pod):
            if new is None:
                new = pod
                continue
        elif old is None:
            old = pod
            continue
        delete.append(pod)
    if new and old and (not is_ready(view, old) or is_available(view, new)):
        delete.append(old)
    return delete
