"""PodNetwork: the built-in pod network of one node (bridge, veth, on-disk IPAM, static routes, masquerade)."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Network
from pathlib import Path
from typing import TypeVar

import msgspec

from nodewright_agent.failpoints import failpoint
from nodewright_agent.network import forwarding, hostports, links, masquerade
from nodewright_agent.network.addresses import (
    BRIDGE,
    NetworkError,
    NodeRoute,
    PodAddress,
    gateway,
    host_link,
    parse_pod_cidr,
    pod_address,
    route_changes,
)
from nodewright_agent.network.hostports import HostPorts, PortMapping
from nodewright_agent.network.ipam import AddressPool
from nodewright_agent.proxy.backends.nftables.monitor import Monitor
from nodewright_agent.proxy.hostaddresses import follow_addresses
from nodewright_agent.proxy.routetable import RouteTable

log = logging.getLogger(__name__)
T = TypeVar("T")
TABLE = "nodewright-pods"
_COALESCE = 0.3
"""Seconds between a change by others and the look at it; a change comes as several messages."""


class NetworkConfig(msgspec.Struct, kw_only=True):
    """Settings: where assignments are kept, the CIDR of all pods of the cluster, and the links' MTU (0: kernel's)."""

    state_dir: Path
    cluster_cidr: str
    mtu: int = 0


class PodNetwork:
    """Attaches pods to the network of this node.

    Everything happens in the network namespace of the process. All netlink work runs in one worker thread, so calls
    are serialised and the event loop is never blocked. Each operation can be repeated after a crash at any point.
    """

    def __init__(self, config: NetworkConfig) -> None:
        """Prepare; nothing is touched before ``start``."""
        self._config = config
        self._subnet: IPv4Network | None = None
        self._pool: AddressPool | None = None
        self._bridge = 0
        self._ports = HostPorts(config.state_dir / "hostports", BRIDGE)
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="podnet")

    async def start(self, pod_cidr: str) -> None:
        """Make the bridge, forwarding and masquerade for ``pod_cidr``. Raise ``NetworkError`` where that fails."""
        subnet = parse_pod_cidr(pod_cidr)
        await self._do(lambda: self._start(subnet))

    async def attach(self, pod_uid: str, netns: Path) -> PodAddress:
        """Give the sandbox pinned at ``netns`` its ``eth0``; the same answer again for a pod that has one."""
        return await self._do(lambda: self._attach(pod_uid, netns))

    async def publish(self, pod_uid: str, wanted: list[PortMapping]) -> None:
        """Open the host ports of an attached pod, until it is detached. Raise ``NetworkError`` where that fails."""
        await self._do(lambda: self._ports.publish(pod_uid, wanted))

    async def detach(self, pod_uid: str) -> None:
        """Remove the pod's host ports and link, and give its address back; nothing happens for an unknown pod."""
        await self._do(lambda: self._detach(pod_uid))

    async def sync_routes(self, wanted: Iterable[NodeRoute]) -> None:
        """Make our routes to the pods of other nodes exactly ``wanted``."""
        routes = frozenset(wanted)
        await self._do(lambda: self._sync_routes(routes))

    async def keep(self) -> None:
        """Put our rules back within a second when another program removes them; follow the host's addresses.

        Never returns.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_rules())
            group.create_task(self._keep_addresses())

    async def _keep_addresses(self) -> None:
        """Open host ports at addresses that the host gets later."""
        found: asyncio.Queue[frozenset[str]] = asyncio.Queue()
        async with asyncio.TaskGroup() as group:
            group.create_task(follow_addresses(found.put_nowait))
            while True:
                addresses = await found.get()
                try:
                    await self._do(functools.partial(self._ports.moved, addresses))
                except (NetworkError, OSError) as error:
                    log.error("host ports cannot be opened at new addresses: %s", error)

    async def _keep_rules(self) -> None:
        changed = asyncio.Event()
        monitors: list[Monitor] = []
        try:
            monitors += [Monitor(table, 0) for table in (TABLE, hostports.TABLE)]
        except OSError as error:
            log.warning("changes of the pod network's rules are not seen", extra={"error": str(error)})
            await asyncio.Event().wait()
            return
        stops = [monitor.start(lambda reason: changed.set()) for monitor in monitors]
        try:
            while True:
                await changed.wait()
                await asyncio.sleep(_COALESCE)
                changed.clear()
                try:
                    await self._do(self._restore)
                except (NetworkError, OSError) as error:
                    log.error("rules of the pod network cannot be restored: %s", error)
        finally:
            for stop in stops:
                stop()
            for monitor in monitors:
                monitor.close()

    def attached(self) -> dict[str, str]:
        """Return address by pod UID, as recorded on disk."""
        return {uid: str(address) for uid, address in self._started()[1].assignments().items()}

    def close(self) -> None:
        """Let the worker thread end; links, addresses and rules stay for the pods that run."""
        self._worker.shutdown(wait=False)

    async def _do(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, function)

    def _started(self) -> tuple[IPv4Network, AddressPool]:
        if self._subnet is None or self._pool is None:
            raise NetworkError("the node has no pod CIDR yet")
        return self._subnet, self._pool

    def _start(self, subnet: IPv4Network) -> None:
        links.write_sysctl("net.ipv4.ip_forward", "1")
        # Replies between two pods of one bridge must pass netfilter, or a Service's DNAT is not undone for them.
        if not links.write_sysctl("net.bridge.bridge-nf-call-iptables", "1"):
            log.warning("br_netfilter is missing (modprobe br_netfilter): Services between pods of one node will fail")
        with links.netlink() as handle:
            self._bridge = links.ensure_bridge(handle, BRIDGE, str(gateway(subnet)), subnet.prefixlen)
        tool = masquerade.ensure(self._rule(subnet))
        forwarding.ensure(BRIDGE)
        self._pool = AddressPool(self._config.state_dir / "ipam", subnet)
        self._ports.start(self._pool.assignments())
        self._subnet = subnet
        log.info("pod network is ready", extra={"podCIDR": str(subnet), "bridge": BRIDGE, "masquerade": tool})

    def _rule(self, subnet: IPv4Network) -> masquerade.Rule:
        return masquerade.Rule(TABLE, str(subnet), self._config.cluster_cidr, BRIDGE)

    def _restore(self) -> None:
        if self._ports.restore():
            log.warning("another program changed the rules of host ports; they are restored")
        if self._subnet is None or masquerade.present(self._rule(self._subnet)):
            return
        masquerade.ensure(self._rule(self._subnet))
        forwarding.ensure(BRIDGE)
        log.warning("another program removed the pod network's rules; they are restored")

    def _attach(self, pod_uid: str, netns: Path) -> PodAddress:
        subnet, pool = self._started()
        address = pod_address(pool.assign(pod_uid), subnet)
        failpoint("network.assigned")
        name = host_link(pod_uid)
        with links.netlink() as handle:
            if links.is_up(handle, name) and links.inside(netns, lambda: _has_address(address.ip)):
                return address
            links.delete_link(handle, name)  # half made, if there is one: the agent died in between
            try:
                links.add_veth(handle, name, self._bridge, netns, "eth0", address.mac, mtu=self._config.mtu)
                failpoint("network.linked")
                links.inside(netns, lambda: links.configure_inside("eth0", address))
                failpoint("network.configured")
                links.enable(handle, name, hairpin=True)
            except Exception:
                links.delete_link(handle, name)
                pool.release(pod_uid)
                raise
        failpoint("network.attached")
        return address

    def _detach(self, pod_uid: str) -> None:
        self._ports.withdraw(pod_uid)
        failpoint("network.withdrawn")
        with links.netlink() as handle:
            links.delete_link(handle, host_link(pod_uid))
        failpoint("network.unlinked")
        if self._pool is not None:
            self._pool.release(pod_uid)
        failpoint("network.released")

    def _sync_routes(self, wanted: frozenset[NodeRoute]) -> None:
        problems: list[str] = []
        with contextlib.closing(RouteTable()) as table:
            present = table.present()
            changed, gone = route_changes(wanted, present)
            for subnet in gone:
                table.delete(subnet)
            for route in changed:
                try:
                    table.set(route, replace=route.subnet in present)
                except OSError as error:  # keeps no other route from being set
                    problems.append(str(error))
        if changed or gone:
            log.info("routes to other nodes changed", extra={"set": [r.subnet for r in changed], "removed": gone})
        if problems:
            raise NetworkError("; ".join(problems))


def _has_address(ip: str) -> bool:
    with links.netlink() as handle:
        return any(found == ip for found, _ in links.addresses(handle))
