import msgspec
import pytest

from nodewright.controllers.daemonset.decide import decide
from nodewright.controllers.daemonset.model import RolloutStatus
from nodewright.controllers.daemonset.progress import is_complete, is_noted, last_phase
from support.daemonset_objects import NOW, RUN, daemonset, pod, view

EARLIER, LONG_AGO = "2026-03-01T11:59:00Z", "2026-03-01T11:00:00Z"
ROLLED_BACK = {"maxFailed": 0, "onFailure": "Rollback"}


def old(node):
    return pod(f"old-{node}", node, hash="old")


def new(node, **more):
    return pod(f"new-{node}", node, **more)


def bad(node):
    return new(node, ready=False, since=NOW, created=NOW, waiting="ErrImagePull")


def decided(pods, verdicts=None, *, rollout=None, last=None, current="old", **more):
    """A decision, where status.rollout has these fields and Progressing's reason was `last`."""
    status = {"currentRevision": current}
    if rollout is not None:
        status["rollout"] = {"revision": "new", "lastProgressTime": EARLIER, **rollout}
    if last is not None:
        status["conditions"] = [{"type": "Progressing", "status": "True", "reason": last}]
    return decide(view(pods, verdicts, status=status, **more), lambda _node: 0.0)


def phase(*args, **more):
    return decided(*args, **more).phase


def test_a_new_revision_starts_anew():
    before = {
        "revision": "older",
        "step": 2,
        "stepReadyTime": EARLIER,
        "progress": 3,
        "failedNodes": 1,
        "failedRevision": "older",
    }
    found = decided([old("n1")], rollout=before, rolling={"steps": [{"nodes": 1}]}).rollout
    assert found == RolloutStatus(revision="new", last_progress_time=NOW)


def test_progress_is_the_most_that_was_seen():
    assert decided([new("n1"), old("n2")]).rollout.progress == 1
    found = decided([new("n1"), old("n2")], rollout={"progress": 2}, last="RollingOut").rollout
    assert (found.progress, found.last_progress_time) == (2, EARLIER)
    found = decided([new("n1"), new("n2"), old("n3")], rollout={"progress": 1}, last="RollingOut").rollout
    assert (found.progress, found.last_progress_time) == (2, NOW)


@pytest.mark.parametrize("last", ["DaemonSetPaused", "WaitingForStep", "RolloutHeld", "RolloutFailed"])
def test_time_that_the_rollout_stood_still_does_not_count(last):
    found = decided([old("n1")], rollout={"lastProgressTime": LONG_AGO}, last=last)
    assert (found.phase, found.rollout.last_progress_time) == ("RollingOut", NOW)
    assert found.late_in == pytest.approx(600, abs=1)


def test_too_late():
    found = decided([old("n1")], rollout={}, last="RollingOut", progressDeadlineSeconds=61)
    assert found.phase == "RollingOut"
    assert found.late_in == pytest.approx(1, abs=0.1)
    found = decided([old("n1")], rollout={}, last="RollingOut", progressDeadlineSeconds=60)
    assert (found.phase, found.late_in) == ("ProgressDeadlineExceeded", None)
    found = decided([old("n1")], rollout={}, last="ProgressDeadlineExceeded", progressDeadlineSeconds=60)
    assert found.phase == "ProgressDeadlineExceeded"
    found = decided([new("n1"), old("n2")], rollout={}, last="ProgressDeadlineExceeded", progressDeadlineSeconds=60)
    assert (found.phase, found.rollout.last_progress_time) == ("RollingOut", NOW)


@pytest.mark.parametrize(
    ("pods", "more", "expected"),
    [
        pytest.param([new("n1"), old("n2")], {}, "RollingOut", id="under way"),
        pytest.param([new("n1"), new("n2")], {}, "NewRevisionAvailable", id="done"),
        pytest.param([new("n1"), new("n2", ready=False)], {}, "RollingOut", id="not available yet"),
        pytest.param([new("n1"), old("n2")], {"paused": True}, "DaemonSetPaused", id="paused"),
        pytest.param([new("n1"), new("n2")], {"paused": True}, "DaemonSetPaused", id="paused when done"),
        pytest.param([new("n1"), old("n2")], {"rolling": {"partition": 1}}, "RolloutHeld", id="partition reached"),
        pytest.param([old("n1"), old("n2")], {"rolling": {"partition": 1}}, "RollingOut", id="partition not reached"),
        pytest.param(
            [new("n1"), new("n2")],
            {"rolling": {"partition": 1}},
            "NewRevisionAvailable",
            id="partition raised too late",
        ),
        pytest.param(
            [new("n1"), old("n2")],
            {"rolling": {"steps": [{"nodes": 1, "waitSeconds": 9}]}},
            "WaitingForStep",
            id="step",
        ),
        pytest.param(
            [new("n1"), new("n2")],
            {"rolling": {"steps": [{"nodes": 2, "waitSeconds": 9}]}},
            "WaitingForStep",
            id="the last step waits, too",
        ),
        pytest.param([new("n1"), old("n2")], {"strategy": "OnDelete"}, "WaitingForDeletion", id="OnDelete"),
        pytest.param(
            [new("n1"), new("n2", ready=False)], {"strategy": "OnDelete"}, "RollingOut", id="OnDelete, starting"
        ),
        pytest.param([new("n1"), bad("n2")], {"rolling": {"maxFailed": 0}}, "RolloutFailed", id="failed"),
        pytest.param([new("n1"), bad("n2")], {"rolling": {"maxFailed": 1}}, "RollingOut", id="not too many"),
    ],
)
def test_what_a_rollout_is_doing(pods, more, expected):
    assert phase(pods, **more) == expected


def test_what_happens_later_begins_no_rollout():
    done = {"rollout": {}, "last": "NewRevisionAvailable", "current": "new"}
    assert phase([new("n1"), new("n2", ready=False)], **done) == "NewRevisionAvailable"
    assert phase([new("n1")], {"n1": RUN, "n2": RUN}, **done) == "NewRevisionAvailable"
    assert phase([new("n1"), old("n2")], **done) == "RollingOut"
    assert phase([new("n1"), new("n2", ready=False)], **{**done, "rollout": {"revision": "x"}}) == "RollingOut"


def test_the_wait_of_a_step_is_when_to_look_again():
    rolling = {"steps": [{"nodes": 1, "waitSeconds": 100}]}
    found = decided([new("n1"), old("n2")], rollout={"stepReadyTime": EARLIER}, rolling=rolling)
    assert found.plan.retry_after == pytest.approx(40, abs=0.1)
    assert decided([new("n1"), old("n2")], rollout={"stepReadyTime": LONG_AGO}, rolling=rolling).rollout.step == 1


def test_a_new_daemonset_and_the_way_back_need_no_steps():
    rolling = {"steps": [{"nodes": 1, "waitForResume": True}]}
    found = decided([], {"n1": RUN, "n2": RUN}, current="", rolling=rolling)
    assert (found.plan.create, found.rollout.step) == (["n1", "n2"], 1)
    back = decided([new("n1"), old("n2"), old("n3")], current="new", rolling={"maxUnavailable": 2, **rolling})
    assert len(back.plan.delete) == 2


# -- failures ------------------------------------------------------------------------------------------------------


def test_failures_stop_the_rollout_and_it_stays_so():
    pods = [bad("n1"), old("n2"), old("n3")]
    found = decided(pods, rolling={"maxFailed": 0})
    assert (found.rollout.failed_nodes, found.rollout.failed_revision) == (1, "new")
    assert (found.plan.delete, set(found.failing)) == ([], {"n1"})
    later = decided([old("n1"), old("n2"), old("n3")], rollout={"failedRevision": "new"}, rolling={"maxFailed": 0})
    assert (later.rollout.failed_nodes, later.rollout.failed_revision, later.plan.delete) == (0, "new", [])


def test_one_too_many_is_needed():
    pods = [bad("n1"), old("n2"), old("n3")]
    found = decided(pods, rolling={"maxFailed": 1, "maxUnavailable": 2})
    assert (found.rollout.failed_revision, len(found.plan.delete)) == ("", 1)


def test_a_person_goes_on_in_spite_of_failures():
    pods = [bad("n1"), old("n2"), old("n3")]
    resumed = {"nodewright.dev/resumed-failures": "new"}
    rolling = {"maxFailed": 0, "maxUnavailable": 2}
    found = decided(pods, rollout={"failedRevision": "new"}, rolling=rolling, annotations=resumed)
    assert (found.rollout.failed_revision, found.rollout.failed_nodes, len(found.plan.delete)) == ("", 1, 1)


def test_steps_stand_still_after_failures():
    pods = [new("n1"), bad("n2"), old("n3")]
    rolling = {"maxFailed": 0, "steps": [{"nodes": 1}, {"nodes": 1}]}
    assert decided(pods, rolling=rolling).rollout.step == 0


def test_rollback_replaces_the_failing_pods_at_once_and_the_others_within_the_budget():
    pods = [bad("n1"), bad("n2"), new("n3"), new("n4"), old("n5")]
    found = decided(pods, rolling=ROLLED_BACK)
    assert found.targets.hash == "old"
    assert {p.metadata.name for p in found.plan.delete} == {"new-n1", "new-n2"}
    found = decided(pods, rolling={**ROLLED_BACK, "maxUnavailable": 3})
    assert {p.metadata.name for p in found.plan.delete} == {"new-n1", "new-n2", "new-n3"}


def test_rollback_does_not_wait_for_the_back_off_of_failed_pods():
    seen = view(
        [new("n1", phase="Failed", ready=False), old("n2")], status={"currentRevision": "old"}, rolling=ROLLED_BACK
    )
    assert [p.metadata.name for p in decide(seen, lambda _node: 60.0).plan.delete] == ["new-n1"]


def test_the_first_rollout_is_not_stopped():
    for current in ("", "new"):
        found = decided([bad("n1")], {"n1": RUN, "n2": RUN}, current=current, rolling=ROLLED_BACK)
        assert (found.rollout.failed_revision, found.plan.create) == ("", ["n2"])


def test_a_rollout_that_got_well_after_all_is_complete():
    found = decided([new("n1"), new("n2")], rollout={"failedRevision": "new"}, rolling={"maxFailed": 0})
    assert (found.rollout.failed_revision, found.phase) == ("", "NewRevisionAvailable")
    found = decided([new("n1"), old("n2")], rollout={"failedRevision": "new"}, rolling={"maxFailed": 0})
    assert found.rollout.failed_revision == "new"


# -- completion ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "done", "rollout", "spec", "expected"),
    [
        (3, 3, {}, {}, True),
        (3, 2, {}, {}, False),
        (3, 3, {"failed_revision": "new"}, {}, False),
        (3, 3, {}, {"rolling": {"steps": [{"nodes": 1}]}}, False),
        (3, 3, {"step": 1}, {"rolling": {"steps": [{"nodes": 1}]}}, True),
        (3, 3, {}, {"rolling": {"partition": 1}}, True),
        (0, 0, {}, {}, True),
        (0, 0, {}, {"rolling": {"partition": "10%"}}, False),
        (0, 0, {}, {"rolling": {"steps": [{"nodes": 1}]}}, False),
        (0, 0, {}, {"paused": True}, False),
    ],
)
def test_complete(wanted, done, rollout, spec, expected):
    ds = daemonset(updateStrategy={"rollingUpdate": spec.get("rolling")}, paused=spec.get("paused", False))
    assert is_complete(ds, RolloutStatus(revision="new", **rollout), wanted=wanted, done=done) == expected


def test_steps_and_failures_are_noted_before_they_count():
    def noted(rollout, **more):
        status = {"currentRevision": "old", **({"rollout": rollout} if rollout else {})}
        return is_noted(view([old("n1")], status=status), RolloutStatus(revision="new", **more))

    assert noted(None)
    assert not noted(None, step=1)
    assert noted({"revision": "new", "step": 1}, step=1, step_ready_time=NOW, progress=3)
    assert not noted({"revision": "other", "step": 1}, step=1)
    assert not noted({"revision": "new"}, failed_revision="new")
    assert not noted({"revision": "new", "failedRevision": "new"})


def test_the_last_phase_is_read_from_the_condition():
    assert last_phase(daemonset()) is None
    conditions = [{"type": "Progressing", "status": "True", "reason": "RollingOut"}]
    assert last_phase(daemonset(status={"conditions": conditions})) == "RollingOut"


def test_looking_changes_nothing_that_others_hold():
    seen = view([new("n1")], status={"currentRevision": "old", "rollout": {"revision": "new", "progress": 0}})
    before = msgspec.json.encode(seen.ds)
    assert decide(seen, lambda _node: 0.0).rollout.progress == 1
    assert msgspec.json.encode(seen.ds) == before
