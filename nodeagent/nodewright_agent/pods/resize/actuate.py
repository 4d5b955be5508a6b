"""Giving a pod's cgroup and its running containers the resources that were allocated. Can be repeated at any point."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from nodewright.kube.objects import Pod, ResourceRequirements
from nodewright_agent.failpoints import failpoint
from nodewright_agent.pods import resources
from nodewright_agent.pods.containers import Containers
from nodewright_agent.pods.model import Instance, find_container
from nodewright_agent.pods.resize import plan
from nodewright_agent.runtime.cgroups import CgroupLimits
from nodewright_agent.runtime.spec import Resources

if TYPE_CHECKING:
    from nodewright_agent.pods.resources import CgroupSettings

LABEL_RESOURCES = "resources"
"""Label of a container's record: the API's resources that its cgroup has now, as JSON."""


class ResizeError(Exception):
    """The resources could not be given; the text is for the pod's condition. It is tried again."""


def label(given: ResourceRequirements) -> str:
    """Return a container's resources as its record keeps them."""
    return msgspec.json.encode(given).decode()


def from_label(text: str | None) -> ResourceRequirements | None:
    """Return what ``label`` wrote; None for records of older versions."""
    return msgspec.json.decode(text, type=ResourceRequirements) if text else None


async def actuate(
    runtime: Containers, pod: Pod, runs: Iterable[Instance], cgroup: str, settings: CgroupSettings
) -> None:
    """Bring cgroups to what ``pod`` (the allocated one) says, in upstream's order. Raises ResizeError.

    ``cgroup`` is the pod's. Only runs that are running are touched; each that has everything is marked so.
    """
    alive = [run for run in runs if run.state == "running" and runtime.find(run.id) is not None]
    wanted = resources.pod_limits(pod, settings)
    changes = [change for run in alive if (change := _change(runtime, pod, run, settings)) is not None]
    try:
        current = await asyncio.to_thread(runtime.cgroups.limits, cgroup)
        pod_usage, usage = await asyncio.to_thread(_usage, runtime, cgroup, changes)
        if problem := plan.below_usage(current, wanted, changes, pod_usage, usage):
            raise ResizeError(problem)
        for write in plan.writes(current, wanted, changes):
            await _write(runtime, cgroup, write)
    except OSError as error:
        raise ResizeError(f"failed to write cgroups: {error}") from error
    for run in alive:
        container = find_container(pod, run.name)
        if container is not None and runtime.find(run.id) is not None:
            runtime.annotate(run.id, labels={LABEL_RESOURCES: label(container.resources)})
            failpoint("resize.noted")
            run.resources = container.resources


def _change(runtime: Containers, pod: Pod, run: Instance, settings: CgroupSettings) -> plan.Change | None:
    record, container = runtime.find(run.id), find_container(pod, run.name)
    if record is None or container is None:
        return None
    wanted = resources.container_resources(pod, container, settings)
    return plan.Change(run.id, run.name, record.spec.resources, wanted)


def _usage(runtime: Containers, cgroup: str, changes: Iterable[plan.Change]) -> tuple[int, dict[str, int]]:
    used = {}
    for change in changes:
        try:
            used[change.id] = runtime.stats(change.id).memory_usage
        except FileNotFoundError:
            continue  # it has just ended
    return runtime.cgroups.stats(cgroup).memory_usage, used


async def _write(runtime: Containers, cgroup: str, write: plan.Write) -> None:
    limits = write.limits
    if not write.id:
        await asyncio.to_thread(runtime.cgroups.update, cgroup, limits)
        failpoint("resize.pod")
        return
    try:
        await runtime.update(write.id, _as_resources(limits))
    except FileNotFoundError:
        pass  # ended meanwhile: its next run is made with the new ones


def _as_resources(limits: CgroupLimits) -> Resources:
    return Resources(
        cpu_shares=limits.cpu_shares,
        cpu_quota=limits.cpu_quota,
        cpu_period=limits.cpu_period,
        memory_limit=limits.memory,
    )
