"""Names and addresses of local clusters: pure rules, no I/O except `host_routes`.

A cluster takes one of 50 slots. Slot n has the node subnet 10.180.n.0/24 (bridge .1, node i at .10+i) and the
pod range 10.(200+n).0.0/16, a /24 of it per node. The Service range is the same for all: it never leaves a
node host's network namespace.
"""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from nodewright.controlplane.errors import PreconditionError, UsageError

SLOTS = 50
MAX_NODES = 100
SERVICE_CIDR = IPv4Network("10.96.0.0/16")
KUBERNETES_SERVICE_IP = str(SERVICE_CIDR[1])
DEFAULT_NAME = "default"
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_RESERVED = {"hosts"}  # /run/nodewright/hosts holds what was changed on this machine for node hosts
_MAX_NAME = 20  # leaves room for "-node12" in a 63 character hostname and keeps socket paths short


def check_name(name: str) -> str:
    """Return `name` if it can name a cluster (an RFC 1123 label of at most 20 characters), else UsageError."""
    if name in _RESERVED:
        raise UsageError(f'the cluster name "{name}" is reserved', "choose another")
    if len(name) > _MAX_NAME or not _LABEL.fullmatch(name):
        raise UsageError(
            f'the cluster name "{name}" is not valid',
            f"use lower-case letters, digits and '-', beginning and ending with a letter or digit, "
            f"at most {_MAX_NAME} characters",
        )
    return name


def check_nodes(count: int) -> int:
    """Return `count` if that many node hosts fit into a slot, else UsageError."""
    if not 0 <= count <= MAX_NODES:
        raise UsageError(f"--nodes {count} is out of range", f"a local cluster takes 0 to {MAX_NODES} nodes")
    return count


@dataclass(frozen=True)
class NodeHost:
    """One local node host: its Node name, the network namespace that is its host, and its address."""

    index: int
    name: str
    netns: str
    address: str


@dataclass(frozen=True)
class Slot:
    """The address ranges of slot `number`."""

    number: int

    @property
    def node_cidr(self) -> IPv4Network:
        """The subnet of the bridge and of the node hosts on it."""
        return IPv4Network(f"10.180.{self.number}.0/24")

    @property
    def pod_cidr(self) -> IPv4Network:
        """The range that nodes get their pod CIDRs from."""
        return IPv4Network(f"10.{200 + self.number}.0.0/16")

    @property
    def bridge(self) -> str:
        """Name of the bridge that joins the node hosts."""
        return f"nwb{self.number}"

    @property
    def gateway(self) -> str:
        """The bridge's address, on which kube-apiserver listens when there are node hosts."""
        return str(self.node_cidr[1])

    def node(self, cluster: str, index: int) -> NodeHost:
        """Node host `index` (from 1) of `cluster`."""
        name = f"node{index}" if cluster == DEFAULT_NAME else f"{cluster}-node{index}"
        return NodeHost(index, name, f"nw-{cluster}-node{index}", str(self.node_cidr[10 + index]))


def choose_slot(taken: Iterable[int], routes: Iterable[IPv4Network]) -> Slot:
    """The first slot that no other cluster has and whose ranges no route of this machine overlaps."""
    used = set(taken)
    routed = [route for route in routes if route.prefixlen > 0]
    for number in range(SLOTS):
        slot = Slot(number)
        if number not in used and not any(r.overlaps(slot.node_cidr) or r.overlaps(slot.pod_cidr) for r in routed):
            return slot
    raise PreconditionError(
        "no free address range is left for another cluster",
        "remove one with `nodewright down --name NAME --purge`; see the ranges with `ip route`",
    )


def parse_routes(table: str) -> list[tuple[str, IPv4Network]]:
    """Interfaces and destinations of the kernel's IPv4 routes, from the text of /proc/net/route."""
    routes = []
    for line in table.splitlines()[1:]:
        fields = line.split()
        address, mask = (socket.inet_ntoa(struct.pack("=L", int(fields[i], 16))) for i in (1, 7))
        routes.append((fields[0], IPv4Network((address, mask))))
    return routes


def host_routes() -> list[tuple[str, IPv4Network]]:
    """Interfaces and destinations of this machine's IPv4 routes."""
    return parse_routes(Path("/proc/net/route").read_text())
