"""Our scheduler's answers to the same questions: from a core that lives through a case, and from a fresh picture."""

from __future__ import annotations

import contextlib
import itertools
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


class Ours:
    """A scheduler that is told all that happens in a case, and answers from what it keeps."""

    def __init__(self, profile: Profile, standing: Standing, nodes: list[Node], pods: list[Pod]) -> None:
        self._profile = profile
        self._standing = standing
        self._nodes = nodes
        self.pods = {pod.metadata.uid: pod for pod in pods}
        ticks = itertools.count()
        self._core = SchedulerCore({SCHEDULER_NAME: profile}, lambda: float(next(ticks)))
        for node in nodes:
            self._core.on_node(None, node)
        for pod in pods:
            self._core.on_pod(None, pod)

    def decide(self, pod: Pod) -> Answer:
        """Run a cycle for the Pod."""
        self._core.on_pod(None, pod)
        with _recorded_totals() as recorded:
            attempt = self._core.attempt()
        assert attempt is not None
        assert attempt.pod.uid == pod.metadata.uid
        if isinstance(attempt.outcome, Placement):
            return Answer(recorded, node=attempt.outcome.node)
        if isinstance(attempt.outcome, Diagnosis):
            return Answer(message=attempt.outcome.message())
        raise AssertionError(f"unexpected outcome {attempt.outcome!r}") from (
            attempt.outcome if isinstance(attempt.outcome, Exception) else None
        )

    def explain(self, pod: Pod) -> Answer:
        """Ask every plugin about every node, with nothing kept from before."""
        cluster = explain.Cluster(self._nodes, list(self.pods.values()))
        explanation = cluster.explain(self._profile, pod)
        fitting = [verdict for verdict in explanation.nodes if verdict.fits]
        return Answer(
            totals={verdict.node: verdict.total or 0 for verdict in fitting},
            message=explanation.message,
            plugins={v.node: {name: score.weighted for name, score in v.scores.items()} for v in fitting},
        )

    def settle(self, waiting: Pod, outcome: Pod | None) -> None:
        """What became of the Pod: bound by upstream, or gone (None)."""
        self._core.on_pod(waiting, outcome)
        if outcome is not None:
            self.pods[outcome.metadata.uid] = outcome


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
