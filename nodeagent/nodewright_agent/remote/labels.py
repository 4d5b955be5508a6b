"""Labels and annotations of sandboxes and containers, as kubelet gives them (kuberuntime/labels.go). Pure.

crictl and the runtimes' own tools know pods by them, and so does the next agent. One label is ours: which node's agent
made it, since a runtime may serve more than one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import msgspec

from nodewright.kube.objects import Container, Pod

POD_NAME, POD_NAMESPACE, POD_UID = (f"io.kubernetes.pod.{name}" for name in ("name", "namespace", "uid"))
CONTAINER_NAME = "io.kubernetes.container.name"
NODE = "nodewright.dev/node"
"""Value: the Node's name."""

_CONTAINER, _POD = "io.kubernetes.container.", "io.kubernetes.pod."
IMAGE, IMAGE_ID = "nodewright.dev/image", "nodewright.dev/image-id"
"""Annotations of ours: how the pod calls the image, and how its status names it."""


def of_sandbox(pod: Pod, node: str) -> dict[str, str]:
    """The pod's own labels, and those by which it is found."""
    return {**pod.metadata.labels, **_identity(pod), NODE: node}


def of_container(pod: Pod, container: Container, node: str) -> dict[str, str]:
    """Those by which a container is found; the pod's own are its sandbox's."""
    return {**_identity(pod), CONTAINER_NAME: container.name, NODE: node}


def notes(pod: Pod, container: Container, attempt: int, own: Mapping[str, str]) -> dict[str, str]:
    """What kubelet notes of a container, and ``own``."""
    digest = hashlib.sha256(msgspec.json.encode([container.name, container.image])).hexdigest()
    found = {
        **own,
        f"{_CONTAINER}hash": digest[:8],
        f"{_CONTAINER}restartCount": str(attempt),
        f"{_CONTAINER}terminationMessagePath": container.termination_message_path or "",
        f"{_CONTAINER}terminationMessagePolicy": container.termination_message_policy or "",
        f"{_CONTAINER}type": _kind(pod, container),
    }
    if pod.metadata.deletion_grace_period_seconds is not None:
        found[f"{_POD}deletionGracePeriod"] = str(pod.metadata.deletion_grace_period_seconds)
    if pod.spec.termination_grace_period_seconds is not None:
        found[f"{_POD}terminationGracePeriod"] = str(pod.spec.termination_grace_period_seconds)
    if container.lifecycle is not None and container.lifecycle.pre_stop is not None:
        found[f"{_CONTAINER}preStopHandler"] = msgspec.json.encode(container.lifecycle.pre_stop).decode()
    if container.ports:
        found[f"{_CONTAINER}ports"] = msgspec.json.encode(container.ports).decode()
    return found


def _identity(pod: Pod) -> dict[str, str]:
    meta = pod.metadata
    return {POD_NAME: meta.name, POD_NAMESPACE: meta.namespace, POD_UID: meta.uid}


def _kind(pod: Pod, container: Container) -> str:
    if any(one.name == container.name for one in pod.spec.init_containers):
        return "init"
    return "container" if any(one.name == container.name for one in pod.spec.containers) else "ephemeral"
