import pytest

from nodewright.controllers.daemonset.extensions import RollingUpdate
from nodewright.controllers.daemonset.manage import allows_surge, manage
from support.daemonset_objects import LEAVE, RUN, STAY, pod, targets, view

OLDER, NEWER = "2026-03-01T10:00:00Z", "2026-03-01T11:30:00Z"


def managed(pods=(), verdicts=None, gate=0.0, surge=0, **spec):
    rolling = {"maxUnavailable": 0 if surge else 1, "maxSurge": surge}
    seen = view(pods, {"n1": RUN} if verdicts is None else verdicts, rolling=rolling, **spec)
    return manage(seen, targets(seen), lambda _node: gate)


def plan(*args, **more):
    found = managed(*args, **more)
    return found.create, sorted(p.metadata.name for p in found.delete), [e.reason for e in found.events]


@pytest.mark.parametrize(
    ("pods", "verdict", "expected"),
    [
        pytest.param([], RUN, (["n1"], [], []), id="missing"),
        pytest.param([], STAY, ([], [], []), id="not wanted"),
        pytest.param([pod("a")], RUN, ([], [], []), id="there"),
        pytest.param([pod("a", hash="old")], RUN, ([], [], []), id="old is the rollout's business"),
        pytest.param([pod("a")], STAY, ([], [], []), id="may stay"),
        pytest.param([pod("a")], LEAVE, ([], ["a"], []), id="must leave"),
        pytest.param([pod("a", deleting=True)], LEAVE, ([], [], []), id="is leaving"),
        pytest.param([pod("a", deleting=True)], RUN, ([], [], []), id="wait for the old one to be gone"),
        pytest.param([pod("a", phase="Failed", deleting=True)], RUN, (["n1"], [], []), id="ended, held by a finalizer"),
        pytest.param([pod("a", scheduled=False, phase="Pending", ready=False)], RUN, ([], [], []), id="pending"),
        pytest.param([pod("a", phase="Failed")], RUN, ([], ["a"], ["FailedDaemonPod"]), id="failed"),
        pytest.param([pod("a", phase="Succeeded")], RUN, ([], ["a"], ["SucceededDaemonPod"]), id="succeeded"),
        pytest.param(
            [pod("a", phase="Failed"), pod("b")], RUN, ([], ["a"], ["FailedDaemonPod"]), id="failed beside good"
        ),
        pytest.param(
            [pod("young", created=NEWER), pod("old", created=OLDER)], RUN, ([], ["young"], []), id="the oldest stays"
        ),
        pytest.param(
            [pod("a", created=OLDER, scheduled=False), pod("b", created=NEWER)],
            RUN,
            ([], ["a"], []),
            id="a scheduled one goes before an older one",
        ),
        pytest.param([pod("b"), pod("a"), pod("c")], RUN, ([], ["b", "c"], []), id="equal age: by name"),
    ],
)
def test_one_node_without_surge(pods, verdict, expected):
    assert plan(pods, {"n1": verdict}) == expected


def test_nodes_are_independent():
    pods = [pod("a", "n1"), pod("b", "n3"), pod("c", "n4")]
    verdicts = {"n1": RUN, "n2": RUN, "n3": LEAVE, "n4": STAY}
    assert plan(pods, verdicts) == (["n2"], ["b"], [])


def test_a_failed_pod_in_back_off_is_left_for_later():
    found = managed([pod("a", phase="Failed")], gate=7.5)
    assert (found.create, found.delete, found.events, found.retry_after) == ([], [], [], 7.5)


def test_pods_for_nodes_that_are_gone():
    waiting = pod("waiting", "gone", scheduled=False, phase="Pending")
    ran = pod("ran", "gone")
    assert plan([waiting, ran], {}) == ([], ["waiting"], [])


OLD, NEW = pod("old", hash="old", created=OLDER), pod("new", hash="new", created=NEWER, ready=False)


@pytest.mark.parametrize(
    ("pods", "expected"),
    [
        pytest.param([], (["n1"], []), id="missing"),
        pytest.param([pod("a", deleting=True)], (["n1"], []), id="a leaving pod does not count"),
        pytest.param([OLD], ([], []), id="old alone"),
        pytest.param([OLD, NEW], ([], []), id="old ready, new starting: both stay"),
        pytest.param([OLD, pod("new", created=NEWER)], ([], ["old"]), id="new available: old goes"),
        pytest.param([pod("old", hash="old", ready=False), NEW], ([], ["old"]), id="old not ready: old goes"),
        pytest.param([OLD, NEW, pod("x", hash="old", created=NEWER)], ([], ["x"]), id="two old ones: the younger goes"),
        pytest.param([NEW, pod("y", created="2026-03-01T11:45:00Z")], ([], ["y"]), id="two new ones: the younger goes"),
    ],
)
def test_one_node_with_surge(pods, expected):
    create, delete, _ = plan(pods, surge=1)
    assert (create, delete) == expected


def test_with_surge_a_new_pod_must_be_available_not_just_ready():
    pods = [OLD, pod("new", created=NEWER, since="2026-03-01T11:59:55Z")]
    assert plan(pods, surge=1, minReadySeconds=10)[1] == []
    assert plan(pods, surge=1, minReadySeconds=5)[1] == ["old"]


def test_with_surge_nothing_starts_where_a_pod_may_only_stay():
    assert plan([pod("a", deleting=True)], {"n1": STAY}, surge=1)[0] == []


def test_event_texts_are_upstreams():
    found = managed([pod("a", phase="Failed"), pod("b", phase="Succeeded")])
    assert [(e.type, e.message) for e in found.events] == [
        ("Warning", "Found failed daemon pod ns/a on node n1, will try to kill it"),
        ("Normal", "Found succeeded daemon pod ns/b on node n1, will try to delete it"),
    ]


def test_allows_surge():
    assert not allows_surge(RollingUpdate())
    assert not allows_surge(RollingUpdate(1, "0%"))
    assert allows_surge(RollingUpdate(0, "1%"))
    assert allows_surge(RollingUpdate(0, 2))
