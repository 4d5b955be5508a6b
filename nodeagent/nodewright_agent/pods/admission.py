"""What the node refuses to run although it was bound here: kubelet's admission, its reasons and messages. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from nodewright.kube.objects import NodeSelector, Pod
from nodewright.kube.selectors import node_selector_matches
from nodewright_agent.network import hostports
from nodewright_agent.pods import resources
from nodewright_agent.pods.static.manifest import is_static
from nodewright_agent.runtime import sysctls


@dataclass(frozen=True, slots=True)
class Lack:
    """A resource of which the node has not enough left; CPU in thousandths."""

    name: str
    requested: int
    used: int
    capacity: int

    @property
    def amount(self) -> int:
        """How much has to become free."""
        return self.requested + self.used - self.capacity

    @property
    def refusal(self) -> tuple[str, str]:
        """Reason and message, as upstream words them."""
        text = f"requested: {self.requested}, used: {self.used}, capacity: {self.capacity}"
        return f"OutOf{self.name}", f"Node didn't have enough resource: {self.name}, {text}"


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
    if (refusal := mismatch(pod, labels, node_name, unsafe_sysctls)) is not None:
        return refusal
    present = list(others)
    if hostports.conflict(pod, present):
        text = "node(s) didn't have free ports for the requested pod ports"
        return "NodePorts", f"Predicate NodePorts failed: {text}"
    lacks = lacking(pod, present, allocatable)
    return lacks[0].refusal if lacks else None


def mismatch(
    pod: Pod, labels: Mapping[str, str], node_name: str, unsafe_sysctls: Sequence[str] = ()
) -> tuple[str, str] | None:
    """Return reason and message where the pod cannot run here however much room there is."""
    if pod.spec.os is not None and pod.spec.os.name != "linux":
        return "PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS"
    if not _node_matches(pod, labels, node_name):
        return "NodeAffinity", "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"
    if (problem := _forbidden_sysctl(pod, unsafe_sysctls)) is not None:
        return "SysctlForbidden", f"forbidden sysctl: {problem}"
    return None


def lacking(pod: Pod, others: Iterable[Pod], allocatable: Mapping[str, str]) -> list[Lack]:
    """Return what the node has not enough of for the pod beside ``others``, in upstream's order.

    Extended resources that the node does not have at all do not count: they are the cluster's, or a driver's.
    """
    present = list(others)
    found = []
    limit = int(allocatable.get("pods", "0"))
    if len(present) + 1 > limit:
        found.append(Lack("pods", 1, len(present), limit))
    requests = resources.pod_requests(pod)
    first = [name for name in ("cpu", "memory", "ephemeral-storage") if name in requests]
    for name in (*first, *sorted(name for name in requests if name not in first)):
        read = resources.reader(name)
        wanted, capacity = resources.pod_request(pod, read), read(allocatable)
        if capacity is None and not name.startswith("hugepages-"):
            continue
        used = sum(resources.pod_request(other, read) for other in present)
        if wanted and used + wanted > (capacity or 0):
            found.append(Lack(name, wanted, used, capacity or 0))
    return found


def resize_refusal(pod: Pod, others: Iterable[Pod], allocatable: Mapping[str, str]) -> tuple[str, str] | None:
    """Return reason (Infeasible: never, Deferred: not now) and message where resources cannot be granted.

    ``pod`` with the resources it wishes for, ``others`` with those they hold.
    """
    if is_static(pod):
        return "Infeasible", "In-place resize of static-pods is not supported"
    for name in ("memory", "cpu"):
        read = resources.reader(name)
        wanted, capacity = resources.pod_request(pod, read), read(allocatable) or 0
        if wanted > capacity:
            text = f"{name}, requested: {wanted}, capacity: {capacity}"
            return "Infeasible", f"Node didn't have enough capacity: {text}"
    for lack in lacking(pod, others, allocatable):
        if lack.name in ("cpu", "memory"):
            return "Deferred", lack.refusal[1]
    return None


def _forbidden_sysctl(pod: Pod, unsafe: Sequence[str]) -> str | None:
    """What is wrong with the first sysctl that may not be set here, in the words of kubelet's allow list."""
    context = pod.spec.security_context
    for sysctl in context.sysctls if context is not None else ():
        name = sysctls.normalise(sysctl.name)
        allowed = any(name == entry or (entry.endswith("*") and name.startswith(entry[:-1])) for entry in unsafe)
        if name not in sysctls.SAFE and not allowed:
            return f'"{name}" not allowlisted'
        space = sysctls.namespace_of(name)
        if (space == "net" and pod.spec.host_network) or (space == "ipc" and pod.spec.host_ipc):
            return f'"{name}" not allowed with host {"Net" if space == "net" else "IPC"} enabled'
    return None


def _node_matches(pod: Pod, labels: Mapping[str, str], node_name: str) -> bool:
    if any(labels.get(key) != value for key, value in pod.spec.node_selector.items()):
        return False
    affinity = pod.spec.affinity.node_affinity if pod.spec.affinity is not None else None
    required: NodeSelector | None = (
        affinity.required_during_scheduling_ignored_during_execution if affinity is not None else None
    )
    return required is None or node_selector_matches(required, dict(labels), node_name)
