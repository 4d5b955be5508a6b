"""Metrics of queues and controllers, under controller-runtime's and client-go's names, so that dashboards work."""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterator
from typing import Protocol

from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

_DECADES = (1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0, 1000.0)
_RECONCILE = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 20, 30, 60)

DEPTH = Gauge("workqueue_depth", "Current depth of workqueue", ["name", "controller"])
ADDS = Counter("workqueue_adds_total", "Total number of adds handled by workqueue", ["name", "controller"])
RETRIES = Counter("workqueue_retries_total", "Total number of retries handled by workqueue", ["name", "controller"])
QUEUE_TIME = Histogram(
    "workqueue_queue_duration_seconds",
    "How long in seconds an item stays in workqueue before being requested",
    ["name", "controller"],
    buckets=_DECADES,
)
WORK_TIME = Histogram(
    "workqueue_work_duration_seconds",
    "How long in seconds processing an item from workqueue takes.",
    ["name", "controller"],
    buckets=_DECADES,
)
RECONCILES = Counter(
    "controller_runtime_reconcile_total", "Total number of reconciliations per controller", ["controller", "result"]
)
RECONCILE_ERRORS = Counter(
    "controller_runtime_reconcile_errors_total", "Total number of reconciliation errors per controller", ["controller"]
)
RECONCILE_TIME = Histogram(
    "controller_runtime_reconcile_time_seconds",
    "Length of time per reconciliation per controller",
    ["controller"],
    buckets=_RECONCILE,
)
ACTIVE_WORKERS = Gauge(
    "controller_runtime_active_workers", "Number of currently used workers per controller", ["controller"]
)
MAX_CONCURRENT = Gauge(
    "controller_runtime_max_concurrent_reconciles",
    "Maximum number of concurrent reconciles per controller",
    ["controller"],
)
STALE_SKIPS = Counter(
    "nodewright_stale_sync_skips_total",
    "Reconciliations put off because a cache did not show the controller's own last write yet",
    ["controller"],
)
LEADER = Gauge("leader_election_master_status", "1 while this process is the leader, else 0", ["name"])


class Busy(Protocol):
    """What the two age metrics need of a queue."""

    @property
    def name(self) -> str:
        """The queue's name."""

    def started(self) -> list[float]:
        """Monotonic times at which the items now in work were taken."""


class _Ages(Collector):
    """Ages of work in progress; computed when scraped, for they grow while nothing happens."""

    def __init__(self) -> None:
        self.queues: weakref.WeakSet[Busy] = weakref.WeakSet()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        unfinished = GaugeMetricFamily(
            "workqueue_unfinished_work_seconds",
            "How many seconds of work has been done that is in progress and hasn't been observed by work_duration.",
            labels=["name", "controller"],
        )
        longest = GaugeMetricFamily(
            "workqueue_longest_running_processor_seconds",
            "How many seconds has the longest running processor for workqueue been running.",
            labels=["name", "controller"],
        )
        now = time.monotonic()
        ages: dict[str, list[float]] = {}
        for queue in self.queues:
            ages.setdefault(queue.name, []).extend(now - t for t in queue.started())
        for name, values in ages.items():
            unfinished.add_metric([name, name], sum(values))
            longest.add_metric([name, name], max(values, default=0.0))
        yield unfinished
        yield longest


AGES = _Ages()
REGISTRY.register(AGES)
