"""Gangs: enough at once or none, and never half of two."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodewright.scheduler.core import SchedulerCore
from nodewright.scheduler.diagnosis import Diagnosis
from nodewright.scheduler.evaluator import Placement
from nodewright.scheduler.gang import GROUP_LABEL, MIN_MEMBER, TIMEOUT, GangError, gang_spec
from nodewright.scheduler.profile import Profile
from support.scheduler_builders import FakeClock, info, make_node, make_pod


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def core(clock):
    return SchedulerCore({"nodewright": Profile()}, clock)


def member(gang="g", minimum="3", cpu="1", timeout=None, **spec):
    pod = make_pod(requests={"cpu": cpu}, labels={GROUP_LABEL: gang}, **spec)
    pod.metadata.annotations = {MIN_MEMBER: minimum, **({TIMEOUT: timeout} if timeout else {})}
    return pod


def nodes(core, **sizes):
    for name, cpu in sizes.items():
        core.on_node(None, make_node(name, cpu))


def drain(core):
    """All attempts until no Pod is active, by Pod name."""
    found = {}
    while (attempt := core.attempt()) is not None:
        found.setdefault(attempt.pod.pod.metadata.name, []).append(attempt)
        if sum(map(len, found.values())) > 200:
            raise AssertionError("no end")
    return found


def placed(core):
    return set(core.assumed)


def test_nobody_goes_before_all_are_there(core):
    nodes(core, a="8")
    first, second = member(), member()
    core.on_pod(None, first)
    core.on_pod(None, second)
    attempts = drain(core)
    message = "pod group default/g: waiting for minCount pods from a gang to appear in scheduling queue (2 of 3)"
    assert attempts[second.metadata.name][-1].outcome.message() == message
    assert not placed(core)
    core.on_pod(None, member())
    drain(core)
    assert len(placed(core)) == 3


def test_members_of_one_gang_go_together(core):
    nodes(core, a="8")
    for _ in range(4):
        core.on_pod(None, member())
    attempts = [core.attempt() for _ in range(4)]
    assert all(isinstance(a.outcome, Placement) and a.together == 4 and a.gang.name == "g" for a in attempts)


def test_too_little_room_holds_nothing(core):
    nodes(core, a="2")
    pods = [member() for _ in range(3)]
    for pod in pods:
        core.on_pod(None, pod)
    attempts = drain(core)
    assert not placed(core)
    assert not core.state.pods
    message = attempts[pods[0].metadata.name][0].outcome.message()
    assert message.startswith(
        "pod group default/g: 2 of at least 3 pods fit at once, so none is placed. 0/1 nodes are available: 1 Insuff"
    )
    core.on_pod(None, make_pod(requests={"cpu": "2"}))
    assert isinstance(core.attempt().outcome, Placement)  # the room was never taken


def test_a_node_lets_the_whole_gang_through(core, clock):
    nodes(core, a="2")
    for _ in range(3):
        core.on_pod(None, member())
    drain(core)
    clock.advance(5)
    nodes(core, b="1")
    drain(core)
    assert len(placed(core)) == 3


def test_two_gangs_that_each_need_all_the_room_do_not_block_each_other(core, clock):
    nodes(core, a="3")
    for _ in range(3):
        core.on_pod(None, member("g"))
        core.on_pod(None, member("h"))
    drain(core)
    clock.advance(20)
    drain(core)
    gangs = {core.assumed[uid].queued.pod.pod.metadata.labels[GROUP_LABEL] for uid in placed(core)}
    assert len(placed(core)) == 3
    assert len(gangs) == 1


def test_more_than_the_minimum_go_if_they_fit_and_the_rest_wait(core):
    nodes(core, a="4")
    pods = [member() for _ in range(5)]
    for pod in pods:
        core.on_pod(None, pod)
    attempts = [core.attempt() for _ in range(5)]
    assert sum(isinstance(a.outcome, Placement) for a in attempts) == 4
    (left,) = [a for a in attempts if isinstance(a.outcome, Diagnosis)]
    assert left.outcome.message().startswith("0/1 nodes are available: 1 Insufficient cpu.")


def test_a_member_that_comes_later_needs_no_new_gang(core):
    nodes(core, a="4")
    for _ in range(3):
        core.on_pod(None, member())
    drain(core)
    core.on_pod(None, member())
    drain(core)
    assert len(placed(core)) == 4


def test_bound_members_count_after_a_restart(core):
    nodes(core, a="4")
    core.on_pod(None, member(node="a"))
    core.on_pod(None, member(node="a"))
    core.on_pod(None, member())
    drain(core)
    assert len(placed(core)) == 1


def test_a_gated_member_is_not_there(core):
    nodes(core, a="8")
    core.on_pod(None, member())
    core.on_pod(None, member())
    core.on_pod(None, member(schedulingGates=[{"name": "wait"}]))
    drain(core)
    assert not placed(core)


def low(node, cpu="1"):
    return make_pod(requests={"cpu": cpu}, node=node, priority=0)


def test_room_is_cleared_for_the_whole_gang_or_not_at_all(core, clock):
    nodes(core, a="2", b="2")
    victims = [low("a"), low("a"), low("b")]
    for pod in victims:
        core.on_pod(None, pod)
    pods = [member(priority=10) for _ in range(3)]
    for pod in pods:
        core.on_pod(None, pod)
    attempts = [core.attempt() for _ in range(3)]
    assert not placed(core)
    evicted = [v for a in attempts if a.preemption for v in a.preemption.victims]
    assert len(evicted) == 2  # one place was free
    assert sum(1 for a in attempts if a.nominated) == 3
    for attempt in attempts:
        core.evicted(attempt.pod.uid, complete=True)
    for victim in evicted:
        core.on_pod(victim.pod, None)
    clock.advance(15)
    drain(core)
    assert len(placed(core)) == 3


def test_no_eviction_where_it_would_not_be_enough(core):
    nodes(core, a="2")
    core.on_pod(None, low("a"))
    for _ in range(3):
        core.on_pod(None, member(priority=10))
    attempts = [core.attempt() for _ in range(3)]
    assert not any(a.preemption for a in attempts)
    assert not len(core.state.nominated)
    assert len(core.state.pods) == 1


def test_cleared_room_is_given_up_after_the_timeout(core, clock):
    nodes(core, a="3")
    stubborn = [low("a") for _ in range(3)]
    for pod in stubborn:
        core.on_pod(None, pod)
    pods = [member(priority=10, timeout="30") for _ in range(3)]
    for pod in pods:
        core.on_pod(None, pod)
    first = [core.attempt() for _ in range(3)]
    assert len(core.state.nominated) == 3
    for attempt in first:
        core.evicted(attempt.pod.uid, complete=True)
    core.on_pod(None, make_pod(requests={"cpu": "3"}, node="a", priority=1000))  # somebody else took it
    clock.advance(31)
    for pod in pods:
        core.queue.activate(pod.metadata.uid)
    drain(core)
    assert not len(core.state.nominated)


@pytest.mark.parametrize(
    ("annotations", "field"),
    [
        ({}, MIN_MEMBER),
        ({MIN_MEMBER: "none"}, MIN_MEMBER),
        ({MIN_MEMBER: "0"}, MIN_MEMBER),
        ({MIN_MEMBER: "2", TIMEOUT: "1m"}, TIMEOUT),
    ],
)
def test_annotations_that_make_no_sense_are_told(core, annotations, field):
    nodes(core, a="8")
    pod = member()
    pod.metadata.annotations = annotations
    with pytest.raises(GangError, match=field):
        gang_spec(info(pod))
    core.on_pod(None, pod)
    assert field in core.attempt().outcome.message()


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.sampled_from(["1", "2", "3"]), min_size=1, max_size=4),
    gangs=st.lists(
        st.tuples(st.integers(1, 4), st.integers(0, 2), st.sampled_from(["1", "2"]), st.sampled_from([0, 10])),
        min_size=1,
        max_size=4,
    ),
)
def test_never_part_of_a_gang_and_never_too_much_on_a_node(sizes, gangs):
    """Whatever the order: each gang has none or at least its minimum placed, and what could be placed is."""
    clock = FakeClock()
    core = SchedulerCore({"nodewright": Profile()}, clock)
    for index, cpu in enumerate(sizes):
        core.on_node(None, make_node(f"n{index}", cpu))
    for index, (minimum, extra, cpu, priority) in enumerate(gangs):
        for _ in range(minimum + extra):
            core.on_pod(None, member(f"g{index}", str(minimum), cpu, priority=priority))
    for _ in range(4):
        for _ in range(100):
            attempt = core.attempt()
            if attempt is None:
                break
            if attempt.preemption is not None:
                for victim in attempt.preemption.victims:
                    core.on_pod(victim.pod, None)
                core.evicted(attempt.pod.uid, complete=True)
        clock.advance(11)
    counts = {}
    for uid in core.state.pods:
        group = core.state.pods[uid][1].pod.metadata.labels[GROUP_LABEL]
        counts[group] = counts.get(group, 0) + 1
    state = core.state
    height = state.height
    assert (state.requested[0, :height] <= state.allocatable[0, :height]).all()
    evicted_any = any(priority for *_, priority in gangs) and not all(priority for *_, priority in gangs)
    for index, (minimum, *_) in enumerate(gangs):
        if not evicted_any:
            assert counts.get(f"g{index}", minimum) >= minimum


def test_a_member_whose_binding_failed_keeps_its_room(core, clock):
    nodes(core, a="3")
    for _ in range(3):
        core.on_pod(None, member())
    attempts = [core.attempt() for _ in range(3)]
    core.bind_failed(attempts[0].queued, retry=True)
    core.on_pod(None, make_pod("other", {"cpu": "1"}))
    assert isinstance(drain(core)["other"][0].outcome, Diagnosis)
    clock.advance(2)
    drain(core)
    assert attempts[0].pod.uid in placed(core)


def test_what_a_predecessor_placed_in_part_comes_first(core):
    nodes(core, a="4")
    early = [member("early", "2") for _ in range(2)]
    late = [member("late", "3", node="a"), *(member("late", "3") for _ in range(2))]
    for pod in (*early, *late):
        core.on_pod(None, pod)
    core.resume()
    drain(core)
    assert placed(core) == {pod.metadata.uid for pod in late[1:]}
