"""Pure rules of pod addressing: subnets, gateways, MAC addresses, names of links, and the routes between nodes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Set
from ipaddress import IPv4Address, IPv4Network

import msgspec

from nodewright.kube.objects import Node

BRIDGE = "nw-pods"
"""The bridge that joins the pods of one node."""

ROUTE_PROTOCOL = 78
"""Value of ``rtm_protocol`` on every route that we make: what carries it is ours to change, nothing else is."""


class PodAddress(msgspec.Struct, frozen=True):
    """The network identity of one pod: IPv4 address, prefix length of the node's subnet, gateway and MAC."""

    ip: str
    prefix_length: int
    gateway: str
    mac: str


class NetworkError(Exception):
    """Pod networking could not be set up; the message is fit for an event on the Pod or a Node condition."""


class SubnetExhausted(NetworkError):
    """Every address of the node's pod CIDR is taken."""


def gateway(subnet: IPv4Network) -> IPv4Address:
    """Return the address of the bridge: the first host address, as upstream's bridge plugin chooses it."""
    return subnet.network_address + 1


def parse_pod_cidr(text: str) -> IPv4Network:
    """Parse a Node's ``spec.podCIDR``. Raise ``NetworkError`` unless it is an IPv4 network with room for pods."""
    try:
        subnet = IPv4Network(text)
    except ValueError as error:
        raise NetworkError(f"pod CIDR {text!r}: {error}") from None
    if subnet.prefixlen > 30:
        raise NetworkError(f"pod CIDR {text!r}: prefix length must be 30 or less to hold a gateway and a pod")
    return subnet


def candidates(subnet: IPv4Network, last: IPv4Address | None) -> Iterator[IPv4Address]:
    """Yield every pod address of ``subnet``, beginning after ``last``.

    Going round instead of taking the lowest free address keeps a released address unused for as long as possible,
    so that peers do not talk to a successor by mistake (upstream's host-local IPAM does the same).
    """
    first, final = int(gateway(subnet)) + 1, int(subnet.broadcast_address) - 1
    start = int(last) + 1 if last is not None and first <= int(last) < final else first
    for value in (*range(start, final + 1), *range(first, start)):
        yield IPv4Address(value)


def mac_of(address: IPv4Address) -> str:
    """Return the MAC that belongs to a pod address: ``0a:58`` and its four bytes.

    With the MAC a function of the address, neighbours' ARP entries stay right when the address is given to another pod.
    """
    return "0a:58:" + ":".join(f"{byte:02x}" for byte in address.packed)


def host_link(pod_uid: str) -> str:
    """Return the name of the node's end of a pod's veth pair (14 characters; the kernel allows 15)."""
    return "nw" + hashlib.sha1(pod_uid.encode(), usedforsecurity=False).hexdigest()[:12]


def pod_address(address: IPv4Address, subnet: IPv4Network) -> PodAddress:
    """Return everything that follows from ``address`` in ``subnet``."""
    return PodAddress(str(address), subnet.prefixlen, str(gateway(subnet)), mac_of(address))


class NodeRoute(msgspec.Struct, frozen=True):
    """Pods of another node: their subnet and the node's own address, over which they are reached."""

    subnet: str
    via: str


AGENT_LABEL = "nodewright.dev/agent"
"""On every Node that an agent registered, with the value ``true``."""


def node_addresses(node: Node) -> list[str]:
    """Return the InternalIPs of a Node, else its ExternalIPs.

    An agent beside a kubelet registers its host's address as an ExternalIP: to the host's CNI, a second Node with the
    InternalIP of the first would be its own.
    """
    for kind in ("InternalIP", "ExternalIP"):
        found = [entry.address for entry in node.status.addresses if entry.type == kind]
        if found:
            return found
    return []


def wanted_routes(
    nodes: Iterable[Node], own_names: Set[str], own_addresses: Set[str] = frozenset()
) -> frozenset[NodeRoute]:
    """Return the routes to the pods of ``nodes`` on other hosts, for the host with these Node names and addresses.

    A node without a CIDR or an address yet has no route: it gets one when its Node object says more. Pods have IPv4
    addresses only.
    """
    routes = set()
    for node in nodes:
        via = next((ip for ip in node_addresses(node) if ":" not in ip), "")
        subnet = node.spec.pod_cidr
        if node.metadata.name in own_names or via in own_addresses:
            continue
        if via and subnet and ":" not in subnet:
            routes.add(NodeRoute(subnet, via))
    return frozenset(routes)


def route_changes(wanted: Iterable[NodeRoute], present: Mapping[str, str]) -> tuple[list[NodeRoute], list[str]]:
    """Compare wanted routes with ``present`` (subnet to gateway). Return those to set and the subnets to remove."""
    target = {route.subnet: route.via for route in wanted}
    changed = [NodeRoute(subnet, via) for subnet, via in sorted(target.items()) if present.get(subnet) != via]
    return changed, sorted(set(present) - set(target))
