import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewright.controllers.daemonset.drain import is_draining, verdict, waits_for
from nodewright.controllers.daemonset.eligibility import Verdict
from nodewright.controllers.daemonset.model import PRE_PULL_OF_LABEL
from nodewright.controllers.daemonset.nodepods import NodePods
from nodewright.controllers.daemonset.owntaints import DRAIN_TAINT
from support.daemonset_objects import node, pod


def at(name, owner="", *, priority=0, kind="DaemonSet", labels=None, **more):
    """A pod with a priority, and an owner of a kind."""
    found = pod(name, owner=owner, labels=labels or {}, **more)
    spec = msgspec.structs.replace(found.spec, priority=priority)
    refs = [msgspec.structs.replace(ref, kind=kind) for ref in found.metadata.owner_references]
    return msgspec.structs.replace(
        found, spec=spec, metadata=msgspec.structs.replace(found.metadata, owner_references=refs)
    )


def mirror(name):
    found = at(name)
    raw = msgspec.to_builtins(found)
    raw["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "abc"}
    return msgspec.convert(raw, type(found))


MINE = at("mine", "me", priority=10)
LEAVING = {"me", "low", "same", "high"}


def names(mine, others):
    return [p.metadata.name for p in waits_for(mine, [*mine, *others], LEAVING)]


@pytest.mark.parametrize(
    ("other", "counts"),
    [
        pytest.param(at("p"), True, id="unmanaged"),
        pytest.param(at("p", "rs", kind="ReplicaSet"), True, id="managed"),
        pytest.param(at("p", "rs", kind="ReplicaSet", priority=1000), True, id="whatever its priority"),
        pytest.param(at("p", "rs", kind="ReplicaSet", deleting=True), True, id="terminating is not gone"),
        pytest.param(at("p", "rs", kind="ReplicaSet", ready=False, phase="Pending"), True, id="starting"),
        pytest.param(at("p", "rs", kind="ReplicaSet", phase="Succeeded"), False, id="succeeded"),
        pytest.param(at("p", "rs", kind="ReplicaSet", phase="Failed"), False, id="failed"),
        pytest.param(
            at("p", "rs", kind="ReplicaSet", phase="Succeeded", deleting=True), True, id="ended, but not cleared away"
        ),
        pytest.param(at("p", "n1", kind="Node"), False, id="mirror by its owner"),
        pytest.param(mirror("p"), False, id="mirror by its annotation"),
        pytest.param(at("p", "stays"), False, id="a daemon that stays"),
        pytest.param(at("p", "low", priority=9), True, id="lower priority"),
        pytest.param(at("p", "low", priority=9, deleting=True), True, id="lower priority, terminating"),
        pytest.param(at("p", "low", priority=9, phase="Failed"), False, id="lower priority, failed"),
        pytest.param(at("p", "same", priority=10), False, id="equal priority"),
        pytest.param(at("p", "high", priority=11), False, id="higher priority"),
    ],
)
def test_who_is_waited_for(other, counts):
    assert names([MINE], [other]) == (["p"] if counts else [])


def test_pods_that_pull_images_are_not_waited_for():
    assert names([MINE], [at("p", labels={PRE_PULL_OF_LABEL: "x"})]) == []


def test_two_daemonsets_whose_priorities_overlap_do_not_wait_for_each_other():
    wide = [at("w1", "me", priority=5), at("w2", "me", priority=10)]
    between = [at("b", "low", priority=7)]
    everybody = [*wide, *between]
    assert waits_for(wide, everybody, LEAVING) == []
    assert [p.metadata.name for p in waits_for(between, everybody, LEAVING)] == ["w1", "w2"]


def test_the_next_ones_are_named_first():
    others = [at("z", "low", priority=3), at("b", "rs", kind="Job"), at("a", "x", kind="Job", priority=4)]
    assert names([MINE], others) == ["b", "z", "a"]


def test_it_stays_until_its_turn_has_come_and_is_not_made_anew():
    many = [at(f"p{i}") for i in range(5)]
    held = verdict(Verdict(True, True), many)
    assert (held.should_run, held.should_continue) == (False, True)
    assert held.reason == "the node is being drained; the pod leaves after ns/p0, ns/p1, ns/p2 and 2 more"
    assert verdict(Verdict(True, True), []) == Verdict(False, False, "the node is being drained")
    gone = Verdict(False, False, "node selector a=b does not match")
    assert verdict(gone, many) is gone


def test_a_node_is_being_drained_by_its_taint():
    assert is_draining(node("n1", taints=(f"{DRAIN_TAINT}:NoSchedule",)))
    assert is_draining(node("n1", taints=(f"{DRAIN_TAINT}=x:NoExecute",)))
    assert not is_draining(node("n1", taints=("node.kubernetes.io/unschedulable:NoSchedule",)))
    assert not is_draining(None)


# -- the pods of a few nodes --------------------------------------------------------------------------------------

DRAINED, PLAIN = node("n1", taints=(f"{DRAIN_TAINT}:NoSchedule",)), node("n1")


def test_pods_are_followed_on_the_nodes_of_interest_only():
    cluster = {p.metadata.name: p for p in (pod("a", "n1"), pod("b", "n2"), pod("c", "n1", scheduled=False))}
    found = NodePods(is_draining, cluster.values)
    assert found.pod_changed(None, cluster["a"]) is None
    assert not found.node_changed(None, PLAIN)
    assert found.node_changed(PLAIN, DRAINED)
    assert not found.node_changed(DRAINED, DRAINED)
    assert [p.metadata.name for p in found.on("n1")] == ["a"]
    bound = pod("c", "n1")
    assert found.pod_changed(cluster["c"], bound) == "n1"
    assert found.pod_changed(None, cluster["b"]) is None
    assert found.pod_changed(cluster["a"], None) == "n1"
    assert [p.metadata.name for p in found.on("n1")] == ["c"]
    assert found.node_changed(DRAINED, PLAIN)
    assert found.on("n1") == []
    assert found.nodes == []
    assert found.pod_changed(bound, None) is None


def test_a_node_that_is_deleted_is_not_followed():
    found = NodePods(is_draining, list)
    found.node_changed(None, DRAINED)
    assert "n1" in found
    assert found.node_changed(DRAINED, None)
    assert "n1" not in found


# -- every drain comes to its end ---------------------------------------------------------------------------------

_DAEMONS = ("d0", "d1", "d2", "d3")
_CROWD = st.lists(st.tuples(st.sampled_from(("", "rs", *_DAEMONS)), st.integers(-2, 2)), max_size=12)


@given(crowd=_CROWD)
def test_every_drain_ends_and_nobody_leaves_before_one_of_less_priority(crowd):
    """Ordinary pods go by themselves, daemons when they may: some can always go, until none is left."""
    there = {
        f"p{i}": at(f"p{i}", owner, priority=priority, kind="DaemonSet" if owner in _DAEMONS else "ReplicaSet")
        for i, (owner, priority) in enumerate(crowd)
    }
    owners = {
        name: (p.metadata.owner_references[0].uid if p.metadata.owner_references else "") for name, p in there.items()
    }
    place = {uid: min((p.spec.priority for n, p in there.items() if owners[n] == uid), default=0) for uid in _DAEMONS}
    while there:
        ordinary = [name for name in there if owners[name] not in _DAEMONS]
        may = [
            uid
            for uid in _DAEMONS
            if (mine := [p for n, p in there.items() if owners[n] == uid])
            and not waits_for(mine, there.values(), _DAEMONS)
        ]
        if ordinary:
            assert not may, "an ordinary pod is still there"
            del there[ordinary[0]]
            continue
        assert may, f"they wait for each other: {sorted(there)}"
        left = {owners[name] for name in there}
        assert {place[uid] for uid in may} == {min(place[uid] for uid in left)}
        there = {name: p for name, p in there.items() if owners[name] != may[0]}
