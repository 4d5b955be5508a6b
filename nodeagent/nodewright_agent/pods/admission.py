"""What the node refuses to run although it was bound here: kubelet's admission, its reasons and messages. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from nodewright.kube.objects import NodeSelector, Pod
from nodewright.kube.selectors import node_selector_matches
from nodewright_agent.pods import resources
from nodewright_agent.runtime import sysctls


def admit(
    pod: Pod,
    others: Iterable[Pod],
    allocatable: Mapping[str, str],
    labels: Mapping[str, str],
    node_name: str,
    unsafe_sysctls: Sequence[str] = (),
) -> tuple[str, str] | None:
    """Return reason and message of a refusal; None when the pod may run beside ``others``.

    ``unsafe_sysctls`` are names, or prefixes that end in ``*``, that this node allows besides the safe ones.

    The pod becomes Failed with this reason, and its controller makes another elsewhere.
    """
    if pod.spec.os is not None and pod.spec.os.name != "linux":
        return "PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS"
    if not _node_matches(pod, labels, node_name):
        return "NodeAffinity", "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"
    if (sysctl := _forbidden_sysctl(pod, unsafe_sysctls)) is not None:
        return "SysctlForbidden", f'forbidden sysctl: "{sysctl}" not allowlisted'
    present = list(others)
    limit = int(allocatable.get("pods", "0"))
    if len(present) + 1 > limit:
        return "OutOfpods", _lacks("pods", 1, len(present), limit)
    for name, read in (("cpu", resources.milli_cpu), ("memory", resources.memory)):
        wanted = resources.pod_request(pod, read)
        used = sum(resources.pod_request(other, read) for other in present)
        capacity = read(dict(allocatable)) or 0
        if wanted and used + wanted > capacity:
            return f"OutOf{name}", _lacks(name, wanted, used, capacity)
    return None


def _forbidden_sysctl(pod: Pod, unsafe: Sequence[str]) -> str | None:
    """The first sysctl that is neither safe nor allowed here, as kubelet's allow list decides it."""
    context = pod.spec.security_context
    for sysctl in context.sysctls if context is not None else ():
        name = sysctls.normalise(sysctl.name)
        allowed = any(name == entry or (entry.endswith("*") and name.startswith(entry[:-1])) for entry in unsafe)
        if name not in sysctls.SAFE and not allowed:
            return sysctl.name
    return None


def _lacks(name: str, wanted: int, used: int, capacity: int) -> str:
    return f"Node didn't have enough resource: {name}, requested: {wanted}, used: {used}, capacity: {capacity}"


def _node_matches(pod: Pod, labels: Mapping[str, str], node_name: str) -> bool:
    if any(labels.get(key) != value for key, value in pod.spec.node_selector.items()):
        return False
    affinity = pod.spec.affinity.node_affinity if pod.spec.affinity is not None else None
    required: NodeSelector | None = (
        affinity.required_during_scheduling_ignored_during_execution if affinity is not None else None
    )
    return required is None or node_selector_matches(required, dict(labels), node_name)
