"""What the manager says of workers that fail."""

from __future__ import annotations

import asyncio
from unittest.mock import AsyncMock, Mock

import msgspec
import pytest

from nodewright_agent.pods import manager as module
from nodewright_agent.pods.manager import PodManager
from nodewright_agent.pods.model import Instance, PodState
from nodewright_agent.pods.ports import Exit
from unit.pods.pod_doubles import make_pod


class Worker:
    """Fails, or works on, as the test says."""

    def __init__(self, pod, deps, state=None):
        self.pod, self.state, self.gone, self.settled = pod, state, False, False
        self.fail = asyncio.Event()

    @property
    def uid(self):
        return self.pod.metadata.uid

    async def run(self):
        await self.fail.wait()
        raise KeyError("x")

    def current(self):
        return self.pod

    def update(self, pod):
        self.pod = pod

    def remove(self):
        self.gone = True


@pytest.fixture
async def manager(monkeypatch):
    monkeypatch.setattr(module, "PodWorker", Worker)
    made = PodManager(Mock(), "n1", Mock(), Mock())
    yield made
    await made.close()


async def fail(manager, pod):
    """Let the pod's worker fail."""
    manager.workers[pod.metadata.uid].fail.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def test_a_failed_worker_is_known_until_the_pod_has_another(manager):
    pod = make_pod()
    manager._changed(None, pod)
    assert manager.failures == {}
    await fail(manager, pod)
    assert manager.failures == {pod.metadata.uid: f"pod {pod.key}: its worker failed: KeyError: 'x'"}
    manager._changed(pod, pod)
    assert manager.failures == {}


async def test_a_failed_worker_is_forgotten_with_its_pod(manager):
    pod = make_pod()
    manager._changed(None, pod)
    await fail(manager, pod)
    manager._changed(pod, None)
    assert manager.failures == {}
    manager._changed(None, pod)
    manager._changed(pod, None)
    await fail(manager, pod)
    assert manager.failures == {}, "what fails at a pod that is gone is nobody's trouble"


async def test_a_failed_worker_of_a_pod_that_the_api_never_knew_is_forgotten(manager):
    pod = make_pod()
    manager._begin(pod, None)
    await fail(manager, pod)
    manager._drop_unknown()
    assert manager.failures == {}


async def test_no_pod_is_judged_before_the_node_is_known(manager, monkeypatch):
    """Without the Node's labels a selector would match nothing, and a refusal is for good."""
    follow = AsyncMock()
    monkeypatch.setattr(manager.cache, "run", follow)
    monkeypatch.setattr(manager.cache, "wait_synced", AsyncMock())
    known = asyncio.Event()
    running = asyncio.create_task(manager.run({"uid-1": (make_pod(), PodState())}, {}, known.wait))
    await asyncio.sleep(0.01)
    assert list(manager.workers) == ["uid-1"], "what was there goes on meanwhile"
    follow.assert_not_called()
    known.set()
    await running
    follow.assert_awaited_once()


class Statics:
    """Notes what it hears."""

    def __init__(self):
        self.heard = []

    def mirrored(self, name, mirror):
        self.heard.append((name, mirror is not None))

    def ended(self, pod, *, failed):
        self.heard.append((pod.key, "failed" if failed else "ended"))


def marked(pod, **annotations):
    meta = msgspec.structs.replace(
        pod.metadata, annotations={f"kubernetes.io/config.{name}": value for name, value in annotations.items()}
    )
    return msgspec.structs.replace(pod, metadata=meta)


async def test_mirrors_get_no_worker_and_are_told_of(manager):
    manager.static = Statics()
    mirror = marked(make_pod(uid="m"), mirror="0123", source="file")
    manager._changed(None, mirror)
    manager._changed(mirror, None)
    theirs = make_pod(uid="u")
    manager._changed(mirror, theirs)  # deleted, and somebody made a pod of that name
    assert manager.static.heard == [("ns/pod", True), ("ns/pod", False), ("ns/pod", False)]
    assert list(manager.workers) == ["u"]
    manager._changed(theirs, mirror)
    assert manager.workers["u"].gone
    assert manager.static.heard[-1] == ("ns/pod", True)


async def test_the_api_does_not_drop_static_pods(manager):
    meta = msgspec.structs.replace(make_pod(uid="s").metadata, resource_version="")
    static = marked(msgspec.structs.replace(make_pod(uid="s"), metadata=meta), source="file")
    faked = marked(make_pod(uid="f"), source="file")
    for pod in (static, faked):
        manager._begin(pod, None)
    manager._drop_unknown()
    assert {uid: worker.gone for uid, worker in manager.workers.items()} == {"s": False, "f": True}
    manager.static = Statics()
    await fail(manager, static)
    assert manager.static.heard == [("ns/pod", "failed")]


async def test_a_static_pod_takes_up_what_was_left_without_a_record(manager):
    pod, state = make_pod(uid="s"), PodState()
    manager._orphans = {"s": (make_pod(uid="s", name="stand-in"), state)}
    manager.start_static(pod)
    assert manager.workers["s"].state is state
    assert manager.workers["s"].pod is pod
    assert manager._orphans == {}


async def test_an_end_counts_before_the_api_has_spoken_of_its_pod(manager):
    state = PodState()
    state.add(Instance("c1", "a", 0, state="running"))
    manager._orphans = {"s": (make_pod(uid="s", name="stand-in"), state)}
    manager._deps.owners = {}
    manager.exited("c1", Exit(3, 9.0))
    manager.exited("strange", Exit(1, 1.0))
    [run] = state.all_instances()
    assert (run.state, run.exit_code, run.finished_at, run.reason) == ("exited", 3, 9.0, "Error")
