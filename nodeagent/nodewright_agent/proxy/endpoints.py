"""Which endpoints a node uses: upstream's CategorizeEndpoints (pkg/proxy/topology.go) and endpoint slice cache.

Pure functions. The rules are upstream's to the letter, since workloads are tested against them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from typing import NamedTuple

from nodewright_agent.proxy.model import endpoint, pack_address
from nodewright_agent.proxy.objects import Endpoint, EndpointSlice


class Backend(NamedTuple):
    """An endpoint of one service port as a node sees it."""

    address: bytes
    """Packed endpoint: address and port."""
    ready: bool
    serving: bool
    terminating: bool
    local: bool
    zones: frozenset[str] = frozenset()
    """Zone hints."""
    nodes: frozenset[str] = frozenset()
    """Node hints."""

    @property
    def last_resort(self) -> bool:
        """Serving though terminating: used only while no endpoint is ready."""
        return self.serving and self.terminating


class Choice(NamedTuple):
    """The endpoints that traffic under each policy may use on this node."""

    cluster: tuple[bytes, ...] = ()
    local: tuple[bytes, ...] = ()
    any: bool = False
    """Whether there is a usable endpoint anywhere in the cluster."""


def backends_of(
    slices: Iterable[EndpointSlice], port_name: str, protocol: str, here: Set[str], *, ipv6: bool
) -> list[Backend]:
    """Give the endpoints that the slices of a Service have for one port, without duplicates, sorted.

    ``here`` names the Nodes of this host: what runs on any of them is local.

    A port or address that is missing or malformed is left out. Where slices overlap, the endpoint that is not
    terminating wins (upstream: endpointslicecache.go); slices are read in the order given, so pass them sorted by name.
    """
    found: dict[bytes, Backend] = {}
    family = "IPv6" if ipv6 else "IPv4"
    for item in slices:
        if item.address_type != family:
            continue
        for port in item.ports:
            if not port.port or (port.name or "") != port_name or (port.protocol or "TCP") != protocol:
                continue
            for entry in item.endpoints:
                backend = _backend(entry, port.port, here, ipv6=ipv6)
                if backend is None:
                    continue
                known = found.get(backend.address)
                if known is None or (known.terminating and not backend.terminating):
                    found[backend.address] = backend
    return [found[address] for address in sorted(found)]


def _backend(entry: Endpoint, port: int, here: Set[str], *, ipv6: bool) -> Backend | None:
    if not entry.addresses:
        return None
    try:
        address = pack_address(entry.addresses[0])
    except OSError:
        return None
    if (len(address) == 16) != ipv6:
        return None
    conditions, hints = entry.conditions, entry.hints
    return Backend(
        endpoint(address, port),
        conditions.ready is not False,
        conditions.serving is not False,
        conditions.terminating is True,
        entry.node_name in here,
        frozenset(zone.name for zone in hints.for_zones) if hints else frozenset(),
        frozenset(node.name for node in hints.for_nodes) if hints else frozenset(),
    )


def topology(backends: Sequence[Backend], here: Set[str], zone: str) -> str:
    """Give "node", "zone" or "" from the hints of the ready endpoints.

    Hints count only if every ready endpoint has some, and at least one names this node or zone: otherwise the
    controller that wrote them has not caught up, and traffic must not be lost to that.
    """
    ready = [backend for backend in backends if backend.ready]
    if all(backend.nodes for backend in ready) and any(here & backend.nodes for backend in ready):
        return "node"
    if all(backend.zones for backend in ready) and any(zone in backend.zones for backend in ready):
        return "zone"
    return ""


def choose(backends: Sequence[Backend], *, uses_cluster: bool, uses_local: bool, here: Set[str], zone: str) -> Choice:
    """Choose endpoints as upstream's CategorizeEndpoints does.

    Both lists prefer ready endpoints and fall back, each by itself, to those that serve while they terminate.
    """
    cluster: list[Backend] = []
    local: list[Backend] = []
    if uses_cluster:
        mode = topology(backends, here, zone)
        cluster = [
            backend
            for backend in backends
            if backend.ready and (not mode or (here & backend.nodes if mode == "node" else zone in backend.zones))
        ]
        if not cluster:
            cluster = [backend for backend in backends if backend.last_resort]
    exists = bool(cluster)
    if uses_local:
        exists = exists or any(backend.ready or backend.last_resort for backend in backends)
        near = [backend for backend in backends if backend.local]
        local = [backend for backend in near if backend.ready] or [backend for backend in near if backend.last_resort]
    return Choice(tuple(backend.address for backend in cluster), tuple(backend.address for backend in local), exists)
