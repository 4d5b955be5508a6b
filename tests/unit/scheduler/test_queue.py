"""Who is next, how long a failed Pod waits, and what wakes it."""

import pytest

from nodewright.scheduler.events import Event
from nodewright.scheduler.queue import SchedulingQueue
from support.scheduler_builders import FakeClock, info, make_pod


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def queue(clock):
    return SchedulingQueue(clock)


def add(queue, name, **spec):
    pod = info(make_pod(name, uid=name, **spec))
    queue.add(pod)
    return pod


def pop(queue):
    queued = queue.pop()
    return queued.pod.uid if queued else None


def fail(queue, wakers=Event.NODE_ADD):
    queued = queue.pop()
    queue.put_unschedulable(queued, wakers)
    return queued


def test_priority_first_then_age(queue, clock):
    for name, priority in (("a", 0), ("b", 10), ("c", 0), ("d", 10)):
        add(queue, name, priority=priority)
        clock.advance(1)
    assert [pop(queue) for _ in range(5)] == ["b", "d", "a", "c", None]
    assert len(queue) == 0


def test_pods_of_the_same_moment_keep_their_order(queue):
    for name in "abc":
        add(queue, name)
    assert [pop(queue) for _ in range(3)] == ["a", "b", "c"]


def test_a_gated_pod_waits_until_its_gates_are_gone(queue):
    add(queue, "a", schedulingGates=[{"name": "example.com/wait"}])
    assert queue.where("a") == "gated"
    assert queue.next_wake() is None
    assert not queue.on_event(Event.ANY)
    assert pop(queue) is None
    queue.update(info(make_pod("a", uid="a")))
    assert queue.where("a") == "active"
    assert pop(queue) == "a"


def test_only_the_events_that_a_rejecting_plugin_named_wake_a_pod(queue, clock):
    add(queue, "a")
    fail(queue, Event.NODE_ADD | Event.POD_DELETE)
    clock.advance(60)
    assert not queue.on_event(Event.NODE_LABEL)
    assert queue.where("a") == "unschedulable"
    assert queue.on_event(Event.POD_DELETE)
    assert queue.where("a") == "active"


def test_a_woken_pod_serves_the_rest_of_its_backoff(queue, clock):
    add(queue, "a")
    add(queue, "busy", priority=5)
    fail(queue)  # busy
    fail(queue)  # a
    assert queue.on_event(Event.NODE_ADD)
    assert queue.where("a") == "backoff"
    assert queue.next_wake() == clock.now + 1
    clock.advance(1)
    queue.flush()
    assert queue.where("a") == "active"


def test_backoff_doubles_up_to_ten_seconds(queue, clock):
    add(queue, "a")
    waits = []
    for _ in range(6):
        queued = queue.pop()
        queue.put_unschedulable(queued, Event.NODE_ADD)
        waits.append(queue.backoff_ends(queued) - clock.now)
        clock.advance(20)
        queue.on_event(Event.NODE_ADD)
    assert waits == [1, 2, 4, 8, 10, 10]


def test_errors_are_counted_apart_and_do_not_jump_the_queue(queue, clock):
    add(queue, "a")
    queued = queue.pop()
    queue.put_error(queued)
    assert queue.where("a") == "backoff"
    assert pop(queue) is None
    clock.advance(1)
    assert pop(queue) == "a"
    queue.put_error(queued)
    assert queue.backoff_ends(queued) - clock.now == 2
    clock.advance(2)
    queue.put_unschedulable(queue.pop(), Event.NODE_ADD)
    assert queue.backoff_ends(queued) - clock.now == 1  # unschedulable once, and the errors are over


def test_backoff_ends_on_whole_seconds_and_priority_decides_within_one(queue, clock):
    clock.now = 1000.2
    add(queue, "low")
    clock.advance(0.1)
    fail(queue)
    add(queue, "high", priority=9)
    clock.advance(0.5)
    fail(queue)
    queue.on_event(Event.NODE_ADD)
    assert queue.next_wake() == 1001
    clock.now = 1001
    assert [pop(queue), pop(queue)] == ["high", "low"]


def test_an_idle_scheduler_does_not_wait_for_a_backoff(queue):
    add(queue, "a")
    fail(queue)
    queue.on_event(Event.NODE_ADD)
    assert queue.where("a") == "backoff"
    assert pop(queue) == "a"


def test_nobody_waits_for_an_event_longer_than_five_minutes(queue, clock):
    add(queue, "a")
    fail(queue)
    wake = queue.next_wake()
    assert wake is not None
    assert clock.now + 300 <= wake < clock.now + 330
    clock.now = wake
    assert pop(queue) == "a"


def test_a_pod_that_nothing_can_wake_is_tried_after_its_backoff(queue, clock):
    add(queue, "a")
    fail(queue, Event.NONE)
    assert queue.where("a") == "backoff"


def test_deleted_pods_are_gone_wherever_they_wait(queue):
    for name in "abc":
        add(queue, name)
    fail(queue)
    queue.put_error(queue.pop())
    for name in "abc":
        queue.delete(name)
    assert pop(queue) is None
    assert set(queue.counts().values()) == {0}
    assert queue.next_wake() is None


def test_a_changed_pod_replaces_the_old_one_without_a_second_entry(queue):
    add(queue, "a")
    newer = add(queue, "a", priority=7)
    queued = queue.pop()
    assert queued.pod is newer
    assert pop(queue) is None


def test_history_survives_requeueing(queue, clock):
    add(queue, "a")
    first = clock.now
    for _ in range(3):
        queue.put_unschedulable(queue.pop(), Event.NODE_ADD)
        clock.advance(30)
        queue.on_event(Event.NODE_ADD)
    queued = queue.pop()
    assert (queued.attempts, queued.first_attempt, queued.unschedulable_count) == (4, first, 3)


def test_counts_and_the_record_of_arrivals(clock):
    arrivals = []
    queue = SchedulingQueue(clock, on_incoming=lambda place, event: arrivals.append((place, event)))
    for name in "ab":
        add(queue, name)
    fail(queue)
    assert queue.counts() == {"active": 1, "backoff": 0, "unschedulable": 1, "gated": 0}
    clock.advance(5)
    queue.on_event(Event.NODE_ADD)
    assert arrivals == [
        ("active", "UnschedulablePodAdd"),
        ("active", "UnschedulablePodAdd"),
        ("unschedulable", "ScheduleAttemptFailure"),
        ("active", "NodeAdd"),
    ]


def test_a_preferred_pod_goes_before_older_ones_of_its_priority(queue, clock):
    for name, priority in (("a", 0), ("b", 0), ("c", 5)):
        add(queue, name, priority=priority)
        clock.advance(1)
    queue.prefer("b")
    queue.prefer("nobody")
    assert [pop(queue) for _ in range(3)] == ["c", "b", "a"]


def test_the_time_of_waiting_begins_when_a_pod_can_first_be_tried(queue, clock):
    add(queue, "a")
    gated = add(queue, "b", schedulingGates=[{"name": "g"}])
    clock.advance(7)
    assert queue.pop().first_attempt == clock.now - 7
    assert queue.get("b").first_attempt is None
    queue.update(info(make_pod("b", uid=gated.uid)))
    assert queue.pop().first_attempt == clock.now


def test_pods_tried_again_for_having_waited_too_long_are_marked(queue, clock):
    add(queue, "a")
    fail(queue)
    clock.advance(301)
    queued = queue.pop()
    assert queued.flushed
    queue.put_unschedulable(queued, Event.NODE_ADD)
    clock.advance(20)
    queue.on_event(Event.NODE_ADD)
    assert not queue.pop().flushed
