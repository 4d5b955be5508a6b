"""Requests and limits of pods and containers as numbers: milli-CPU, bytes, counts; and their cgroups' values. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from nodewright.kube import quantity
from nodewright.kube.objects import Container, Pod, ResourceRequirements
from nodewright_agent.pods.model import is_sidecar
from nodewright_agent.pods.static.manifest import is_mirror, is_static
from nodewright_agent.runtime import cgroup_math
from nodewright_agent.runtime.cgroup_math import QosClass
from nodewright_agent.runtime.cgroups import CgroupLimits
from nodewright_agent.runtime.spec import Resources

Read = Callable[[Mapping[str, str]], int | None]


@dataclass(frozen=True, slots=True)
class CgroupSettings:
    """What of the node's settings goes into cgroups."""

    cpu_quota: bool = True
    """Whether CPU limits are enforced (cpuCFSQuota)."""
    cpu_period: int = cgroup_math.QUOTA_PERIOD
    """Microseconds (cpuCFSQuotaPeriod)."""
    pod_pids_limit: int | None = None
    """Processes of one pod; None: as many as the node has."""
    page_sizes: Sequence[str] = ()
    """Huge page sizes that cgroups can limit (``2MB``)."""


DEFAULT_SETTINGS = CgroupSettings()


def milli_cpu(amounts: Mapping[str, str]) -> int | None:
    """Return CPU in thousandths of a core; None where nothing is said."""
    return quantity.milli(amounts["cpu"]) if "cpu" in amounts else None


def memory(amounts: Mapping[str, str]) -> int | None:
    """Return memory in bytes; None where nothing is said."""
    return quantity.value(amounts["memory"]) if "memory" in amounts else None


def reader(name: str) -> Read:
    """Return the function that reads a resource: CPU in thousandths, all others in whole units."""
    if name == "cpu":
        return milli_cpu
    return lambda amounts: quantity.value(amounts[name]) if name in amounts else None


def qos_class(pod: Pod) -> QosClass:
    """Return the QoS class, which the API server has computed at creation."""
    return QosClass(pod.status.qos_class or "BestEffort")


def container_resources(pod: Pod, container: Container, settings: CgroupSettings = DEFAULT_SETTINGS) -> Resources:
    """Return a container's cgroup limits by upstream's formulas.

    A container without a limit of its own gets the pod's (``spec.resources``), where there is one.
    """
    cpu_limit = milli_cpu(container.resources.limits) or _pod_level(pod, milli_cpu)
    quota = cgroup_math.quota(cpu_limit, settings.cpu_period)
    if not settings.cpu_quota:
        quota = -1
    return Resources(
        cpu_shares=cgroup_math.container_shares(milli_cpu(container.resources.requests), cpu_limit),
        cpu_quota=quota,
        cpu_period=settings.cpu_period if quota is not None else None,
        memory_limit=memory(container.resources.limits) or _pod_level(pod, memory) or None,
        hugepages=_pages(container.resources.limits, settings),
    )


def pod_limits(pod: Pod, settings: CgroupSettings = DEFAULT_SETTINGS) -> CgroupLimits:
    """Return the pod cgroup's limits: shares of all requests; quota and memory only where every container has one."""
    cpu = _declared(pod, milli_cpu)
    quota = cgroup_math.quota(cpu, settings.cpu_period)
    if not settings.cpu_quota:
        quota = -1
    best_effort = qos_class(pod) is QosClass.BEST_EFFORT
    return CgroupLimits(
        cpu_shares=cgroup_math.MIN_SHARES if best_effort else cgroup_math.shares(pod_request(pod, milli_cpu)),
        cpu_quota=quota,
        cpu_period=settings.cpu_period if quota is not None else None,
        memory=_declared(pod, memory),
        pids=settings.pod_pids_limit,
        hugepages=_pages(pod_requests(pod), settings) or None,
    )


def pod_requests(pod: Pod) -> dict[str, str]:
    """Return everything that the pod asks for, by name; CPU in thousandths (``100m``)."""
    names: dict[str, None] = {}
    for one in _requirements(pod):
        names |= dict.fromkeys((*one.requests, *one.limits))
    names |= dict.fromkeys(pod.spec.overhead)
    found = {}
    for name in names:
        amount = pod_request(pod, reader(name))
        found[name] = f"{amount}m" if name == "cpu" else str(amount)
    return found


def pod_request(pod: Pod, read: Read) -> int:
    """Return what the pod asks for: all main containers and sidecars, or the largest moment of its initialisation."""
    if pod.spec.resources is not None and (own := read(pod.spec.resources.requests)) is not None:
        return own + (read(pod.spec.overhead) or 0)
    return containers_request(pod, read) + (read(pod.spec.overhead) or 0)


def containers_request(pod: Pod, read: Read) -> int:
    """Return what the containers ask for, whatever the pod as a whole says."""
    running, peak = 0, 0
    for container in pod.spec.init_containers:
        wanted = _request(container.resources, read)
        if is_sidecar(container):
            running += wanted
            peak = max(peak, running)
        else:
            peak = max(peak, running + wanted)
    total = running + sum(_request(container.resources, read) for container in pod.spec.containers)
    return max(total, peak)


def oom_score(pod: Pod, container: Container, capacity: int) -> int:
    """Return oom_score_adj (GetContainerOOMScoreAdjust).

    A sidecar is not killed before the main container that is killed first. Memory that the pod as a whole asks for
    beyond its containers' requests is shared out evenly.
    """
    rest = 0
    if pod.spec.resources is not None and (whole := memory(pod.spec.resources.requests)):
        count = len(pod.spec.containers) + len(pod.spec.init_containers)
        rest = max(0, whole - containers_request(pod, memory)) // max(1, count)

    def of(one: Container) -> int:
        request = (memory(one.resources.requests) or 0) + rest
        return cgroup_math.oom_score_adj(qos_class(pod), request, capacity, node_critical=is_node_critical(pod))

    score = of(container)
    if is_sidecar(container) and any(one.name == container.name for one in pod.spec.init_containers):
        score = min(score, max(of(one) for one in pod.spec.containers))
    return score


def is_critical(pod: Pod) -> bool:
    """Tell whether the pod is static, the mirror of one, or its priority is that of the system (IsCriticalPod)."""
    return is_static(pod) or is_mirror(pod) or (pod.spec.priority or 0) >= SYSTEM_CRITICAL


def is_node_critical(pod: Pod) -> bool:
    """Tell whether the pod is critical for this node (IsNodeCriticalPod)."""
    return is_critical(pod) and pod.spec.priority_class_name == "system-node-critical"


SYSTEM_CRITICAL = 2_000_000_000
"""The least priority of critical pods."""


def _requirements(pod: Pod) -> list[ResourceRequirements]:
    own = [pod.spec.resources] if pod.spec.resources is not None else []
    return own + [one.resources for one in (*pod.spec.containers, *pod.spec.init_containers)]


def _pod_level(pod: Pod, read: Read) -> int | None:
    return read(pod.spec.resources.limits) if pod.spec.resources is not None else None


def _pages(amounts: Mapping[str, str], settings: CgroupSettings) -> dict[str, int]:
    """Return bytes for every page size of the node: none of those that are not named."""
    named = {cgroup_math.page_size(name): quantity.value(text) for name, text in amounts.items()}
    return {size: named.get(size, 0) for size in settings.page_sizes}


def _request(resources: ResourceRequirements, read: Read) -> int:
    wanted = read(resources.requests)
    return wanted if wanted is not None else read(resources.limits) or 0


def _declared(pod: Pod, read: Read) -> int | None:
    """Return the pod's limit, where it has one: its own, or the sum when each container has one."""
    overhead = read(pod.spec.overhead) or 0
    if own := _pod_level(pod, read):
        return own + overhead
    limits = [(container, read(container.resources.limits)) for container in pod.spec.containers]
    inits = [(container, read(container.resources.limits)) for container in pod.spec.init_containers]
    if any(not limit for _, limit in (*limits, *inits)):
        return None
    running, peak = 0, 0
    for container, limit in inits:
        if is_sidecar(container):
            running += limit or 0
            peak = max(peak, running)
        else:
            peak = max(peak, running + (limit or 0))
    return max(_sum(limit for _, limit in limits) + running, peak) + overhead


def _sum(values: Iterable[int | None]) -> int:
    return sum(value or 0 for value in values)
