"""Explanations come from the very plugins that decide."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewright.scheduler.evaluator import Evaluator, Placement
from nodewright.scheduler.explain import Cluster, explain
from nodewright.scheduler.profile import Profile
from nodewright.scheduler.state import ClusterState
from support.scheduler_builders import info, make_node, make_pod


def by_name(explanation):
    return {verdict.node: verdict for verdict in explanation.nodes}


@pytest.fixture
def picture():
    taint = {"key": "k", "effect": "NoSchedule"}
    nodes = [
        make_node("tainted", taints=[taint]),
        make_node("small", "1", "1Gi"),
        make_node("half"),
        make_node("free"),
    ]
    return Cluster(nodes, [make_pod("old", {"cpu": "2", "memory": "8Gi"}, node="half", uid="old")])


def test_a_pending_pod(picture):
    answer = picture.explain(Profile(), make_pod("new", {"cpu": "2", "memory": "2Gi"}))
    assert (answer.state, answer.node, answer.message) == ("pending", "", "")
    verdicts = by_name(answer)
    assert verdicts["tainted"].reasons == ["node(s) had untolerated taint(s)"]
    assert verdicts["small"].plugin == "NodeResourcesFit"
    assert verdicts["small"].reasons == ["Insufficient cpu", "Insufficient memory"]
    assert [v.node for v in answer.nodes] == ["free", "half", "small", "tainted"]
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
    answer = picture.explain(Profile(), make_pod("big", {"cpu": "64"}))
    assert answer.message == ("0/4 nodes are available: 1 node(s) had untolerated taint(s), 3 Insufficient cpu.")
    assert not any(v.fits or v.best for v in answer.nodes)


def test_a_pinned_pod_tells_about_every_node(picture):
    fields = [{"key": "metadata.name", "operator": "In", "values": ["small"]}]
    required = {"nodeSelectorTerms": [{"matchFields": fields}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}
    verdicts = by_name(picture.explain(Profile(), make_pod("pinned", affinity=affinity)))
    assert verdicts["small"].fits
    assert verdicts["free"].reasons == ["node(s) didn't satisfy plugin(s) [NodeAffinity]"]
    assert len(verdicts) == 4


def test_gated_and_hypothetical_pods_are_called_that(picture):
    gated = make_pod("g", schedulingGates=[{"name": "a"}, {"name": "b"}])
    assert picture.explain(Profile(), gated).state == "waiting for scheduling gates: [a b]"
    idea = make_pod("i")
    idea.metadata.uid = ""
    assert picture.explain(Profile(), idea).state == "hypothetical"


def test_an_empty_cluster():
    answer = Cluster([], []).explain(Profile(), make_pod())
    assert answer.message == "no nodes available to schedule pods"
    assert answer.nodes == []


@given(
    nodes=st.lists(st.tuples(st.sampled_from(["1", "2", "8"]), st.booleans()), max_size=6),
    used=st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["500m", "1"])), max_size=6),
    cpu=st.sampled_from(["0", "700m", "2"]),
)
def test_the_decision_is_one_of_the_best_or_the_same_message(nodes, used, cpu):
    state = ClusterState()
    for index, (size, cordoned) in enumerate(nodes):
        state.set_node(make_node(f"n{index}", size, unschedulable=cordoned))
    for index, requests in used:
        if index < len(nodes):
            state.add_pod(info(make_pod(requests={"cpu": requests})), f"n{index}")
    pod = info(make_pod(requests={"cpu": cpu}))
    answer = explain(Profile(), state, pod)
    outcome = Evaluator(Profile(), state).place(pod)
    if isinstance(outcome, Placement):
        assert outcome.node in {v.node for v in answer.nodes if v.best}
        assert outcome.feasible == sum(v.fits for v in answer.nodes)
    else:
        assert answer.message == outcome.diagnosis.message()
        assert not any(v.fits for v in answer.nodes)
    assert len(answer.nodes) == len(nodes)
