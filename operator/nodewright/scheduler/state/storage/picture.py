"""The objects behind volumes, and what was decided about them and is not in the API yet.

A volume that was chosen for a claim is *assumed* to belong to it, and a claim whose volume is to be made for a node is
assumed to say so, until the API shows it or the decision is taken back. Where both speak, the API is right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import msgspec

from ...pods import PodInfo
from ...storage_objects import (
    Claim,
    ClaimRef,
    CSIDriver,
    CSINode,
    CSIStorageCapacity,
    PersistentVolume,
    StorageClass,
    VolumeAttachment,
)
from .attachments import AttachIndex, VolumeId
from .usage import VolumeUsage
from .waiting import Waiters

T = TypeVar("T", StorageClass, CSINode, CSIDriver, CSIStorageCapacity)


class Reservation(msgspec.Struct):
    """What was decided for one Pod: volumes for its claims, and claims whose volumes are to be made for the node."""

    node: str
    # Claim key -> volume name.
    bindings: dict[str, str]
    provisions: list[str]


class StorageState:
    """Claims, volumes, classes, CSI objects and their users. `None` for a new object means that it is gone.

    `generation` grows with every change that a decision may see. `on_released` is called when a volume or claim that
    was held for a Pod is free again without any event of the API telling so.
    """

    def __init__(self) -> None:
        self.generation = 0
        self.claims: dict[str, Claim] = {}
        self.volumes: dict[str, PersistentVolume] = {}
        self.classes: dict[str, StorageClass] = {}
        self.csi_nodes: dict[str, CSINode] = {}
        self.drivers: dict[str, CSIDriver] = {}
        self.capacities: dict[str, CSIStorageCapacity] = {}
        self.reservations: dict[str, Reservation] = {}
        self.usage = VolumeUsage()
        self.attached = AttachIndex(self)
        self.waiters = Waiters()
        self.on_released: Callable[[], None] | None = None
        self._attachments: dict[str, dict[str, VolumeAttachment]] = {}
        self._attached_nodes: dict[str, dict[str, str]] = {}
        self._assumed_refs: dict[str, ClaimRef] = {}
        self._assumed_nodes: dict[str, str] = {}
        # Volumes that belong to no claim, by class; those that do, by claim.
        self._free: dict[str, dict[str, PersistentVolume]] = {}
        self._held: dict[str, set[str]] = {}
        self._indexed: dict[str, tuple[str, str]] = {}

    # --- reading -------------------------------------------------------------------------------------------------

    def free_volumes(self, class_name: str) -> Iterable[PersistentVolume]:
        """Volumes of a class that belong to no claim, and are not about to."""
        return self._free.get(class_name, {}).values()

    def volumes_for(self, claim: Claim) -> Iterator[PersistentVolume]:
        """Volumes of the claim's class that belong to it, are set aside for it, or are about to; by name."""
        for name in sorted(self._held.get(claim.key, ())):
            volume, ref = self.volumes[name], self._ref(name)
            if ref is not None and ref.is_for(claim) and volume.class_name == claim.class_name:
                yield volume

    def selected_node(self, claim: Claim) -> str | None:
        """The node for which the claim's volume is to be made, or None."""
        return self._assumed_nodes.get(claim.key, claim.metadata.annotations.selected_node)

    def csi_volume(self, claim: Claim) -> VolumeId | None:
        """Driver and handle of the claim's volume; None where no CSI driver attaches it.

        A volume that does not exist yet is known by its claim and the class's provisioner.
        """
        volume = self.volumes.get(claim.spec.volume_name) if claim.spec.volume_name else None
        if volume is not None:
            csi = volume.spec.csi
            return (csi.driver, csi.volume_handle) if csi is not None and csi.driver and csi.volume_handle else None
        storage_class = self.classes.get(claim.class_name) if claim.class_name else None
        if storage_class is None or not storage_class.provisioner:
            return None
        return storage_class.provisioner, f"\0{claim.key}"  # no driver has a handle like that

    def attached_to(self, node: str) -> set[VolumeId]:
        """CSI volumes that are, or are about to be, attached to the node."""
        found: set[VolumeId] = set()
        for attachment in self._attachments.get(node, {}).values():
            name = attachment.spec.source.persistent_volume_name
            volume = self.volumes.get(name) if name is not None else None
            if volume is not None and volume.spec.csi is not None and attachment.spec.attacher:
                found.add((attachment.spec.attacher, volume.spec.csi.volume_handle))
        return found

    # --- what the cluster tells ----------------------------------------------------------------------------------

    def on_claim(self, old: Claim | None, new: Claim | None) -> None:
        """A claim appeared, changed or went away."""
        claim = new or old
        assert claim is not None
        key = claim.key
        if new is None:
            self.claims.pop(key, None)
        else:
            self.claims[key] = new
        if (
            new is None
            or new.metadata.annotations.selected_node is not None
            or new.spec.volume_name
            or (old is not None and old.metadata.uid != new.metadata.uid)
        ):
            self._assumed_nodes.pop(key, None)
        for row in self.usage.rows_of(key):
            self.attached.touch(row)
        self._changed("claim", key)

    def on_volume(self, old: PersistentVolume | None, new: PersistentVolume | None) -> None:
        """A volume appeared, changed or went away."""
        volume = new or old
        assert volume is not None
        name = volume.key
        if new is None:
            self.volumes.pop(name, None)
        else:
            self.volumes[name] = new
        if new is None or new.spec.claim_ref is not None or (old is not None and old.metadata.uid != new.metadata.uid):
            self._assumed_refs.pop(name, None)
        self._index(name)
        for seen in (old, new):
            if seen is not None and seen.spec.claim_ref is not None:
                for row in self.usage.rows_of(seen.spec.claim_ref.key):
                    self.attached.touch(row)
        for node in self._attached_nodes.get(name, {}).values():
            self.attached.touch_node(node)
        self._changed("volume", name)

    def on_class(self, old: StorageClass | None, new: StorageClass | None) -> None:
        """A StorageClass appeared, changed or went away."""
        _put(self.classes, old, new)
        self.attached.touch_all()
        self.generation += 1

    def on_csi_node(self, old: CSINode | None, new: CSINode | None) -> None:
        """A CSINode appeared, changed or went away."""
        self.attached.touch_node(_put(self.csi_nodes, old, new))
        self.generation += 1

    def on_csi_driver(self, old: CSIDriver | None, new: CSIDriver | None) -> None:
        """A CSIDriver appeared, changed or went away."""
        _put(self.drivers, old, new)
        self.generation += 1

    def on_capacity(self, old: CSIStorageCapacity | None, new: CSIStorageCapacity | None) -> None:
        """A CSIStorageCapacity appeared, changed or went away."""
        _put(self.capacities, old, new)
        self.generation += 1

    def on_attachment(self, old: VolumeAttachment | None, new: VolumeAttachment | None) -> None:
        """A VolumeAttachment appeared, changed or went away."""
        for attachment, is_there in ((old, False), (new, True)):
            if attachment is None:
                continue
            node, volume = attachment.spec.node_name, attachment.spec.source.persistent_volume_name
            here = self._attachments.setdefault(node, {})
            nodes = self._attached_nodes.setdefault(volume, {}) if volume is not None else {}
            if is_there:
                here[attachment.key] = attachment
                nodes[attachment.key] = node
            else:
                here.pop(attachment.key, None)
                nodes.pop(attachment.key, None)
            if not here:
                del self._attachments[node]
            if volume is not None and not nodes:
                del self._attached_nodes[volume]
            self.attached.touch_node(node)
        self.generation += 1

    def pod_added(self, row: int, pod: PodInfo) -> None:
        """A Pod with volumes counts at a row, bound or assumed."""
        self.usage.add(row, pod)
        self.attached.touch(row)
        self.generation += 1

    def pod_removed(self, row: int, pod: PodInfo) -> None:
        """A Pod with volumes does not count at the row any more."""
        self.usage.remove(row, pod)
        self.attached.touch(row)
        self._changed("pod", pod.uid)

    def node_removed(self, name: str) -> None:
        """A node is gone; whoever binds volumes for it must know."""
        self.waiters.wake("node", name)

    # --- what we decide ------------------------------------------------------------------------------------------

    def reserve(self, uid: str, reservation: Reservation) -> None:
        """Assume what was decided for a Pod. Claims and volumes must exist."""
        self.release(uid)
        for key, name in reservation.bindings.items():
            meta = self.claims[key].metadata
            if self.volumes[name].spec.claim_ref is None:
                self._assumed_refs[name] = ClaimRef(namespace=meta.namespace, name=meta.name, uid=meta.uid)
                self._index(name)
        for key in reservation.provisions:
            if self.claims[key].metadata.annotations.selected_node is None:
                self._assumed_nodes[key] = reservation.node
        self.reservations[uid] = reservation
        self.generation += 1

    def release(self, uid: str) -> None:
        """Take back what is still assumed for a Pod; nothing happens where nothing is."""
        reservation = self.reservations.pop(uid, None)
        if reservation is None:
            return
        freed = False
        for name in reservation.bindings.values():
            freed |= self._assumed_refs.pop(name, None) is not None
            self._index(name)
        for key in reservation.provisions:
            freed |= self._assumed_nodes.pop(key, None) is not None
        self.generation += 1
        if freed and self.on_released is not None:
            self.on_released()

    # --- indexes -------------------------------------------------------------------------------------------------

    def _changed(self, kind: str, key: str) -> None:
        self.generation += 1
        self.waiters.wake(kind, key)

    def _ref(self, name: str) -> ClaimRef | None:
        """The claim that a volume belongs to, as the API says or else as was decided."""
        return self.volumes[name].spec.claim_ref or self._assumed_refs.get(name)

    def _index(self, name: str) -> None:
        before = self._indexed.pop(name, None)
        if before is not None:
            class_name, claim = before
            if claim:
                held = self._held[claim]
                held.discard(name)
                if not held:
                    del self._held[claim]
            else:
                free = self._free[class_name]
                free.pop(name, None)
                if not free:
                    del self._free[class_name]
        volume = self.volumes.get(name)
        if volume is None:
            return
        ref = self._ref(name)
        self._indexed[name] = (volume.class_name, ref.key if ref is not None else "")
        if ref is not None:
            self._held.setdefault(ref.key, set()).add(name)
        else:
            self._free.setdefault(volume.class_name, {})[name] = volume


def _put(objects: dict[str, T], old: T | None, new: T | None) -> str:
    seen = new or old
    assert seen is not None
    if new is None:
        objects.pop(seen.key, None)
    else:
        objects[seen.key] = new
    return seen.key
