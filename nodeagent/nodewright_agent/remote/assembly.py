"""Builds the parts of a node whose containers another runtime runs."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from nodewright.kube.backoff import Backoff
from nodewright.kube.client import Client as KubeClient
from nodewright_agent.config import AgentConfig
from nodewright_agent.cri import wire
from nodewright_agent.engine import Context
from nodewright_agent.node.keeper import NodeKeeper
from nodewright_agent.node.status import OtherRuntime
from nodewright_agent.pods import pullassembly
from nodewright_agent.pods.manager import PodManager
from nodewright_agent.pods.records import Records
from nodewright_agent.pods.recovery import Found
from nodewright_agent.pods.runtimeclass import RuntimeClasses
from nodewright_agent.remote import facts
from nodewright_agent.remote.client import CallFailed, Client
from nodewright_agent.remote.config import Host, Placing
from nodewright_agent.remote.containers import RemoteContainers
from nodewright_agent.remote.facts import RuntimeFacts
from nodewright_agent.remote.images import RemoteImages
from nodewright_agent.remote.link import Link
from nodewright_agent.remote.operations import RemoteOperations, RemoteParts
from nodewright_agent.remote.streams import RemoteStreams
from nodewright_agent.remote.watching import Watcher
from nodewright_agent.runtime import apparmor, cgroup_math, cgroups, userns
from nodewright_agent.runtime.cgroups import Cgroups
from nodewright_agent.runtime.errors import RuntimeUnavailable
from nodewright_agent.runtime.images.model import Image
from nodewright_agent.usage.disk import Count

log = logging.getLogger(__name__)

PATIENCE = 120.0
"""Seconds in which the runtime has to answer when the agent starts: both may have been started together."""


class Remote:
    """Implements ``engine.Engine``."""

    def __init__(
        self, context: Context, client: Client, images: RemoteImages, containers: RemoteContainers, about: RuntimeFacts
    ) -> None:
        self._context, self._client, self._about = context, client, about
        self.images, self.containers, self.scheme = images, containers, about.scheme
        self.app_armor = apparmor.enabled()
        self._up = asyncio.Event()
        self._up.set()  # it has just answered
        self._parts: RemoteParts | None = None
        self._keeper: NodeKeeper | None = None

    @classmethod
    async def open(cls, context: Context) -> Remote:
        """Find the runtime, and what it is like. Raises RuntimeUnavailable, ImageError."""
        config = context.config
        context.space.check(config.log_directories, {})
        client = Client(config.container_runtime_endpoint, config.image_service_endpoint)
        context.stack.push_async_callback(client.close)
        about = await _asked(client)
        log.info("another runtime runs the containers of this node", extra={"runtime": about.described})
        images = RemoteImages(client, config.state / "images", pullassembly.gate(config), config.node_name)
        images.sandbox_image = about.sandbox_image
        try:
            return await cls._opened(context, client, images, about)
        except CallFailed as error:
            raise RuntimeUnavailable(f"the container runtime at {client.endpoint}: {error}") from error

    @classmethod
    async def _opened(cls, context: Context, client: Client, images: RemoteImages, about: RuntimeFacts) -> Remote:
        """Find what an earlier agent left there. Raises CallFailed."""
        config = context.config
        if (where := await images.mountpoint()) and Path(where).is_dir():
            config.image_root = where  # eviction and image collection look at the file system of the runtime's images
        containers = RemoteContainers(
            client, *_cgroups(config), config.node_name, config.cgroup_root, Path(config.image_root)
        )
        containers.on_exit = context.ended
        containers.on_sandbox_lost = lambda uid: _sandbox_lost(context.managers, uid)
        containers.cared_for = lambda uid: any(one.closing or uid in one.workers for one in context.managers)
        await containers.open()
        return cls(context, client, images, containers, about)

    @property
    def parts(self) -> RemoteParts:
        """What the operations are made of, once ``work`` has made them."""
        assert self._parts is not None
        return self._parts

    async def written(self) -> Mapping[str, Count]:
        """What containers have written, by id; nothing where the runtime does not tell."""
        return await self.containers.written()

    def shown(self) -> Iterable[Image]:
        """All images, as last looked for."""
        return self.images.all()

    async def work(self, keeper: NodeKeeper) -> tuple[RemoteParts, RemoteOperations]:
        """Put the parts together."""
        context, config = self._context, self._context.config
        client, records = context.clients.node, Records(config.state / "pods")
        self._keeper = keeper
        self._changed(self._about)
        settings = context.settings(self.containers.cgroups, keeper, app_armor=self.app_armor)
        rro = self._about.handlers.get("")
        self._parts = RemoteParts(
            runtime=self.containers,
            client=self._client,
            users=userns.for_node(
                config.state / "pods", config.userns_range, config.userns_ids_per_pod, config.max_pods
            ),
            placing=Placing(config.node_name, settings, self.containers.host),
            facts=lambda: self._about,
            up=self._up,
            volumes=context.volumes(recursive_read_only=rro is not None and rro.recursive_read_only),
            puller=pullassembly.puller(
                config,
                self.images,
                self.images.pulled.count,
                client,
                context.recorder,
                context.clock,
                [self.images],
            ),
            classes=_Handlers(client, records, lambda: self._about),
            records=records,
            node=settings,
            **context.common(keeper),
        )
        return self._parts, RemoteOperations(self._parts)

    def networking(self, keeper: NodeKeeper) -> Link:
        """The runtime has the network; we ask it whether it is there."""
        watcher = Watcher(self._client, self.containers, events=self._about.events)
        return Link(self._client, watcher, self.images, keeper, self._context.config, self._changed, self._up)

    def streams(self, manager: PodManager, pods: Callable[[], Any]) -> RemoteStreams:
        """To the runtime's streaming server."""
        return RemoteStreams(manager, self.containers, self._client, pods)

    async def found(self) -> Found:
        """What the runtime has of this node, and what is on this host."""
        sandboxes = self.containers.sandboxes
        whole = frozenset(uid for uid, found in sandboxes.items() if found[-1].ready)
        return await self.parts.found(sandboxes, whole)

    def _changed(self, about: RuntimeFacts) -> None:
        """Tell the node what the runtime is like."""
        self._about = about
        assert self._keeper is not None
        other = OtherRuntime(
            version=about.described,
            handlers=about.handlers,
            supplemental_groups_policy=about.supplemental_groups_policy,
            user_namespaces_host_network=about.user_namespaces_host_network,
        )
        if other != self._keeper.other:
            self._keeper.other = other
            self._keeper.refresh()


class _Handlers(RuntimeClasses):
    """The runtime's own handlers. One that does not tell which it has refuses those that it has not."""

    def __init__(self, client: KubeClient, records: Records, about: Callable[[], RuntimeFacts]) -> None:
        super().__init__(client, records, {})
        self._about = about

    def known(self, handler: str) -> bool:
        """Tell whether there is such a handler."""
        handlers = self._about().handlers
        return not handlers or handler in handlers


async def _asked(client: Client) -> RuntimeFacts:
    """Ask what the runtime is like; wait for it a while. Raises RuntimeUnavailable."""
    deadline, backoff = time.monotonic() + PATIENCE, Backoff(0.2, 5.0)
    while True:
        try:
            version = await client.runtime("Version", deadline=10.0)
            status = await client.runtime("Status", deadline=10.0, verbose=True)
            await _check_driver(client)
        except CallFailed as error:
            text = f"the container runtime at {client.endpoint} does not answer: {error}"
            if error.unknown_call:
                raise RuntimeUnavailable(f"{client.endpoint} does not speak CRI v1: {error}") from error
            if time.monotonic() >= deadline:
                raise RuntimeUnavailable(text) from error
            log.warning("%s", text)
            await asyncio.sleep(backoff.next())
        else:
            return facts.of_answers(version, status)


async def _check_driver(client: Client) -> None:
    """Pods' cgroups are directories that the agent makes. Raises RuntimeUnavailable, CallFailed."""
    try:
        answer = await client.runtime("RuntimeConfig", deadline=10.0)
    except CallFailed as error:
        if error.unknown_call:
            return  # before CRI of 1.28; with the other driver it refuses the first sandbox
        raise
    if answer.HasField("linux") and answer.linux.cgroup_driver == wire.SYSTEMD:
        raise RuntimeUnavailable(
            f"the container runtime at {client.endpoint} has the cgroup driver systemd, and the agent makes the pods' "
            "cgroups itself: set the runtime's to cgroupfs (containerd: SystemdCgroup = false)"
        )


def _cgroups(config: AgentConfig) -> tuple[Cgroups, Host]:
    found = cgroups.detect()
    pods = cgroup_math.kubepods_path(config.cgroup_root)
    found.create(pods)
    return found, Host(found.version, found.limits_swap(pods))


def _sandbox_lost(managers: Iterable[PodManager], uid: str) -> None:
    for manager in managers:
        if (worker := manager.workers.get(uid)) is not None:
            worker.sandbox_lost()
