"""What the API server would fill in for a Pod, as far as scheduling goes, where no API server can be asked.

Done: namespace, schedulerName, requests from limits, host ports of the host's network, priority and preemptionPolicy by
PriorityClass, the tolerations of nodes that are not ready for a while, matchLabelKeys of Pod affinity. Not done:
LimitRanges, RuntimeClasses (overhead, node selectors), quotas, and admission by webhooks.
"""

from __future__ import annotations

import copy
from typing import Any

from nodewright.kube.resources import PRIORITYCLASSES

from ..objects import Pod
from .documents import Body, Document
from .snapshot import PriorityClass, Snapshot

DEFAULT_SCHEDULER = "default-scheduler"
# The two classes that every API server makes for itself.
_SYSTEM = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}
_LEAVING_SOON = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
_GRACE = 300


def with_defaults(document: Document, manifest: Body, snapshot: Snapshot) -> Body:
    """The manifest of a Pod with what the API server would add. Raises ManifestError, naming the field."""
    document.convert(Pod, manifest)  # says what is of the wrong type
    pod = copy.deepcopy(manifest)
    spec = document.mapping(pod, "spec", "", required=True)
    containers = [*_list(spec, "containers"), *_list(spec, "initContainers")]
    if not _list(spec, "containers"):
        raise document.error("spec.containers: Required value")
    for container in containers:
        _requests_from_limits(container)
        for port in _list(container, "ports"):
            if spec.get("hostNetwork") and not port.get("hostPort"):
                port["hostPort"] = port.get("containerPort", 0)
    _pod_level_requests(spec, containers)
    spec.setdefault("schedulerName", DEFAULT_SCHEDULER)
    _priority(document, spec, snapshot)
    _tolerations(spec)
    _merge_label_keys(spec, pod["metadata"].get("labels") or {})
    return pod


def priority_class(document: Document, spec: Body, snapshot: Snapshot) -> PriorityClass | None:
    """The class that decides on a Pod's priority; None for none. Raises ManifestError where it does not exist."""
    name = spec.get("priorityClassName")
    if not name:
        classes = [c for c in snapshot.all(PRIORITYCLASSES, PriorityClass) if c.global_default]
        return min(classes, key=lambda c: c.value, default=None)
    found = snapshot.get(PRIORITYCLASSES, PriorityClass, str(name))
    if found is None and name in _SYSTEM:
        return document.convert(PriorityClass, {"metadata": {"name": name}, "value": _SYSTEM[name]})
    if found is None:
        raise document.error(f'spec.priorityClassName: no PriorityClass with name "{name}" was found')
    return found


def _priority(document: Document, spec: Body, snapshot: Snapshot) -> None:
    found = priority_class(document, spec, snapshot)
    if found is not None:
        spec["priority"] = found.value
        if found.preemption_policy:
            spec.setdefault("preemptionPolicy", found.preemption_policy)


def _requests_from_limits(container: Body) -> None:
    resources = container.get("resources") or {}
    limits = resources.get("limits")
    if isinstance(limits, dict):
        container["resources"] = {**resources, "requests": {**limits, **(resources.get("requests") or {})}}


def _pod_level_requests(spec: Body, containers: list[Body]) -> None:
    """A limit of the whole Pod is its request too, unless containers say what they request (upstream's rule)."""
    resources = spec.get("resources")
    if not isinstance(resources, dict):
        return
    stated = {name for c in containers for name in ((c.get("resources") or {}).get("requests") or {})}
    requests = resources.setdefault("requests", {})
    limits = resources.get("limits")
    for name, amount in limits.items() if isinstance(limits, dict) else ():
        if name not in stated or name.startswith("hugepages-"):
            requests.setdefault(name, amount)


def _tolerations(spec: Body) -> None:
    tolerations = spec["tolerations"] = list(spec.get("tolerations") or [])
    for key in _LEAVING_SOON:
        if not any(_covers(toleration, key) for toleration in tolerations):
            toleration = {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": _GRACE}
            tolerations.append(toleration)


def _covers(toleration: Body, key: str) -> bool:
    return toleration.get("key") in (key, None, "") and toleration.get("effect") in ("NoExecute", None, "")


def _merge_label_keys(spec: Body, labels: dict[str, str]) -> None:
    """matchLabelKeys and mismatchLabelKeys become part of the selector when a Pod is made."""
    affinity = spec.get("affinity") or {}
    for kind in ("podAffinity", "podAntiAffinity"):
        own = affinity.get(kind) or {}
        terms = list(own.get("requiredDuringSchedulingIgnoredDuringExecution") or [])
        preferred = own.get("preferredDuringSchedulingIgnoredDuringExecution") or []
        terms += [weighted.get("podAffinityTerm") or {} for weighted in preferred]
        for term in terms:
            selector = term.get("labelSelector")
            for keys, operator in (("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")):
                for key in term.get(keys) or []:
                    if key in labels and isinstance(selector, dict):
                        added = {"key": key, "operator": operator, "values": [labels[key]]}
                        selector.setdefault("matchExpressions", []).append(added)


def _list(parent: Body, key: str) -> list[Any]:
    value = parent.get(key)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
