"""What one Service means on one node: its frontends. Pure.

Follows upstream pkg/proxy (serviceport.go, util/utils.go ShouldSkipService, iptables/proxier.go syncProxyRules).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from nodewright.kube.objects import ServicePort
from nodewright_agent.proxy.endpoints import Choice, backends_of, choose
from nodewright_agent.proxy.model import (
    PROTOCOLS,
    Frontend,
    Kind,
    Masquerade,
    Refusal,
    frontend_key,
    is_ipv6,
    pack_address,
    unpack_address,
)
from nodewright_agent.proxy.objects import EndpointSlice, Service

DEFAULT_AFFINITY_SECONDS = 10800


class NodeView(NamedTuple):
    """What the rules need to know of the node and of the proxy's settings."""

    name: str
    zone: str = ""
    addresses: tuple[bytes, ...] = ()
    """Packed addresses that node ports answer on."""
    pod_cidrs: tuple[str, ...] = ()
    """Sources inside are in the cluster. Empty: unknown, and nothing is masqueraded for being outside."""
    masquerade_all: bool = False
    also_here: frozenset[str] = frozenset()
    """Names of other Nodes on this host: their endpoints are local, too."""

    @property
    def here(self) -> frozenset[str]:
        """Names of all Nodes on this host."""
        return self.also_here | {self.name}


class HealthCheck(NamedTuple):
    """A port on which load balancers ask whether this node has endpoints of a Service."""

    port: int
    endpoints: int
    """Ready ones on this node, each address counted once; those that terminate do not count."""


class ServiceRules(NamedTuple):
    """Everything one Service adds to the table."""

    frontends: dict[bytes, Frontend]
    cluster_ips: frozenset[bytes] = frozenset()
    local_ips: frozenset[bytes] = frozenset()
    health_check: HealthCheck | None = None


EMPTY = ServiceRules({})


def skipped(service: Service) -> bool:
    """Headless Services and ExternalName have no virtual address (upstream: ShouldSkipService)."""
    return service.spec.cluster_ip in ("", "None") or service.spec.type == "ExternalName"


def rules_of(service: Service, slices: Sequence[EndpointSlice], node: NodeView) -> ServiceRules:
    """Compute the frontends of a Service from its slices (sorted by name), in each family that it has an address of."""
    if skipped(service):
        return EMPTY
    spec = service.spec
    frontends: dict[bytes, Frontend] = {}
    local_ips: set[bytes] = set()
    cluster_ips = _addresses(spec.cluster_ips or [spec.cluster_ip])
    for cluster_ip in cluster_ips:
        ipv6 = is_ipv6(cluster_ip)
        family_node = node._replace(addresses=tuple(a for a in node.addresses if is_ipv6(a) == ipv6))
        outside = [a for a in _addresses(spec.external_ips) if is_ipv6(a) == ipv6]
        balancers = [a for a in _balancer_addresses(service) if is_ipv6(a) == ipv6]
        for port in spec.ports:
            if port.protocol in PROTOCOLS:
                _Port(service, slices, family_node, port, cluster_ip, outside, balancers).add(frontends, local_ips)
    health_check = _health_check(service, slices, node, ipv6=is_ipv6(cluster_ips[0])) if cluster_ips else None
    return ServiceRules(frontends, frozenset(cluster_ips), frozenset(local_ips), health_check)


def _health_check(
    service: Service, slices: Sequence[EndpointSlice], node: NodeView, *, ipv6: bool
) -> HealthCheck | None:
    spec = service.spec
    if not spec.health_check_node_port or spec.external_traffic_policy != "Local":
        return None
    addresses = {
        backend.address[:-2]
        for port in spec.ports
        for backend in backends_of(slices, port.name, port.protocol, node.here, ipv6=ipv6)
        if backend.local and backend.ready
    }
    return HealthCheck(spec.health_check_node_port, len(addresses))


class _Port:
    """One port of a Service in one family."""

    def __init__(
        self,
        service: Service,
        slices: Sequence[EndpointSlice],
        node: NodeView,
        port: ServicePort,
        cluster_ip: bytes,
        external_ips: list[bytes],
        balancer_ips: list[bytes],
    ) -> None:
        spec = service.spec
        self.node, self.port, self.spec = node, port, spec
        self.protocol = PROTOCOLS[port.protocol]
        self.cluster_ip = cluster_ip
        self.external_ips, self.balancer_ips = external_ips, balancer_ips
        self.owner = f"{service.key}:{port.name}" if port.name else service.key
        self.internal_local = spec.internal_traffic_policy == "Local"
        self.external_local = spec.external_traffic_policy == "Local"
        reachable = bool(port.node_port or external_ips or balancer_ips)
        self.backends = backends_of(slices, port.name, port.protocol, node.here, ipv6=is_ipv6(cluster_ip))
        self.choice = choose(
            self.backends,
            uses_cluster=not self.internal_local or reachable,
            uses_local=self.internal_local or (self.external_local and reachable),
            here=node.here,
            zone=node.zone,
        )
        self.affinity = _affinity(service)
        self.serving = (
            tuple(backend.address for backend in self.backends if backend.serving) if self.protocol == 17 else ()
        )

    def add(self, frontends: dict[bytes, Frontend], local_ips: set[bytes]) -> None:
        """Write this port's frontends into the table of its Service."""
        here = self._here()
        for kind, address, number in self._places():
            key = frontend_key(address, self.protocol, number)
            if key not in frontends:  # the first port wins, as rules in order would have it
                frontends[key] = here if kind is Kind.CLUSTER_IP else self._outside(kind, address)
        used = {*self.choice.cluster, *self.choice.local}
        local_ips.update(b.address[:-2] for b in self.backends if b.local and b.address in used)

    def _places(self) -> Iterator[tuple[Kind, bytes, int]]:
        yield Kind.CLUSTER_IP, self.cluster_ip, self.port.port
        if self.port.node_port:
            for address in self.node.addresses:
                yield Kind.NODE_PORT, address, self.port.node_port
        for address in self.balancer_ips:
            yield Kind.LOAD_BALANCER, address, self.port.port
        for address in self.external_ips:
            yield Kind.EXTERNAL_IP, address, self.port.port

    def _here(self) -> Frontend:
        endpoints = self.choice.local if self.internal_local else self.choice.cluster
        masquerade = Masquerade.OFF_CLUSTER if self.node.pod_cidrs else Masquerade.NEVER
        return Frontend(
            Kind.CLUSTER_IP,
            self.owner,
            endpoints,
            None,
            Masquerade.ALWAYS if self.node.masquerade_all else masquerade,
            _refusal(endpoints, self.choice),
            self.affinity,
            None,
            self.serving,
        )

    def _outside(self, kind: Kind, address: bytes) -> Frontend:
        masquerade = Masquerade.LOCAL_SOURCE if self.external_local else Masquerade.ALWAYS
        sources = self._source_ranges(address) if kind is Kind.LOAD_BALANCER else None
        return Frontend(
            kind,
            self.owner,
            self.choice.cluster,
            self.choice.local if self.external_local else None,
            masquerade,
            _refusal(self.choice.cluster, self.choice),
            self.affinity,
            sources,
            self.serving,
        )

    def _source_ranges(self, balancer: bytes) -> tuple[str, ...] | None:
        """Give who may connect; where this node may, connections that it makes have the balancer's own address."""
        texts, ipv6 = self.spec.load_balancer_source_ranges, is_ipv6(balancer)
        ranges = source_ranges(texts, ipv6=ipv6)
        nodes = [ipaddress.ip_address(address) for address in self.node.addresses]
        if ranges and any(node in ipaddress.ip_network(text) for text in ranges for node in nodes):
            return source_ranges([*texts, unpack_address(balancer)], ipv6=ipv6)
        return ranges


def _refusal(endpoints: tuple[bytes, ...], choice: Choice) -> Refusal:
    if endpoints:
        return Refusal.NONE
    return Refusal.DROP if choice.any else Refusal.REJECT


def _affinity(service: Service) -> int:
    if service.spec.session_affinity != "ClientIP":
        return 0
    config = service.spec.session_affinity_config
    seconds = config.client_ip.timeout_seconds if config and config.client_ip else None
    return seconds or DEFAULT_AFFINITY_SECONDS


def _addresses(texts: Iterable[str]) -> list[bytes]:
    """Pack addresses, in order, without duplicates and without what is none (the API server validates them)."""
    found: dict[bytes, None] = {}
    for text in texts:
        try:
            found[pack_address(text)] = None
        except OSError:
            continue
    return list(found)


def _balancer_addresses(service: Service) -> list[bytes]:
    """Addresses of load balancers that deliver to this node with the address unchanged (ipMode nil or VIP)."""
    ingress = service.status.load_balancer.ingress
    return _addresses(entry.ip for entry in ingress if entry.ip and entry.ip_mode in (None, "VIP"))


def source_ranges(texts: Iterable[str], *, ipv6: bool) -> tuple[str, ...] | None:
    """Give the CIDRs of one family, merged and sorted; None where there is no restriction.

    A range that covers everything is no restriction (upstream: serviceport.go). Where ranges of the other family only
    are given, nobody of this family may connect.
    """
    networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
    given = False
    for text in texts:
        try:
            network = ipaddress.ip_network(text.strip(), strict=False)
        except ValueError:
            continue
        given = True
        if network.prefixlen == 0 and (network.version == 6) == ipv6:
            return None
        if (network.version == 6) == ipv6:
            networks.append(network)
    if not given:
        return None
    if ipv6:
        return tuple(map(str, ipaddress.collapse_addresses(n for n in networks if n.version == 6)))
    return tuple(map(str, ipaddress.collapse_addresses(n for n in networks if n.version == 4)))
