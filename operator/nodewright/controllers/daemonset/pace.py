"""How often a DaemonSet is looked at, and its status written, while much happens to its pods. Pure.

Hundreds of pods that become ready one after another are hundreds of changes; a pass for each would look at all pods
each time, and a status write costs the API server as much as making three pods. A first change is always acted on at
once, and so is whatever a user does; what follows closely is taken together. Times are seconds of a steady clock.
"""

from __future__ import annotations

import msgspec

from nodewright.controllers.daemonset.model import DaemonSet, DaemonSetStatus

# Between the starts of two passes, for each pod: a pass takes about a tenth of this.
PASS_PER_POD = 0.0001
# Between two writes of the status that only count on.
STATUS_INTERVAL = 0.25


class _Times(msgspec.Struct):
    uid: str
    generation: int
    next_pass: float
    next_status: float = 0.0


class Pace:
    """Remembers when each DaemonSet, by key, was last looked at and written."""

    def __init__(self) -> None:
        """Nothing was yet."""
        self._known: dict[str, _Times] = {}

    def wait(self, ds: DaemonSet, now: float) -> float:
        """Seconds until the next pass; 0 for one that may begin, and for a spec that no pass has seen."""
        known = self._known.get(ds.key)
        if known is None or (known.uid, known.generation) != (ds.metadata.uid, ds.metadata.generation):
            return 0.0
        return max(0.0, known.next_pass - now)

    def begun(self, ds: DaemonSet, pods: int, now: float) -> None:
        """A pass over so many pods begins."""
        known = self._known.get(ds.key)
        next_status = known.next_status if known is not None and known.uid == ds.metadata.uid else 0.0
        next_pass = now + pods * PASS_PER_POD
        self._known[ds.key] = _Times(ds.metadata.uid, ds.metadata.generation, next_pass, next_status)

    def status_wait(self, ds: DaemonSet, after: DaemonSetStatus, now: float) -> float:
        """Seconds until the status may be written: 0 also where it tells more than how far the counting is."""
        known = self._known.get(ds.key)
        if known is None or _gist(ds.status) != _gist(after):
            return 0.0
        return max(0.0, known.next_status - now)

    def status_written(self, ds: DaemonSet, now: float) -> None:
        """The status was written."""
        if (known := self._known.get(ds.key)) is not None:
            known.next_status = now + STATUS_INTERVAL

    def forget(self, key: str) -> None:
        """The DaemonSet is gone, or a pass failed: when to try again is for others to say."""
        self._known.pop(key, None)


def _gist(status: DaemonSetStatus) -> tuple[object, ...]:
    """What somebody may wait for; between two statuses with the same gist there are only other numbers."""
    desired, rollout = status.desired_number_scheduled, status.rollout
    return (
        status.observed_generation,
        status.update_revision,
        status.current_revision,
        desired,
        status.current_number_scheduled == desired,
        status.updated_number_scheduled == desired,
        status.number_available == desired,
        status.number_misscheduled == 0,
        rollout and (rollout.step, rollout.step_ready_time, rollout.failed_nodes, rollout.failed_revision),
        [(condition.type, condition.status, condition.reason) for condition in status.conditions],
    )
