"""The image store: pull, load, look up, list and remove. Several agents and commands may share one folder."""

import asyncio
import errno
import hashlib
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from nodewright_agent.runtime.images import archive, config, progress, records, reference, rootfs, usage
from nodewright_agent.runtime.images.access import PulledRecords, shown_by
from nodewright_agent.runtime.images.credentials import Credential
from nodewright_agent.runtime.images.errors import (
    ArchiveError,
    ErrImageNeverPull,
    ErrImagePull,
    ImageInUse,
    ImageNotFound,
)
from nodewright_agent.runtime.images.fsutil import locked
from nodewright_agent.runtime.images.gate import Gate
from nodewright_agent.runtime.images.inflight import Shared
from nodewright_agent.runtime.images.layers import as_image_error
from nodewright_agent.runtime.images.layerstore import LayerStore, clean_up
from nodewright_agent.runtime.images.locks import file_lock
from nodewright_agent.runtime.images.manifest import Platform
from nodewright_agent.runtime.images.model import Image, Limits, Pulled, PullProgress
from nodewright_agent.runtime.images.progress import Meter, PullUnderWay
from nodewright_agent.runtime.images.puller import Fetched, Puller
from nodewright_agent.runtime.images.records import ImageRecord, Layout, NameRecord
from nodewright_agent.runtime.images.settings import RegistrySettings

HERE = str(Platform.of_this_machine())

log = logging.getLogger(__name__)

Progress = Callable[[PullProgress], None]
Images = list[Image]  # ImageStore.list hides the builtin inside the class
Underway = list[PullUnderWay]
Texts = list[str]
Loaded = list[tuple[Fetched, set[str]]]


class _Pull:
    """A pull that callers wait for, and who of them wants to hear of it."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.listeners: list[Progress] = []
        self.work: Shared[Pulled] | None = None

    def tell(self, step: PullProgress) -> None:
        self.meter.take(step)
        for listener in self.listeners:
            listener(step)


class ImageStore:
    """Images below `root`, which is made when missing. Opening removes what killed processes left behind.

    `settings` default to `root/registries.toml`. All methods raise ImageError subclasses only.
    """

    def __init__(
        self,
        root: Path,
        *,
        settings: RegistrySettings | None = None,
        limits: Limits | None = None,
        gate: Gate | None = None,
        user: str = "",
    ) -> None:
        """`gate` holds up pulls; `user` is who pulls, for those who look at `pulls`."""
        self._layout = Layout(Path(root).absolute())
        try:
            self._layout.make()
            clean_up(self._layout)
        except OSError as error:
            raise as_image_error(error) from error
        self._layers = LayerStore(self._layout, limits or Limits())
        self._settings = settings or RegistrySettings.load(self._layout.root / "registries.toml")
        self._puller = Puller(self._layers, self._settings)
        self._gate, self._user = gate or Gate(), user
        self.pulled = PulledRecords(self._layout)
        self._pulls: dict[tuple[object, ...], _Pull] = {}
        self._background: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Wait until what was pulled is safely on disk, and release threads."""
        await self.settled()
        self._layers.close()

    async def settled(self) -> None:
        """Wait for the write-back of pulled layers; a process that ends earlier loses nothing but the mark."""
        if self._background:
            await asyncio.wait(self._background)

    # Looking up

    def resolve(self, ref: str) -> Image | None:
        """The image of a name, of `repository@digest`, or of an id (`sha256:...`); None unless it is complete."""
        image_id = self.id_of(ref)
        return self._image(image_id) if image_id else None

    def id_of(self, ref: str) -> str:
        """The id that a name, `repository@digest` or id leads to, whether the image is complete or not; else ""."""
        if reference.is_digest(ref):
            return ref
        parsed = reference.parse(ref)
        if parsed.digest:
            parsed = parsed.with_digest(parsed.digest)
        return self._id_of(parsed.name)

    def list(self) -> Images:
        """All complete images, ordered by name."""
        names = self._names()
        found = (self._image(record.id, names) for record in self._image_records())
        return sorted((image for image in found if image is not None), key=lambda i: (not i.names, i.names, i.id))

    def usage(self) -> tuple[int, int]:
        """Bytes on disk and entries of all layers, each counted once. Blocking."""
        layers = list(records.read_all(self._layout, self._layout.layer_records, records.LayerRecord))
        return sum(layer.size for layer in layers), sum(layer.entries for layer in layers)

    def origin(self, ref: str) -> str:
        """Where a name was taken from (see `NameRecord`); empty for names that the store does not have."""
        parsed = reference.parse(ref)
        name = parsed.with_digest(parsed.digest).name if parsed.digest else parsed.name
        record = records.read(self._layout, self._layout.name_record(name), NameRecord)
        return record.origin if record is not None else ""

    @property
    def scratch(self) -> Path:
        """A directory for temporary files on the store's file system; emptied when a store is opened."""
        return self._layout.tmp

    def _image_records(self) -> Iterable[ImageRecord]:
        return records.read_all(self._layout, self._layout.image_records, ImageRecord)

    def _names(self) -> dict[str, Texts]:
        result: dict[str, list[str]] = {}
        for record in records.read_all(self._layout, self._layout.name_records, NameRecord):
            result.setdefault(record.image, []).append(record.name)
        return result

    def _image(self, image_id: str, names: dict[str, Texts] | None = None) -> Image | None:
        record = records.read(self._layout, self._layout.image_record(image_id), ImageRecord)
        if record is None or record.id != image_id:
            return None
        document = config.parse(record.config.encode(), Platform.parse(record.platform))
        layers: list[Path] = []
        for diff_id in reversed(document.diff_ids):  # overlayfs wants the top first
            layer = self._layers.get(diff_id)
            if layer is None:
                log.warning("image is incomplete, a layer is missing", extra={"image": image_id, "layer": diff_id})
                return None
            layers.append(self._layout.layer(diff_id))
            if layer.opaque_root:
                break
        own = (self._names() if names is None else names).get(image_id, [])
        return Image(
            id=image_id,
            names=sorted(name for name in own if "@" not in name),
            digests=sorted(name for name in own if "@" in name),
            size=record.size,
            config=document.config,
            layers=_unique(layers),
        )

    # Bringing in

    async def pull(
        self,
        ref: str,
        *,
        auth: Sequence[Credential] = (),
        progress: Progress | None = None,
        platform: str = HERE,
    ) -> Image:
        """Fetch an image, or only check that it is current; joins a pull of the same that is under way.

        Who may use it is not noted: it counts as preloaded by whoever asked.
        """
        return (await self._join(ref, auth, progress, platform, note=False)).image

    async def pull_for(self, ref: str, *, auth: Sequence[Credential] = (), progress: Progress | None = None) -> Pulled:
        """The same for a Pod: what gave access to the image is noted in `pulled`. `auth` is tried in its order."""
        return await self._join(ref, auth, progress, HERE, note=True)

    def under_way(self) -> Underway:
        """The pulls of everybody on this store that have taken more than a moment. Blocking."""
        return progress.under_way(self._layout)

    async def _join(
        self, ref: str, auth: Sequence[Credential], listener: Progress | None, platform: str, *, note: bool
    ) -> Pulled:
        parsed = reference.parse(ref)
        key = (parsed.name, platform, tuple(auth), note)
        pull = self._pulls.get(key)
        if pull is None:
            pull = self._pulls[key] = _Pull(Meter(parsed.name, self._user))
            pull.work = Shared(self._pull(parsed, list(auth), Platform.parse(platform), pull, note))
            pull.work.task.add_done_callback(lambda _: self._pulls.pop(key, None))
        told = listener or _silent
        for step in pull.meter.steps:
            told(step)
        pull.listeners.append(told)
        try:
            assert pull.work is not None
            return await pull.work.join()
        finally:
            pull.listeners.remove(told)

    async def ensure(
        self, ref: str, policy: str, *, auth: Sequence[Credential] = (), progress: Progress | None = None
    ) -> Image:
        """Apply an imagePullPolicy: IfNotPresent, Always or Never; kubelet's sentences in errors."""
        present = self.resolve(ref) if policy != "Always" else None
        if present is not None:
            return present
        if policy == "Never":
            raise ErrImageNeverPull(f'Container image "{ref}" is not present with pull policy of Never')
        return await self.pull(ref, auth=auth, progress=progress)

    async def _pull(
        self, parsed: reference.Reference, auth: Sequence[Credential], platform: Platform, pull: "_Pull", note: bool
    ) -> Pulled:
        try:
            async with (
                self._gate.passed(),
                file_lock(self._layout.use_lock, shared=True),
                progress.shown(self._layout, pull.meter),
            ):
                begun = time.monotonic()
                fetched = await self._puller.pull(parsed, auth, platform, pull.tell)
                await asyncio.to_thread(rootfs.check, [self._layout.layer(diff_id) for diff_id in fetched.diff_ids])
                names = {parsed.with_digest(fetched.digest).name}
                if parsed.tag and not parsed.digest:
                    names.add(parsed.name)
                noted = parsed.repository if note else ""
                await asyncio.to_thread(self._commit, [(fetched, names)], str(platform), noted=noted)
        except OSError as error:
            raise as_image_error(error) from error
        seconds = time.monotonic() - begun
        self._after_change()
        image = self.resolve(fetched.image_id)
        if image is None:
            raise ErrImagePull(f"image {parsed.name} vanished from the store right after it was pulled")
        return Pulled(image, seconds)

    async def load(self, path: Path, *, progress: Progress | None = None, platform: str = HERE) -> Images:
        """Load every image of a docker or OCI archive (or OCI directory); all of them or, on any error, none."""
        return await self._load(path, lambda loaded: loaded, progress or _silent, platform)

    async def load_named(self, path: Path, ref: reference.Reference, *, origin: str, platform: str = HERE) -> Image:
        """Load one image of an OCI archive under one name, which the archive must give it, too.

        A name with a digest is the digest's: an image of another one is refused. `origin` is kept with the name.
        """
        images = await self._load(path, lambda loaded: [_named(loaded, ref)], _silent, platform, origin)
        if not images:
            raise ErrImagePull(f"image {ref.name} vanished from the store right after it was loaded")
        return images[0]

    async def _load(
        self, path: Path, choose: Callable[[Loaded], Loaded], report: Progress, platform: str, origin: str = ""
    ) -> Images:
        wanted = Platform.parse(platform)
        try:
            async with file_lock(self._layout.use_lock, shared=True):
                loaded = choose(await archive.load(Path(path), self._layers, self._layout.tmp, wanted, report))
                for fetched, _ in loaded:
                    folders = [self._layout.layer(diff_id) for diff_id in fetched.diff_ids]
                    await asyncio.to_thread(rootfs.check, folders)
                await asyncio.to_thread(self._commit, loaded, platform, origin)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EACCES, errno.EISDIR) and error.filename == str(path):
                raise ErrImagePull(f"cannot read {path}: {os.strerror(error.errno)}") from error
            raise as_image_error(error) from error
        self._after_change()
        images = [self.resolve(fetched.image_id) for fetched, _ in loaded]
        return [image for image in images if image is not None]

    def _commit(
        self, images: Sequence[tuple[Fetched, set[str]]], platform: str, origin: str = "", noted: str = ""
    ) -> None:
        """Write records: images first, names after, so that no name ever leads nowhere. Blocking.

        `noted` is the repository for which to note what gave access: before the names, so that no crash leaves an
        image that anybody may use.
        """
        with locked(self._layout.write_lock):
            for fetched, _ in images:
                assert fetched.image_id.partition(":")[2] in (
                    hashlib.sha256(fetched.config).hexdigest(),
                    hashlib.sha512(fetched.config).hexdigest(),
                )
                record = ImageRecord(fetched.image_id, fetched.config.decode(), platform, fetched.size)
                records.write(self._layout.image_record(fetched.image_id), record)
                if noted:
                    self.pulled.add(fetched.image_id, noted, shown_by(fetched.credential))
            for fetched, names in images:
                for name in sorted(names):
                    records.write(self._layout.name_record(name), NameRecord(name, fetched.image_id, origin))

    def _after_change(self) -> None:
        task = asyncio.create_task(self._settle())
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _settle(self) -> None:
        try:
            await asyncio.to_thread(self._layers.settle)
            if self._layout.gc_wanted.exists():
                await asyncio.to_thread(self.gc)
        except OSError as error:
            log.warning("image layers are not yet safe against a power failure", extra={"error": str(error)})

    # Taking out

    def remove(self, ref: str) -> None:
        """Remove a name; with its last one (or by id) the image and the layers that no other image has. Blocking.

        Raises ImageNotFound, and ImageInUse while a container's root file system is mounted from it.
        """
        by_id = reference.is_digest(ref)
        name = "" if by_id else reference.parse(ref).name
        with locked(self._layout.write_lock):
            image_id = ref if by_id else self._id_of(name)
            known = self._names().get(image_id, [])
            if not known and not self._layout.image_record(image_id or "-").exists():
                raise ImageNotFound(f'image "{ref}" is not in the store')
            tags = [tag for tag in known if "@" not in tag and tag != name]
            if not by_id and tags and "@" not in name:
                self._layout.name_record(name).unlink(missing_ok=True)
                return
            image = self._image(image_id)
            if image is not None and image.layers and image.layers[0].name in usage.mounted_layers():
                raise ImageInUse(f'image "{ref}" is in use by a container')
            for other in known:
                self._layout.name_record(other).unlink(missing_ok=True)
            self._layout.image_record(image_id).unlink(missing_ok=True)
            self._layout.pulled_record(image_id).unlink(missing_ok=True)
        self.gc()

    def _id_of(self, name: str) -> str:
        record = records.read(self._layout, self._layout.name_record(name), NameRecord)
        return record.image if record is not None else ""

    def gc(self) -> int:
        """Delete layers that no image has; returns how many. Left to the end of a pull that is under way. Blocking."""
        try:
            with locked(self._layout.use_lock, blocking=False):
                self._layout.gc_wanted.unlink(missing_ok=True)
                referenced: set[str] = set()
                for record in self._image_records():
                    document = config.parse(record.config.encode(), Platform.parse(record.platform))
                    referenced.update(document.diff_ids)
                return self._layers.remove_unreferenced(referenced)
        except BlockingIOError:
            self._layout.gc_wanted.touch()
            return 0


def _named(loaded: Loaded, ref: reference.Reference) -> tuple[Fetched, set[str]]:
    """The image of an archive that has the name, with that name (and its digest's) alone."""
    name = ref.with_digest(ref.digest).name if ref.digest else ref.name
    for fetched, names in loaded:
        if name in names and fetched.digest:
            return fetched, {name, ref.with_digest(fetched.digest).name}
    found = ", ".join(sorted({name for _, names in loaded for name in names})) or "no names"
    raise ArchiveError(f"the archive has no image {name}, but {found}")


def _silent(_: PullProgress) -> None:
    pass


def _unique(layers: Iterable[Path]) -> list[Path]:
    """overlayfs refuses the same directory twice; an image may have one layer several times, the top one counts."""
    return list(dict.fromkeys(layers))
