"""Pulling the images of a new template on a node before the old pod goes. Pure.

A puller is a short-lived pod on the node that has each image of the template in a container of its own, with a command
that needs nothing. Whether that command succeeds does not matter: it is tried only after the image was pulled. The
puller belongs to the DaemonSet, so it goes with it, but has no controller: it is none of the DaemonSet's pods.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from datetime import datetime
from typing import Any

import msgspec

from nodewright.controllers.daemonset.model import (
    PRE_PULL_OF_LABEL,
    PRE_PULL_REVISION_LABEL,
    ContainerStatus,
    DaemonSet,
    Pod,
)
from nodewright.controllers.daemonset.pods import PodsByNode, has_hash
from nodewright.controllers.daemonset.revisions import owner_reference
from nodewright.controllers.daemonset.template import pinned, tolerating, tolerations
from nodewright.controllers.daemonset.view import Targets, View
from nodewright.kube.resources import Resource
from nodewright.kube.times import seconds_since

Json = dict[str, Any]

# Why a container waits that has no image yet. Source: pkg/kubelet/images/types.go.
PULL_ERRORS = frozenset(
    {
        "ErrImageNeverPull",
        "ErrImagePull",
        "ImageInspectError",
        "ImagePullBackOff",
        "InvalidImageName",
        "RegistryUnavailable",
        "SignatureValidationFailed",
    }
)
# Why a container waits whose image was pulled: all that comes later in its start, which fails more often than not where
# an image has no shell. Source: startContainer in pkg/kubelet/kuberuntime.
AFTER_PULL = frozenset(
    {
        "CrashLoopBackOff",
        "CreateContainerConfigError",
        "CreateContainerError",
        "PostStartHookError",
        "PreCreateHookError",
        "PreStartHookError",
        "RunContainerError",
        "StartError",
    }
)
SCHEDULING = 60.0  # seconds
_COMMAND = ["true"]
_RESOURCES: Json = {"requests": {"cpu": "1m", "memory": "4Mi"}, "limits": {"cpu": "100m", "memory": "64Mi"}}
_LONGEST_VALUE = 63  # characters of a label's value
# What decides on the image that a pod gets, on its credentials, and on whether it may run on the node.
_POD_FIELDS = (
    "hostNetwork",
    "imagePullSecrets",
    "os",
    "priorityClassName",
    "runtimeClassName",
    "schedulerName",
    "securityContext",
    "serviceAccountName",
)
_CONTAINER_FIELDS = ("runAsGroup", "runAsNonRoot", "runAsUser", "seccompProfile")


class Pulls(msgspec.Struct, frozen=True):
    """How far the pulls of one revision are: nodes that have all images, and what went wrong where."""

    pulled: Set[str] = frozenset()
    errors: Mapping[str, str] = msgspec.field(default_factory=dict)


def survey(pullers: Iterable[Pod], hash_value: str, pods: PodsByNode, now: datetime) -> Pulls:
    """Look at the pullers of a revision, and at the daemon pods that run it.

    A puller that no scheduler has placed for a minute counts as failing: its node may be full.
    """
    pulled = {node for node, found in pods.items() if any(has_hash(pod, hash_value) for pod in found)}
    errors: dict[str, str] = {}
    for puller in pullers:
        node = puller.target_node
        if node is None or puller.metadata.labels.get(PRE_PULL_REVISION_LABEL) != hash_value:
            continue
        if is_done(puller):
            pulled.add(node)
        elif error := _error(puller):
            errors[node] = error
        elif (left := seconds_to_schedule(puller, now)) is not None and left <= 0:
            errors[node] = f"pod {puller.metadata.name} is not scheduled"
    return Pulls(pulled, {node: error for node, error in errors.items() if node not in pulled})


def is_done(puller: Pod) -> bool:
    """Whether all its images are on the node."""
    statuses = puller.status.container_statuses
    return bool(statuses) and all(map(_is_there, statuses))


def seconds_to_schedule(puller: Pod, now: datetime) -> float | None:
    """Seconds until it counts as failing unless a scheduler places it; None once one has."""
    created = puller.metadata.creation_timestamp
    if created is None or puller.spec.node_name or puller.terminal or puller.deleting:
        return None
    return SCHEDULING - seconds_since(created, now)


def is_lost(puller: Pod) -> bool:
    """Whether it ended without having pulled: it was evicted, or the node refused it."""
    return puller.terminal and not is_done(puller)


def obsolete(view: View, targets: Targets, pullers: Iterable[Pod]) -> list[Pod]:
    """Pullers that are of no use any more: their node is up to date or gone, or another revision is wanted there."""
    wanted = targets.hash if view.ds.rolling.pre_pull is not None else None
    gone: list[Pod] = []
    seen: set[str] = set()
    for puller in sorted(pullers, key=lambda p: (not is_done(p), p.metadata.name)):
        node = puller.target_node or ""
        is_useful = (
            puller.metadata.labels.get(PRE_PULL_REVISION_LABEL) == wanted
            and node in view.verdicts
            and view.verdicts[node].should_run
            and (node not in targets.held or is_done(puller))
            and not any(has_hash(pod, targets.hash) for pod in view.pods.get(node, ()))
            and node not in seen
        )
        seen.add(node)
        if not is_useful and not puller.deleting:
            gone.append(puller)
    return gone


def missing(nodes: Iterable[str], pullers: Iterable[Pod]) -> list[str]:
    """Those of the nodes that have no puller. One that is being deleted counts: its node waits for it to be gone."""
    there = {puller.target_node for puller in pullers}
    return [node for node in nodes if node not in there]


def puller_for(
    resource: Resource, ds: DaemonSet, template: Json, hash_value: str, node: str, tolerated: Sequence[str] = ()
) -> Json:
    """The puller of a template's images for a node, as JSON; `tolerated` are keys of taints of our own there."""
    given: Json = template.get("spec") or {}
    spec: Json = {field: given[field] for field in _POD_FIELDS if given.get(field) is not None}
    spec |= {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "affinity": {"nodeAffinity": pinned(node)},
        "tolerations": tolerations(given),
        "containers": _containers(given),
    }
    owner = {**owner_reference(resource, ds.metadata.name, ds.metadata.uid), "controller": False}
    labels = {PRE_PULL_OF_LABEL: _label_value(ds.metadata.name), PRE_PULL_REVISION_LABEL: hash_value}
    meta = {
        "generateName": f"{ds.metadata.name}-prepull-",
        "namespace": ds.metadata.namespace,
        "labels": labels,
        "ownerReferences": [owner],
    }
    return tolerating({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}, tolerated)


def is_puller(pod: Pod) -> bool:
    """Whether a pod was made by `puller_for`."""
    return PRE_PULL_OF_LABEL in pod.metadata.labels


def is_for(puller: Pod, ds: DaemonSet) -> bool:
    """Whether a puller was made for a DaemonSet of this name; of very long names the end is not looked at."""
    return puller.metadata.labels.get(PRE_PULL_OF_LABEL) == _label_value(ds.metadata.name)


def _containers(spec: Json) -> list[Json]:
    """One per image, with the strictest policy of those that its users in the template have."""
    users: dict[str, list[Json]] = {}
    for field in ("initContainers", "containers"):
        for container in spec.get(field) or []:
            users.setdefault(str(container.get("image", "")), []).append(container)
    return [_container(number, image, given) for number, (image, given) in enumerate(users.items())]


def _container(number: int, image: str, users: list[Json]) -> Json:
    context = (users[0].get("securityContext")) or {}
    out: Json = {
        "name": f"image-{number}",
        "image": image,
        "command": _COMMAND,
        "resources": _RESOURCES,
        "securityContext": {
            **{field: context[field] for field in _CONTAINER_FIELDS if context.get(field) is not None},
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    policies = {user.get("imagePullPolicy") for user in users}
    policy = "Always" if "Always" in policies else users[0].get("imagePullPolicy")
    if policy:
        out["imagePullPolicy"] = policy
    return out


def _is_there(status: ContainerStatus) -> bool:
    state = status.state
    if status.image_id or (state and state.running):
        return True
    return bool(state and state.waiting and state.waiting.reason in AFTER_PULL)


def _error(puller: Pod) -> str:
    for status in puller.status.container_statuses:
        waiting = status.state.waiting if status.state else None
        if waiting is not None and waiting.reason in PULL_ERRORS:
            return f"{waiting.reason}: {waiting.message}" if waiting.message else waiting.reason
    return ""


def _label_value(name: str) -> str:
    """A name that may be longer than a label's value; it is for people, and need not be unique."""
    return name[:_LONGEST_VALUE].rstrip("-.")
