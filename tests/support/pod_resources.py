"""Resources of Pods in tests: what is asked for, what the status says, what the cgroups have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nodewright_agent.runtime import cgroups
from support.pod_lab import PodLab, main_status

LARGE = 64 << 20


def amounts(cpu: str = "", memory: str = "") -> dict[str, str]:
    return {name: text for name, text in (("cpu", cpu), ("memory", memory)) if text}


def resources(requests: dict[str, str], limits: dict[str, str] | None = None) -> dict[str, Any]:
    return {"requests": requests, **({"limits": limits} if limits else {})}


def resize(lab: PodLab, name: str, **wishes: Any) -> Any:
    """Ask for other resources by container name; `pod` means the whole pod's."""
    spec: dict[str, Any] = {}
    if (whole := wishes.pop("pod", None)) is not None:
        spec["resources"] = whole
    spec["containers"] = [{"name": key, "resources": given} for key, given in wishes.items()]
    return lab.api.patch_namespaced_pod_resize(name, lab.namespace, {"spec": spec})


def conditions(pod: Any) -> dict[str, Any]:
    return {c.type: c for c in pod.status.conditions or [] if c.type.startswith("PodResize")}


def done(given: dict[str, Any]) -> Callable[[Any], bool]:
    """Whether the first container has what was asked for, and no resize is under way."""

    def check(pod: Any) -> bool:
        if not pod.status.container_statuses:
            return False
        status = main_status(pod)
        has = {"requests": status.resources.requests, "limits": status.resources.limits}
        same = all(has[kind] == amount for kind, amount in given.items())
        return same and status.ready and not conditions(pod)

    return check


def deferred(pod: Any) -> bool:
    pending = conditions(pod).get("PodResizePending")
    return pending is not None and pending.reason == "Deferred"


def limits_of(lab: PodLab, pod: Any, container: bool = True) -> cgroups.CgroupLimits:
    found = cgroups.detect()
    qos = {"Guaranteed": "", "Burstable": "/burstable", "BestEffort": "/besteffort"}[pod.status.qos_class]
    path = f"{lab.node.cgroup_root}/kubepods{qos}/pod{pod.metadata.uid}"
    if container:
        path += "/" + main_status(pod).container_id.removeprefix("nodewright://")
    return found.limits(path)


def cpu_and_memory(lab: PodLab, pod: Any, container: bool = True) -> tuple[Any, Any, Any]:
    has = limits_of(lab, pod, container)
    return has.cpu_shares, has.cpu_quota, has.memory
