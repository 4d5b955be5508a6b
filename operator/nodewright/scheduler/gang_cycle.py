"""One cycle for a whole gang: enough of its members at once, or none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from .attempts import Attempt
from .diagnosis import Diagnosis
from .evaluator import Evaluator, Placement, Rejection
from .events import Event
from .gang import GangSpec, not_at_once, too_few
from .placing import Preempting
from .plugin import PluginError
from .preemption.choice import Candidate
from .queue import QueuedPod

if TYPE_CHECKING:
    from .core import SchedulerCore


class Trial(msgspec.Struct):
    """What became of one member: a place, a place once others are evicted, or neither."""

    queued: QueuedPod
    outcome: Placement | Rejection | PluginError
    preemption: Candidate | None = None

    @property
    def fits(self) -> bool:
        """Whether the member can be placed, now or after evictions."""
        return isinstance(self.outcome, Placement) or self.preemption is not None


class GangCycle:
    """Tries a gang in the scheduler's picture, and leaves no trace there unless enough members fit now."""

    def __init__(self, core: SchedulerCore, evaluator: Evaluator, spec: GangSpec, now: float) -> None:
        self._core = core
        self._evaluator = evaluator
        self._spec = spec
        self._now = now
        self._key = (spec.namespace, spec.name)

    def run(self, first: QueuedPod) -> list[Attempt]:
        """One attempt for each waiting member, `first` among them."""
        core, spec = self._core, self._spec
        members = [first, *self._others(first)]
        placed = core.gangs.placed_count(self._key)
        known = placed + len(core.gangs.waiting(self._key))
        if known < spec.min_member or placed + len(members) < spec.min_member:
            return self._refuse_all(members, too_few(spec, min(known, placed + len(members))), Event.GANG_MEMBER)
        self._expire(members)
        trials = self._try(sorted(members, key=lambda q: (-q.pod.priority, q.timestamp)))
        fitting = [trial for trial in trials if trial.fits]
        if placed + len(fitting) < spec.min_member:
            return self._give_up(trials, placed + len(fitting))
        if any(trial.preemption is not None for trial in trials):
            return self._clear_room(trials)
        return [self._settled(trial, len(fitting)) for trial in trials]

    def _others(self, first: QueuedPod) -> list[QueuedPod]:
        core, found = self._core, []
        for uid in core.gangs.waiting(self._key):
            known = core.queue.get(uid)
            if (
                uid != first.pod.uid
                and known is not None
                and known.pod.spec.scheduler_name == first.pod.spec.scheduler_name
                and known.pod.pod.metadata.deletion_timestamp is None
                and (taken := core.queue.take(uid)) is not None
            ):
                found.append(taken)
        return found

    def _expire(self, members: list[QueuedPod]) -> None:
        """Room that was cleared for the gang is given up when it did not get to use it in time."""
        cleared = self._core.gangs.cleared_at.get(self._key)
        if cleared is not None and self._now - cleared > self._spec.timeout:
            del self._core.gangs.cleared_at[self._key]
            for member in members:
                self._core.state.nominated.drop(member.pod.uid)

    # --- trying --------------------------------------------------------------------------------------------------

    def _try(self, members: list[QueuedPod]) -> list[Trial]:
        """Place members one after another; victims of earlier ones are gone for later ones. Undoes evictions."""
        core = self._core
        trials: list[Trial] = []
        away: list[tuple[str, Candidate]] = []
        try:
            for queued in members:
                trial = self._try_one(queued)
                trials.append(trial)
                if trial.preemption is not None:
                    away.append((queued.pod.uid, trial.preemption))
                    for victim in trial.preemption.victims:
                        core.state.remove_pod(victim.uid)
                    core.state.add_pod(queued.pod, trial.preemption.node)
        finally:
            for uid, candidate in reversed(away):
                core.state.remove_pod(uid)
                for victim in candidate.victims:
                    core.state.add_pod(victim, candidate.node)
        return trials

    def _try_one(self, queued: QueuedPod) -> Trial:
        placing = self._core.placing
        try:
            outcome = placing.place(self._evaluator, queued)
            if isinstance(outcome, Placement):
                return Trial(queued, outcome)
            found = placing.find_victims(self._evaluator, queued.pod, outcome)
        except PluginError as error:
            return Trial(queued, error)
        return Trial(queued, outcome, found.candidate if isinstance(found, Preempting) else None)

    # --- outcomes ------------------------------------------------------------------------------------------------

    def _attempt(self, queued: QueuedPod, outcome: Placement | Diagnosis | PluginError) -> Attempt:
        return Attempt(queued, self._evaluator.profile.scheduler_name, outcome, 0.0)

    def _refuse_all(self, members: list[QueuedPod], message: str, wakers: Event) -> list[Attempt]:
        for queued in members:
            self._core.queue.put_unschedulable(queued, wakers)
        return [self._attempt(queued, Diagnosis(0, instead=message)) for queued in members]

    def _give_up(self, trials: list[Trial], fitting: int) -> list[Attempt]:
        """Too few fit: all of them wait for whatever may help one of those that do not."""
        core, profile = self._core, self._evaluator.profile
        blocked = [t.outcome for t in trials if isinstance(t.outcome, Rejection) and t.preemption is None]
        message = not_at_once(self._spec, fitting, (rejection.diagnosis.message() for rejection in blocked))
        plugins = {name for rejection in blocked for name in rejection.diagnosis.plugins}
        wakers = profile.wakers(plugins) | Event.GANG_MEMBER | Event.NODE_ADD
        attempts = []
        for trial in trials:
            if isinstance(trial.outcome, Placement):
                core.placing.take_back(profile, trial.queued.pod.uid)
            if isinstance(trial.outcome, PluginError):
                core.queue.put_error(trial.queued)
                attempts.append(self._attempt(trial.queued, trial.outcome))
            else:
                core.queue.put_unschedulable(trial.queued, wakers)
                attempts.append(self._attempt(trial.queued, Diagnosis(0, instead=message, plugins=set(plugins))))
        return attempts

    def _clear_room(self, trials: list[Trial]) -> list[Attempt]:
        """Enough would fit after evictions: nobody is placed yet, everybody's place is kept."""
        core = self._core
        core.gangs.cleared_at.setdefault(self._key, self._now)
        attempts = []
        for trial in trials:
            queued, outcome = trial.queued, trial.outcome
            if isinstance(outcome, Placement):
                core.placing.take_back(self._evaluator.profile, queued.pod.uid)
                attempt = self._waits(queued, f"{self._spec.title}: waiting for preemption on behalf of other members")
                attempt.nominated = outcome.node
                attempt.outranked = core.placing.nominate(queued.pod, outcome.node)
                attempts.append(attempt)
            elif isinstance(outcome, Rejection) and trial.preemption is not None:
                core.put_back(self._evaluator, queued, outcome)
                attempt = self._attempt(queued, outcome.diagnosis)
                core.preempt(attempt, Preempting(trial.preemption))
                attempts.append(attempt)
            else:
                attempts.append(self._settled(trial, 0))
        return attempts

    def _waits(self, queued: QueuedPod, message: str) -> Attempt:
        self._core.queue.put_unschedulable(queued, Event.POD_DELETE | Event.GANG_MEMBER)
        return self._attempt(queued, Diagnosis(0, instead=message))

    def _settled(self, trial: Trial, together: int) -> Attempt:
        """A member that is placed with the others, or one that the gang does without."""
        if isinstance(trial.outcome, Placement):
            attempt = self._attempt(trial.queued, trial.outcome)
            attempt.gang, attempt.together = self._spec, together
            return attempt
        if isinstance(trial.outcome, PluginError):
            self._core.queue.put_error(trial.queued)
            return self._attempt(trial.queued, trial.outcome)
        self._core.put_back(self._evaluator, trial.queued, trial.outcome)
        return self._attempt(trial.queued, trial.outcome.diagnosis)
