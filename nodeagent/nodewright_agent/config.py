"""AgentConfig: every setting of a node agent, from one YAML or JSON file, checked before anything is touched."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any, Literal

import msgspec

from nodewright_agent import settingsfile
from nodewright_agent.configcheck import check
from nodewright_agent.runtime.images.pullsettings import PullSettings


class ConfigError(Exception):
    """A setting is missing or wrong; the text names the field and the reason."""


class TaintConfig(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A taint that the node is registered with."""

    key: str
    effect: str
    value: str = ""


class PriorityGrace(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How long Pods from this priority on get when the host shuts down."""

    priority: int
    shutdown_grace_period_seconds: int


class AgentConfig(PullSettings, msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Settings of one agent. Paths are absolute; sizes in bytes; times in seconds.

    The file's keys are these field names. What is left out is derived in ``complete``: the node's name from the host
    name, the run directory from the state directory, and so on.
    """

    node_name: str = ""
    kubeconfig: str = ""
    """How to reach the API server as this node; with ``bootstrap`` the node makes that identity itself."""
    bootstrap: bool = False
    """Get the node's certificate by a CertificateSigningRequest, made with the Pod's ServiceAccount."""
    bootstrap_kubeconfig: str = ""
    """The same with the identity in this file instead of a ServiceAccount's; implies ``bootstrap``."""
    certificate_seconds: int = 0
    """Lifetime to ask for, at least 600 (the API's minimum); 0: what the cluster's signer gives."""
    host_node_name: str = ""
    """The Node of the kubelet that this agent shares its host with; empty: the host is ours alone."""

    state_dir: str = "/var/lib/nodewright/agent"
    """Survives reboots: records, volumes, logs."""
    run_dir: str = "/run/nodewright/agent"
    """Lost at reboot: namespaces, container bundles, sockets. Short, since socket paths are limited to 108 bytes."""
    image_root: str = ""
    log_dir: str = ""
    log_links_dir: str = ""
    """Where a link to each container's log is made, such as ``/var/log/containers``; empty: nowhere."""
    cgroup_root: str = "/nodewright"
    runc: str = "runc"
    conmon: str = "conmon"
    host_mounts: str = ""
    """The mount namespace in which conmon and runc run, such as ``/proc/1/ns/mnt``; empty: the agent's own."""
    host_root: str = "/"
    """Where the host's files are read, such as ``/proc/1/root``."""
    host_tools: str = ""
    """A directory with conmon and runc that is installed on the host at start; empty: ``runc`` and ``conmon`` are."""
    container_runtime_endpoint: str = ""
    """Another runtime's CRI v1 socket, such as ``unix:///run/containerd/containerd.sock``, that runs the containers,
    pulls their images and gives them addresses; empty: the agent does all that itself."""
    image_service_endpoint: str = ""
    """Where that runtime's ImageService is; empty: at the same socket."""
    image_sources: list[Literal["containerd"]] = []
    """Where images are looked for before their registry."""

    static_pod_path: str = ""
    """A folder of static Pods' manifests, or one such file; empty: none are run from files."""
    standalone: bool = False
    """Run static Pods and nothing else, without an API server."""

    cluster_domain: str = "cluster.local"
    cluster_dns: list[str] = []
    resolv_conf: str = "/etc/resolv.conf"

    node_ip: str = ""
    node_address_type: Literal["InternalIP", "ExternalIP"] = "InternalIP"
    """How Node.status.addresses calls ``node_ip``: a CNI may take a Node with its own host's InternalIP for itself."""
    bind_address: str = ""
    """Where the kubelet API listens; empty: ``node_ip``."""
    port: int = 10250
    tls_cert_file: str = ""
    tls_key_file: str = ""
    client_ca_file: str = ""
    """Who may call the kubelet API; empty with ``bootstrap``: what kube-system/extension-apiserver-authentication
    publishes."""
    healthz_port: int = 10248
    """Where /healthz is served by plain HTTP, for a supervisor on this host; 0: nowhere."""
    healthz_bind_address: str = "127.0.0.1"

    max_pods: int = 110
    container_log_max_size: str = "10Mi"
    """A container's log is rotated at this size; NodeAgentConfig can change this, and ``max_pods``, while we run."""
    container_log_max_files: int = 5
    """Log files kept for a container, the current one included."""
    pod_cidr: str = ""
    """Overrides Node.spec.podCIDR; for standalone tests of a node."""
    cluster_cidr: str = "10.200.0.0/16"
    pod_mtu: int = 0
    proxy_mode: str = "auto"
    service_proxy_name: str | None = None
    proxy_healthz_port: int = 10256
    proxy_metrics_port: int = 10249

    node_labels: dict[str, str] = {}
    omit_node_labels: list[str] = []
    """Labels that a kubelet sets on its Node and this one does not: other people's DaemonSets select by them."""
    copy_topology_labels: bool = False
    """Register with the zone and region of ``host_node_name``."""
    register_with_taints: list[TaintConfig] = []
    reserved_cpu: str = "0"
    reserved_memory: str = "0"
    reserved_ephemeral_storage: str = "0"
    enforce_allocatable: bool = True
    """Whether the cgroup of all pods is limited to what is not reserved (enforceNodeAllocatable ``pods``)."""
    pod_pids_limit: int = -1
    """Processes that one pod may have; -1: as many as the node has."""
    cpu_cfs_quota: bool = True
    """Whether CPU limits are enforced."""
    cpu_cfs_quota_period: float = 0.1
    """Seconds in which a CPU limit is counted, 0.001 to 1."""
    single_process_oom_kill: bool = False
    """cgroup v2: out of memory, only the process is killed, not its container. With v1 it is always so."""
    runtime_handlers: dict[str, str] = {}
    """Further OCI runtimes for RuntimeClasses: the program's path by handler."""
    eviction_memory: str = "100Mi"
    """Hard threshold of memory.available where ``eviction_hard`` is not given."""
    eviction_hard: dict[str, str] | None = None
    """Thresholds by signal, as a quantity or percentage; given, it replaces all defaults (kubelet's)."""
    eviction_soft: dict[str, str] = {}
    eviction_soft_grace_period: dict[str, str] = {}
    """Durations such as ``1m30s``, one for each signal of ``eviction_soft``."""
    eviction_minimum_reclaim: dict[str, str] = {}
    eviction_max_pod_grace_period: int = 0
    eviction_pressure_transition_period: float = 300.0
    image_gc_high_threshold_percent: int = 85
    image_gc_low_threshold_percent: int = 80
    image_minimum_gc_age: float = 120.0
    image_maximum_gc_age: float = 0.0
    """Unused images are removed after this time whatever the disk; 0: they are not."""
    shutdown_grace_period: float = 0.0
    """Time that Pods get when the host shuts down, critical ones included; 0: no graceful shutdown."""
    shutdown_grace_period_critical_pods: float = 0.0
    shutdown_grace_period_by_pod_priority: list[PriorityGrace] = []
    """In place of the two above: a time for each range of priorities."""
    allowed_unsafe_sysctls: list[str] = []
    userns_range: str = ""
    """Ids for pods with ``hostUsers: false``, as ``FIRST:COUNT``; empty: /etc/subuid's line of nodewright or kubelet,
    without one from 65536 on for ``max_pods`` pods."""
    userns_ids_per_pod: int = 65536
    """A multiple of 65536 (kubelet's userNamespaces.idsPerPod)."""

    crash_backoff_initial: float = 10.0
    crash_backoff_max: float = 300.0
    image_backoff_initial: float = 10.0
    image_backoff_max: float = 300.0
    status_report_seconds: float = 300.0
    lease_duration_seconds: int = 40

    @property
    def bootstraps(self) -> bool:
        """Tell whether the node makes its own identity."""
        return self.bootstrap or bool(self.bootstrap_kubeconfig)

    @property
    def state(self) -> Path:
        """The state directory."""
        return Path(self.state_dir)

    @property
    def run(self) -> Path:
        """The run directory."""
        return Path(self.run_dir)

    @property
    def logs(self) -> Path:
        """The root of the pods' CRI logs: ``<ns>_<pod>_<uid>/<container>/<n>.log``."""
        return Path(self.log_dir)

    @property
    def log_directories(self) -> dict[str, Path]:
        """Where logs and links to them are, by the name of the setting."""
        links = {"log_links_dir": Path(self.log_links_dir)} if self.log_links_dir else {}
        return {"log_dir": self.logs, **links}


def load(path: str | Path | None = None, **overrides: Any) -> AgentConfig:
    """Read ``path`` (JSON, or YAML where PyYAML is installed), apply the overrides that are not None, and check.

    Raises ``ConfigError`` with the file, the field and the reason.
    """
    try:
        data = settingsfile.read(Path(path)) if path is not None else {}
    except settingsfile.SettingsFileError as error:
        raise ConfigError(str(error)) from None
    try:
        config = msgspec.convert({**data, **{k: v for k, v in overrides.items() if v is not None}}, AgentConfig)
    except msgspec.ValidationError as error:
        where = f"{path}: " if path else ""
        raise ConfigError(f"{where}{error}") from None
    complete(config)
    problems = check(config)
    if problems:
        where = f"{path}: " if path else ""
        raise ConfigError("; ".join(f"{where}{problem}" for problem in problems))
    return config


def complete(config: AgentConfig) -> None:
    """Fill in what follows from other settings and from this host."""
    config.node_name = config.node_name or socket.gethostname().lower()
    config.image_root = config.image_root or str(config.state / "images")
    config.log_dir = config.log_dir or str(config.state / "pods-logs")
    config.node_ip = config.node_ip or default_address()
    config.bind_address = config.bind_address or config.node_ip


def default_address() -> str:
    """Return this host's address towards the outside; no packet is sent. Loopback where there is no route."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])
