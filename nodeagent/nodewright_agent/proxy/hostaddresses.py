"""This host's own addresses, as long as node ports are to answer on those inside of given networks."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
import struct
from collections.abc import Callable, Iterable

from nodewright_agent.proxy.model import unpack_address
from nodewright_agent.proxy.netlink import NETLINK_ROUTE, NetlinkSocket, attributes, messages

_NEWADDR, _DELADDR, _GETADDR = 20, 21, 22
_GROUP_IPV4_IFADDR, _GROUP_IPV6_IFADDR = 5, 9
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
IPVS_LINK = "kube-ipvs0"
"""The dummy link of ipvs mode, ours and kube-proxy's."""


def within(addresses: Iterable[str], networks: Iterable[str]) -> tuple[str, ...]:
    """Give the addresses inside of the networks, sorted, without those that node ports never answer on.

    These are loopback (as upstream's nftables mode: packets with a loopback source cannot leave) and link-local ones,
    which mean something else on every link.
    """
    wanted = [ipaddress.ip_network(text) for text in networks]
    found = {ipaddress.ip_address(text) for text in addresses}
    usable = [ip for ip in found if not ip.is_loopback and not ip.is_link_local]
    inside = [ip for ip in usable if any(ip in network for network in wanted)]
    return tuple(map(str, sorted(inside, key=lambda ip: (ip.version, int(ip)))))


def _index(link: str) -> int:
    try:
        return socket.if_nametoindex(link)
    except OSError:
        return 0


class HostAddresses:
    """The addresses of the network namespace of the calling thread."""

    def __init__(self) -> None:
        """Open the sockets."""
        self._socket = NetlinkSocket(NETLINK_ROUTE)
        self._news = NetlinkSocket(NETLINK_ROUTE, groups=(_GROUP_IPV4_IFADDR, _GROUP_IPV6_IFADDR))
        self._news.socket.setblocking(False)

    def close(self) -> None:
        """Close the sockets."""
        self._socket.close()
        self._news.close()

    def read(self) -> frozenset[str]:
        """Give all addresses of both families, but those of Services that IPVS needs on a link."""
        found, virtual = set(), _index(IPVS_LINK)
        for item in self._socket.dump(_GETADDR, struct.pack("=BBBBI", 0, 0, 0, 0, 0)):
            if struct.unpack_from("=I", item.payload, 4)[0] == virtual:
                continue
            parts = attributes(item.payload, 8)
            address = parts.get(_IFA_LOCAL) or parts.get(_IFA_ADDRESS)
            if address:
                found.add(unpack_address(address))
        return frozenset(found)

    async def changes(self, told: Callable[[frozenset[str]], None]) -> None:
        """Tell the addresses now and after each change, until cancelled."""
        loop, changed = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._news.socket, self._drain, changed)
        known: frozenset[str] | None = None
        try:
            while True:
                present = self.read()
                if present != known:
                    told(present)
                    known = present
                await changed.wait()
                await asyncio.sleep(0.1)  # pods of some CNIs come with an address on the host: take several together
                changed.clear()
        finally:
            loop.remove_reader(self._news.socket)

    def _drain(self, changed: asyncio.Event) -> None:
        try:
            while True:
                for item in messages(self._news.receive()):
                    if item.type in (_NEWADDR, _DELADDR):
                        changed.set()
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            changed.set()


async def follow_addresses(told: Callable[[frozenset[str]], None]) -> None:
    """Tell the addresses of this network namespace now and after each change, until cancelled."""
    addresses = HostAddresses()
    try:
        await addresses.changes(told)
    finally:
        addresses.close()
