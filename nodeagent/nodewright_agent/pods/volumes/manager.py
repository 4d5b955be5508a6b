"""Sets up the volumes of Pods, keeps them current while the Pods run, and removes them."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from nodewright.kube.api.volumes import Volume
from nodewright.kube.client import Client
from nodewright.kube.errors import ApiError
from nodewright.kube.objects import ConfigMap, Container, Pod, Secret
from nodewright.kube.times import now
from nodewright_agent.failpoints import failpoint
from nodewright_agent.pods import env
from nodewright_agent.pods.volumes import devices, envfiles, imagevolumes, mounts
from nodewright_agent.pods.volumes.errors import (
    ClaimError,
    FailedMount,
    MountError,
    VolumeError,
    failed,
    unprocessed,
)
from nodewright_agent.pods.volumes.objects import Key, Kind, ObjectCache, Value
from nodewright_agent.pods.volumes.paths import PodPaths
from nodewright_agent.pods.volumes.persistent import release
from nodewright_agent.pods.volumes.plugin import Host, Request, SetUp, VolumeContext
from nodewright_agent.pods.volumes.registry import plugin_for
from nodewright_agent.pods.volumes.tokens import TokenSource
from nodewright_agent.runtime import mountinfo
from nodewright_agent.runtime.hostspace import HostSpace
from nodewright_agent.runtime.images.fsutil import remove_tree
from nodewright_agent.runtime.images.model import Image
from nodewright_agent.runtime.mounts import unmount_below
from nodewright_agent.runtime.spec import Device, Mount

log = logging.getLogger(__name__)

_RETRY = (1.0, 60.0)
_ASK_AGAIN = (0.5, 8.0)

Failed = Callable[[Pod, str], None]
Wake = Callable[[str], None]


class VolumeManager:
    """The volumes of all Pods of one node, below `state_dir`/pods.

    `on_failed(pod, message)` hears of updates that fail while a Pod runs (a FailedMount event; the old content stays).
    `on_wake(pod_uid)` is called when an object appears or changes that a failed `setup` was lacking: try again now.
    """

    def __init__(
        self,
        client: Client,
        state_dir: Path,
        *,
        on_failed: Failed | None = None,
        on_wake: Wake | None = None,
        space: HostSpace | None = None,
        recursive_read_only: bool = False,
    ) -> None:
        """Nothing is touched before `setup`. `space`: where containers live, and so the paths of hostPath volumes.

        `recursive_read_only`: whether the runtime can make a mount and those below it read-only.
        """
        self._root = Path(state_dir) / "pods"
        self._host = Host(client, ObjectCache(client), TokenSource(client), space or HostSpace())
        self._recursive_read_only = recursive_read_only
        self._on_failed = on_failed
        self._on_wake = on_wake
        self._pods: dict[str, _PodVolumes] = {}

    async def setup(self, pod: Pod, ctx: VolumeContext | None = None) -> dict[str, Path]:
        """Make all volumes of a Pod, or find them made; returns their paths by name. Raises FailedMount.

        Idempotent, and what a new agent calls for Pods that run already: their volumes become current again.
        """
        uid = pod.metadata.uid
        live = self._pods.get(uid)
        if live is None:
            try:
                paths = PodPaths(self._root, uid)
            except VolumeError as error:
                raise FailedMount([str(error)]) from None
            live = self._pods[uid] = _PodVolumes(paths, self._host, self._on_failed, self._on_wake)
        return await live.set_up(pod, ctx or VolumeContext())

    def update(self, pod: Pod, ctx: VolumeContext | None = None) -> None:
        """Tell of a changed Pod object: its labels and annotations may be in files."""
        live = self._pods.get(pod.metadata.uid)
        if live is not None:
            live.pod_changed(pod, ctx)

    async def teardown(self, pod_uid: str) -> None:
        """Unmount and remove all that `setup` and `mounts_for` made, also what an earlier agent made. Idempotent.

        Raises OSError if something cannot be unmounted; nothing is ever deleted through a mount.
        """
        live = self._pods.pop(pod_uid, None)
        if live is not None:
            await live.stop()
        self._host.tokens.forget(pod_uid)
        release(self._host.exclusive, pod_uid)
        await asyncio.to_thread(_remove, PodPaths(self._root, pod_uid))

    def mounts_for(
        self, pod: Pod, container: Container, volumes: Mapping[str, Path], environment: Mapping[str, str]
    ) -> list[Mount]:
        """The mounts of a container, subPaths prepared; raises MountError. `environment` serves subPathExpr."""
        uid = pod.metadata.uid
        live = self._pods.get(uid)
        made = live.made if live is not None else {}
        known = mounts.Known(PodPaths(self._root, uid), self._host.space, made, self._recursive_read_only)
        return mounts.mounts_for(pod, container, volumes, environment, known)

    def devices_for(self, pod: Pod, container: Container) -> list[Device]:
        """The block devices of a container; raises MountError."""
        live = self._pods.get(pod.metadata.uid)
        return devices.devices_for(container, live.made if live is not None else {}, self._host.space)

    async def mount_image(self, pod: Pod, name: str, image: Image, user_ns: str | None = None) -> None:
        """Put an image where the containers that start from now on find the volume. Raises MountError."""
        live = self._pods.get(pod.metadata.uid)
        if live is None:
            return  # torn down meanwhile
        try:
            path = await asyncio.to_thread(imagevolumes.mount, live.paths, name, image, user_ns)
        except (OSError, VolumeError) as error:
            raise MountError(f"failed to mount image volume {name}: {error}", "CreateContainerError") from error
        live.images[name] = path

    async def env_sources(self, pod: Pod, container: Container) -> env.EnvSources:
        """Read what a container's environment refers to; objects that do not exist are absent.

        Raises ApiError, and CreateContainerConfigError for env files that cannot be read.
        """
        config_maps, secrets = env.references(container)
        kinds: tuple[tuple[Kind, Mapping[str, bool]], ...] = (("configmap", config_maps), ("secret", secrets))
        keys: list[Key] = [(kind, pod.metadata.namespace, name) for kind, names in kinds for name in names]
        found = dict(zip(keys, await asyncio.gather(*(self._host.objects.read(*key) for key in keys)), strict=True))
        return env.EnvSources(
            {key[2]: value for key, value in found.items() if isinstance(value, ConfigMap)},
            {key[2]: value for key, value in found.items() if isinstance(value, Secret)},
            envfiles.read(container, PodPaths(self._root, pod.metadata.uid)),
        )

    def known(self) -> list[str]:
        """Uids of Pods that have volumes on disk, for an agent that cleans up after an earlier one."""
        if not self._root.is_dir():
            return []
        return sorted(entry.name for entry in self._root.iterdir() if (entry / "volumes").is_dir())

    async def close(self) -> None:
        """Stop following; volumes stay as they are."""
        for live in self._pods.values():
            await live.stop()
        self._pods.clear()
        await self._host.objects.close()


class _PodVolumes:
    """The volumes of one Pod."""

    def __init__(self, paths: PodPaths, host: Host, on_failed: Failed | None, on_wake: Wake | None) -> None:
        self.paths = paths
        self.images: dict[str, Path] = {}
        """Where the images of image volumes are mounted now."""
        self._done: dict[str, SetUp] = {}
        self._host = host
        self._on_failed = on_failed
        self._on_wake = on_wake
        self._pod: Pod
        self._context = VolumeContext()
        self._live: dict[str, _Live] = {}
        self._lacking: set[Key] = set()
        self._ask_again: asyncio.TimerHandle | None = None
        self._delay = _ASK_AGAIN[0]

    @property
    def made(self) -> dict[str, SetUp]:
        """The volumes that are ready, image volumes as far as their images are mounted."""
        mounted = {
            name: dataclasses.replace(self._done[name], path=path)
            for name, path in self.images.items()
            if name in self._done
        }
        return self._done | mounted

    async def set_up(self, pod: Pod, context: VolumeContext) -> dict[str, Path]:
        self._pod, self._context = pod, context
        self._stop_lacking()
        wanted = used_volumes(pod)
        results = await asyncio.gather(*(self._one(volume) for volume in wanted))
        named = [(volume.name, result) for volume, result in zip(wanted, results, strict=True)]
        lost = [(name, str(error)) for name, error in named if isinstance(error, ClaimError)]
        problems = [failed(name, error) for name, error in named
                    if isinstance(error, Exception) and not isinstance(error, ClaimError)]  # fmt: skip
        if lost:
            problems.append(unprocessed((name for name, it in named if isinstance(it, Exception)), lost))
            self._ask_later()
        if problems:
            raise FailedMount(problems)
        self._delay = _ASK_AGAIN[0]
        return {name: done.path for name, done in named if isinstance(done, SetUp)}

    async def _one(self, volume: Volume) -> SetUp | Exception:
        """Set up one volume; returns the error when it cannot be done."""
        live = self._live.get(volume.name)
        if live is None:
            live = self._live[volume.name] = _Live(self, volume)
        used: dict[Key, Value | None] = {}
        try:
            done = await live.make(used)
        except (VolumeError, ApiError, OSError) as error:
            for key, value in used.items():
                if value is None and key not in self._lacking:
                    self._lacking.add(key)
                    self._host.objects.hold(key, self._wake, None)
            return error
        failpoint("volume.made")
        return done

    def _wake(self) -> None:
        if self._on_wake is not None:
            self._on_wake(self.paths.uid)

    def _ask_later(self) -> None:
        """Claims may only be read, not watched, by a node: look again, soon at first."""
        self._ask_again = asyncio.get_running_loop().call_later(self._delay, self._wake)
        self._delay = min(self._delay * 2, _ASK_AGAIN[1])

    def _stop_lacking(self) -> None:
        for key in self._lacking:
            self._host.objects.release(key, self._wake)
        self._lacking.clear()
        if self._ask_again is not None:
            self._ask_again.cancel()
            self._ask_again = None

    def pod_changed(self, pod: Pod, context: VolumeContext | None) -> None:
        old = self._pod.metadata
        self._pod, self._context = pod, context or self._context
        if (old.labels, old.annotations) != (pod.metadata.labels, pod.metadata.annotations):
            for live in self._live.values():
                if live.shows_pod:
                    live.refresh()

    async def stop(self) -> None:
        self._stop_lacking()
        for live in self._live.values():
            await live.stop()
        self._live.clear()

    async def plug(self, volume: Volume, used: dict[Key, Value | None]) -> SetUp:
        plugin = plugin_for(volume)
        done = await plugin.set_up(Request(volume, self._pod, self.paths, self._host, self._context, used))
        self._done[volume.name] = done
        return done

    def hold(self, key: Key, listener: Callable[[], None], known: Value | None) -> None:
        self._host.objects.hold(key, listener, known)

    def release(self, key: Key, listener: Callable[[], None]) -> None:
        self._host.objects.release(key, listener)

    def report(self, message: str) -> None:
        if self._on_failed is not None:
            self._on_failed(self._pod, message)


class _Live:
    """One volume that follows its sources: objects by watch, tokens by time."""

    def __init__(self, owner: _PodVolumes, volume: Volume) -> None:
        self._owner = owner
        self._volume = volume
        self._held: set[Key] = set()
        self._lock = asyncio.Lock()
        self._dirty = False
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        projected = volume.projected.sources if volume.projected is not None else ()
        self.shows_pod = volume.downward_api is not None or any(s.downward_api is not None for s in projected)

    async def make(self, used: dict[Key, Value | None]) -> SetUp:
        async with self._lock:
            done = await self._owner.plug(self._volume, used)
            self._follow(done)
            return done

    def _follow(self, done: SetUp) -> None:
        """Hold exactly what the volume is made from, and set the clock for its tokens."""
        for key in self._held - set(done.used):
            self._owner.release(key, self.refresh)
        for key in set(done.used) - self._held:
            self._owner.hold(key, self.refresh, done.used[key])
        self._held = set(done.used)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if done.renew_at is not None:
            wait = max((done.renew_at - now()).total_seconds(), _RETRY[0])
            self._timer = asyncio.get_running_loop().call_later(wait, self.refresh)

    def refresh(self) -> None:
        """Bring the volume up to date soon; many calls in a row make one or two updates."""
        self._dirty = True
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._refresh())

    async def _refresh(self) -> None:
        delay = _RETRY[0]
        said = ""
        while self._dirty:
            self._dirty = False
            try:
                await self.make({})
                delay = _RETRY[0]
            except (VolumeError, ApiError, OSError) as error:
                message = failed(self._volume.name, error)
                if message != said:
                    said = message
                    self._owner.report(message)
                    log.warning("a volume cannot be brought up to date; it keeps its content",
                                extra={"volume": self._volume.name, "error": str(error)})  # fmt: skip
                if isinstance(error, VolumeError) and self._held:
                    continue  # what is missing is watched, so its return will be told
                await asyncio.sleep(delay * random.uniform(0.5, 1.0))
                delay = min(delay * 2, _RETRY[1])
                self._dirty = True

    async def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for key in self._held:
            self._owner.release(key, self.refresh)
        self._held.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


def used_volumes(pod: Pod) -> list[Volume]:
    """The volumes that some container of the Pod mounts, reads or takes as a device; upstream makes no others. Pure."""
    names: set[str] = set()
    for one in (*pod.spec.init_containers, *pod.spec.containers, *pod.spec.ephemeral_containers):
        names.update(mount.name for mount in one.volume_mounts)
        names.update(device.name for device in one.volume_devices)
        names.update(selector.volume_name for selector in env.file_references(one))
    return [volume for volume in pod.spec.volumes if volume.name in names]


def _remove(paths: PodPaths) -> None:
    for folder in (paths.subpaths, paths.volumes):
        if not folder.is_dir():
            continue
        unmount_below(folder)
        failpoint("volumes.unmounted")
        left: Sequence[str] = mountinfo.below(mountinfo.read(), folder)
        if left:
            raise OSError(f"still mounted, so the volumes stay: {', '.join(left)}")
        remove_tree(folder)
    try:
        paths.pod.rmdir()
    except OSError:
        pass  # absent, or others keep something there
