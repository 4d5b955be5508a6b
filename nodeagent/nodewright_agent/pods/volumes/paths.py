"""Where the volumes of a Pod live on the host: the kubelet's layout below the agent's state directory."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from nodewright_agent.pods.volumes.errors import VolumeError

_UID = re.compile(r"[0-9A-Za-z][0-9A-Za-z-]{0,127}\Z")
_VOLUME = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?\Z")


@dataclass(frozen=True, slots=True)
class PodPaths:
    """Paths of one Pod. Names come from the API and become path components, so they are checked here again."""

    root: Path
    uid: str

    def __post_init__(self) -> None:
        """Refuse a uid that could lead elsewhere."""
        if not _UID.match(self.uid):
            raise VolumeError(f"pod uid {self.uid!r} is not usable as a directory name")

    @property
    def pod(self) -> Path:
        """Everything of this Pod."""
        return self.root / self.uid

    @property
    def volumes(self) -> Path:
        """One directory per plugin."""
        return self.pod / "volumes"

    @property
    def subpaths(self) -> Path:
        """Bind mounts of subPaths."""
        return self.pod / "volume-subpaths"

    def volume(self, plugin: str, name: str) -> Path:
        """The directory of one volume."""
        if not _VOLUME.match(name):
            raise VolumeError(f"volume name {name!r} is not a DNS label")
        return self.volumes / f"kubernetes.io~{plugin}" / name

    def subpath(self, volume: str, container: str, index: int) -> Path:
        """Where the subPath of a container's mount is bound."""
        if not _VOLUME.match(volume) or not _VOLUME.match(container):
            raise VolumeError(f"volume {volume!r} or container {container!r} is not a DNS label")
        return self.subpaths / volume / container / str(index)
