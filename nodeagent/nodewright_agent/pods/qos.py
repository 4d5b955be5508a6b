"""The cgroups above the pods': ``kubepods`` holds no more than the node gives away, QoS classes share its CPU.

Upstream: enforceNodeAllocatable ``pods`` and the QoS container manager.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from nodewright.kube.objects import ObjectReference, Pod
from nodewright_agent.pods import resources
from nodewright_agent.pods.ports import Events
from nodewright_agent.runtime import cgroup_math
from nodewright_agent.runtime.cgroup_math import QosClass
from nodewright_agent.runtime.cgroups import CgroupLimits, Cgroups

log = logging.getLogger(__name__)


def burstable_shares(pods: Iterable[Pod]) -> int:
    """Return the CPU shares of the Burstable class: those of all its pods' requests together. Pure."""
    burstable = (pod for pod in pods if resources.qos_class(pod) is QosClass.BURSTABLE)
    return cgroup_math.shares(sum(resources.pod_request(pod, resources.milli_cpu) for pod in burstable))


class QosCgroups:
    """Keeps them as the node's pods want them."""

    def __init__(self, cgroups: Cgroups, root: str, pods: Callable[[], Iterable[Pod]]) -> None:
        """Work below ``root`` for ``pods``: those that have not ended, with what they hold."""
        self._cgroups, self._root, self._pods = cgroups, root, pods
        self._shares: int | None = None

    def prepare(self) -> None:
        """Make the cgroups of the classes; BestEffort gets the least share of CPU."""
        least = CgroupLimits(cpu_shares=cgroup_math.MIN_SHARES)
        self._cgroups.create(cgroup_math.qos_path(self._root, QosClass.BEST_EFFORT), least)
        self._cgroups.create(cgroup_math.qos_path(self._root, QosClass.BURSTABLE))

    def enforce(self, milli_cpu: int, memory: int, events: Events, node: ObjectReference) -> None:
        """Hold all pods together to what is not reserved: CPU shares, and bytes of memory. Tells it as upstream does.

        The eviction threshold is not taken off, so that eviction comes before the kernel's killing.
        """
        path = cgroup_math.kubepods_path(self._root)
        try:
            self._cgroups.create(path, CgroupLimits(cpu_shares=cgroup_math.shares(milli_cpu), memory=memory))
        except OSError as error:
            text = f'Failed to update Node Allocatable Limits "{path}": {error}'
            log.error("%s", text)
            events.event(node, "Warning", "FailedNodeAllocatableEnforcement", text)
            return
        events.event(node, "Normal", "NodeAllocatableEnforced", "Updated Node Allocatable limit across pods")

    def release(self) -> None:
        """Take back what an earlier agent enforced."""
        path = cgroup_math.kubepods_path(self._root)
        if self._cgroups.exists(path):
            self._cgroups.update(path, CgroupLimits(memory=-1))

    def refresh(self) -> None:
        """Pods came, went or changed: give the Burstable class the shares of their requests."""
        shares = burstable_shares(self._pods())
        if shares == self._shares:
            return
        path = cgroup_math.qos_path(self._root, QosClass.BURSTABLE)
        try:
            self._cgroups.create(path, CgroupLimits(cpu_shares=shares))
        except OSError as error:
            log.error("cannot set the CPU shares of %s: %s", path, error)
        else:
            self._shares = shares
