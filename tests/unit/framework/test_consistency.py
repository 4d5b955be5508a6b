import asyncio
from types import SimpleNamespace

import pytest

from nodewright.framework.consistency import ConsistencyGuard


def obj(name, uid="u", deleting=False):
    meta = SimpleNamespace(name=name, uid=uid, deletion_timestamp="t" if deleting else None)
    return SimpleNamespace(key=name, metadata=meta)


class Cache:
    """A cache moved by hand."""

    def __init__(self, version=10):
        self.resource_version = version
        self.objects = {}
        self.handlers = []
        self.waiters = []

    def get(self, key):
        return self.objects.get(key)

    def add_handler(self, fn):
        self.handlers.append(fn)

    async def wait_for(self, version, timeout):
        if self.resource_version >= int(version):
            return True
        future = asyncio.get_running_loop().create_future()
        self.waiters.append((int(version), future))
        async with asyncio.timeout(timeout):
            return await future

    def advance(self, version):
        self.resource_version = version
        for wanted, future in self.waiters:
            if wanted <= version and not future.done():
                future.set_result(True)

    def change(self, key, new):
        old = self.objects.pop(key, None)
        if new is not None:
            self.objects[key] = new
        for handler in self.handlers:
            handler(old, new)


async def test_ready_when_nothing_was_written():
    guard = ConsistencyGuard()
    assert guard.is_ready("k")
    assert await guard.ready("k")


async def test_a_write_holds_its_key_until_the_cache_has_seen_it():
    guard, cache = ConsistencyGuard(), Cache()
    guard.wrote("k", cache, "12")
    guard.wrote("k", cache, "11")
    assert not guard.is_ready("k")
    assert guard.is_ready("other")
    waiting = asyncio.create_task(guard.ready("k"))
    await asyncio.sleep(0)
    cache.advance(11)
    await asyncio.sleep(0)
    assert not waiting.done()
    cache.advance(12)
    assert await waiting
    assert guard.is_ready("k")


async def test_a_write_that_the_cache_shows_already_holds_nothing():
    guard, cache = ConsistencyGuard(), Cache(20)
    guard.wrote("k", cache, 20)
    assert guard.is_ready("k")


async def test_writes_to_several_caches_are_all_awaited():
    guard, a, b = ConsistencyGuard(), Cache(), Cache()
    guard.wrote("k", a, 11)
    guard.wrote("k", b, 12)
    a.advance(11)
    assert not guard.is_ready("k")
    b.advance(12)
    assert guard.is_ready("k")


@pytest.mark.parametrize("seen", [None, obj("p", deleting=True), obj("p", uid="successor")])
async def test_a_deletion_is_seen_when_that_very_object_goes_or_is_marked(seen):
    guard, cache = ConsistencyGuard(), Cache()
    guard.watch(cache)
    cache.objects["p"] = obj("p")
    guard.deleted("k", cache, "p", "u")
    assert not guard.is_ready("k")
    waiting = asyncio.create_task(guard.ready("k"))
    await asyncio.sleep(0)
    cache.advance(99)  # other objects' versions say nothing about a deletion
    cache.change("q", obj("q"))
    await asyncio.sleep(0)
    assert not waiting.done()
    cache.change("p", seen)
    assert await waiting
    assert not guard._deleting


async def test_deletions_need_a_watched_cache():
    guard, cache = ConsistencyGuard(), Cache()
    with pytest.raises(ValueError, match="watch"):
        guard.deleted("k", cache, "p", "u")


async def test_waiting_ends_with_false_when_the_cache_does_not_follow():
    guard, cache = ConsistencyGuard(), Cache()
    guard.wrote("k", cache, 11)
    assert not await guard.ready("k", timeout=0.01)
    assert not guard.is_ready("k")


async def test_forget_lets_go():
    guard, cache = ConsistencyGuard(), Cache()
    guard.watch(cache)
    cache.objects["p"] = obj("p")
    guard.wrote("k", cache, 11)
    guard.deleted("k", cache, "p", "u")
    guard.forget("k")
    assert guard.is_ready("k")
    assert not guard._deleting


async def test_versions_from_before_a_restore_are_dropped():
    guard, cache = ConsistencyGuard(), Cache(100)
    guard.wrote("k", cache, 105)
    assert not guard.is_ready("k")
    cache.advance(50)  # etcd was restored from a backup, the cache listed anew
    assert guard.is_ready("k")


def test_a_doubt_stands_until_it_is_dispelled_or_its_key_is_gone():
    guard, cache, other = ConsistencyGuard(), Cache(), Cache()
    guard.doubt("k", cache)
    assert (guard.in_doubt("k", cache), guard.in_doubt("k", other), guard.in_doubt("l", cache)) == (True, False, False)
    assert guard.is_ready("k")  # no version is known that the cache would have to show
    guard.dispel("k", cache)
    assert not guard.in_doubt("k", cache)
    guard.doubt("k", cache)
    guard.doubt("l", cache)
    guard.forget("k")
    assert (guard.in_doubt("k", cache), guard.in_doubt("l", cache)) == (False, True)
