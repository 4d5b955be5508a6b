"""Volumes of a Pod and where containers mount them (core/v1)."""
# ruff: noqa: RUF012 - msgspec gives every instance its own copy of an empty list or dict default

from __future__ import annotations

import functools
from typing import Any, ClassVar

import msgspec

from nodewright.kube.api.base import KubeStruct, NullableList, no_nulls
from nodewright.kube.api.meta import LabelSelector


class ObjectFieldSelector(KubeStruct):
    """A field of the Pod, such as `metadata.name`."""

    field_path: str
    api_version: str = ""


class ResourceFieldSelector(KubeStruct):
    """A resource of a container, such as `limits.cpu`."""

    resource: str
    container_name: str = ""
    divisor: str = ""


class VolumeMount(KubeStruct):
    """A volume mounted into a container."""

    name: str
    mount_path: str
    read_only: bool = False
    recursive_read_only: str | None = None
    sub_path: str = ""
    sub_path_expr: str = ""
    mount_propagation: str | None = None


class VolumeDevice(KubeStruct):
    """A raw block device given to a container."""

    name: str
    device_path: str


class KeyToPath(KubeStruct):
    """A key written to a path below the volume."""

    key: str
    path: str
    mode: int | None = None


class EmptyDirVolumeSource(KubeStruct):
    """A directory that lives as long as the Pod; medium "" or Memory."""

    medium: str = ""
    size_limit: str | None = None


class HostPathVolumeSource(KubeStruct):
    """A path of the host."""

    path: str
    type: str | None = None


class ConfigMapVolumeSource(KubeStruct):
    """The keys of a ConfigMap as files."""

    name: str = ""
    items: list[KeyToPath] = []
    default_mode: int | None = None
    optional: bool | None = None


class SecretVolumeSource(KubeStruct):
    """The keys of a Secret as files."""

    secret_name: str = ""
    items: list[KeyToPath] = []
    default_mode: int | None = None
    optional: bool | None = None


class DownwardAPIVolumeFile(KubeStruct):
    """A field or resource of the Pod as a file."""

    path: str
    field_ref: ObjectFieldSelector | None = None
    resource_field_ref: ResourceFieldSelector | None = None
    mode: int | None = None


class DownwardAPIVolumeSource(KubeStruct):
    """Fields of the Pod as files."""

    items: list[DownwardAPIVolumeFile] = []
    default_mode: int | None = None


class ConfigMapProjection(KubeStruct):
    """The keys of a ConfigMap within a projected volume."""

    name: str = ""
    items: list[KeyToPath] = []
    optional: bool | None = None


class SecretProjection(KubeStruct):
    """The keys of a Secret within a projected volume."""

    name: str = ""
    items: list[KeyToPath] = []
    optional: bool | None = None


class DownwardAPIProjection(KubeStruct):
    """Fields of the Pod within a projected volume."""

    items: list[DownwardAPIVolumeFile] = []


class ServiceAccountTokenProjection(KubeStruct):
    """A token of the Pod's ServiceAccount, renewed before it expires."""

    path: str
    audience: str = ""
    expiration_seconds: int | None = None


class ClusterTrustBundleProjection(KubeStruct):
    """PEM certificates of ClusterTrustBundles."""

    path: str
    name: str | None = None
    signer_name: str | None = None
    label_selector: LabelSelector | None = None
    optional: bool | None = None


class VolumeProjection(KubeStruct):
    """One source of a projected volume; exactly one is set."""

    secret: SecretProjection | None = None
    downward_api: DownwardAPIProjection | None = None
    config_map: ConfigMapProjection | None = None
    service_account_token: ServiceAccountTokenProjection | None = None
    cluster_trust_bundle: ClusterTrustBundleProjection | None = None
    pod_certificate: dict[str, Any] | None = None


class ProjectedVolumeSource(KubeStruct):
    """Several sources in one directory."""

    sources: NullableList[VolumeProjection] = msgspec.field(default_factory=list)
    default_mode: int | None = None

    def __post_init__(self) -> None:
        """Read null as no sources."""
        no_nulls(self, "sources")


class PersistentVolumeClaimVolumeSource(KubeStruct):
    """A claim in the Pod's namespace."""

    claim_name: str
    read_only: bool = False


class ImageVolumeSource(KubeStruct):
    """An OCI image mounted read-only."""

    reference: str = ""
    pull_policy: str = ""


class ForeignSources(KubeStruct):
    """Sources that Nodewright does not implement, kept as dicts so that it can name and refuse them."""

    NOT_SOURCES: ClassVar[frozenset[str]]
    """The fields that say something else than where the storage is."""

    csi: dict[str, Any] | None = None
    nfs: dict[str, Any] | None = None
    iscsi: dict[str, Any] | None = None
    fc: dict[str, Any] | None = None
    rbd: dict[str, Any] | None = None
    cephfs: dict[str, Any] | None = None
    glusterfs: dict[str, Any] | None = None
    flex_volume: dict[str, Any] | None = None
    git_repo: dict[str, Any] | None = None
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
        return next((wire for attribute, wire in _sources(type(self)) if getattr(self, attribute) is not None), "")


@functools.cache
def _sources(kind: type[ForeignSources]) -> tuple[tuple[str, str], ...]:
    fields = msgspec.structs.fields(kind)
    return tuple((field.name, field.encode_name) for field in fields if field.name not in kind.NOT_SOURCES)


class Volume(ForeignSources, kw_only=True):
    """A volume of a Pod."""

    NOT_SOURCES: ClassVar[frozenset[str]] = frozenset({"name"})

    name: str
    empty_dir: EmptyDirVolumeSource | None = None
    host_path: HostPathVolumeSource | None = None
    config_map: ConfigMapVolumeSource | None = None
    secret: SecretVolumeSource | None = None
    downward_api: DownwardAPIVolumeSource | None = None
    projected: ProjectedVolumeSource | None = None
    image: ImageVolumeSource | None = None
    persistent_volume_claim: PersistentVolumeClaimVolumeSource | None = None
    ephemeral: dict[str, Any] | None = None
