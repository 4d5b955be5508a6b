import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewright.controllers.daemonset.availability import is_available, is_ready, ready_since
from nodewright.controllers.daemonset.decide import decide
from nodewright.controllers.daemonset.pods import group
from nodewright.controllers.daemonset.status import compute
from support.daemonset_objects import LEAVE, RUN, STAY, pod, targets, view

MAYBE = {"maxUnavailable": 2}


def once(pods=(), verdicts=None, **more):
    return view(pods, verdicts, runOnce=True, **{"rolling": MAYBE, **more})


def done(name, node="n1", **more):
    return pod(name, node, phase="Succeeded", ready=False, **more)


def plan(seen, gate=0.0):
    found = decide(seen, lambda _node: gate).plan
    return sorted(found.create), sorted(p.metadata.name for p in found.delete)


@pytest.mark.parametrize(
    ("found", "ready"),
    [
        (done("p"), True),
        (pod("p"), False),
        (pod("p", phase="Pending", ready=False), False),
        (pod("p", phase="Failed", ready=False), False),
    ],
)
def test_it_has_done_its_work_once_it_has_succeeded(found, ready):
    seen = once([found], minReadySeconds=3600)
    assert is_ready(seen, found) is is_available(seen, found) is ready
    assert ready_since(seen, found) == ("" if ready else None)


def test_without_run_once_success_is_no_work_done():
    seen = view([done("p")])
    assert not is_ready(seen, done("p"))
    assert plan(seen) == ([], ["p"])


@pytest.mark.parametrize(
    ("pods", "verdict", "expected"),
    [
        pytest.param([], RUN, (["n1"], []), id="a new node gets its run"),
        pytest.param([pod("a")], RUN, ([], []), id="running"),
        pytest.param([done("a")], RUN, ([], []), id="the record stays"),
        pytest.param([done("a", deleting=True)], RUN, (["n1"], []), id="the record is being taken away"),
        pytest.param([pod("a", phase="Failed", ready=False)], RUN, ([], ["a"]), id="failed"),
        pytest.param([done("a", hash="old")], RUN, ([], ["a"]), id="done, for another template"),
        pytest.param([pod("a", hash="old")], RUN, ([], ["a"]), id="still at it, for another template"),
        pytest.param([done("a")], STAY, ([], []), id="a record may stay"),
        pytest.param([done("a")], LEAVE, ([], ["a"]), id="a record must leave"),
        pytest.param([done("a"), done("b", created="2026-03-01T11:30:00Z")], RUN, ([], ["b"]), id="two records"),
    ],
)
def test_one_node(pods, verdict, expected):
    assert plan(once(pods, {"n1": verdict})) == expected


def test_a_failed_run_waits_for_its_turn():
    seen = once([pod("a", phase="Failed", ready=False)])
    found = decide(seen, lambda _node: 7.0).plan
    assert found.is_empty
    assert found.retry_after == 7.0


def test_runs_of_another_template_are_limited_by_the_budget():
    records = [done(f"p{i}", f"n{i}", hash="old") for i in range(5)]
    assert plan(once(records)) == ([], ["p0", "p1"])
    running = [pod("r0", "n0"), done("p1", "n1"), *records[2:]]
    assert plan(once(running)) == ([], ["p2"])
    assert plan(once([pod("r0", "n0"), pod("r1", "n1"), *records[2:]])) == ([], [])


def test_counts():
    verdicts = {f"n{i}": RUN for i in range(4)}
    pods = [done("a", "n0"), pod("b", "n1"), done("c", "n2", hash="old")]
    seen = once(pods, verdicts)
    counted = compute(seen, targets(seen))
    assert (counted.desired_number_scheduled, counted.current_number_scheduled) == (4, 3)
    assert (counted.number_ready, counted.number_available, counted.number_unavailable) == (2, 2, 2)
    assert counted.updated_number_scheduled == 2


@given(
    limit=st.integers(1, 4),
    ends=st.lists(st.sampled_from(["Succeeded", "Succeeded", "Failed"]), min_size=40, max_size=40),
)
def test_a_rerun_ends_with_one_record_per_node_and_never_runs_on_more_nodes_than_allowed(limit, ends):
    nodes = [f"n{i}" for i in range(6)]
    pods = {name: done(f"old-{name}", name, hash="old") for name in nodes}
    serial = 0
    for end in ends:
        seen = once(pods.values(), dict.fromkeys(nodes, RUN), rolling={"maxUnavailable": limit})
        todo = decide(seen, lambda _node: 0.0).plan
        for gone in todo.delete:
            assert gone.status.phase != "Running"
            del pods[gone.target_node]
        for name in todo.create:
            serial += 1
            pods[name] = pod(f"new{serial}", name, phase="Running")
        running = [name for name, p in pods.items() if p.status.phase == "Running"]
        assert len(running) <= limit
        if running:
            pods[running[0]] = pod(f"end{serial}", running[0], phase=end, ready=False)
    if ends.count("Succeeded") >= 12:
        assert {p.metadata.labels["controller-revision-hash"] for p in pods.values()} <= {"old", "new"}
    for _ in range(30):
        todo = decide(
            once(pods.values(), dict.fromkeys(nodes, RUN), rolling={"maxUnavailable": limit}), lambda _node: 0.0
        ).plan
        for gone in todo.delete:
            del pods[gone.target_node]
        for name in todo.create:
            pods[name] = done(f"new-{name}", name)
        for name, found in list(pods.items()):
            if found.status.phase == "Running":
                pods[name] = done(f"new-{name}", name)
    settled = group(pods.values())
    assert sorted(settled) == nodes
    assert all([p.metadata.labels["controller-revision-hash"] for p in found] == ["new"] for found in settled.values())
