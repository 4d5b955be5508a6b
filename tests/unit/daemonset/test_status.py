import msgspec
import pytest

from nodewright.controllers.daemonset.decide import decide
from nodewright.controllers.daemonset.model import DaemonSetStatus
from nodewright.controllers.daemonset.status import compute, with_ready, with_rollout
from nodewright.kube.times import parse_rfc3339
from support.daemonset_objects import LEAVE, NOW, RUN, pod, targets, view

MOMENT = parse_rfc3339(NOW)


def numbers(pods, verdicts, **spec):
    seen = view(pods, verdicts, **spec)
    s = compute(seen, targets(seen))
    return {
        "desired": s.desired_number_scheduled,
        "current": s.current_number_scheduled,
        "miss": s.number_misscheduled,
        "ready": s.number_ready,
        "updated": s.updated_number_scheduled,
        "available": s.number_available,
        "unavailable": s.number_unavailable,
    }


def test_counts():
    pods = [
        pod("a", "n1"),
        pod("b", "n2", hash="old"),
        pod("c", "n3", ready=False),
        pod("d", "n5"),
        pod("e", "n5"),
        pod("f", "gone"),
    ]
    verdicts = {"n1": RUN, "n2": RUN, "n3": RUN, "n4": RUN, "n5": LEAVE, "n6": LEAVE}
    assert numbers(pods, verdicts) == {
        "desired": 4,
        "current": 3,
        "miss": 1,
        "ready": 2,
        "updated": 2,
        "available": 2,
        "unavailable": 2,
    }


def test_only_the_oldest_pod_of_a_node_counts():
    young = pod("young", created="2026-03-01T11:30:00Z")
    assert numbers([young, pod("older", ready=False, hash="old")], {"n1": RUN})["ready"] == 0


def test_ready_is_not_available_before_min_ready_seconds():
    pods = [pod("a", since="2026-03-01T11:59:55Z")]
    counted = numbers(pods, {"n1": RUN}, minReadySeconds=10)
    assert (counted["ready"], counted["available"], counted["unavailable"]) == (1, 0, 1)


def test_all_counters_are_on_the_wire():
    assert set(msgspec.to_builtins(DaemonSetStatus())) >= {
        "currentNumberScheduled",
        "desiredNumberScheduled",
        "numberMisscheduled",
        "numberReady",
        "numberAvailable",
        "numberUnavailable",
        "updatedNumberScheduled",
        "observedGeneration",
    }


def ready_of(status):
    (condition,) = [c for c in status.conditions if c.type == "Ready"]
    return condition


def test_the_ready_condition_tells_why_not():
    def reason(trouble=None, **numbers):
        return ready_of(with_ready(DaemonSetStatus(**numbers), 3, trouble, MOMENT)).reason

    assert reason(desired_number_scheduled=2, updated_number_scheduled=1, number_available=2) == "RollingOut"
    assert reason(desired_number_scheduled=2, updated_number_scheduled=2, number_available=1) == "PodsUnavailable"
    assert reason(desired_number_scheduled=2, updated_number_scheduled=2, number_available=2) == "AllAvailable"
    assert reason(("SyncFailed", "quota")) == "SyncFailed"


def test_the_transition_time_changes_with_the_status_only():
    later = parse_rfc3339("2026-03-01T13:00:00Z")
    first = with_ready(DaemonSetStatus(desired_number_scheduled=1), 1, None, MOMENT)
    assert ready_of(first).last_transition_time == NOW
    again = with_ready(first, 2, ("SyncFailed", "x"), later)
    assert (ready_of(again).last_transition_time, ready_of(again).observed_generation) == (NOW, 2)
    done = msgspec.structs.replace(again, updated_number_scheduled=1, number_available=1)
    assert ready_of(with_ready(done, 2, None, later)).last_transition_time == "2026-03-01T13:00:00Z"
    assert with_ready(again, 2, ("SyncFailed", "x"), later) == again


def revisions_after(pods, verdicts=None, *, current="old", **more):
    """(current, update) in the status that follows."""
    seen = view(pods, verdicts, status={"currentRevision": current}, **more)
    decision = decide(seen, lambda _node: 0.0)
    after = with_rollout(compute(seen, decision.targets), seen, decision)
    return after.current_revision, after.update_revision


OLD, NEW, STARTING = pod("o", "n1", hash="old"), pod("n", "n2"), pod("s", "n2", ready=False)
STEPS = {"steps": [{"nodes": "100%", "waitForResume": True}]}
RESUMED = {"nodewright.dev/resumed-step": "new/1"}


@pytest.mark.parametrize(
    ("pods", "more", "expected"),
    [
        pytest.param([OLD, NEW], {}, "old", id="under way"),
        pytest.param([NEW], {}, "new", id="done"),
        pytest.param([STARTING], {}, "old", id="not available yet"),
        pytest.param(
            [NEW, pod("b", "n2", hash="old", created="2026-03-01T10:00:00Z")], {}, "old", id="beside an old one"
        ),
        pytest.param([NEW], {"rolling": STEPS}, "old", id="the last step waits"),
        pytest.param([NEW], {"rolling": STEPS, "annotations": RESUMED}, "new", id="the last step is done"),
        pytest.param([OLD, NEW], {"rolling": {"partition": 1}}, "old", id="partition"),
        pytest.param([STARTING], {"current": "new"}, "new", id="not available any more"),
        pytest.param([], {"verdicts": {"n1": RUN}, "current": ""}, "new", id="new"),
        pytest.param([], {"verdicts": {"n1": LEAVE}}, "new", id="no node left"),
        pytest.param(
            [], {"verdicts": {"n1": LEAVE}, "rolling": {"partition": 1}}, "old", id="no node left to try it on"
        ),
        pytest.param([NEW], {"current": "gone"}, "new", id="what was current was deleted"),
    ],
)
def test_the_current_revision_is_the_last_that_was_complete(pods, more, expected):
    assert revisions_after(pods, **more) == (expected, "new")


def test_what_is_updated_is_of_the_newest_template_also_on_the_way_back():
    rolling = {"maxFailed": 0, "onFailure": "Rollback"}
    seen = view([OLD, STARTING], rolling=rolling, status={"currentRevision": "old"})
    after = compute(seen, targets(seen, failed_revision="new"))
    assert (after.updated_number_scheduled, after.number_available) == (1, 1)
