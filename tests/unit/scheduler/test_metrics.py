"""Metrics: kube-scheduler's names, labels and buckets, and what is counted when."""

import time

import pytest
from prometheus_client import REGISTRY
from prometheus_client.exposition import generate_latest

from nodewright.scheduler import metrics
from nodewright.scheduler.core import SchedulerCore
from nodewright.scheduler.instruments import Counters, Gauges, Histogram, Histograms, exponential
from nodewright.scheduler.profile import Profile, ProfileConfig
from nodewright.scheduler.queue import SchedulingQueue
from nodewright.scheduler.resource_metrics import resource_page, unit
from support.scheduler_builders import info, make_node, make_pod


def doubling(start, count):
    return exponential(start, 2, count)


# As kube-scheduler 1.36.3 exposes them: type, labels, bounds.
UPSTREAM = {
    "scheduler_cache_size": ("gauge", {"type"}, ()),
    "scheduler_event_handling_duration_seconds": ("histogram", {"event"}, doubling(0.0001, 12)),
    "scheduler_framework_extension_point_duration_seconds": (
        "histogram",
        {"extension_point", "profile", "status"},
        doubling(0.0001, 12),
    ),
    "scheduler_pending_pods": ("gauge", {"queue"}, ()),
    "scheduler_permit_wait_duration_seconds": ("histogram", {"result"}, doubling(0.001, 15)),
    "scheduler_plugin_evaluation_total": ("counter", {"extension_point", "plugin", "profile"}, ()),
    "scheduler_plugin_execution_duration_seconds": (
        "histogram",
        {"extension_point", "plugin", "status"},
        exponential(0.00001, 1.5, 20),
    ),
    "scheduler_pod_scheduled_after_flush_total": ("counter", set(), ()),
    "scheduler_pod_scheduling_attempts": ("histogram", set(), (1, 2, 4, 8, 16)),
    "scheduler_pod_scheduling_sli_duration_seconds": ("histogram", {"attempts"}, doubling(0.01, 20)),
    "scheduler_preemption_attempts_total": ("counter", set(), ()),
    "scheduler_preemption_goroutines_duration_seconds": ("histogram", {"result"}, doubling(0.01, 20)),
    "scheduler_preemption_goroutines_execution_total": ("counter", {"result"}, ()),
    "scheduler_preemption_victims": ("histogram", set(), (1, 2, 4, 8, 16, 32, 64)),
    "scheduler_queue_incoming_pods_total": ("counter", {"event", "queue"}, ()),
    "scheduler_schedule_attempts_total": ("counter", {"profile", "result"}, ()),
    "scheduler_scheduling_algorithm_duration_seconds": ("histogram", set(), doubling(0.001, 15)),
    "scheduler_scheduling_attempt_duration_seconds": ("histogram", {"profile", "result"}, doubling(0.001, 15)),
    "scheduler_unschedulable_pods": ("gauge", {"plugin", "profile"}, ()),
}


def instruments():
    found = [value for value in vars(metrics).values() if isinstance(value, (Counters, Histograms, Gauges))]
    return {each._name: each for each in found} | {
        each._name: each for each in list(REGISTRY._collector_to_names) if isinstance(each, (Counters, Histograms))
    }


@pytest.mark.parametrize("name", UPSTREAM)
def test_names_labels_and_buckets_are_upstreams(name):
    kind, labels, bounds = UPSTREAM[name]
    ours = instruments()[name]
    assert {Counters: "counter", Histograms: "histogram", Gauges: "gauge"}[type(ours)] == kind
    assert set(ours._labels) == labels
    if kind == "histogram":
        made = ours._make()
        assert made._bounds == pytest.approx(bounds)


def test_only_these_are_ours_alone():
    ours = {name for name in instruments() if name.startswith("scheduler_")} - set(UPSTREAM)
    assert ours == {
        "scheduler_decision_duration_seconds",
        "scheduler_dropped_events_total",
        "scheduler_pending_events",
    }


# --- instruments -----------------------------------------------------------------------------------------------------


def test_bounds_are_inclusive_and_counts_cumulative():
    histogram = Histogram((1.0, 2.5))
    for value in (0.5, 1.0, 1.1, 2.5, 9.0):
        histogram.observe(value)
    assert histogram.buckets() == [("1", 2.0), ("2.5", 4.0), ("+Inf", 5.0)]
    assert (histogram.count, histogram.total) == (5, pytest.approx(14.1))


def test_what_a_scrape_shows():
    counters = Counters("test_things_total", "Things.", ("kind",))
    times = Histograms("test_seconds", "Time.", bounds=(0.1,))
    gauges = Gauges("test_now", "Now.", ("where",))
    try:
        counters.labels("a").inc()
        counters.labels("a").inc(2)
        times.labels().observe(0.05)
        gauges.watch(lambda: {("here",): 7})
        with pytest.raises(ValueError, match="labels"):
            counters.labels("a", "b")
        lines = generate_latest(REGISTRY).decode().splitlines()
    finally:
        for each in (counters, times, gauges):
            REGISTRY.unregister(each)
    assert [line for line in lines if "test_" in line and not line.startswith("#")] == [
        'test_things_total{kind="a"} 3.0',
        'test_seconds_bucket{le="0.1"} 1.0',
        'test_seconds_bucket{le="+Inf"} 1.0',
        "test_seconds_count 1.0",
        "test_seconds_sum 0.05",
        'test_now{where="here"} 7.0',
    ]


# --- what a cycle counts ---------------------------------------------------------------------------------------------


class Counts:
    """What was counted since it was made, for a profile of its own."""

    def __init__(self, name):
        self.name = name
        incoming = []
        profile = Profile(ProfileConfig(scheduler_name=name))
        queue = SchedulingQueue(time.monotonic, on_incoming=lambda place, event: incoming.append((place, event)))
        self.core = SchedulerCore({name: profile}, time.monotonic, queue)
        self.incoming = incoming

    def asked(self, plugin, point):
        return metrics.EVALUATIONS.labels(plugin, point, self.name).value

    def times(self, point, status="Success"):
        return metrics.POINT_DURATION.labels(point, status, self.name).count

    def run(self):
        outcomes = []
        while (attempt := self.core.attempt()) is not None:
            outcomes.append(attempt)
        return outcomes


@pytest.fixture
def counts(request):
    counts = Counts(f"metrics-{request.node.name}")
    for number in range(3):
        counts.core.on_node(None, make_node(f"n{number}", "1"))
    return counts


def pods(counts, number, cpu="100m", **spec):
    for _ in range(number):
        counts.core.on_pod(None, make_pod(requests={"cpu": cpu}, scheduler=counts.name, **spec))


def test_nodes_that_plugins_were_asked_about(counts):
    pods(counts, 1)
    counts.run()
    assert counts.asked("NodeResourcesFit", "Filter") == 3
    assert counts.asked("NodeResourcesFit", "Score") == 3
    pods(counts, 1)
    counts.run()
    # The second Pod is like the first: only the node that changed is looked at.
    assert counts.asked("NodeResourcesFit", "Filter") == 4


def test_every_cycle_has_times_of_its_points(counts):
    pods(counts, 5)
    pods(counts, 2, "9")
    counts.run()
    assert counts.times("Filter") == 5
    assert counts.times("Score") == 5
    assert counts.times("Filter", "Unschedulable") == 2
    assert counts.times("PreFilter") >= 1
    assert counts.times("PostFilter", "Unschedulable") == 2


def test_one_of_ten_cycles_measures_plugins(counts):
    before = metrics.PLUGIN_DURATION.labels("NodeResourcesFit", "Filter", "Success").count
    pods(counts, 20)
    counts.run()
    assert metrics.PLUGIN_DURATION.labels("NodeResourcesFit", "Filter", "Success").count - before == 2


def test_preemption_is_counted(counts):
    before = metrics.PREEMPTION_ATTEMPTS.value
    pods(counts, 3, "1")
    counts.run()
    pods(counts, 1, "1", priority=5)
    counts.run()
    assert metrics.PREEMPTION_ATTEMPTS.value == before + 1
    assert counts.times("PostFilter") == 1


def test_waiting_pods_by_the_plugin_that_rejected_them(counts):
    pods(counts, 2, "9")
    pods(counts, 1, nodeSelector={"disk": "ssd"})
    pods(counts, 1, schedulingGates=[{"name": "a"}])
    counts.run()
    assert counts.core.queue.rejected() == {
        ("NodeResourcesFit", counts.name): 2,
        ("NodeAffinity", counts.name): 1,
        ("SchedulingGates", counts.name): 1,
    }


def test_arrivals_have_upstreams_events(counts):
    pods(counts, 1, "9")
    counts.run()
    counts.core.on_node(None, make_node("large", "16"))
    pods(counts, 1, schedulingGates=[{"name": "a"}])
    assert counts.incoming == [
        ("active", "UnschedulablePodAdd"),
        ("unschedulable", "ScheduleAttemptFailure"),
        ("backoff", "NodeAdd"),
        ("gated", "UnschedulablePodAdd"),
    ]
    counts.run()
    assert counts.incoming[4:] == [("active", "PopFromBackoffQ")]


# --- resources -------------------------------------------------------------------------------------------------------


async def test_resources_of_pods():
    bound = make_pod("a", {"cpu": "250m", "memory": "1Gi", "example.com/gpu": "2"}, node="n", priority=7)
    waiting = make_pod("b", {"cpu": "2"})
    lines = (await resource_page([bound, waiting], info)).splitlines()
    start = 'kube_pod_resource_request{namespace="default",pod="a",node="n",scheduler="nodewright",priority="7"'
    assert lines[1:] == [
        "# TYPE kube_pod_resource_request gauge",
        f'{start},resource="cpu",unit="cores"}} 0.25',
        f'{start},resource="memory",unit="bytes"}} 1073741824',
        f'{start},resource="example.com/gpu",unit="integer"}} 2',
        'kube_pod_resource_request{namespace="default",pod="b",node="",scheduler="nodewright",priority="0"'
        ',resource="cpu",unit="cores"} 2.0',
    ]


def test_units():
    assert [unit(name) for name in ("cpu", "hugepages-2Mi", "ephemeral-storage", "pods")] == [
        "cores",
        "bytes",
        "bytes",
        "integer",
    ]
