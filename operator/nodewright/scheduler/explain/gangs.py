"""How the gang of a Pod stands: who waits, who is placed, and whether enough of them would fit at once."""

from __future__ import annotations

from ..core import SchedulerCore
from ..diagnosis import Diagnosis
from ..evaluator import Evaluator, Placement
from ..gang import GangError, gang_key, gang_spec
from ..gang_cycle import GangCycle
from ..pods import PodInfo
from ..profile import Profile
from .answer import GangState


def gang_state(core: SchedulerCore, profile: Profile, pod: PodInfo) -> GangState | None:
    """The Pod's gang; None where it has none. The gang is tried out, which leaves traces in the core."""
    key = gang_key(pod)
    if key is None:
        return None
    found = GangState(group=f"{key[0]}/{key[1]}", placed=core.gangs.placed_count(key))
    waiting = [core.queue.get(uid) for uid in core.gangs.waiting(key)]
    found.waiting = sorted(queued.pod.key for queued in waiting if queued is not None)
    try:
        spec = gang_spec(pod)
    except GangError as error:
        found.message = str(error)
        return found
    found.min_member = spec.min_member
    queued = core.queue.take(pod.uid)
    if queued is None:
        return found  # bound, or held back by a gate
    for attempt in GangCycle(core, Evaluator(profile, core.state), spec, 0.0).run(queued):
        if attempt.pod.uid == pod.uid:
            outcome = attempt.outcome
            found.fits = isinstance(outcome, Placement)
            found.message = outcome.message() if isinstance(outcome, Diagnosis) else ""
            found.message = str(outcome) if isinstance(outcome, Exception) else found.message
    return found
