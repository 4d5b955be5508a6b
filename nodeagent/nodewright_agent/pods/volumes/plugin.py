"""What a volume plugin is, and what it may use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

from nodewright.kube.api.volumes import Volume
from nodewright.kube.objects import Pod
from nodewright_agent.pods.volumes.objects import Key, ObjectCache, Value
from nodewright_agent.pods.volumes.paths import PodPaths
from nodewright_agent.pods.volumes.tokens import TokenSource
from nodewright_agent.runtime.hostspace import HostSpace


@dataclass(frozen=True)
class VolumeContext:
    """What the node contributes: its allocatable resources, for the downward API and memory-backed volumes."""

    allocatable: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Host:
    """What plugins use besides the file system; ``space``: where hostPath volumes are."""

    objects: ObjectCache
    tokens: TokenSource
    space: HostSpace = field(default_factory=HostSpace)


@dataclass
class SetUp:
    """A volume that is ready: where it is, what it was made from, and when it must be renewed."""

    path: Path
    used: dict[Key, Value | None] = field(default_factory=dict)
    renew_at: datetime | None = None


class Plugin(Protocol):
    """One kind of volume. `set_up` is idempotent: it also brings an existing volume up to date.

    Raises VolumeError for what the Pod's owner can mend, ApiError and OSError for the rest. Objects that were looked
    for are in `used` even then, so that their appearance can be waited for.
    """

    read_only: bool

    async def set_up(
        self,
        volume: Volume,
        pod: Pod,
        paths: PodPaths,
        host: Host,
        context: VolumeContext,
        used: dict[Key, Value | None],
    ) -> SetUp:
        """Make the volume, or bring it up to date."""
        ...
