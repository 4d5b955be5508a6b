"""Updating a pod where it is: where only images of its containers changed, the node restarts those and no more. Pure.

The pod keeps its name, node, addresses and volumes. Which containers were changed is noted on it with their restart
counts: a node raises the count of a container when it starts it with its new image (see `availability`).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import msgspec

from nodewright.controllers.daemonset.availability import waits_for_restart
from nodewright.controllers.daemonset.canonical import canonical, pull_policy
from nodewright.controllers.daemonset.manage import allows_surge
from nodewright.controllers.daemonset.model import HASH_LABEL, IN_PLACE_ANNOTATION, Pod, Revision
from nodewright.controllers.daemonset.revisions import template_of
from nodewright.controllers.daemonset.view import Plan, Targets, View

Json = dict[str, Any]

Images = Mapping[str, str]  # by name of the container


def split(view: View, targets: Targets, plan: Plan) -> Plan:
    """Of the pods that a rollout would delete, those that can be updated in place are; how many is as it was.

    Not while surging: there a new pod is to be available before an old one stops.
    """
    rolling = view.ds.rolling
    if rolling.pod_update != "InPlaceIfPossible" or allows_surge(rolling) or not plan.delete:
        return plan
    known: dict[str, Images | None] = {}
    keep: list[Pod] = []
    for pod in plan.delete:
        hash_value = pod.metadata.labels.get(HASH_LABEL, "")
        if hash_value not in known:
            known[hash_value] = changed_images(view, hash_value, targets.hash)
        changes = known[hash_value]
        possible = changes and _same_class(targets, pod) and _runs(pod, changes)
        (plan.in_place if possible else keep).append(pod)
    plan.delete = keep
    return plan


def changed_images(view: View, old: str, new: str) -> Images | None:
    """The images that differ between two revisions, as they are in the new one; None where anything else differs."""
    before, after = (_template(view.revisions.get(each)) for each in (old, new))
    if before is None or after is None:
        return None
    images, others = _apart(before), _apart(after)
    if images[1] != others[1]:
        return None
    return {name: image for name, image in others[0].items() if images[0][name] != image}


def patch(pod: Pod, images: Images, hash_value: str) -> Json:
    """A strategic merge patch that gives the pod the images and the revision; refused when the pod has changed."""
    counts = {status.name: status.restart_count for status in pod.status.container_statuses}
    noted = {name: counts[name] for name in sorted(images)}
    return {
        "metadata": {
            "uid": pod.metadata.uid,
            "resourceVersion": pod.metadata.resource_version,
            "labels": {HASH_LABEL: hash_value},
            "annotations": {IN_PLACE_ANNOTATION: msgspec.json.encode(noted).decode()},
        },
        "spec": {"containers": [{"name": name, "image": image} for name, image in images.items()]},
    }


def _same_class(targets: Targets, pod: Pod) -> bool:
    own = pod.metadata.annotations
    return (own.node_class if own else "") == targets.classes.get(pod.target_node or "", "")


def _runs(pod: Pod, images: Images) -> bool:
    """Whether all containers run. In a pod with trouble there is nothing to keep, and a fresh one is more sure to work.

    Nor is a pod changed whose last update is not done yet: nothing would tell that one's restart from this one's.
    """
    if pod.status.phase != "Running" or pod.deleting or waits_for_restart(pod):
        return False
    statuses = {status.name: status for status in pod.status.container_statuses}
    return images.keys() <= statuses.keys() and not any(s.state and s.state.waiting for s in statuses.values())


def _template(revision: Revision | None) -> Json | None:
    return template_of(revision) if revision is not None else None


def _apart(template: Json) -> tuple[dict[str, str], Json]:
    """The images of the containers, and the rest of the template in its normal form.

    The default of imagePullPolicy follows from the image, and cannot be changed in a pod: it belongs to the rest.
    """
    rest = copy.deepcopy(canonical(template))
    images: dict[str, str] = {}
    for container in (rest.get("spec") or {}).get("containers") or []:
        image = str(container.pop("image", ""))
        images[str(container.get("name"))] = image
        container.setdefault("imagePullPolicy", pull_policy(image))
    return images, rest
