import pytest

from nodewright.controllers.daemonset.extensions import RollingUpdate
from nodewright.controllers.daemonset.numbers import scaled
from nodewright.controllers.daemonset.rollout import limits, roll
from support.daemonset_objects import RUN, STAY, pod, targets, view


def step(pods, unavailable=1, surge=0, verdicts=None, **more):
    seen = view(pods, verdicts, rolling={"maxUnavailable": unavailable, "maxSurge": surge}, **more)
    found = roll(seen, targets(seen))
    return sorted(p.metadata.name for p in found.delete), sorted(found.create)


def old(name, node, **more):
    return pod(name, node, hash="old", **more)


@pytest.mark.parametrize(
    ("value", "total", "expected"),
    [(None, 10, 1), (3, 10, 3), (0, 10, 0), ("0%", 10, 0), ("10%", 10, 1), ("11%", 10, 2), ("100%", 7, 7), ("x", 5, 1)],
)
def test_scaled_rounds_up(value, total, expected):
    assert scaled(value, total, 1) == expected


def test_limits_are_never_both_zero():
    assert limits(RollingUpdate(0, 0), 5) == (1, 0)
    assert limits(RollingUpdate(0, 0), 0) == (0, 0)
    assert limits(RollingUpdate(), 5) == (1, 0)
    assert limits(RollingUpdate(0, "10%"), 5) == (0, 1)


def test_one_at_a_time_by_default():
    pods = [old("a", "n1"), old("b", "n2"), old("c", "n3")]
    assert step(pods) == (["a"], [])


def test_max_unavailable_is_a_share_of_the_wanted_nodes():
    pods = [old(str(i), f"n{i}") for i in range(5)]
    assert step(pods, "30%") == (["0", "1"], [])


def test_what_is_unavailable_already_uses_up_the_budget():
    assert step([pod("a", "n1", ready=False), old("b", "n2")]) == ([], [])
    assert step([pod("a", "n1", deleting=True), old("b", "n2")]) == ([], [])
    assert step([old("b", "n2")], verdicts={"n1": RUN, "n2": RUN}) == ([], [])  # n1 has none yet
    assert step([old("a", "n1"), pod("a2", "n1"), old("b", "n2")]) == ([], [])  # one of each: manage's business


def test_an_unavailable_old_pod_is_replaced_at_once_and_counts():
    pods = [old("a", "n1", ready=False), old("b", "n2", ready=False), old("c", "n3")]
    assert step(pods, 1) == (["a", "b"], [])
    assert step(pods, 3) == (["a", "b", "c"], [])


def test_two_quick_updates_keep_what_is_available():
    """kubernetes#123232: the first update's pod is not available yet when the second one comes."""
    pods = [old("starting", "n1", ready=False), old("b", "n2"), old("c", "n3")]
    assert step(pods, 1) == (["starting"], [])


def test_min_ready_seconds_delays_the_next_step():
    pods = [pod("a", "n1", since="2026-03-01T11:59:55Z"), old("b", "n2", since="2026-03-01T11:00:00Z")]
    assert step(pods, minReadySeconds=10) == ([], [])
    assert step(pods, minReadySeconds=5) == (["b"], [])


def test_done():
    assert step([pod("a", "n1"), pod("b", "n2")]) == ([], [])


def test_pods_of_the_same_template_generation_are_current():
    pods = [pod("a", "n1", labels={"pod-template-generation": "3"})]
    assert step(pods, generation="3") == ([], [])
    assert step(pods, generation="4") == (["a"], [])


def test_surge_starts_beside_up_to_its_limit():
    pods = [old("a", "n1"), old("b", "n2"), old("c", "n3")]
    assert step(pods, 0, 1) == ([], ["n1"])
    assert step(pods, 0, "50%") == ([], ["n1", "n2"])


def test_surge_in_progress_counts():
    pods = [old("a", "n1"), pod("a2", "n1", ready=False), old("b", "n2")]
    assert step(pods, 0, 1) == ([], [])
    assert step(pods, 0, 2) == ([], ["n2"])


def test_surge_deletes_the_old_pod_once_the_new_one_is_available():
    pods = [old("a", "n1"), pod("a2", "n1"), old("b", "n2")]
    assert step(pods, 0, 1) == (["a"], ["n2"])


def test_surge_replaces_an_unavailable_old_pod_without_regard_to_the_limit():
    pods = [old(str(i), f"n{i}", ready=False) for i in range(3)]
    assert step(pods, 0, 1) == ([], ["n0", "n1", "n2"])


def test_surge_keeps_pods_on_lost_nodes_until_others_make_up_for_them():
    lost, here = old("a", "n1"), pod("b", "n2", ready=False)
    verdicts = {"n1": STAY, "n2": RUN}
    assert step([lost, here], 0, 1, verdicts) == ([], [])
    assert step([lost, pod("b", "n2")], 0, 1, verdicts) == (["a"], [])
    assert step([old("a", "n1", ready=False), here], 0, 1, verdicts) == (["a"], [])


def test_a_paused_rollout_replaces_nothing():
    pods = [old("a", "n1"), old("b", "n2", ready=False), pod("c", "n3")]
    assert step(pods, 3, paused=True) == ([], [])
    assert step(pods, 0, 3, paused=True) == ([], [])
    assert step(pods, 3, annotations={"nodewright.dev/paused": "true"}) == ([], [])
