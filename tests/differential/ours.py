"""Our scheduler's answers to the same questions: from a core that lives through a case, and from a fresh picture."""

from __future__ import annotations

import contextlib
import itertools
import traceback
from collections.abc import Iterator
from typing import Any
from unittest import mock

import msgspec
import numpy as np

from differential.standing import Standing
from differential.upstream import SCHEDULER_NAME
from nodewright.scheduler import explain
from nodewright.scheduler.core import SchedulerCore
from nodewright.scheduler.diagnosis import Diagnosis
from nodewright.scheduler.evaluation import INFEASIBLE, Evaluation
from nodewright.scheduler.evaluator import Placement
from nodewright.scheduler.objects import Node, Pod
from nodewright.scheduler.profile import Profile
from nodewright.scheduler.state.arrays import IntArray


class Answer(msgspec.Struct):
    """What we think of a Pod: the total of each feasible node, else the message. `plugins` has weighted scores."""

    totals: dict[str, int] = {}
    message: str = ""
    plugins: dict[str, dict[str, int]] = {}
    # The node that was chosen, where a choice was made.
    node: str = ""
    # Where no node fits as things are: whom to evict, and where.
    nominated: str = ""
    victims: list[str] = []
    # What `explain` says in place of the message.
    explained: str = ""


class Ours:
    """A scheduler that is told all that happens in a case, and answers from what it keeps."""

    def __init__(self, profile: Profile, standing: Standing, nodes: list[Node], pods: list[Pod]) -> None:
        self._profile = profile
        self._standing = standing
        self._nodes = {node.metadata.name: node for node in nodes}
        self._pods = {pod.metadata.uid: pod for pod in pods}
        self._core = self._told()

    def _told(self) -> SchedulerCore:
        """A scheduler that has just been told of all there is."""
        ticks = itertools.count()
        core = SchedulerCore({SCHEDULER_NAME: self._profile}, lambda: float(next(ticks)))
        self._standing.tell(core)
        for node in self._nodes.values():
            core.on_node(None, node)
        for pod in self._pods.values():
            core.on_pod(None, pod)
        return core

    def decide(self, pod: Pod) -> Answer:
        """Run a cycle for the Pod."""
        return _decide(self._core, pod)

    def decide_anew(self, pod: Pod) -> Answer:
        """The same with nothing kept from before, and with the score that each plugin gives."""
        cluster = explain.Cluster(self._nodes.values(), self._pods.values(), {SCHEDULER_NAME: self._profile})
        self._standing.tell(cluster.core)
        explanation = cluster.explain(self._profile, pod)
        answer = _decide(self._told(), pod)
        fitting = [verdict for verdict in explanation.nodes if verdict.fits]
        answer.plugins = {v.node: {name: score.weighted for name, score in v.scores.items()} for v in fitting}
        answer.explained = explanation.message
        return answer

    def change_pod(self, before: Pod | None, after: Pod | None) -> None:
        """A Pod was bound or changed by others, or is gone (None)."""
        self._core.on_pod(before, after)
        if after is None:
            self._pods.pop(before.metadata.uid, None)
        elif after.spec.node_name:
            self._pods[after.metadata.uid] = after

    def change_node(self, after: Node | None, name: str) -> None:
        """A node came, changed or went (None)."""
        self._core.on_node(self._nodes.get(name), after)
        if after is None:
            del self._nodes[name]
        else:
            self._nodes[name] = after


def _decide(core: SchedulerCore, pod: Pod) -> Answer:
    core.on_pod(None, pod)
    with _recorded_totals() as recorded:
        attempt = core.attempt()
    assert attempt is not None
    assert attempt.pod.uid == pod.metadata.uid
    outcome = attempt.outcome
    if isinstance(outcome, Placement):
        return Answer(recorded, node=outcome.node)
    if isinstance(outcome, Exception):
        return Answer(message="".join(traceback.format_exception(outcome)))
    assert isinstance(outcome, Diagnosis), outcome
    answer = Answer(message=outcome.message())
    if attempt.preemption is not None:
        answer.nominated = attempt.preemption.node
        leaving = (victim for victim in attempt.preemption.victims if not victim.pod.metadata.deletion_timestamp)
        answer.victims = sorted(victim.key for victim in leaving)
    return answer


@contextlib.contextmanager
def _recorded_totals() -> Iterator[dict[str, int]]:
    """The totals that a choice is made from, as soon as it is made."""
    recorded: dict[str, int] = {}
    plain = Evaluation.totals

    def totals(self: Evaluation, *arguments: Any) -> IntArray:
        result = plain(self, *arguments)
        recorded.clear()
        recorded.update({self.nodes.name(int(at)): int(result[at]) for at in np.flatnonzero(result != INFEASIBLE)})
        return result

    with mock.patch.object(Evaluation, "totals", totals):
        yield recorded
