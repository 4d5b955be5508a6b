"""The conditions of a node in upstream's words. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from nodewright.kube.objects import NodeCondition

_TEXTS = {
    "MemoryPressure": (
        ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
        ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    ),
    "DiskPressure": (
        ("KubeletHasDiskPressure", "kubelet has disk pressure"),
        ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ),
    "PIDPressure": (
        ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
        ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    ),
}


def node_conditions(
    old: Iterable[NodeCondition], short: Mapping[str, bool], problems: Iterable[str], now: str
) -> list[NodeCondition]:
    """Return the node's own conditions, Ready last.

    ``short`` tells by condition which resources are (see the eviction manager); ``problems`` is what keeps the node
    from being Ready.
    """
    before = {condition.type: condition for condition in old}
    made = []
    for name, (bad, good) in _TEXTS.items():
        reason, message = bad if short.get(name) else good
        made.append(NodeCondition(name, "True" if short.get(name) else "False", reason, message))
    errors = list(problems)
    if errors:
        # kubelet joins several errors in brackets, as Go's aggregate does.
        text = errors[0] if len(errors) == 1 else f"[{', '.join(errors)}]"
        made.append(NodeCondition("Ready", "False", "KubeletNotReady", text))
    else:
        made.append(NodeCondition("Ready", "True", "KubeletReady", "kubelet is posting ready status"))
    for condition in made:
        past = before.get(condition.type)
        condition.last_heartbeat_time = now
        same = past is not None and past.status == condition.status
        condition.last_transition_time = (past.last_transition_time if past is not None and same else None) or now
    return made


def doubted(conditions: Iterable[NodeCondition]) -> bool:
    """Tell whether the node controller has missed our heartbeats and written Unknown where we know better."""
    return any(condition.type == "Ready" and condition.status == "Unknown" for condition in conditions)


def transitions(old: Iterable[NodeCondition], new: Iterable[NodeCondition]) -> list[str]:
    """Return kubelet's event reasons for what has changed: NodeReady, NodeNotReady, NodeHasDiskPressure, ..."""
    before = {condition.type: condition.status for condition in old}
    reasons = []
    for condition in new:
        if before.get(condition.type) == condition.status:
            continue
        if condition.type != "Ready":
            reasons.append(condition.reason.replace("Kubelet", "Node", 1))
        elif condition.type in before:
            reasons.append("NodeReady" if condition.status == "True" else "NodeNotReady")
    return reasons
