"""The few netlink operations that pod networking needs.

Messages of our own: a library that knows all of rtnetlink took 19 ms of CPU for a pod's network, and 10 MB; these take
1 ms. Every function here blocks. ``inside`` runs a function in another network namespace, in a thread that ends with
it, because a thread that has changed its namespace must never be used for anything else.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from nodewright_agent.network.addresses import NetworkError, PodAddress
from nodewright_agent.proxy.netlink import (
    NETLINK_ROUTE,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NetlinkError,
    NetlinkSocket,
    attr,
    attributes,
    nested,
    string,
    text_of,
)
from nodewright_agent.runtime import syscalls
from nodewright_agent.runtime.nsthread import run_in

T = TypeVar("T")

# linux/rtnetlink.h, if_link.h, if_addr.h, if_bridge.h, veth.h
_NEWLINK, _DELLINK, _GETLINK, _SETLINK = 16, 17, 18, 19
_NEWADDR, _DELADDR, _GETADDR = 20, 21, 22
_NEWROUTE = 24
_NLM_F_REPLACE = 0x100
_IFF_UP = 1
_LOOPBACK = 1
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_PROTINFO = 1, 3, 4, 10, 12
_IFLA_LINKINFO, _IFLA_NET_NS_FD = 18, 28
_INFO_KIND, _INFO_DATA = 1, 2
_VETH_PEER = 1
_BRPORT_MODE = 4
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PREFSRC = 1, 4, 5, 7
_MAIN, _STATIC, _UNIVERSE, _LINK, _UNICAST = 254, 4, 0, 253, 1
_U32 = struct.Struct("=I")
_LINK_HEAD = struct.Struct("=BxHiII")
_ADDRESS_HEAD = struct.Struct("=4BI")
_ROUTE_HEAD = struct.Struct("=8BI")


def netlink() -> NetlinkSocket:
    """Open a route netlink socket in this thread's network namespace; to be closed, or used with ``with``."""
    return NetlinkSocket(NETLINK_ROUTE)


def inside(netns: Path, function: Callable[[], T]) -> T:
    """Run ``function`` in the network namespace pinned at ``netns`` and return its result (or raise its error)."""
    return run_in(netns, syscalls.CLONE_NEWNET, function)


def index_of(handle: NetlinkSocket, name: str) -> int | None:
    """Return the index of the link ``name``, or ``None``."""
    found = _look_up(handle, name)
    return found[0] if found is not None else None


def is_up(handle: NetlinkSocket, name: str) -> bool:
    """Tell whether the link ``name`` is there and was brought up: what ``add_veth`` made and ``enable`` finished."""
    found = _look_up(handle, name)
    return found is not None and bool(found[1] & _IFF_UP)


def ensure_bridge(handle: NetlinkSocket, name: str, address: str, prefix_length: int) -> int:
    """Make the bridge ``name`` with ``address`` and bring it up; return its index. Other addresses are removed."""
    index = index_of(handle, name)
    if index is None:
        kind = nested(_IFLA_LINKINFO, string(_INFO_KIND, "bridge"))
        what = f"link {name}"
        handle.require(_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, _link_head() + string(_IFLA_IFNAME, name) + kind, what)
        index = index_of(handle, name)
        if index is None:
            raise NetworkError(f"bridge {name} vanished while it was made")
    wanted = (address, prefix_length)
    for old, length in set(addresses(handle, index)) - {wanted}:
        _delete_address(handle, index, old, length)
    if wanted not in addresses(handle, index):  # it goes with another of its subnet that was there before it
        _add_address(handle, index, address, prefix_length)
    _set_up(handle, index)
    return index


def delete_link(handle: NetlinkSocket, name: str) -> bool:
    """Delete the link ``name``; return whether it was there. Deleting one end of a veth pair deletes both."""
    for failure in handle.request(_DELLINK, 0, _link_head() + string(_IFLA_IFNAME, name)):
        if failure.errno == errno.ENODEV:
            return False
        raise NetlinkError(failure.errno, f"link {name}: {os.strerror(failure.errno)}")
    return True


def add_veth(
    handle: NetlinkSocket,
    name: str,
    bridge: int,
    netns: Path,
    peer: str,
    mac: str,
    *,
    mtu: int = 0,
) -> None:
    """Make a veth pair: ``name`` on ``bridge`` here, ``peer`` with ``mac`` in ``netns``; both are down.

    Both ends have the ``mtu`` (0: the kernel's): an end drops what is longer, and only of a bridge's own MTU, the
    least of its links', does the kernel tell a sender, or cut packets for it.
    """
    pin = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    try:
        other = [
            _link_head(),
            string(_IFLA_IFNAME, peer),
            attr(_IFLA_ADDRESS, bytes.fromhex(mac.replace(":", ""))),
            attr(_IFLA_NET_NS_FD, _U32.pack(pin)),
        ]
        size = attr(_IFLA_MTU, _U32.pack(mtu)) if mtu else b""
        pair = nested(_INFO_DATA, nested(_VETH_PEER, *other, size))
        body = (
            _link_head()
            + string(_IFLA_IFNAME, name)
            + size
            + attr(_IFLA_MASTER, _U32.pack(bridge))
            + nested(_IFLA_LINKINFO, string(_INFO_KIND, "veth"), pair)
        )
        handle.require(_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"link {name}")
    finally:
        os.close(pin)


def enable(handle: NetlinkSocket, name: str, *, hairpin: bool) -> None:
    """Bring up our end of a veth pair, the last step of all: a pair whose end here is down is half made.

    ``hairpin`` lets a frame leave by the port it came in: a pod that reaches itself through a Service needs it.
    """
    index = index_of(handle, name)
    if index is None:
        raise NetworkError(f"link {name} vanished while it was made")
    if hairpin:
        mode = nested(_IFLA_PROTINFO, attr(_BRPORT_MODE, b"\1"))
        handle.require(_SETLINK, 0, _link_head(index, family=socket.AF_BRIDGE) + mode, f"hairpin mode of {name}")
    _set_up(handle, index)


def configure_inside(ifname: str, address: PodAddress) -> None:
    """Bring up ``lo`` and ``ifname`` in this namespace, with address and default route."""
    with netlink() as handle:
        index = index_of(handle, ifname)
        if index is None:
            raise NetworkError(f"{ifname} is not in the pod's network namespace")
        _set_up(handle, _LOOPBACK)
        _add_address(handle, index, address.ip, address.prefix_length)
        _set_up(handle, index)
        body = _ROUTE_HEAD.pack(socket.AF_INET, 0, 0, 0, _MAIN, _STATIC, _UNIVERSE, _UNICAST, 0)
        body += attr(_RTA_GATEWAY, socket.inet_aton(address.gateway))
        handle.require(_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, body, f"default route via {address.gateway}")


def set_link_route(handle: NetlinkSocket, subnet: str, index: int, source: str) -> None:
    """Make ``subnet`` be looked for on the link ``index``, asking as ``source``; a route that is there is replaced."""
    target, _, length = subnet.partition("/")
    body = (
        _ROUTE_HEAD.pack(socket.AF_INET, int(length), 0, 0, _MAIN, _STATIC, _LINK, _UNICAST, 0)
        + attr(_RTA_DST, socket.inet_aton(target))
        + attr(_RTA_OIF, _U32.pack(index))
        + attr(_RTA_PREFSRC, socket.inet_aton(source))
    )
    handle.require(_NEWROUTE, NLM_F_CREATE | _NLM_F_REPLACE, body, f"route to {subnet}")


def addresses(handle: NetlinkSocket, index: int | None = None) -> Iterator[tuple[str, int]]:
    """IPv4 addresses with their prefix lengths: of the link ``index``, or of all."""
    for item in handle.snapshot(_GETADDR, _ADDRESS_HEAD.pack(socket.AF_INET, 0, 0, 0, 0)):
        _, length, _, _, link = _ADDRESS_HEAD.unpack_from(item.payload)
        found = attributes(item.payload, _ADDRESS_HEAD.size).get(_IFA_ADDRESS, b"")
        if len(found) == 4 and index in (None, link):
            yield socket.inet_ntoa(found), length


def link_kinds(handle: NetlinkSocket) -> Iterator[tuple[str, str]]:
    """Name and kind (`veth`, `bridge`, ...; empty for hardware and the like) of each link."""
    for item in handle.snapshot(_GETLINK, _link_head()):
        found = attributes(item.payload, _LINK_HEAD.size)
        info = attributes(found.get(_IFLA_LINKINFO, b""))
        yield text_of(found.get(_IFLA_IFNAME, b"")), text_of(info.get(_INFO_KIND, b""))


def write_sysctl(name: str, value: str) -> bool:
    """Set ``net`` sysctl ``name`` (dots as slashes) for this thread's namespace; return False where it is missing."""
    path = Path("/proc/sys") / name.replace(".", "/")
    try:
        if path.read_text().strip() != value:
            path.write_text(value)
    except FileNotFoundError:
        return False
    return True


def _look_up(handle: NetlinkSocket, name: str) -> tuple[int, int] | None:
    """Index and flags of a link."""
    try:
        for item in handle.dump(_GETLINK, _link_head() + string(_IFLA_IFNAME, name), flags=0):
            _, _, index, flags, _ = _LINK_HEAD.unpack_from(item.payload)
            return int(index), int(flags)
    except NetlinkError as error:
        if error.errno != errno.ENODEV:
            raise
    return None


def _link_head(index: int = 0, *, up: bool = False, family: int = socket.AF_UNSPEC) -> bytes:
    flags = _IFF_UP if up else 0
    return _LINK_HEAD.pack(family, 0, index, flags, flags)


def _set_up(handle: NetlinkSocket, index: int) -> None:
    handle.require(_SETLINK, 0, _link_head(index, up=True), f"link {index} cannot be brought up")


def _address(index: int, ip: str, prefix_length: int) -> bytes:
    packed = socket.inet_aton(ip)
    head = _ADDRESS_HEAD.pack(socket.AF_INET, prefix_length, 0, 0, index)
    return head + attr(_IFA_LOCAL, packed) + attr(_IFA_ADDRESS, packed)


def _delete_address(handle: NetlinkSocket, index: int, ip: str, prefix_length: int) -> None:
    for failure in handle.request(_DELADDR, 0, _address(index, ip, prefix_length)):
        if failure.errno != errno.EADDRNOTAVAIL:
            raise NetlinkError(failure.errno, f"address {ip}/{prefix_length}: {os.strerror(failure.errno)}")


def _add_address(handle: NetlinkSocket, index: int, ip: str, prefix_length: int) -> None:
    what = f"address {ip}/{prefix_length}"
    handle.require(_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, _address(index, ip, prefix_length), what)
