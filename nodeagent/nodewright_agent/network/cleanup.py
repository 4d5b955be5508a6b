"""Removes from this host's network everything that the pod network of an agent has made in it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from nodewright_agent.network import forwarding, hostports, links, masquerade
from nodewright_agent.network.addresses import BRIDGE
from nodewright_agent.network.podnet import TABLE
from nodewright_agent.proxy.netlink import NetlinkSocket
from nodewright_agent.proxy.routetable import RouteTable

_HOST_LINK = re.compile(r"nw[0-9a-f]{12}")
"""Names as ``addresses.host_link`` makes them."""


def remove_all() -> list[str]:
    """Remove pods' links, the bridge, our routes and rules from this network namespace; return what was removed.

    Nothing but the kernel's state is looked at, so it does not matter how the agent ended; it must have ended. Blocks.
    Idempotent: the second call returns nothing. Raise ``OSError`` for what the kernel refuses.
    """
    removed = _links_and_routes()
    if masquerade.remove_table(TABLE):
        removed.append(f"nft table ip {TABLE}")
    if hostports.remove():
        removed.append(f"nft table ip {hostports.TABLE}")
    return removed + masquerade.remove_iptables(BRIDGE) + forwarding.remove(BRIDGE)


def _links_and_routes() -> list[str]:
    with links.netlink() as handle:
        removed = [f"link {name}" for name in sorted(_pod_links(handle)) if links.delete_link(handle, name)]
        with contextlib.closing(RouteTable()) as routes:
            for subnet in sorted(routes.present()):
                routes.delete(subnet)
                removed.append(f"route {subnet}")
        if links.delete_link(handle, BRIDGE):
            removed.append(f"link {BRIDGE}")
    return removed


def _pod_links(handle: NetlinkSocket) -> Iterator[str]:
    return (name for name, kind in links.link_kinds(handle) if kind == "veth" and _HOST_LINK.fullmatch(name))
