"""Which changes of storage objects can make a waiting Pod schedulable (upstream: the plugins' queueing hints).

Upstream looks at each waiting Pod as well; here all Pods that a named plugin has rejected are tried again.
"""

from __future__ import annotations

from nodewright.kube import quantity

from .events import Event
from .storage_objects import (
    Claim,
    CSIDriver,
    CSINode,
    CSIStorageCapacity,
    PersistentVolume,
    StorageClass,
    VolumeAttachment,
)


def claim_events(old: Claim | None, new: Claim | None) -> Event:
    """A claim that is there or has changed in a way that counts."""
    if new is None:
        return Event.NONE
    if old is None:
        return Event.CLAIM
    before, after = old.metadata, new.metadata
    same = (
        old.spec == new.spec
        and old.status == new.status
        and before.uid == after.uid
        and before.annotations == after.annotations
        and before.owner_references == after.owner_references
        and before.deletion_timestamp == after.deletion_timestamp
    )
    return Event.NONE if same else Event.CLAIM


def volume_events(old: PersistentVolume | None, new: PersistentVolume | None) -> Event:
    """A volume that is there or has changed in a way that counts."""
    if new is None:
        return Event.NONE
    if old is None:
        return Event.VOLUME
    before, after = old.metadata, new.metadata
    same = (
        old.spec == new.spec
        and old.status == new.status
        and before.uid == after.uid
        and before.labels == after.labels
        and before.annotations == after.annotations
        and before.deletion_timestamp == after.deletion_timestamp
    )
    return Event.NONE if same else Event.VOLUME


def class_events(old: StorageClass | None, new: StorageClass | None) -> Event:
    """A new class, or other topologies; nothing else of a class can change."""
    if new is None or (old is not None and old.allowed_topologies == new.allowed_topologies):
        return Event.NONE
    return Event.STORAGE_CLASS


def csi_node_events(old: CSINode | None, new: CSINode | None) -> Event:
    """A node whose drivers are known now, or take more volumes than before."""
    if new is None:
        return Event.NONE
    if old is None:
        return Event.CSI_NODE
    before, after = old.limits, new.limits
    # A driver that has lost its limit takes as many as it gets.
    grown = any(limit > before.get(name, 0) for name, limit in after.items())
    freed = any(name not in after for name in before)
    return Event.CSI_NODE if grown or freed else Event.NONE


def csi_driver_events(old: CSIDriver | None, new: CSIDriver | None) -> Event:
    """A driver whose free storage does not count any more."""
    if old is None or not old.spec.storage_capacity:
        return Event.NONE
    return Event.NONE if new is not None and new.spec.storage_capacity else Event.CSI_DRIVER


def capacity_events(old: CSIStorageCapacity | None, new: CSIStorageCapacity | None) -> Event:
    """Storage that was not known of, or more of it."""
    if new is None:
        return Event.NONE
    if old is None:
        return Event.STORAGE_CAPACITY
    if new.limit is None:
        return Event.NONE
    grown = old.limit is None or quantity.parse(new.limit) > quantity.parse(old.limit)
    return Event.STORAGE_CAPACITY if grown else Event.NONE


def attachment_events(old: VolumeAttachment | None, new: VolumeAttachment | None) -> Event:
    """A volume that was detached."""
    return Event.ATTACHMENT_DELETE if new is None else Event.NONE
