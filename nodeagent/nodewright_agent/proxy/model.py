"""The desired table: what traffic to which address and port goes where. Plain values, no kernel notions.

Addresses are packed bytes, because a table of 100,000 endpoints is kept on every node:

- an *endpoint* is `address (4 or 16 bytes) + port (2 bytes, network order)`,
- a *frontend key* is `address + protocol (1 byte) + port (2 bytes)`.

The family follows from the length. A node port is a frontend at each of the node's own addresses.
"""

from __future__ import annotations

import enum
import socket
import struct
from typing import NamedTuple

PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132}
PROTOCOL_NAMES = {number: name for name, number in PROTOCOLS.items()}

_PORT = struct.Struct("!H")


class Kind(enum.IntEnum):
    """Which field of a Service a frontend comes from; the lower wins where two Services claim the same address."""

    CLUSTER_IP = 0
    NODE_PORT = 1
    LOAD_BALANCER = 2
    EXTERNAL_IP = 3


class Masquerade(enum.IntEnum):
    """Which connections get the node's address as their source, besides an endpoint that reaches itself."""

    NEVER = 0
    OFF_CLUSTER = 1
    """Only sources outside of the pod CIDRs: their replies must come back through this node."""
    LOCAL_SOURCE = 2
    """Only the node's own processes (externalTrafficPolicy: Local keeps everybody else's source)."""
    ALWAYS = 3


class Refusal(enum.IntEnum):
    """What a new connection meets where no endpoint can be used."""

    NONE = 0
    REJECT = 1
    """The service has no endpoint anywhere: refused at once."""
    DROP = 2
    """There are endpoints, but policy Local finds none here: silence, so that load balancers look elsewhere."""


class Frontend(NamedTuple):
    """One address and port of a service port, and where connections to it go."""

    kind: Kind
    owner: str
    """`namespace/name:port` of the service port."""
    endpoints: tuple[bytes, ...]
    """Sorted, unique."""
    external: tuple[bytes, ...] | None = None
    """Where not None (externalTrafficPolicy: Local): the only endpoints for clients outside of cluster and node."""
    masquerade: Masquerade = Masquerade.NEVER
    refusal: Refusal = Refusal.NONE
    affinity: int = 0
    """Seconds for which a client keeps its endpoint; 0 is no affinity."""
    sources: tuple[str, ...] | None = None
    """CIDRs that may connect (loadBalancerSourceRanges), None for everybody."""
    serving: tuple[bytes, ...] = ()
    """UDP only: every endpoint that still serves; flows to others are stale."""


class Table(NamedTuple):
    """A whole desired table."""

    frontends: dict[bytes, Frontend]
    cluster_ips: frozenset[bytes]
    """Packed ClusterIPs: their undefined ports are refused."""
    local_ips: frozenset[bytes]
    """Packed addresses of endpoints on this node: a connection from one to itself must be masqueraded."""


class Delta(NamedTuple):
    """The difference between two tables."""

    frontends: dict[bytes, Frontend | None]
    """None: removed."""
    cluster_ips_added: frozenset[bytes] = frozenset()
    cluster_ips_removed: frozenset[bytes] = frozenset()
    local_ips_added: frozenset[bytes] = frozenset()
    local_ips_removed: frozenset[bytes] = frozenset()

    def __bool__(self) -> bool:
        """Whether anything differs."""
        return any(self)


def pack_address(text: str) -> bytes:
    """Pack an IPv4 or IPv6 address. Raises OSError where it is neither."""
    return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)


def unpack_address(packed: bytes) -> str:
    """Give the text of a packed address."""
    return socket.inet_ntop(socket.AF_INET6 if len(packed) == 16 else socket.AF_INET, packed)


def endpoint(address: bytes, port: int) -> bytes:
    """Pack an endpoint."""
    return address + _PORT.pack(port)


def frontend_key(address: bytes, protocol: int, port: int) -> bytes:
    """Pack a frontend key; protocol is the IP protocol number."""
    return address + bytes((protocol,)) + _PORT.pack(port)


def split_endpoint(packed: bytes) -> tuple[bytes, int]:
    """Give the packed address and the port of an endpoint."""
    return packed[:-2], _PORT.unpack_from(packed, len(packed) - 2)[0]


def split_key(key: bytes) -> tuple[bytes, int, int]:
    """Give packed address, protocol number and port of a frontend key."""
    return key[:-3], key[-3], _PORT.unpack_from(key, len(key) - 2)[0]


def endpoint_text(packed: bytes) -> str:
    """Write an endpoint as `10.1.2.3:80` or `[fd00::1]:80`."""
    address, port = split_endpoint(packed)
    text = unpack_address(address)
    return f"[{text}]:{port}" if len(address) == 16 else f"{text}:{port}"


def key_text(key: bytes) -> str:
    """Write a frontend key as `10.96.0.1:443/TCP`."""
    address, protocol, port = split_key(key)
    return f"{endpoint_text(endpoint(address, port))}/{PROTOCOL_NAMES.get(protocol, protocol)}"


def is_ipv6(key: bytes) -> bool:
    """Tell the family of a frontend key, endpoint or address: 16 address bytes at least make it IPv6."""
    return len(key) >= 16


def difference(old: Table, new: Table) -> Delta:
    """Give what leads from one table to another."""
    frontends: dict[bytes, Frontend | None] = {
        key: value for key, value in new.frontends.items() if old.frontends.get(key) != value
    }
    frontends.update((key, None) for key in old.frontends if key not in new.frontends)
    return Delta(
        frontends,
        new.cluster_ips - old.cluster_ips,
        old.cluster_ips - new.cluster_ips,
        new.local_ips - old.local_ips,
        old.local_ips - new.local_ips,
    )


def patched(table: Table, delta: Delta) -> Table:
    """Apply a difference to a table; `patched(a, difference(a, b)) == b`."""
    frontends = dict(table.frontends)
    for key, value in delta.frontends.items():
        if value is None:
            frontends.pop(key, None)
        else:
            frontends[key] = value
    return Table(
        frontends,
        (table.cluster_ips - delta.cluster_ips_removed) | delta.cluster_ips_added,
        (table.local_ips - delta.local_ips_removed) | delta.local_ips_added,
    )
