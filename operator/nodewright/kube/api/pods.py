"""Pod and its spec (core/v1). The status is in `podstatus`."""
# ruff: noqa: RUF012 - msgspec gives every instance its own copy of an empty list or dict default

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from nodewright.kube.api.base import KubeStruct
from nodewright.kube.api.containers import (
    AppArmorProfile,
    Container,
    ResourceRequirements,
    SeccompProfile,
    SELinuxOptions,
)
from nodewright.kube.api.meta import LocalObjectReference, Object, ObjectMeta
from nodewright.kube.api.podstatus import PodStatus
from nodewright.kube.api.scheduling import Affinity, Toleration, TopologySpreadConstraint
from nodewright.kube.api.volumes import Volume


class Sysctl(KubeStruct):
    """A kernel parameter of the Pod's namespaces."""

    name: str
    value: str


class PodSecurityContext(KubeStruct):
    """Security settings of the whole Pod."""

    se_linux_options: SELinuxOptions | None = None
    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    supplemental_groups: list[int] = []
    supplemental_groups_policy: str | None = None
    fs_group: int | None = None
    fs_group_change_policy: str | None = None
    sysctls: list[Sysctl] = []
    seccomp_profile: SeccompProfile | None = None
    app_armor_profile: AppArmorProfile | None = None
    se_linux_change_policy: str | None = None


class HostAlias(KubeStruct):
    """A line of the Pod's /etc/hosts."""

    ip: str
    hostnames: list[str] = []


class PodDNSConfigOption(KubeStruct):
    """An option of resolv.conf."""

    name: str = ""
    value: str | None = None


class PodDNSConfig(KubeStruct):
    """Additions to what dnsPolicy gives."""

    nameservers: list[str] = []
    searches: list[str] = []
    options: list[PodDNSConfigOption] = []


class PodReadinessGate(KubeStruct):
    """A condition that must be True before the Pod is Ready."""

    condition_type: str


class PodSchedulingGate(KubeStruct):
    """A gate that keeps the Pod from being scheduled."""

    name: str


class PodOS(KubeStruct):
    """linux or windows."""

    name: str


class PodSpec(KubeStruct):
    """What a Pod shall be. None means "not set" where upstream's field is a pointer."""

    volumes: list[Volume] = []
    init_containers: list[Container] = []
    containers: list[Container] = []
    ephemeral_containers: list[Container] = []
    restart_policy: str = "Always"
    termination_grace_period_seconds: int | None = None
    active_deadline_seconds: int | None = None
    dns_policy: str = "ClusterFirst"
    dns_config: PodDNSConfig | None = None
    node_selector: dict[str, str] = {}
    service_account_name: str = ""
    automount_service_account_token: bool | None = None
    node_name: str = ""
    host_network: bool = False
    host_pid: bool = False
    host_ipc: bool = False
    host_users: bool | None = None
    share_process_namespace: bool | None = None
    security_context: PodSecurityContext | None = None
    image_pull_secrets: list[LocalObjectReference] = []
    hostname: str = ""
    subdomain: str = ""
    hostname_override: str | None = None
    set_hostname_as_fqdn: bool | None = None
    affinity: Affinity | None = None
    scheduler_name: str = ""
    tolerations: list[Toleration] = []
    topology_spread_constraints: list[TopologySpreadConstraint] = []
    host_aliases: list[HostAlias] = []
    priority_class_name: str = ""
    priority: int | None = None
    preemption_policy: str | None = None
    readiness_gates: list[PodReadinessGate] = []
    scheduling_gates: list[PodSchedulingGate] = []
    runtime_class_name: str | None = None
    enable_service_links: bool | None = None
    overhead: dict[str, str] = {}
    os: PodOS | None = None
    resources: ResourceRequirements | None = None
    resource_claims: list[dict[str, Any]] = []


class Pod(Object):
    """A Pod."""

    API_VERSION: ClassVar[str] = "v1"
    KIND: ClassVar[str] = "Pod"

    metadata: ObjectMeta
    spec: PodSpec = msgspec.field(default_factory=PodSpec)
    status: PodStatus = msgspec.field(default_factory=PodStatus)
