"""The order in which a resize writes cgroups, so that no container is ever allowed more than its pod. Pure.

As upstream: memory before cpu; a pod's limit is raised before its containers' and lowered after them; of the
containers those that shrink come first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nodewright_agent.runtime.cgroups import CgroupLimits
from nodewright_agent.runtime.spec import Resources


@dataclass(frozen=True, slots=True)
class Change:
    """A running container: what its cgroup has, and what it shall have."""

    id: str
    name: str
    current: Resources
    wanted: Resources


@dataclass(frozen=True, slots=True)
class Write:
    """One write: to the pod's cgroup, or to that of the container ``id``. Only set fields are written."""

    limits: CgroupLimits
    id: str = ""


def writes(current: CgroupLimits, wanted: CgroupLimits, changes: Sequence[Change]) -> list[Write]:
    """Return all writes in order. What ``wanted`` leaves open in the pod's cgroup stays as it is."""
    return [*_memory(current, wanted, changes), *_cpu(current, wanted, changes)]


def below_usage(
    current: CgroupLimits, wanted: CgroupLimits, changes: Sequence[Change], pod_usage: int, usage: dict[str, int]
) -> str:
    """Return why memory limits cannot be lowered: something uses as much already; empty where they can.

    ``usage``: bytes by container id. The kernel would kill (v2) or refuse in the middle of the writes (v1).
    """
    problems = []
    if wanted.memory is not None and _lower(wanted.memory, current.memory) and pod_usage >= wanted.memory:
        problems.append(f"attempting to set pod memory limit ({wanted.memory}) below current usage ({pod_usage})")
    for change in changes:
        limit = change.wanted.memory_limit
        if limit is None or not _lower(limit, change.current.memory_limit):
            continue
        if (used := usage.get(change.id, 0)) >= limit:
            problems.append(
                f'attempting to set container "{change.name}" memory limit ({limit}) below current usage ({used})'
            )
    if not problems:
        return ""
    told = problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]"
    return f"cannot decrease memory limits: {told}"


def _memory(current: CgroupLimits, wanted: CgroupLimits, changes: Sequence[Change]) -> list[Write]:
    pod = [Write(CgroupLimits(memory=wanted.memory))] if wanted.memory is not None else []
    if wanted.memory == current.memory:
        pod = []
    containers = [
        Write(CgroupLimits(memory=change.wanted.memory_limit), change.id)
        for change in sorted(changes, key=lambda one: _rise(one.current.memory_limit, one.wanted.memory_limit))
        if change.wanted.memory_limit is not None and change.wanted.memory_limit != change.current.memory_limit
    ]
    lower = wanted.memory is not None and _lower(wanted.memory, current.memory)
    return [*containers, *pod] if lower else [*pod, *containers]


def _cpu(current: CgroupLimits, wanted: CgroupLimits, changes: Sequence[Change]) -> list[Write]:
    limit = [Write(CgroupLimits(cpu_quota=wanted.cpu_quota, cpu_period=wanted.cpu_period))]
    shares = [Write(CgroupLimits(cpu_shares=wanted.cpu_shares))]
    if wanted.cpu_quota is None or (wanted.cpu_quota, wanted.cpu_period) == (current.cpu_quota, current.cpu_period):
        limit = []
    if wanted.cpu_shares is None or wanted.cpu_shares == current.cpu_shares:
        shares = []
    first: list[Write] = []
    last: list[Write] = []
    # Limits rise before requests and fall after them, as upstream: requests <= limits at every moment.
    (last if limit and _lower(wanted.cpu_quota or 0, current.cpu_quota) else first).extend(limit)
    if shares and (wanted.cpu_shares or 0) < (current.cpu_shares or 0):
        last[:0] = shares
    else:
        first += shares
    containers = []
    for change in sorted(changes, key=lambda one: _rise(one.current.cpu_quota, one.wanted.cpu_quota)):
        now, then = change.current, change.wanted
        if (now.cpu_shares, now.cpu_quota, now.cpu_period) == (then.cpu_shares, then.cpu_quota, then.cpu_period):
            continue
        made = CgroupLimits(cpu_shares=then.cpu_shares, cpu_quota=then.cpu_quota, cpu_period=then.cpu_period)
        containers.append(Write(made, change.id))
    return [*first, *containers, *last]


def _lower(wanted: int, current: int | None) -> bool:
    """Tell whether a limit falls; -1 and None: there is none now."""
    return current is None or current < 0 or wanted < current


def _rise(current: int | None, wanted: int | None) -> float:
    """Return by how much a limit rises, to sort by; no limit is the largest."""
    return _number(wanted) - _number(current) if _number(wanted) != _number(current) else 0.0


def _number(limit: int | None) -> float:
    return float(1 << 62) if limit is None or limit < 0 else float(limit)
