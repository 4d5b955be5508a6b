import pytest

from nodewright.controllers.daemonset.availability import is_ready
from nodewright.controllers.daemonset.failures import are_resumed, are_too_many, survey
from nodewright.controllers.daemonset.model import OwnAnnotations
from support.daemonset_objects import LEAVE, RUN, STAY, pod, view

LONG_AGO, JUST_NOW = "2026-03-01T11:00:00Z", "2026-03-01T11:59:50Z"


def failing(pods, verdicts=None, **more):
    return sorted(survey(view(pods, verdicts, **more)).nodes)


def broken(name="a", node="n1", **more):
    return pod(name, node, **{"ready": False, "waiting": "CrashLoopBackOff", "created": JUST_NOW, **more})


@pytest.mark.parametrize(
    "reason",
    [
        "CrashLoopBackOff",
        "ImagePullBackOff",
        "ErrImagePull",
        "ErrImageNeverPull",
        "InvalidImageName",
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
    ],
)
def test_a_container_that_does_not_start(reason):
    assert failing([broken(waiting=reason)]) == ["n1"]
    assert failing([broken(waiting=reason, init=True)]) == ["n1"]


@pytest.mark.parametrize(
    "found",
    [
        pytest.param(pod("a"), id="available"),
        pytest.param(broken(waiting="ContainerCreating", since=JUST_NOW), id="starting"),
        pytest.param(broken(waiting="PodInitializing", since=JUST_NOW), id="initializing"),
        pytest.param(broken(hash="old"), id="of another template"),
        pytest.param(broken(deleting=True), id="on its way out"),
        pytest.param(broken(waiting=None, since=JUST_NOW), id="not ready for a moment"),
        pytest.param(pod("a", created=LONG_AGO, ready=False, since=JUST_NOW), id="not ready any more, for a moment"),
    ],
)
def test_nothing_that_fails(found):
    assert failing([found]) == []


def test_pods_that_have_failed_count_also_while_they_wait_to_be_deleted():
    assert failing([pod("a", phase="Failed", ready=False, since=JUST_NOW)]) == ["n1"]
    assert failing([pod("a", phase="Failed", ready=False, hash="old")]) == []


def test_a_pod_that_takes_longer_than_the_deadline():
    late = pod("a", ready=False, created=LONG_AGO, since="2026-03-01T11:50:00Z")
    assert failing([late]) == ["n1"]
    assert failing([late], progressDeadlineSeconds=601) == []
    assert survey(view([late], progressDeadlineSeconds=601)).next == 1.0
    assert failing([pod("a", created=LONG_AGO, since=JUST_NOW)], minReadySeconds=30) == []  # ready, not yet available


def test_a_pod_that_was_updated_in_place_is_not_late_for_its_age():
    changed = pod("a", created=LONG_AGO, since=LONG_AGO)
    changed.metadata.annotations = OwnAnnotations(in_place='{"c": 0}')
    assert not is_ready(view([changed]), changed)
    assert failing([changed]) == []


def test_what_runs_once_is_late_for_its_age():
    assert failing([pod("a", created=LONG_AGO, since=LONG_AGO)], runOnce=True) == ["n1"]
    assert failing([pod("a", created=LONG_AGO, phase="Succeeded")], runOnce=True) == []
    assert failing([pod("a", created=JUST_NOW)], runOnce=True) == []


def test_the_next_moment_to_look_is_that_of_the_first_one():
    pods = [
        pod("a", "n1", ready=False, created=JUST_NOW, since=JUST_NOW),
        pod("b", "n2", ready=False, created=JUST_NOW),
    ]
    assert survey(view(pods)).next == 590
    assert survey(view([pod("a"), broken("b", "n2")])).next is None


def test_only_nodes_that_should_run_a_pod():
    assert failing([broken("a", "n1"), broken("b", "n2")], {"n1": STAY, "n2": LEAVE}) == []


@pytest.mark.parametrize(
    ("pods", "expected"),
    [
        pytest.param([], ["n1"], id="deleted, not made anew yet"),
        pytest.param([pod("a", ready=False, since=JUST_NOW, created=JUST_NOW)], ["n1"], id="the next attempt starts"),
        pytest.param([pod("a", since=JUST_NOW)], ["n1"], id="ready, not yet for long enough"),
        pytest.param([pod("a", since=LONG_AGO)], [], id="available"),
        pytest.param([pod("a", hash="old", ready=False)], [], id="another template took its place"),
        pytest.param([pod("a", deleting=True, ready=False, since=JUST_NOW)], ["n1"], id="going"),
    ],
)
def test_a_failure_is_remembered_until_it_is_over(pods, expected):
    assert failing(pods, {"n1": RUN}, failing={"n1", "elsewhere"}, minReadySeconds=20) == expected


@pytest.mark.parametrize(
    ("limit", "count", "expected"),
    [(None, 4, False), (0, 0, False), (0, 1, True), (1, 1, False), (1, 2, True), ("50%", 2, False), ("50%", 3, True)],
)
def test_too_many(limit, count, expected):
    pods = [broken(f"p{i}", f"n{i}") if i < count else pod(f"p{i}", f"n{i}") for i in range(4)]
    seen = view(pods, rolling={"maxFailed": limit})
    assert are_too_many(seen, survey(seen)) == expected
    other = view(pods, rolling={"maxFailed": limit}, strategy="OnDelete")
    assert not are_too_many(other, survey(other))


def test_resumed_is_about_one_revision():
    assert are_resumed(view(annotations={"nodewright.dev/resumed-failures": "new"}))
    assert not are_resumed(view(annotations={"nodewright.dev/resumed-failures": "old"}))
    assert not are_resumed(view())
