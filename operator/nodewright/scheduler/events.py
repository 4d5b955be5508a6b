"""What happens in a cluster that can make a waiting Pod schedulable."""

from __future__ import annotations

import enum

from .objects import Node, Pod
from .pods import PodInfo


class Event(enum.Flag):
    """Kinds of cluster events. A plugin names those after which a Pod that it rejected is worth another try."""

    NONE = 0
    NODE_ADD = enum.auto()
    NODE_DELETE = enum.auto()
    NODE_ALLOCATABLE = enum.auto()
    NODE_LABEL = enum.auto()
    NODE_TAINT = enum.auto()  # a cordon counts as one
    NODE_OTHER = enum.auto()
    # Pods that are bound to a node:
    POD_ADD = enum.auto()
    POD_DELETE = enum.auto()
    POD_LABEL = enum.auto()
    POD_SCALE_DOWN = enum.auto()
    # The waiting Pod itself was changed:
    POD_SPEC = enum.auto()
    # Namespaces and what is behind volumes:
    NAMESPACE = enum.auto()
    CLAIM = enum.auto()
    VOLUME = enum.auto()
    STORAGE_CLASS = enum.auto()
    CSI_NODE = enum.auto()
    CSI_DRIVER = enum.auto()
    STORAGE_CAPACITY = enum.auto()
    ATTACHMENT_DELETE = enum.auto()
    # A waiting Pod of the same gang appeared:
    GANG_MEMBER = enum.auto()

    NODE_ANY = NODE_ADD | NODE_DELETE | NODE_ALLOCATABLE | NODE_LABEL | NODE_TAINT | NODE_OTHER
    STORAGE_ANY = CLAIM | VOLUME | STORAGE_CLASS | CSI_NODE | CSI_DRIVER | STORAGE_CAPACITY | ATTACHMENT_DELETE
    ANY = NODE_ANY | POD_ADD | POD_DELETE | POD_LABEL | POD_SCALE_DOWN | POD_SPEC | NAMESPACE | STORAGE_ANY


def node_events(old: Node | None, new: Node | None) -> Event:
    """The kinds of events that a change of a node amounts to."""
    if old is None:
        return Event.NODE_ADD if new is not None else Event.NONE
    if new is None:
        return Event.NODE_DELETE
    kinds = Event.NONE
    if old.status.allocatable != new.status.allocatable:
        kinds |= Event.NODE_ALLOCATABLE
    if old.metadata.labels != new.metadata.labels:
        kinds |= Event.NODE_LABEL
    if old.spec != new.spec:
        kinds |= Event.NODE_TAINT
    if old.metadata.annotations != new.metadata.annotations:
        kinds |= Event.NODE_OTHER
    return kinds


def bound_pod_events(old: PodInfo, new: PodInfo) -> Event:
    """The kinds of events that a change of a bound Pod amounts to."""
    kinds = Event.NONE
    if old.pod.metadata.labels != new.pod.metadata.labels:
        kinds |= Event.POD_LABEL
    before, after = old.template.requests, new.template.requests
    if before is not after and any(after.get(name, 0) < amount for name, amount in before.items()):
        kinds |= Event.POD_SCALE_DOWN
    return kinds


_LABELS = {
    Event.POD_ADD: "AssignedPodAdd",
    Event.POD_DELETE: "AssignedPodDelete",
    Event.POD_LABEL: "AssignedPodUpdatePodLabel",
    Event.POD_SCALE_DOWN: "AssignedPodUpdatePodScaleDown",
    Event.NODE_ADD: "NodeAdd",
    Event.NODE_DELETE: "NodeDelete",
    Event.NODE_ALLOCATABLE: "NodeUpdateNodeAllocatable",
    Event.NODE_LABEL: "NodeUpdateNodeLabel",
    Event.NODE_TAINT: "NodeUpdateNodeTaint",
    Event.NODE_OTHER: "NodeUpdateNodeAnnotation",
    Event.NAMESPACE: "NamespaceUpdate",
    Event.CLAIM: "PersistentVolumeClaimUpdate",
    Event.VOLUME: "PersistentVolumeUpdate",
    Event.STORAGE_CLASS: "StorageClassUpdate",
    Event.CSI_NODE: "CSINodeUpdate",
    Event.CSI_DRIVER: "CSIDriverUpdate",
    Event.STORAGE_CAPACITY: "CSIStorageCapacityUpdate",
    Event.ATTACHMENT_DELETE: "VolumeAttachmentDelete",
    Event.GANG_MEMBER: "UnschedulablePodAdd",
}


def label(kinds: Event) -> str:
    """The name that kube-scheduler's metrics have for an event; of several kinds, the first that has one."""
    return next((text for kind, text in _LABELS.items() if kind & kinds), "Unknown")


def is_finished(pod: Pod) -> bool:
    """Whether the Pod has ended and holds nothing any more."""
    return pod.status.phase in ("Succeeded", "Failed")
