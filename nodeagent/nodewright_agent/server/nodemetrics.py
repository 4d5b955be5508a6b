"""The kubelet_* series of /metrics: what the agent counts, and what is read of it when somebody asks."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from nodewright.kube.objects import Pod
from nodewright_agent.server.exposition import family, labels

START_BUCKETS = (
    0.5, 1, 2, 3, 4, 5, 6, 8, 10, 20, 30, 45, 60, 120, 180, 240, 300, 360, 480, 600, 900, 1200, 1800, 2700, 3600,
)  # fmt: skip
"""Upstream's buckets for the start of a Pod, in seconds."""
AGE_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Histogram:
    """Observations by bucket."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        """Count up to each of the bounds, and above the last."""
        self.bounds, self.counts, self.sum = bounds, [0] * (len(bounds) + 1), 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def samples(self, name: str, where: Mapping[str, str]) -> list[str]:
        """Write the samples of one set of labels."""
        lines, total = [], 0
        for bound, count in zip([*self.bounds, float("inf")], self.counts, strict=True):
            total += count
            edge = "+Inf" if bound == float("inf") else f"{bound:g}"
            lines.append(f"{name}_bucket{labels({**where, 'le': edge})} {total}")
        return [*lines, f"{name}_sum{labels(where)} {self.sum:.9g}", f"{name}_count{labels(where)} {total}"]


class NodeCounters:
    """What has happened since the agent started."""

    def __init__(self) -> None:
        """Nothing has."""
        self.evictions: Counter[str] = Counter()
        """Evicted Pods by signal, or limit."""
        self.images_collected: Counter[str] = Counter()
        """Images removed by age, or for space."""
        self.pod_start = Histogram(START_BUCKETS)
        self.stats_age: dict[str, Histogram] = {}
        self.shutdown_started = self.shutdown_ended = 0.0

    def evicted(self, signal: str) -> None:
        """Count an eviction."""
        self.evictions[signal] += 1

    def stats_used(self, signal: str, age: float) -> None:
        """Note how old the figures were that an eviction was decided on."""
        self.stats_age.setdefault(signal, Histogram(AGE_BUCKETS)).observe(age)


class PodCounts(NamedTuple):
    """Pods and containers as they are now."""

    pods: Iterable[Pod]
    """Those that have something running."""
    containers: Mapping[str, int]
    """By state: created, running, exited."""
    bound: int
    """All that the node has taken on."""


def text(node_name: str, counters: NodeCounters, now: PodCounts) -> str:
    """Write the families, in upstream's names."""
    lines = family("kubelet_node_name", "[ALPHA] The node's name. The count is always 1.", "gauge",
                   [(labels({"node": node_name}), "1")])  # fmt: skip
    lines += family("kubelet_running_pods", "[ALPHA] Number of pods that have a running pod sandbox", "gauge",
                    [("", str(len(list(now.pods))))])  # fmt: skip
    lines += family("kubelet_running_containers", "[ALPHA] Number of containers currently running", "gauge",
                    [(labels({"container_state": state}), str(number))
                     for state, number in sorted(now.containers.items())])  # fmt: skip
    lines += family("kubelet_desired_pods", "[ALPHA] The number of pods the kubelet is being instructed to run.",
                    "gauge", [(labels({"static": ""}), str(now.bound))])  # fmt: skip
    lines += family("kubelet_evictions", "[ALPHA] Cumulative number of pod evictions by eviction signal", "counter",
                    [(labels({"eviction_signal": signal}), str(number))
                     for signal, number in sorted(counters.evictions.items())])  # fmt: skip
    lines += family("kubelet_image_garbage_collected_total",
                    "[ALPHA] Total number of images garbage collected by the kubelet, whether through disk usage or "
                    "image age.", "counter",
                    [(labels({"reason": reason}), str(number))
                     for reason, number in sorted(counters.images_collected.items())])  # fmt: skip
    for name, about, value in (
        ("start", "start", counters.shutdown_started),
        ("end", "end", counters.shutdown_ended),
    ):
        lines += family(f"kubelet_graceful_shutdown_{name}_time_seconds",
                        f"[ALPHA] Last graceful shutdown {about} time since unix epoch in seconds", "gauge",
                        [("", f"{value:.3f}")])  # fmt: skip
    lines += _histogram("kubelet_pod_start_duration_seconds",
                        "[ALPHA] Duration in seconds from kubelet seeing a pod for the first time to the pod starting "
                        "to run", {"": counters.pod_start})  # fmt: skip
    lines += _histogram("kubelet_eviction_stats_age_seconds",
                        "[ALPHA] Time between when stats are collected, and when pod is evicted based on those stats "
                        "by eviction signal", counters.stats_age)  # fmt: skip
    return "\n".join(lines) + "\n"


def _histogram(name: str, about: str, by_signal: Mapping[str, Histogram]) -> list[str]:
    lines: list[str] = []
    for signal, histogram in sorted(by_signal.items()):
        lines += histogram.samples(name, {"eviction_signal": signal} if signal else {})
    return [f"# HELP {name} {about}", f"# TYPE {name} histogram", *lines] if lines else []
