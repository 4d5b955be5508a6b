"""Removes from this host's network everything that the pod network of an agent has made in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from pyroute2 import IPRoute

from nodewright_agent.network import forwarding, hostports, links, masquerade
from nodewright_agent.network.addresses import BRIDGE
from nodewright_agent.network.podnet import TABLE

_HOST_LINK = re.compile(r"nw[0-9a-f]{12}")
"""Names as ``addresses.host_link`` makes them."""


def remove_all() -> list[str]:
    """Remove pods' links, the bridge, our routes and rules from this network namespace; return what was removed.

    Nothing but the kernel's state is looked at, so it does not matter how the agent ended; it must have ended. Blocks.
    Idempotent: the second call returns nothing. Raise ``OSError`` for what the kernel refuses.
    """
    with ThreadPoolExecutor(max_workers=1) as worker:  # pyroute2 refuses to work in a thread with an event loop
        removed = worker.submit(_links_and_routes).result()
    if masquerade.remove_table(TABLE):
        removed.append(f"nft table ip {TABLE}")
    if hostports.remove():
        removed.append(f"nft table ip {hostports.TABLE}")
    return removed + masquerade.remove_iptables(BRIDGE) + forwarding.remove(BRIDGE)


def _links_and_routes() -> list[str]:
    with links.netlink() as handle:
        removed = [f"link {name}" for name in sorted(_pod_links(handle)) if links.delete_link(handle, name)]
        for subnet in sorted(links.our_routes(handle)):
            links.delete_route(handle, subnet)
            removed.append(f"route {subnet}")
        if links.delete_link(handle, BRIDGE):
            removed.append(f"link {BRIDGE}")
    return removed


def _pod_links(handle: IPRoute) -> Iterator[str]:
    for link in handle.get_links():
        name, info = link.get_attr("IFLA_IFNAME"), link.get_attr("IFLA_LINKINFO")
        if _HOST_LINK.fullmatch(name) and info is not None and info.get_attr("IFLA_INFO_KIND") == "veth":
            yield name
