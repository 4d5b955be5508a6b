"""Load docker archives (`docker save`) and OCI archives or directories, plain or compressed, of one or more images."""

import asyncio
import posixpath
import re
import tarfile
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import IO, Any, Final, Protocol

import msgspec

from nodewright_agent.runtime.images import config, manifest, reference, strictjson
from nodewright_agent.runtime.images.compression import SniffingDecoder
from nodewright_agent.runtime.images.errors import ArchiveError, ImageCorrupt, InvalidImageName
from nodewright_agent.runtime.images.layers import Blob
from nodewright_agent.runtime.images.layerstore import Feed, LayerStore
from nodewright_agent.runtime.images.manifest import Descriptor, Index, Platform
from nodewright_agent.runtime.images.model import PullProgress
from nodewright_agent.runtime.images.puller import Fetched

_CHUNK: Final = 1 << 20
_MAX_MEMBERS: Final = 100_000
_TAR_BLOCK: Final = 512
_HEX: Final = re.compile(r"[0-9a-f]{64}")
_NAME_ANNOTATIONS: Final = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


class Reader(Protocol):
    """Random access to the files of an archive."""

    def size(self, name: str) -> int | None:
        """Bytes of a regular file; None when there is none of that name."""
        ...

    def read(self, name: str, offset: int, count: int) -> bytes:
        """Up to `count` bytes."""
        ...


class DirectoryReader:
    """An OCI layout in a directory. Names come from digests and fixed file names only."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def size(self, name: str) -> int | None:
        """Bytes of a regular file."""
        path = self._root / name
        return path.stat().st_size if path.is_file() else None

    def read(self, name: str, offset: int, count: int) -> bytes:
        """Up to `count` bytes."""
        with open(self._root / name, "rb") as file:
            file.seek(offset)
            return file.read(count)


class TarReader:
    """An uncompressed tar file, indexed once. Links inside it (old docker archives have them) are looked up by name."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._files: dict[str, tuple[int, int]] = {}
        self._links: dict[str, str] = {}
        try:
            with tarfile.open(fileobj=file, mode="r:") as archive:
                for count, member in enumerate(archive):
                    if count >= _MAX_MEMBERS:
                        raise ArchiveError(f"archive has more than {_MAX_MEMBERS} entries")
                    self._add(member)
        except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
            raise ArchiveError(f"not a readable tar archive: {error}") from None

    def _add(self, member: tarfile.TarInfo) -> None:
        name = posixpath.normpath(member.name)
        if member.isreg() and not member.issparse():
            self._files[name] = (member.offset_data, member.size)
            self._links.pop(name, None)
        elif member.issym():
            self._links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
        elif member.islnk():
            self._links[name] = posixpath.normpath(member.linkname)

    def _find(self, name: str) -> tuple[int, int] | None:
        name = posixpath.normpath(name)
        for _ in range(8):  # a link to a link to ... itself ends here
            if name in self._files or name not in self._links:
                break
            name = self._links[name]
        return self._files.get(name)

    def size(self, name: str) -> int | None:
        """Bytes of a regular file."""
        found = self._find(name)
        return found[1] if found else None

    def read(self, name: str, offset: int, count: int) -> bytes:
        """Up to `count` bytes."""
        found = self._find(name)
        if found is None:
            return b""
        start, size = found
        self._file.seek(start + offset)
        return self._file.read(max(0, min(count, size - offset)))


class Layer(msgspec.Struct, frozen=True):
    """A layer inside an archive."""

    name: str
    size: int
    diff_id: str
    digest: str | None


class Planned(msgspec.Struct, frozen=True):
    """An image of an archive: everything but the layers is read and verified."""

    config: bytes
    image_id: str
    digest: str
    layers: tuple[Layer, ...]
    names: frozenset[str]


async def load(
    path: Path, layers: LayerStore, tmp: Path, platform: Platform, report: Callable[[PullProgress], None]
) -> list[tuple[Fetched, set[str]]]:
    """Verify all images of an archive and unpack their layers; writes no image records.

    Raises ArchiveError, with the file's name, when the archive is not one, or incomplete or corrupt.
    """
    try:
        file = None if path.is_dir() else await asyncio.to_thread(_plain_file, path, tmp)
        with file or nullcontext():
            reader: Reader = DirectoryReader(path) if file is None else await asyncio.to_thread(TarReader, file)
            planned = await asyncio.to_thread(plan, reader, platform)
            sizes = await _unpack(reader, planned, layers, path.name, report)
    except ArchiveError as error:
        raise ArchiveError(f"{path}: {error}") from None
    except ImageCorrupt as error:
        raise ArchiveError(f"{path}: archive is corrupt: {error}") from None
    except InvalidImageName as error:
        raise ArchiveError(f"{path}: {error}") from None
    return [
        (
            Fetched(
                image.image_id,
                image.config,
                tuple(layer.diff_id for layer in image.layers),
                image.digest,
                sum(sizes[layer.diff_id] for layer in image.layers),
            ),
            set(image.names),
        )
        for image in planned
    ]


def _plain_file(path: Path, tmp: Path) -> IO[bytes]:
    """The archive itself, or an unnamed decompressed copy of it in the store (layers need random access)."""
    file = open(path, "rb")  # noqa: SIM115 - handed to the caller
    try:
        head = file.read(_TAR_BLOCK)
        file.seek(0)
        if head[257:262] == b"ustar" or not head:
            if not head:
                raise ArchiveError("archive is empty")
            return file
        with file:
            copy = tempfile.TemporaryFile(dir=tmp)  # noqa: SIM115 - handed to the caller
            try:
                decoder = SniffingDecoder()
                while data := file.read(_CHUNK):
                    for piece in decoder.feed(data):
                        copy.write(piece)
                decoder.finish()
            except BaseException:
                copy.close()
                raise
            copy.seek(0)
            return copy
    except BaseException:
        file.close()
        raise


def plan(reader: Reader, platform: Platform) -> list[Planned]:
    """Read and check every image's documents."""
    if reader.size("index.json") is not None and reader.size("oci-layout") is not None:
        return _plan_oci(reader, platform)
    if reader.size("manifest.json") is not None:
        return _plan_docker(reader, platform)
    raise ArchiveError("neither a docker archive (manifest.json) nor an OCI archive (oci-layout, index.json)")


def _whole(reader: Reader, name: str, limit: int) -> bytes:
    size = reader.size(name)
    if size is None:
        raise ArchiveError(f"archive lacks {name}")
    if size > limit:
        raise ArchiveError(f"{name} is larger than {limit} bytes")
    data = reader.read(name, 0, size)
    if len(data) != size:
        raise ArchiveError(f"archive is truncated in {name}")
    return data


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _plan_oci(reader: Reader, platform: Platform) -> list[Planned]:
    top = manifest.parse(_whole(reader, "index.json", manifest.MAX_MANIFEST_BYTES), manifest.OCI_INDEX)
    if not isinstance(top, Index):
        raise ArchiveError("index.json is not an index")
    images = []
    for entry in top.manifests:
        if entry.platform is None or (entry.platform.os, entry.platform.architecture) == (
            platform.os,
            platform.architecture,
        ):
            images.append(_oci_image(reader, entry, platform))
    if not images:
        raise ArchiveError(
            f"no match for platform {platform} in manifest" if top.manifests else "archive has no images"
        )
    return images


def _oci_image(reader: Reader, entry: Descriptor, platform: Platform) -> Planned:
    names = oci_names(entry)
    current = entry
    for _ in range(manifest.MAX_INDEX_DEPTH):
        data = _whole(reader, _blob(current.digest), manifest.MAX_MANIFEST_BYTES)
        manifest.verify(data, current.digest, "manifest")
        document = manifest.parse(data, current.media_type)
        if isinstance(document, Index):
            current = manifest.choose(document, platform)
            continue
        raw = _whole(reader, _blob(document.config.digest), config.MAX_CONFIG_BYTES)
        manifest.verify(raw, document.config.digest, "image config")
        found = [(_blob(layer.digest), layer.digest, layer.size) for layer in document.layers]
        by_digest = {reference.parse(name).with_digest(entry.digest).name for name in names}
        return _planned(
            reader, raw, document.config.digest, entry.digest, found, frozenset(names | by_digest), platform
        )
    raise ArchiveError("image index is nested too deeply")


def oci_names(entry: Descriptor) -> set[str]:
    """Names in annotations: containerd's is a full name; the standard one may be a bare tag, which names nothing."""
    for annotation in _NAME_ANNOTATIONS:
        text = entry.annotations.get(annotation, "")
        if "/" in text or ":" in text:
            named = reference.parse(text)
            if named.digest and named.digest != entry.digest:
                raise ArchiveError(f"the image that is named {text} has the digest {entry.digest}")
            return {named.name}
    return set()


def _plan_docker(reader: Reader, platform: Platform) -> list[Planned]:
    data = _whole(reader, "manifest.json", manifest.MAX_MANIFEST_BYTES)
    entries = strictjson.loads_any(data, "manifest.json", limit=manifest.MAX_MANIFEST_BYTES)
    if not isinstance(entries, list) or not entries:
        raise ArchiveError("manifest.json must be a list of images")
    return [_docker_image(reader, entry, i, platform) for i, entry in enumerate(entries)]


def _docker_image(reader: Reader, entry: Any, i: int, platform: Platform) -> Planned:
    if not isinstance(entry, dict):
        raise ArchiveError(f"manifest.json[{i}] must be an object")
    name = strictjson.text(entry.get("Config"), f"manifest.json[{i}].Config")
    raw = _whole(reader, name, config.MAX_CONFIG_BYTES)
    if found := _HEX.search(name):  # the file is named by its digest
        manifest.verify(raw, f"sha256:{found[0]}", "image config")
    names = {
        reference.parse(tag).name for tag in strictjson.texts(entry.get("RepoTags"), f"manifest.json[{i}].RepoTags")
    }
    if any("@" in tag for tag in names):
        raise ArchiveError(f"manifest.json[{i}].RepoTags: a docker archive has no digests to name an image by")
    layers = [(layer, None, None) for layer in strictjson.texts(entry.get("Layers"), f"manifest.json[{i}].Layers")]
    return _planned(reader, raw, None, "", layers, frozenset(names), platform)


def _planned(
    reader: Reader,
    raw: bytes,
    image_id: str | None,
    digest: str,
    found: list[tuple[str, str, int]] | list[tuple[str, None, None]],
    names: frozenset[str],
    platform: Platform,
) -> Planned:
    document = config.parse(raw, platform)
    if len(document.diff_ids) != len(found):
        raise ArchiveError(f"image config has {len(document.diff_ids)} diff ids, the manifest has {len(found)} layers")
    if len(found) > manifest.MAX_LAYERS:
        raise ArchiveError(f"image has {len(found)} layers, more than {manifest.MAX_LAYERS}")
    layers = []
    for (name, blob, promised), diff_id in zip(found, document.diff_ids, strict=True):
        size = reader.size(name)
        if size is None:
            raise ArchiveError(f"archive lacks {name}")
        if promised is not None and promised != size:
            raise ArchiveError(f"{name} has {size} bytes, the manifest says {promised}")
        layers.append(Layer(name, size, diff_id, blob))
    own = image_id or manifest.sha256(raw)
    return Planned(raw, own, digest, tuple(layers), names)


async def _unpack(
    reader: Reader, planned: list[Planned], layers: LayerStore, label: str, report: Callable[[PullProgress], None]
) -> dict[str, int]:
    """Bring every distinct layer into the store; returns bytes on disk by diff id."""
    wanted = {layer.diff_id: layer for image in planned for layer in image.layers}
    try:
        async with asyncio.TaskGroup() as group:
            tasks = {
                diff_id: group.create_task(_layer(reader, layer, layers, label, report))
                for diff_id, layer in wanted.items()
            }
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return {diff_id: task.result() for diff_id, task in tasks.items()}


async def _layer(
    reader: Reader, layer: Layer, layers: LayerStore, label: str, report: Callable[[PullProgress], None]
) -> int:
    known = layers.get(layer.diff_id)
    if known is not None:
        report(PullProgress(label, layer.diff_id, "exists", layer.size, layer.size))
        return known.size

    async def source(feed: Feed) -> None:
        done = 0
        while done < layer.size:
            data = await asyncio.to_thread(reader.read, layer.name, done, _CHUNK)
            if not data:
                raise ArchiveError(f"archive is truncated in {layer.name}")
            await feed(data)
            done += len(data)
            report(PullProgress(label, layer.diff_id, "pulling", done, layer.size))

    def blob() -> Blob | None:
        return Blob(layer.digest, layer.size) if layer.digest is not None else None

    record = await layers.ensure(layer.diff_id, blob, source)
    report(PullProgress(label, layer.diff_id, "done", layer.size, layer.size))
    return record.size
