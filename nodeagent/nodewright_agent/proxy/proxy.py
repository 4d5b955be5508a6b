"""The proxy of one node: caches of Services, EndpointSlices and the Node, joined to a backend."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Iterable, Sequence

from nodewright.kube.cache import WatchCache
from nodewright.kube.client import Client
from nodewright.kube.events import EventRecorder
from nodewright.kube.objects import Node, ObjectReference
from nodewright.kube.resources import ENDPOINTSLICES, NODES, SERVICES
from nodewright.kube.times import parse_rfc3339
from nodewright_agent.network.addresses import node_addresses
from nodewright_agent.proxy.backends.base import Backend, BackendError
from nodewright_agent.proxy.config import ProxyConfig
from nodewright_agent.proxy.detect import Choice
from nodewright_agent.proxy.health import Endpoints, Health
from nodewright_agent.proxy.healthcheck import HealthCheckServers
from nodewright_agent.proxy.hostaddresses import follow_addresses, within
from nodewright_agent.proxy.metrics import ProxyMetrics, Row, TrafficCollector
from nodewright_agent.proxy.model import endpoint_text, key_text, pack_address, unpack_address
from nodewright_agent.proxy.objects import TRIGGER_TIME_ANNOTATION, EndpointSlice, Service
from nodewright_agent.proxy.onlyone import OnlyOne
from nodewright_agent.proxy.routes import NodeRoutes
from nodewright_agent.proxy.services import NodeView
from nodewright_agent.proxy.switching import ModeSwitch
from nodewright_agent.proxy.sync import Syncer
from nodewright_agent.proxy.sysctl import tune_conntrack
from nodewright_agent.proxy.table import TableBuilder
from nodewright_agent.proxy.wishes import Wishes, no_wishes

log = logging.getLogger(__name__)

_PROXY_NAME_LABEL = "service.kubernetes.io/service-proxy-name"
_ZONE_LABEL = "topology.kubernetes.io/zone"


def service_selector(proxy_name: str | None) -> str:
    """Give the label selector for our Services: those labelled for us, or those labelled for nobody (upstream)."""
    return f"{_PROXY_NAME_LABEL}={proxy_name}" if proxy_name else f"!{_PROXY_NAME_LABEL}"


def node_view(config: ProxyConfig, node: Node | None, host: Iterable[str] = ()) -> NodeView:
    """Put together what the rules need to know of the node; `host`: the addresses of this host."""
    addresses: Sequence[str] = config.node_ips
    if config.node_port_networks:
        addresses = within(host, config.node_port_networks)
    elif not addresses and node is not None:
        addresses = node_addresses(node)
    labels = node.metadata.labels if node is not None else {}
    return NodeView(
        config.node_name,
        labels.get(_ZONE_LABEL, ""),
        tuple(pack_address(address) for address in addresses),
        config.pod_cidrs,
        config.masquerade_all,
        frozenset(config.local_nodes),
    )


class Proxy:
    """Programs the Services of the cluster into the network namespace of this process.

    `run()` does everything; `choice` says which backend was taken and why. A given `backend` is used as it is, else
    one is chosen by the configured mode. The client must be allowed to list and watch Services, EndpointSlices and
    its Node (ClusterRole system:node-proxier has that).
    """

    def __init__(
        self,
        config: ProxyConfig,
        client: Client,
        *,
        backend: Backend | None = None,
        recorder: EventRecorder | None = None,
        metrics: ProxyMetrics | None = None,
        wishes: Wishes | None = None,
    ) -> None:
        """Check the configuration; nothing is started. Raises ProxyConfigError.

        `wishes` brings settings that replace the configured ones while the proxy runs; it must be running itself.
        """
        self.config = config.check()
        self.health = Health(time.time)
        self.metrics = metrics or ProxyMetrics()
        self._client, self._backend, self._recorder = client, backend, recorder
        self._modes = ModeSwitch(config, wishes or no_wishes(), self._event)
        self._builder = TableBuilder(node_view(config, None))
        self._node: Node | None = None
        self._host: frozenset[str] = frozenset()
        self._syncer: Syncer | None = None
        self._nodes = WatchCache(
            client, NODES, type=Node, field_selector=f"metadata.name={config.node_name}", name="proxy-node"
        )
        self._services = WatchCache(
            client,
            SERVICES,
            type=Service,
            label_selector=service_selector(config.service_proxy_name),
            field_selector="spec.clusterIP!=None",
            name="proxy-services",
        )
        self._slices = WatchCache(
            client,
            ENDPOINTSLICES,
            type=EndpointSlice,
            label_selector="!service.kubernetes.io/headless",
            name="proxy-endpointslices",
        )
        self._nodes.add_handler(self._node_changed)
        self._services.add_handler(self._service_changed)
        self._slices.add_handler(self._slice_changed)
        self._health_checks = HealthCheckServers(self.health, self._health_check_failed)
        self._ready = asyncio.Event()
        self.endpoints = Endpoints(self.health, self.metrics, lambda: self.choice.mode if self.choice else "")

    @property
    def choice(self) -> Choice | None:
        """The backend in use and the reason; None before one is chosen."""
        return self._modes.choice

    async def run(self) -> None:
        """Serve until cancelled. Raises ProxyModeError or BackendError where no backend can work."""
        if self._backend is None:
            backend = await self._modes.first()
        else:
            backend = self._backend
            self._modes.choice = Choice(backend.name, "given by the caller")
        syncer = self._syncer = Syncer(
            self._builder,
            backend,
            health=self.health,
            metrics=self.metrics,
            coalesce=self.config.coalesce,
            verify_interval=self.config.verify_interval,
            failed=self._sync_failed,
            synced=self._serve_health_checks,
        )
        right = OnlyOne()
        try:
            await right.wait(self._second)
            await syncer.open()
            # after the backend is open: the settings appear with the kernel's connection tracking
            await asyncio.to_thread(tune_conntrack, os.cpu_count() or 1)
            await self._serve(syncer)
        finally:
            await self._health_checks.close()
            await self.endpoints.close()
            await syncer.close()
            right.release()

    def _second(self) -> None:
        text = "another nodewright proxy serves this host; this one takes over when that ends"
        log.warning(text)
        self._event("Warning", "ProxyWaits", text)

    async def _serve(self, syncer: Syncer) -> None:
        assert self.choice is not None
        log.info("proxy mode chosen", extra={"mode": self.choice.mode, "reason": self.choice.reason})
        self._event("Normal", "ProxyModeChosen", f"Services are programmed by {self.choice.mode}: {self.choice.reason}")
        if self.config.healthz_port:
            await self.endpoints.serve(self.config.healthz_address, self.config.healthz_port, metrics=False)
        if self.config.metrics_port:
            await self.endpoints.serve(self.config.metrics_address, self.config.metrics_port, metrics=True)
        self.metrics.registry.register(TrafficCollector(self._traffic))
        async with asyncio.TaskGroup() as group:
            if self.config.node_port_networks:
                group.create_task(follow_addresses(self._addresses_changed))
            if self.config.routes:
                group.create_task(self._node_routes().run())
            for cache in (self._nodes, self._services, self._slices):
                group.create_task(cache.run())
            # an empty table while lists are under way would cut off every Service that works now
            for cache in (self._nodes, self._services, self._slices):
                await cache.wait_synced()
            self._ready.set()
            group.create_task(self._follow_wishes(syncer))
            await syncer.run()

    async def _follow_wishes(self, syncer: Syncer) -> None:
        """Remove what a former process in another mode left, now that ours works; then switch when it is wished."""
        await syncer.wait_synced()
        if self._backend is None:
            from nodewright_agent.proxy.cleanup import remove_others

            try:
                removed = await syncer.call(lambda: remove_others(syncer.backend.name))
            except (BackendError, OSError) as error:
                log.warning("rules of another proxy mode are not removed", extra={"error": str(error)})
            else:
                if removed:
                    log.info("rules of another proxy mode removed", extra={"removed": removed})
        await self._modes.follow(syncer)

    def _node_routes(self) -> NodeRoutes:
        def failed(text: str) -> None:
            self._event("Warning", "RoutesNotSet", f"Pods of agents on other hosts cannot be reached: {text}")

        return NodeRoutes(self._client, self._builder.node.here, self.metrics, failed=failed)

    async def wait_synced(self) -> None:
        """Wait until the rules are in the kernel for the first time."""
        await self._ready.wait()
        assert self._syncer is not None
        await self._syncer.wait_synced()

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        self.health.node(new)
        self._node = new
        self._view_changed()

    def _addresses_changed(self, addresses: frozenset[str]) -> None:
        self._host = addresses
        self._view_changed()

    def _view_changed(self) -> None:
        self._builder.set_node(node_view(self.config, self._node, self._host))
        if self._builder.dirty:
            self._poke()

    def _service_changed(self, old: Service | None, new: Service | None) -> None:
        present = new if new is not None else old
        assert present is not None
        self.metrics.service_changes.inc()
        self._builder.set_service(present.key, new)
        self._poke()

    def _slice_changed(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        present = new if new is not None else old
        assert present is not None
        self.metrics.endpoint_changes.inc()
        self._builder.set_slice(present.key, old, new)
        moment = new.metadata.annotations.get(TRIGGER_TIME_ANNOTATION) if new is not None else None
        if moment and self._syncer is not None and self._ready.is_set():
            try:
                self._syncer.endpoint_changed_at(parse_rfc3339(moment).timestamp())
            except ValueError:
                log.debug("malformed trigger time", extra={"slice": present.key, "value": moment})
        self._poke()

    def _poke(self) -> None:
        if self._syncer is not None and self._ready.is_set():
            self._syncer.poke()

    async def _serve_health_checks(self) -> None:
        addresses = tuple(map(unpack_address, self._builder.node.addresses))
        await self._health_checks.sync(self._builder.health_checks, addresses)

    def _health_check_failed(self, service: str, message: str) -> None:
        present = self._services.get(service)
        if self._recorder is not None and present is not None:
            meta = present.metadata
            ref = ObjectReference(
                kind="Service", api_version="v1", namespace=meta.namespace, name=meta.name, uid=meta.uid
            )
            self._recorder.event(ref, "Warning", "FailedToStartServiceHealthcheck", message)

    def _sync_failed(self, error: Exception) -> None:
        self._event("Warning", "ProxySyncFailed", f"Rules for Services could not be programmed: {error}")

    def _event(self, kind: str, reason: str, message: str) -> None:
        if self._recorder is not None:
            # events of nodes name them by uid = name, as kubelet's do, so that `kubectl describe node` finds them
            node = ObjectReference(kind="Node", api_version="v1", name=self.config.node_name, uid=self.config.node_name)
            self._recorder.event(node, kind, reason, message)

    def _traffic(self) -> Iterable[Row]:
        """Read the kernel's counters; called in a thread, by a scrape of the metrics."""
        syncer = self._syncer
        if syncer is None:
            return []
        counters = syncer.submit(lambda: syncer.backend.counters())
        owners = self._builder.owners()
        return [(owners.get(key, ""), key_text(key), *value) for key, value in counters.items()]

    async def describe(self, service: str) -> list[str]:
        """Say for a Service (`namespace/name`) which addresses it has here, who serves them, and what carries that."""
        syncer = self._syncer
        if syncer is None:
            return ["the proxy has not started yet"]
        lines: list[str] = []
        conflicts = self._builder.conflicts()
        for key, frontend in sorted(self._builder.rules_of(service).frontends.items()):
            lines.append(f"{key_text(key)} ({frontend.kind.name}) of {frontend.owner}")
            if key in conflicts:
                lines.append(f"  claimed by {', '.join(sorted(conflicts[key]))}; the first one has it")
            lines.append(f"  endpoints: {', '.join(map(endpoint_text, frontend.endpoints)) or frontend.refusal.name}")
            if frontend.external is not None:
                local = ", ".join(map(endpoint_text, frontend.external)) or "DROP"
                lines.append(f"  for clients outside of the cluster: {local}")
            lines.append(f"  masquerade: {frontend.masquerade.name}")
            if frontend.affinity:
                lines.append(f"  a client keeps its endpoint for {frontend.affinity} s")
            if frontend.sources is not None:
                lines.append(f"  open to: {', '.join(frontend.sources) or 'nobody'}")
            lines += [f"  {line}" for line in await syncer.call(lambda key=key: syncer.backend.describe(key))]  # type: ignore[misc]
        return lines or [f"{service}: no rules here (headless, ExternalName, of another proxy, or unknown)"]
