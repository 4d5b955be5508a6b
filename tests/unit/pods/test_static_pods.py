"""Static Pods: files that come, go and are wrong; one Pod of a name at a time; mirrors in the API."""

import asyncio
import os
from types import SimpleNamespace

import msgspec
import pytest

from nodewright.kube.errors import AlreadyExists, ApiError, NotFound
from nodewright.kube.objects import Node, Pod, PodStatus
from nodewright_agent.pods.model import PodState, Termination
from nodewright_agent.pods.static import folder as folders
from nodewright_agent.pods.static.folder import Folder, Reading
from nodewright_agent.pods.static.manager import StaticPods
from nodewright_agent.pods.static.manifest import HASH, MIRROR, parse
from nodewright_agent.pods.static.mirrors import MirrorPods
from unit.pods.pod_doubles import FakeSink, make_pod, scenario


def text(name="web", image="demo", more=""):
    spec = f"{{containers: [{{name: m, image: {image}}}]}}"
    return f"{{apiVersion: v1, kind: Pod, metadata: {{name: {name}{more}}}, spec: {spec}}}"


def static(name="web", image="demo", more="", file=None):
    return parse(text(name, image, more).encode(), file or f"/m/{name}.yaml", "node", "now")


# Files.


class Followed:
    """A folder that is followed, its readings, and what it told."""

    def __init__(self, path):
        self.told: list[str] = []
        self.readings: asyncio.Queue[Reading] = asyncio.Queue()
        self.folder = Folder(path, "node", lambda: "now", self.told.append)
        self.task = asyncio.create_task(self.folder.run(self.readings.put_nowait))

    async def until(self, wanted):
        """Wait for the reading with these Pods, and give it; what was removed in between is in it too."""
        removed: set[str] = set()
        async with asyncio.timeout(10):
            while True:
                reading = await self.readings.get()
                removed |= reading.removed
                found = {(one.pod.metadata.name.removesuffix("-node"), one.pod.spec.containers[0].image)
                         for one in reading.pods}  # fmt: skip
                if found == wanted:
                    return reading, removed

    async def close(self):
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@pytest.fixture
async def follow(monkeypatch):
    monkeypatch.setattr(folders, "DOUBT", 0.05)
    made: list[Followed] = []

    def begin(path) -> Followed:
        made.append(Followed(path))
        return made[-1]

    yield begin
    for one in made:
        await one.close()


async def test_files_come_change_and_go(follow, tmp_path):
    (tmp_path / "a.yaml").write_text(text("a"))
    (tmp_path / ".hidden.yaml").write_text(text("hidden"))
    (tmp_path / "folder").mkdir()
    one = follow(tmp_path)
    await one.until({("a", "demo")})
    (tmp_path / "b.json").write_text(text("b"))
    await one.until({("a", "demo"), ("b", "demo")})
    (tmp_path / "new").write_text(text("a", "other"))
    os.replace(tmp_path / "new", tmp_path / "a.yaml")
    await one.until({("a", "other"), ("b", "demo")})
    (tmp_path / "b.json").unlink()
    _, removed = await one.until({("a", "other")})
    assert "default/b-node" in removed
    assert one.told == []


async def test_a_file_removed_and_written_again_was_removed(follow, tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(text("a"))
    one = follow(tmp_path)
    await one.until({("a", "demo")})
    path.unlink()
    path.write_text(text("a"))
    _, removed = await one.until({("a", "demo")})
    assert removed == {"default/a-node"}


async def test_a_bad_file_is_told_once_and_keeps_its_pod(follow, tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(text("a"))
    one = follow(tmp_path)
    await one.until({("a", "demo")})
    path.write_text("{")
    reading, removed = await one.until({("a", "demo")})
    assert not reading.whole
    assert not removed
    await one.until({("a", "demo")})  # looked at again after a moment of doubt
    (tmp_path / "b.yaml").write_text(text("b"))
    await one.until({("a", "demo"), ("b", "demo")})
    assert len(one.told) == 1
    assert one.told[0].startswith(f"Could not process manifest file {path}: couldn't parse as pod")
    path.write_text(text("a", "mended"))
    reading, _ = await one.until({("a", "mended"), ("b", "demo")})
    assert reading.whole


async def test_two_files_of_one_name(follow, tmp_path):
    (tmp_path / "1.yaml").write_text(text("a", "first"))
    (tmp_path / "2.yaml").write_text(text("a", "second"))
    one = follow(tmp_path)
    await one.until({("a", "first")})
    await one.until({("a", "first")})
    assert "duplicate pod name 'a-node', ignoring" in one.told[0]
    (tmp_path / "1.yaml").unlink()
    await one.until({("a", "second")})


async def test_a_folder_that_comes_later_goes_and_comes_back(follow, tmp_path):
    path = tmp_path / "etc" / "manifests"
    one = follow(path)
    await one.until(set())
    path.mkdir(parents=True)
    (path / "a.yaml").write_text(text("a"))
    await one.until({("a", "demo")})
    (path / "a.yaml").unlink()
    path.rmdir()
    await one.until(set())
    path.mkdir()
    (path / "a.yaml").write_text(text("a"))
    await one.until({("a", "demo")})


async def test_a_single_file(follow, tmp_path):
    path = tmp_path / "pod.yaml"
    one = follow(path)
    await one.until(set())
    (tmp_path / "other.yaml").write_text(text("other"))
    path.write_text(text("a"))
    await one.until({("a", "demo")})
    path.unlink()
    await one.until(set())


async def test_without_inotify_files_are_looked_at_every_so_often(follow, tmp_path, monkeypatch):
    def none(heard):
        raise OSError(24, "too many")

    monkeypatch.setattr(folders, "FolderWatch", none)
    monkeypatch.setattr(folders, "CHECK", 0.05)
    one = follow(tmp_path)
    await one.until(set())
    (tmp_path / "a.yaml").write_text(text("a"))
    await one.until({("a", "demo")})


# Which Pods run.


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


# The worker of a static Pod.


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


# Mirrors.


class Api:
    """Pods by name, as an API server keeps them; answers can be made to fail."""

    def __init__(self):
        self.pods: dict[str, Pod] = {}
        self.calls: list[str] = []
        self.failures: list[Exception] = []
        self.version = 10

    def _answer(self, call):
        self.calls.append(call)
        if self.failures:
            raise self.failures.pop(0)

    def put(self, body):
        self.version += 1
        pod = msgspec.convert(body, Pod)
        pod.metadata.uid, pod.metadata.resource_version = f"api-{self.version}", str(self.version)
        self.pods[pod.key] = pod
        return pod

    async def create(self, _res, body, _namespace, *, type):
        await asyncio.sleep(0)
        meta = body["metadata"]
        self._answer("create")
        if f"{meta['namespace']}/{meta['name']}" in self.pods:
            raise AlreadyExists(409, "AlreadyExists", "exists")
        return self.put(body)

    async def get(self, _res, name, namespace, *, type):
        self._answer("get")
        return self.pods[f"{namespace}/{name}"]

    async def delete(self, _res, name, namespace, *, grace_period_seconds, uid):
        await asyncio.sleep(0)
        assert grace_period_seconds == 0
        self._answer("delete")
        if f"{namespace}/{name}" not in self.pods:
            raise NotFound(404, "NotFound", "gone")
        assert self.pods[f"{namespace}/{name}"].metadata.uid == uid
        del self.pods[f"{namespace}/{name}"]


@pytest.fixture
async def mirrored(monkeypatch):
    monkeypatch.setattr("nodewright_agent.pods.static.mirrors.RETRY_FIRST", 0.01)
    api, sink = Api(), FakeSinkOfPods()
    node = msgspec.convert({"metadata": {"name": "node", "uid": "node-uid"}}, Node)
    made = MirrorPods(api, sink, lambda: node, SimpleNamespace(event=lambda *words: sink.told.append(words[2:])))
    yield SimpleNamespace(api=api, sink=sink, mirrors=made)
    await made.close()


class FakeSinkOfPods(FakeSink):
    def __init__(self):
        self.pods, self.told, self.forgotten = [], [], []

    def publish(self, pod, status, *, lazy=False):
        self.pods.append((pod.metadata.uid, status.phase))

    def forget(self, uid):
        self.forgotten.append(uid)


async def settle(mirrors):
    async with asyncio.timeout(5):
        while mirrors._tasks:
            await asyncio.gather(*mirrors._tasks.values())
            await asyncio.sleep(0)


async def test_a_mirror_is_as_the_node_restriction_wants_it_and_gets_the_status(mirrored):
    one = static()
    mirrored.mirrors.publish(one.pod, PodStatus(phase="Pending"))
    mirrored.mirrors.show(one)
    await settle(mirrored.mirrors)
    made = mirrored.api.pods[one.name]
    assert made.metadata.annotations[MIRROR] == made.metadata.annotations[HASH] == one.pod.metadata.uid
    assert [(o.kind, o.uid, o.controller, o.block_owner_deletion) for o in made.metadata.owner_references] == [
        ("Node", "node-uid", True, None)
    ]
    mirrored.mirrors.seen(one.name, made)
    mirrored.mirrors.publish(one.pod, PodStatus(phase="Running"))
    assert mirrored.sink.pods == [(made.metadata.uid, "Pending"), (made.metadata.uid, "Running")]
    assert mirrored.api.calls == ["create"]


async def test_a_mirror_that_somebody_deletes_comes_back(mirrored):
    one = static()
    mirrored.mirrors.ready()
    mirrored.mirrors.publish(one.pod, PodStatus(phase="Running"))
    mirrored.mirrors.show(one)
    await settle(mirrored.mirrors)
    first = mirrored.api.pods.pop(one.name)
    mirrored.mirrors.seen(one.name, None)
    await settle(mirrored.mirrors)
    second = mirrored.api.pods[one.name]
    assert mirrored.sink.pods == [(first.metadata.uid, "Running"), (second.metadata.uid, "Running")]
    assert mirrored.sink.forgotten == [first.metadata.uid]
    dying = msgspec.structs.replace(second.metadata, deletion_timestamp="now", resource_version="99")
    mirrored.mirrors.seen(one.name, msgspec.structs.replace(second, metadata=dying))  # with a grace period
    await settle(mirrored.mirrors)
    assert mirrored.api.calls == ["create", "create", "delete", "create"]
    assert mirrored.api.pods[one.name].metadata.uid != second.metadata.uid


async def test_mirrors_of_nothing_go_once_the_files_are_known(mirrored):
    old, left = static("a"), static("b")
    for one in (old, left):
        body = {**one.body, "metadata": {**one.body["metadata"]}}
        body["metadata"]["annotations"] = {**body["metadata"]["annotations"], MIRROR: one.pod.metadata.uid}
        mirrored.mirrors.seen(one.name, mirrored.api.put(body))
    await settle(mirrored.mirrors)
    assert mirrored.api.calls == []
    mirrored.mirrors.keep(left.pod)  # it still ends
    mirrored.mirrors.ready()
    await settle(mirrored.mirrors)
    assert list(mirrored.api.pods) == [left.name]
    mirrored.mirrors.hide(left.pod)
    await settle(mirrored.mirrors)
    assert mirrored.api.pods == {}


async def test_the_next_pod_gets_another_mirror_also_with_the_same_hash(mirrored):
    one = static()
    mirrored.mirrors.ready()
    mirrored.mirrors.show(one)
    await settle(mirrored.mirrors)
    first = mirrored.api.pods[one.name].metadata.uid
    mirrored.mirrors.hide(one.pod)
    mirrored.mirrors.show(static())
    await settle(mirrored.mirrors)
    assert mirrored.api.pods[one.name].metadata.uid != first


async def test_a_refused_mirror_is_told_and_tried_again(mirrored):
    one = static()
    mirrored.api.failures = [
        ApiError(403, "Forbidden", "no"),
        ApiError(403, "Forbidden", "no"),
        NotFound(404, "", "ns"),
    ]
    mirrored.mirrors.show(one)
    await settle(mirrored.mirrors)
    assert one.name in mirrored.api.pods
    assert [(reason, message.partition(": ")[2]) for reason, message in mirrored.sink.told] == [
        ("FailedMirrorPod", "no"),
        ("FailedMirrorPod", "ns"),
    ]


async def test_a_mirror_whose_answer_was_lost_is_taken(mirrored):
    one = static()
    body = {**one.body, "metadata": {**one.body["metadata"]}}
    body["metadata"]["annotations"] = {**body["metadata"]["annotations"], MIRROR: one.pod.metadata.uid}
    there = mirrored.api.put(body)
    mirrored.mirrors.show(one)
    await settle(mirrored.mirrors)
    assert mirrored.api.calls == ["create", "get"]
    assert mirrored.api.pods[one.name] is there


async def test_other_pods_of_the_api_are_left_alone(mirrored):
    """Somebody made a Pod of that name: it is theirs, and the static Pod has no mirror until it is gone."""
    one = static()
    theirs = {"metadata": {"name": "web-node", "namespace": "default"}, "spec": {"nodeName": "x", "containers": []}}
    mirrored.api.put(theirs)
    mirrored.mirrors.show(one)
    for _ in range(20):
        await asyncio.sleep(0)
    assert mirrored.api.pods[one.name].spec.node_name == "x"
    assert "delete" not in mirrored.api.calls
