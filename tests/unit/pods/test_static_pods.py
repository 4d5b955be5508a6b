"""Which static Pods run: one of a name at a time, and what an earlier agent left."""

import asyncio
from types import SimpleNamespace

import pytest

from nodewright_agent.pods.model import PodState, Termination
from nodewright_agent.pods.static.folder import Reading
from nodewright_agent.pods.static.manager import StaticPods
from unit.pods.pod_doubles import make_pod, scenario
from unit.pods.static_files import static


class Worker:
    def __init__(self, pod):
        self.pod, self.uid, self.retiring, self.kept = pod, pod.metadata.uid, False, None
        self.state = PodState()

    def retire(self, *, keep_logs):
        assert not self.retiring
        self.retiring, self.kept = True, keep_logs


class Node_:
    """A node whose workers end when the test says so."""

    def __init__(self, *left):
        self.workers = {pod.metadata.uid: Worker(pod) for pod in left}
        self.withdrawn: list[str] = []
        self.mirrors: list[str] = []
        self.static = StaticPods(SimpleNamespace(), self, self)
        self.full = False

    def start_static(self, pod):
        if not self.full:
            assert pod.metadata.uid not in self.workers
            self.workers[pod.metadata.uid] = Worker(pod)

    def withdraw(self, uid):
        self.withdrawn.append(uid)

    def show(self, one):
        self.mirrors.append(f"show {one.pod.spec.containers[0].image}")

    def keep(self, pod):
        self.mirrors.append(f"keep {pod.key}")

    def hide(self, pod):
        self.mirrors.append(f"hide {pod.spec.containers[0].image}")

    def ready(self):
        self.mirrors.append("ready")

    def read(self, *pods, removed=(), whole=True):
        self.static._take(Reading(list(pods), frozenset(removed), whole))

    def end(self, one, failed=False):
        self.static.ended(self.workers.pop(one.pod.metadata.uid).pod, failed=failed)

    def images(self):
        return {one.pod.spec.containers[0].image: one.retiring for one in self.workers.values()}


def test_a_changed_pod_ends_before_the_next_one_starts_and_the_last_change_wins():
    node, first, second, third = Node_(), static(), static(image="second"), static(image="third")
    node.read(first)
    node.read(second)
    assert node.images() == {"demo": True}
    node.read(third)
    assert node.images() == {"demo": True}
    node.end(first)
    assert node.images() == {"third": False}
    assert node.mirrors == ["show demo", "ready", "hide demo", "show third"]


def test_a_change_that_is_taken_back_while_the_pod_ends_begins_it_again():
    node, first = Node_(), static()
    node.read(first)
    node.read(static(image="second"))
    node.read(first)
    node.end(first)
    assert node.images() == {"demo": False}


def test_removed_and_written_again_is_one_restart_that_counts_on():
    node, first = Node_(), static()
    node.read(first)
    node.read(first, removed=[first.name])
    assert node.images() == {"demo": True}
    assert node.workers[first.pod.metadata.uid].kept is True
    node.end(first)
    assert node.images() == {"demo": False}
    node.read(first)
    assert node.images() == {"demo": False}


def test_a_uid_of_the_files_own_does_not_hide_changes():
    first, second = static(more=", uid: mine"), static(image="second", more=", uid: mine")
    node = Node_()
    node.read(first)
    node.read(second)
    node.end(first)
    assert node.images() == {"second": False}


def test_what_an_earlier_agent_left_goes_on_or_ends():
    going, gone = static("a"), static("b")
    node = Node_(going.pod, gone.pod, make_pod(uid="of the API", name="x"))
    node.read(going)
    assert [one.retiring for one in node.workers.values()] == [False, True, False]
    assert node.mirrors == ["keep default/a-node", "keep default/b-node", "show demo", "ready"]


@pytest.mark.parametrize(
    ("reason", "refused", "again"),
    [("Terminated", False, True), ("NodePorts", True, True), ("DeadlineExceeded", False, False), ("", False, False)],
)
def test_what_the_node_had_ended_begins_anew_with_the_next_agent(reason, refused, again):
    """Its shutdown, an eviction, a refusal; not what ended by itself."""
    left = static("a")
    node = Node_(left.pod)
    node.workers[left.pod.metadata.uid].state.termination = Termination(1, 2, reason, "", "Failed", refused=refused)
    node.read(left)
    assert node.images() == {"demo": again}
    if again:
        node.end(left)
        assert node.images() == {"demo": False}


def test_what_an_earlier_agent_left_stays_while_a_file_cannot_be_read():
    left = static("a")
    node = Node_(left.pod)
    node.read(whole=False)
    assert node.images() == {"demo": False}
    node.read(whole=True)
    assert node.images() == {"demo": True}


def test_a_worker_that_failed_is_not_begun_again_until_the_file_changes():
    node, first = Node_(), static()
    node.read(first)
    node.end(first, failed=True)
    assert node.images() == {}
    node.read(static(image="second"))
    assert node.images() == {"second": False}


def test_a_pod_that_waits_for_room_can_be_withdrawn():
    node, first = Node_(), static()
    node.full = True
    node.read(first)
    node.read()
    assert node.withdrawn == [first.pod.metadata.uid]
    assert node.mirrors[-1] == "hide demo"


def test_a_static_pod_ends_in_its_grace_without_anybodys_word():
    pod = static().pod

    @scenario(pod)
    async def _(rig):
        rig.operations.ignore_term = {"m"}
        await asyncio.sleep(5)
        assert rig.status.phase == "Running"
        rig.worker.retire(keep_logs=True)
        await asyncio.sleep(29)
        assert "kill m" not in rig.operations.calls
        await asyncio.sleep(3)
        assert rig.task.done()
        assert rig.operations.calls[-3:] == ["kill m", "teardown", "forget but logs"]
