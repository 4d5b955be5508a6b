"""Images as blobs in a folder: layers from files and archives, a manifest, and an index of names.

Layers are stored as plain tar archives: they travel from this machine to itself, so packing them would only cost time.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
INDEX_FILE = "names.json"


@dataclass(frozen=True)
class Blob:
    """A blob of the folder: its digest (`sha256:...`) and its size in bytes."""

    digest: str
    size: int


@dataclass
class Tree:
    """What a layer consists of: files with their modes, links with their targets, empty folders with their modes."""

    files: dict[str, tuple[bytes | Path, int]] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    folders: dict[str, int] = field(default_factory=dict)


class BlobStore:
    """A folder of blobs and names. What is there is kept: a name is written after everything it leads to."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, digest: str) -> Path:
        """Where the blob lies."""
        return self.root / "blobs" / digest.removeprefix("sha256:")

    def names(self) -> dict[str, str]:
        """Image name to manifest digest; empty for a folder that was never filled."""
        try:
            found: dict[str, str] = json.loads((self.root / INDEX_FILE).read_text())
        except FileNotFoundError:
            return {}
        return found

    def set_names(self, names: Mapping[str, str]) -> None:
        """Replace the index."""
        _write(self.root / INDEX_FILE, json.dumps(dict(sorted(names.items())), indent=2).encode() + b"\n")

    def add(self, data: bytes) -> Blob:
        """Store bytes."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if not self.path(digest).exists():
            _write(self.path(digest), data)
        return Blob(digest, len(data))

    def add_file(self, path: Path) -> Blob:
        """Store a file by a hard link, or a copy where the file system has none; `path` may be removed afterwards."""
        with path.open("rb") as file:
            digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        target = self.path(digest)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)
        return Blob(digest, target.stat().st_size)

    def layer(self, tree: Tree) -> Blob:
        """Store `tree` as a layer. Owner 0:0 and time 0 throughout: the same input gives the same layer."""
        (self.root / "blobs").mkdir(parents=True, exist_ok=True)
        temporary = self.root / "blobs" / f".layer.{os.getpid()}"
        try:
            with tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as archive:
                _fill(archive, tree)
            return self.add_file(temporary)
        finally:
            temporary.unlink(missing_ok=True)

    def image(self, layers: Iterable[Blob], config: Mapping[str, Any], architecture: str) -> str:
        """Store the image of `layers`, lowest first, with the OCI `config`; returns the manifest's digest."""
        stack = list(layers)
        described = {
            "architecture": architecture,
            "os": "linux",
            "config": dict(config),
            # layers are not packed: the digest of what is stored is the diff id
            "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in stack]},
        }
        made = self.add(json.dumps(described).encode())
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {"mediaType": CONFIG, "digest": made.digest, "size": made.size},
            "layers": [{"mediaType": LAYER, "digest": layer.digest, "size": layer.size} for layer in stack],
        }
        return self.add(json.dumps(manifest).encode()).digest


def _fill(archive: tarfile.TarFile, tree: Tree) -> None:
    folders = {parent: 0o755 for name in (*tree.files, *tree.links, *tree.folders) for parent in _parents(name)}
    for name, mode in sorted((folders | tree.folders).items()):
        archive.addfile(_entry(name, tarfile.DIRTYPE, mode))
    for name, (content, mode) in sorted(tree.files.items()):
        info = _entry(name, tarfile.REGTYPE, mode)
        if isinstance(content, Path):
            info.size = content.stat().st_size
            with content.open("rb") as file:
                archive.addfile(info, file)
        else:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    for name, target in sorted(tree.links.items()):
        info = _entry(name, tarfile.SYMTYPE, 0o777)
        info.linkname = target
        archive.addfile(info)


def _entry(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode = kind, mode
    return info


def _parents(name: str) -> list[str]:
    parts = name.split("/")[:-1]
    return ["/".join(parts[: index + 1]) for index in range(len(parts))]


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(data)
    os.replace(temporary, path)
