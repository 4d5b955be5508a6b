"""Makes image layers, images and archives for tests, well-formed and broken ones."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nodewright_agent.runtime.images.store import ImageStore

CONFIG = "application/vnd.oci.image.config.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def entry(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    """A tar entry: fields are TarInfo attributes (mode, uid, linkname, pax_headers, ...)."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(data)
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def folder(name: str, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, tarfile.DIRTYPE, **fields)


def symlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, tarfile.SYMTYPE, linkname=target)


def hardlink(name: str, target: str) -> tuple[tarfile.TarInfo, bytes]:
    return entry(name, tarfile.LNKTYPE, linkname=target)


def tar(*entries: tuple[tarfile.TarInfo, bytes], format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def raw_header(name: bytes, kind: bytes = b"0", size: bytes = b"00000000000\0", link: bytes = b"") -> bytes:
    """A ustar header block with a right checksum and anything else as given."""
    block = bytearray(512)
    block[0 : len(name)] = name
    block[100:108], block[108:116], block[116:124] = b"0000644\0", b"0000000\0", b"0000000\0"
    block[124:136], block[136:148] = size, b"00000000000\0"
    block[156:157], block[157 : 157 + len(link)] = kind, link
    block[257:265] = b"ustar\x0000"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@dataclass
class MadeImage:
    """An image as blobs; `manifest` and `config` are dicts that a test may spoil before `freeze`."""

    layers: list[bytes]
    blobs: dict[str, bytes] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    manifest: dict[str, Any] = field(default_factory=dict)

    def freeze(self) -> tuple[bytes, str]:
        """Write config and manifest; returns the manifest's bytes and digest."""
        config = json.dumps(self.config).encode()
        self.blobs[digest(config)] = config
        if "config" in self.manifest and self.manifest["config"].get("digest") == "":
            self.manifest["config"] |= {"digest": digest(config), "size": len(config)}
        data = json.dumps(self.manifest).encode()
        self.blobs[digest(data)] = data
        return data, digest(data)

    @property
    def image_id(self) -> str:
        return digest(json.dumps(self.config).encode())


def image(*layers: bytes, packed: list[bytes] | None = None, **config: Any) -> MadeImage:
    """An image of uncompressed layer tars; `packed` overrides how they are stored (default: gzip)."""
    stored = packed or [gzip.compress(layer, 1, mtime=0) for layer in layers]
    made = MadeImage(list(layers))
    for data in stored:
        made.blobs[digest(data)] = data
    made.config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["/bin/true"]} | config,
        "rootfs": {"type": "layers", "diff_ids": [digest(layer) for layer in layers]},
    }
    made.manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": "", "size": 0},
        "layers": [{"mediaType": f"{LAYER}+gzip", "digest": digest(data), "size": len(data)} for data in stored],
    }
    return made


def oci_files(*images: tuple[MadeImage, str]) -> dict[str, bytes]:
    """The files of an OCI layout with (image, name) pairs; an empty name leaves the image without one."""
    files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
    entries = []
    for made, name in images:
        data, found = made.freeze()
        files |= {f"blobs/{key.replace(':', '/')}": blob for key, blob in made.blobs.items()}
        annotations = {"org.opencontainers.image.ref.name": name} if name else {}
        entries.append({"mediaType": MANIFEST, "digest": found, "size": len(data), "annotations": annotations})
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
    return files


def docker_files(*images: tuple[MadeImage, list[str]]) -> dict[str, bytes]:
    """The files of a `docker save` archive."""
    files: dict[str, bytes] = {}
    entries = []
    for made, tags in images:
        config = json.dumps(made.config).encode()
        name = f"{digest(config).partition(':')[2]}.json"
        files[name] = config
        layers = []
        for layer in made.layers:
            path = f"{digest(layer).partition(':')[2]}/layer.tar"
            files[path] = layer
            layers.append(path)
        entries.append({"Config": name, "RepoTags": tags, "Layers": layers})
    files["manifest.json"] = json.dumps(entries).encode()
    return files


def write_archive(path: Path, files: dict[str, bytes]) -> Path:
    path.write_bytes(tar(*(entry(name, data=data) for name, data in files.items())))
    return path


BASE = tar(
    folder("bin"), entry("bin/true", data=b"#!/bin/sh\n", mode=0o755), folder("etc"), entry("etc/os", data=b"one")
)
TOP = tar(folder("etc"), entry("etc/.wh.os"), entry("etc/new", data=b"two"))
BIG = tar(*(entry(f"f{number}", data=os.urandom(40_000)) for number in range(100)))
"""Some megabytes that no packing makes smaller."""


def digest_of(made: MadeImage, layer: int) -> str:
    """The digest of one layer, by its place."""
    found: str = made.manifest["layers"][layer]["digest"]
    return found


def leftovers(store: ImageStore) -> list[Path]:
    """What pulls have left unfinished."""
    return list(store._layout.tmp.iterdir())
