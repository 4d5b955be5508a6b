"""AgentConfig: every setting of a node agent, from one YAML or JSON file, checked before anything is touched."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from pathlib import Path
from typing import Any, Literal

import msgspec

from nodewright.kube import quantity

_DNS_LABELS = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
MAX_RUN_DIR = 48
"""A socket's path has 107 bytes: below the run directory lie ``rt/s/<container>-x<random>/attach``."""
OWN_LABELS = (
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
)
"""The labels that every kubelet sets on its Node, and which ``omit_node_labels`` may leave out."""
BUILT_IN_HANDLERS = ("", "nodewright", "runc")
"""Runtime handlers that every node has: all are its own OCI runtime."""
PROXY_MODES = ("auto", "ipvs", "nftables", "iptables", "none")


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


class AgentConfig(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
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
    cgroup_root: str = "/nodewright"
    runc: str = "runc"
    conmon: str = "conmon"
    host_mounts: str = ""
    """The mount namespace in which conmon and runc run, such as ``/proc/1/ns/mnt``; empty: the agent's own."""
    host_root: str = "/"
    """Where the host's files are read, such as ``/proc/1/root``."""
    host_tools: str = ""
    """A directory with conmon and runc that is installed on the host at start; empty: ``runc`` and ``conmon`` are."""
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


def load(path: str | Path | None = None, **overrides: Any) -> AgentConfig:
    """Read ``path`` (JSON, or YAML where PyYAML is installed), apply the overrides that are not None, and check.

    Raises ``ConfigError`` with the file, the field and the reason.
    """
    data: Any = {}
    if path is not None:
        data = _read(Path(path))
        if not isinstance(data, dict):
            raise ConfigError(f"{path}: expected a mapping of settings, found {type(data).__name__}")
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


def check(config: AgentConfig) -> list[str]:
    """Return what is wrong, one text per field; empty when the settings can be used."""
    problems: list[str] = []
    if not _DNS_LABELS.fullmatch(config.node_name) or len(config.node_name) > 253:
        problems.append(f"node_name: {config.node_name!r} is no lower-case DNS name")
    for field in ("state_dir", "run_dir", "image_root", "log_dir", "cgroup_root"):
        value = getattr(config, field)
        if not os.path.isabs(value) or ".." in Path(value).parts:
            problems.append(f"{field}: {value!r} is not an absolute path without '..'")
    if len(config.run_dir) > MAX_RUN_DIR:
        limit = f"longer than {MAX_RUN_DIR} characters; sockets below it would not fit"
        problems.append(f"run_dir: {config.run_dir!r} is {limit}")
    _check_host(config, problems)
    _check_static(config, problems)
    for field in ("node_ip", "bind_address", "healthz_bind_address"):
        _check_ip(field, getattr(config, field), problems)
    for index, address in enumerate(config.cluster_dns):
        _check_ip(f"cluster_dns[{index}]", address, problems)
    for field in ("pod_cidr", "cluster_cidr"):
        _check_cidr(field, getattr(config, field), problems, optional=field == "pod_cidr")
    _check_numbers(config, problems)
    if config.proxy_mode not in PROXY_MODES:
        problems.append(f"proxy_mode: {config.proxy_mode!r} is none of {', '.join(PROXY_MODES)}")
    if bool(config.tls_cert_file) != bool(config.tls_key_file):
        problems.append("tls_cert_file, tls_key_file: give both or none")
    for index, taint in enumerate(config.register_with_taints):
        if taint.effect not in ("NoSchedule", "PreferNoSchedule", "NoExecute"):
            problems.append(f"register_with_taints[{index}].effect: {taint.effect!r} is unknown")
    return problems


def default_address() -> str:
    """Return this host's address towards the outside; no packet is sent. Loopback where there is no route."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def _read(path: Path) -> Any:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        pass  # not JSON: then it has to be YAML
    try:
        import yaml
    except ImportError:
        raise ConfigError(f"{path}: is not JSON, and PyYAML is not installed to read it as YAML") from None
    try:
        return yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: {error}") from None


def _check_host(config: AgentConfig, problems: list[str]) -> None:
    """Check what an agent needs that lives in a Pod, beside a kubelet."""
    for field in ("host_mounts", "host_root", "host_tools"):
        value = getattr(config, field)
        if (value or field == "host_root") and (not os.path.isabs(value) or ".." in Path(value).parts):
            problems.append(f"{field}: {value!r} is not an absolute path without '..'")
    if config.bootstraps and config.kubeconfig:
        problems.append("kubeconfig: the node makes its own identity; give bootstrap or kubeconfig, not both")
    if config.certificate_seconds and config.certificate_seconds < 600:
        problems.append(f"certificate_seconds: {config.certificate_seconds} is below 600, and not 0")
    if len(config.node_name) > 63 and "kubernetes.io/hostname" not in config.omit_node_labels:
        problems.append("node_name: longer than 63 characters, which the label kubernetes.io/hostname cannot hold")
    if config.host_node_name and not _DNS_LABELS.fullmatch(config.host_node_name):
        problems.append(f"host_node_name: {config.host_node_name!r} is no lower-case DNS name")
    if len(config.host_node_name) > 63:
        problems.append("host_node_name: longer than 63 characters, which the label nodewright.dev/host cannot hold")
    if config.host_node_name and config.host_node_name == config.node_name:
        problems.append(f"host_node_name: {config.host_node_name!r} is node_name too; the kubelet has its own")
    if config.copy_topology_labels and not config.host_node_name:
        problems.append("copy_topology_labels: host_node_name is needed to copy from")
    for index, name in enumerate(config.omit_node_labels):
        if name not in OWN_LABELS:
            problems.append(f"omit_node_labels[{index}]: {name!r} is none of {', '.join(OWN_LABELS)}")


def _check_static(config: AgentConfig, problems: list[str]) -> None:
    path = config.static_pod_path
    if path and (not os.path.isabs(path) or ".." in Path(path).parts):
        problems.append(f"static_pod_path: {path!r} is not an absolute path without '..'")
    if not config.standalone:
        return
    if not path:
        problems.append("static_pod_path: needed with standalone, which runs nothing else")
    if not config.pod_cidr:
        problems.append("pod_cidr: needed with standalone: there is no Node to have one")
    if config.kubeconfig or config.bootstraps:
        problems.append("standalone: kubeconfig and bootstrap lead to an API server; leave them out")


def _check_ip(field: str, value: str, problems: list[str]) -> None:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        problems.append(f"{field}: {value!r} is no IP address")


def _check_cidr(field: str, value: str, problems: list[str], *, optional: bool) -> None:
    if optional and not value:
        return
    try:
        ipaddress.ip_network(value)
    except ValueError as error:
        problems.append(f"{field}: {error}")


def _check_numbers(config: AgentConfig, problems: list[str]) -> None:
    if not 0 < config.port < 65536:
        problems.append(f"port: {config.port} is not between 1 and 65535")
    if not 0 <= config.healthz_port < 65536:
        problems.append(f"healthz_port: {config.healthz_port} is not between 0 (off) and 65535")
    elif config.healthz_port == config.port:
        problems.append(f"healthz_port: {config.healthz_port} is port too")
    if config.max_pods < 1:
        problems.append(f"max_pods: {config.max_pods} is not positive")
    for field in ("reserved_cpu", "reserved_memory", "reserved_ephemeral_storage", "eviction_memory"):
        try:
            quantity.parse(getattr(config, field))
        except ValueError as error:
            problems.append(f"{field}: {error}")
    if config.container_log_max_files < 2:
        problems.append(f"container_log_max_files: {config.container_log_max_files} is below 2")
    try:
        if quantity.value(config.container_log_max_size) <= 0:
            problems.append(f"container_log_max_size: {config.container_log_max_size} is not positive")
    except ValueError as error:
        problems.append(f"container_log_max_size: {error}")
    # KEP-5593 allows 1 s to 300 s; the start may be lower for tests and for development.
    for field in ("crash_backoff_initial", "crash_backoff_max", "image_backoff_initial", "image_backoff_max"):
        if not 0 < getattr(config, field) <= 300:
            problems.append(f"{field}: {getattr(config, field)} is not above 0 and at most 300")
    if config.crash_backoff_initial > config.crash_backoff_max:
        problems.append("crash_backoff_initial: is above crash_backoff_max")
    if config.image_backoff_initial > config.image_backoff_max:
        problems.append("image_backoff_initial: is above image_backoff_max")
    if config.userns_ids_per_pod <= 0 or config.userns_ids_per_pod % 65536:
        problems.append(f"userns_ids_per_pod: {config.userns_ids_per_pod} is no multiple of 65536")
    if config.userns_range and not re.fullmatch(r"[0-9]{1,10}:[0-9]{1,10}", config.userns_range):
        problems.append(f"userns_range: {config.userns_range!r} is not FIRST:COUNT")
    _check_pressure(config, problems)
    _check_resources(config, problems)
    if config.lease_duration_seconds < 4:
        problems.append(f"lease_duration_seconds: {config.lease_duration_seconds} is below 4")


def _check_resources(config: AgentConfig, problems: list[str]) -> None:
    """Check what goes into cgroups, and the runtime handlers."""
    if config.pod_pids_limit != -1 and config.pod_pids_limit < 1:
        problems.append(f"pod_pids_limit: {config.pod_pids_limit} is not positive, and not -1")
    if not 0.001 <= config.cpu_cfs_quota_period <= 1:
        problems.append(f"cpu_cfs_quota_period: {config.cpu_cfs_quota_period} is not between 0.001 and 1 s")
    for name, program in config.runtime_handlers.items():
        if len(name) > 63 or not re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name):
            problems.append(f"runtime_handlers: {name!r} is no lower-case DNS label")
        if name in BUILT_IN_HANDLERS:
            problems.append(f"runtime_handlers: {name!r} is built in")
        if not os.path.isabs(program):
            problems.append(f"runtime_handlers[{name}]: {program!r} is not an absolute path")


def _check_pressure(config: AgentConfig, problems: list[str]) -> None:
    """Check eviction, image collection and shutdown."""
    from nodewright_agent.eviction import reading, signals  # late: they know AgentConfig

    try:
        reading.settings(config)
    except (signals.ThresholdError, ValueError) as error:
        problems.append(f"eviction: {error}")
    high, low = config.image_gc_high_threshold_percent, config.image_gc_low_threshold_percent
    if not 0 <= low < high <= 100:
        problems.append(f"image_gc_low_threshold_percent: {low} is not between 0 and {high}, the high one")
    if config.image_maximum_gc_age and config.image_maximum_gc_age <= config.image_minimum_gc_age:
        problems.append("image_maximum_gc_age: is not above image_minimum_gc_age")
    for field in (
        "eviction_max_pod_grace_period",
        "eviction_pressure_transition_period",
        "image_minimum_gc_age",
        "image_maximum_gc_age",
        "shutdown_grace_period",
        "shutdown_grace_period_critical_pods",
    ):
        if getattr(config, field) < 0:
            problems.append(f"{field}: {getattr(config, field)} is negative")
    if config.shutdown_grace_period_critical_pods > config.shutdown_grace_period:
        problems.append("shutdown_grace_period_critical_pods: is above shutdown_grace_period, of which it is a part")
    if config.shutdown_grace_period_by_pod_priority and config.shutdown_grace_period:
        problems.append("shutdown_grace_period_by_pod_priority: give it or shutdown_grace_period, not both")
