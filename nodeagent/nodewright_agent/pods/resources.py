"""Requests and limits of pods and containers as numbers: milli-CPU and bytes. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from nodewright.kube import quantity
from nodewright.kube.objects import Container, Pod, ResourceRequirements
from nodewright_agent.pods.model import is_sidecar
from nodewright_agent.runtime import cgroup_math
from nodewright_agent.runtime.cgroups import CgroupLimits
from nodewright_agent.runtime.spec import Resources


def milli_cpu(amounts: dict[str, str]) -> int | None:
    """Return CPU in thousandths of a core; None where nothing is said."""
    return quantity.milli(amounts["cpu"]) if "cpu" in amounts else None


def memory(amounts: dict[str, str]) -> int | None:
    """Return memory in bytes; None where nothing is said."""
    return quantity.value(amounts["memory"]) if "memory" in amounts else None


def container_resources(container: Container, pids_limit: int | None = None) -> Resources:
    """Return a container's cgroup limits by upstream's formulas."""
    limits, requests = container.resources.limits, container.resources.requests
    cpu_limit = milli_cpu(limits)
    quota = cgroup_math.quota(cpu_limit)
    return Resources(
        cpu_shares=cgroup_math.container_shares(milli_cpu(requests), cpu_limit),
        cpu_quota=quota,
        cpu_period=cgroup_math.QUOTA_PERIOD if quota is not None else None,
        memory_limit=memory(limits) or None,
        pids_limit=pids_limit,
    )


def pod_limits(pod: Pod, pids_limit: int | None = None) -> CgroupLimits:
    """Return the pod cgroup's limits: shares of all requests; quota and memory only where every container has one."""
    cpu = _declared(pod, milli_cpu)
    bytes_ = _declared(pod, memory)
    quota = cgroup_math.quota(cpu)
    return CgroupLimits(
        cpu_shares=cgroup_math.shares(pod_request(pod, milli_cpu)),
        cpu_quota=quota,
        cpu_period=cgroup_math.QUOTA_PERIOD if quota is not None else None,
        memory=bytes_,
        pids=pids_limit,
    )


def pod_request(pod: Pod, read: Callable[[dict[str, str]], int | None]) -> int:
    """Return what the pod asks for: all main containers and sidecars, or the largest moment of its initialisation."""
    if pod.spec.resources is not None and (own := read(pod.spec.resources.requests)) is not None:
        return own + (read(pod.spec.overhead) or 0)
    running, peak = 0, 0
    for container in pod.spec.init_containers:
        wanted = _request(container.resources, read)
        if is_sidecar(container):
            running += wanted
            peak = max(peak, running)
        else:
            peak = max(peak, running + wanted)
    total = running + sum(_request(container.resources, read) for container in pod.spec.containers)
    return max(total, peak) + (read(pod.spec.overhead) or 0)


def _request(resources: ResourceRequirements, read: Callable[[dict[str, str]], int | None]) -> int:
    wanted = read(resources.requests)
    return wanted if wanted is not None else read(resources.limits) or 0


def _declared(pod: Pod, read: Callable[[dict[str, str]], int | None]) -> int | None:
    """Return the pod's limit, where it has one: its own, or the sum when each container has one."""
    if pod.spec.resources is not None and (own := read(pod.spec.resources.limits)) is not None:
        return own
    lasting = [*pod.spec.containers, *(one for one in pod.spec.init_containers if is_sidecar(one))]
    short = [one for one in pod.spec.init_containers if not is_sidecar(one)]
    values = _all(read(container.resources.limits) for container in lasting)
    brief = _all(read(container.resources.limits) for container in short)
    if values is None or brief is None:
        return None
    return max([sum(values), *brief]) + (read(pod.spec.overhead) or 0)


def _all(values: Iterable[int | None]) -> list[int] | None:
    found = list(values)
    return None if any(not value for value in found) else [value for value in found if value]
