import pytest

from nodewright.controllers.daemonset.extensions import RollingUpdate
from nodewright.controllers.daemonset.numbers import scaled
from nodewright.controllers.daemonset.rollout import limits, roll
from support.daemonset_objects import RUN, STAY, node, pod, targets, view


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


def test_held_nodes_are_left_out():
    pods = [old("a", "n1"), old("b", "n2"), old("c", "n3", ready=False)]
    seen = view(pods, rolling={"partition": 2, "maxUnavailable": 3}, status={"currentRevision": "old"})
    assert [p.metadata.name for p in roll(seen, targets(seen)).delete] == ["a"]
    seen = view(pods, rolling={"partition": 2, "maxSurge": 3}, status={"currentRevision": "old"})
    assert roll(seen, targets(seen)).create == ["n1"]


def within(pods, unavailable=1, surge=0, verdicts=None, **more):
    rolling = {"maxUnavailable": unavailable, "maxSurge": surge, "unavailablePods": "WithinBudget"}
    seen = view(pods, verdicts, rolling=rolling, **more)
    found = roll(seen, targets(seen))
    return [p.metadata.name for p in found.delete], found.create


def test_within_the_budget_unavailable_old_pods_go_first_and_in_turn():
    pods = [old("a", "n1"), old("b", "n2", ready=False), old("c", "n3", ready=False), old("d", "n4")]
    assert within(pods, 1) == (["b"], [])
    assert within(pods, 2) == (["b", "c"], [])
    assert within(pods, 3) == (["b", "c", "a"], [])
    assert within([*pods[:1], pod("b2", "n2", ready=False), *pods[2:]], 1) == ([], [])
    assert within([*pods[:1], pod("b2", "n2"), *pods[2:]], 1) == (["c"], [])
    assert within([*pods[:1], *pods[2:]], 1, verdicts=dict.fromkeys(["n1", "n2", "n3", "n4"], RUN)) == ([], [])


def test_within_the_budget_a_held_unavailable_pod_counts_for_available_ones_only():
    pods = [old("a", "n1", ready=False), old("b", "n2"), old("c", "n3", ready=False)]
    canary = {"matchLabels": {"canary": "yes"}}
    nodes = {"n1": node("n1", {"canary": "yes"}), "n2": node("n2", {"canary": "yes"}), "n3": node("n3")}
    rolling = {"maxUnavailable": 1, "unavailablePods": "WithinBudget", "nodeSelector": canary}
    seen = view(pods, nodes=nodes, rolling=rolling, status={"currentRevision": "old"})
    assert [p.metadata.name for p in roll(seen, targets(seen)).delete] == ["a"]


def test_within_the_budget_while_surging():
    pods = [old("a", "n1"), old("b", "n2", ready=False), old("c", "n3", ready=False)]
    assert within(pods, 0, 1) == ([], ["n2"])
    assert within(pods, 0, 3) == ([], ["n2", "n3", "n1"])
    # The old pod on n2 went as soon as the new one was there: the node is still being worked on.
    assert within([pods[0], pod("b2", "n2", ready=False), pods[2]], 0, 1) == ([], [])
    assert within([pods[0], pod("b2", "n2", ready=False), pods[2]], 0, 3) == ([], ["n3", "n1"])
    assert within([pods[0], pod("b2", "n2"), pods[2]], 0, 1) == ([], ["n3"])


def pulling(pods, pulled=(), **rolling):
    rolling = {"maxUnavailable": 1, "prePull": {"maxParallel": 2}, **rolling}
    seen = view(pods, rolling=rolling, pulled=set(pulled))
    found = roll(seen, targets(seen))
    return [p.metadata.name for p in found.delete], found.create, found.pre_pull


def test_images_are_pulled_before_a_pod_goes():
    pods = [old("a", "n1"), old("b", "n2"), old("c", "n3", ready=False), pod("d", "n4")]
    assert pulling(pods) == ([], [], ["n3", "n1"])
    assert pulling(pods, ["n3"]) == (["c"], [], ["n1", "n2"])
    assert pulling(pods, ["n1", "n3"], maxUnavailable=2) == (["c", "a"], [], ["n2"])
    assert pulling(pods, ["n2", "n3"], maxUnavailable=2) == (["c", "b"], [], ["n1"])  # whoever is ready goes first
    assert pulling(pods, ["n1", "n2", "n3"]) == (["c"], [], [])


def test_images_are_pulled_before_a_surge():
    pods = [old("a", "n1"), old("b", "n2"), old("c", "n3", ready=False)]
    assert pulling(pods, maxUnavailable=0, maxSurge=1) == ([], [], ["n3", "n1"])
    assert pulling(pods, ["n1"], maxUnavailable=0, maxSurge=1) == ([], ["n1"], ["n3", "n2"])


def test_nothing_is_pulled_for_held_nodes_or_on_the_way_back():
    pods = [pod("a", "n1", ready=False), old("b", "n2")]
    rolling = {"prePull": {}, "onFailure": "Rollback", "maxFailed": 0}
    seen = view(pods, rolling=rolling, status={"currentRevision": "old"})
    back = roll(seen, targets(seen, failed_revision="new"))
    assert ([p.metadata.name for p in back.delete], back.pre_pull) == (["a"], [])
    seen = view(pods, rolling=rolling, status={"currentRevision": "old"}, paused=True)
    assert roll(seen, targets(seen)).pre_pull == []
