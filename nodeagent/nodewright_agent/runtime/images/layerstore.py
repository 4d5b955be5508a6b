"""Unpacked layers on disk, each made once however many ask for it, in however many processes."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from nodewright_agent.runtime.images import records, usage
from nodewright_agent.runtime.images.errors import ErrImagePull
from nodewright_agent.runtime.images.fsutil import locked, remove_tree, sync_file_system
from nodewright_agent.runtime.images.layers import Blob, LayerUnpacker, as_image_error
from nodewright_agent.runtime.images.locks import file_lock
from nodewright_agent.runtime.images.model import Limits
from nodewright_agent.runtime.images.records import LayerRecord, Layout

log = logging.getLogger(__name__)

T = TypeVar("T")
Feed = Callable[[bytes], Awaitable[None]]
Source = Callable[[Feed], Awaitable[None]]
PARALLEL: Final = 3


class LayerStore:
    """Layers by diff id. A layer needs no parent: whiteouts are marks in its own directory."""

    def __init__(self, layout: Layout, limits: Limits) -> None:
        self._layout = layout
        self._limits = limits
        self._making: dict[str, asyncio.Task[LayerRecord]] = {}
        self._slots = asyncio.Semaphore(PARALLEL)
        self._threads = ThreadPoolExecutor(PARALLEL, "image-layer")

    def close(self) -> None:
        """Let the threads end."""
        self._threads.shutdown(wait=False)

    def get(self, diff_id: str) -> LayerRecord | None:
        """The record of a layer that is complete and survived the last boot."""
        record = records.read(self._layout, self._layout.layer_record(diff_id), LayerRecord)
        if record is None or not self._layout.layer(diff_id).is_dir():
            return None
        if not record.synced and record.boot_id != records.boot_id():
            log.warning("image layer was not on disk yet when the machine went down; it will be fetched again",
                        extra={"layer": diff_id})  # fmt: skip
            return None
        if record.diff_id != diff_id:
            raise ErrImagePull(f"layer {diff_id} and layer {record.diff_id} have the same short name")
        return record

    async def ensure(self, diff_id: str, blob: Callable[[], Blob | None], source: Source) -> LayerRecord:
        """Return the layer, making it from `source` if need be; joins a making that is under way.

        The making reads from the source of whoever began it, and ends when that one gives up. So a joined making that
        fails or ends is no verdict on this caller's source, which is tried next.
        """
        while True:
            record = self.get(diff_id)
            if record is not None:
                return record
            making = self._making.get(diff_id)
            if making is None:
                return await self._begin(diff_id, self._make(diff_id, blob, source))
            await asyncio.wait([making])

    async def _begin(self, diff_id: str, work: Coroutine[Any, Any, LayerRecord]) -> LayerRecord:
        task = self._making[diff_id] = asyncio.create_task(work)
        try:
            return await task  # being cancelled here cancels the task and waits until it has cleaned up
        finally:
            del self._making[diff_id]

    async def _make(self, diff_id: str, blob: Callable[[], Blob | None], source: Source) -> LayerRecord:
        async with self._slots, file_lock(self._layout.layer_lock(diff_id)):
            record = self.get(diff_id)  # another process may have been faster
            if record is not None:
                return record
            try:
                with _work_folder(self._layout) as folder:
                    return await self._unpack(diff_id, blob(), source, folder)
            except OSError as error:
                raise as_image_error(error) from error

    async def _unpack(self, diff_id: str, blob: Blob | None, source: Source, folder: Path) -> LayerRecord:
        loop = asyncio.get_running_loop()
        tree = folder / "tree"
        tree.mkdir(mode=0o755)
        tree.chmod(0o755)  # whatever the umask: it shows as the mode of / in containers
        unpacker = LayerUnpacker(tree, diff_id, blob, self._limits)

        async def in_thread(function: Callable[..., T], *arguments: object) -> T:
            future = loop.run_in_executor(self._threads, function, *arguments)
            try:
                return await asyncio.shield(future)
            except asyncio.CancelledError:
                unpacker.kill()  # so that the thread's write ends; the unpacker must be idle before abort()
                await asyncio.gather(future, return_exceptions=True)  # its error is of no interest any more
                raise

        async def feed(data: bytes) -> None:
            await in_thread(unpacker.feed, data)

        try:
            await source(feed)
            unpacked = await in_thread(unpacker.finish)
        finally:
            unpacker.abort()
        record = LayerRecord(diff_id, unpacked.size, unpacked.entries, unpacked.opaque_root, records.boot_id())
        target = self._layout.layer(diff_id)
        if target.exists():
            os.rename(target, self._layout.quarantine / f"{target.name}.{os.urandom(4).hex()}")
        os.rename(tree, target)
        records.write(self._layout.layer_record(diff_id), record)
        return record

    def settle(self) -> None:
        """Bring layers to disk and mark them so. Blocking. Until then a power failure costs a new download, no more."""
        boot = records.boot_id()
        fresh = [
            record
            for record in records.read_all(self._layout, self._layout.layer_records, LayerRecord)
            if not record.synced and record.boot_id == boot
        ]
        if not fresh:
            return
        sync_file_system(self._layout.layers)
        for record in fresh:
            path = self._layout.layer_record(record.diff_id)
            with locked(self._layout.write_lock):
                if path.exists():
                    records.write(path, msgspec.structs.replace(record, synced=True))

    def remove_unreferenced(self, referenced: set[str]) -> int:
        """Delete layers outside `referenced` (diff ids) that nothing has mounted; returns how many.

        The caller holds the use lock exclusively, so nobody is making or about to reference any.
        """
        keep = {self._layout.layer(diff_id).name for diff_id in referenced} | usage.mounted_layers()
        names = {entry.name for entry in self._layout.layers.iterdir()}
        names |= {path.stem for path in self._layout.layer_records.glob("[!.]*.json")}
        removed = 0
        for name in sorted(names - keep):
            (self._layout.layer_records / f"{name}.json").unlink(missing_ok=True)
            with _work_folder(self._layout) as folder:
                try:
                    os.rename(self._layout.layers / name, folder / "tree")
                except FileNotFoundError:
                    continue
                removed += 1
        return removed


@contextmanager
def _work_folder(layout: Layout) -> Iterator[Path]:
    """A folder below tmp/ whose lock says that its maker lives; removed at the end, or by `clean_up` later."""
    path = layout.tmp / os.urandom(8).hex()
    lock = path.with_suffix(".lock")
    with locked(lock):
        try:
            path.mkdir(mode=0o700)
            yield path
        finally:
            try:
                remove_tree(path)
                lock.unlink()
            except OSError as error:
                log.warning("cannot clean up after unpacking; the next start tries again",
                            extra={"path": str(path), "error": str(error)})  # fmt: skip


def clean_up(layout: Layout) -> None:
    """Remove what killed processes left behind, and quarantined trees that nothing has mounted."""
    for lock in layout.tmp.glob("*.lock"):
        try:
            with locked(lock, blocking=False):
                remove_tree(lock.with_suffix(""))
                lock.unlink(missing_ok=True)
        except BlockingIOError:
            continue  # its maker lives
        except OSError as error:
            log.warning("cannot remove a left-over of the image store", extra={"path": str(lock), "error": str(error)})
    trees = [path for path in layout.quarantine.iterdir() if path.is_dir()]
    mounted = usage.mounted_layers() if trees else set()
    for path in trees:
        if path.name.partition(".")[0] not in mounted:
            remove_tree(path)
