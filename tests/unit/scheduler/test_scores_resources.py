"""NodeResourcesFit's three strategies against upstream's rules, written here node by node with plain integers."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewright.scheduler import cycle
from nodewright.scheduler.plugin import Context
from nodewright.scheduler.plugins.node_resources_fit import Args, NodeResourcesFit, is_extended
from nodewright.scheduler.plugins.resource_scoring import ShapePoint, by_shape, percent
from nodewright.scheduler.profile import ProfileError, profile_from_object
from nodewright.scheduler.state import ClusterState, NodeView
from support.scheduler_builders import info, make_node, make_pod

MI = 1024 * 1024
GPU = "example.com/gpu"


def fit(strategy, **more):
    """The plugin as a profile would make it."""
    config = {"pluginConfig": [{"name": "NodeResourcesFit", "args": {"scoringStrategy": strategy, **more}}]}
    return profile_from_object(config).plugins["NodeResourcesFit"]


def scores(plugin, nodes, pod, pods=()):
    """The scores by node, of all nodes, feasible or not."""
    state = ClusterState(capacity=1)
    for node in nodes:
        state.set_node(node)
    for placed in pods:
        state.add_pod(info(placed), placed.spec.node_name)
    found = plugin.score(Context(info(pod), NodeView(state), {}))
    return {node.metadata.name: int(found[state.rows[node.metadata.name]]) for node in nodes}


# --- upstream, in plain Python --------------------------------------------------------------------------------------


def towards_zero(a, b):
    return abs(a) // abs(b) * (1 if (a >= 0) == (b >= 0) else -1)


def on_shape(shape, utilization):
    points = [(u, s * 10) for u, s in shape]
    for i, (u, s) in enumerate(points):
        if utilization <= u:
            if i == 0:
                return s
            u0, s0 = points[i - 1]
            return s0 + towards_zero((s - s0) * (utilization - u0), u - u0)
    return points[-1][1]


def share(kind, shape, requested, capacity):
    if kind == "LeastAllocated":
        return 0 if requested > capacity else (capacity - requested) * 100 // capacity
    if kind == "MostAllocated":
        return min(requested, capacity) * 100 // capacity
    return on_shape(shape, 100 if requested > capacity else requested * 100 // capacity)


def expected(kind, shape, resources):
    """`resources`: per resource its weight, what is requested with the Pod (None: not asked for), and the capacity."""
    total = weights = 0
    for weight, requested, capacity in resources:
        if requested is None or capacity == 0:
            continue
        score = share(kind, shape, requested, capacity)
        if kind == "RequestedToCapacityRatio" and score <= 0:
            continue
        total += score * weight
        weights += weight
    if not weights:
        return 0
    if kind == "RequestedToCapacityRatio":
        # Go's math.Round on float64, half away from zero.
        return math.floor(Fraction(total / weights) + Fraction(1, 2))
    return total // weights


shapes = st.lists(st.integers(0, 100), min_size=1, max_size=6, unique=True).flatmap(
    lambda us: st.tuples(*(st.tuples(st.just(u), st.integers(0, 10)) for u in sorted(us)))
)
weight = st.integers(1, 100)


@given(
    kind=st.sampled_from(["LeastAllocated", "MostAllocated", "RequestedToCapacityRatio"]),
    shape=shapes,
    weights=st.tuples(weight, weight, weight),
    nodes=st.lists(
        st.tuples(st.integers(0, 3000), st.integers(0, 3000), st.integers(0, 20), st.integers(0, 2500)), min_size=1
    ),
    cpu=st.integers(0, 3000),
    memory=st.integers(0, 3000),
    gpu=st.integers(0, 20),
)
def test_every_strategy_is_upstreams(kind, shape, weights, nodes, cpu, memory, gpu):
    resources = [{"name": n, "weight": w} for n, w in zip(("cpu", "memory", GPU), weights, strict=True)]
    strategy = {"type": kind, "resources": resources}
    if kind == "RequestedToCapacityRatio":
        strategy["requestedToCapacityRatio"] = {"shape": [{"utilization": u, "score": s} for u, s in shape]}
    made = [make_node(f"n{i}", f"{c}m", str(m), **{GPU: str(g)}) for i, (c, m, g, _) in enumerate(nodes)]
    placed = [make_pod(node=f"n{i}", requests={"cpu": f"{u}m", "memory": str(u)}) for i, (*_, u) in enumerate(nodes)]
    pod = make_pod(requests={"cpu": f"{cpu}m", "memory": str(memory), GPU: str(gpu)})
    found = scores(fit(strategy), made, pod, placed)
    for i, (c, m, g, used) in enumerate(nodes):
        asked = (used + cpu, used + memory, gpu or None)
        assert found[f"n{i}"] == expected(kind, shape, list(zip(weights, asked, (c, m, g), strict=True)))


@given(shapes)
def test_a_falling_shape_is_cut_towards_zero_as_in_go(shape):
    taken = np.arange(0, 121, dtype=np.int64)
    found = by_shape([ShapePoint(u, s) for u, s in shape])(taken, np.full(121, 100, dtype=np.int64))
    assert found.tolist() == [on_shape(shape, min(t, 100)) for t in range(121)]


def test_halves_are_rounded_up():
    shape = [{"utilization": 0, "score": 0}, {"utilization": 100, "score": 10}]
    resources = [{"name": "cpu"}, {"name": "memory"}]
    strategy = {
        "type": "RequestedToCapacityRatio",
        "resources": resources,
        "requestedToCapacityRatio": {"shape": shape},
    }
    pod = make_pod(requests={"cpu": "40m", "memory": "35"})
    assert scores(fit(strategy), [make_node("n", "100m", "100")], pod) == {"n": 38}  # 37.5
    strategy["type"] = "MostAllocated"
    del strategy["requestedToCapacityRatio"]
    assert scores(fit(strategy), [make_node("n", "100m", "100")], pod) == {"n": 37}


def test_ratio_leaves_out_what_scores_nothing():
    shape = [{"utilization": 50, "score": 0}, {"utilization": 100, "score": 10}]
    strategy = {"type": "RequestedToCapacityRatio", "requestedToCapacityRatio": {"shape": shape}}
    pod = make_pod(requests={"cpu": "75m", "memory": "10"})
    assert scores(fit(strategy), [make_node("n", "100m", "100")], pod) == {"n": 50}  # not the mean of 50 and 0
    low = make_pod(requests={"cpu": "10m", "memory": "10"})
    assert scores(fit(strategy), [make_node("n", "100m", "100")], low) == {"n": 0}


def test_ratio_packs_extended_resources():
    shape = [{"utilization": 0, "score": 0}, {"utilization": 100, "score": 10}]
    strategy = {
        "type": "RequestedToCapacityRatio",
        "resources": [{"name": GPU, "weight": 5}],
        "requestedToCapacityRatio": {"shape": shape},
    }
    nodes = [make_node("half", **{GPU: "8"}), make_node("empty", **{GPU: "8"}), make_node("none")]
    busy = [make_pod(node="half", requests={GPU: "4"})]
    assert scores(fit(strategy), nodes, make_pod(requests={GPU: "2"}), busy) == {"half": 75, "empty": 25, "none": 0}
    assert scores(fit(strategy), nodes, make_pod(), busy) == {"half": 0, "empty": 0, "none": 0}


def test_containers_without_requests_count_with_defaults():
    nodes = [make_node("n", "1", f"{400 * MI}")]
    # two pods of 100m and 200 MiB: 80 % of the cpu is left, nothing of the memory
    assert scores(NodeResourcesFit(), nodes, make_pod(), [make_pod(node="n")]) == {"n": 40}


def test_extended_resources_score_only_pods_that_ask_for_them():
    strategy = {"type": "LeastAllocated", "resources": [{"name": "cpu"}, {"name": GPU, "weight": 4}]}
    nodes = [make_node("n", "4", **{GPU: "8"}), make_node("plain", "4")]
    assert scores(fit(strategy), nodes, make_pod(requests={"cpu": "1"})) == {"n": 75, "plain": 75}
    wanted = make_pod(requests={"cpu": "1", GPU: "4"})
    assert scores(fit(strategy), nodes, wanted) == {"n": (75 + 4 * 50) // 5, "plain": 75}


def test_weights_and_resources_that_are_not_given_have_upstreams_defaults():
    pod = make_pod(requests={"cpu": "25m", "memory": "75"})
    nodes = [make_node("n", "100m", "100")]
    assert scores(fit({"type": "MostAllocated", "resources": []}), nodes, pod) == {"n": 50}
    zero = [{"name": "cpu", "weight": 0}, {"name": "memory", "weight": 3}]
    assert scores(fit({"type": "MostAllocated", "resources": zero}), nodes, pod) == {"n": (25 + 3 * 75) // 4}


@given(st.lists(st.tuples(st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1)), min_size=1))
def test_percentages_are_exact_for_any_amount(pairs):
    part = np.array([min(p) for p in pairs], dtype=np.int64)
    whole = np.array([max(p) for p in pairs], dtype=np.int64)
    assert percent(part, whole).tolist() == [min(p) * 100 // max(*p, 1) for p in pairs]


# --- ignored resources ----------------------------------------------------------------------------------------------


def passes(plugin, pod):
    state = ClusterState(capacity=1)
    state.set_node(make_node("n", "1"))
    return bool(cycle.run_filters([plugin], Context(info(pod), NodeView(state), {})).any())


def test_extended_resources_can_be_ignored_and_no_others():
    by_name = fit({"type": "LeastAllocated"}, ignoredResources=[GPU, "cpu"])
    by_group = fit({"type": "LeastAllocated"}, ignoredResourceGroups=["example.com"])
    for plugin in (by_name, by_group):
        assert passes(plugin, make_pod(requests={GPU: "1"}))
        assert not passes(plugin, make_pod(requests={"cpu": "2"}))
    assert not passes(NodeResourcesFit(), make_pod(requests={GPU: "1"}))
    assert not passes(by_name, make_pod(requests={"example.com/fpga": "1"}))


def test_what_counts_as_extended():
    assert is_extended(GPU)
    for name in ("cpu", "hugepages-2Mi", "kubernetes.io/x", "sub.kubernetes.io/x", "requests.example.com/gpu"):
        assert not is_extended(name)


# --- validation -----------------------------------------------------------------------------------------------------

SHAPE = "scoringStrategy.requestedToCapacityRatio.shape"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (
            {"scoringStrategy": {"type": "Best"}},
            'scoringStrategy.type: Unsupported value: "Best": supported values: "LeastAllocated", "MostAllocated", '
            '"RequestedToCapacityRatio"',
        ),
        (
            {"scoringStrategy": {"resources": [{"name": "cpu", "weight": 101}]}},
            "resources[0].weight: Invalid value: 101: resource weight of cpu not in valid range (0, 100]",
        ),
        (
            {"scoringStrategy": {"resources": [{"name": "cpu", "weight": -1}]}},
            "resources[0].weight: Invalid value: -1: resource weight of cpu not in valid range (0, 100]",
        ),
        (
            {"scoringStrategy": {"type": "RequestedToCapacityRatio"}},
            "scoringStrategy.requestedToCapacityRatio: Required value: must be specified when type is "
            "RequestedToCapacityRatio",
        ),
        (
            {"scoringStrategy": {"requestedToCapacityRatio": {"shape": [{"utilization": 0, "score": 1}]}}},
            "requestedToCapacityRatio: Forbidden: must be nil when type is not RequestedToCapacityRatio",
        ),
        (
            {"scoringStrategy": {"type": "RequestedToCapacityRatio", "requestedToCapacityRatio": {"shape": []}}},
            f"{SHAPE}: Required value: at least one point must be specified",
        ),
        ({"shape": [(50, 1), (50, 2)]}, f"{SHAPE}[1].utilization: Invalid value: 50: values must be sorted in "),
        ({"shape": [(-1, 1)]}, f"{SHAPE}[0].utilization: Invalid value: -1: not in valid range [0, 100]"),
        ({"shape": [(0, 1), (101, 1)]}, f"{SHAPE}[1].utilization: Invalid value: 101: not in valid range [0, 100]"),
        ({"shape": [(0, 11)]}, f"{SHAPE}[0].score: Invalid value: 11: not in valid range [0, 10]"),
        (
            {"ignoredResourceGroups": ["a/b"]},
            "ignoredResourceGroups[0]: Invalid value: \"a/b\": resource group name can't contain '/'",
        ),
        ({"ignoredResources": ["a b"]}, 'ignoredResources[0]: Invalid value: "a b": name part must '),
        ({"ignoredResources": ["A/b"]}, 'ignoredResources[0]: Invalid value: "A/b": prefix part must '),
        ({"scoringStrategy": {"resources": [{"name": "cpu", "weight": "1"}]}}, "scoringStrategy.resources[0].weight: "),
        ({"scoringStrategy": {"typ": "x"}}, "typ"),
    ],
)
def test_wrong_arguments_are_refused_in_upstreams_words(args, message):
    if shape := args.get("shape"):
        points = [{"utilization": u, "score": s} for u, s in shape]
        ratio = {"type": "RequestedToCapacityRatio", "requestedToCapacityRatio": {"shape": points}}
        args = {"scoringStrategy": ratio}
    with pytest.raises(ProfileError) as caught:
        profile_from_object({"pluginConfig": [{"name": "NodeResourcesFit", "args": args}]})
    assert str(caught.value).startswith("pluginConfig[NodeResourcesFit].args: ")
    assert message in str(caught.value)


def test_all_that_is_wrong_is_told_at_once():
    args = Args(ignored_resources=["a b", "c d"], ignored_resource_groups=["e/f"])
    with pytest.raises(ValueError, match=r"ignoredResources\[0\].*; ignoredResources\[1\].*; ignoredResourceGroups"):
        NodeResourcesFit(args)
