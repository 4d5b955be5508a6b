"""Filters: which nodes pass, and in what words the others are rejected."""

import pytest

from nodewright.scheduler.evaluator import Evaluator, Placement, Rejection
from nodewright.scheduler.profile import Profile, profile_from_object
from nodewright.scheduler.state import ClusterState
from support.scheduler_builders import info, make_node, make_pod

AFFINITY = "node(s) didn't match Pod's node affinity/selector"
TAINTED = "node(s) had untolerated taint(s)"


def cluster(*nodes, pods=()):
    state = ClusterState(capacity=1)
    for node in nodes:
        state.set_node(node)
    for pod in pods:
        state.add_pod(info(pod), pod.spec.node_name)
    return state


def message(state, pod, profile=None):
    outcome = Evaluator(profile or Profile(), state).place(info(pod))
    assert isinstance(outcome, Rejection), outcome
    return outcome.diagnosis.message()


def fits(state, pod, profile=None):
    """Names of all nodes that pass, by taking away the chosen one until none is left."""
    names = set()
    while isinstance(outcome := Evaluator(profile or Profile(), state).place(info(pod)), Placement):
        names.add(outcome.node)
        state.remove_node(outcome.node)
    return names


def required(*terms):
    selector = {"nodeSelectorTerms": list(terms)}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": selector}}


def expression(key, operator, *values):
    return {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}


def field(operator, *values, key="metadata.name"):
    return {"matchFields": [{"key": key, "operator": operator, "values": list(values)}]}


def test_no_nodes():
    assert message(cluster(), make_pod()) == "no nodes available to schedule pods"


def test_every_reason_is_counted_and_sorted_as_text():
    taint = {"key": "a", "value": "b", "effect": "NoSchedule"}
    small = [make_node(f"small{i}", "1", "1Gi", "1") for i in range(10)]
    nodes = [make_node("cordoned", unschedulable=True), make_node("tainted", taints=[taint]), *small]
    full = [make_pod(node=node.metadata.name, requests={"cpu": "500m"}) for node in small]
    state = cluster(*nodes, pods=full)
    assert message(state, make_pod(requests={"cpu": "1", "memory": "512Mi"})) == (
        "0/12 nodes are available: 1 node(s) had untolerated taint(s), 1 node(s) were unschedulable, "
        "10 Insufficient cpu, 10 Too many pods."
    )


def test_the_first_plugin_that_rejects_gives_the_reason():
    taint = {"key": "a", "effect": "NoExecute"}
    state = cluster(make_node("n", "1", taints=[taint], unschedulable=True))
    assert message(state, make_pod(requests={"cpu": "8"})) == "0/1 nodes are available: 1 node(s) were unschedulable."


def test_requested_node_name():
    state = cluster(make_node("a"), make_node("b"))
    reason = "node(s) didn't match the requested node name"
    pod = make_pod(node="c")
    assert message(state, pod) == f"0/2 nodes are available: 2 {reason}."
    assert fits(state, make_pod(node="b")) == {"b"}


@pytest.mark.parametrize(
    ("taint", "toleration", "passes"),
    [
        ({"key": "k", "value": "v", "effect": "NoSchedule"}, None, False),
        ({"key": "k", "value": "v", "effect": "NoExecute"}, None, False),
        ({"key": "k", "value": "v", "effect": "PreferNoSchedule"}, None, True),
        ({"key": "k", "value": "v", "effect": "NoSchedule"}, {"key": "k", "value": "v"}, True),
        ({"key": "k", "value": "v", "effect": "NoSchedule"}, {"key": "k", "operator": "Equal", "value": "w"}, False),
        ({"key": "k", "value": "v", "effect": "NoSchedule"}, {"key": "k", "operator": "Exists"}, True),
        ({"key": "k", "value": "v", "effect": "NoSchedule"}, {"operator": "Exists"}, True),
        ({"key": "k", "effect": "NoSchedule"}, {"key": "k", "operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": "k", "value": "5", "effect": "NoSchedule"}, {"key": "k", "operator": "Lt", "value": "9"}, False),
    ],
)
def test_taints(taint, toleration, passes):
    state = cluster(make_node("n", taints=[taint]))
    pod = make_pod(tolerations=[toleration] if toleration else [])
    if passes:
        assert fits(state, pod) == {"n"}
    else:
        assert message(state, pod) == f"0/1 nodes are available: 1 {TAINTED}."


def test_a_toleration_of_the_cordon_lets_a_pod_through():
    state = cluster(make_node("n", unschedulable=True))
    toleration = {"key": "node.kubernetes.io/unschedulable", "operator": "Exists", "effect": "NoSchedule"}
    assert fits(state, make_pod(tolerations=[toleration])) == {"n"}


NODES = {
    "a": {"zone": "z1", "size": "10"},
    "b": {"zone": "z2", "size": "x"},
    "c": {"size": "-3"},
    "d": {"zone": "z1", "size": "9223372036854775808"},
}


@pytest.mark.parametrize(
    ("affinity", "names"),
    [
        (required(expression("zone", "In", "z1", "z9")), {"a", "d"}),
        (required(expression("zone", "In", "z9")), set()),
        (required(expression("zone", "NotIn", "z1")), {"b", "c"}),
        (required(expression("zone", "Exists")), {"a", "b", "d"}),
        (required(expression("zone", "DoesNotExist")), {"c"}),
        (required(expression("size", "Gt", "-4")), {"a", "c"}),
        (required(expression("size", "Lt", "10")), {"c"}),
        (required(expression("size", "Gt", "1", "2")), set()),
        (required(expression("size", "Gt", "many")), set()),
        (required(expression("zone", "Near", "z1")), set()),
        (required(expression("zone", "In")), set()),
        (required(), set()),
        (required({}), set()),
        (required({}, expression("zone", "In", "z2")), {"b"}),
        (required(expression("zone", "In", "z2"), expression("size", "In", "10")), {"a", "b"}),
        (required({**expression("zone", "In", "z1"), **field("In", "d")}), {"d"}),
        (required(field("NotIn", "a")), {"b", "c", "d"}),
        (required(field("In", "a"), field("In", "c")), {"a", "c"}),
        (required(field("In", "a", "b")), set()),
        (required(field("In", "other", key="metadata.namespace")), set()),
    ],
)
def test_node_affinity(affinity, names):
    nodes = [make_node(name, labels=labels) for name, labels in NODES.items()]
    assert fits(cluster(*nodes), make_pod(affinity=affinity)) == names


def test_node_selector_and_affinity_must_both_hold():
    nodes = [make_node(name, labels=labels) for name, labels in NODES.items()]
    pod = make_pod(nodeSelector={"zone": "z1"}, affinity=required(expression("size", "In", "10")))
    assert fits(cluster(*nodes), pod) == {"a"}
    assert message(cluster(*nodes), make_pod(nodeSelector={"zone": "z7"})) == f"0/4 nodes are available: 4 {AFFINITY}."


def test_labels_of_nodes_that_change_or_come_later():
    state = cluster(make_node("a"))
    pod = make_pod(nodeSelector={"zone": "z1"})
    evaluator = Evaluator(Profile(), state)
    assert isinstance(evaluator.place(info(pod)), Rejection)
    state.set_node(make_node("b", labels={"zone": "z1"}))
    assert evaluator.place(info(pod)).node == "b"
    state.set_node(make_node("b", labels={"zone": "z2"}))
    assert isinstance(evaluator.place(info(pod)), Rejection)


def test_pods_pinned_by_name_are_compared_with_that_node_alone():
    state = cluster(*(make_node(n) for n in "abcd"))
    state.set_node(make_node("b", "100m"))
    pod = make_pod(requests={"cpu": "1"}, affinity=required(field("In", "b")))
    assert message(state, pod) == (
        "0/4 nodes are available: 1 Insufficient cpu, 3 node(s) didn't satisfy plugin(s) [NodeAffinity]."
    )
    missing = make_pod(affinity=required(field("In", "gone")))
    assert message(state, missing) == "0/4 nodes are available: 4 node(s) didn't satisfy plugin(s) [NodeAffinity]."
    both = {"matchFields": [*field("In", "a")["matchFields"], *field("In", "b")["matchFields"]]}
    assert message(state, make_pod(affinity=required(both))) == "0/4 nodes are available: pod affinity terms conflict."


def test_affinity_that_the_profile_adds():
    affinity = required(expression("zone", "In", "z1"))["nodeAffinity"]
    config = {"pluginConfig": [{"name": "NodeAffinity", "args": {"addedAffinity": affinity}}]}
    profile = profile_from_object(config)
    nodes = [make_node(name, labels=labels) for name, labels in NODES.items()]
    assert fits(cluster(*nodes), make_pod(), profile) == {"a", "d"}
    assert message(cluster(*nodes), make_pod(nodeSelector={"size": "x"}), profile) == (
        "0/4 nodes are available: 2 node(s) didn't match Pod's node affinity/selector, "
        "2 node(s) didn't match scheduler-enforced node affinity."
    )


@pytest.mark.parametrize(
    ("used", "wanted", "passes"),
    [
        ({"hostPort": 80}, {"hostPort": 80}, False),
        ({"hostPort": 80}, {"hostPort": 81}, True),
        ({"hostPort": 80}, {"hostPort": 80, "protocol": "UDP"}, True),
        ({"hostPort": 80, "hostIP": "10.0.0.1"}, {"hostPort": 80, "hostIP": "10.0.0.2"}, True),
        ({"hostPort": 80, "hostIP": "10.0.0.1"}, {"hostPort": 80, "hostIP": "10.0.0.1"}, False),
        ({"hostPort": 80, "hostIP": "10.0.0.1"}, {"hostPort": 80}, False),
        ({"hostPort": 80, "hostIP": "0.0.0.0"}, {"hostPort": 80, "hostIP": "10.0.0.1"}, False),
        ({"containerPort": 80}, {"containerPort": 80}, True),
    ],
)
def test_host_ports(used, wanted, passes):
    state = cluster(make_node("n"), pods=[make_pod(node="n", ports=[used])])
    pod = make_pod(ports=[wanted])
    if passes:
        assert fits(state, pod) == {"n"}
    else:
        reason = "node(s) didn't have free ports for the requested pod ports"
        assert message(state, pod) == f"0/1 nodes are available: 1 {reason}."


def test_host_ports_are_free_again_when_their_pod_is_gone():
    pod = make_pod(node="n", ports=[{"hostPort": 80}, {"hostPort": 80, "hostIP": "10.0.0.1"}])
    state = cluster(make_node("n"), pods=[pod])
    state.remove_pod(pod.metadata.uid)
    assert fits(state, make_pod(ports=[{"hostPort": 80}])) == {"n"}


@pytest.mark.parametrize(
    ("requests", "reasons"),
    [
        ({"cpu": "2"}, None),
        ({"cpu": "2001m"}, ["Insufficient cpu"]),
        ({"cpu": "3", "memory": "3Gi"}, ["Insufficient cpu", "Insufficient memory"]),
        ({"ephemeral-storage": "1"}, ["Insufficient ephemeral-storage"]),
        ({"example.com/gpu": "1"}, ["Insufficient example.com/gpu"]),
        ({"memory": "2Gi"}, None),
        ({}, None),
    ],
)
def test_resources_to_the_last_unit(requests, reasons):
    state = cluster(make_node("n", "4", "4Gi"), pods=[make_pod(node="n", requests={"cpu": "2", "memory": "2Gi"})])
    pod = make_pod(requests=requests)
    if reasons is None:
        assert fits(state, pod) == {"n"}
    else:
        assert message(state, pod) == f"0/1 nodes are available: {', '.join(f'1 {r}' for r in reasons)}."


def test_a_node_without_room_for_one_more_pod():
    state = cluster(make_node("n", pods="1"), pods=[make_pod(node="n")])
    assert message(state, make_pod()) == "0/1 nodes are available: 1 Too many pods."


def test_resources_that_the_profile_ignores():
    config = {"pluginConfig": [{"name": "NodeResourcesFit", "args": {"ignoredResourceGroups": ["example.com"]}}]}
    pod = make_pod(requests={"example.com/gpu": "1"})
    assert fits(cluster(make_node("n")), pod, profile_from_object(config)) == {"n"}


def test_pods_count_at_a_node_that_is_not_known_yet():
    state = cluster(pods=[make_pod(node="late", requests={"cpu": "4"})])
    state.set_node(make_node("late", "4"))
    assert message(state, make_pod(requests={"cpu": "1"})) == "0/1 nodes are available: 1 Insufficient cpu."


def test_pods_that_claim_devices_are_held_back_with_the_reason():
    pod = make_pod(resourceClaims=[{"name": "gpu", "resourceClaimName": "one"}])
    assert message(cluster(make_node("a")), pod).startswith(
        "0/1 nodes are available: pod has resource claims (spec.resourceClaims), and this scheduler does not allocate"
    )
