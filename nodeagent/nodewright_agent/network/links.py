"""The few netlink operations that pod networking needs, over pyroute2.

Every function here blocks and must run in a thread without an event loop: pyroute2's synchronous classes drive a
private loop of their own. ``inside`` runs a function in another network namespace, in a thread that ends with it,
because a thread that has changed its namespace must never be used for anything else.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from nodewright_agent.network.addresses import ROUTE_PROTOCOL, NetworkError, PodAddress
from nodewright_agent.runtime import syscalls
from nodewright_agent.runtime.nsthread import run_in

T = TypeVar("T")


@contextmanager
def netlink() -> Iterator[IPRoute]:
    """Open a route netlink socket in this thread's network namespace."""
    handle = IPRoute()
    try:
        yield handle
    finally:
        handle.close()


def inside(netns: Path, function: Callable[[], T]) -> T:
    """Run ``function`` in the network namespace pinned at ``netns`` and return its result (or raise its error)."""
    return run_in(netns, syscalls.CLONE_NEWNET, function)


def index_of(handle: IPRoute, name: str) -> int | None:
    """Return the index of the link ``name``, or ``None``."""
    found = handle.link_lookup(ifname=name)
    return found[0] if found else None


def ensure_bridge(handle: IPRoute, name: str, address: str, prefix_length: int) -> int:
    """Make the bridge ``name`` with ``address`` and bring it up; return its index. Other addresses are removed."""
    index = index_of(handle, name)
    if index is None:
        handle.link("add", ifname=name, kind="bridge")
        index = index_of(handle, name)
        if index is None:
            raise NetworkError(f"bridge {name} vanished while it was made")
    wanted = (address, prefix_length)
    present = {(a.get_attr("IFA_ADDRESS"), a["prefixlen"]) for a in handle.get_addr(index=index, family=2)}
    for old, length in present - {wanted}:
        handle.addr("del", index=index, address=old, prefixlen=length)
    if wanted not in present:
        handle.addr("add", index=index, address=address, prefixlen=prefix_length)
    handle.link("set", index=index, state="up")
    return index


def delete_link(handle: IPRoute, name: str) -> bool:
    """Delete the link ``name``; return whether it was there. Deleting one end of a veth pair deletes both."""
    index = index_of(handle, name)
    if index is None:
        return False
    try:
        handle.link("del", index=index)
    except NetlinkError as error:
        if error.code != errno.ENODEV:
            raise
        return False
    return True


def add_veth(handle: IPRoute, name: str, bridge: int, netns: Path, peer: dict[str, Any], *, hairpin: bool) -> None:
    """Make a veth pair: ``name`` on ``bridge`` here, ``peer`` (attributes such as ifname, address) in ``netns``.

    ``hairpin`` lets a frame leave by the port it came in: a pod that reaches itself through a Service needs it.
    """
    pin = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    try:
        handle.link("add", ifname=name, kind="veth", peer={**peer, "net_ns_fd": pin})
    finally:
        os.close(pin)
    index = index_of(handle, name)
    if index is None:
        raise NetworkError(f"link {name} vanished while it was made")
    handle.link("set", index=index, master=bridge, state="up")
    if hairpin:
        handle.brport("set", index=index, mode=1)


def configure_inside(ifname: str, address: PodAddress) -> None:
    """Bring up ``lo`` and ``ifname`` in this namespace, with address and default route."""
    with netlink() as handle:
        index = index_of(handle, ifname)
        if index is None:
            raise NetworkError(f"{ifname} is not in the pod's network namespace")
        handle.link("set", index=1, state="up")
        handle.addr("add", index=index, address=address.ip, prefixlen=address.prefix_length)
        handle.link("set", index=index, state="up")
        handle.route("add", dst="default", gateway=address.gateway)


def our_routes(handle: IPRoute) -> dict[str, str]:
    """Return subnet to gateway of the routes that carry our protocol number."""
    routes = {}
    for route in handle.get_routes(family=2, proto=ROUTE_PROTOCOL):
        target, via = route.get_attr("RTA_DST"), route.get_attr("RTA_GATEWAY")
        if target and via and route["proto"] == ROUTE_PROTOCOL:
            routes[f"{target}/{route['dst_len']}"] = via
    return routes


def set_route(handle: IPRoute, subnet: str, via: str, *, replace: bool) -> None:
    """Make our route to ``subnet``, or ``replace`` it. Raise ``NetworkError`` where another program has one."""
    try:
        handle.route("replace" if replace else "add", dst=subnet, gateway=via, proto=ROUTE_PROTOCOL)
    except NetlinkError as error:
        if error.code == errno.EEXIST and our_routes(handle).get(subnet) == via:
            return  # the proxy of this host was quicker
        raise NetworkError(f"route to {subnet} via {via}: {os.strerror(error.code)}") from error


def delete_route(handle: IPRoute, subnet: str) -> None:
    """Remove our route to ``subnet``; a route that is already gone is fine."""
    try:
        handle.route("del", dst=subnet, proto=ROUTE_PROTOCOL)
    except NetlinkError as error:
        if error.code != errno.ESRCH:
            raise


def write_sysctl(name: str, value: str) -> bool:
    """Set ``net`` sysctl ``name`` (dots as slashes) for this thread's namespace; return False where it is missing."""
    path = Path("/proc/sys") / name.replace(".", "/")
    try:
        if path.read_text().strip() != value:
            path.write_text(value)
    except FileNotFoundError:
        return False
    return True
