"""The agent as its own runtime: runc, conmon, our image store and our pod network, all in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from nodewright_agent.engine import Context
from nodewright_agent.network.podnet import NetworkConfig, PodNetwork
from nodewright_agent.node.keeper import NodeKeeper
from nodewright_agent.node.networking import NodeNetworking
from nodewright_agent.pods import namespaces, pullassembly
from nodewright_agent.pods.manager import PodManager
from nodewright_agent.pods.operations import Parts, PodOperations
from nodewright_agent.pods.records import Records
from nodewright_agent.pods.recovery import Found
from nodewright_agent.pods.runtimeclass import RuntimeClasses
from nodewright_agent.pods.status import CONTAINER_ID_SCHEME
from nodewright_agent.pods.streams import AgentStreams
from nodewright_agent.runtime import hosttools, userns
from nodewright_agent.runtime.images.containerd import Containerd
from nodewright_agent.runtime.images.model import Image
from nodewright_agent.runtime.images.store import ImageStore
from nodewright_agent.runtime.runtime import Runtime
from nodewright_agent.runtime.sandbox import Sandboxes


class BuiltIn:
    """Implements ``engine.Engine``."""

    scheme = CONTAINER_ID_SCHEME
    written = None

    def __init__(self, context: Context, images: ImageStore, network: PodNetwork, runtime: Runtime) -> None:
        self._context, self._network = context, network
        self.images, self.containers = images, runtime
        self._parts: Parts | None = None

    @classmethod
    async def open(cls, context: Context) -> BuiltIn:
        """Open store, network and runtime. Raises RuntimeUnavailable, ImageError."""
        images = pullassembly.store(context.config)
        context.stack.push_async_callback(images.close)
        network = _network(context)
        return cls(context, images, network, await _runtime(context))

    @property
    def parts(self) -> Parts:
        """What the operations are made of, once ``work`` has made them."""
        assert self._parts is not None
        return self._parts

    @property
    def app_armor(self) -> bool:
        """Whether the kernel enforces AppArmor."""
        return self.containers.info.app_armor

    def shown(self) -> Iterable[Image]:
        """All images of the store."""
        return self.images.list()

    async def work(self, keeper: NodeKeeper) -> tuple[Parts, PodOperations]:
        """Put the parts together."""
        context, runtime = self._context, self.containers
        config, client = context.config, context.clients.node
        sources = [Containerd(self.images, context.space) for name in config.image_sources if name == "containerd"]
        records = Records(config.state / "pods")
        users = await self._users()
        keeper.user_namespaces = users.supported
        keeper.recursive_read_only = runtime.info.recursive_read_only
        keeper.handlers = {name: runtime.info.handlers[path] for name, path in config.runtime_handlers.items()}
        self._parts = Parts(
            runtime=runtime,
            sandboxes=Sandboxes(config.run / "sb", private=not context.space.separate),
            users=users,
            network=self._network,
            volumes=context.volumes(recursive_read_only=runtime.info.recursive_read_only),
            puller=pullassembly.puller(
                config, self.images, self.images.pulled.count, client, context.recorder, context.clock, sources
            ),
            classes=RuntimeClasses(client, records, config.runtime_handlers),
            records=records,
            node=context.settings(runtime.cgroups, keeper, app_armor=runtime.info.app_armor_default),
            **context.common(keeper),
        )
        return self._parts, PodOperations(self._parts)

    def networking(self, keeper: NodeKeeper) -> NodeNetworking:
        """Our own pod network, started once the node has its CIDR."""
        return NodeNetworking(self._context.clients.cluster, keeper, self._network, self._context.config)

    def streams(self, manager: PodManager, pods: Callable[[], Any]) -> AgentStreams:
        """Straight to the containers' processes."""
        return AgentStreams(manager, self.containers, self.parts.sandboxes, pods)

    async def found(self) -> Found:
        """What is on this host."""
        parts = self.parts
        parts.sandboxes.prepare()
        sandboxes = parts.sandboxes.list()
        whole = frozenset(uid for uid in sandboxes if namespaces.whole(parts.runtime, parts.sandboxes, uid))
        return await parts.found(sandboxes, whole)

    async def _users(self) -> userns.UserNamespaces:
        config = self._context.config
        roots = [Path(config.image_root), config.state]
        problem = await asyncio.to_thread(userns.probe, self.containers.layout.run / "userns-probe", roots)
        state = config.state / "pods"
        return userns.for_node(state, config.userns_range, config.userns_ids_per_pod, config.max_pods, problem)


def _network(context: Context) -> PodNetwork:
    config = context.config
    network = PodNetwork(
        NetworkConfig(state_dir=config.state / "network", cluster_cidr=config.cluster_cidr, mtu=config.pod_mtu)
    )
    context.stack.callback(network.close)
    return network


async def _runtime(context: Context) -> Runtime:
    config, space = context.config, context.space
    space.check(config.log_directories, {})
    runc, monitor = await asyncio.to_thread(hosttools.prepare, space, config.host_tools, config.runc, config.conmon)
    runtime = Runtime(
        run_dir=config.run / "rt",
        state_dir=config.state / "runtime",
        cgroup_root=config.cgroup_root,
        runc=runc,
        monitor=monitor,
        host=space,
        on_exit=context.ended,
    )
    await runtime.open()
    context.stack.push_async_callback(runtime.close)
    await runtime.know(config.runtime_handlers.values())
    return runtime
