"""Values that the image store gives and takes. Pure."""

from pathlib import Path
from typing import Literal

import msgspec

from nodewright_agent.runtime.images.config import ImageConfig

LayerState = Literal["waiting", "pulling", "exists", "done"]


class Image(msgspec.Struct, frozen=True):
    """An image in the store. `layers` are directories for overlayfs, top first; `size` is bytes on disk."""

    id: str
    names: list[str]
    digests: list[str]
    size: int
    config: ImageConfig
    layers: list[Path]


class Pulled(msgspec.Struct, frozen=True):
    """An image and the seconds that its pull took, without waiting for its turn."""

    image: Image
    seconds: float


class PullProgress(msgspec.Struct, frozen=True):
    """One step of a pull: a layer's state and its compressed bytes so far and in all."""

    ref: str
    layer: str
    state: LayerState
    current: int
    total: int


class Unpacked(msgspec.Struct, frozen=True):
    """What unpacking a layer made: bytes on disk, entries, and whether it hides all layers below."""

    size: int
    entries: int
    opaque_root: bool


class Limits(msgspec.Struct, frozen=True):
    """Bounds that protect the host from an image; per layer."""

    max_bytes: int = 32 << 30
    max_entries: int = 1_000_000
    memory: int = 512 << 20  # address space of the unpacking child
