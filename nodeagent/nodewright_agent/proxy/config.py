"""Settings of the proxy."""

from __future__ import annotations

import ipaddress
from typing import NamedTuple

MODES = ("auto", "ipvs", "nftables", "iptables")


PRIMARY = "primary"
"""In place of networks for node ports: the addresses of the Node, as upstream's --nodeport-addresses."""


class ProxyConfigError(ValueError):
    """A setting that makes no sense; names the field and the reason."""


class ProxyConfig(NamedTuple):
    """What the proxy of one node is told. `check()` before use."""

    node_name: str
    mode: str = "auto"
    cluster_cidr: str = ""
    """Pod CIDRs, separated by commas: who is inside of the cluster. Empty: nobody is masqueraded for being outside."""
    node_ips: tuple[str, ...] = ()
    """Addresses that node ports answer on. Empty: the InternalIPs of the Node object, else its ExternalIPs."""
    service_proxy_name: str | None = None
    """Serve the Services labelled with this service.kubernetes.io/service-proxy-name instead of those without one."""
    masquerade_all: bool = False
    ipvs_scheduler: str = "rr"
    ipv6: bool = True
    coalesce: float = 0.03
    """Seconds to wait for more changes after the first."""
    verify_interval: float = 3600.0
    """Seconds between comparisons of the kernel with what was programmed."""
    healthz_address: str = "0.0.0.0"
    healthz_port: int = 10256
    """0: no health endpoint."""
    metrics_address: str = "127.0.0.1"
    metrics_port: int = 10249
    """0: no metrics endpoint."""
    local_nodes: tuple[str, ...] = ()
    """Other Nodes on this host (a kubelet and an agent can share one): their endpoints count as local."""
    routes: bool = False
    """Keep routes to the pods of Nodes that agents registered on other hosts."""
    node_port_addresses: tuple[str, ...] = ()
    """Networks: node ports answer on this host's addresses inside of them, not on those of the Node. Empty, or
    `primary` alone: those of the Node."""

    @property
    def pod_cidrs(self) -> tuple[str, ...]:
        """The pod CIDRs one by one."""
        return tuple(text.strip() for text in self.cluster_cidr.split(",") if text.strip())

    @property
    def node_port_networks(self) -> tuple[str, ...]:
        """The networks whose addresses node ports answer on; empty: the Node's addresses."""
        return () if self.node_port_addresses == (PRIMARY,) else self.node_port_addresses

    def check(self) -> ProxyConfig:
        """Give itself. Raises ProxyConfigError."""
        if not self.node_name:
            raise ProxyConfigError("node_name: must not be empty")
        if self.mode not in MODES:
            raise ProxyConfigError(f"mode: {self.mode!r} is none of {', '.join(MODES)}")
        for text in self.pod_cidrs:
            try:
                ipaddress.ip_network(text)
            except ValueError as error:
                raise ProxyConfigError(f"cluster_cidr: {error}") from error
        for text in self.node_ips:
            try:
                ipaddress.ip_address(text)
            except ValueError as error:
                raise ProxyConfigError(f"node_ips: {error}") from error
        for text in self.node_port_networks:
            try:
                ipaddress.ip_network(text)
            except ValueError as error:
                raise ProxyConfigError(f"node_port_addresses: {error}") from error
        if self.node_ips and self.node_port_networks:
            raise ProxyConfigError("node_port_addresses: give these or node_ips, not both")
        if not all(self.local_nodes):
            raise ProxyConfigError("local_nodes: a name must not be empty")
        if self.coalesce < 0:
            raise ProxyConfigError("coalesce: must not be negative")
        return self
