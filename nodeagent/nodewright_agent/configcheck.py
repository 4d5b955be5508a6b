"""What is wrong with a node agent's settings, one text per field. Pure."""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from nodewright.kube import quantity
from nodewright_agent.runtime.images import pullsettings

if TYPE_CHECKING:
    from nodewright_agent.config import AgentConfig

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
PROXY_MODES = ("auto", "ipvs", "nftables", "iptables", "none")
BUILT_IN_HANDLERS = ("", "nodewright", "runc")
"""Runtime handlers that every node has: all are its own OCI runtime."""


def check(config: AgentConfig) -> list[str]:
    """Return what is wrong, one text per field; empty when the settings can be used."""
    problems: list[str] = []
    if not _DNS_LABELS.fullmatch(config.node_name) or len(config.node_name) > 253:
        problems.append(f"node_name: {config.node_name!r} is no lower-case DNS name")
    for field in ("state_dir", "run_dir", "image_root", "log_dir", "cgroup_root"):
        value = getattr(config, field)
        if not _is_plain(value):
            problems.append(f"{field}: {value!r} is not an absolute path without '..'")
    _check_links(config, problems)
    if len(config.run_dir) > MAX_RUN_DIR:
        limit = f"longer than {MAX_RUN_DIR} characters; sockets below it would not fit"
        problems.append(f"run_dir: {config.run_dir!r} is {limit}")
    _check_host(config, problems)
    _check_endpoint(config, problems)
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
    problems += pullsettings.check(config)
    return problems


def _is_plain(path: str) -> bool:
    return os.path.isabs(path) and ".." not in Path(path).parts


def _check_links(config: AgentConfig, problems: list[str]) -> None:
    if not (value := config.log_links_dir):
        return
    if not _is_plain(value):
        problems.append(f"log_links_dir: {value!r} is not an absolute path without '..'")
    elif Path(value) == config.logs or config.logs in Path(value).parents:
        problems.append(f"log_links_dir: {value!r} is in log_dir, where only logs are")


def _check_host(config: AgentConfig, problems: list[str]) -> None:
    """Check what an agent needs that lives in a Pod, beside a kubelet."""
    for field in ("host_mounts", "host_root", "host_tools"):
        value = getattr(config, field)
        if (value or field == "host_root") and not _is_plain(value):
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


def _check_endpoint(config: AgentConfig, problems: list[str]) -> None:
    """Check what goes with another runtime: what it does itself is not ours to set."""
    for field in ("container_runtime_endpoint", "image_service_endpoint"):
        value = getattr(config, field)
        if value and not value.startswith("unix:///"):
            problems.append(f"{field}: {value!r} is no unix:///PATH")
    if not config.container_runtime_endpoint:
        if config.image_service_endpoint:
            problems.append("image_service_endpoint: goes with container_runtime_endpoint only")
        return
    for field in ("image_sources", "runtime_handlers", "host_tools", "pod_mtu"):
        if getattr(config, field):
            problems.append(f"{field}: with container_runtime_endpoint that is the runtime's affair; leave it out")


def _check_static(config: AgentConfig, problems: list[str]) -> None:
    path = config.static_pod_path
    if path and not _is_plain(path):
        problems.append(f"static_pod_path: {path!r} is not an absolute path without '..'")
    if not config.standalone:
        return
    if not path:
        problems.append("static_pod_path: needed with standalone, which runs nothing else")
    if not config.pod_cidr and not config.container_runtime_endpoint:
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
