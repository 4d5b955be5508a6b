"""The steps of a scheduling cycle over a view of the nodes: prepare, filter, score.

These functions are the only place that calls plugins: the scheduler, its cache and `explain` all go through them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import TypeVar

import msgspec
import numpy as np

from .diagnosis import Diagnosis
from .plugin import MAX_SCORE, Context, FilterResult, OnlyNodes, Plugin, PluginError, Rejected
from .profile import Profile, Scorer
from .state import NodeView
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
        answer = _call(plugin, "prepare", plugin.prepare, ctx)
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
    result = _call(plugin, "filter", plugin.filter, ctx)
    if result is not None and result.ok.shape != (len(ctx.nodes),):
        raise PluginError(plugin.name, "filter", _shape_error(result.ok.shape, ctx.nodes))
    return result


def run_filters(filters: Iterable[Plugin], ctx: Context, failures: list[Failure] | None = None) -> BoolArray:
    """The nodes that pass all filters. With `failures`, who rejected which nodes first. Raises PluginError."""
    alive: BoolArray = ctx.nodes.present.copy()
    for plugin in filters:
        result = run_filter(plugin, ctx)
        if result is None:
            continue
        if failures is not None:
            rejected = alive & ~result.ok
            if rejected.any():
                failures.append(Failure(plugin.name, result, rejected))
        alive &= result.ok
    return alive


def run_score(scorer: Scorer, ctx: Context) -> IntArray | None:
    """One plugin's raw scores, checked for shape. Raises PluginError."""
    plugin = scorer.plugin
    raw = _call(plugin, "score", plugin.score, ctx)
    if raw is not None and raw.shape != (len(ctx.nodes),):
        raise PluginError(plugin.name, "score", _shape_error(raw.shape, ctx.nodes))
    return raw


def normalize(scorer: Scorer, ctx: Context, raw: IntArray) -> IntArray:
    """One plugin's scores brought into 0..100, and checked to be. Raises PluginError."""
    plugin = scorer.plugin
    scores = _call(plugin, "normalize", lambda c: plugin.normalize(c, raw), ctx) if scorer.normalizes else raw
    seen = scores[ctx.feasible]
    if seen.size and (seen.min() < 0 or seen.max() > MAX_SCORE):
        invalid = int(seen.min()) if seen.min() < 0 else int(seen.max())
        message = f"the score {invalid} is not in the range of 0 to {MAX_SCORE} after normalizing"
        raise PluginError(plugin.name, "score", ValueError(message))
    return scores


def run_scores(profile: Profile, ctx: Context) -> list[Scored]:
    """The scores of all plugins that care for this Pod; `ctx.feasible` must be set. Raises PluginError."""
    scored = []
    for scorer in profile.scorers:
        raw = run_score(scorer, ctx)
        if raw is not None:
            scored.append(Scored(scorer, raw, normalize(scorer, ctx, raw)))
    return scored


def diagnose(profile: Profile, ctx: Context, preparation: Preparation) -> Diagnosis:
    """Why no node of the view passes, with every other node of the cluster counted as upstream does."""
    diagnosis = Diagnosis(ctx.nodes.state.node_count, plugins=set(preparation.plugins))
    if preparation.rejected is not None:
        diagnosis.prefilter_message = preparation.rejected.reason
        return diagnosis
    failures: list[Failure] = []
    run_filters(profile.filters, ctx, failures)
    diagnosis.plugins.update(failure.plugin for failure in failures)
    diagnosis.reasons = count_reasons(failures)
    absent = diagnosis.node_count - int(ctx.nodes.present.sum())
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


def _call(plugin: Plugin, point: str, method: Callable[[Context], R], ctx: Context) -> R:
    try:
        return method(ctx)
    except Exception as error:  # a plugin's fault stays its Pod's problem, whatever it raises
        raise PluginError(plugin.name, point, error) from error


def _shape_error(shape: tuple[int, ...], nodes: NodeView) -> ValueError:
    return ValueError(f"the answer has shape {shape} for {len(nodes)} nodes")
