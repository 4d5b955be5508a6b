"""Claims and the volumes behind them, as a node sees them (core/v1)."""
# ruff: noqa: RUF012 - msgspec gives every instance its own copy of an empty list or dict default

from __future__ import annotations

from typing import ClassVar

import msgspec

from nodewright.kube.api.base import KubeStruct
from nodewright.kube.api.meta import Object, ObjectMeta, ObjectReference
from nodewright.kube.api.scheduling import NodeSelector
from nodewright.kube.api.volumes import ForeignSources, HostPathVolumeSource

BLOCK, FILESYSTEM = "Block", "Filesystem"


class PersistentVolumeClaimSpec(KubeStruct):
    """What of a claim matters once it is bound: the volume that it has got."""

    volume_name: str = ""
    access_modes: list[str] = []
    volume_mode: str | None = None
    storage_class_name: str | None = None


class PersistentVolumeClaimStatus(KubeStruct):
    """Pending, Bound or Lost."""

    phase: str = ""


class PersistentVolumeClaim(Object):
    """A claim on storage."""

    API_VERSION: ClassVar[str] = "v1"
    KIND: ClassVar[str] = "PersistentVolumeClaim"

    metadata: ObjectMeta
    spec: PersistentVolumeClaimSpec = msgspec.field(default_factory=PersistentVolumeClaimSpec)
    status: PersistentVolumeClaimStatus = msgspec.field(default_factory=PersistentVolumeClaimStatus)


class LocalVolumeSource(KubeStruct):
    """A directory or block device of one node."""

    path: str
    fs_type: str | None = None


class VolumeNodeAffinity(KubeStruct):
    """The nodes from which a volume can be reached."""

    required: NodeSelector | None = None


class PersistentVolumeSpec(ForeignSources):
    """Where the storage is."""

    NOT_SOURCES: ClassVar[frozenset[str]] = frozenset(
        {"access_modes", "claim_ref", "mount_options", "node_affinity", "volume_mode"}
    )

    access_modes: list[str] = []
    claim_ref: ObjectReference | None = None
    mount_options: list[str] = []
    node_affinity: VolumeNodeAffinity | None = None
    volume_mode: str | None = None
    host_path: HostPathVolumeSource | None = None
    local: LocalVolumeSource | None = None


class PersistentVolume(Object):
    """A piece of storage."""

    API_VERSION: ClassVar[str] = "v1"
    KIND: ClassVar[str] = "PersistentVolume"

    metadata: ObjectMeta
    spec: PersistentVolumeSpec = msgspec.field(default_factory=PersistentVolumeSpec)
