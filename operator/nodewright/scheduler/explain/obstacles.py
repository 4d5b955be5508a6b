"""What is missing for a Pod at the nodes that reject it: all filters' objections, in sentences, nearest nodes first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .. import cycle
from ..cycle import Failure
from ..evaluation import Evaluation
from ..evaluator import Evaluator
from ..plugin import Context
from ..plugins.node_resources_fit import NodeResourcesFit
from ..pods import PodInfo
from ..profile import Profile
from ..state import ClusterState, NodeView
from .answer import Obstacle

Rank = tuple[int, int, float]


class Obstacles:
    """All objections of a profile's filters to a Pod; `ctx` is over all nodes. Raises PluginError."""

    def __init__(self, profile: Profile, ctx: Context) -> None:
        self._profile = profile
        self._ctx = ctx
        self._failures: list[Failure] = []
        for plugin in profile.filters:
            cycle.run_filters([plugin], ctx, self._failures)
        size = len(ctx.nodes)
        self._count = np.zeros(size, dtype=np.int64)
        self._hopeless = np.zeros(size, dtype=np.bool_)
        self._lasting = [cycle.unresolvable(failure) for failure in self._failures]
        for failure, lasting in zip(self._failures, self._lasting, strict=True):
            self._count += failure.where
            self._hopeless |= lasting
        self._shortage = _shortage(profile, ctx)

    def rank(self, position: int) -> Rank:
        """Orders nodes by how little is missing: fewer filters, then those that evicting may satisfy, then amounts."""
        return int(self._count[position]), int(self._hopeless[position]), float(self._shortage[position])

    def at(self, position: int, *, detailed: bool) -> list[Obstacle]:
        """The objections to the node at a position, in the order of the filters. Raises PluginError."""
        return [
            _obstacle(self._profile, failure, self._ctx, position, not lasting[position], detailed=detailed)
            for failure, lasting in zip(self._failures, self._lasting, strict=True)
            if failure.where[position]
        ]


def beside(
    profile: Profile, state: ClusterState, evaluation: Evaluation, pod: PodInfo, node: str, ahead: Sequence[PodInfo]
) -> list[Obstacle]:
    """The objections to a node that passes, once nominated Pods are there. The state is as before afterwards."""
    for other in ahead:
        state.add_pod(other, node)
    try:
        view = NodeView(state, np.array([state.rows[node]], dtype=np.intp))
        ctx = Context(pod, view, evaluation.data)
        failures: list[Failure] = []
        cycle.run_filters(Evaluator(profile, state).later, ctx, failures)
        # Whoever is nominated has not come yet: there is nobody to evict.
        return [_obstacle(profile, failure, ctx, 0, False, detailed=True) for failure in failures]
    finally:
        for other in ahead:
            state.remove_pod(other.uid)


def anywhere(profile: Profile, ctx: Context, plugin: str, reason: str) -> Obstacle:
    """What keeps the Pod off all nodes: a rejection by `prepare`."""
    details: list[str] = []
    found = profile.plugins.get(plugin)
    if found is not None and ctx.nodes.present.any():
        details = cycle.details(found, ctx, int(np.flatnonzero(ctx.nodes.present)[0]))
    return Obstacle(plugin=plugin, reasons=[reason], details=details)


def reasons_at(failure: Failure, position: int) -> list[str]:
    """The reasons for which a filter rejected the node at a position."""
    return [r.text for r in failure.result.reasons if r.where is None or bool(r.where[position])]


def _obstacle(
    profile: Profile, failure: Failure, ctx: Context, position: int, evictable: bool, *, detailed: bool
) -> Obstacle:
    plugin = profile.plugins[failure.plugin]
    return Obstacle(
        plugin=failure.plugin,
        reasons=reasons_at(failure, position),
        details=cycle.details(plugin, ctx, position) if detailed else [],
        evictable=bool(evictable),
    )


def _shortage(profile: Profile, ctx: Context) -> npt.NDArray[np.float64]:
    """How much of its requests the Pod lacks at each node: the sum of the missing shares."""
    total = np.zeros(len(ctx.nodes), dtype=np.float64)
    room = next((plugin for plugin in profile.filters if isinstance(plugin, NodeResourcesFit)), None)
    for name, wanted in room.wanted(ctx.pod).items() if room is not None else ():
        free = ctx.nodes.allocatable(name) - ctx.nodes.requested(name)
        total += np.clip(wanted - free, 0, None) / wanted
    return total
