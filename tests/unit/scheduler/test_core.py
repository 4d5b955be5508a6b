"""The scheduler without I/O: what it assumes, what it takes back, and what it lets wait."""

import msgspec
import numpy as np
import pytest

from nodewright.scheduler.core import SchedulerCore, Skipped
from nodewright.scheduler.diagnosis import Diagnosis
from nodewright.scheduler.evaluator import Placement
from nodewright.scheduler.plugin import FilterResult, Plugin, PluginError, Scope
from nodewright.scheduler.profile import PluginRef, Plugins, PluginSet, Profile, ProfileConfig
from nodewright.scheduler.queue import SchedulingQueue
from nodewright.scheduler.registry import Registry
from support.scheduler_builders import FakeClock, make_node, make_pod


class Broken(Plugin):
    name = "Broken"
    scope = Scope.NODES

    def filter(self, ctx):
        if "broken" in ctx.pod.pod.metadata.labels:
            raise RuntimeError("out of luck")
        return


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def core(clock):
    return SchedulerCore({"nodewright": Profile()}, clock, SchedulingQueue(clock))


def profile_with(plugin, name="nodewright"):
    extra = Plugins(multi_point=PluginSet(enabled=[PluginRef(plugin.name)]))
    return Profile(ProfileConfig(scheduler_name=name, plugins=extra), Registry({plugin.name: plugin}))


def bound(pod, node):
    return msgspec.structs.replace(pod, spec=msgspec.structs.replace(pod.spec, node_name=node))


def cpu_used(core, node):
    return int(core.state.requested[0, core.state.rows[node]])


def test_a_placed_pod_counts_at_once(core):
    core.on_node(None, make_node("n", "1"))
    for name in ("a", "b"):
        core.on_pod(None, make_pod(name, {"cpu": "1"}, uid=name))
    assert core.attempt().outcome == Placement("n", 1, 1)
    assert isinstance(core.attempt().outcome, Diagnosis)
    assert core.attempt() is None
    assert cpu_used(core, "n") == 1000


def test_confirmation_by_the_watch_changes_nothing_but_the_assumption(core):
    pod = make_pod("a", {"cpu": "1"}, uid="a")
    core.on_node(None, make_node("n"))
    core.on_pod(None, pod)
    core.attempt()
    generation = core.state.pod_generation
    core.on_pod(pod, bound(pod, "n"))
    assert not core.assumed
    assert core.state.pod_generation == generation
    assert cpu_used(core, "n") == 1000


def test_a_failed_binding_gives_the_room_back_and_the_pod_another_try(core, clock):
    core.on_node(None, make_node("n", "1"))
    core.on_pod(None, make_pod("a", {"cpu": "1"}, uid="a"))
    attempt = core.attempt()
    core.bind_failed(attempt.queued, retry=True)
    assert cpu_used(core, "n") == 0
    assert core.attempt() is None  # backing off
    clock.advance(1)
    assert core.attempt().outcome == Placement("n", 1, 1)


def test_room_that_a_failed_binding_gives_back_wakes_the_next(core):
    core.on_node(None, make_node("n", "1"))
    core.on_pod(None, make_pod("a", {"cpu": "1"}, uid="a"))
    core.on_pod(None, make_pod("b", {"cpu": "1"}, uid="b"))
    first = core.attempt()
    assert isinstance(core.attempt().outcome, Diagnosis)
    core.bind_failed(first.queued, retry=False)
    again = core.attempt()
    assert again.pod.uid == "b"
    assert isinstance(again.outcome, Placement)


def test_a_binding_that_seemed_to_fail_but_shows_in_the_watch_stands(core):
    """The answer was lost after the server had stored the binding."""
    pod = make_pod("a", {"cpu": "1"}, uid="a")
    core.on_node(None, make_node("n", "1"))
    core.on_pod(None, pod)
    attempt = core.attempt()
    core.on_pod(pod, bound(pod, "n"))
    core.bind_failed(attempt.queued, retry=True)
    assert cpu_used(core, "n") == 1000
    assert core.attempt() is None
    assert "a" not in core.queue


def test_the_same_the_other_way_round(core):
    pod = make_pod("a", {"cpu": "1"}, uid="a")
    core.on_node(None, make_node("n", "1"))
    core.on_pod(None, pod)
    core.bind_failed(core.attempt().queued, retry=True)
    core.on_pod(pod, bound(pod, "n"))
    assert cpu_used(core, "n") == 1000
    assert "a" not in core.queue


def test_a_pod_that_somebody_else_bound_elsewhere_moves(core):
    pod = make_pod("a", {"cpu": "1"}, uid="a")
    for name in ("n1", "n2"):
        core.on_node(None, make_node(name))
    core.on_pod(None, pod)
    chosen = core.attempt().outcome.node
    other = "n1" if chosen == "n2" else "n2"
    core.on_pod(pod, bound(pod, other))
    assert (cpu_used(core, chosen), cpu_used(core, other)) == (0, 1000)
    assert not core.assumed


def test_a_deleted_pod_gives_its_room_to_one_that_waits(core):
    running = bound(make_pod("a", {"cpu": "1"}, uid="a"), "n")
    core.on_node(None, make_node("n", "1"))
    core.on_pod(None, running)
    core.on_pod(None, make_pod("b", {"cpu": "1"}, uid="b"))
    assert isinstance(core.attempt().outcome, Diagnosis)
    core.on_pod(running, None)
    assert core.attempt().outcome == Placement("n", 1, 1)


def test_a_finished_pod_gives_its_room_back(core):
    running = bound(make_pod("a", {"cpu": "1"}, uid="a"), "n")
    core.on_node(None, make_node("n", "1"))
    core.on_pod(None, running)
    done = msgspec.structs.replace(running, status=msgspec.structs.replace(running.status, phase="Succeeded"))
    core.on_pod(running, done)
    assert cpu_used(core, "n") == 0


def test_deletion_while_binding_is_under_way(core):
    pod = make_pod("a", {"cpu": "1"}, uid="a")
    core.on_node(None, make_node("n"))
    core.on_pod(None, pod)
    attempt = core.attempt()
    core.on_pod(pod, None)
    core.bind_failed(attempt.queued, retry=True)
    assert cpu_used(core, "n") == 0
    assert len(core.queue) == 0


def test_a_pod_recreated_under_the_same_name_is_another_pod(core):
    old, new = make_pod("a", {"cpu": "1"}, uid="old"), make_pod("a", {"cpu": "1"}, uid="new")
    core.on_node(None, make_node("n"))
    core.on_pod(None, old)
    first = core.attempt()
    core.on_pod(old, new)
    core.bind_failed(first.queued, retry=True)
    second = core.attempt()
    assert second.pod.uid == "new"
    assert list(core.assumed) == ["new"]
    assert cpu_used(core, "n") == 1000


def test_a_new_node_wakes_pods_that_it_may_help(core):
    core.on_node(None, make_node("n", "1"))
    core.on_pod(None, make_pod("a", {"cpu": "2"}, uid="a"))
    assert isinstance(core.attempt().outcome, Diagnosis)
    assert core.attempt() is None
    core.on_node(None, make_node("big", "4"))
    assert core.attempt().outcome.node == "big"


def test_without_nodes_pods_wait_for_one(core, clock):
    core.on_pod(None, make_pod("a", uid="a"))
    assert core.attempt().outcome.message() == "no nodes available to schedule pods"
    clock.advance(60)
    assert core.attempt() is None
    core.on_node(None, make_node("n"))
    assert isinstance(core.attempt().outcome, Placement)


def test_our_own_status_writes_do_not_wake_a_pod(core, clock):
    pod = make_pod("a", {"cpu": "9"}, uid="a")
    core.on_node(None, make_node("n"))
    core.on_pod(None, pod)
    core.attempt()
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "m"}
    written = msgspec.convert({**msgspec.to_builtins(pod), "status": {"conditions": [condition]}}, type(pod))
    clock.advance(60)
    core.on_pod(pod, written)
    assert core.attempt() is None
    assert core.queue.get("a").pod.pod is written


def test_a_changed_spec_is_worth_another_try(core, clock):
    pod = make_pod("a", {"cpu": "9"}, uid="a")
    core.on_node(None, make_node("n"))
    core.on_pod(None, pod)
    core.attempt()
    clock.advance(60)
    core.on_pod(pod, make_pod("a", {"cpu": "1"}, uid="a"))
    assert isinstance(core.attempt().outcome, Placement)


def test_a_plugin_that_raises_hurts_that_pod_only(clock):
    core = SchedulerCore({"nodewright": profile_with(Broken)}, clock)
    core.on_node(None, make_node("n"))
    core.on_pod(None, make_pod("bad", uid="bad", labels={"broken": "yes"}))
    core.on_pod(None, make_pod("good", uid="good"))
    bad, good = core.attempt(), core.attempt()
    assert isinstance(bad.outcome, PluginError)
    assert str(bad.outcome) == 'running "Broken" filter plugin: RuntimeError: out of luck'
    assert isinstance(good.outcome, Placement)
    assert core.queue.where("bad") == "backoff"


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (lambda ctx: np.zeros(len(ctx.nodes) + 1, dtype=np.int64), "shape"),
        (lambda ctx: np.full(len(ctx.nodes), 101, dtype=np.int64), "101 is not in the range of 0 to 100"),
        (lambda ctx: np.full(len(ctx.nodes), -1, dtype=np.int64), "-1 is not in the range of 0 to 100"),
    ],
)
def test_scores_that_make_no_sense_name_their_plugin(clock, answer, complaint):
    class Odd(Plugin):
        name = "Odd"

        def score(self, ctx):
            return answer(ctx)

    core = SchedulerCore({"nodewright": profile_with(Odd)}, clock)
    for name in ("a", "b"):
        core.on_node(None, make_node(name))
    core.on_pod(None, make_pod())
    outcome = core.attempt().outcome
    assert isinstance(outcome, PluginError)
    assert outcome.plugin == "Odd"
    assert complaint in str(outcome)


def test_a_plugin_that_looks_at_the_whole_cluster_is_asked_anew_each_time(clock):
    class NotTwice(Plugin):
        """No two Pods with the same label on neighbouring nodes: depends on every other node."""

        name = "NotTwice"

        def filter(self, ctx):
            busy = ctx.nodes.state.pod_count[: ctx.nodes.state.height] > 0
            return FilterResult(np.full(len(ctx.nodes), not busy.any()), "the cluster was not empty")

    core = SchedulerCore({"nodewright": profile_with(NotTwice)}, clock)
    for number in range(20):
        core.on_node(None, make_node(f"n{number}"))
    core.on_pod(None, make_pod())
    core.on_pod(None, make_pod())
    assert isinstance(core.attempt().outcome, Placement)
    message = core.attempt().outcome.message()
    assert message.startswith("0/20 nodes are available: 20 the cluster was not empty. ")


def test_pods_of_other_schedulers_are_counted_and_never_placed(core):
    core.on_node(None, make_node("n", "1"))
    core.on_pod(None, make_pod("theirs", {"cpu": "1"}, scheduler="other"))
    assert core.attempt() is None
    core.on_pod(None, make_pod("running", {"cpu": "1"}, scheduler="other", node="n"))
    assert cpu_used(core, "n") == 1000


def test_a_pod_under_deletion_is_dropped(core):
    core.on_node(None, make_node("n"))
    core.on_pod(None, make_pod("a", deleting=True))
    attempt = core.attempt()
    assert attempt.outcome == Skipped("skip schedule deleting pod: default/a")
    assert core.attempt() is None


def test_profiles_can_come_and_go(core):
    core.on_node(None, make_node("n"))
    pods = [make_pod("one", uid="one"), make_pod("two", uid="two", scheduler="fancy")]
    for pod in pods:
        core.on_pod(None, pod)
    core.set_profiles({"fancy": Profile(ProfileConfig(scheduler_name="fancy"))}, pods)
    assert core.profile("nodewright") is None
    attempt = core.attempt()
    assert (attempt.pod.uid, attempt.profile) == ("two", "fancy")
    assert core.attempt() is None


def test_a_node_that_cannot_be_read_takes_no_pods(core):
    core.on_node(None, make_node("n", "4"))
    core.on_node(make_node("n", "4"), make_node("n", "plenty"))
    core.on_pod(None, make_pod())
    assert core.attempt().outcome.message() == "no nodes available to schedule pods"


def test_equally_good_nodes_take_turns(core):
    for number in range(10):
        core.on_node(None, make_node(f"n{number}"))
    for number in range(10):
        core.on_pod(None, make_pod(f"p{number}", uid=f"p{number}"))
    assert len({core.attempt().outcome.node for _ in range(10)}) == 10
