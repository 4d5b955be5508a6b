"""The arrays equal a recomputation from scratch, whatever happened before."""

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from nodewright.scheduler.evaluator import Evaluator, Placement
from nodewright.scheduler.profile import Profile
from nodewright.scheduler.state import ClusterState, NodeView
from nodewright.scheduler.state.columns import ABSENT
from support.scheduler_builders import info, make_node, make_pod

NAMES = st.sampled_from([f"n{i}" for i in range(8)])
CPU = st.sampled_from(["0", "100m", "1", "1500m", "2"])
ZONES = st.sampled_from(["", "z1", "z2"])
TAINTS = st.sampled_from([[], [{"key": "k", "effect": "NoSchedule"}], [{"key": "k", "effect": "PreferNoSchedule"}]])
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
WEB = {"app": "web"}
SELECTOR = {"matchLabels": WEB}
NEAR = {"labelSelector": SELECTOR, "topologyKey": "zone"}


def spread(when):
    return {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": when, "labelSelector": SELECTOR}


SHAPES = [
    {},
    {"nodeSelector": {"zone": "z1"}},
    {"tolerations": [{"operator": "Exists"}]},
    {"ports": [{"hostPort": 80}]},
    {"labels": WEB},
    {"labels": WEB, "topologySpreadConstraints": [spread("DoNotSchedule")]},
    {"labels": WEB, "topologySpreadConstraints": [spread("ScheduleAnyway")]},
    {"labels": WEB, "affinity": {"podAntiAffinity": {REQUIRED: [NEAR | {"topologyKey": "kubernetes.io/hostname"}]}}},
    {"labels": WEB, "affinity": {"podAffinity": {REQUIRED: [NEAR]}}},
    {"labels": {"app": "db"}, "affinity": {"podAffinity": {PREFERRED: [{"weight": 3, "podAffinityTerm": NEAR}]}}},
    {"labels": {"app": "db"}, "affinity": {"podAntiAffinity": {PREFERRED: [{"weight": 3, "podAffinityTerm": NEAR}]}}},
]


class Cluster(RuleBasedStateMachine):
    """Adds, changes and removes nodes and Pods at random; a plain model keeps count."""

    def __init__(self):
        super().__init__()
        self.state = ClusterState(capacity=1)
        self.nodes = {}
        self.pods = {}
        self.evaluator = Evaluator(Profile(), self.state)

    @rule(name=NAMES, cpu=st.sampled_from(["2", "4"]), pods=st.sampled_from(["2", "5"]), zone=ZONES, taints=TAINTS)
    def set_node(self, name, cpu, pods, zone, taints):
        labels = {"zone": zone} if zone else {}
        node = make_node(name, cpu, pods=pods, labels=labels, taints=taints, **{"example.com/gpu": "4"})
        self.nodes[name] = node
        self.state.set_node(node)

    @rule(name=NAMES)
    def remove_node(self, name):
        self.nodes.pop(name, None)
        self.state.remove_node(name)

    @rule(name=NAMES, cpu=CPU, gpu=st.booleans(), shape=st.sampled_from(SHAPES))
    def add_pod(self, name, cpu, gpu, shape):
        requests = {"cpu": cpu, **({"example.com/gpu": "1"} if gpu else {})}
        pod = info(make_pod(requests=requests, node=name, **shape))
        self.pods[pod.uid] = (pod, name)
        self.state.add_pod(pod, name)

    @rule(name=NAMES, data=st.data())
    def move_pod(self, name, data):
        if self.pods:
            uid = data.draw(st.sampled_from(sorted(self.pods)))
            self.pods[uid] = (self.pods[uid][0], name)
            self.state.add_pod(self.pods[uid][0], name)

    @rule(data=st.data())
    def remove_pod(self, data):
        if self.pods:
            uid = data.draw(st.sampled_from(sorted(self.pods)))
            del self.pods[uid]
            assert self.state.remove_pod(uid) is not None

    @rule(cpu=CPU, shape=st.sampled_from(SHAPES))
    def place(self, cpu, shape):
        """A remembered evaluation answers as a fresh one does, and never places a Pod where it has no room."""
        pod = info(make_pod(requests={"cpu": cpu}, **shape))
        outcome = self.evaluator.place(pod)
        fresh = Evaluator(Profile(), self.state)
        fresh._turn = self.evaluator._turn - 1
        again = fresh.place(pod)
        assert type(outcome) is type(again)
        if not isinstance(outcome, Placement):
            assert outcome.diagnosis.message() == again.diagnosis.message()
            assert outcome.resolvable == again.resolvable
            return
        assert outcome == again
        self.pods[pod.uid] = (pod, outcome.node)
        self.state.add_pod(pod, outcome.node)
        row, node = self.state.rows[outcome.node], self.nodes[outcome.node]
        if cpu != "0":  # a Pod that asks for nothing fits even where others took too much
            assert self.state.requested[0, row] <= int(node.status.allocatable["cpu"]) * 1000
        assert self.state.pod_count[row] <= int(node.status.allocatable["pods"])

    @invariant()
    def equals_a_recomputation(self):
        state = self.state
        assert state.node_count == len(self.nodes)
        assert {node.metadata.name for _, node in state.present_nodes()} == set(self.nodes)
        assert set(state.rows) == set(self.nodes) | {name for _, name in self.pods.values()}
        for name, row in state.rows.items():
            here = [pod for pod, at in self.pods.values() if at == name]
            node = self.nodes.get(name)
            assert bool(state.present[row]) == (node is not None)
            assert state.pod_count[row] == len(here)
            assert set(state.pods_at[row]) == {pod.uid for pod in here}
            for resource, column in state.resources.items():
                used = sum(pod.template.requests.get(resource, 0) for pod in here)
                assert state.requested[column, row] == used
            assert state.nonzero[0, row] == sum(pod.template.nonzero_cpu for pod in here)
            assert state.nonzero[1, row] == sum(pod.template.nonzero_memory for pod in here)
            cpu = int(node.status.allocatable["cpu"]) * 1000 if node else 0
            assert state.allocatable[0, row] == cpu
            zone = state.labels.column("zone")
            value = node.metadata.labels.get("zone") if node else None
            assert (zone.ids[row] == ABSENT) == (value is None)
            assert value is None or zone.values[zone.ids[row]] == value


TestCluster = Cluster.TestCase
TestCluster.settings = settings(max_examples=60, stateful_step_count=30)


def test_a_heartbeat_changes_nothing():
    state = ClusterState()
    assert state.set_node(make_node("n"))
    generation = state.node_generation
    beat = make_node("n")
    beat.metadata.resource_version = "99"
    assert not state.set_node(beat)
    assert state.node_generation == generation


def test_a_node_with_an_unreadable_amount_changes_nothing():
    state = ClusterState()
    state.set_node(make_node("n", "4"))
    with pytest.raises(ValueError, match="lots"):
        state.set_node(make_node("n", "lots"))
    assert state.allocatable[0, state.rows["n"]] == 4000


def test_arrays_grow_and_keep_their_content():
    state = ClusterState(capacity=2)
    for number in range(100):
        state.set_node(make_node(f"n{number}", str(number + 1), labels={"zone": f"z{number % 3}"}))
        state.labels.column("zone")
        state.add_pod(info(make_pod(requests={f"example.com/r{number % 7}": "1"})), f"n{number}")
    assert [int(v) for v in state.allocatable[0, :100]] == [1000 * (n + 1) for n in range(100)]
    ids, column = NodeView(state).label("zone")
    assert [column.values[i] for i in ids] == [f"z{n % 3}" for n in range(100)]
    assert int(NodeView(state).requested("example.com/r3").sum()) == 14


def test_rows_of_removed_nodes_are_used_again():
    state = ClusterState()
    for name in ("a", "b"):
        state.set_node(make_node(name))
    state.remove_node("a")
    state.set_node(make_node("c"))
    assert state.height == 2
    assert sorted(state.rows) == ["b", "c"]


def test_the_journal_tells_what_was_touched_and_forgets_the_distant_past():
    state = ClusterState()
    for name in ("a", "b"):
        state.set_node(make_node(name))
    start = state.pod_generation
    pod = info(make_pod())
    state.add_pod(pod, "b")
    assert state.touched_since(start) == {state.rows["b"]}
    after = state.pod_generation
    state.add_pod(pod, "b")  # confirmed: nothing changes
    assert state.touched_since(after) == set()
    for _ in range(40_000):
        state.add_pod(pod, "a")
        state.remove_pod(pod.uid)
    assert state.touched_since(start) is None
    assert state.touched_since(state.pod_generation) == set()


def test_a_view_of_some_rows_shows_the_same_as_the_whole():
    state = ClusterState()
    for number in range(6):
        state.set_node(make_node(f"n{number}", str(number + 1), unschedulable=number == 4))
    rows = np.array([4, 1], dtype=np.intp)
    some = NodeView(state, rows)
    assert [some.name(p) for p in range(len(some))] == ["n4", "n1"]
    assert list(some.allocatable("cpu")) == [5000, 2000]
    assert list(some.unschedulable) == [True, False]
    assert list(some.positions_of({"n1", "gone"})) == [False, True]
    assert list(some.mask_of_rows({4, 5})) == [True, False]


def test_scores_of_all_nodes_follow_when_the_best_one_fills_up():
    """Normalized scores depend on every feasible node: when one drops out, the others' change without being touched."""
    state = ClusterState()
    for name, tier, pods in (("top", "gold", "1"), ("middle", "silver", "110"), ("plain", "none", "110")):
        state.set_node(make_node(name, "10", "10Gi", pods, labels={"tier": tier}))
    state.add_pod(info(make_pod(requests={"cpu": "8", "memory": "8Gi"})), "middle")

    def term(weight, tier):
        expressions = [{"key": "tier", "operator": "In", "values": [tier]}]
        return {"weight": weight, "preference": {"matchExpressions": expressions}}

    preferred = [term(100, "gold"), term(20, "silver")]
    affinity = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}
    evaluator = Evaluator(Profile(), state)
    for expected in ("top", "middle"):
        pod = info(make_pod(requests={"cpu": "100m", "memory": "100Mi"}, affinity=affinity))
        assert evaluator.place(pod).node == expected
        assert Evaluator(Profile(), state).place(pod).node == expected
        state.add_pod(pod, expected)
