"""File systems on block devices: made when the device is blank, checked and mounted (upstream's FormatAndMount)."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
from pathlib import Path

from nodewright_agent.pods.volumes.errors import VolumeError
from nodewright_agent.runtime import mountinfo, processes, syscalls
from nodewright_agent.runtime.hostspace import HostSpace

log = logging.getLogger(__name__)

_LIMIT = 600.0
"""Seconds for mkfs and fsck; a large disk takes its time."""
_UNCORRECTED = 4
"""fsck's code for errors that are left."""
_MKFS = {"ext3": ["-F", "-m0"], "ext4": ["-F", "-m0"], "xfs": ["-f"], "btrfs": []}


async def mount_device(device: str, target: Path, kind: str, space: HostSpace, *, read_only: bool = False) -> None:
    """Mount a device's file system on ``target``, where it is not mounted yet. Raises VolumeError and OSError.

    A device with data that is no file system, or with one of another type, is left alone; for a claim that is only
    read, so is a blank one.
    """
    target.mkdir(mode=0o750, parents=True, exist_ok=True)
    if any(entry.mount_point == str(target) for entry in mountinfo.read()):
        return
    found = await _kind_of(device, space)
    if found == "" and read_only:
        raise VolumeError(f"cannot mount unformatted disk {device} as we are manipulating it in read-only mode")
    if found == "":
        await _run(space, [f"mkfs.{kind}", *_MKFS.get(kind, []), device])
    elif found != kind:
        raise VolumeError(f"failed to mount the volume as {kind!r}, it already contains {found}. Mount error: refused")
    elif not read_only:
        await _check(device, space)
    await asyncio.to_thread(space.call, functools.partial(syscalls.mount, device, str(target), kind))


async def _check(device: str, space: HostSpace) -> None:
    """Have fsck mend what it can; without one, and for what it only tells, the mount decides."""
    try:
        code, output = await processes.run(space.command(["fsck", "-a", device]), timeout=_LIMIT)
    except FileNotFoundError:
        return
    if code == _UNCORRECTED:
        text = output.decode(errors="replace").strip()
        raise VolumeError(f"'fsck' found errors on device {device} but could not correct them: {text}")
    if code > 1:
        log.warning("fsck of a volume ended with %d", code, extra={"device": device})


async def _kind_of(device: str, space: HostSpace) -> str:
    """The type of the file system on a device; empty for a blank device."""
    command = ["blkid", "-p", "-s", "TYPE", "-s", "PTTYPE", "-o", "export", device]
    code, output = await processes.run(space.command(command), timeout=60)
    if code == 2:  # nothing found on it
        return ""
    fields = dict(line.partition("=")[::2] for line in output.decode(errors="replace").splitlines())
    if code or not fields:
        raise VolumeError(
            f"cannot tell what is on {device}: blkid ended with {code}: {output.decode(errors='replace')}"
        )
    return fields.get("TYPE") or f"a partition table ({fields.get('PTTYPE', 'unknown')})"


async def _run(space: HostSpace, command: list[str]) -> None:
    try:
        code, output = await processes.run(space.command(command), timeout=_LIMIT)
    except FileNotFoundError:
        raise VolumeError(f"{os.path.basename(command[0])} is not installed on this node") from None
    if code:
        raise VolumeError(f"{' '.join(command)} ended with {code}: {output.decode(errors='replace').strip()}")
