"""Prometheus collectors of the proxy, under kube-proxy's names (pkg/proxy/metrics)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

_SECONDS = tuple(0.001 * 2**power for power in range(15))
_PROGRAMMING = (
    0.25,
    0.5,
    *(float(n) for n in range(1, 60)),
    *(float(n) for n in range(60, 120, 5)),
    120.0,
    180.0,
    300.0,
)


class ProxyMetrics:
    """All collectors, on a registry of their own, so that several proxies can live in one process."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        """Register them; without a registry a new one is made."""
        self.registry = registry if registry is not None else CollectorRegistry()
        self.sync = self._histogram("sync_proxy_rules_duration_seconds", "SyncProxyRules latency in seconds")
        self.full_sync = self._histogram(
            "sync_full_proxy_rules_duration_seconds", "SyncProxyRules latency in seconds for full resyncs"
        )
        self.partial_sync = self._histogram(
            "sync_partial_proxy_rules_duration_seconds", "SyncProxyRules latency in seconds for partial resyncs"
        )
        self.programming = self._histogram(
            "network_programming_duration_seconds",
            "From the change of an endpoint to the rules that follow it, in seconds",
            _PROGRAMMING,
        )
        self.last_sync = self._gauge("sync_proxy_rules_last_timestamp_seconds", "The last time rules were synced")
        self.last_queued = self._gauge(
            "sync_proxy_rules_last_queued_timestamp_seconds", "The last time a sync was queued"
        )
        self.service_changes = self._counter("sync_proxy_rules_service_changes_total", "Changes of Services")
        self.endpoint_changes = self._counter("sync_proxy_rules_endpoint_changes_total", "Changes of EndpointSlices")
        self.failures = Counter(
            "nodewright_proxy_sync_failures_total", "Syncs that failed", ["backend"], registry=self.registry
        )
        self.conntrack_deleted = Counter(
            "kubeproxy_conntrack_reconciler_deleted_entries_total",
            "Stale conntrack entries deleted",
            registry=self.registry,
        )
        self.conntrack_duration = self._histogram(
            "conntrack_reconciler_sync_duration_seconds", "Conntrack reconciliation in seconds"
        )
        self.healthz = Counter("kubeproxy_proxy_healthz_total", "healthz answers", ["code"], registry=self.registry)
        self.livez = Counter("kubeproxy_proxy_livez_total", "livez answers", ["code"], registry=self.registry)
        self.restored = Counter(
            "nodewright_proxy_rules_restored_total",
            "Full syncs because others changed our rules",
            registry=self.registry,
        )
        self.routes = Gauge(
            "nodewright_proxy_routes", "Routes to agents' pods on other hosts", ["state"], registry=self.registry
        )

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...] = _SECONDS) -> Histogram:
        return Histogram(f"kubeproxy_{name}", text, buckets=buckets, registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"kubeproxy_{name}", text, registry=self.registry)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(f"kubeproxy_{name}", text, registry=self.registry)


Row = tuple[str, str, int, int]
"""Service port (`namespace/name:port`), address, connections, bytes."""


class TrafficCollector(Collector):
    """Reads the kernel's counters when metrics are asked for, and never otherwise."""

    def __init__(self, read: Callable[[], Iterable[Row]]) -> None:
        """`read` gives one row for each frontend."""
        self._read = read

    def describe(self) -> Iterable[Metric]:
        """Name nothing beforehand: registering must not read the kernel."""
        return []

    def collect(self) -> Iterable[Metric]:
        """Give connections of each service address."""
        family = CounterMetricFamily(
            "nodewright_proxy_service_connections",
            "New connections to an address of a Service",
            labels=["service", "address"],
        )
        for service, address, connections, _ in self._read():
            family.add_metric([service, address], connections)
        yield family
