"""The folder of static Pods: files that come, go and are wrong."""

import asyncio
import os

import pytest

from nodewright_agent.pods.static import folder as folders
from nodewright_agent.pods.static.folder import Folder, Reading
from unit.pods.static_files import text


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
