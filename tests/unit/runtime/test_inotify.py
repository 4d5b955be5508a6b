"""inotify, and what is built on it."""

import asyncio
import errno
import os
import resource
import struct

import pytest

from nodewright_agent.pods.static.notify import GONE, FolderWatch
from nodewright_agent.runtime import inotify
from nodewright_agent.runtime.watch import DirectoryWatch


def event(watch, mask, name=b""):
    padded = name + b"\0" * (-len(name) % 16)
    return struct.pack("iIII", watch, mask, 0, len(padded)) + padded


def test_events_are_split():
    data = event(1, inotify.CREATE, b"a") + event(2, inotify.DELETE_SELF) + event(-1, inotify.OVERFLOW)
    assert inotify.events(data) == [
        (1, inotify.CREATE, "a"),
        (2, inotify.DELETE_SELF, ""),
        (-1, inotify.OVERFLOW, ""),
    ]
    assert inotify.events(b"") == []


async def heard(queue, count):
    async with asyncio.timeout(10):
        return [await queue.get() for _ in range(count)]


async def test_two_watches_of_one_instance(tmp_path):
    found: asyncio.Queue[tuple[int, int, str]] = asyncio.Queue()
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    instance = inotify.Inotify(lambda *event: found.put_nowait(event))
    first, second = (instance.watch(path, inotify.CREATE | inotify.MOVED_TO) for path in (one, two))
    (one / "a").touch()
    os.rename(one / "a", two / "b")
    assert await heard(found, 2) == [(first, inotify.CREATE, "a"), (second, inotify.MOVED_TO, "b")]
    instance.unwatch(first)
    assert (await heard(found, 1))[0][:2] == (first, 0x8000)  # IN_IGNORED: the last that is heard of it
    (one / "unheard").touch()
    (two / "c").touch()
    assert await heard(found, 1) == [(second, inotify.CREATE, "c")]
    instance.close()
    instance.close()
    instance.unwatch(second)


async def test_what_cannot_be_watched(tmp_path, monkeypatch):
    instance = inotify.Inotify(print)
    with pytest.raises(FileNotFoundError, match="none"):
        instance.watch(tmp_path / "none", inotify.CREATE)
    instance.close()
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(NotADirectoryError):
        DirectoryWatch(__file__, print, print)
    assert len(os.listdir("/proc/self/fd")) == before
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(OSError, match="max_user_instances") as caught:
            inotify.Inotify(print)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caught.value.errno == errno.EMFILE


async def test_a_folder_watch_hears_of_the_folder_that_it_is_at(tmp_path):
    found: asyncio.Queue[tuple[str, int]] = asyncio.Queue()
    above, below = tmp_path, tmp_path / "below"
    watch = FolderWatch(lambda name, mask: found.put_nowait((name, mask)))
    watch.watch(above)
    below.mkdir()
    assert [name for name, _ in await heard(found, 1)] == ["below"]
    watch.watch(below)
    (above / "unheard").touch()
    (below / "pod").touch()
    (below / "pod").unlink()
    seen = []
    while not seen or not seen[-1][1] & GONE:
        seen += await heard(found, 1)
    assert {name for name, _ in seen if name} == {"pod"}
    watch._event(-1, inotify.OVERFLOW, "")  # nobody can make the kernel drop 16384 events in a test
    assert await heard(found, 1) == [("", inotify.OVERFLOW)]
    watch.close()
