"""Claims: PersistentVolumes of hostPath and local directories and devices; generic ephemeral volumes, too."""

from __future__ import annotations

import asyncio
import functools
import os
import stat
from pathlib import Path

from nodewright.kube.api.storage import LocalVolumeSource, PersistentVolume
from nodewright.kube.api.volumes import HostPathVolumeSource
from nodewright.kube.objects import Pod
from nodewright.kube.selectors import node_selector_matches
from nodewright_agent.pods.volumes import claims, disks, hostpath, ownership
from nodewright_agent.pods.volumes.claims import Claimed
from nodewright_agent.pods.volumes.errors import VolumeError
from nodewright_agent.pods.volumes.plugin import Host, Request, SetUp, VolumeContext
from nodewright_agent.pods.volumes.unsupported import why_not

_OPTIONS = frozenset(
    {"ro", "rw", "noexec", "exec", "nosuid", "suid", "nodev", "dev", "noatime", "atime", "nodiratime", "diratime",
     "relatime", "norelatime", "strictatime", "nostrictatime"}
)  # fmt: skip


class Claim:
    """A volume that a claim stands for."""

    read_only = False

    async def set_up(self, request: Request) -> SetUp:
        """Follow the claim and set up what it is bound to; a volume that was set up before is taken as it was."""
        volume, pod, paths, host = request.volume, request.pod, request.paths, request.host
        known = claims.remembered(paths, volume.name)
        claimed = known or await claims.resolve(volume, pod, host.client)
        claims.check_mode(volume, pod, claimed)
        try:
            _reserve(claimed, pod, host)
            if known is None:
                _check_node(claimed.volume, request.context)
            made = await _make(claimed, request, fresh=known is None)
        except VolumeError as error:
            error.name = claimed.name
            raise
        except OSError as error:
            raise VolumeError(str(error), name=claimed.name) from error
        if known is None:
            await asyncio.to_thread(claims.remember, paths, volume.name, claimed)
        return made


async def _make(claimed: Claimed, request: Request, *, fresh: bool) -> SetUp:
    spec = claimed.volume.spec
    if spec.host_path is not None:
        return await _host_path(claimed, spec.host_path, request.host)
    if spec.local is not None:
        return await _local(claimed, spec.local, request, fresh=fresh)
    raise why_not(spec.source, spec)


def _reserve(claimed: Claimed, pod: Pod, host: Host) -> None:
    uid = pod.metadata.uid
    if claimed.exclusive and host.exclusive.setdefault(claimed.name, uid) != uid:
        raise VolumeError("volume uses the ReadWriteOncePod access mode and is already in use by another pod")


def _check_node(volume: PersistentVolume, context: VolumeContext) -> None:
    affinity = volume.spec.node_affinity
    if affinity is None or affinity.required is None or context.labels is None:
        return
    if not node_selector_matches(affinity.required, context.labels, context.node_name):
        raise VolumeError("no matching NodeSelectorTerms", step="MountVolume.NodeAffinity check failed")


async def _host_path(claimed: Claimed, source: HostPathVolumeSource, host: Host) -> SetUp:
    if claimed.block:
        raise VolumeError("hostPath volumes have no block mode; a local volume has",
                          step="MapVolume.NewBlockVolumeMapper failed")  # fmt: skip
    if claimed.volume.spec.mount_options:
        raise VolumeError('Mount options are not supported for volume type "kubernetes.io/host-path"')
    await hostpath.prepare(source, host.space)
    return SetUp(Path(source.path), host=True, read_only=claimed.read_only)


async def _local(claimed: Claimed, source: LocalVolumeSource, request: Request, *, fresh: bool) -> SetUp:
    path, host = source.path, request.host
    options = mount_options(claimed.volume.spec.mount_options)
    if not path.startswith("/") or ".." in path.split("/") or "\0" in path:
        raise VolumeError(f"invalid path: {path} must be absolute and must not contain '..'")
    mode = await asyncio.to_thread(host.space.call, functools.partial(_mode, path))
    if mode is None:
        raise VolumeError(f'path "{path}" does not exist', step="MountVolume.NewMounter initialization failed")
    if claimed.block:
        if not stat.S_ISBLK(mode):
            raise VolumeError(f"path {path} is not a block device", step="MapVolume.SetUpDevice failed")
        return SetUp(Path(path), host=True, device=True, read_only=claimed.read_only)
    directory = Path(path)
    if stat.S_ISBLK(mode):
        directory = request.paths.volume("local-volume", request.volume.name)
        async with host.formatting:
            kind = source.fs_type or "ext4"
            await disks.mount_device(path, directory, kind, host.space, read_only=claimed.read_only)
    elif not stat.S_ISDIR(mode):
        raise VolumeError(f"path {path} is neither a directory nor a block device")
    group = ownership.fs_group(request.pod)
    if fresh and group is not None and not claimed.read_only:
        work = functools.partial(ownership.hand_over, str(directory), group, ownership.change_policy(request.pod))
        await asyncio.to_thread(host.space.call, work)
    return SetUp(directory, host=stat.S_ISDIR(mode), read_only=claimed.read_only, options=options)


def mount_options(wanted: list[str]) -> tuple[str, ...]:
    """A volume's mountOptions as those of the bind mount. Pure; raises VolumeError for others."""
    given = [option for text in wanted for option in text.split(",") if option not in ("", "bind", "defaults")]
    if unknown := [option for option in given if option not in _OPTIONS]:
        raise VolumeError(f"mount options {','.join(unknown)} have no meaning for a directory of this node")
    return tuple(given)


def _mode(path: str) -> int | None:
    try:
        return os.stat(path).st_mode
    except FileNotFoundError:
        return None


def release(exclusive: dict[str, str], pod_uid: str) -> None:
    """Give up what one Pod alone had."""
    for name in [name for name, uid in exclusive.items() if uid == pod_uid]:
        del exclusive[name]
