"""Metrics under kube-scheduler's names (`scheduler_...`), so that its dashboards and alerts go on working.

Names, labels and buckets are those of release 1.36. `decision_duration_seconds` and those about events
of placed Pods are ours. Not there: what measures parts that this scheduler does not have
(goroutines, in-flight events, queueing hints, batching, asynchronous API calls).
"""

from __future__ import annotations

from collections.abc import Container
from time import perf_counter

from .instruments import Counter, Counters, Gauges, Histograms, exponential

_ATTEMPT = exponential(0.001, 2, 15)
_POINT = exponential(0.0001, 2, 12)
_PLUGIN = exponential(0.00001, 1.5, 20)
_LONG = exponential(0.01, 2, 20)

SUCCESS, SKIP, UNSCHEDULABLE, ERROR = "Success", "Skip", "Unschedulable", "Error"
PRE_FILTER, FILTER, POST_FILTER, SCORE, NORMALIZE = (
    "PreFilter",
    "Filter",
    "PostFilter",
    "Score",
    "ScoreExtensionNormalize",
)
RESERVE, PRE_BIND, BIND = "Reserve", "PreBind", "Bind"

now = perf_counter

# --- attempts --------------------------------------------------------------------------------------------------------

SCHEDULE_ATTEMPTS = Counters(
    "scheduler_schedule_attempts_total",
    "Attempts to schedule pods, by result: scheduled, unschedulable, or error when something went wrong.",
    ("result", "profile"),
)
ATTEMPT_DURATION = Histograms(
    "scheduler_scheduling_attempt_duration_seconds",
    "Time of an attempt: decision and binding.",
    ("result", "profile"),
    bounds=_ATTEMPT,
)
ALGORITHM_DURATION = Histograms(
    "scheduler_scheduling_algorithm_duration_seconds", "Time of a decision, without the binding.", bounds=_ATTEMPT
).labels()
DECISION_TO_BINDING = Histograms(
    "scheduler_decision_duration_seconds",
    "Time from the start of a decision until its binding was sent.",
    bounds=exponential(0.0001, 1.25, 44),
).labels()
SLI_DURATION = Histograms(
    "scheduler_pod_scheduling_sli_duration_seconds",
    "Time from when a pod could first be tried until it was bound.",
    ("attempts",),
    bounds=_LONG,
)
POD_ATTEMPTS = Histograms(
    "scheduler_pod_scheduling_attempts", "Attempts that it took to schedule a pod.", bounds=exponential(1, 2, 5)
).labels()

# --- queues ----------------------------------------------------------------------------------------------------------

PENDING_PODS = Gauges("scheduler_pending_pods", "Pods that wait, by queue.", ("queue",))
INCOMING_PODS = Counters("scheduler_queue_incoming_pods_total", "Pods added to a queue, by event.", ("queue", "event"))
UNSCHEDULABLE_PODS = Gauges(
    "scheduler_unschedulable_pods",
    "Pods that wait, by the plugin that rejected them; one that several rejected counts for each.",
    ("plugin", "profile"),
)
AFTER_FLUSH = Counters(
    "scheduler_pod_scheduled_after_flush_total",
    "Pods bound after they had waited the longest time for an event: some plugin may name too few events.",
).labels()

# --- plugins ---------------------------------------------------------------------------------------------------------

POINT_DURATION = Histograms(
    "scheduler_framework_extension_point_duration_seconds",
    "Time that all plugins of an extension point took in a cycle; kept answers take none.",
    ("extension_point", "status", "profile"),
    bounds=_POINT,
)
PLUGIN_DURATION = Histograms(
    "scheduler_plugin_execution_duration_seconds",
    "Time that a plugin took for all nodes it was asked about, measured in one of ten cycles.",
    ("plugin", "extension_point", "status"),
    bounds=_PLUGIN,
)
EVALUATIONS = Counters(
    "scheduler_plugin_evaluation_total",
    "Nodes (PreFilter: pods) that a plugin was asked about.",
    ("plugin", "extension_point", "profile"),
)
PERMIT_WAIT = Histograms(
    "scheduler_permit_wait_duration_seconds",
    "Time that a member of a gang waited for the others before its binding.",
    ("result",),
    bounds=_ATTEMPT,
)

# --- preemption ------------------------------------------------------------------------------------------------------

PREEMPTION_ATTEMPTS = Counters(
    "scheduler_preemption_attempts_total", "Pods that fit nowhere and for which victims were looked for."
).labels()
PREEMPTION_VICTIMS = Histograms(
    "scheduler_preemption_victims", "Victims chosen for a pod.", bounds=exponential(1, 2, 7)
).labels()
EVICTIONS = Counters(
    "scheduler_preemption_goroutines_execution_total", "Evictions for a pod, all victims together.", ("result",)
)
EVICTION_DURATION = Histograms(
    "scheduler_preemption_goroutines_duration_seconds",
    "Time that the evictions for a pod took.",
    ("result",),
    bounds=_LONG,
)

# --- the process -----------------------------------------------------------------------------------------------------

CACHE_SIZE = Gauges("scheduler_cache_size", "Nodes, pods and assumed pods that are known.", ("type",))
EVENT_DURATION = Histograms(
    "scheduler_event_handling_duration_seconds", "Time to take in an event of a watch.", ("event",), bounds=_POINT
)
PENDING_EVENTS = Gauges("scheduler_pending_events", "Events about placed pods that wait to be posted.")
DROPPED_EVENTS = Counters("scheduler_dropped_events_total", "Events about placed pods that were lost.", ("reason",))


class Asked:
    """How many nodes a plugin of a profile was asked about, by extension point. Without a profile nobody sees it."""

    __slots__ = ("filter", "pre_filter", "score")

    def __init__(self, plugin: str = "", profile: str = "", points: Container[str] = ()) -> None:
        """`points` are the extension points that the plugin has."""

        def counter(point: str) -> Counter:
            return EVALUATIONS.labels(plugin, point, profile) if point in points else Counter()

        self.pre_filter = counter(PRE_FILTER)
        self.filter = counter(FILTER)
        self.score = counter(SCORE)


class PointTimes:
    """The extension points of a profile whose times every cycle observes."""

    __slots__ = ("filter_failed", "filtered", "pre_filter_failed", "pre_filtered", "scored")

    def __init__(self, profile: str) -> None:
        self.pre_filtered = POINT_DURATION.labels(PRE_FILTER, SUCCESS, profile)
        self.pre_filter_failed = POINT_DURATION.labels(PRE_FILTER, UNSCHEDULABLE, profile)
        self.filtered = POINT_DURATION.labels(FILTER, SUCCESS, profile)
        self.filter_failed = POINT_DURATION.labels(FILTER, UNSCHEDULABLE, profile)
        self.scored = POINT_DURATION.labels(SCORE, SUCCESS, profile)


class Sampler:
    """Which cycles measure their plugins one by one: one of `every`."""

    __slots__ = ("_cycles", "_every", "on")

    def __init__(self, every: int) -> None:
        self._every = every
        self._cycles = 0
        self.on = False

    def next_cycle(self) -> None:
        """A cycle begins."""
        self._cycles += 1
        self.on = self._cycles % self._every == 0


# kube-scheduler samples as many, by chance.
SAMPLER = Sampler(10)


def executed(plugin: str, point: str, started: float, status: str) -> None:
    """A sampled cycle asked a plugin; `started` is what `now` gave before."""
    PLUGIN_DURATION.labels(plugin, point, status).observe(now() - started)
