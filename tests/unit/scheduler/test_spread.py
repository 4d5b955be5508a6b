"""PodTopologySpread: upstream's rules by table, and the counts behind them."""

import pytest

from nodewright.scheduler.core import SchedulerCore
from nodewright.scheduler.evaluator import Evaluator, Placement, Rejection
from nodewright.scheduler.explain import explain
from nodewright.scheduler.objects import OwnerReference, TopologySpreadConstraint
from nodewright.scheduler.plugins.pod_topology_spread import Args, PodTopologySpread
from nodewright.scheduler.profile import Profile
from nodewright.scheduler.state import ClusterState
from nodewright.scheduler.world_objects import Namespace, SelectorOwner, Service, ServiceSpec
from support.scheduler_builders import info, make_node, make_pod

ZONE = "topology.kubernetes.io/zone"
HOST = "kubernetes.io/hostname"
SKEW = "node(s) didn't match pod topology spread constraints"


def nodes(**zones):
    """node name -> zone ("" for none)."""
    return [make_node(name, labels={ZONE: zone} if zone else {}) for name, zone in zones.items()]


def constraint(key=ZONE, skew=1, *, soft=False, app="web", **more):
    selector = {"matchLabels": {"app": app}} if app else None
    when = "ScheduleAnyway" if soft else "DoNotSchedule"
    return {"maxSkew": skew, "topologyKey": key, "whenUnsatisfiable": when, "labelSelector": selector, **more}


def web(*constraints, node="", **spec):
    labels = spec.pop("labels", {"app": "web"})
    return make_pod(node=node, labels=labels, topologySpreadConstraints=list(constraints), **spec)


def state_of(found, placed):
    state = ClusterState(capacity=1)
    for node in found:
        state.set_node(node)
    for name, count in placed.items():
        for _ in range(count):
            state.add_pod(info(web(node=name)), name)
    return state


def fitting(state, pod):
    return {v.node for v in explain(Profile(), state, info(pod)).nodes if v.fits}


def reasons(state, pod):
    return {v.node: v.reasons for v in explain(Profile(), state, info(pod)).nodes if not v.fits}


def scores(state, pod):
    answer = explain(Profile(), state, info(pod))
    return {v.node: v.scores["PodTopologySpread"].normalized for v in answer.nodes if v.fits}


@pytest.mark.parametrize(
    ("placed", "skew", "expected"),
    [
        ({}, 1, {"a1", "a2", "b1"}),
        ({"a1": 1}, 1, {"b1"}),
        ({"a1": 1}, 2, {"a1", "a2", "b1"}),
        ({"a1": 1, "b1": 1}, 1, {"a1", "a2", "b1"}),
        ({"a1": 1, "a2": 1, "b1": 1}, 1, {"b1"}),
    ],
)
def test_no_domain_gets_further_ahead_than_the_skew(placed, skew, expected):
    state = state_of(nodes(a1="a", a2="a", b1="b"), placed)
    assert fitting(state, web(constraint(skew=skew))) == expected


def test_a_pod_that_does_not_match_its_own_selector_does_not_count_itself():
    state = state_of(nodes(a1="a", b1="b"), {"a1": 1})
    assert fitting(state, web(constraint(), labels={"app": "other"})) == {"a1", "b1"}


def test_nodes_without_the_label_are_no_place_and_no_domain():
    state = state_of(nodes(a1="a", n1=""), {"a1": 3})
    assert fitting(state, web(constraint())) == {"a1"}
    assert reasons(state, web(constraint())) == {"n1": [f"{SKEW} (missing required label)"]}


def test_min_domains_reads_missing_domains_as_empty_ones():
    state = state_of(nodes(a1="a", b1="b"), {"a1": 1, "b1": 1})
    assert fitting(state, web(constraint(minDomains=2))) == {"a1", "b1"}
    assert fitting(state, web(constraint(minDomains=3))) == set()


def test_pods_that_end_or_live_elsewhere_do_not_count():
    state = state_of(nodes(a1="a", b1="b"), {})
    state.add_pod(info(make_pod(node="a1", labels={"app": "web"}, deleting=True)), "a1")
    state.add_pod(info(make_pod(node="a1", labels={"app": "web"}, namespace="elsewhere")), "a1")
    assert fitting(state, web(constraint())) == {"a1", "b1"}


def test_a_pod_that_starts_to_end_stops_counting_at_once():
    core = SchedulerCore({"nodewright": Profile()}, clock=lambda: 0.0)
    for node in nodes(a1="a", b1="b"):
        core.on_node(None, node)
    first = web(node="a1")
    core.on_pod(None, first)
    assert fitting(core.state, web(constraint())) == {"b1"}
    ending = make_pod(node="a1", labels={"app": "web"}, uid=first.metadata.uid, deleting=True)
    core.on_pod(first, ending)
    assert fitting(core.state, web(constraint())) == {"a1", "b1"}


@pytest.mark.parametrize(("policy", "expected"), [(None, {"a1", "b1"}), ("Honor", {"a1", "b1"}), ("Ignore", {"b1"})])
def test_nodes_that_the_pod_could_not_use_are_no_domains_unless_told_otherwise(policy, expected):
    found = [
        make_node("a1", labels={ZONE: "a", "disk": "ssd"}),
        make_node("b1", labels={ZONE: "b", "disk": "ssd"}),
        make_node("c1", labels={ZONE: "c"}),
    ]
    state = state_of(found, {"a1": 1, "b1": 0 if policy == "Ignore" else 1})
    more = {"nodeAffinityPolicy": policy} if policy else {}
    assert fitting(state, web(constraint(**more), nodeSelector={"disk": "ssd"})) == expected


@pytest.mark.parametrize(("policy", "expected"), [(None, set()), ("Ignore", set()), ("Honor", {"a1"})])
def test_tainted_nodes_are_domains_unless_told_otherwise(policy, expected):
    taint = {"key": "k", "effect": "NoSchedule"}
    found = [make_node("a1", labels={ZONE: "a"}), make_node("b1", labels={ZONE: "b"}, taints=[taint])]
    more = {"nodeTaintsPolicy": policy} if policy else {}
    assert fitting(state_of(found, {"a1": 1}), web(constraint(**more))) == expected


def test_only_nodes_with_all_labels_count_where_there_are_several_constraints():
    found = [make_node("a1", labels={ZONE: "a", "rack": "1"}), make_node("b1", labels={ZONE: "b"})]
    pod = web(constraint(), constraint("rack", skew=5))
    # zone b is no domain for this Pod: its node has no rack
    assert fitting(state_of(found, {"a1": 4}), pod) == {"a1"}


def test_match_label_keys_narrow_the_selector():
    state = state_of(nodes(a1="a", b1="b"), {})
    state.add_pod(info(make_pod(node="a1", labels={"app": "web", "version": "1"})), "a1")
    pod = web(constraint(matchLabelKeys=["version"]), labels={"app": "web", "version": "2"})
    assert fitting(state, pod) == {"a1", "b1"}


def test_soft_constraints_prefer_the_emptier_domain():
    state = state_of(nodes(a1="a", a2="a", b1="b"), {"a1": 2, "b1": 1})
    # two domains: ln 4 × 2 = 2.77 -> 3, ln 4 × 1 = 1.39 -> 1, then 100 × (3 + 1 - s) / 3
    assert scores(state, web(constraint(soft=True))) == {"a1": 33, "a2": 33, "b1": 100}


def test_nodes_without_the_label_score_nothing():
    state = state_of(nodes(a1="a", b1="b", n1=""), {"a1": 1})
    assert scores(state, web(constraint(soft=True))) == {"a1": 0, "b1": 100, "n1": 0}


def test_pods_of_a_service_are_spread_by_default():
    state = state_of(nodes(a1="a", b1="b"), {"a1": 3})
    service = Service(metadata=make_pod("svc").metadata)
    service.spec.selector = {"app": "web"}
    assert state.owners.set_service(None, service)
    found = scores(state, web())
    assert found["b1"] > found["a1"]
    assert state.owners.set_service(service, None)
    assert "PodTopologySpread" not in explain(Profile(), state, info(web())).nodes[0].scores


def test_pods_of_a_replica_set_are_spread_by_default():
    state = state_of(nodes(a1="a", b1="b"), {"a1": 3})
    owner = SelectorOwner(metadata=make_pod("rs").metadata)
    owner.spec.selector = b'{"matchLabels": {"app": "web"}}'
    assert state.owners.set_owner(("apps/v1", "ReplicaSet"), None, owner)
    pod = web()
    assert "PodTopologySpread" not in explain(Profile(), state, info(pod)).nodes[0].scores
    owned = OwnerReference(api_version="apps/v1", kind="ReplicaSet", name="rs", controller=True)
    pod.metadata.owner_references = [owned]
    found = scores(state, pod)
    assert found["b1"] > found["a1"]


def test_constraints_for_all_pods_of_a_profile():
    own = TopologySpreadConstraint(max_skew=1, topology_key=ZONE)
    state = state_of(nodes(a1="a", b1="b"), {"a1": 3})
    state.owners.set_service(
        None, Service(metadata=make_pod("svc").metadata, spec=ServiceSpec(selector={"app": "web"}))
    )
    plugin = PodTopologySpread(Args([own], "List"))
    profile = Profile()
    profile.filters = [plugin if isinstance(each, PodTopologySpread) else each for each in profile.filters]
    profile.preparers = [plugin if isinstance(each, PodTopologySpread) else each for each in profile.preparers]
    profile.scorers = []
    assert {v.node for v in explain(profile, state, info(web())).nodes if v.fits} == {"b1"}
    with pytest.raises(ValueError, match="defaultConstraints"):
        PodTopologySpread(Args([own]))


def test_a_namespace_selector_sees_labels_that_come_later():
    core = SchedulerCore({"nodewright": Profile()}, clock=lambda: 0.0)
    core.on_node(None, make_node("a"))
    term = {"labelSelector": {}, "namespaceSelector": {"matchLabels": {"team": "x"}}, "topologyKey": HOST}
    affinity = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    core.on_pod(None, make_pod(node="a", namespace="other"))
    assert isinstance(Evaluator(Profile(), core.state).place(info(make_pod(affinity=affinity))), Placement)
    before = Namespace(metadata=make_pod("other").metadata)
    core.on_namespace(None, before)
    after = Namespace(metadata=make_pod("other", labels={"team": "x"}).metadata)
    core.on_namespace(before, after)
    assert isinstance(Evaluator(Profile(), core.state).place(info(make_pod(affinity=affinity))), Rejection)
