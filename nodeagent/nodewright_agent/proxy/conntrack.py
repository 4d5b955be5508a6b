"""Forgets UDP flows that conntrack would keep sending to endpoints that are gone (upstream: pkg/proxy/conntrack).

TCP is left alone: its connections end by themselves, gracefully.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from typing import NamedTuple

from nodewright_agent.proxy.model import Frontend, is_ipv6
from nodewright_agent.proxy.netlink import (
    NETLINK_NETFILTER,
    NetlinkError,
    NetlinkSocket,
    attr,
    attributes,
    nested,
)

_GET, _DELETE = (1 << 8) | 1, (1 << 8) | 2
_ORIGINAL, _REPLY, _ID, _ZONE, _FILTER = 1, 2, 12, 18, 25
_IP, _PROTO = 1, 2
_PROTO_NUMBER, _SOURCE_PORT, _DESTINATION_PORT = 1, 2, 3
_UDP = 17
_AF = {False: 2, True: 10}


class Flow(NamedTuple):
    """A flow in conntrack: where it was sent to at first, and who answers."""

    frontend: bytes
    """Frontend key of the original destination."""
    backend: bytes
    """Endpoint that replies come from."""
    identity: bytes
    """The attributes that name the flow for deletion."""


def decode(payload: bytes, *, ipv6: bool) -> Flow | None:
    """Decode one message of a dump; None for what is not UDP."""
    parts = attributes(payload, 4)
    original, reply = attributes(parts.get(_ORIGINAL, b"")), attributes(parts.get(_REPLY, b""))
    protocol = attributes(original.get(_PROTO, b""))
    if protocol.get(_PROTO_NUMBER) != bytes((_UDP,)):
        return None
    source, destination = (3, 4) if ipv6 else (1, 2)
    address = attributes(original.get(_IP, b"")).get(destination, b"")
    backend = attributes(reply.get(_IP, b"")).get(source, b"")
    port = attributes(reply.get(_PROTO, b"")).get(_SOURCE_PORT, b"")
    identity = attr(_ORIGINAL | 0x8000, parts[_ORIGINAL])
    for kind in (_ID, _ZONE):
        if kind in parts:
            identity += attr(kind, parts[kind])
    return Flow(address + bytes((_UDP,)) + protocol[_DESTINATION_PORT], backend + port, identity)


def stale(flow: Flow, frontends: Mapping[bytes, Frontend]) -> bool:
    """Whether a flow to one of these frontends goes to an endpoint that does not serve.

    A service without endpoints is left alone: there is nothing better to do with its flows.
    """
    frontend = frontends.get(flow.frontend)
    return frontend is not None and bool(frontend.serving) and flow.backend not in frontend.serving


class Conntrack:
    """A socket for conntrack in the network namespace where it was made. Calls block."""

    def __init__(self) -> None:
        """Open it."""
        self._socket = NetlinkSocket(NETLINK_NETFILTER)
        self._filtered = True

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def flows(self, *, ipv6: bool) -> Iterator[Flow]:
        """Give the UDP flows of one family."""
        head = struct.pack("=BBH", _AF[ipv6], 0, 0)
        # the kernel looks at the protocol for us, since Linux 5.8: most entries are TCP
        only_udp = nested(_ORIGINAL, nested(_PROTO, attr(_PROTO_NUMBER, bytes((_UDP,))))) + nested(
            _FILTER, attr(1, struct.pack("=I", 1 << 3)), attr(2, struct.pack("=I", 0))
        )
        if self._filtered:
            try:
                yield from self._flows(head + only_udp, ipv6=ipv6)
                return
            except NetlinkError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                    raise
                self._filtered = False
        yield from self._flows(head, ipv6=ipv6)

    def _flows(self, payload: bytes, *, ipv6: bool) -> Iterator[Flow]:
        for item in self._socket.dump(_GET, payload):
            flow = decode(item.payload, ipv6=ipv6)
            if flow is not None:
                yield flow

    def forget(self, frontends: Mapping[bytes, Frontend], *, every: bool = False) -> int:
        """Delete the stale flows to these frontends, or all of them; gives how many."""

        def gone(flow: Flow) -> bool:
            return stale(flow, frontends) or (every and flow.frontend in frontends)

        deleted = 0
        for ipv6 in sorted({is_ipv6(key) for key, value in frontends.items() if key[-3] == _UDP and value.serving}):
            deleted += self._delete(ipv6, [flow for flow in self.flows(ipv6=ipv6) if gone(flow)])
        return deleted

    def forget_addresses(self, addresses: Set[bytes], *, ipv6: bool) -> int:
        """Delete the UDP flows that were first sent to one of these packed addresses; gives how many."""
        return self._delete(ipv6, [flow for flow in self.flows(ipv6=ipv6) if flow.frontend[:-3] in addresses])

    def forget_where(self, gone: Callable[[Flow], bool], *, ipv6: bool) -> int:
        """Delete the UDP flows of one family that `gone` tells; gives how many."""
        return self._delete(ipv6, [flow for flow in self.flows(ipv6=ipv6) if gone(flow)])

    def _delete(self, ipv6: bool, flows: Iterable[Flow]) -> int:
        deleted, head = 0, struct.pack("=BBH", _AF[ipv6], 0, 0)
        for flow in flows:
            failures = self._socket.request(_DELETE, 0, head + flow.identity)
            if not failures:
                deleted += 1
            elif failures[0].errno != errno.ENOENT:  # it may have ended meanwhile
                raise NetlinkError(failures[0].errno, f"delete conntrack entry: {failures[0]}")
        return deleted
