"""Scores against upstream's formulas, written here node by node with plain integers and floats."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewright.scheduler import cycle
from nodewright.scheduler.plugin import Context
from nodewright.scheduler.plugins.balanced_allocation import balance
from nodewright.scheduler.plugins.image_locality import normalized_name
from nodewright.scheduler.profile import Profile
from nodewright.scheduler.state import ClusterState, NodeView
from support.scheduler_builders import info, make_node, make_pod

MI = 1024 * 1024


def scores(state, pod, profile=None):
    """Per plugin, the normalized scores of the feasible nodes by name."""
    profile = profile or Profile()
    ctx = Context(info(pod), NodeView(state), {})
    cycle.prepare(profile, ctx)
    ctx.feasible = cycle.run_filters(profile.filters, ctx)
    rows = np.flatnonzero(ctx.feasible)
    return {
        s.scorer.plugin.name: {ctx.nodes.name(r): int(s.normalized[r]) for r in rows}
        for s in cycle.run_scores(profile, ctx)
    }


def cluster(nodes, pods=()):
    state = ClusterState(capacity=1)
    for node in nodes:
        state.set_node(node)
    for pod in pods:
        state.add_pod(info(pod), pod.spec.node_name)
    return state


def least(requested, capacity):
    return 0 if requested > capacity else (capacity - requested) * 100 // capacity


def balanced(requested, capacities):
    shares = [min(r / c, 1.0) for r, c in zip(requested, capacities, strict=True) if c]
    if len(shares) == 2:
        deviation = abs((shares[0] - shares[1]) / 2)
    elif len(shares) > 2:
        total = 0.0
        for share in shares:
            total += share
        mean = total / len(shares)
        squares = 0.0
        for share in shares:
            squares = squares + (share - mean) * (share - mean)
        deviation = math.sqrt(squares / len(shares))
    else:
        deviation = 0.0
    return int((1 - deviation) * 100)


amounts = st.integers(1, 10**6)


@given(
    capacities=st.lists(st.tuples(amounts, amounts), min_size=1, max_size=6),
    cpu=st.integers(0, 10**5),
    memory=st.integers(0, 10**5),
    used=st.integers(0, 10**5),
)
def test_least_allocated_and_balanced_allocation(capacities, cpu, memory, used):
    nodes = [make_node(f"n{i}", f"{c}m", str(m)) for i, (c, m) in enumerate(capacities)]
    busy = [make_pod(node="n0", requests={"cpu": f"{used}m", "memory": str(used)})]
    found = scores(cluster(nodes, busy), make_pod(requests={"cpu": f"{cpu}m", "memory": str(memory)}))
    for index, (c, m) in enumerate(capacities):
        name, before = f"n{index}", used if index == 0 else 0
        if name not in found.get("NodeResourcesFit", {}):
            continue
        assert found["NodeResourcesFit"][name] == (least(before + cpu, c) + least(before + memory, m)) // 2
        if cpu or memory:
            with_pod, without = balanced((before + cpu, before + memory), (c, m)), balanced((before, before), (c, m))
            assert found["NodeResourcesBalancedAllocation"][name] == 50 + (50 + with_pod - without) // 2


@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 1000)), min_size=1, max_size=5))
def test_balance_of_any_number_of_resources(pairs):
    requested = [np.array([r], dtype=np.int64) for r, _ in pairs]
    capacities = [np.array([c], dtype=np.int64) for _, c in pairs]
    assert balance(requested, capacities)[0] == balanced([r for r, _ in pairs], [c for _, c in pairs])


def test_untolerated_soft_taints_cost_in_proportion():
    def soft(*keys):
        return [{"key": key, "effect": "PreferNoSchedule"} for key in keys]

    state = cluster([make_node("a"), make_node("b", taints=soft("x")), make_node("c", taints=soft("x", "y", "z"))])
    assert scores(state, make_pod())["TaintToleration"] == {"a": 100, "b": 67, "c": 0}
    tolerant = make_pod(tolerations=[{"key": "x", "operator": "Exists"}])
    assert scores(state, tolerant)["TaintToleration"] == {"a": 100, "b": 100, "c": 0}
    # a toleration for another effect does not count, as upstream
    other = make_pod(tolerations=[{"operator": "Exists", "effect": "NoSchedule"}])
    assert scores(state, other)["TaintToleration"] == {"a": 100, "b": 67, "c": 0}
    assert scores(cluster([make_node("a")]), make_pod())["TaintToleration"] == {"a": 100}


def test_preferred_node_affinity():
    def term(weight, key, value):
        expressions = [{"key": key, "operator": "In", "values": [value]}]
        return {"weight": weight, "preference": {"matchExpressions": expressions}}

    preferred = [term(30, "zone", "z1"), term(60, "disk", "ssd"), {"weight": 100, "preference": {}}]
    affinity = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}
    nodes = [
        make_node("a", labels={"zone": "z1"}),
        make_node("b", labels={"disk": "ssd"}),
        make_node("both", labels={"zone": "z1", "disk": "ssd"}),
        make_node("none"),
    ]
    found = scores(cluster(nodes), make_pod(affinity=affinity))
    assert found["NodeAffinity"] == {"a": 33, "b": 66, "both": 100, "none": 0}
    assert "NodeAffinity" not in scores(cluster(nodes), make_pod())


def test_only_feasible_nodes_take_part_in_normalizing():
    def soft(count):
        return [{"key": f"k{i}", "effect": "PreferNoSchedule"} for i in range(count)]

    state = cluster([make_node("worst", taints=soft(4), unschedulable=True), make_node("bad", taints=soft(2))])
    assert scores(state, make_pod())["TaintToleration"] == {"bad": 0}


@pytest.mark.parametrize(
    ("size", "holders", "expected"),
    [
        (500 * MI, 1, 100 * (250 * MI - 23 * MI) // (977 * MI)),
        (500 * MI, 2, 100 * (500 * MI - 23 * MI) // (977 * MI)),
        (20 * MI, 2, 0),
        (9000 * MI, 2, 100),
    ],
)
def test_image_locality(size, holders, expected):
    images = [{"names": ["app:latest", "app@sha256:1"], "sizeBytes": size}]
    nodes = [make_node(f"n{i}", images=images if i < holders else []) for i in range(2)]
    assert scores(cluster(nodes), make_pod())["ImageLocality"]["n0"] == expected


def test_images_that_no_node_has_do_not_score():
    assert "ImageLocality" not in scores(cluster([make_node("n")]), make_pod())


def test_names_without_tag_mean_latest():
    assert normalized_name("app") == "app:latest"
    assert normalized_name("host:5000/app") == "host:5000/app:latest"
    assert normalized_name("host:5000/app:1") == "host:5000/app:1"
