"""A burst of changes is taken together; what a user does, and what somebody waits for, is never put off."""

import msgspec
import pytest

from nodewright.controllers.daemonset.model import DaemonSetStatus
from nodewright.controllers.daemonset.pace import PASS_PER_POD, STATUS_INTERVAL, Pace
from nodewright.kube.objects import Condition
from support.daemonset_objects import daemonset

PODS = 1000
COUNTING = {"desiredNumberScheduled": 9, "currentNumberScheduled": 9, "updatedNumberScheduled": 9}


def status(**fields):
    return msgspec.convert({**COUNTING, "numberAvailable": 3, "observedGeneration": 1, **fields}, DaemonSetStatus)


def test_the_first_pass_begins_at_once_and_the_next_after_a_while():
    pace, ds = Pace(), daemonset()
    assert pace.wait(ds, 10.0) == 0
    pace.begun(ds, PODS, 10.0)
    assert pace.wait(ds, 10.0) == pytest.approx(PODS * PASS_PER_POD)
    assert pace.wait(ds, 10.0 + PODS * PASS_PER_POD) == 0


@pytest.mark.parametrize("field", ["generation", "uid"])
def test_a_new_spec_and_a_new_object_do_not_wait(field):
    pace, ds = Pace(), daemonset()
    pace.begun(ds, PODS, 10.0)
    setattr(ds.metadata, field, "other" if field == "uid" else 2)
    assert pace.wait(ds, 10.0) == 0


def test_after_a_failure_the_queue_alone_decides():
    pace, ds = Pace(), daemonset()
    pace.begun(ds, PODS, 10.0)
    pace.forget(ds.key)
    assert pace.wait(ds, 10.0) == 0


def test_a_status_that_only_counts_on_waits():
    pace, ds = Pace(), daemonset()
    ds.status = status()
    pace.begun(ds, 9, 10.0)
    assert pace.status_wait(ds, status(numberAvailable=4), 10.0) == 0
    pace.status_written(ds, 10.0)
    pace.begun(ds, 9, 10.1)
    assert pace.status_wait(ds, status(numberAvailable=4), 10.1) == pytest.approx(STATUS_INTERVAL - 0.1)
    assert pace.status_wait(ds, status(numberAvailable=4), 10.0 + STATUS_INTERVAL) == 0


@pytest.mark.parametrize(
    "fields",
    [
        {"numberAvailable": 9},
        {"observedGeneration": 2},
        {"updatedNumberScheduled": 0},
        {"currentNumberScheduled": 8},
        {"desiredNumberScheduled": 10},
        {"numberMisscheduled": 1},
        {"updateRevision": "x"},
        {"rollout": {"step": 1}},
        {"rollout": {"failedNodes": 1}},
        {"conditions": [msgspec.to_builtins(Condition("Ready", "False", reason="PodsUnavailable"))]},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_what_somebody_may_wait_for_is_written_at_once(fields):
    pace, ds = Pace(), daemonset()
    ds.status = status()
    pace.begun(ds, 9, 10.0)
    pace.status_written(ds, 10.0)
    assert pace.status_wait(ds, status(**fields), 10.0) == 0


def test_a_condition_with_another_message_is_no_news():
    pace, ds = Pace(), daemonset()
    ds.status, after = status(), status(numberAvailable=4)
    for each, message in ((ds.status, "3 of 9"), (after, "4 of 9")):
        each.conditions = [Condition("Ready", "False", reason="PodsUnavailable", message=message)]
    pace.begun(ds, 9, 10.0)
    pace.status_written(ds, 10.0)
    assert pace.status_wait(ds, after, 10.0) > 0
