"""Projections of Service and EndpointSlice with only what the proxy reads.

A cluster can have 100,000 endpoints and every node's proxy keeps all of them, so each field here is paid for 100,000
times on every node: names of target pods, host names and zones of endpoints are left out.
"""
# ruff: noqa: RUF012 - msgspec gives every instance its own copy of an empty list or dict default

from __future__ import annotations

import msgspec

from nodewright.kube.objects import (
    EndpointConditions,
    EndpointHints,
    EndpointPort,
    KubeStruct,
    NullableList,
    ServiceSpec,
    ServiceStatus,
    no_nulls,
)

SERVICE_NAME_LABEL = "kubernetes.io/service-name"
TRIGGER_TIME_ANNOTATION = "endpoints.kubernetes.io/last-change-trigger-time"


class Meta(KubeStruct):
    """Metadata of a Service or EndpointSlice, as far as the proxy needs it."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class Service(KubeStruct):
    """A Service."""

    metadata: Meta = msgspec.field(default_factory=Meta)
    spec: ServiceSpec = msgspec.field(default_factory=ServiceSpec)
    status: ServiceStatus = msgspec.field(default_factory=ServiceStatus)

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.metadata.namespace}/{self.metadata.name}"


class Endpoint(KubeStruct):
    """A backend of a Service. Only the first address counts, as upstream."""

    addresses: NullableList[str] = msgspec.field(default_factory=list)
    conditions: EndpointConditions = msgspec.field(default_factory=EndpointConditions)
    node_name: str | None = None
    hints: EndpointHints | None = None

    def __post_init__(self) -> None:
        """Read null as no addresses."""
        no_nulls(self, "addresses")


class EndpointSlice(KubeStruct):
    """Some of the backends of a Service."""

    address_type: str = "IPv4"
    metadata: Meta = msgspec.field(default_factory=Meta)
    endpoints: NullableList[Endpoint] = msgspec.field(default_factory=list)
    ports: NullableList[EndpointPort] = msgspec.field(default_factory=list)

    def __post_init__(self) -> None:
        """Read null as empty."""
        no_nulls(self, "endpoints", "ports")

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.metadata.namespace}/{self.metadata.name}"

    @property
    def service_key(self) -> str | None:
        """`namespace/name` of the Service, or None where the label that names it is missing."""
        name = self.metadata.labels.get(SERVICE_NAME_LABEL)
        return f"{self.metadata.namespace}/{name}" if name else None
