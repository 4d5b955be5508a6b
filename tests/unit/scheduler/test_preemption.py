"""Preemption: who has to go, where it does least harm, and what is told. By table, from upstream's rules."""

import random

import pytest

from nodewright.kube.api.meta import LabelSelector
from nodewright.scheduler.attempts import Attempt
from nodewright.scheduler.core import SchedulerCore
from nodewright.scheduler.diagnosis import Diagnosis
from nodewright.scheduler.evaluator import Evaluator, Placement
from nodewright.scheduler.objects import Condition
from nodewright.scheduler.plugins.node_resources_fit import NodeResourcesFit
from nodewright.scheduler.preemption.budgets import Budgets
from nodewright.scheduler.preemption.choice import Candidate, best
from nodewright.scheduler.preemption.finder import Finder
from nodewright.scheduler.preemption.limits import Limits
from nodewright.scheduler.profile import Profile
from nodewright.scheduler.world_objects import BudgetSpec, DisruptedPods, DisruptionBudget
from support.scheduler_builders import FakeClock, info, make_node, make_pod


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def core(clock):
    return SchedulerCore({"nodewright": Profile()}, clock)


def low(name, node, cpu="1", priority=0, start="2026-01-01T00:00:00Z", **spec):
    pod = make_pod(name, {"cpu": cpu}, node=node, priority=priority, **spec)
    pod.status.start_time = start
    return pod


def high(cpu="1", priority=100, **spec):
    return make_pod(requests={"cpu": cpu}, priority=priority, **spec)


def fill(core, *pods, nodes=("a",), cpu="2"):
    for node in nodes:
        core.on_node(None, make_node(node, cpu))
    for pod in pods:
        core.on_pod(None, pod)


def preempt(core, pod) -> Attempt:
    core.on_pod(None, pod)
    attempt = core.attempt()
    assert isinstance(attempt.outcome, Diagnosis), attempt
    return attempt


def victims(attempt):
    return [v.pod.metadata.name for v in attempt.preemption.victims] if attempt.preemption else None


def test_as_few_as_needed_and_the_least_important(core):
    fill(core, low("old", "a"), low("new", "a", start="2026-02-01T00:00:00Z"))
    attempt = preempt(core, high())
    assert victims(attempt) == ["new"]
    assert attempt.nominated == "a"
    assert attempt.outcome.message() == "0/1 nodes are available: 1 Insufficient cpu."


def test_higher_priorities_are_spared_first(core):
    fill(core, low("five", "a", priority=5), low("nine", "a", priority=9, start="2026-02-01T00:00:00Z"))
    assert victims(preempt(core, high())) == ["five"]


def test_equal_priority_is_no_reason(core):
    fill(core, low("same", "a", "2", priority=100))
    attempt = preempt(core, high())
    assert attempt.preemption is None
    assert attempt.outcome.message() == (
        "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: "
        "0/1 nodes are available: 1 No preemption victims found for incoming pod."
    )


def test_never_means_never(core):
    fill(core, low("v", "a", "2"))
    attempt = preempt(core, high(preemptionPolicy="Never"))
    assert attempt.preemption is None
    assert attempt.outcome.message().endswith("preemption: not eligible due to preemptionPolicy=Never.")


def test_nodes_that_no_eviction_helps_are_told_apart(core):
    fill(core, low("v", "a", "2"), nodes=("a",))
    core.on_node(None, make_node("small", "500m"))
    core.on_node(None, make_node("cordoned", unschedulable=True))
    attempt = preempt(core, high("1500m", nodeSelector={"x": "y"}))
    assert attempt.outcome.message().endswith(
        "preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."
    )
    attempt = preempt(core, high("3"))
    assert attempt.outcome.message().endswith(
        "preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."
    )


def test_no_room_even_without_them(core):
    fill(core, low("v", "a", "1"), low("stays", "a", "1", priority=1000))
    attempt = preempt(core, high("2"))
    assert attempt.outcome.message().endswith("preemption: 0/1 nodes are available: 1 Insufficient cpu.")


def test_the_pod_goes_where_it_was_nominated_once_victims_are_gone(core, clock):
    fill(core, low("v", "a", "2"), low("other", "b", "2"), nodes=("a", "b"))
    pod = high("2")
    attempt = preempt(core, pod)
    node = attempt.nominated
    victim = attempt.preemption.victims[0]
    assert core.queue.where(pod.metadata.uid) == "gated"  # not tried again while evictions are being sent
    core.evicted(pod.metadata.uid, complete=True)
    assert core.queue.where(pod.metadata.uid) == "unschedulable"
    clock.advance(2)
    core.on_pod(victim.pod, None)
    placed = core.attempt()
    assert isinstance(placed.outcome, Placement)
    assert placed.outcome.node == node
    assert not len(core.state.nominated)


def test_evictions_that_failed_let_the_pod_try_again(core, clock):
    fill(core, low("v", "a", "2"))
    pod = high("2")
    preempt(core, pod)
    core.evicted(pod.metadata.uid, complete=False)
    clock.advance(2)
    assert victims(core.attempt()) == ["v"]


def test_nobody_takes_the_room_of_a_nominated_pod(core, clock):
    fill(core, low("v", "a", "2"))
    pod = high("2")
    attempt = preempt(core, pod)
    core.evicted(pod.metadata.uid, complete=True)
    core.on_pod(attempt.preemption.victims[0].pod, None)
    core.queue.delete(pod.metadata.uid)  # as if it were still in backoff
    core.state.nominated.put(info(pod), "a")
    intruder = preempt(core, make_pod(requests={"cpu": "1"}, priority=100))
    assert intruder.outcome.message().startswith("0/1 nodes are available: 1 Insufficient cpu.")
    core.on_pod(None, make_pod(requests={"cpu": "1"}, priority=101))
    assert isinstance(core.attempt().outcome, Placement)


def test_a_nomination_is_taken_over_by_a_pod_of_higher_priority(core):
    fill(core, low("v", "a", "2"))
    first = high("2", priority=10)
    preempt(core, first)
    second = preempt(core, high("2", priority=20))
    assert second.nominated == "a"
    assert [p.uid for p in second.outranked] == [first.metadata.uid]
    assert core.state.nominated.node_of(first.metadata.uid) == ""


def ending(pod):
    gone = make_pod(
        pod.metadata.name, {"cpu": "2"}, node=pod.spec.node_name, uid=pod.metadata.uid, priority=0, deleting=True
    )
    gone.status.conditions = [Condition(type="DisruptionTarget", status="True", reason="PreemptionByScheduler")]
    return gone


def test_while_victims_end_nobody_else_is_evicted(core, clock):
    victim = low("v", "a", "2")
    fill(core, victim, low("w", "b", "2", priority=1), nodes=("a", "b"))
    pod = high("2")
    attempt = preempt(core, pod)
    assert attempt.nominated == "a"
    core.evicted(pod.metadata.uid, complete=True)
    core.on_pod(victim, ending(victim))
    core.queue.activate(pod.metadata.uid)
    clock.advance(2)
    again = core.attempt()
    assert again.preemption is None
    assert again.nominated is None
    assert again.outcome.message().endswith("preemption: not eligible due to a terminating pod on the nominated node.")


def test_a_victim_that_ends_already_is_not_evicted_twice(core):
    victim = low("v", "a", "2")
    fill(core, victim)
    core.on_pod(victim, ending(victim))
    attempt = preempt(core, high("2"))
    assert victims(attempt) == ["v"]
    assert not core.preempting  # nothing to send, so nothing to wait for


def budget(allowed, app="db", disrupted=()):
    pod = make_pod("pdb", labels={"app": app})
    return DisruptionBudget(
        metadata=pod.metadata,
        spec=BudgetSpec(selector=LabelSelector(match_labels={"app": app})),
        status=DisruptedPods(disruptions_allowed=allowed, disrupted_pods=dict.fromkeys(disrupted, "t")),
    )


@pytest.mark.parametrize(
    ("one", "violating"),
    [(budget(0), 3), (budget(2), 1), (budget(3), 0), (budget(0, "x"), 0), (budget(0, disrupted=["p0"]), 2)],
)
def test_budgets_allow_so_many(one, violating):
    budgets = Budgets()
    budgets.set(None, one)
    pods = [info(make_pod(f"p{i}", labels={"app": "db"})) for i in range(3)]
    bad, good = budgets.split(pods)
    assert (len(bad), len(good)) == (violating, 3 - violating)
    budgets.set(one, None)
    assert budgets.split(pods) == ([], pods)


def test_protected_pods_are_spared_where_others_can_go(core):
    fill(core, low("p", "a", labels={"app": "db"}, start="2026-03-01T00:00:00Z"), low("q", "a"))
    core.on_budget(None, budget(0))
    assert victims(preempt(core, high())) == ["q"]


def test_a_node_without_violations_is_preferred(core):
    fill(core, low("p", "a", "2", labels={"app": "db"}), low("q", "b", "2", priority=50), nodes=("a", "b"))
    core.on_budget(None, budget(0))
    assert preempt(core, high("2")).nominated == "b"


def victim(priority, start="2026-01-01T00:00:00Z"):
    pod = make_pod(priority=priority)
    pod.status.start_time = start
    return info(pod)


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (([9, 9, 9], 0), ([1], 1)),  # violations first
        (([1, 1, 1], 0), ([2], 0)),  # then the highest priority
        (([5, 1], 0), ([5, 2], 0)),  # then the sum
        (([-5], 0), ([-5, -5], 0)),  # many of negative priority are worse than one
    ],
)
def test_the_least_harm(better, worse):
    def candidate(name, spec):
        return Candidate(name, [victim(p) for p in spec[0]], spec[1])

    assert best([candidate("worse", worse), candidate("better", better)]).node == "better"
    assert best([candidate("better", better), candidate("worse", worse)]).node == "better"


def test_the_shortest_running_goes():
    early, late = victim(1), victim(1, "2026-05-01T00:00:00Z")
    assert best([Candidate("early", [early], 0), Candidate("late", [late], 0)]).node == "late"


def test_other_filters_are_asked_as_well(core):
    port = [{"hostPort": 80}]
    fill(core, low("port", "a", "100m", ports=port), low("cpu", "a", "100m"), cpu="8")
    assert victims(preempt(core, high("1", ports=port))) == ["port"]


def test_anti_affinity_of_placed_pods_is_resolved_by_eviction(core):
    term = {"labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": "kubernetes.io/hostname"}
    away = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    fill(core, low("guard", "a", "100m", affinity=away), low("idle", "a", "100m"), cpu="8")
    assert victims(preempt(core, high("1", labels={"app": "web"}))) == ["guard"]


def test_trying_out_leaves_no_trace(core):
    port = [{"hostPort": 80}]
    fill(core, low("port", "a", "100m", ports=port), low("cpu", "a", "100m"), cpu="8")
    before = core.state.requested.copy(), set(core.state.pods), core.state.pod_count.copy()
    preempt(core, high("1", ports=port))
    assert (core.state.requested == before[0]).all()
    assert set(core.state.pods) == before[1]
    assert (core.state.pod_count == before[2]).all()


@pytest.mark.parametrize("with_budget", [False, True])
def test_arithmetic_and_filters_choose_the_same_victims(with_budget, monkeypatch):
    """Room alone is counted in numbers; the filters must give the same answer, on every node."""
    rng = random.Random(7)
    for round_ in range(25):
        core = SchedulerCore({"nodewright": Profile()}, FakeClock())
        for n in range(4):
            core.on_node(None, make_node(f"n{n}", "4", pods=str(rng.choice([3, 110]))))
            for p in range(rng.randint(0, 5)):
                start = f"2026-01-0{rng.randint(1, 9)}T00:00:00Z"
                labels = {"app": rng.choice(["db", "web"])}
                cpu = rng.choice(["0", "500m", "1", "2"])
                core.on_pod(None, low(f"p{n}-{p}", f"n{n}", cpu, rng.choice([0, 5, 200]), start, labels=labels))
        if with_budget:
            core.on_budget(None, budget(rng.randint(0, 2)))
        pod = info(high(rng.choice(["1", "3"])))
        evaluator = Evaluator(Profile(), core.state)
        rejection = evaluator.place(pod)
        if isinstance(rejection, Placement):
            continue
        finder = Finder(core.state, core.placing.budgets)
        fast = finder.all_candidates(evaluator, pod, rejection)
        with monkeypatch.context() as patched:
            patched.setattr("nodewright.scheduler.preemption.dry_run.room_only", lambda *_: None)
            slow = finder.all_candidates(evaluator, pod, rejection)
        key = lambda c: (c.node, [v.uid for v in c.victims], c.violations)  # noqa: E731
        assert sorted(map(key, fast)) == sorted(map(key, slow)), round_


def test_limits():
    assert Limits().of(5) == 5
    assert Limits().of(500) == 100
    assert Limits().of(5000) == 500
    assert NodeResourcesFit().wanted(info(high())) == {"cpu": 1000}


def test_room_kept_for_nominated_pods_is_the_same_in_numbers_and_by_filters():
    rng = random.Random(11)
    for round_ in range(40):
        core = SchedulerCore({"nodewright": Profile()}, FakeClock())
        for n in range(5):
            core.on_node(None, make_node(f"n{n}", "4", pods=str(rng.choice([2, 110]))))
            for p in range(rng.randint(0, 2)):
                core.on_pod(None, low(f"p{n}-{p}", f"n{n}", rng.choice(["0", "1"])))
        for _ in range(rng.randint(1, 6)):
            other = make_pod(requests={"cpu": rng.choice(["0", "1", "2", "3"])}, priority=rng.choice([0, 10]))
            core.state.nominated.put(info(other), f"n{rng.randint(0, 5)}")
        pod = info(make_pod(requests={"cpu": rng.choice(["0", "2", "4"])}, priority=rng.choice([0, 5, 20])))
        evaluator = Evaluator(Profile(), core.state)
        evaluation = evaluator._evaluation(pod)
        quick, slow = evaluator._claims(evaluation, pod), evaluator._claims_one_by_one(evaluation, pod)
        assert (quick is None) == (slow is None), round_
        if quick is not None:
            assert (quick.where == slow.where).all()
            assert (quick.hopeless == slow.hopeless).all()
            assert (quick.reasons, quick.plugins) == (slow.reasons, slow.plugins)
