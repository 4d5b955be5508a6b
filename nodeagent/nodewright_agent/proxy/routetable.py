"""Our routes in the kernel, over plain netlink: the proxy alone needs no library for the few messages."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Callable
from typing import NamedTuple

from nodewright_agent.network.addresses import ROUTE_PROTOCOL, NodeRoute
from nodewright_agent.proxy.netlink import (
    NETLINK_ROUTE,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NetlinkSocket,
    attr,
    attributes,
    messages,
)

_NEWLINK = 16
_GETADDR = 22
_NEWROUTE, _DELROUTE, _GETROUTE = 24, 25, 26
_NLM_F_REPLACE = 0x100
_GROUP_LINK, _GROUP_IPV4_ROUTE = 1, 7
_DST, _GATEWAY = 1, 5
_MAIN, _UNIVERSE, _UNICAST = 254, 0, 1
_IFA_LOCAL, _IFA_ADDRESS = 2, 1


class Foreign(OSError):
    """Another program has a route to the subnet; it stays."""


class _Entry(NamedTuple):
    subnet: str
    via: str
    protocol: int
    table: int


def _decode(payload: bytes) -> _Entry:
    _, length, _, _, table, protocol, _, _ = struct.unpack_from("=8B", payload)
    parts = attributes(payload, 12)
    target, via = parts.get(_DST, b"\0\0\0\0"), parts.get(_GATEWAY, b"")
    return _Entry(
        f"{socket.inet_ntoa(target)}/{length}", socket.inet_ntoa(via) if len(via) == 4 else "", protocol, table
    )


def _message(subnet: str, via: str = "") -> bytes:
    target, _, length = subnet.partition("/")
    head = struct.pack("=8BI", socket.AF_INET, int(length), 0, 0, _MAIN, ROUTE_PROTOCOL, _UNIVERSE, _UNICAST, 0)
    body = head + attr(_DST, socket.inet_aton(target))
    return body + attr(_GATEWAY, socket.inet_aton(via)) if via else body


class RouteTable:
    """IPv4 routes with our protocol number in the main table of the network namespace where this was made."""

    def __init__(self) -> None:
        """Open the sockets."""
        self._socket = NetlinkSocket(NETLINK_ROUTE)
        self._news = NetlinkSocket(NETLINK_ROUTE, groups=(_GROUP_LINK, _GROUP_IPV4_ROUTE))
        self._news.socket.setblocking(False)

    def close(self) -> None:
        """Close the sockets; routes stay."""
        self._socket.close()
        self._news.close()

    def present(self) -> dict[str, str]:
        """Give subnet to gateway of our routes."""
        head = struct.pack("=8BI", socket.AF_INET, 0, 0, 0, 0, 0, 0, 0, 0)
        entries = (_decode(item.payload) for item in self._socket.dump(_GETROUTE, head) if item.type == _NEWROUTE)
        return {entry.subnet: entry.via for entry in entries if _ours(entry)}

    def addresses(self) -> frozenset[str]:
        """Give this host's own IPv4 addresses."""
        found = set()
        for item in self._socket.dump(_GETADDR, struct.pack("=BBBBI", socket.AF_INET, 0, 0, 0, 0)):
            parts = attributes(item.payload, 8)
            address = parts.get(_IFA_LOCAL) or parts.get(_IFA_ADDRESS, b"")
            if len(address) == 4:
                found.add(socket.inet_ntoa(address))
        return frozenset(found)

    def set(self, route: NodeRoute, *, replace: bool) -> None:
        """Make a route, or replace ours. Raises Foreign where somebody else has one, OSError for what is refused."""
        flags = NLM_F_CREATE | (_NLM_F_REPLACE if replace else NLM_F_EXCL)
        for failure in self._socket.request(_NEWROUTE, flags, _message(route.subnet, route.via)):
            if failure.errno == errno.EEXIST:
                if self.present().get(route.subnet) == route.via:
                    return  # the agent beside us was quicker
                raise Foreign(errno.EEXIST, f"{route.subnet} has a route of another program")
            raise OSError(failure.errno, f"{route.subnet} via {route.via}: {os.strerror(failure.errno)}")

    def delete(self, subnet: str) -> None:
        """Remove our route; one that is gone is fine."""
        for failure in self._socket.request(_DELROUTE, 0, _message(subnet)):
            if failure.errno != errno.ESRCH:
                raise OSError(failure.errno, f"{subnet}: {os.strerror(failure.errno)}")

    def watch(self, changed: Callable[[], None], wanted: Callable[[str], bool]) -> Callable[[], None]:
        """Call `changed` in the running loop when a route of ours, or another to a `wanted` subnet, went away.

        The kernel takes routes with the link that they use and says nothing about them, so links count, too.
        Gives the way to stop.
        """
        loop = asyncio.get_running_loop()
        loop.add_reader(self._news.socket, self._read, changed, wanted)

        def stop() -> None:
            loop.remove_reader(self._news.socket)

        return stop

    def _read(self, changed: Callable[[], None], wanted: Callable[[str], bool]) -> None:
        concerned = False
        try:
            while True:
                for item in messages(self._news.receive()):
                    if item.type == _DELROUTE:
                        entry = _decode(item.payload)
                        concerned = concerned or _ours(entry) or wanted(entry.subnet)
                    concerned = concerned or item.type == _NEWLINK
        except BlockingIOError:
            pass
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            concerned = True
        if concerned:
            changed()


def _ours(entry: _Entry) -> bool:
    return entry.protocol == ROUTE_PROTOCOL and entry.table == _MAIN and bool(entry.via)
