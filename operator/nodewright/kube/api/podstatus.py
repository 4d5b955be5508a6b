"""Status of Pods and containers (core/v1)."""
# ruff: noqa: RUF012 - msgspec gives every instance its own copy of an empty list or dict default

from __future__ import annotations

from typing import Any

import msgspec

from nodewright.kube.api.base import KubeStruct
from nodewright.kube.api.containers import ResourceRequirements


class ContainerStateWaiting(KubeStruct):
    """Not yet running: why."""

    reason: str = ""
    message: str = ""


class ContainerStateRunning(KubeStruct):
    """Running since."""

    started_at: str | None = None


class ContainerStateTerminated(KubeStruct):
    """Ended: how."""

    exit_code: int
    signal: int = 0
    reason: str = ""
    message: str = ""
    started_at: str | None = None
    finished_at: str | None = None
    container_id: str = ""


class ContainerState(KubeStruct):
    """One of the three; none set means waiting."""

    waiting: ContainerStateWaiting | None = None
    running: ContainerStateRunning | None = None
    terminated: ContainerStateTerminated | None = None


class LinuxContainerUser(KubeStruct):
    """The identity of the container's first process."""

    uid: int
    gid: int
    supplemental_groups: list[int] = []


class ContainerUser(KubeStruct):
    """The identity of the container's first process, per operating system."""

    linux: LinuxContainerUser | None = None


class ImageVolumeStatus(KubeStruct):
    """The image reference, by digest, that an image volume shows (KEP-5365)."""

    image_ref: str = ""


class VolumeStatus(KubeStruct):
    """What is known of a mounted volume."""

    image: ImageVolumeStatus | None = None


class VolumeMountStatus(KubeStruct):
    """A mount as it was made."""

    name: str
    mount_path: str
    read_only: bool = False
    recursive_read_only: str | None = None
    volume_status: VolumeStatus | None = None


class ContainerStatus(KubeStruct):
    """Status of one container. The fields without default are always written, as upstream does."""

    name: str
    ready: bool
    restart_count: int
    image: str
    image_id: str
    state: ContainerState = msgspec.field(default_factory=ContainerState)
    last_state: ContainerState = msgspec.field(default_factory=ContainerState)
    container_id: str = ""
    started: bool | None = None
    allocated_resources: dict[str, str] = {}
    resources: ResourceRequirements | None = None
    volume_mounts: list[VolumeMountStatus] = []
    user: ContainerUser | None = None
    stop_signal: str | None = None


class PodCondition(KubeStruct):
    """A condition of a Pod."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_probe_time: str | None = None
    last_transition_time: str | None = None
    observed_generation: int = 0


class PodIP(KubeStruct):
    """An address of the Pod."""

    ip: str = ""


class HostIP(KubeStruct):
    """An address of the Pod's node."""

    ip: str = ""


class PodStatus(KubeStruct):
    """Status of a Pod."""

    phase: str = ""
    conditions: list[PodCondition] = []
    message: str = ""
    reason: str = ""
    nominated_node_name: str = ""
    host_ip: str = ""
    host_ips: list[HostIP] = []
    pod_ip: str = ""
    pod_ips: list[PodIP] = []
    start_time: str | None = None
    init_container_statuses: list[ContainerStatus] = []
    container_statuses: list[ContainerStatus] = []
    ephemeral_container_statuses: list[ContainerStatus] = []
    qos_class: str = ""
    resize: str = ""
    observed_generation: int = 0
    resource_claim_statuses: list[dict[str, Any]] = []
    allocated_resources: dict[str, str] = {}
    resources: ResourceRequirements | None = None
