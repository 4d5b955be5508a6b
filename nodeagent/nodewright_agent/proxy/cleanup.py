"""Removes everything of the proxy from this network namespace, whichever backend made it."""

from __future__ import annotations

import errno
import shutil
import subprocess
from collections.abc import Iterable

from nodewright_agent.proxy.backends.base import BackendOptions
from nodewright_agent.proxy.backends.ipvs.companion import PREFIX
from nodewright_agent.proxy.backends.nftables import layout, wire
from nodewright_agent.proxy.backends.nftables.kernel import Nftables, usable
from nodewright_agent.proxy.conntrack import Conntrack
from nodewright_agent.proxy.model import is_ipv6
from nodewright_agent.proxy.netlink import NetlinkError
from nodewright_agent.proxy.routetable import RouteTable


def remove_all(*, routes: bool = True) -> list[str]:
    """Remove all rules, links, sets and (with `routes`) routes of ours; gives a text for each thing removed.

    The proxy must have ended. UDP flows in conntrack to the Services' addresses go, too: they would be translated for
    as long as they are used. Connections over TCP are let go on; without translation they would hang. Idempotent.
    Raises BackendError or OSError naming what the kernel refuses.
    """
    removed = _nftables() + _ipvs()
    if routes:
        removed += _routes()
    return removed


def remove_others(mode: str) -> list[str]:
    """Remove what former processes in other modes left; gives a text for each thing removed.

    Connections through IPVS end with it. Raises BackendError or OSError naming what the kernel refuses.
    """
    removed: list[str] = []
    if mode != "nftables":
        removed += _nftables()
    if mode != "ipvs":
        removed += _ipvs()
    return removed


def _nftables() -> list[str]:
    removed: list[str] = []
    if usable(wire.NFPROTO_IPV4) is not None:
        return removed
    kernel = Nftables()
    try:
        for ipv6 in (False, True):
            table = layout.Layout(ipv6=ipv6, pod_cidrs=())
            addresses = _addresses(kernel, table.family)
            if addresses is None:
                continue
            kernel.commit(table.remove())
            removed.append(f"nft table {'ip6' if ipv6 else 'ip'} {layout.TABLE}")
            removed += _flows(addresses, ipv6=ipv6)
    finally:
        kernel.close()
    return removed


def _addresses(kernel: Nftables, family: int) -> set[bytes] | None:
    """Give the packed addresses of the Services in our table of a family; None where there is no such table."""
    if layout.TABLE not in kernel.tables(family):
        return None
    try:
        places = {item.key for item in kernel.dump(family, layout.TABLE, layout.FRONTENDS)}
    except NetlinkError as error:
        if error.errno != errno.ENOENT:  # a table that others have emptied
            raise
        return set()
    return {place[:-8] for place in places}


def _flows(addresses: Iterable[bytes], *, ipv6: bool) -> list[str]:
    try:
        conntrack = Conntrack()
    except OSError:  # a kernel without connection tracking has no flows
        return []
    try:
        count = conntrack.forget_addresses(frozenset(addresses), ipv6=ipv6)
    finally:
        conntrack.close()
    return [f"{count} UDP flows in conntrack"] if count else []


def _ipvs() -> list[str]:
    """Remove the ipvs backend's things. Its sets tell whether it ever ran here: the link may be kube-proxy's."""
    if shutil.which("ipset") is None:
        return []
    listed = subprocess.run(["ipset", "list", "-n"], capture_output=True, text=True, check=False)
    sets = [name for name in listed.stdout.split() if name.startswith(PREFIX)]
    if not sets:
        return []
    from nodewright_agent.proxy.backends.ipvs.backend import LINK, IpvsBackend

    backend = IpvsBackend(BackendOptions())
    backend.open()
    try:
        addresses = backend.link.addresses()
        backend.cleanup()
    finally:
        backend.close()
    removed = [f"ipvs services, link {LINK} and iptables rules", *(f"ipset {name}" for name in sorted(sets))]
    for ipv6 in (False, True):
        removed += _flows((address for address in addresses if is_ipv6(address) == ipv6), ipv6=ipv6)
    return removed


def _routes() -> list[str]:
    table = RouteTable()
    try:
        subnets = sorted(table.present())
        for subnet in subnets:
            table.delete(subnet)
    finally:
        table.close()
    return [f"route {subnet}" for subnet in subnets]
