"""Histograms from a scheduler's /metrics, and quantiles of them."""

from __future__ import annotations

import re
import ssl
import urllib.request
from collections import defaultdict

import msgspec

# A decision with whatever came of it, preemption included; both schedulers have it, with the same buckets.
DECISION = "scheduler_scheduling_algorithm_duration_seconds"
# From the start of a decision until its binding is sent; ours only.
SENT = "scheduler_decision_duration_seconds"


class Histogram(msgspec.Struct):
    """Upper bounds and how many values were at most that; the last bound is infinite. `total` is the sum of values."""

    bounds: list[float]
    counts: list[float]
    total: float

    @property
    def count(self) -> float:
        """How many values there were."""
        return self.counts[-1] if self.counts else 0.0

    @property
    def mean(self) -> float:
        """The mean, which is exact; NaN without values."""
        return self.total / self.count if self.count else float("nan")

    def quantile(self, q: float) -> float:
        """An estimate as Prometheus makes it: in between the bounds of the bucket where the quantile lies."""
        if not self.count:
            return float("nan")
        rank = q * self.count
        lower, below = 0.0, 0.0
        for bound, upto in zip(self.bounds, self.counts, strict=True):
            if upto >= rank:
                if bound == float("inf"):
                    return lower
                return lower + (bound - lower) * (rank - below) / (upto - below)
            lower, below = bound, upto
        return lower


def histogram(text: str, name: str) -> Histogram | None:
    """The histogram `name` of an exposition, summed over its labels; None when it is not there."""
    counts: dict[float, float] = defaultdict(float)
    for labels, value in re.findall(rf"^{name}_bucket{{(.*)}} (\S+)", text, re.MULTILINE):
        bound = re.search(r'\ble="([^"]+)"', labels)
        assert bound is not None, labels
        counts[float(bound[1])] += float(value)
    if not counts:
        return None
    total = sum(float(value) for value in re.findall(rf"^{name}_sum(?:{{.*}})? (\S+)", text, re.MULTILINE))
    return Histogram(sorted(counts), [counts[bound] for bound in sorted(counts)], total)


def scrape(url: str) -> str:
    """The text at a metrics address of this machine; certificates there are self-signed."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with urllib.request.urlopen(url, timeout=30, context=context if url.startswith("https:") else None) as answer:
        text: str = answer.read().decode()
    return text
