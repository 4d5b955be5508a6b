"""Writes a pod's /etc/hosts and resolv.conf below its directory, and reads the node's own as their base."""

from __future__ import annotations

import os
from pathlib import Path

from nodewright.kube.objects import Pod
from nodewright_agent.config import AgentConfig
from nodewright_agent.pods import files


class PodFiles:
    """The managed files of all pods of a node."""

    def __init__(self, config: AgentConfig) -> None:
        """Take what of the node goes into the files."""
        self._config = config

    def write(self, pod: Pod, directory: Path, ips: tuple[str, ...]) -> list[files.Note]:
        """Write the files; return what had to be left out, for events. Raises OSError."""
        directory.mkdir(parents=True, exist_ok=True, mode=0o750)
        name, domain = files.hostname_and_domain(pod, self._config.cluster_domain)
        if pod.spec.host_network:
            hosts = files.host_network_hosts_text(_read("/etc/hosts"), pod.spec.host_aliases)
        else:
            hosts = files.hosts_text(ips, name, domain, pod.spec.host_aliases)
        warnings: list[files.Note] = []
        host_dns = files.parse_resolv_conf(_read(self._config.resolv_conf))
        dns = files.pod_dns(pod, host_dns, self._config.cluster_dns, self._config.cluster_domain, warnings)
        _write(hosts_path(directory), hosts)
        _write(resolv_path(directory), dns.text())
        return warnings

    def hostname(self, pod: Pod) -> str:
        """Return the host name of the pod's UTS namespace. Raises ValueError where it would be too long."""
        return files.kernel_hostname(pod, self._config.cluster_domain, os.uname().nodename)


def hosts_path(directory: Path) -> Path:
    """Return where the pod's /etc/hosts is."""
    return directory / "etc-hosts"


def resolv_path(directory: Path) -> Path:
    """Return where the pod's resolv.conf is."""
    return directory / "resolv.conf"


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""  # a host without the file gives nothing to inherit


def _write(path: Path, text: str) -> None:
    # In place: containers have this very file bound into them.
    path.write_text(text)
    path.chmod(0o644)
