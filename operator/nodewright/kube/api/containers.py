"""Containers: what to run, with which environment, probes, hooks, limits and security settings (core/v1)."""
# ruff: noqa: RUF012 - msgspec gives every instance its own copy of an empty list or dict default

from __future__ import annotations

import msgspec

from nodewright.kube.api.base import KubeStruct
from nodewright.kube.api.volumes import ObjectFieldSelector, ResourceFieldSelector, VolumeDevice, VolumeMount


class ContainerPort(KubeStruct):
    """A port that a container listens on."""

    container_port: int
    name: str = ""
    host_port: int = 0
    host_ip: str = ""
    protocol: str = "TCP"


class KeySelector(KubeStruct):
    """A key of a ConfigMap or Secret in the Pod's namespace."""

    key: str
    name: str = ""
    optional: bool | None = None


class FileKeySelector(KubeStruct):
    """A key of an env file in a volume (KEP-3721)."""

    volume_name: str
    path: str
    key: str
    optional: bool | None = None


class EnvVarSource(KubeStruct):
    """Where an environment variable's value comes from; exactly one is set."""

    field_ref: ObjectFieldSelector | None = None
    resource_field_ref: ResourceFieldSelector | None = None
    config_map_key_ref: KeySelector | None = None
    secret_key_ref: KeySelector | None = None
    file_key_ref: FileKeySelector | None = None


class EnvVar(KubeStruct):
    """One environment variable."""

    name: str
    value: str = ""
    value_from: EnvVarSource | None = None


class EnvSourceRef(KubeStruct):
    """A ConfigMap or Secret whose keys all become variables."""

    name: str = ""
    optional: bool | None = None


class EnvFromSource(KubeStruct):
    """A source of many variables."""

    prefix: str = ""
    config_map_ref: EnvSourceRef | None = None
    secret_ref: EnvSourceRef | None = None


class ResourceClaimRef(KubeStruct):
    """A reference to an entry of spec.resourceClaims."""

    name: str
    request: str = ""


class ResourceRequirements(KubeStruct):
    """Requests and limits; quantities stay strings (see nodewright.kube.quantity)."""

    limits: dict[str, str] = {}
    requests: dict[str, str] = {}
    claims: list[ResourceClaimRef] = []


class ExecAction(KubeStruct):
    """Run a command in the container; no shell is involved."""

    command: list[str] = []


class HTTPHeader(KubeStruct):
    """A header of a probe's request."""

    name: str
    value: str = ""


class HTTPGetAction(KubeStruct):
    """An HTTP GET; `port` is a number or a container port's name."""

    port: int | str
    path: str = ""
    host: str = ""
    scheme: str = "HTTP"
    http_headers: list[HTTPHeader] = []


class TCPSocketAction(KubeStruct):
    """A TCP connection attempt."""

    port: int | str
    host: str = ""


class GRPCAction(KubeStruct):
    """A gRPC health check."""

    port: int
    service: str | None = None


class SleepAction(KubeStruct):
    """Sleep for some seconds."""

    seconds: int


class Probe(KubeStruct):
    """A liveness, readiness or startup probe; the defaults are those that the API server fills in."""

    exec: ExecAction | None = None
    http_get: HTTPGetAction | None = None
    tcp_socket: TCPSocketAction | None = None
    grpc: GRPCAction | None = None
    initial_delay_seconds: int = 0
    timeout_seconds: int = 1
    period_seconds: int = 10
    success_threshold: int = 1
    failure_threshold: int = 3
    termination_grace_period_seconds: int | None = None


class LifecycleHandler(KubeStruct):
    """What a postStart or preStop hook does."""

    exec: ExecAction | None = None
    http_get: HTTPGetAction | None = None
    tcp_socket: TCPSocketAction | None = None
    sleep: SleepAction | None = None


class Lifecycle(KubeStruct):
    """A container's hooks, and the signal that stops it."""

    post_start: LifecycleHandler | None = None
    pre_stop: LifecycleHandler | None = None
    stop_signal: str | None = None


class Capabilities(KubeStruct):
    """Linux capabilities, without the CAP_ prefix, or ALL."""

    add: list[str] = []
    drop: list[str] = []


class SELinuxOptions(KubeStruct):
    """SELinux label."""

    user: str = ""
    role: str = ""
    type: str = ""
    level: str = ""


class SeccompProfile(KubeStruct):
    """RuntimeDefault, Unconfined or Localhost with a profile's path."""

    type: str
    localhost_profile: str | None = None


class AppArmorProfile(KubeStruct):
    """RuntimeDefault, Unconfined or Localhost with a profile's name."""

    type: str
    localhost_profile: str | None = None


class SecurityContext(KubeStruct):
    """A container's security settings; they win over the Pod's."""

    capabilities: Capabilities | None = None
    privileged: bool | None = None
    se_linux_options: SELinuxOptions | None = None
    run_as_user: int | None = None
    run_as_group: int | None = None
    run_as_non_root: bool | None = None
    read_only_root_filesystem: bool | None = None
    allow_privilege_escalation: bool | None = None
    proc_mount: str | None = None
    seccomp_profile: SeccompProfile | None = None
    app_armor_profile: AppArmorProfile | None = None


class ContainerResizePolicy(KubeStruct):
    """Whether a change of a resource restarts the container."""

    resource_name: str
    restart_policy: str


class RestartRuleExitCodes(KubeStruct):
    """The exit codes that a restart rule speaks of."""

    operator: str = ""
    values: list[int] = []


class ContainerRestartRule(KubeStruct):
    """A rule on exit codes that overrides the restart policy (KEP-5307)."""

    action: str = ""
    exit_codes: RestartRuleExitCodes | None = None


class Container(KubeStruct):
    """A container, init container (restartPolicy Always makes it a sidecar) or ephemeral container."""

    name: str
    image: str = ""
    command: list[str] = []
    args: list[str] = []
    working_dir: str = ""
    ports: list[ContainerPort] = []
    env_from: list[EnvFromSource] = []
    env: list[EnvVar] = []
    resources: ResourceRequirements = msgspec.field(default_factory=ResourceRequirements)
    resize_policy: list[ContainerResizePolicy] = []
    restart_policy: str | None = None
    restart_policy_rules: list[ContainerRestartRule] = []
    volume_mounts: list[VolumeMount] = []
    volume_devices: list[VolumeDevice] = []
    liveness_probe: Probe | None = None
    readiness_probe: Probe | None = None
    startup_probe: Probe | None = None
    lifecycle: Lifecycle | None = None
    termination_message_path: str = ""
    termination_message_policy: str = ""
    image_pull_policy: str = ""
    security_context: SecurityContext | None = None
    stdin: bool = False
    stdin_once: bool = False
    tty: bool = False
    target_container_name: str = ""  # ephemeral containers only
