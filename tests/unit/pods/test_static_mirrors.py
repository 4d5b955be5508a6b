"""Static Pods' mirrors in the API."""

import asyncio
from types import SimpleNamespace

import msgspec
import pytest

from nodewright.kube.errors import AlreadyExists, ApiError, NotFound
from nodewright.kube.objects import Node, Pod, PodStatus
from nodewright_agent.pods.static.manifest import HASH, MIRROR
from nodewright_agent.pods.static.mirrors import MirrorPods
from unit.pods.pod_doubles import FakeSink
from unit.pods.static_files import static


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
