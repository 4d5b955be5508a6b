"""Pods and nodes for scheduler tests, in few words."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec

from nodewright.scheduler.objects import Node, Pod
from nodewright.scheduler.pods import PodFactory, PodInfo

_uids = itertools.count(1)
_factory = PodFactory()


def make_node(
    name: str,
    cpu: str = "4",
    memory: str = "32Gi",
    pods: str = "110",
    *,
    labels: dict[str, str] | None = None,
    taints: list[dict[str, str]] | None = None,
    unschedulable: bool = False,
    images: list[dict[str, Any]] | None = None,
    **allocatable: str,
) -> Node:
    amounts = {"cpu": cpu, "memory": memory, "pods": pods, **allocatable}
    return msgspec.convert(
        {
            "metadata": {
                "name": name,
                "uid": f"uid-{name}",
                "labels": {"kubernetes.io/hostname": name, **(labels or {})},
            },
            "spec": {"taints": taints or [], "unschedulable": unschedulable},
            "status": {"allocatable": amounts, "images": images or []},
        },
        Node,
    )


def make_pod(
    name: str = "",
    requests: dict[str, str] | None = None,
    *,
    node: str = "",
    namespace: str = "default",
    uid: str = "",
    scheduler: str = "nodewright",
    labels: dict[str, str] | None = None,
    deleting: bool = False,
    ports: list[dict[str, Any]] | None = None,
    **spec: Any,
) -> Pod:
    number = next(_uids)
    meta: dict[str, Any] = {"name": name or f"pod-{number}", "namespace": namespace, "uid": uid or f"uid-{number}"}
    if labels:
        meta["labels"] = labels
    if deleting:
        meta["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    containers = [{"name": "c", "image": "app", "resources": {"requests": requests or {}}, "ports": ports or []}]
    return msgspec.convert(
        {"metadata": meta, "spec": {"nodeName": node, "schedulerName": scheduler, "containers": containers, **spec}},
        Pod,
    )


def info(pod: Pod) -> PodInfo:
    return _factory.info(pod)


class FakeClock:
    """A clock that stands until it is moved."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds
