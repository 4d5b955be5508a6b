"""From single answers to a probe's result: thresholds of the prober's worker. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from nodewright.kube.objects import Probe


@dataclass(slots=True)
class Counter:
    """Counts equal answers in a row; a result changes when a threshold is reached."""

    success_threshold: int
    failure_threshold: int
    last: bool | None = None
    in_a_row: int = 0

    @classmethod
    def of(cls, probe: Probe) -> Counter:
        """Take the probe's thresholds."""
        return cls(max(1, probe.success_threshold), max(1, probe.failure_threshold))

    def take(self, ok: bool) -> bool | None:
        """Count an answer; return the result once its threshold is reached, None before."""
        self.in_a_row = self.in_a_row + 1 if ok == self.last else 1
        self.last = ok
        threshold = self.success_threshold if ok else self.failure_threshold
        return ok if self.in_a_row >= threshold else None
