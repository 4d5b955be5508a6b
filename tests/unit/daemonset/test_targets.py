import pytest

from nodewright.controllers.daemonset.decide import decide
from nodewright.controllers.daemonset.targets import is_paused, stable_hash
from support.daemonset_objects import RUN, STAY, daemonset, pod, targets, view

STABLE = {"currentRevision": "old"}
OLD = [pod(f"p{i}", f"n{i}", hash="old") for i in range(3)]


def found(pods=OLD, verdicts=None, failed="", **more):
    return targets(view(pods, verdicts, **{"status": STABLE, **more}), failed_revision=failed)


def test_usually_all_nodes_get_the_newest():
    seen = found()
    assert (seen.hash, seen.stable, set(seen.held)) == ("new", "old", set())
    assert seen.hash_for("n0") == "new"


@pytest.mark.parametrize(
    "paused",
    [{"paused": True}, {"annotations": {"nodewright.dev/paused": "true"}}],
)
def test_paused_holds_every_node(paused):
    seen = found(verdicts={"n0": RUN, "n1": STAY, "n2": RUN}, **paused)
    assert set(seen.held) == {"n0", "n1", "n2"}
    assert seen.hash_for("n0") == "old"


def test_only_true_is_paused():
    assert not is_paused(daemonset(annotations={"nodewright.dev/paused": "false"}))


def test_partition_and_selector_hold_the_others():
    assert set(found(rolling={"partition": 2}).held) == {"n1", "n2"}
    assert set(found(rolling={"nodeSelector": {"matchLabels": {"canary": "yes"}}}).held) == {"n0", "n1", "n2"}


def test_the_way_back_is_held_by_a_pause_only():
    back = {"status": {"currentRevision": "new"}, "rolling": {"partition": 2, "steps": [{"nodes": 1}]}}
    assert not found(**back).held
    assert set(found(**back, paused=True).held) == {"n0", "n1", "n2"}


def test_after_failures_all_is_held():
    seen = found(failed="new", rolling={"maxFailed": 1})
    assert (seen.hash, set(seen.held)) == ("new", {"n0", "n1", "n2"})
    assert not found(failed="other", rolling={"maxFailed": 1}).held


def test_after_failures_all_goes_back_if_asked_for():
    seen = found(failed="new", rolling={"maxFailed": 1, "onFailure": "Rollback", "partition": 2})
    assert (seen.hash, seen.stable, set(seen.held)) == ("old", "old", set())
    paused = found(failed="new", rolling={"maxFailed": 1, "onFailure": "Rollback"}, paused=True)
    assert (paused.hash, set(paused.held)) == ("old", {"n0", "n1", "n2"})


def test_where_there_is_nothing_to_go_back_to_all_is_held():
    rolling = {"maxFailed": 1, "onFailure": "Rollback"}
    pods = [pod("a", "n1"), pod("b", "n2")]
    for status in ({"currentRevision": "new"}, {"currentRevision": "gone"}, {}):
        seen = found(pods, failed="new", rolling=rolling, status=status)
        assert (seen.hash, set(seen.held)) == ("new", {"n1", "n2"})


@pytest.mark.parametrize(
    ("status", "pods", "expected"),
    [
        (STABLE, [pod("a")], "old"),
        ({"currentRevision": "gone"}, [pod("a", "n1", hash="old"), pod("b", "n2", hash="old"), pod("c", "n3")], "old"),
        ({}, [pod("a", "n1", hash="old"), pod("b", "n2"), pod("c", "n3")], "new"),
        ({}, [pod("a", "n1", hash="unknown")], "new"),
        ({}, [], "new"),
    ],
)
def test_what_is_stable(status, pods, expected):
    assert stable_hash(view(pods, status=status)) == expected


def test_a_missing_pod_on_a_held_node_is_made_from_what_was_there_before():
    seen = view([OLD[0]], {"n0": RUN, "n1": RUN}, status=STABLE, paused=True)
    decision = decide(seen, lambda _node: 0.0)
    assert decision.plan.create == ["n1"]
    assert decision.targets.hash_for("n1") == "old"
