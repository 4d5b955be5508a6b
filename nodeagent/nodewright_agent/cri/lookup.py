"""Images by what callers of CRI call them."""

from __future__ import annotations

import re

from nodewright_agent.runtime.images.model import Image
from nodewright_agent.runtime.images.store import ImageStore

_SHORT = re.compile(r"(?:sha256:)?([0-9a-f]{4,64})")


def find(store: ImageStore, name: str) -> Image | None:
    """The image of a name, an id, or the beginning of an id that only one has. Raises InvalidImageName."""
    short = _SHORT.fullmatch(name)
    if short is None:
        return store.resolve(name)
    found = [image for image in store.list() if image.id.partition(":")[2].startswith(short[1])]
    if len(found) == 1:
        return found[0]
    # Letters of a name can look like the beginning of an id.
    return store.resolve(name) if ":" not in name and len(short[1]) < 64 else None
