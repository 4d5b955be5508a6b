"""From volumeDevices to the devices of a container (upstream's makeBlockVolumes)."""

from __future__ import annotations

import functools
import os
import stat
from collections.abc import Mapping

from nodewright.kube.objects import Container
from nodewright_agent.pods.volumes.errors import MountError
from nodewright_agent.pods.volumes.plugin import SetUp
from nodewright_agent.runtime.hostspace import HostSpace
from nodewright_agent.runtime.spec import Device


def devices_for(container: Container, made: Mapping[str, SetUp], space: HostSpace) -> list[Device]:
    """The block devices of a container, as they are now; raises MountError."""
    found = []
    for wanted in container.volume_devices:
        if not wanted.device_path.startswith("/"):
            raise MountError(f"error DevicePath `{wanted.device_path}` must be an absolute path")
        volume = made.get(wanted.name)
        if volume is None or not volume.device:
            raise MountError(f'cannot find volume "{wanted.name}" to pass into container "{container.name}"')
        try:
            info = space.call(functools.partial(os.stat, volume.path))
        except OSError as error:
            raise MountError(f'volume "{wanted.name}": {error}') from None
        if not stat.S_ISBLK(info.st_mode):
            raise MountError(f'volume "{wanted.name}": {volume.path} is not a block device any more')
        found.append(
            Device(
                path=wanted.device_path,
                major=os.major(info.st_rdev),
                minor=os.minor(info.st_rdev),
                mode=stat.S_IMODE(info.st_mode),
                uid=info.st_uid,
                gid=info.st_gid,
                access="r" if volume.read_only else "rwm",
                source=str(volume.path),
            )
        )
    return found
