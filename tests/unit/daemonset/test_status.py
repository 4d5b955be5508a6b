import msgspec

from nodewright.controllers.daemonset.model import DaemonSetStatus
from nodewright.controllers.daemonset.status import compute, with_ready
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
