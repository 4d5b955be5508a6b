"""Small JSON records on disk that are verified when read, and the layout of the store's folder."""

import hashlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from nodewright_agent.runtime.images.fsutil import write_atomically

log = logging.getLogger(__name__)

R = TypeVar("R", bound=msgspec.Struct)
_CHECKSUM_LENGTH: Final = 64
_LAYER_NAME_LENGTH: Final = 24


class LayerRecord(msgspec.Struct, frozen=True):
    """An unpacked layer. Until `synced`, its files may be lost by a power failure: then `boot_id` has changed."""

    diff_id: str
    size: int
    entries: int
    opaque_root: bool
    boot_id: str
    synced: bool = False


class ImageRecord(msgspec.Struct, frozen=True):
    """An image: the raw configuration, whose digest is the id, and its layers, lowest first."""

    id: str
    config: str
    platform: str
    size: int


class NameRecord(msgspec.Struct, frozen=True):
    """A name (`repo:tag` or `repo@digest`) of an image."""

    name: str
    image: str
    origin: str = ""
    """Where the name was taken from; empty: a registry, or an archive that somebody loaded."""


class Layout:
    """Paths below the root of a store. Layer directories have short names: overlayfs takes one page of options."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.layers = root / "l"
        self.tmp = root / "tmp"
        self.locks = root / "locks"
        self.quarantine = root / "quarantine"
        self.layer_records = root / "meta" / "layers"
        self.image_records = root / "meta" / "images"
        self.name_records = root / "meta" / "names"
        self.pulled_records = root / "meta" / "pulled"
        self.pulls = root / "pulls"
        self.use_lock = self.locks / "use"
        self.write_lock = self.locks / "write"
        self.gc_wanted = root / "gc-wanted"

    def make(self) -> None:
        """Create what is missing. The root admits nobody but its owner: it holds set-uid programs of strangers."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (self.layers, self.tmp, self.locks, self.quarantine, self.layer_records, self.image_records,
                       self.name_records, self.pulled_records, self.pulls):  # fmt: skip
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def layer(self, diff_id: str) -> Path:
        """The directory of an unpacked layer."""
        return self.layers / diff_id.partition(":")[2][:_LAYER_NAME_LENGTH]

    def layer_record(self, diff_id: str) -> Path:
        """The record of an unpacked layer."""
        return self.layer_records / f"{self.layer(diff_id).name}.json"

    def layer_lock(self, diff_id: str) -> Path:
        """Held while a layer is made."""
        return self.locks / self.layer(diff_id).name

    def image_record(self, image_id: str) -> Path:
        """The record of an image by its id."""
        return self.image_records / f"{image_id.partition(':')[2]}.json"

    def pulled_record(self, image_id: str) -> Path:
        """The record of what gave access to an image."""
        return self.pulled_records / f"{image_id.partition(':')[2]}.json"

    def name_record(self, name: str) -> Path:
        """The record of a name; names are hashed since they are longer and richer than file names may be."""
        return self.name_records / f"{hashlib.sha256(name.encode()).hexdigest()[:40]}.json"


def write(path: Path, record: msgspec.Struct) -> None:
    """Replace a record atomically and durably."""
    body = msgspec.json.encode(record)
    write_atomically(path, hashlib.sha256(body).hexdigest().encode() + b"\n" + body)


def read(layout: Layout, path: Path, kind: type[R]) -> R | None:
    """Read a record; None when there is none. A corrupt one is moved to quarantine, said so, and counts as none."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        return decode(data, kind)
    except msgspec.MsgspecError as error:
        aside = layout.quarantine / f"{path.name}.{os.urandom(4).hex()}"
        log.warning("image store record is corrupt, moved to quarantine",
                    extra={"record": str(path), "quarantine": str(aside), "error": str(error)})  # fmt: skip
        try:
            os.rename(path, aside)
        except FileNotFoundError:
            pass  # another process was faster
        return None


def decode(data: bytes, kind: type[R]) -> R:
    """Check and decode a record as `write` makes it; raises MsgspecError."""
    checksum, body = data[:_CHECKSUM_LENGTH], data[_CHECKSUM_LENGTH + 1 :]
    if hashlib.sha256(body).hexdigest().encode() != checksum:
        raise msgspec.ValidationError("checksum differs")
    return msgspec.json.decode(body, type=kind)


def read_all(layout: Layout, folder: Path, kind: type[R]) -> Iterator[R]:
    """Every readable record of a folder."""
    for path in sorted(folder.glob("[!.]*.json")):
        record = read(layout, path, kind)
        if record is not None:
            yield record


def boot_id() -> str:
    """Changes with every boot of the kernel."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
