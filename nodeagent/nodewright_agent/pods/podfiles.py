"""Writes a pod's /etc/hosts and resolv.conf below its directory, and reads the node's own as their base.

The pod's directory is shared with the host, whose runtime binds the files; the node's own are the host's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from nodewright.kube.objects import Pod
from nodewright_agent.config import AgentConfig
from nodewright_agent.pods import files
from nodewright_agent.runtime.hostspace import HostSpace


class PodFiles:
    """The managed files of all pods of a node."""

    def __init__(
        self,
        config: AgentConfig,
        space: HostSpace | None = None,
        discovered_dns: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        """Take what of the node goes into the files; `space` is where the host's own files are read.

        `discovered_dns` gives the cluster's DNS servers as they are now, where the settings name none.
        """
        self._config, self._space, self._discovered_dns = config, space or HostSpace(), discovered_dns

    def cluster_dns(self) -> Sequence[str]:
        """Return the DNS servers for pods: the settings' own, else the cluster's."""
        return self._config.cluster_dns or self._discovered_dns()

    def need_services(self, pod: Pod) -> bool:
        """Tell whether a pod's resolv.conf can only be written once the cluster's Services are known."""
        policy = pod.spec.dns_policy
        wants = policy == "ClusterFirstWithHostNet" or (policy == "ClusterFirst" and not pod.spec.host_network)
        return wants and not self._config.cluster_dns

    def write(self, pod: Pod, directory: Path, ips: tuple[str, ...]) -> list[files.Note]:
        """Write the files; return what had to be left out, for events. Raises OSError."""
        directory.mkdir(parents=True, exist_ok=True, mode=0o750)
        name, domain = files.hostname_and_domain(pod, self._config.cluster_domain)
        if pod.spec.host_network:
            hosts = files.host_network_hosts_text(self._read("/etc/hosts"), pod.spec.host_aliases)
        else:
            hosts = files.hosts_text(ips, name, domain, pod.spec.host_aliases)
        dns, warnings = self.dns(pod)
        _write(hosts_path(directory), hosts)
        _write(resolv_path(directory), dns.text())
        return warnings

    def dns(self, pod: Pod) -> tuple[files.DNS, list[files.Note]]:
        """Return what the pod's resolv.conf says, and what had to be left out."""
        warnings: list[files.Note] = []
        host_dns = files.parse_resolv_conf(self._read(self._config.resolv_conf))
        return files.pod_dns(pod, host_dns, self.cluster_dns(), self._config.cluster_domain, warnings), warnings

    def hostname(self, pod: Pod) -> str:
        """Return the host name of the pod's UTS namespace. Raises ValueError where it would be too long."""
        return files.kernel_hostname(pod, self._config.cluster_domain, os.uname().nodename)

    def _read(self, path: str) -> str:
        try:
            return self._space.read_text(path)
        except OSError:
            return ""  # a host without the file gives nothing to inherit


def hosts_path(directory: Path) -> Path:
    """Return where the pod's /etc/hosts is."""
    return directory / "etc-hosts"


def resolv_path(directory: Path) -> Path:
    """Return where the pod's resolv.conf is."""
    return directory / "resolv.conf"


def complete(directory: Path) -> bool:
    """Tell whether the pod's files were written to the end."""
    return hosts_path(directory).exists() and resolv_path(directory).exists()


def _write(path: Path, text: str) -> None:
    # In place: containers have this very file bound into them.
    path.write_text(text)
    path.chmod(0o644)
