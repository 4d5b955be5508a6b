"""The files of static Pods: read, watched, and what is wrong with them told once (upstream: config/file.go).

A file that turns bad keeps its Pod: half a write, or a typing error, shall not stop what runs.
"""

from __future__ import annotations

import asyncio
import logging
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nodewright_agent.pods.static.manifest import MAX_BYTES, ManifestError, StaticPod, parse
from nodewright_agent.pods.static.notify import GONE, FolderWatch

log = logging.getLogger(__name__)

QUIET = 0.05
"""Seconds of waiting for what follows a change, such as the content of a new file."""
DOUBT = 1.0
"""A file is called bad when it still is after so many seconds: it may be in the middle of being written."""
CHECK = 20.0
"""Seconds between looks where nothing tells of changes (kubelet's fileCheckFrequency)."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What the files say now."""

    pods: list[StaticPod]
    """Each ``namespace/name`` once."""
    removed: frozenset[str]
    """Names of Pods whose file was removed since the last reading, also where it is back."""
    whole: bool
    """Every file could be read: what is missing is not wanted."""


class Folder:
    """A folder of manifests, or one file."""

    def __init__(self, path: Path, node_name: str, now: Callable[[], str], told: Callable[[str], None]) -> None:
        """Read ``path`` for this node; ``now`` gives the time as text, ``told`` gets what is wrong with a file."""
        self._path, self._node, self._now, self._told = path, node_name, now, told
        self._good: dict[str, StaticPod] = {}
        self._bad: dict[str, str] = {}
        self._reported: dict[str, str] = {}
        self._gone: set[str] = set()
        self._changed = asyncio.Event()

    async def run(self, take: Callable[[Reading], None]) -> None:
        """Give each reading to ``take``, the first at once; never returns."""
        watch = self._open()
        try:
            while True:
                watching = self._arm(watch)  # before reading: nothing in between is missed
                self._changed.clear()
                take(self.read())
                try:
                    async with asyncio.timeout(self._pause(watching)):
                        await self._changed.wait()
                except TimeoutError:
                    self._report(self._bad)
                else:
                    await asyncio.sleep(QUIET)
        finally:
            if watch is not None:
                watch.close()

    def read(self) -> Reading:
        """Read all files now."""
        gone, self._gone = self._gone, set()
        removed = {self._good[file].name for file in gone if file in self._good}
        files = self._files()
        for file in [file for file in self._good if file not in files]:
            removed.add(self._good.pop(file).name)
        self._bad = {}
        for file in files:
            self._read(file)
        first: dict[str, StaticPod] = {}
        for file in sorted(self._good):
            one = self._good[file]
            other = first.setdefault(one.name, one)
            if other is not one:
                text = f"Error validating pod {one.name} from file due to duplicate pod name {one.pod.metadata.name!r}"
                self._bad[file] = f"{text}, ignoring; the first one is {other.file}"
        for file in self._reported.keys() - self._bad.keys():
            del self._reported[file]
        return Reading(list(first.values()), frozenset(removed), not self._bad)

    def _read(self, file: str) -> None:
        try:
            if not stat.S_ISREG(Path(file).stat().st_mode):
                raise ManifestError("neither a file nor a link to one")
            with Path(file).open("rb") as opened:
                data = opened.read(MAX_BYTES + 1)
            made = parse(data, file, self._node, self._now())
        except OSError as error:
            self._bad[file] = f"Could not process manifest file {file}: {error.strerror}"
        except ManifestError as error:
            self._bad[file] = f"Could not process manifest file {file}: {error}"
        else:
            before = self._good.get(file)
            if before is None or before.digest != made.digest:
                self._good[file] = made

    def _files(self) -> set[str]:
        if not self._path.is_dir():
            return {str(self._path)} if self._path.exists() else set()
        try:
            found = [entry for entry in self._path.iterdir() if not entry.name.startswith(".")]
        except OSError as error:
            log.error("static pods are not read: %s", error)
            return set(self._good)
        return {str(entry) for entry in found if not entry.is_dir()}

    def _open(self) -> FolderWatch | None:
        try:
            return FolderWatch(self._heard)
        except OSError as error:
            log.warning("changes of static pods are looked for every %.0f s: %s", CHECK, error)
            return None

    def _arm(self, watch: FolderWatch | None) -> bool:
        """Watch the folder, or what is nearest to it while it does not exist."""
        if watch is None:
            return False
        target = self._path if self._path.is_dir() else self._path.parent
        while not target.is_dir() and target != target.parent:
            target = target.parent
        try:
            watch.watch(target)
        except OSError as error:
            log.warning("changes of static pods are looked for every %.0f s: %s", CHECK, error)
            return False
        return True

    def _heard(self, name: str, mask: int) -> None:
        if name.startswith("."):
            return  # editors' and our own temporary files
        if mask & GONE and name:
            self._gone.add(str(self._path / name if self._path.name != name else self._path))
        self._changed.set()

    def _pause(self, watching: bool) -> float | None:
        if any(self._reported.get(file) != text for file, text in self._bad.items()):
            return DOUBT
        return None if watching else CHECK

    def _report(self, bad: dict[str, str]) -> None:
        for file, text in bad.items():
            if self._reported.get(file) != text:
                self._reported[file] = text
                log.error("%s", text)
                self._told(text)
