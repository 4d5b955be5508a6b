"""IPVS over generic netlink: encoding of services and destinations, decoding of dumps. No I/O.

Written after linux/ip_vs.h. Everything is in host byte order but addresses and ports.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from nodewright_agent.proxy.netlink import attr, attributes, nested, string, text_of

(
    NEW_SERVICE,
    SET_SERVICE,
    DEL_SERVICE,
    GET_SERVICE,
    NEW_DEST,
    SET_DEST,
    DEL_DEST,
    GET_DEST,
) = range(1, 9)

PERSISTENT = 0x1
HASHED = 0x2
"""The kernel's own flag; ignored in comparisons."""

_AF = {4: 2, 16: 10}
_CMD_SERVICE, _CMD_DEST = 1, 2
_MASQUERADED = 0
_U16 = struct.Struct("=H")
_U32 = struct.Struct("=I")
_PORT = struct.Struct("!H")
_U64 = struct.Struct("=Q")


class Service(NamedTuple):
    """A virtual server's settings."""

    scheduler: str = "rr"
    flags: int = 0
    timeout: int = 0
    """Seconds for which a client keeps its destination, where flags say PERSISTENT."""


class Destination(NamedTuple):
    """A real server's state, from a dump."""

    weight: int
    active: int
    inactive: int
    persistent: int

    @property
    def idle(self) -> bool:
        """Whether no connection is left."""
        return self.active == 0 and self.inactive == 0


def _u16(kind: int, value: int) -> bytes:
    return attr(kind, _U16.pack(value))


def _u32(kind: int, value: int) -> bytes:
    return attr(kind, _U32.pack(value))


def _identity(key: bytes) -> bytes:
    """Encode family, protocol, address and port from a frontend key."""
    address = key[:-3]
    return _u16(1, _AF[len(address)]) + _u16(2, key[-3]) + attr(3, address) + attr(4, key[-2:])


def service_key(key: bytes) -> bytes:
    """Encode which service is meant."""
    return nested(_CMD_SERVICE, _identity(key))


def service(key: bytes, settings: Service) -> bytes:
    """Encode a service in full. The mask is one of addresses for IPv4, and a prefix length for IPv6."""
    mask = 0xFFFFFFFF if len(key) == 7 else 128
    return nested(
        _CMD_SERVICE,
        _identity(key),
        string(6, settings.scheduler),
        attr(7, struct.pack("=II", settings.flags, 0xFFFFFFFF)),
        _u32(8, settings.timeout),
        _u32(9, mask),
    )


def destination_key(endpoint: bytes) -> bytes:
    """Encode which destination is meant."""
    address = endpoint[:-2]
    return nested(_CMD_DEST, attr(1, address) + attr(2, endpoint[-2:]) + _u16(11, _AF[len(address)]))


def destination(endpoint: bytes, weight: int) -> bytes:
    """Encode a destination in full; traffic to it has its address translated. Weight 0: no new connections."""
    address = endpoint[:-2]
    return nested(
        _CMD_DEST,
        attr(1, address),
        attr(2, endpoint[-2:]),
        _u16(11, _AF[len(address)]),
        _u32(3, _MASQUERADED),
        _u32(4, weight),
        _u32(5, 0),
        _u32(6, 0),
    )


def decode_service(payload: bytes) -> tuple[bytes, Service] | None:
    """Decode one message of a dump of services; None for those by firewall mark, which are never ours."""
    parts = attributes(attributes(payload, 4).get(_CMD_SERVICE, b""))
    if 3 not in parts:
        return None
    family = _U16.unpack(parts[1])[0]
    address = parts[3][: 4 if family == 2 else 16]
    key = address + bytes((_U16.unpack(parts[2])[0],)) + parts[4]
    flags = _U32.unpack_from(parts[7])[0] & ~HASHED
    timeout = _U32.unpack(parts[8])[0] if flags & PERSISTENT else 0
    return key, Service(text_of(parts[6]), flags, timeout)


def decode_destination(payload: bytes) -> tuple[bytes, Destination] | None:
    """Decode one message of a dump of destinations."""
    parts = attributes(attributes(payload, 4).get(_CMD_DEST, b""))
    if 1 not in parts:
        return None
    family = _U16.unpack(parts[11])[0] if 11 in parts else 2
    endpoint = parts[1][: 4 if family == 2 else 16] + parts[2]
    numbers = (_U32.unpack(parts[kind])[0] if kind in parts else 0 for kind in (4, 7, 8, 9))
    return endpoint, Destination(*numbers)


def decode_traffic(payload: bytes) -> tuple[int, int]:
    """Give connections and bytes in both directions from a service's dump (the kernel renews them every 2 s)."""
    parts = attributes(attributes(payload, 4).get(_CMD_SERVICE, b""))
    stats = attributes(parts.get(12, b""))
    if not stats:
        return 0, 0
    return _number(stats, 1), _number(stats, 4) + _number(stats, 5)


def _number(parts: dict[int, bytes], kind: int) -> int:
    value = parts.get(kind, b"")
    if len(value) == 8:
        return int(_U64.unpack(value)[0])
    return int(_U32.unpack(value)[0]) if len(value) == 4 else 0


def commands(pairs: Iterator[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """Prefix each payload with the generic netlink header of its command."""
    return [(number, struct.pack("=BBH", number, 1, 0) + payload) for number, payload in pairs]
