"""The steps of a scheduling cycle over a view of the nodes: prepare, filter, score.

These functions are the only place that calls plugins: the scheduler, its cache and `explain` all go through them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import TypeVar

import msgspec
import numpy as np

from . import checks, metrics
from .diagnosis import Diagnosis
from .plugin import Context, FilterResult, OnlyNodes, Plugin, PluginError, Rejected
from .profile import Profile, Scorer
from .state import ClusterState, NodeView
from .state.arrays import BoolArray, IntArray

R = TypeVar("R")


class Preparation(msgspec.Struct):
    """What the plugins say before looking at nodes: a rejection, or the names that the Pod is confined to."""

    rejected: Rejected | None = None
    names: set[str] | None = None
    plugins: list[str] = []


class Failure(msgspec.Struct):
    """A filter that rejected nodes which all earlier filters had passed."""

    plugin: str
    result: FilterResult
    where: BoolArray


class Scored(msgspec.Struct):
    """A plugin's scores, raw and normalized (0..100); the weight is not applied."""

    scorer: Scorer
    raw: IntArray
    normalized: IntArray


def prepare(profile: Profile, ctx: Context) -> Preparation:
    """Let the plugins look at the Pod. Raises PluginError."""
    found = Preparation(plugins=[])
    for plugin in profile.preparers:
        started = metrics.now() if metrics.SAMPLER.on else 0.0
        answer = _call(plugin, "prepare", checks.preparation, _call(plugin, "prepare", plugin.prepare, ctx))
        plugin.asked.pre_filter.value += 1
        if started:
            status = metrics.UNSCHEDULABLE if isinstance(answer, Rejected) else metrics.SUCCESS
            metrics.executed(plugin.name, metrics.PRE_FILTER, started, status)
        if plugin.name not in profile.pre_filters:
            continue  # asked only for what its filter or score needs
        if isinstance(answer, Rejected):
            return Preparation(rejected=answer, plugins=[plugin.name])
        if isinstance(answer, OnlyNodes):
            found.names = answer.names if found.names is None else found.names & answer.names
            found.plugins.append(plugin.name)
            if not found.names:
                together = " ".join(found.plugins)
                found.rejected = Rejected(f"node(s) didn't satisfy plugin(s) [{together}] simultaneously")
                return found
    return found


def run_filter(plugin: Plugin, ctx: Context) -> FilterResult | None:
    """One plugin's answer, checked for shape. Raises PluginError."""
    started = metrics.now() if metrics.SAMPLER.on else 0.0
    result = _call(plugin, "filter", checks.verdict, _call(plugin, "filter", plugin.filter, ctx), ctx)
    if result is not None:
        plugin.asked.filter.value += len(ctx.nodes)
    if started:
        metrics.executed(plugin.name, metrics.FILTER, started, _status_of(result))
    return result


def _status_of(result: FilterResult | None) -> str:
    if result is None:
        return metrics.SKIP
    return metrics.SUCCESS if result.ok.any() else metrics.UNSCHEDULABLE


def run_filters(
    filters: Iterable[Plugin],
    ctx: Context,
    failures: list[Failure] | None = None,
    answered: list[Plugin] | None = None,
) -> BoolArray:
    """The nodes that pass all filters. Raises PluginError.

    `failures` is filled with who rejected which nodes first, `answered` with the filters that had a say at all.
    """
    alive: BoolArray = ctx.nodes.present.copy()
    for plugin in filters:
        result = run_filter(plugin, ctx)
        if result is None:
            continue
        if answered is not None:
            answered.append(plugin)
        if failures is not None:
            rejected = alive & ~result.ok
            if rejected.any():
                _call(plugin, "filter", checks.reasons, result, ctx)
                failures.append(Failure(plugin.name, result, rejected))
        alive &= result.ok
    return alive


def details(plugin: Plugin, ctx: Context, position: int) -> list[str]:
    """What one plugin says that a rejected node lacks, in sentences. Raises PluginError."""
    return _call(plugin, "detail", checks.sentences, _call(plugin, "detail", plugin.detail, ctx, position))


def run_score(scorer: Scorer, ctx: Context) -> IntArray | None:
    """One plugin's raw scores, checked for shape. Raises PluginError."""
    plugin = scorer.plugin
    started = metrics.now() if metrics.SAMPLER.on else 0.0
    raw = _call(plugin, "score", plugin.score, ctx)
    if raw is not None:
        raw = _call(plugin, "score", checks.scores, raw, ctx)
        plugin.asked.score.value += len(ctx.nodes)
    if started:
        metrics.executed(plugin.name, metrics.SCORE, started, metrics.SKIP if raw is None else metrics.SUCCESS)
    return raw


def normalize(scorer: Scorer, ctx: Context, raw: IntArray) -> IntArray:
    """One plugin's scores brought into 0..100, and checked to be. Raises PluginError."""
    plugin = scorer.plugin
    if not scorer.normalizes:
        return _call(plugin, "score", checks.final_scores, raw, ctx)
    # Raw scores are kept for the next Pod, and only the rows that changed are asked for again.
    kept = raw.view()
    kept.flags.writeable = False
    started = metrics.now() if metrics.SAMPLER.on else 0.0
    scores = _call(plugin, "normalize", plugin.normalize, ctx, kept)
    if started:
        metrics.executed(plugin.name, metrics.NORMALIZE, started, metrics.SUCCESS)
    return _call(plugin, "normalize", checks.final_scores, scores, ctx)


def run_scores(profile: Profile, ctx: Context) -> list[Scored]:
    """The scores of all plugins that care for this Pod; `ctx.feasible` must be set. Raises PluginError."""
    scored = []
    for scorer in profile.scorers:
        raw = run_score(scorer, ctx)
        if raw is not None:
            scored.append(Scored(scorer, raw, normalize(scorer, ctx, raw)))
    return scored


def confined_view(state: ClusterState, preparation: Preparation) -> NodeView:
    """The nodes that the Pod is confined to by what the plugins said, all of them where nothing was said."""
    if preparation.rejected is not None:
        return NodeView(state, np.array([], dtype=np.intp))
    if preparation.names is None:
        return NodeView(state)
    rows = sorted(row for name in preparation.names if (row := state.rows.get(name)) is not None)
    return NodeView(state, np.array(rows, dtype=np.intp))


def unresolvable(failure: Failure) -> BoolArray:
    """Where the filter rejected the node for a reason that evicting Pods does not change."""
    found: BoolArray = np.zeros(len(failure.where), dtype=np.bool_)
    for reason in failure.result.reasons:
        if reason.unresolvable is not False:
            found |= (failure.where if reason.where is None else reason.where) & reason.unresolvable
    return found & failure.where


def diagnose(
    state: ClusterState, preparation: Preparation, failures: Iterable[Failure], looked_at: int = 0
) -> Diagnosis:
    """Why no node passes, counted as upstream does; `looked_at` nodes were filtered, the others left out."""
    diagnosis = Diagnosis(state.node_count, plugins=set(preparation.plugins))
    if preparation.rejected is not None:
        diagnosis.prefilter_message = preparation.rejected.reason
        return diagnosis
    failures = list(failures)
    diagnosis.plugins.update(failure.plugin for failure in failures)
    diagnosis.reasons = count_reasons(failures)
    absent = diagnosis.node_count - looked_at
    if absent and preparation.plugins:
        diagnosis.reasons[confined_reason(preparation)] += absent
    return diagnosis


def confined_reason(preparation: Preparation) -> str:
    """The reason that counts for nodes which `OnlyNodes` left out."""
    return f"node(s) didn't satisfy plugin(s) [{' '.join(preparation.plugins)}]"


def count_reasons(failures: Iterable[Failure]) -> Counter[str]:
    """How many nodes were rejected for each reason."""
    counts: Counter[str] = Counter()
    for failure in failures:
        for reason in failure.result.reasons:
            where = failure.where if reason.where is None else failure.where & reason.where
            if number := int(np.count_nonzero(where)):
                counts[reason.text] += number
    return counts


def _call(plugin: Plugin, point: str, method: Callable[..., R], *arguments: object) -> R:
    try:
        return method(*arguments)
    except Exception as error:  # a plugin's fault stays its Pod's problem, whatever it raises
        raise PluginError(plugin.name, point, error) from error
