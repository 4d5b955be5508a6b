"""What a volume plugin is, and what it may use."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

from nodewright.kube.api.volumes import Volume
from nodewright.kube.client import Client
from nodewright.kube.objects import Pod
from nodewright_agent.pods.volumes.objects import Key, ObjectCache, Value
from nodewright_agent.pods.volumes.paths import PodPaths
from nodewright_agent.pods.volumes.tokens import TokenSource
from nodewright_agent.runtime.hostspace import HostSpace


@dataclass(frozen=True)
class VolumeContext:
    """What the node contributes: allocatable resources, for the downward API and memory-backed volumes; its labels.

    ``labels`` None: not known yet (the API server is away).
    """

    allocatable: Mapping[str, str] = field(default_factory=dict)
    node_name: str = ""
    labels: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Host:
    """What plugins use besides the file system; ``space``: where hostPath volumes are.

    ``exclusive``: which Pod has a ReadWriteOncePod volume, by the volume's name.
    """

    client: Client
    objects: ObjectCache
    tokens: TokenSource
    space: HostSpace = field(default_factory=HostSpace)
    exclusive: dict[str, str] = field(default_factory=dict)
    formatting: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while a device is looked at and perhaps formatted: two Pods may want the same one."""


@dataclass
class SetUp:
    """A volume that is ready: where it is, what it was made from, and when it must be renewed.

    host        the path is the host's own, not one below the agent's state: a missing directory is made when mounted
    device      the path is a block device's, for volumeDevices
    read_only   whatever the mount says
    options     more mount options
    """

    path: Path
    used: dict[Key, Value | None] = field(default_factory=dict)
    renew_at: datetime | None = None
    host: bool = False
    device: bool = False
    read_only: bool = False
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Request:
    """One volume of one Pod that is to be set up, and what may be used for it.

    ``used`` is filled with the objects that were looked for, even where that fails: their appearance can be waited for.
    """

    volume: Volume
    pod: Pod
    paths: PodPaths
    host: Host
    context: VolumeContext
    used: dict[Key, Value | None] = field(default_factory=dict)


class Plugin(Protocol):
    """One kind of volume. `set_up` is idempotent: it also brings an existing volume up to date.

    Raises VolumeError for what the Pod's owner can mend, ApiError and OSError for the rest.
    """

    read_only: bool

    async def set_up(self, request: Request) -> SetUp:
        """Make the volume, or bring it up to date."""
        ...
