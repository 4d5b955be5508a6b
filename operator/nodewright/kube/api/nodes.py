"""Node (core/v1)."""
# ruff: noqa: RUF012 - msgspec gives every instance its own copy of an empty list or dict default

from __future__ import annotations

from typing import ClassVar

import msgspec

from nodewright.kube.api.base import KubeStruct, NullableList, no_nulls
from nodewright.kube.api.meta import Object, ObjectMeta
from nodewright.kube.api.scheduling import Taint


class NodeSpec(KubeStruct):
    """What the cluster decided about a Node."""

    pod_cidr: str = ""
    pod_cidrs: list[str] = []
    provider_id: str = ""
    unschedulable: bool = False
    taints: list[Taint] = []


class NodeCondition(KubeStruct):
    """A condition of a Node."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_heartbeat_time: str | None = None
    last_transition_time: str | None = None


class NodeAddress(KubeStruct):
    """An address; type is InternalIP, ExternalIP, Hostname, InternalDNS or ExternalDNS."""

    type: str
    address: str


class DaemonEndpoint(KubeStruct):
    """A port; upstream spells its JSON name with a capital."""

    port: int = msgspec.field(name="Port")


class NodeDaemonEndpoints(KubeStruct):
    """Where the node agent serves kubelet's API."""

    kubelet_endpoint: DaemonEndpoint | None = None


class NodeSystemInfo(KubeStruct):
    """Facts about the host; all are always written, as upstream does."""

    machine_id: str
    system_uuid: str
    boot_id: str
    kernel_version: str
    os_image: str
    container_runtime_version: str
    kubelet_version: str
    kube_proxy_version: str
    operating_system: str
    architecture: str


class ContainerImage(KubeStruct):
    """An image on the node."""

    names: NullableList[str] = msgspec.field(default_factory=list)
    size_bytes: int = 0

    def __post_init__(self) -> None:
        """Read null as no names."""
        no_nulls(self, "names")


class AttachedVolume(KubeStruct):
    """A volume attached to the node."""

    name: str
    device_path: str = ""


class NodeRuntimeHandlerFeatures(KubeStruct):
    """What a runtime handler can do."""

    recursive_read_only_mounts: bool | None = None
    user_namespaces: bool | None = None


class NodeRuntimeHandler(KubeStruct):
    """A runtime handler, as RuntimeClasses name it."""

    name: str = ""
    features: NodeRuntimeHandlerFeatures | None = None


class NodeFeatures(KubeStruct):
    """Features of the runtime as a whole."""

    supplemental_groups_policy: bool | None = None


class NodeStatus(KubeStruct):
    """Status of a Node."""

    capacity: dict[str, str] = {}
    allocatable: dict[str, str] = {}
    conditions: list[NodeCondition] = []
    addresses: list[NodeAddress] = []
    daemon_endpoints: NodeDaemonEndpoints | None = None
    node_info: NodeSystemInfo | None = None
    images: list[ContainerImage] = []
    volumes_in_use: list[str] = []
    volumes_attached: list[AttachedVolume] = []
    runtime_handlers: list[NodeRuntimeHandler] = []
    features: NodeFeatures | None = None
    declared_features: list[str] = []


class Node(Object):
    """A Node."""

    API_VERSION: ClassVar[str] = "v1"
    KIND: ClassVar[str] = "Node"

    metadata: ObjectMeta
    spec: NodeSpec = msgspec.field(default_factory=NodeSpec)
    status: NodeStatus = msgspec.field(default_factory=NodeStatus)
