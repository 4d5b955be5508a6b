"""InterPodAffinity: near certain Pods, apart from them, and what Pods that are there already want."""

import msgspec
import pytest

from nodewright.scheduler.explain import explain
from nodewright.scheduler.plugins.inter_pod_affinity import Args, InterPodAffinity
from nodewright.scheduler.profile import PluginConfig, Profile, ProfileConfig
from nodewright.scheduler.state import ClusterState
from support.scheduler_builders import info, make_node, make_pod

ZONE = "topology.kubernetes.io/zone"
HOST = "kubernetes.io/hostname"
NODES = {"a1": "a", "a2": "a", "b1": "b", "n1": ""}
AFFINITY = "node(s) didn't match pod affinity rules"
APART = "node(s) didn't match pod anti-affinity rules"
EXISTING = "node(s) didn't satisfy existing pods anti-affinity rules"


def state_of(*placed):
    state = ClusterState(capacity=1)
    for name, zone in NODES.items():
        state.set_node(make_node(name, labels={ZONE: zone} if zone else {}))
    for pod in placed:
        state.add_pod(info(pod), pod.spec.node_name)
    return state


def term(app="db", key=ZONE, **more):
    return {"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": key, **more}


def near(*terms):
    return {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": list(terms)}}


def apart(*terms):
    return {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": list(terms)}}


def likes(kind, weight, wanted):
    one = {"weight": weight, "podAffinityTerm": wanted}
    return {kind: {"preferredDuringSchedulingIgnoredDuringExecution": [one]}}


def pod(app, node="", **spec):
    return make_pod(node=node, labels={"app": app}, **spec)


def fitting(state, wanted):
    return {v.node for v in explain(Profile(), state, info(wanted)).nodes if v.fits}


def scores(state, wanted, profile=None):
    answer = explain(profile or Profile(), state, info(wanted))
    return {v.node: v.scores["InterPodAffinity"].raw for v in answer.nodes if "InterPodAffinity" in v.scores}


def test_near_a_pod_means_within_its_value_of_the_label():
    state = state_of(pod("db", "a1"))
    assert fitting(state, pod("web", affinity=near(term()))) == {"a1", "a2"}
    assert fitting(state, pod("web", affinity=near(term(key=HOST)))) == {"a1"}
    assert explain(Profile(), state, info(pod("web", affinity=near(term("none"))))).message.startswith(
        f"0/4 nodes are available: 4 {AFFINITY}."
    )


def test_the_first_of_a_group_starts_anywhere_that_has_the_label():
    assert fitting(state_of(), pod("db", affinity=near(term()))) == {"a1", "a2", "b1"}
    assert fitting(state_of(pod("db", "b1")), pod("db", affinity=near(term()))) == {"b1"}


def test_all_terms_must_match_the_same_pod():
    state = state_of(pod("db", "a1"), make_pod(node="b1", labels={"app": "db", "tier": "gold"}))
    gold = {"labelSelector": {"matchLabels": {"tier": "gold"}}, "topologyKey": ZONE}
    assert fitting(state, pod("web", affinity=near(term(), gold))) == {"b1"}


def test_apart_from_pods():
    state = state_of(pod("db", "a1"))
    assert fitting(state, pod("web", affinity=apart(term()))) == {"b1", "n1"}
    assert fitting(state, pod("web", affinity=apart(term(key=HOST)))) == {"a2", "b1", "n1"}


def test_what_placed_pods_keep_away():
    state = state_of(pod("db", "a1", affinity=apart(term("web"))))
    assert fitting(state, pod("web")) == {"b1", "n1"}
    assert fitting(state, pod("other")) == set(NODES)
    found = {v.node: v.reasons for v in explain(Profile(), state, info(pod("web"))).nodes if not v.fits}
    assert found == {"a1": [EXISTING], "a2": [EXISTING]}


def test_a_pod_that_leaves_takes_its_terms_along():
    state = state_of()
    guard = info(pod("db", "a1", affinity=apart(term("web"))))
    for _ in range(2):
        state.add_pod(guard, "a1")
        assert fitting(state, pod("web")) == {"b1", "n1"}
        state.remove_pod(guard.uid)
        assert fitting(state, pod("web")) == set(NODES)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, set()),  # the Pod's own namespace, where no such Pod is
        ({"namespaces": ["other"]}, {"a1", "a2"}),
        ({"namespaceSelector": {}}, {"a1", "a2"}),
        ({"namespaceSelector": {"matchLabels": {"team": "x"}}}, {"a1", "a2"}),
        ({"namespaceSelector": {"matchLabels": {"team": "y"}}}, set()),
        ({"namespaceSelector": {"matchLabels": {"team": "y"}}, "namespaces": ["other"]}, {"a1", "a2"}),
    ],
)
def test_namespaces(more, expected):
    state = state_of(make_pod(node="a1", namespace="other", labels={"app": "db"}))
    state.counts.set_namespace("other", {"team": "x"})
    assert fitting(state, pod("web", affinity=near(term(**more)))) == expected


def test_preferred_terms_add_and_subtract_their_weights():
    state = state_of(pod("db", "a1"), pod("db", "a2"), pod("db", "b1"))
    assert scores(state, pod("web", affinity=likes("podAffinity", 10, term()))) == {
        "a1": 20,
        "a2": 20,
        "b1": 10,
        "n1": 0,
    }
    unloved = pod("web", affinity=likes("podAntiAffinity", 10, term(key=HOST)))
    assert scores(state, unloved) == {"a1": -10, "a2": -10, "b1": -10, "n1": 0}
    answer = explain(Profile(), state, info(unloved))
    assert {v.node: v.scores["InterPodAffinity"].normalized for v in answer.nodes} == {
        "a1": 0,
        "a2": 0,
        "b1": 0,
        "n1": 100,
    }


def test_preferences_are_mutual():
    state = state_of(
        pod("db", "a1", affinity=likes("podAffinity", 7, term("web"))),
        pod("db", "b1", affinity=likes("podAntiAffinity", 5, term("web"))),
        pod("cache", "b1", affinity=near(term("web"))),
    )
    assert scores(state, pod("web")) == {"a1": 7, "a2": 7, "b1": -4, "n1": 0}
    assert scores(state, pod("other")) == {}


def with_args(args):
    return Profile(ProfileConfig(plugin_config=[PluginConfig("InterPodAffinity", args)]))


def test_arguments():
    state = state_of(
        pod("cache", "b1", affinity=near(term("web"))), pod("db", "a1", affinity=likes("podAffinity", 7, term("web")))
    )
    heavy = with_args(msgspec.Raw(b'{"hardPodAffinityWeight": 50}'))
    assert scores(state, pod("web"), heavy) == {"a1": 7, "a2": 7, "b1": 50, "n1": 0}
    ignoring = with_args(msgspec.Raw(b'{"ignorePreferredTermsOfExistingPods": true}'))
    assert scores(state, pod("web"), ignoring) == {}
    with pytest.raises(ValueError, match="hardPodAffinityWeight: "):
        InterPodAffinity(Args(hard_pod_affinity_weight=101))
