"""image volumes: the files of an OCI image, read-only (KEP-4639; its `noexec` was given up in 2025).

The image is found or pulled with that of the container that mounts it, by the volume's own policy. Each version that
a run of a container has got is mounted once, and stays mounted until the Pod goes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import msgspec

from nodewright.kube.api.volumes import Volume
from nodewright.kube.objects import Container, Pod
from nodewright_agent.pods.ports import ImageProblem
from nodewright_agent.pods.volumes.paths import PodPaths
from nodewright_agent.pods.volumes.plugin import Request, SetUp
from nodewright_agent.runtime import idmap, mountinfo, mounts
from nodewright_agent.runtime.images.model import Image

_KIND = "image"


class ImageVolume:
    """A place for the image; `mount` puts it there."""

    read_only = True

    async def set_up(self, request: Request) -> SetUp:
        """Nothing is made before the image is there; the containers that mount it wait for it."""
        return SetUp(request.paths.volume(_KIND, request.volume.name), read_only=True)


def mounted_by(pod: Pod, container: Container) -> list[Volume]:
    """The image volumes that a container mounts. Pure."""
    names = {mount.name for mount in container.volume_mounts}
    return [volume for volume in pod.spec.volumes if volume.image is not None and volume.name in names]


class Puller(Protocol):
    """What is needed of the image puller."""

    async def ensure(self, pod: Pod, container: Container) -> Image:
        """Find or pull the image of a container by its policy. Raises ``ImageProblem``."""


async def ensure(puller: Puller, pod: Pod, container: Container) -> dict[str, Image]:
    """Find or pull the images of the volumes that a container mounts. Raises ImageProblem, which names it."""
    found = {}
    for volume in mounted_by(pod, container):
        source = volume.image
        assert source is not None
        asked = msgspec.structs.replace(container, image=source.reference, image_pull_policy=source.pull_policy)
        try:
            found[volume.name] = await puller.ensure(pod, asked)
        except ImageProblem as problem:
            problem.image = source.reference
            raise
    return found


def mount(paths: PodPaths, name: str, image: Image, user_ns: str | None = None) -> Path:
    """Mount an image for a volume, once; returns where. Raises OSError and VolumeError.

    ``user_ns``: the pod's user namespace. An overlay cannot be shown through it later, but its layers can.
    """
    base = paths.volume(_KIND, name)
    target = base / image.id.rpartition(":")[2][:24]
    nothing = base / "nothing"
    for directory in (target, nothing):
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    if not any(entry.mount_point == str(target) for entry in mountinfo.read()):
        # Two directories at least: with one, overlayfs wants a writable one besides.
        layers = [*image.layers, nothing]
        if user_ns is None:
            mounts.mount_read_only_overlay(str(target), layers)
        else:
            idmap.mount_read_only_overlay(str(target), layers, user_ns, base / "layers")
    return target


def reference(image: Image) -> str:
    """How a status names the image: by digest where it came from a registry."""
    return image.digests[0] if image.digests else image.id
