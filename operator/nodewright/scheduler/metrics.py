"""Metrics under kube-scheduler's names (`scheduler_...`), so that its dashboards and alerts go on working."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = [0.001 * 2**i for i in range(15)]
_SLI_SECONDS = [0.01 * 2**i for i in range(20)]

SCHEDULE_ATTEMPTS = Counter(
    "scheduler_schedule_attempts_total",
    "Attempts to schedule pods, by result: scheduled, unschedulable, or error when something went wrong.",
    ["result", "profile"],
)
ATTEMPT_DURATION = Histogram(
    "scheduler_scheduling_attempt_duration_seconds",
    "Time of an attempt: decision and binding.",
    ["result", "profile"],
    buckets=_SECONDS,
)
ALGORITHM_DURATION = Histogram(
    "scheduler_scheduling_algorithm_duration_seconds", "Time of a decision, without the binding.", buckets=_SECONDS
)
SLI_DURATION = Histogram(
    "scheduler_pod_scheduling_sli_duration_seconds",
    "Time from the first attempt on, until the pod was bound.",
    ["attempts"],
    buckets=_SLI_SECONDS,
)
POD_ATTEMPTS = Histogram(
    "scheduler_pod_scheduling_attempts", "Attempts that it took to schedule a pod.", buckets=[1, 2, 4, 8, 16]
)
PENDING_PODS = Gauge("scheduler_pending_pods", "Pods that wait, by queue.", ["queue"])
INCOMING_PODS = Counter("scheduler_queue_incoming_pods_total", "Pods added to a queue, by event.", ["queue", "event"])
UNSCHEDULABLE_PODS = Counter(
    "scheduler_unschedulable_attempts_total",
    "Failed attempts in which a plugin rejected nodes.",
    ["plugin", "profile"],
)
CACHE_SIZE = Gauge("scheduler_cache_size", "Nodes, pods and assumed pods that are known.", ["type"])
PENDING_EVENTS = Gauge("scheduler_pending_events", "Events about placed pods that wait to be posted.")
DROPPED_EVENTS = Counter("scheduler_dropped_events_total", "Events about placed pods that were lost.", ["reason"])
