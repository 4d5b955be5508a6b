"""Plugins that answer wrongly, asked for the first time and again at the rows that changed, whatever their scope."""

import numpy as np
import pytest

from nodewright.scheduler.evaluator import Evaluator
from nodewright.scheduler.plugin import FilterResult, Plugin, PluginError, Reason, Rejected, Scope
from nodewright.scheduler.points import PluginRef, PluginSet
from nodewright.scheduler.profile import Plugins, Profile, ProfileConfig
from nodewright.scheduler.registry import Registry
from nodewright.scheduler.state import ClusterState
from support.scheduler_builders import info, make_node, make_pod

SCOPES = list(Scope)


def evaluator(nodes=4, **members):
    """An evaluator whose profile has a plugin with these members beside the defaults."""
    cls = type("Tried", (Plugin,), {"name": "Tried", **members})
    plugins = Plugins(multi_point=PluginSet(enabled=[PluginRef("Tried")]))
    state = ClusterState(nodes)
    for number in range(nodes):
        state.set_node(make_node(f"n{number}"))
    return state, Evaluator(Profile(ProfileConfig(plugins=plugins), Registry({"Tried": cls})), state)


def fault(placer, pod=None):
    with pytest.raises(PluginError) as caught:
        placer.place(info(pod or make_pod()))
    assert caught.value.plugin == "Tried"
    return str(caught.value).removeprefix('running "Tried" ')


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"filter": lambda self, ctx: [True]}, "filter plugin: TypeError: returned an object of type list"),
        (
            {"filter": lambda self, ctx: FilterResult(np.ones(1, dtype=np.bool_), "x")},
            "filter plugin: ValueError: the mask has shape (1,) for ",
        ),
        (
            {"filter": lambda self, ctx: FilterResult([True] * len(ctx.nodes), "x")},
            "filter plugin: TypeError: the mask is an object of type list; expected an array of booleans",
        ),
        ({"score": lambda self, ctx: ctx.nodes.present}, "score plugin: TypeError: the scores have dtype bool"),
        (
            {"score": lambda self, ctx: ctx.nodes.pod_count + 101},
            "score plugin: ValueError: the score 101 is not in the range of 0 to 100 after normalizing",
        ),
        (
            {"score": lambda self, ctx: ctx.nodes.pod_count, "normalize": lambda self, ctx, scores: scores[:1]},
            "normalize plugin: ValueError: the answer has shape (1,)",
        ),
        ({"prepare": lambda self, ctx: Rejected(5)}, "prepare plugin: TypeError: returned Rejected with an object"),
        ({"prepare": lambda self, ctx: True}, "prepare plugin: TypeError: returned an object of type bool"),
    ],
)
def test_a_wrong_answer_names_the_plugin(scope, members, said):
    _, placer = evaluator(scope=scope, **members)
    assert fault(placer).startswith(said)
    assert fault(placer).startswith(said)  # nothing of it was kept


@pytest.mark.parametrize("reason", [5, Reason(5), Reason("x", [True]), Reason("x", None, np.ones(1, dtype=np.bool_))])
def test_wrong_reasons_are_found_when_nodes_are_rejected(reason):
    def reject(self, ctx):
        return FilterResult(~ctx.nodes.present, [reason])

    _, placer = evaluator(filter=reject)
    assert fault(placer).startswith("filter plugin: ")


@pytest.mark.parametrize("scope", SCOPES)
def test_a_score_that_leaves_the_range_later_is_found_too(scope):
    """The first Pod is scored at all rows, the next ones where something changed."""
    state, placer = evaluator(nodes=40, scope=scope, score=lambda self, ctx: ctx.nodes.pod_count * 101)
    found = placer.place(info(make_pod()))
    state.add_pod(info(make_pod(node=found.node)), found.node)
    if scope is Scope.NODES:
        placer.place(info(make_pod()))  # promised not to look at Pods
    else:
        assert "the score 101 is not in the range" in fault(placer)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.int64])
def test_any_integers_are_scores(dtype):
    _, placer = evaluator(score=lambda self, ctx: np.full(len(ctx.nodes), 100, dtype=dtype))
    assert placer.place(info(make_pod())).feasible == 4


def test_scores_that_normalize_was_given_stay_as_they_are():
    def normalize(self, ctx, scores):
        scores += 1
        return scores

    _, placer = evaluator(scope=Scope.NODES, score=lambda self, ctx: ctx.nodes.pod_count, normalize=normalize)
    assert "normalize plugin: ValueError: output array is read-only" in fault(placer)
