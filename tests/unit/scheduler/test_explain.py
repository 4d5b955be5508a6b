"""Explanations come from the very plugins that decide."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewright.scheduler.core import SchedulerCore
from nodewright.scheduler.evaluator import Placement
from nodewright.scheduler.explain import Cluster, explain
from nodewright.scheduler.gang import GROUP_LABEL, MIN_MEMBER
from nodewright.scheduler.plugin import FilterResult, Plugin, PluginError, Scope
from nodewright.scheduler.profile import PluginRef, Plugins, PluginSet, Profile, ProfileConfig
from nodewright.scheduler.registry import Registry
from nodewright.scheduler.state import ClusterState
from nodewright.scheduler.world_objects import DisruptionBudget
from support.scheduler_builders import info, make_node, make_pod


def by_name(explanation):
    return {verdict.node: verdict for verdict in explanation.nodes}


def cluster(nodes, pods=()):
    return Cluster(nodes, pods, {"nodewright": Profile()})


@pytest.fixture
def picture():
    taint = {"key": "k", "effect": "NoSchedule"}
    nodes = [
        make_node("tainted", taints=[taint]),
        make_node("small", "1", "1Gi"),
        make_node("half"),
        make_node("free"),
    ]
    return cluster(nodes, [make_pod("old", {"cpu": "2", "memory": "8Gi"}, node="half", uid="old")])


def test_a_pending_pod(picture):
    answer = picture.explain(Profile(), make_pod("new", {"cpu": "2", "memory": "2Gi"}))
    assert (answer.state, answer.node, answer.message) == ("pending", "", "")
    assert answer.preemption is None
    verdicts = by_name(answer)
    assert verdicts["tainted"].reasons == ["node(s) had untolerated taint(s)"]
    assert verdicts["small"].plugin == "NodeResourcesFit"
    assert verdicts["small"].reasons == ["Insufficient cpu", "Insufficient memory"]
    assert [v.node for v in answer.nodes] == ["free", "half", "tainted", "small"]
    assert verdicts["free"].best
    assert not verdicts["half"].best
    scores = verdicts["free"].scores
    assert scores["NodeResourcesFit"].weighted == (50 + 93) // 2
    assert scores["TaintToleration"].weighted == 300
    assert verdicts["free"].total == sum(s.weighted for s in scores.values())


def test_a_bound_pod_is_looked_at_as_if_it_were_not_placed_yet(picture):
    answer = picture.explain(Profile(), make_pod("old", {"cpu": "2", "memory": "8Gi"}, node="half", uid="old"))
    assert answer.state == "bound to half"
    verdicts = by_name(answer)
    assert verdicts["half"].bound
    assert verdicts["half"].total == verdicts["free"].total
    assert verdicts["half"].best
    assert verdicts["free"].best


def test_a_pod_that_fits_nowhere_has_the_events_message(picture):
    pod = make_pod("big", {"cpu": "64"})
    core = picture.core
    core.on_pod(None, pod)
    event = core.attempt().outcome.message()
    answer = picture.explain(Profile(), pod)
    assert answer.message == event
    assert event.startswith("0/4 nodes are available: 1 node(s) had untolerated taint(s), 3 Insufficient cpu. ")
    assert not any(v.fits or v.best for v in answer.nodes)


def test_nodes_that_lack_least_come_first_and_all_that_is_missing_is_named(picture):
    answer = picture.explain(Profile(), make_pod("big", {"cpu": "5"}, priority=1))
    assert [v.node for v in answer.nodes] == ["free", "half", "small", "tainted"]
    free, half, small, tainted = answer.nodes
    beyond = ", more than the whole node has"
    assert free.missing[0].details == [f"cpu: needs 5000m, 4000m free of 4000m: 1000m short{beyond}"]
    assert half.missing[0].details == [f"cpu: needs 5000m, 2000m free of 4000m: 3000m short{beyond}"]
    assert small.missing[0].details == [f"cpu: needs 5000m, 1000m free of 1000m: 4000m short{beyond}"]
    assert not free.missing[0].evictable
    # Only the first filter counts for the message, but all of them have to be satisfied.
    assert [o.plugin for o in tainted.missing] == ["TaintToleration", "NodeResourcesFit"]
    assert tainted.plugin == "TaintToleration"


def test_what_evicting_may_change_is_nearer_than_what_it_cannot():
    nodes = [make_node("a", "2"), make_node("b", "4")]
    answer = cluster(nodes, [make_pod("old", {"cpu": "4"}, node="b")]).explain(Profile(), make_pod("p", {"cpu": "3"}))
    assert [(v.node, v.missing[0].evictable) for v in answer.nodes] == [("b", True), ("a", False)]


def test_only_the_nearest_nodes_are_detailed_where_that_is_asked_for(picture):
    answer = picture.explain(Profile(), make_pod("big", {"cpu": "64"}), detailed=1)
    assert [bool(v.missing[0].details) for v in answer.nodes] == [True, False, False, False]
    assert answer.nodes[1].missing[0].sentences == ["Insufficient cpu"]


def test_a_pinned_pod_tells_about_every_node(picture):
    fields = [{"key": "metadata.name", "operator": "In", "values": ["small"]}]
    required = {"nodeSelectorTerms": [{"matchFields": fields}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
    verdicts = by_name(picture.explain(Profile(), make_pod("pinned", affinity=affinity)))
    assert verdicts["small"].fits
    assert verdicts["free"].reasons == ["node(s) didn't satisfy plugin(s) [NodeAffinity]"]
    assert verdicts["free"].missing[0].details == ["node affinity: the pod is for node small"]
    assert len(verdicts) == 4


def test_gated_deleted_and_hypothetical_pods_are_called_that(picture):
    gated = make_pod("g", schedulingGates=[{"name": "a"}, {"name": "b"}])
    assert picture.explain(Profile(), gated).state == "waiting for scheduling gates: [a b]"
    assert picture.explain(Profile(), make_pod("d", deleting=True)).state.startswith("being deleted")
    idea = make_pod("i")
    idea.metadata.uid = ""
    assert picture.explain(Profile(), idea).state == "hypothetical"


def test_an_empty_cluster():
    answer = Cluster([], []).explain(Profile(), make_pod())
    assert answer.message == "no nodes available to schedule pods"
    assert answer.nodes == []
    assert answer.preemption is None


def test_a_node_that_cannot_be_read_is_mentioned():
    picture = cluster([make_node("good"), make_node("bad", cpu="lots")])
    assert picture.notes == ["node bad is left out: an amount in its status cannot be read"]
    assert [v.node for v in picture.explain(Profile(), make_pod()).nodes] == ["good"]


def test_what_rules_out_all_nodes_is_told_once(picture):
    pod = make_pod("p", volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}])
    answer = picture.explain(Profile(), pod)
    (missing,) = answer.missing
    assert missing.reasons == ['persistentvolumeclaim "data" not found']
    assert all(v.reasons == missing.reasons for v in answer.nodes)
    assert len(answer.nodes) == 4


# --- nominated Pods --------------------------------------------------------------------------------------------------


def nominated(name, node, cpu, priority):
    pod = make_pod(name, {"cpu": cpu}, uid=name, priority=priority)
    pod.status.nominated_node_name = node
    return pod


def test_room_that_is_kept_for_a_nominated_pod_is_a_reason_and_names_it():
    picture = cluster([make_node("a"), make_node("b", "3")], [nominated("vip", "a", "3", 10)])
    answer = picture.explain(Profile(), make_pod("p", {"cpu": "2"}))
    fits, kept = answer.nodes
    assert (fits.node, kept.node) == ("b", "a")
    assert kept.kept_for == ["default/vip (priority 10)"]
    assert kept.reasons == ["Insufficient cpu"]
    assert kept.missing[0].details == ["cpu: needs 2000m, 1000m free of 4000m: 1000m short"]
    assert picture.core.state.pod_count.sum() == 0


def test_a_nominated_pod_of_lower_priority_is_in_nobodys_way():
    picture = cluster([make_node("a")], [nominated("vip", "a", "3", 10)])
    assert picture.explain(Profile(), make_pod("p", {"cpu": "2"}, priority=11)).nodes[0].fits


def test_the_node_that_the_pod_is_nominated_to_is_taken_without_comparing():
    pod = nominated("vip", "b", "1", 10)
    answer = cluster([make_node("a", "8"), make_node("b", "2")], [pod]).explain(Profile(), pod)
    assert answer.state == "pending, nominated to b"
    assert {v.node: (v.best, v.nominated) for v in answer.nodes} == {"a": (False, False), "b": (True, True)}


# --- preemption ------------------------------------------------------------------------------------------------------


def budget(**labels):
    body = {
        "metadata": {"name": "guard", "namespace": "default"},
        "spec": {"selector": {"matchLabels": labels}},
        "status": {"disruptionsAllowed": 0},
    }
    return msgspec.convert(body, DisruptionBudget)


def test_preemption_tells_victims_budgets_and_the_choice():
    pods = [
        make_pod("guarded", {"cpu": "3"}, node="a", labels={"app": "db"}),
        make_pod("other", {"cpu": "3"}, node="b", priority=5),
        make_pod("great", {"cpu": "3"}, node="c", priority=100),
    ]
    picture = cluster([make_node(name) for name in "abc"], pods)
    picture.core.on_budget(None, budget(app="db"))
    answer = picture.explain(Profile(), make_pod("vip", {"cpu": "2"}, priority=50))
    preemption = answer.preemption
    assert preemption.helps
    first, second = preemption.candidates
    assert (first.node, first.chosen, first.violations) == ("b", True, 0)
    assert [(v.pod, v.priority) for v in first.victims] == [("default/other", 5)]
    assert (second.node, second.chosen, second.violations) == ("a", False, 1)
    assert second.victims[0].budgets == ["guard"]
    assert len(picture.core.state.pods) == 3


def test_in_large_clusters_the_scheduler_does_not_look_at_all_candidates():
    pods = [make_pod(requests={"cpu": "3"}, node=f"n{n}") for n in range(150)]
    picture = cluster([make_node(f"n{n}") for n in range(150)], pods)
    pod = make_pod("vip", {"cpu": "2"}, priority=50)
    assert len(picture.explain(Profile(), pod).preemption.candidates) == 150
    preemption = picture.explain(Profile(), pod, detailed=5).preemption
    assert (len(preemption.candidates), preemption.considered) == (100, 100)


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"preemptionPolicy": "Never", "priority": 50}, "not eligible due to preemptionPolicy=Never."),
        ({"priority": -1}, "No preemption victims found for incoming pod"),
    ],
)
def test_preemption_that_does_not_help_says_why(spec, why):
    picture = cluster([make_node("a")], [make_pod("old", {"cpu": "3"}, node="a")])
    answer = picture.explain(Profile(), make_pod("p", {"cpu": "2"}, **spec))
    assert not answer.preemption.helps
    assert why in answer.preemption.why
    assert why in answer.message


def test_a_profile_without_preemption_says_so():
    config = ProfileConfig(plugins=Plugins(multi_point=PluginSet(disabled=[PluginRef("DefaultPreemption")])))
    answer = cluster([make_node("a")]).explain(Profile(config), make_pod("p", {"cpu": "9"}))
    assert answer.preemption.why == "the profile has no plugin at postFilter"


# --- gangs -----------------------------------------------------------------------------------------------------------


def member(name, cpu="2", minimum="3", **spec):
    pod = make_pod(name, {"cpu": cpu}, uid=name, labels={GROUP_LABEL: "g"}, **spec)
    pod.metadata.annotations = {MIN_MEMBER: minimum}
    return pod


def test_a_gang_tells_who_is_there_and_what_the_event_says():
    pods = [member("a", node="n1"), member("b"), member("c")]
    answer = cluster([make_node("n1"), make_node("n2", "3")], pods).explain(Profile(), pods[1])
    gang = answer.gang
    assert (gang.group, gang.min_member, gang.placed, gang.waiting) == ("default/g", 3, 1, ["default/b", "default/c"])
    assert gang.fits
    assert answer.message == ""


def test_a_gang_that_does_not_fit_at_once_waits_although_the_pod_would_fit():
    pods = [member(name, "3") for name in "abc"]
    answer = cluster([make_node("n1")], pods).explain(Profile(), pods[0])
    assert answer.nodes[0].fits
    assert not answer.gang.fits
    assert "1 of at least 3 pods fit at once" in answer.message


def test_a_hypothetical_member_counts_among_those_that_wait():
    idea = member("idea")
    idea.metadata.uid = ""
    answer = cluster([make_node("n1", "8")], [member("a"), member("b")]).explain(Profile(), idea)
    assert answer.gang.waiting == ["default/a", "default/b", "default/idea"]
    assert answer.gang.fits


def test_a_gang_with_bad_annotations():
    pod = member("a", minimum="many")
    answer = cluster([make_node("n1")], [pod]).explain(Profile(), pod)
    assert "must be a whole number above zero" in answer.message


# --- plugins of others -----------------------------------------------------------------------------------------------


class Moody(Plugin):
    name = "Moody"
    scope = Scope.NODES

    def filter(self, ctx):
        return FilterResult(~ctx.nodes.present, "node(s) were moody")

    def detail(self, ctx, position):
        if "quiet" in ctx.pod.pod.metadata.labels:
            return []
        if "broken" in ctx.pod.pod.metadata.labels:
            return "no list"
        return [f"{ctx.nodes.name(position)} is in a bad mood"]


@pytest.fixture
def moody():
    plugins = Plugins(multi_point=PluginSet(enabled=[PluginRef("Moody")]))
    return Profile(ProfileConfig(plugins=plugins), Registry({"Moody": Moody}))


def test_plugins_of_others_may_say_more_or_leave_it_at_the_reason(moody):
    picture = Cluster([make_node("n")], [])
    assert picture.explain(moody, make_pod()).nodes[0].missing[0].sentences == ["n is in a bad mood"]
    quiet = picture.explain(moody, make_pod(labels={"quiet": ""})).nodes[0].missing[0]
    assert quiet.sentences == ["node(s) were moody"]
    with pytest.raises(PluginError, match='running "Moody" detail plugin: TypeError: returned an object of type str'):
        picture.explain(moody, make_pod(labels={"broken": ""}))


@given(
    nodes=st.lists(st.tuples(st.sampled_from(["1", "2", "8"]), st.booleans()), max_size=6),
    used=st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["500m", "1"]), st.integers(-1, 1)), max_size=6),
    cpu=st.sampled_from(["0", "700m", "2"]),
)
def test_the_decision_is_one_of_the_best_or_the_same_message(nodes, used, cpu):
    core = SchedulerCore({"nodewright": Profile()}, lambda: 0.0)
    state: ClusterState = core.state
    for index, (size, cordoned) in enumerate(nodes):
        state.set_node(make_node(f"n{index}", size, unschedulable=cordoned))
    for index, requests, priority in used:
        if index < len(nodes):
            state.add_pod(info(make_pod(requests={"cpu": requests}, priority=priority)), f"n{index}")
    pod = make_pod(requests={"cpu": cpu})
    answer = explain(Profile(), state, info(pod), budgets=core.placing.budgets)
    core.on_pod(None, pod)
    attempt = core.attempt()
    if isinstance(attempt.outcome, Placement):
        assert attempt.outcome.node in {v.node for v in answer.nodes if v.best}
        assert attempt.outcome.feasible == sum(v.fits for v in answer.nodes)
    else:
        assert answer.message == attempt.outcome.message()
        assert not any(v.fits for v in answer.nodes)
        chosen = [c for c in (answer.preemption.candidates if answer.preemption else []) if c.chosen]
        assert [c.node for c in chosen] == ([attempt.preemption.node] if attempt.preemption else [])
        victims = [{v.pod for v in c.victims} for c in chosen]
        assert victims == ([{v.key for v in attempt.preemption.victims}] if attempt.preemption else [])
    assert len(answer.nodes) == len(nodes)
    for verdict in answer.nodes:
        assert verdict.fits == (not verdict.missing)
        assert all(obstacle.details for obstacle in verdict.missing)
