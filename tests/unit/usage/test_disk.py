"""Counting disk usage of trees that strangers have made."""

import os
from pathlib import Path

import pytest

from nodewright_agent.usage import disk
from nodewright_agent.usage.disk import DiskCounter, TooLarge, measure


def test_a_tree_is_counted_once_and_links_are_not_followed(tmp_path):
    tree, other = tmp_path / "tree", tmp_path / "other"
    (tree / "deep" / "er").mkdir(parents=True)
    other.mkdir()
    (other / "big").write_bytes(b"x" * (1 << 20))
    (tree / "file").write_bytes(b"x" * 100_000)
    empty = measure(tree)
    os.link(tree / "file", tree / "deep" / "same")
    (tree / "link").symlink_to(other)
    size, inodes = measure(tree)
    assert size >= 100_000
    assert size < 1 << 20
    assert inodes == empty[1] + 1, "the link itself"
    assert measure(tmp_path / "none") == (0, 0)
    assert measure(tree / "link") == (0, 0)


def chain(at, length):
    """A directory in a directory, and so on."""
    fd = os.open(at, os.O_RDONLY)
    for _ in range(length):
        os.mkdir("d", dir_fd=fd)
        inner = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)


def test_a_deep_tree_is_counted_to_its_end(tmp_path):
    chain(tmp_path, 2 * disk.DEEPEST + 10)
    assert measure(tmp_path)[1] == 2 * disk.DEEPEST + 11


def test_a_tree_without_end_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(disk, "DEEPEST", 2)
    for name in "abc":
        (tmp_path / name).mkdir()
        chain(tmp_path / name, 4)
    with pytest.raises(TooLarge, match="deeper"):
        measure(tmp_path)


async def test_counts_are_kept_as_long_as_they_are_good():
    now, calls = [1000.0], []

    def count(path):
        calls.append(path)
        return len(calls), 1

    counter, path = DiskCounter(lambda: now[0], count), Path("/x")
    assert (await counter.counts([path], fresh=10.0))[path].size == 1
    now[0] += 9
    assert (await counter.counts([path], fresh=10.0))[path].size == 1
    now[0] += 2
    assert (await counter.counts([path], fresh=10.0))[path].size == 2
    await counter.close()


async def test_what_cannot_be_counted_is_left_out_and_not_tried_at_once_again():
    now, calls = [1000.0], []

    def count(path):
        calls.append(path)
        raise TooLarge("no")

    counter, path = DiskCounter(lambda: now[0], count), Path("/x")
    assert await counter.counts([path]) == {}
    assert await counter.counts([path]) == {}
    assert len(calls) == 1
    now[0] += 61
    await counter.counts([path])
    assert len(calls) == 2
    await counter.close()
