"""What probes have come to: /metrics/probes, under kubelet's names."""

from __future__ import annotations

from collections import Counter

from nodewright.kube.objects import Container, Pod
from nodewright_agent.pods.handlers import Outcome
from nodewright_agent.server.exposition import family, labels
from nodewright_agent.server.nodemetrics import Histogram

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_RESULTS = {
    Outcome.SUCCESS: "successful",
    Outcome.WARNING: "successful",
    Outcome.FAILURE: "failed",
    Outcome.UNKNOWN: "unknown",
}
_Key = tuple[str, str, str, str, str]
"""Type, container, pod, namespace, UID."""


class ProbeMetrics:
    """Counts results of probes until their pod is gone."""

    def __init__(self) -> None:
        """Nothing has been probed."""
        self._results: Counter[tuple[_Key, str]] = Counter()
        self._durations: dict[_Key, Histogram] = {}

    def count(self, kind: str, pod: Pod, container: Container, outcome: Outcome, seconds: float) -> None:
        """Take a result, and how long it took. As upstream, the time of failures is not told."""
        key = (kind.capitalize(), container.name, pod.metadata.name, pod.metadata.namespace, pod.metadata.uid)
        self._results[key, _RESULTS[outcome]] += 1
        if outcome is not Outcome.FAILURE:
            self._durations.setdefault(key, Histogram(BUCKETS)).observe(seconds)

    def forget(self, uid: str) -> None:
        """Drop what was counted for a pod."""
        for key in [key for key in self._results if key[0][4] == uid]:
            del self._results[key]
        for one in [one for one in self._durations if one[4] == uid]:
            del self._durations[one]

    def text(self) -> str:
        """Write it in Prometheus' text format."""
        results = [
            (labels({**_labels(key), "pod_uid": key[4], "result": result}), str(count))
            for (key, result), count in self._results.items()
        ]
        about = "[BETA] Cumulative number of a liveness, readiness or startup probe for a container by result."
        lines = family("prober_probe_total", about, "counter", results)
        name = "prober_probe_duration_seconds"
        about = "[ALPHA] Duration in seconds for a probe response."
        samples = [line for key, times in self._durations.items() for line in times.samples(name, _labels(key))]
        if samples:
            lines += [f"# HELP {name} {about}", f"# TYPE {name} histogram", *samples]
        return "\n".join(lines) + "\n" if lines else ""


def _labels(key: _Key) -> dict[str, str]:
    return {"probe_type": key[0], "container": key[1], "pod": key[2], "namespace": key[3]}
