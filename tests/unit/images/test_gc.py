"""Image collection: which images go, and what is remembered."""

from collections import Counter
from pathlib import Path

import pytest

from nodewright.kube.objects import ObjectReference
from nodewright_agent.runtime.images.config import ImageConfig
from nodewright_agent.runtime.images.errors import ImageInUse
from nodewright_agent.runtime.images.gc import (
    Candidate,
    CollectionFailed,
    ImageCollector,
    Policy,
    Use,
    aged,
    choose,
)
from nodewright_agent.runtime.images.model import Image


class Store:
    def __init__(self, sizes):
        self.sizes, self.mounted = dict(sizes), set()

    def list(self):
        return [Image(name, [f"repo/{name}:1"], [], size, ImageConfig(), []) for name, size in self.sizes.items()]

    def remove(self, ref):
        if ref in self.mounted:
            raise ImageInUse(ref)
        del self.sizes[ref]


class Events:
    def __init__(self):
        self.seen = []

    def event(self, ref, type, reason, message):
        self.seen.append((type, reason, message))


class Lab:
    def __init__(self, tmp_path: Path, sizes, available=100):
        self.store, self.events, self.now = Store(sizes), Events(), 1000.0
        self.used, self.disk, self.count = set(), (1000, available), Counter()
        self.file = tmp_path / "uses.json"
        self.made = self.make()

    def make(self):
        node = ObjectReference(kind="Node", name="n")
        return ImageCollector(self.store, self.file, lambda: self.used, lambda: self.disk, self.events, node,
                              lambda: self.now, self.count)  # fmt: skip


def test_the_longest_unused_goes_first_and_none_that_has_just_come():
    images = [
        Candidate("new", 50, Use(seen=990.0)),
        Candidate("b", 10, Use(seen=100.0, used=500.0)),
        Candidate("a", 10, Use(seen=200.0, used=400.0)),
        Candidate("never", 10, Use(seen=150.0)),
    ]
    assert [one.id for one in choose(images, 1000.0, Policy(), 15)] == ["never", "a"]
    assert [one.id for one in choose(images, 1000.0, Policy(), 1e9)] == ["never", "a", "b"]
    assert choose(images, 1000.0, Policy(), 0) == []


def test_age():
    images = [Candidate("old", 1, Use(seen=0.0, used=100.0)), Candidate("young", 1, Use(seen=700.0))]
    assert aged(images, 1000.0, Policy()) == []
    assert [one.id for one in aged(images, 1000.0, Policy(maximum_age=600.0))] == ["old"]


async def test_it_frees_down_to_the_low_mark_and_spares_what_is_used(tmp_path):
    lab = Lab(tmp_path, {"a": 60, "b": 60, "c": 60}, available=100)
    lab.used = {"repo/a:1"}
    await lab.made.collect()
    assert set(lab.store.sizes) == {"a", "c"} or set(lab.store.sizes) == {"a"}
    assert lab.count["space"] == 3 - len(lab.store.sizes)
    assert lab.events.seen == []


async def test_below_the_high_mark_nothing_happens(tmp_path):
    lab = Lab(tmp_path, {"a": 60}, available=200)
    await lab.made.collect()
    assert set(lab.store.sizes) == {"a"}


async def test_too_little_is_said(tmp_path):
    lab = Lab(tmp_path, {"a": 60}, available=100)
    lab.store.mounted = {"a"}
    with pytest.raises(CollectionFailed):
        await lab.made.collect()
    assert lab.events.seen == [
        (
            "Warning",
            "FreeDiskSpaceFailed",
            "Failed to garbage collect required amount of images. Attempted to free 100 bytes, "
            "but only found 0 bytes eligible to free.",
        )
    ]


async def test_uses_survive_a_restart(tmp_path):
    lab = Lab(tmp_path, {"a": 60, "b": 60}, available=500)
    lab.used = {"a"}
    await lab.made.collect()
    lab.used, lab.now = set(), 2000.0
    lab.store.sizes["c"] = 10
    again = lab.make()
    again.apply(Policy(maximum_age=1500.0))
    await again.collect()
    assert set(lab.store.sizes) == {"a", "c"}, "b was there from the beginning, and never used"
    assert lab.count == {"age": 1}


async def test_no_disk_at_all_is_said(tmp_path):
    lab = Lab(tmp_path, {})
    lab.disk = (0, 0)
    with pytest.raises(CollectionFailed, match="invalid capacity 0"):
        await lab.made.collect()
    assert lab.events.seen[0][1] == "InvalidDiskCapacity"
