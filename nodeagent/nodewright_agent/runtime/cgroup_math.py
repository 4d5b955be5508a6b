"""Kubernetes' numbers for cgroups: pure formulas of pkg/kubelet/cm/helpers_linux.go and pkg/kubelet/qos/policy.go.

CPU is in milli-CPU, memory in bytes, time in microseconds.
"""

from __future__ import annotations

from enum import StrEnum

MIN_SHARES = 2
MAX_SHARES = 262144
SHARES_PER_CPU = 1024
QUOTA_PERIOD = 100_000
MIN_QUOTA = 1_000

GUARANTEED_OOM_SCORE = -997
BEST_EFFORT_OOM_SCORE = 1000


class QosClass(StrEnum):
    """Pod QoS classes, spelled as in pod.status.qosClass."""

    GUARANTEED = "Guaranteed"
    BURSTABLE = "Burstable"
    BEST_EFFORT = "BestEffort"


def shares(milli_cpu: int) -> int:
    """CPU shares of a request (MilliCPUToShares): 2 for none, never above 262144."""
    if milli_cpu <= 0:
        return MIN_SHARES
    return max(MIN_SHARES, min(MAX_SHARES, milli_cpu * SHARES_PER_CPU // 1000))


def container_shares(request_milli: int | None, limit_milli: int | None) -> int:
    """A container's shares: from the request; from the limit when only that is set (request unset, not 0)."""
    if request_milli is None and limit_milli:
        return shares(limit_milli)
    return shares(request_milli or 0)


def quota(limit_milli: int | None, period: int = QUOTA_PERIOD) -> int | None:
    """CFS quota of a CPU limit (MilliCPUToQuota), at least 1 ms; None where there is no limit."""
    if not limit_milli:
        return None
    return max(MIN_QUOTA, limit_milli * period // 1000)


def weight(cpu_shares: int) -> int:
    """cpu.weight (v2) of v1 shares by the linear conversion of runc before 1.3.2."""
    if cpu_shares == 0:
        return 0
    return 1 + ((max(MIN_SHARES, min(MAX_SHARES, cpu_shares)) - 2) * 9999) // 262142


def shares_of(cpu_weight: int) -> int:
    """The shares of which ``weight`` makes this weight, or nearly (CpuWeightToCpuShares)."""
    return MIN_SHARES + ((cpu_weight - 1) * 262142) // 9999


def page_size(resource: str) -> str:
    """The kernel's name of a page size (``2MB``) for a resource (``hugepages-2Mi``); empty for other resources."""
    size = resource.removeprefix("hugepages-")
    if size == resource or size[-2:] not in ("Ki", "Mi", "Gi") or not size[:-2].isdecimal():
        return ""
    # The kernel writes whole units of the largest that fits: 1Gi and 1024Mi are one page size.
    number = int(size[:-2]) << {"Ki": 0, "Mi": 10, "Gi": 20}[size[-2:]]
    for shift, unit in ((20, "GB"), (10, "MB")):
        if number >= 1 << shift:
            return f"{number >> shift}{unit}"
    return f"{number}KB"


def oom_score_adj(qos: QosClass, memory_request: int, memory_capacity: int, *, node_critical: bool = False) -> int:
    """oom_score_adj of a container (GetContainerOOMScoreAdjust).

    Burstable: the more of the node's memory it asked for, the later it is killed; between 3 and 999, so that it
    stays behind Guaranteed and before BestEffort.
    """
    if node_critical or qos is QosClass.GUARANTEED:
        return GUARANTEED_OOM_SCORE
    if qos is QosClass.BEST_EFFORT:
        return BEST_EFFORT_OOM_SCORE
    score = 1000 - (1000 * memory_request) // memory_capacity
    return max(1000 + GUARANTEED_OOM_SCORE, min(score, BEST_EFFORT_OOM_SCORE - 1))


def kubepods_path(root: str) -> str:
    """The cgroup of all pods below a node's cgroup root."""
    return f"{root.rstrip('/')}/kubepods"


def qos_path(root: str, qos: QosClass) -> str:
    """The cgroup of a QoS class; Guaranteed pods live directly below kubepods."""
    base = kubepods_path(root)
    return base if qos is QosClass.GUARANTEED else f"{base}/{qos.value.lower()}"


def pod_path(root: str, qos: QosClass, pod_uid: str) -> str:
    """The cgroup of one pod (cgroupfs names)."""
    return f"{qos_path(root, qos)}/pod{pod_uid}"
