"""Claims and the volumes behind them, as a node sees them (core/v1)."""
# ruff: noqa: RUF012 - msgspec gives every instance its own copy of an empty list or dict default

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from nodewright.kube.api.base import KubeStruct
from nodewright.kube.api.meta import Object, ObjectMeta, ObjectReference
from nodewright.kube.api.scheduling import NodeSelector
from nodewright.kube.api.volumes import HostPathVolumeSource

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


class PersistentVolumeSpec(KubeStruct):
    """Where the storage is. Sources that Nodewright does not implement are kept as dicts, so that it can name them."""

    access_modes: list[str] = []
    claim_ref: ObjectReference | None = None
    mount_options: list[str] = []
    node_affinity: VolumeNodeAffinity | None = None
    volume_mode: str | None = None
    host_path: HostPathVolumeSource | None = None
    local: LocalVolumeSource | None = None
    csi: dict[str, Any] | None = None
    nfs: dict[str, Any] | None = None
    iscsi: dict[str, Any] | None = None
    fc: dict[str, Any] | None = None
    rbd: dict[str, Any] | None = None
    cephfs: dict[str, Any] | None = None
    glusterfs: dict[str, Any] | None = None
    flex_volume: dict[str, Any] | None = None
    gce_persistent_disk: dict[str, Any] | None = None
    aws_elastic_block_store: dict[str, Any] | None = None
    azure_disk: dict[str, Any] | None = None
    azure_file: dict[str, Any] | None = None
    cinder: dict[str, Any] | None = None
    vsphere_volume: dict[str, Any] | None = None
    portworx_volume: dict[str, Any] | None = None
    scale_io: dict[str, Any] | None = msgspec.field(default=None, name="scaleIO")
    quobyte: dict[str, Any] | None = None
    photon_persistent_disk: dict[str, Any] | None = None
    flocker: dict[str, Any] | None = None
    storageos: dict[str, Any] | None = None

    @property
    def source(self) -> str:
        """The JSON name of the source that is set, or "" when it is one from the future."""
        return next((wire for attribute, wire in _SOURCES if getattr(self, attribute) is not None), "")


class PersistentVolume(Object):
    """A piece of storage."""

    API_VERSION: ClassVar[str] = "v1"
    KIND: ClassVar[str] = "PersistentVolume"

    metadata: ObjectMeta
    spec: PersistentVolumeSpec = msgspec.field(default_factory=PersistentVolumeSpec)


_NO_SOURCES = frozenset({"access_modes", "claim_ref", "mount_options", "node_affinity", "volume_mode"})
_SOURCES = tuple(
    (field.name, field.encode_name)
    for field in msgspec.structs.fields(PersistentVolumeSpec)
    if field.name not in _NO_SOURCES
)
