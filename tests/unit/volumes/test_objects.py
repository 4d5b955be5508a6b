"""Single-object watches against an API server that has compacted its history."""

import asyncio

from nodewright.kube.client import WatchEvent
from nodewright.kube.codec import ObjectList
from nodewright.kube.errors import Gone
from nodewright.kube.objects import ConfigMap, ObjectMeta
from nodewright_agent.pods.volumes import objects
from nodewright_agent.pods.volumes.objects import ObjectCache

KEY = ("configmap", "ns", "cm")


def config_map(version, **data):
    return ConfigMap(metadata=ObjectMeta(name="cm", namespace="ns", resource_version=str(version)), data=data)


class Api:
    """The object is of version 5; watches from before `oldest` are refused."""

    def __init__(self, oldest):
        self.object, self.version, self.oldest = config_map(5), 1000, oldest
        self.watches, self.lists = [], 0
        self.events = asyncio.Queue()

    async def list(self, res, namespace, *, type, field_selector):
        assert field_selector == "metadata.name=cm"
        self.lists += 1
        items = [self.object] if self.object is not None else []
        return ObjectList(items=items, resource_version=str(self.version))

    async def watch(self, res, namespace, *, type, field_selector, resource_version, idle_timeout):
        self.watches.append(resource_version)
        if int(resource_version) < self.oldest:
            raise Gone(410, "Expired", "too old resource version")
        while (event := await self.events.get()) is not None:
            yield event


async def settle():
    for _ in range(50):
        await asyncio.sleep(0)


async def test_an_object_older_than_the_history_is_watched_from_a_list():
    api = Api(oldest=900)
    cache = ObjectCache(api)
    heard = asyncio.Event()
    cache.hold(KEY, heard.set, config_map(5))
    await settle()
    assert (api.watches, api.lists) == (["5", "1000"], 1)
    assert not heard.is_set(), "nothing has changed"
    api.events.put_nowait(WatchEvent("MODIFIED", config_map(1001, key="new"), "1001"))
    await heard.wait()
    await cache.close()


async def test_a_deletion_that_the_watch_missed_is_heard_of():
    api = Api(oldest=900)
    api.object = None
    cache = ObjectCache(api)
    heard = asyncio.Event()
    cache.hold(KEY, heard.set, config_map(5))
    await heard.wait()
    await cache.close()


async def test_the_next_watch_begins_where_bookmarks_have_led(monkeypatch):
    monkeypatch.setattr(objects, "_HEALTHY", 0.0)
    api = Api(oldest=0)
    cache = ObjectCache(api)
    cache.hold(KEY, lambda: None, config_map(5))
    api.events.put_nowait(WatchEvent("BOOKMARK", config_map(0), "700"))
    api.events.put_nowait(None)
    await settle()
    assert (api.watches, api.lists) == (["5", "700"], 0)
    await cache.close()


async def test_a_server_that_refuses_every_watch_is_not_asked_without_pause(monkeypatch):
    monkeypatch.setattr(objects, "_BACKOFF", (3600.0, 3600.0))
    api = Api(oldest=5000)
    cache = ObjectCache(api)
    cache.hold(KEY, lambda: None, config_map(5))
    await settle()
    assert (api.watches, api.lists) == (["5", "1000"], 1)
    await cache.close()


async def test_a_server_that_ends_every_watch_is_not_asked_without_pause(monkeypatch):
    monkeypatch.setattr(objects, "_BACKOFF", (3600.0, 3600.0))
    api = Api(oldest=0)
    for _ in range(100):
        api.events.put_nowait(None)
    cache = ObjectCache(api)
    cache.hold(KEY, lambda: None, config_map(5))
    await settle()
    assert api.watches == ["5"]
    await cache.close()
