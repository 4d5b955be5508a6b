"""Service (core/v1) and EndpointSlice (discovery.k8s.io/v1)."""
# ruff: noqa: RUF012 - msgspec gives every instance its own copy of an empty list or dict default

from __future__ import annotations

from typing import ClassVar

import msgspec

from nodewright.kube.api.base import KubeStruct, NullableList, no_nulls
from nodewright.kube.api.meta import Condition, Object, ObjectMeta, ObjectReference


class ServicePort(KubeStruct):
    """A port of a Service; target_port is a number or a container port's name, None means `port`."""

    port: int
    name: str = ""
    protocol: str = "TCP"
    app_protocol: str | None = None
    target_port: int | str | None = None
    node_port: int = 0


class ClientIPConfig(KubeStruct):
    """How long a client keeps its backend."""

    timeout_seconds: int | None = None


class SessionAffinityConfig(KubeStruct):
    """Settings of session affinity."""

    client_ip: ClientIPConfig | None = None


class ServiceSpec(KubeStruct):
    """What a Service shall be; the defaults are those that the API server fills in."""

    ports: list[ServicePort] = []
    selector: dict[str, str] = {}
    cluster_ip: str = ""
    cluster_ips: list[str] = []
    type: str = "ClusterIP"
    external_ips: list[str] = []
    session_affinity: str = "None"
    session_affinity_config: SessionAffinityConfig | None = None
    load_balancer_ip: str = ""
    load_balancer_source_ranges: list[str] = []
    load_balancer_class: str | None = None
    allocate_load_balancer_node_ports: bool | None = None
    external_name: str = ""
    external_traffic_policy: str = ""
    internal_traffic_policy: str | None = None
    traffic_distribution: str | None = None
    health_check_node_port: int = 0
    publish_not_ready_addresses: bool = False
    ip_families: list[str] = []
    ip_family_policy: str | None = None


class LoadBalancerIngress(KubeStruct):
    """An address of a load balancer; ip_mode is VIP or Proxy."""

    ip: str = ""
    hostname: str = ""
    ip_mode: str | None = None


class LoadBalancerStatus(KubeStruct):
    """Where a load balancer serves."""

    ingress: list[LoadBalancerIngress] = []


class ServiceStatus(KubeStruct):
    """Status of a Service."""

    load_balancer: LoadBalancerStatus = msgspec.field(default_factory=LoadBalancerStatus)
    conditions: list[Condition] = []


class Service(Object):
    """A Service."""

    API_VERSION: ClassVar[str] = "v1"
    KIND: ClassVar[str] = "Service"

    metadata: ObjectMeta
    spec: ServiceSpec = msgspec.field(default_factory=ServiceSpec)
    status: ServiceStatus = msgspec.field(default_factory=ServiceStatus)


class EndpointConditions(KubeStruct):
    """State of an endpoint; None reads as ready, serving, not terminating (see the properties of Endpoint)."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class ForZone(KubeStruct):
    """A zone that shall use an endpoint."""

    name: str


class ForNode(KubeStruct):
    """A node that shall use an endpoint."""

    name: str


class EndpointHints(KubeStruct):
    """Who shall use an endpoint."""

    for_zones: list[ForZone] = []
    for_nodes: list[ForNode] = []


class Endpoint(KubeStruct):
    """A backend."""

    addresses: NullableList[str] = msgspec.field(default_factory=list)
    conditions: EndpointConditions = msgspec.field(default_factory=EndpointConditions)
    hostname: str | None = None
    target_ref: ObjectReference | None = None
    node_name: str | None = None
    zone: str | None = None
    hints: EndpointHints | None = None

    def __post_init__(self) -> None:
        """Read null as no addresses."""
        if self.addresses is None:
            self.addresses = []

    @property
    def ready(self) -> bool:
        """Upstream: nil is to be read as true."""
        return self.conditions.ready is not False

    @property
    def serving(self) -> bool:
        """Upstream: nil is to be read as the value of ready."""
        serving = self.conditions.serving
        return self.ready if serving is None else serving

    @property
    def terminating(self) -> bool:
        """Upstream: nil is to be read as false."""
        return self.conditions.terminating is True


class EndpointPort(KubeStruct):
    """A port of all endpoints of a slice."""

    name: str | None = None
    protocol: str | None = None
    port: int | None = None
    app_protocol: str | None = None


class EndpointSlice(Object):
    """Some of the backends of a Service."""

    API_VERSION: ClassVar[str] = "discovery.k8s.io/v1"
    KIND: ClassVar[str] = "EndpointSlice"

    metadata: ObjectMeta
    address_type: str
    endpoints: NullableList[Endpoint] = msgspec.field(default_factory=list)
    ports: NullableList[EndpointPort] = msgspec.field(default_factory=list)

    def __post_init__(self) -> None:
        """Read null as empty."""
        no_nulls(self, "endpoints", "ports")
