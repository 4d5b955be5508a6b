"""Whose pods and revisions (upstream: ControllerRefManager): what to keep, adopt and release. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from nodewright.controllers.daemonset.model import DaemonSet, DaemonSetMeta, Meta, Template
from nodewright.kube.objects import OwnerReference
from nodewright.kube.resources import Resource


class Owned(Protocol):
    """A pod or a revision."""

    @property
    def metadata(self) -> Meta:
        """Its metadata."""


O = TypeVar("O", bound=Owned)  # noqa: E741


class Claim(msgspec.Struct, Generic[O]):
    """Objects that belong to the DaemonSet, orphans to adopt, and own ones that its selector no longer matches."""

    mine: list[O]
    adopt: list[O]
    release: list[O]


def controller(meta: Meta | DaemonSetMeta) -> OwnerReference | None:
    """The reference to the controlling owner."""
    return next((ref for ref in meta.owner_references if ref.controller), None)


def claim(ds: DaemonSet, candidates: Iterable[O], others: Sequence[DaemonSet] = ()) -> Claim[O]:
    """Sort the candidates. Objects of other controllers are never touched, nor are orphans that are being deleted.

    `others` are DaemonSets of the namespace: an orphan that an older one of them selects, too, is left to that one.
    Upstream lets the quicker one have it.
    """
    elders = [other for other in others if is_elder(other, ds)]
    result: Claim[O] = Claim([], [], [])
    for obj in candidates:
        meta = obj.metadata
        owner = controller(meta)
        matches = ds.spec.selector.matches(meta.labels)
        if owner is not None:
            if owner.uid != ds.metadata.uid:
                continue
            if matches:
                result.mine.append(obj)
            elif ds.metadata.deletion_timestamp is None:
                result.release.append(obj)
        elif (
            matches
            and ds.metadata.deletion_timestamp is None
            and meta.deletion_timestamp is None
            and not any(elder.spec.selector.matches(meta.labels) for elder in elders)
        ):
            result.adopt.append(obj)
    return result


def is_elder(other: DaemonSet, ds: DaemonSet) -> bool:
    """Whether the other one comes before this one where both could have something.

    It is older (by UID where both were made in the same second), selects something, and is not on its way out.
    """
    selector, meta = other.spec.selector, other.metadata
    if meta.deletion_timestamp is not None or not (selector.match_labels or selector.match_expressions):
        return False
    return seniority(other) < seniority(ds)


def seniority(ds: DaemonSet) -> tuple[str, str]:
    """Sort key: the oldest first, by UID those that were made in the same second."""
    return (ds.metadata.creation_timestamp or "", ds.metadata.uid)


def overlap(one: DaemonSet, other: DaemonSet) -> bool:
    """Whether one of the two would select the pods that the other makes."""
    mine, theirs = (msgspec.json.decode(ds.spec.template, type=Template).metadata.labels for ds in (one, other))
    return one.spec.selector.matches(theirs) or other.spec.selector.matches(mine)


def adoption_patch(resource: Resource, ds: DaemonSet, uid: str) -> dict[str, Any]:
    """A strategic merge patch that adds our reference; the UID in it is a precondition."""
    reference = {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "name": ds.metadata.name,
        "uid": ds.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
    return {"metadata": {"ownerReferences": [reference], "uid": uid}}


def release_patch(ds: DaemonSet, uid: str) -> dict[str, Any]:
    """A strategic merge patch that removes our reference; the UID in it is a precondition."""
    return {"metadata": {"ownerReferences": [{"$patch": "delete", "uid": ds.metadata.uid}], "uid": uid}}
