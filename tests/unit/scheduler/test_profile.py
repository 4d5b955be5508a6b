"""Profiles: upstream's merge rules, and what each extension point does."""

import pytest

from nodewright.scheduler import cycle
from nodewright.scheduler.events import Event
from nodewright.scheduler.plugin import (
    Context,
    FilterResult,
    OnlyNodes,
    Plugin,
    PluginError,
    Rejected,
    Scope,
)
from nodewright.scheduler.pods import PodPart
from nodewright.scheduler.profile import Profile, ProfileError, profile_from_object
from nodewright.scheduler.registry import DEFAULT_PLUGINS, Registry
from nodewright.scheduler.state import ClusterState, NodeView
from support.scheduler_builders import info, make_node, make_pod

FILTERS = [cls.name for cls in DEFAULT_PLUGINS if cls.extends("filter")]
SCORES = {cls.name: cls.weight for cls in DEFAULT_PLUGINS if cls.extends("score")}


class Extra(Plugin):
    name = "Extra"
    weight = 7

    def filter(self, ctx):
        return None

    def score(self, ctx):
        return None


class Scoring(Plugin):
    """Finds out in `prepare` what `score` needs, and would keep the Pod away."""

    name = "Scoring"
    scope = Scope.NODES

    def prepare(self, ctx):
        ctx.data[self.name] = 5
        return OnlyNodes({"elsewhere"})

    def filter(self, ctx):
        return FilterResult(ctx.nodes.present & (ctx.data[self.name] == 0), "no")

    def score(self, ctx):
        return ctx.nodes.pod_count * 0 + ctx.data[self.name]


class Holding(Plugin):
    name = "Holding"

    def reserve(self, pod, node, state):
        pass

    async def pre_bind(self, pod, node, state, client):
        pass


class Rescue(Plugin):
    name = "Rescue"
    is_post_filter = True


class Picky(Plugin):
    name = "Picky"

    def filter(self, ctx):
        return None

    def shares(self, pod):
        if pod.pod.metadata.name == "broken":
            raise LookupError("who?")
        return pod.pod.metadata.name != "unique"


REGISTRY = Registry({cls.name: cls for cls in (Extra, Scoring, Holding, Rescue, Picky)})


def build(**plugins):
    return profile_from_object({"plugins": plugins}, REGISTRY)


def on(*names, **weights):
    return {"enabled": [*({"name": n} for n in names), *({"name": n, "weight": w} for n, w in weights.items())]}


def off(*names):
    return {"disabled": [{"name": n} for n in names]}


def filters(profile):
    return [p.name for p in profile.filters]


def weights(profile):
    return {s.plugin.name: s.weight for s in profile.scorers}


# --- merging --------------------------------------------------------------------------------------------------------


def test_a_new_plugin_is_appended_with_its_own_weight_or_the_given_one():
    profile = build(multiPoint=on("Extra"))
    assert filters(profile) == [*FILTERS, "Extra"]
    assert weights(profile) == {**SCORES, "Extra": 7}
    assert weights(build(multiPoint=on(Extra=2)))["Extra"] == 2


def test_a_default_that_is_configured_again_keeps_its_place():
    profile = build(multiPoint=on(TaintToleration=9))
    assert filters(profile) == FILTERS
    assert weights(profile) == {**SCORES, "TaintToleration": 9}


def test_a_default_that_is_configured_again_without_a_weight_weighs_one_as_upstream():
    assert weights(build(multiPoint=on("TaintToleration"))) == {**SCORES, "TaintToleration": 1}
    assert weights(build(score=on("TaintToleration"))) == {**SCORES, "TaintToleration": 1}


def test_the_weight_of_the_score_point_goes_before_that_of_multi_point():
    profile = build(multiPoint=on(Extra=2), score=on(Extra=3))
    assert weights(profile)["Extra"] == 3


def test_plugins_can_be_disabled_everywhere_or_at_one_point():
    assert "TaintToleration" not in filters(build(multiPoint=off("TaintToleration")))
    profile = build(score={**off("*"), **on(ImageLocality=5)})
    assert filters(profile) == FILTERS
    assert weights(profile) == {"ImageLocality": 5}
    assert filters(build(filter=off("NodePorts"))) == [name for name in FILTERS if name != "NodePorts"]
    assert "NodePorts" not in build(multiPoint=off("NodePorts")).plugins


def test_disabling_all_at_one_point_leaves_only_what_that_point_enables():
    profile = build(multiPoint=on("Extra"), filter={**off("*"), **on("NodeName")})
    assert filters(profile) == ["NodeName"]
    assert "Extra" in weights(profile)


def test_what_a_point_enables_goes_first_if_multi_point_has_it_too_and_last_if_not():
    profile = build(filter=on("Extra", "NodeResourcesFit", "NodeName"))
    others = [name for name in FILTERS if name not in ("NodeResourcesFit", "NodeName")]
    assert filters(profile) == ["NodeResourcesFit", "NodeName", *others, "Extra"]
    # disabled and enabled at the same point: out of its place, and appended
    profile = build(filter={**off("NodeName"), **on("NodeName")})
    assert filters(profile) == [*(name for name in FILTERS if name != "NodeName"), "NodeName"]


def test_star_takes_all_defaults_away_and_enabled_ones_stay():
    needed = ("PrioritySort", "DefaultBinder")
    profile = build(multiPoint={**off("*"), **on("NodeName", *needed, "Extra")})
    assert filters(profile) == ["NodeName", "Extra"]
    assert list(profile.plugins) == ["NodeName", "Extra"]


def test_names_of_upstream_plugins_that_need_no_class_are_accepted():
    profile = build(multiPoint=on("PrioritySort", "DefaultBinder", "SchedulingGates"), preEnqueue=on("SchedulingGates"))
    assert filters(profile) == FILTERS
    build(queueSort={**off("*"), **on("PrioritySort")}, bind={**off("*"), **on("DefaultBinder")})
    build(multiPoint=off("SchedulingGates", "DynamicResources"), preFilter=on("NodeResourcesFit"))


# --- what the points do ---------------------------------------------------------------------------------------------


def scores_of(profile):
    state = ClusterState(1)
    state.set_node(make_node("n"))
    ctx = Context(info(make_pod()), NodeView(state), {})
    prepared = cycle.prepare(profile, ctx)
    ctx.feasible = cycle.run_filters(profile.filters, ctx)
    found = {s.scorer.plugin.name: int(s.normalized[state.rows["n"]]) for s in cycle.run_scores(profile, ctx)}
    return prepared, bool(ctx.feasible.any()), found.get("Scoring")


def test_a_plugin_whose_filter_is_off_still_prepares_for_its_score():
    prepared, fits, score = scores_of(build(multiPoint=on("Scoring")))
    assert (prepared.names, fits) == ({"elsewhere"}, False)
    prepared, fits, score = scores_of(build(multiPoint=on("Scoring"), filter=off("Scoring")))
    assert (prepared.names, fits, score) == ({"elsewhere"}, True, 5)
    off_both = {"filter": off("Scoring"), "preFilter": off("Scoring")}
    prepared, fits, score = scores_of(build(multiPoint=on("Scoring"), **off_both))
    assert (prepared.names, fits, score) == (None, True, 5)
    prepared, fits, score = scores_of(build(multiPoint=on("Scoring"), preFilter=off("*"), score=off("Scoring")))
    assert (prepared.names, fits, score) == (None, False, None)


def test_a_rejection_in_prepare_needs_pre_filter():
    class Refuses(Plugin):
        name = "Refuses"

        def prepare(self, ctx):
            return Rejected("never")

        def score(self, ctx):
            return None

    registry = Registry({"Refuses": Refuses})
    everywhere = profile_from_object({"plugins": {"multiPoint": on("Refuses")}}, registry)
    assert scores_of(everywhere)[0].rejected.reason == "never"
    muted = profile_from_object({"plugins": {"multiPoint": on("Refuses"), "preFilter": off("Refuses")}}, registry)
    assert scores_of(muted)[0].rejected is None


def test_reserve_and_pre_bind_have_their_plugins():
    profile = build(multiPoint=on("Holding"))
    assert [p.name for p in profile.reservers][-1] == "Holding"
    assert [p.name for p in profile.pre_binders][-1] == "Holding"
    profile = build(multiPoint=on("Holding"), reserve=off("Holding"), preBind=off("*"))
    assert "Holding" not in [p.name for p in profile.reservers]
    assert profile.pre_binders == []


def test_post_filter_is_one_plugin_or_none():
    only = {**off("*"), **on("Rescue")}
    assert build(postFilter=only).post_filter.name == "Rescue"
    assert build(postFilter=off("*")).post_filter is None


def test_a_plugin_that_is_asked_nothing_does_not_matter_for_sharing():
    nothing = {**off("*"), **on("NodeName")}
    profile = build(multiPoint=on("Extra"), filter=nothing, score=off("*"), preFilter=nothing)
    assert profile.reads == PodPart.SPEC
    assert not profile.has_cluster_scope
    assert build(multiPoint=on("Extra"), score=off("*")).has_cluster_scope


def test_answers_are_shared_unless_a_plugin_says_no():
    profile = build(multiPoint=on("Picky"))
    assert profile.shares(info(make_pod("usual")))
    assert not profile.shares(info(make_pod("unique")))
    with pytest.raises(PluginError, match='"Picky" shares plugin: LookupError: who'):
        profile.shares(info(make_pod("broken")))
    assert build(filter=off("*"), multiPoint=on("Picky"), preFilter=off("*")).shares(info(make_pod("unique")))


def test_wakers_are_those_of_the_rejecting_plugins():
    profile = Profile()
    assert profile.wakers({"NodeName"}) == Event.NODE_ADD
    assert profile.wakers({"NodePorts", "NodeName"}) == Event.NODE_ADD | Event.POD_DELETE
    assert profile.wakers(set()) == Event.NONE


# --- what is refused ------------------------------------------------------------------------------------------------

SELF = "this scheduler does the work of {} itself, and no plugin can take its place"


@pytest.mark.parametrize(
    ("plugins", "complaint"),
    [
        ({"filter": on("Nope")}, "no scheduler plugin is named 'Nope'"),
        ({"score": off("Nope")}, "plugins.score.disabled[0].name: no scheduler plugin is named 'Nope'"),
        ({"multiPoint": on("Extra", "Extra")}, 'plugins.multiPoint.enabled[1].name: Duplicate value: "Extra"'),
        ({"score": on("*")}, 'plugins.score.enabled[0].name: Invalid value: "*": only `disabled` can mean all plugins'),
        ({"score": on(Extra=-1)}, "plugins.score.enabled[0].weight: Invalid value: -1: not in valid range [0, 2147"),
        ({"score": on(Extra=2**31)}, "plugins.score.enabled[0].weight: Invalid value: 2147483648: not in valid range"),
        ({"score": on(Extra="x")}, "plugins.score.enabled[0].weight: Expected `int`, got `str`"),
        ({"scores": on("Extra")}, "unknown field `scores`"),
        (
            {"score": on("NodeName")},
            "score.enabled[0].name: plugin 'NodeName' does not extend Score plugin; it extends preFilter, filter",
        ),
        ({"reserve": on("Extra")}, "plugin 'Extra' does not extend Reserve plugin; it extends preFilter, filter, "),
        ({"queueSort": on("Extra")}, f"not extend QueueSort plugin: {SELF.format('PrioritySort')}"),
        ({"bind": on("Extra")}, f"plugins.bind.enabled[0].name: plugin 'Extra' does not extend Bind plugin: {SELF}"),
        ({"preEnqueue": on("Extra")}, f"does not extend PreEnqueue plugin: {SELF.format('SchedulingGates')}"),
        ({"permit": on("Extra")}, "does not extend Permit plugin: there is no such step in this scheduler"),
        ({"postBind": on("Extra")}, "does not extend PostBind plugin: there is no such step in this scheduler"),
        (
            {"queueSort": off("PrioritySort")},
            "queueSort: PrioritySort is switched off, but a profile needs one",
        ),
        ({"bind": off("*")}, "plugins.bind: DefaultBinder is switched off"),
        ({"multiPoint": off("*")}, "plugins.queueSort: PrioritySort is switched off"),
        ({"multiPoint": on("GangScheduling")}, "this scheduler has no plugin 'GangScheduling'; it can only be "),
        ({"postFilter": on("Rescue"), "multiPoint": on("Second")}, "plugins.postFilter: only one plugin can run there"),
    ],
)
def test_what_cannot_have_an_effect_is_refused(plugins, complaint):
    class Second(Rescue):
        name = "Second"

    registry = Registry({cls.name: cls for cls in (Extra, Rescue, Second)})
    with pytest.raises(ProfileError) as caught:
        profile_from_object({"plugins": plugins}, registry)
    assert complaint.replace(SELF, "") in str(caught.value)
