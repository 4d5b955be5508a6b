"""Checks of an unpacked image as a whole, before any container may use it."""

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from nodewright_agent.runtime.images.errors import ErrImagePull

# The runtime mounts on these. As symlinks they have led runtimes to write outside (CVE-2026-41579, CVE-2025-31133).
_MOUNT_POINTS: Final = ("dev", "proc", "sys")


def check(layers: Sequence[Path]) -> None:
    """Refuse an image, given by its layers lowest first, whose /dev, /proc or /sys is not a directory."""
    for name in _MOUNT_POINTS:
        for layer in reversed(layers):
            try:
                info = os.lstat(layer / name)
            except FileNotFoundError:
                continue
            whiteout = stat.S_ISCHR(info.st_mode) and info.st_rdev == 0
            if not whiteout and not stat.S_ISDIR(info.st_mode):
                raise ErrImagePull(f"image is not safe to run: its /{name} is not a directory")
            break
