"""The tie to the runtime: what the node is told of it."""

import asyncio
from types import SimpleNamespace

import grpc
import pytest

from nodewright_agent.config import AgentConfig
from nodewright_agent.cri import wire
from nodewright_agent.remote import link, watching
from nodewright_agent.remote.client import CallFailed
from nodewright_agent.remote.link import NETWORK, RUNTIME, Link

DOWN = CallFailed("connection refused", grpc.StatusCode.UNAVAILABLE)


class Keeper:
    def __init__(self):
        self.problems, self.history, self.listeners, self.node = {}, [], [], None

    def report(self, component, problem):
        self.problems[component] = problem
        self.history.append((component, problem))

    def on_change(self, listener):
        self.listeners.append(listener)


class Client:
    def __init__(self):
        self.down, self.network, self.cidrs = False, True, []

    async def runtime(self, method, *, deadline=0.0, **fields):
        if self.down:
            raise DOWN
        if method == "UpdateRuntimeConfig":
            self.cidrs.append(fields["runtime_config"]["network_config"]["pod_cidr"])
            return None
        if method == "Version":
            return wire.VersionResponse(runtime_name="containerd", runtime_version="1.6")
        answer = wire.StatusResponse()
        answer.status.conditions.add(type="RuntimeReady", status=True)
        answer.status.conditions.add(type="NetworkReady", status=self.network, reason="No", message="no cni")
        return answer


class Images:
    async def look(self):
        raise DOWN


class Watcher:
    woken, silence = 0, 0.0

    def silent(self):
        return self.silence

    async def run(self):
        await asyncio.Event().wait()

    def wake(self):
        self.woken += 1


async def until(there):
    async with asyncio.timeout(10):
        while not there():  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.005)


@pytest.fixture
async def tie(monkeypatch):
    monkeypatch.setattr(link, "PERIOD", 0.01)
    monkeypatch.setattr(link, "PATIENCE", 0.2)
    keeper, client, watcher, told, up = Keeper(), Client(), Watcher(), [], asyncio.Event()
    made = Link(client, watcher, Images(), keeper, AgentConfig(), told.append, up)
    task = asyncio.ensure_future(made.run())
    yield SimpleNamespace(link=made, keeper=keeper, client=client, watcher=watcher, told=told, up=up)
    task.cancel()


async def test_ready(tie):
    await tie.link.ready.wait()
    component, text = tie.keeper.history[0]
    assert component == NETWORK
    assert "status check may not have completed yet" in text
    assert tie.keeper.problems == {RUNTIME: None, NETWORK: None}
    assert tie.told[-1].described == "containerd://1.6"


async def test_the_network_is_not_ready(tie):
    await tie.link.ready.wait()
    tie.client.network = False
    text = "container runtime network not ready: NetworkReady=false reason:No message:no cni"
    await until(lambda: tie.keeper.problems[NETWORK] == text)


async def test_down_and_up_again(tie):
    tie.keeper.node = SimpleNamespace(spec=SimpleNamespace(pod_cidr="10.1.0.0/24"))
    await until(lambda: tie.client.cidrs == ["10.1.0.0/24"])
    tie.client.down = True
    await until(lambda: tie.keeper.problems[RUNTIME] == "container runtime is down")
    assert not tie.up.is_set()
    tie.client.down = False
    await until(lambda: tie.keeper.problems[RUNTIME] is None)
    assert tie.watcher.woken == 1
    assert tie.up.is_set()
    assert tie.client.cidrs == ["10.1.0.0/24"] * 2  # another runtime may have come


async def test_a_restart_of_the_runtime_does_not_make_the_node_unready(tie, monkeypatch):
    await tie.link.ready.wait()
    monkeypatch.setattr(link, "PATIENCE", 1000.0)
    tie.client.down = True
    await until(lambda: not tie.up.is_set())  # what needs the runtime waits from now on
    await asyncio.sleep(0.05)
    tie.client.down = False
    await until(tie.up.is_set)
    assert (RUNTIME, link.DOWN) not in tie.keeper.history


async def test_a_runtime_that_answers_but_tells_no_containers_is_not_well(tie):
    await tie.link.ready.wait()
    tie.watcher.silence = 200.0
    text = "container runtime not ready: it has not told of its containers for 200 seconds"
    await until(lambda: tie.keeper.problems[RUNTIME] == text)
    tie.watcher.silence = 1.0
    await until(lambda: tie.keeper.problems[RUNTIME] is None)


class Picture:
    """Counts looks; ``ended`` is what a container's end was asked for."""

    def __init__(self):
        self.looks, self.refreshed, self.whole, self.hangs = 0, [], True, False

    async def look(self):
        self.looks += 1
        return self.whole

    def find(self, cid):
        return SimpleNamespace(exit=None) if cid == "known" else None

    async def refresh(self, cid):
        self.refreshed.append(cid)
        if self.hangs:
            await asyncio.Event().wait()


class Telling:
    """Tells events, and then ends the stream; or has no such call."""

    def __init__(self, *events, code=None):
        self.told, self.code = list(events), code

    async def events(self):
        if self.code is not None:
            raise CallFailed("no", self.code)
        for cid, kind in self.told:
            yield wire.ContainerEventResponse(container_id=cid, container_event_type=kind)
        self.told = []
        await asyncio.sleep(1000)


async def test_events_are_asked_after_at_once(monkeypatch):
    monkeypatch.setattr(watching, "PERIOD", 0.01)
    picture = Picture()
    client = Telling(
        ("known", wire.CONTAINER_STARTED_EVENT), ("known", wire.CONTAINER_STOPPED_EVENT),
        ("strange", wire.CONTAINER_STOPPED_EVENT),
    )  # fmt: skip
    watcher = watching.Watcher(client, picture)
    task = asyncio.ensure_future(watcher.run())
    await until(lambda: picture.refreshed == ["known"])
    await until(lambda: watcher._period == watching.PERIOD_WITH_EVENTS)
    await asyncio.sleep(0.05)
    before = picture.looks
    await asyncio.sleep(0.1)
    assert picture.looks == before
    watcher.wake()
    await until(lambda: picture.looks == before + 1)
    task.cancel()


async def test_a_runtime_that_falls_silent_is_asked_how_it_is_at_once(monkeypatch):
    monkeypatch.setattr(watching, "PERIOD", 0.01)
    picture, heard = Picture(), []

    async def look():
        picture.looks += 1
        raise DOWN

    picture.look = look
    watcher = watching.Watcher(Telling(), picture)
    watcher.on_silence = lambda: heard.append(picture.looks)
    task = asyncio.ensure_future(watcher.run())
    await until(lambda: picture.looks > 3)
    assert heard == [1]
    task.cancel()


async def test_without_events_it_looks_each_second(monkeypatch):
    monkeypatch.setattr(watching, "PERIOD", 0.01)
    picture = Picture()
    watcher = watching.Watcher(Telling(code=grpc.StatusCode.UNIMPLEMENTED), picture)
    task = asyncio.ensure_future(watcher.run())
    await until(lambda: picture.looks > 5)
    task.cancel()


async def test_what_the_runtime_does_not_tell_is_asked_again_soon(monkeypatch):
    monkeypatch.setattr(watching, "PERIOD", 0.01)
    picture = Picture()
    picture.whole = False
    watcher = watching.Watcher(Telling(), picture)
    task = asyncio.ensure_future(watcher.run())
    await until(lambda: watcher._period == watching.PERIOD_WITH_EVENTS)
    before = picture.looks
    await until(lambda: picture.looks > before + 5)
    task.cancel()


async def test_an_answer_that_is_late_holds_up_no_other_end(monkeypatch):
    picture = Picture()
    picture.hangs = True
    watcher = watching.Watcher(Telling(*[("known", wire.CONTAINER_STOPPED_EVENT)] * 2), picture)
    task = asyncio.ensure_future(watcher.run())
    await until(lambda: picture.refreshed == ["known"] * 2)
    task.cancel()


async def test_events_that_cannot_be_relied_on_are_not_listened_to(monkeypatch):
    monkeypatch.setattr(watching, "PERIOD", 0.01)
    picture = Picture()
    watcher = watching.Watcher(Telling(("known", wire.CONTAINER_STOPPED_EVENT)), picture, events=False)
    task = asyncio.ensure_future(watcher.run())
    await until(lambda: picture.looks > 5)
    assert picture.refreshed == []
    task.cancel()
