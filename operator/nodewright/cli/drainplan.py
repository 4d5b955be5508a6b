"""Which Pods of a node are evicted at a drain, which leave by themselves, which stay, and which forbid it. Pure.

The rules are those of `kubectl drain --ignore-daemonsets`, with the DaemonSets that leave last on top.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import msgspec

from nodewright.controllers.daemonset.model import MIRROR_ANNOTATION, PRE_PULL_OF_LABEL
from nodewright.kube.objects import OwnerReference, Pod
from nodewright.kube.owners import controller_of

UNMANAGED = "Pods that declare no controller (use --force to override)"
LOCAL_DATA = "Pods with local storage (use --delete-emptydir-data to override)"


class DrainPlan(msgspec.Struct):
    """The Pods of a node by what becomes of them; `refused` has the reasons, `warned` what the options allow."""

    evict: list[Pod] = msgspec.field(default_factory=list)
    leave_last: list[Pod] = msgspec.field(default_factory=list)
    stay: list[Pod] = msgspec.field(default_factory=list)
    refused: dict[str, list[Pod]] = msgspec.field(default_factory=dict)
    warned: dict[str, list[Pod]] = msgspec.field(default_factory=dict)


class Rules(msgspec.Struct, frozen=True):
    """What the user allows, and the UIDs of the DaemonSets whose Pods leave last."""

    force: bool = False
    delete_emptydir_data: bool = False
    leaving: Collection[str] = frozenset()


def plan(pods: Iterable[Pod], rules: Rules) -> DrainPlan:
    """Sort the Pods of a node; mirrors of static Pods and Pods that only pull images are left out."""
    found = DrainPlan()
    for pod in sorted(pods, key=lambda p: p.key):
        if is_mirror(pod) or PRE_PULL_OF_LABEL in pod.metadata.labels:
            continue
        owner = controller_of(pod.metadata)
        if owner is not None and owner.uid in rules.leaving:
            found.leave_last.append(pod)
        elif owner is not None and owner.kind == "DaemonSet":
            found.stay.append(pod)
        else:
            _ordinary(pod, owner, rules, found)
    return found


def _ordinary(pod: Pod, owner: OwnerReference | None, rules: Rules, found: DrainPlan) -> None:
    """What has ended, or is about to, may always go: nothing more is lost with it."""
    ended = pod.status.phase in ("Succeeded", "Failed") or pod.metadata.deletion_timestamp is not None
    checks = (
        (UNMANAGED, owner is None, rules.force, "Pods that declare no controller"),
        (
            LOCAL_DATA,
            any(volume.empty_dir is not None for volume in pod.spec.volumes),
            rules.delete_emptydir_data,
            "Pods with local storage",
        ),
    )
    is_refused = False
    for reason, applies, allowed, what in checks:
        if not applies or ended:
            continue
        if allowed:
            found.warned.setdefault(what, []).append(pod)
        else:
            found.refused.setdefault(reason, []).append(pod)
            is_refused = True
    if not is_refused:
        found.evict.append(pod)


def is_mirror(pod: Pod) -> bool:
    """Whether it stands for a static Pod of the node, which no request can end."""
    return MIRROR_ANNOTATION in pod.metadata.annotations


def names(pods: Iterable[Pod]) -> str:
    """Their names, for people."""
    return ", ".join(pod.key for pod in pods)
