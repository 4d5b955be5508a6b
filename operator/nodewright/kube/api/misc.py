"""Small kinds: Namespace, Lease, ConfigMap, Secret, ServiceAccount, ControllerRevision."""
# ruff: noqa: RUF012 - msgspec gives every instance its own copy of an empty list or dict default

from __future__ import annotations

from typing import ClassVar

import msgspec

from nodewright.kube.api.base import KubeStruct
from nodewright.kube.api.meta import LocalObjectReference, Object, ObjectMeta, ObjectReference


class NamespaceStatus(KubeStruct):
    """Active or Terminating."""

    phase: str = ""


class Namespace(Object):
    """A Namespace."""

    API_VERSION: ClassVar[str] = "v1"
    KIND: ClassVar[str] = "Namespace"

    metadata: ObjectMeta
    status: NamespaceStatus = msgspec.field(default_factory=NamespaceStatus)


class LeaseSpec(KubeStruct):
    """Who holds a Lease; the times have microseconds (metav1.MicroTime)."""

    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None
    strategy: str | None = None
    preferred_holder: str | None = None


class Lease(Object):
    """A Lease (coordination.k8s.io/v1)."""

    API_VERSION: ClassVar[str] = "coordination.k8s.io/v1"
    KIND: ClassVar[str] = "Lease"

    metadata: ObjectMeta
    spec: LeaseSpec = msgspec.field(default_factory=LeaseSpec)


class ConfigMap(Object):
    """A ConfigMap; binary_data is decoded from base64."""

    API_VERSION: ClassVar[str] = "v1"
    KIND: ClassVar[str] = "ConfigMap"

    metadata: ObjectMeta
    data: dict[str, str] = {}
    binary_data: dict[str, bytes] = {}
    immutable: bool | None = None


class Secret(Object):
    """A Secret; data is decoded from base64."""

    API_VERSION: ClassVar[str] = "v1"
    KIND: ClassVar[str] = "Secret"

    metadata: ObjectMeta
    data: dict[str, bytes] = {}
    type: str = ""
    immutable: bool | None = None


class ServiceAccount(Object):
    """A ServiceAccount."""

    API_VERSION: ClassVar[str] = "v1"
    KIND: ClassVar[str] = "ServiceAccount"

    metadata: ObjectMeta
    secrets: list[ObjectReference] = []
    image_pull_secrets: list[LocalObjectReference] = []
    automount_service_account_token: bool | None = None


class ControllerRevision(Object):
    """A stored template of a controller; `data` is kept as it came."""

    API_VERSION: ClassVar[str] = "apps/v1"
    KIND: ClassVar[str] = "ControllerRevision"

    metadata: ObjectMeta
    revision: int = 0
    data: msgspec.Raw = msgspec.Raw(b"null")
