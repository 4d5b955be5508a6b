"""Images as volumes: mounted once for each sandbox, for reading only, until the sandbox is stopped."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from nodewright_agent.cri.errors import Invalid, Lacking, NotFound
from nodewright_agent.cri.lookup import find
from nodewright_agent.runtime import mountinfo, mounts, rootfs
from nodewright_agent.runtime.errors import CreateContainerError
from nodewright_agent.runtime.images.model import Image
from nodewright_agent.runtime.images.store import ImageStore
from nodewright_agent.runtime.sandbox import SandboxPaths
from nodewright_agent.runtime.store import remove_tree


class ImageMounts:
    """All of them, below ``root``: ``<sandbox>/<beginning of the image's id>``."""

    def __init__(self, root: Path, store: ImageStore) -> None:
        """Nothing is made yet."""
        self._root, self._store = root, store

    def prepare(self, sandbox: str, paths: SandboxPaths, config: Any) -> None:
        """Give each mount of an image its place on the host, and say in it which image that is.

        Raises CriError, CreateContainerError, OSError.
        """
        for mount in config.mounts:
            if not mount.HasField("image"):
                continue
            if mount.host_path:
                raise Invalid(f"mount {mount.container_path}: host_path and image are both set")
            if paths.user is not None:
                raise Lacking(f"mount {mount.container_path}: images as volumes in a user namespace")
            image = find(self._store, mount.image.image)
            if image is None:
                raise NotFound(f'image "{mount.image.image}" of mount {mount.container_path} is not in the store')
            mount.host_path = _within(self._mount(sandbox, image), mount.image_sub_path)
            mount.readonly = True
            mount.image.image_ref = image.id

    def remove(self, sandbox: str) -> None:
        """Unmount all of a sandbox; idempotent. Containers that still run keep what they have."""
        mounts.unmount_below(self._root / sandbox)
        remove_tree(self._root / sandbox)

    def _mount(self, sandbox: str, image: Image) -> Path:
        base = self._root / sandbox
        target, nothing = base / image.id.rpartition(":")[2][:24], base / "nothing"
        for directory in (target, nothing):
            directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        if not any(entry.mount_point == str(target) for entry in mountinfo.read()):
            # Two directories at least: with one, overlayfs wants a writable one besides.
            mounts.mount_read_only_overlay(str(target), [*image.layers, nothing])
        return target


def _within(root: Path, sub_path: str) -> str:
    """A path inside an image, its links followed inside it only. Raises Invalid."""
    if not sub_path:
        return str(root)
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = rootfs.resolve(fd, sub_path, "image_sub_path")
    except CreateContainerError as error:
        raise Invalid(str(error)) from None
    finally:
        os.close(fd)
    path = f"{root}{found}"
    if not os.path.lexists(path):
        raise Invalid(f"image_sub_path {sub_path!r} does not exist in the image")
    return path
