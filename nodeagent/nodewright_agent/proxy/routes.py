"""Keeps routes from this host to the pods of Nodes that agents registered on other hosts.

The CNI of a kubelet routes to kubelets' pods only. With these, every host of the cluster, the control plane's too,
reaches agents' pods. The CNI's own routes are never touched.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from functools import partial

from nodewright.kube.backoff import Backoff
from nodewright.kube.cache import WatchCache
from nodewright.kube.client import Client
from nodewright.kube.objects import Node
from nodewright.kube.resources import NODES
from nodewright_agent.network.addresses import AGENT_LABEL, route_changes, wanted_routes
from nodewright_agent.proxy.metrics import ProxyMetrics
from nodewright_agent.proxy.routetable import RouteTable

log = logging.getLogger(__name__)

_COALESCE = 0.2
"""Seconds to wait for more changes after the first: pods that come and go change links all the time."""


class NodeRoutes:
    """Makes this host's routes with our protocol number what the Node objects ask for."""

    def __init__(
        self,
        client: Client,
        own_names: frozenset[str],
        metrics: ProxyMetrics,
        *,
        failed: Callable[[str], None],
        table: Callable[[], RouteTable] = RouteTable,
    ) -> None:
        """`own_names`: the Nodes of this host. `failed` is told when there are new problems."""
        self._own_names, self._metrics, self._failed, self._open = own_names, metrics, failed, table
        self._nodes: WatchCache[Node] = WatchCache(
            client, NODES, type=Node, label_selector=f"{AGENT_LABEL}=true", name="proxy-agent-nodes"
        )
        self._changed = asyncio.Event()
        self._wanted: frozenset[str] = frozenset()
        self._problems: list[str] = []

    async def run(self) -> None:
        """Follow the Nodes until cancelled; routes stay then, as rules do. Raises OSError without netlink."""
        table = self._open()
        self._nodes.add_handler(lambda old, new: self._changed.set())
        stop = table.watch(self._changed.set, lambda subnet: subnet in self._wanted)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._nodes.run())
                # routes of a former run stay until the list says which of them are still needed
                await self._nodes.wait_synced()
                await self._keep(table)
        finally:
            stop()
            table.close()

    async def _keep(self, table: RouteTable) -> None:
        backoff = Backoff(1.0, 60.0)
        while True:
            self._changed.clear()
            nodes = list(self._nodes.values())
            # a few messages that the kernel answers at once: no thread is worth it
            problems = self.sync(table, nodes)
            self._tell(problems)
            if not problems:
                backoff.reset()
            try:
                async with asyncio.timeout(backoff.next() if problems else None):
                    await self._changed.wait()
            except TimeoutError:
                log.debug("routes are tried again")
            await asyncio.sleep(_COALESCE)

    def sync(self, table: RouteTable, nodes: Iterable[Node]) -> list[str]:
        """Make our routes right; gives what could not be done. One refused route keeps no other from being set."""
        problems: list[str] = []
        try:
            wanted = wanted_routes(nodes, self._own_names, table.addresses())
            self._wanted = frozenset(route.subnet for route in wanted)
            present = table.present()
            changed, gone = route_changes(wanted, present)
        except OSError as error:
            return [f"routes cannot be read: {error}"]
        for subnet in gone:
            _attempt(partial(table.delete, subnet), problems)
        set_now = [partial(table.set, route, replace=route.subnet in present) for route in changed]
        done = [route for route, step in zip(changed, set_now, strict=True) if _attempt(step, problems)]
        if done or gone:
            log.info("routes to agents' pods changed", extra={"set": [r.subnet for r in done], "removed": gone})
        self._metrics.routes.labels("set").set(len(wanted) - (len(changed) - len(done)))
        self._metrics.routes.labels("failed").set(len(changed) - len(done))
        return problems

    def _tell(self, problems: list[str]) -> None:
        if problems and problems != self._problems:
            text = "; ".join(problems[:5])
            log.error("routes to agents' pods cannot be set", extra={"problems": text})
            self._failed(text)
        self._problems = problems


def _attempt(step: Callable[[], None], problems: list[str]) -> bool:
    try:
        step()
    except OSError as error:
        problems.append(error.strerror or str(error))
        return False
    return True
