"""The keeper of the Node object with an API that only answers patches."""

import asyncio

import msgspec
import pytest

from nodewright.kube.errors import NotFound
from nodewright.kube.objects import Node, NodeCondition, NodeStatus, ObjectMeta
from nodewright_agent import config as settings
from nodewright_agent.bootstrap.clients import Clients
from nodewright_agent.node import keeper as module
from nodewright_agent.node.keeper import NodeKeeper


class Api:
    def __init__(self):
        self.posted = asyncio.Queue()
        self.created = asyncio.Event()
        self.gone = False

    async def patch(self, res, name, body, *, type, kind, subresource):
        if self.gone:
            raise NotFound(404, "NotFound", name)
        node = node_with(body["status"]["conditions"], 11)
        self.posted.put_nowait(node)
        return node

    async def create(self, res, made, *, type):
        self.created.set()
        return made


class Events:
    def event(self, *args):
        pass


def node_with(conditions, version):
    meta = ObjectMeta(name="n1", uid="u", resource_version=str(version))
    return Node(metadata=meta, status=NodeStatus(conditions=msgspec.convert(conditions, list[NodeCondition])))


async def test_unknown_by_the_node_controller_is_answered_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "STATUS_INTERVAL", 3600.0)
    api = Api()
    config = settings.load(None, node_name="n1", node_ip="192.0.2.1", state_dir=str(tmp_path))
    keeper = NodeKeeper(Clients(api, api), config, Events(), list, lambda: 1000.0)
    keeper.node = node_with([], 1)
    task = asyncio.create_task(keeper._keep_status())
    try:
        ours = await api.posted.get()
        doubt = [msgspec.structs.replace(one, status="Unknown") for one in ours.status.conditions]
        keeper._seen(ours, node_with(msgspec.to_builtins(doubt), 12))
        async with asyncio.timeout(30):
            answer = await api.posted.get()
        assert {one.status for one in answer.status.conditions if one.type == "Ready"} == {"True"}
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_node_that_somebody_deleted_is_registered_again_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "STATUS_INTERVAL", 3600.0)
    api = Api()
    config = settings.load(None, node_name="n1", node_ip="192.0.2.1", state_dir=str(tmp_path))
    keeper = NodeKeeper(Clients(api, api), config, Events(), list, lambda: 1000.0)
    keeper.node = node_with([], 1)
    task = asyncio.create_task(keeper._keep_status())
    try:
        ours = await api.posted.get()
        await asyncio.sleep(0)
        api.gone = True
        keeper._seen(ours, None)
        async with asyncio.timeout(30):
            await api.created.wait()
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_the_node_is_known_once_it_is_registered(tmp_path):
    api = Api()
    config = settings.load(None, node_name="n1", node_ip="192.0.2.1", state_dir=str(tmp_path))
    keeper = NodeKeeper(Clients(api, api), config, Events(), list, lambda: 1000.0)
    assert not keeper.known.is_set()
    task = asyncio.create_task(keeper.run())
    try:
        async with asyncio.timeout(30):
            await keeper.known.wait()
        assert keeper.node is not None
        assert keeper.node.metadata.labels["kubernetes.io/hostname"] == "n1"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
