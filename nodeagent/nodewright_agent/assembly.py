"""Builds the parts of a node from its settings and connects them; the only place that knows all of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from nodewright.kube import quantity
from nodewright.kube.cache import WatchCache
from nodewright.kube.events import EventRecorder
from nodewright.kube.objects import Pod, Service
from nodewright_agent import heap
from nodewright_agent.bootstrap.clients import Clients
from nodewright_agent.config import AgentConfig, ConfigError
from nodewright_agent.engine import Context, Engine, Networking
from nodewright_agent.gates import Gates
from nodewright_agent.liveconfig.assembly import AgentLive, for_agent
from nodewright_agent.node import selfsigned
from nodewright_agent.node.keeper import NodeKeeper
from nodewright_agent.node.status import unreserved_cpu
from nodewright_agent.pods.backoff import BackoffPolicy
from nodewright_agent.pods.common import Common
from nodewright_agent.pods.machine import Settings
from nodewright_agent.pods.manager import PodManager
from nodewright_agent.pods.ports import Clock, Operations
from nodewright_agent.pods.probes.runner import ProbeRunner
from nodewright_agent.pods.qos import QosCgroups
from nodewright_agent.pods.static.assembly import build as static_pods
from nodewright_agent.pods.static.manager import StaticPods
from nodewright_agent.pods.static.mirrors import MirrorPods
from nodewright_agent.pods.status import NodeFacts
from nodewright_agent.pods.status_writer import StatusWriter
from nodewright_agent.pods.trace import Tracer
from nodewright_agent.pods.view import AgentPodsView
from nodewright_agent.pods.worker import WorkerDeps
from nodewright_agent.proxy.config import ProxyConfig
from nodewright_agent.runtime.hostspace import HostSpace
from nodewright_agent.server.authn import Authenticator
from nodewright_agent.server.authz import Authorizer
from nodewright_agent.server.server import KubeletServer
from nodewright_agent.server.tls import ServingTLS
from nodewright_agent.standalone import EveryCertificate, NobodyWatches
from nodewright_agent.upkeep import Upkeep
from nodewright_agent.upkeep import build as build_upkeep


@dataclass(slots=True)
class Node:
    """The parts that run."""

    config: AgentConfig
    clients: Clients
    recorder: EventRecorder
    engine: Engine
    parts: Common
    keeper: NodeKeeper
    networking: Networking
    manager: PodManager
    server: KubeletServer
    live: AgentLive
    static: StaticPods
    upkeep: Upkeep

    async def keep_identity(self) -> None:
        """Keep the node's certificate good; never returns."""
        if self.clients.identity is None:
            await asyncio.Event().wait()
        else:
            await self.clients.identity.run(self.clients.node, self.clients.cluster)

    async def serve(self) -> None:
        """Start the kubelet API, once it is known whose certificates to trust."""
        identity = self.clients.identity
        if identity is not None and not self.config.client_ca_file and not identity.authority.known.is_set():
            self.keeper.report("server", "server: waiting for the authorities of client certificates")
            await identity.authority.known.wait()
        await self.server.start()

    async def run_proxy(self) -> None:
        """Run the service proxy in this process, unless it is switched off."""
        config = self.config
        if config.proxy_mode == "none":
            return
        # Late: a node whose Services are somebody else's work does not pay for ours.
        from nodewright_agent.proxy.proxy import Proxy

        settings = ProxyConfig(
            node_name=config.node_name,
            mode=config.proxy_mode,
            cluster_cidr=config.cluster_cidr,
            node_ips=(config.node_ip,),
            service_proxy_name=config.service_proxy_name,
            healthz_address=config.node_ip,
            healthz_port=config.proxy_healthz_port,
            metrics_port=config.proxy_metrics_port,
        )
        proxy = Proxy(settings, self.clients.cluster, recorder=self.recorder, wishes=self.live.wishes)
        await self.live.served(proxy.run())


@contextlib.asynccontextmanager
async def assemble(
    config: AgentConfig, clients: Clients, recorder: EventRecorder, services: WatchCache[Service], clock: Clock
) -> AsyncIterator[Node]:
    """Open everything, and close it again at the end; what runs on the host goes on."""
    async with contextlib.AsyncExitStack() as stack:
        yield await _Assembly(stack, config, clients, recorder, services, clock).node()


class _Assembly:
    """What the steps of building a node share; each opens parts and leaves their end to the stack."""

    def __init__(
        self,
        stack: contextlib.AsyncExitStack,
        config: AgentConfig,
        clients: Clients,
        recorder: EventRecorder,
        services: WatchCache[Service],
        clock: Clock,
    ) -> None:
        self._stack, self._config, self._clients = stack, config, clients
        self._recorder, self._clock = recorder, clock
        space = HostSpace(config.host_mounts, config.host_root)
        self._context = Context(stack, config, clients, recorder, services, clock, space)

    async def node(self) -> Node:
        """Build it."""
        config, clients, recorder, clock = self._config, self._clients, self._recorder, self._clock
        engine = await _engine(self._context)
        qos = QosCgroups(engine.containers.cgroups, config.cgroup_root, self._holdings)
        qos.prepare()
        keeper = NodeKeeper(clients, config, recorder, engine.shown, clock)
        parts, operations = await engine.work(keeper)
        prober = ProbeRunner(engine.containers, recorder, clock, config.node_ip, lambda cid: _wake(deps, cid))
        mirrors, deps = self._workers(parts, operations, prober, keeper, engine.scheme)
        gates = Gates(config, keeper, engine.app_armor, lambda pod: upkeep.admit(pod))
        manager = PodManager(
            clients.node, config.node_name, deps, parts.records, gates.admit, gates.resize, gates.preempt
        )
        self._context.managers.append(manager)
        trimmer = heap.Trimmer()
        self._stack.callback(trimmer.busy)
        manager.room_listeners += [qos.refresh, trimmer.idle]
        if config.enforce_allocatable:
            memory = max(0, keeper.facts.memory - quantity.value(config.reserved_memory))
            qos.enforce(unreserved_cpu(config, keeper.facts), memory, recorder, keeper.reference)
        else:
            qos.release()
        upkeep = build_upkeep(
            config, engine.containers, manager, engine.images, keeper, recorder, clock, engine.written
        )
        self._stack.push_async_callback(upkeep.usage.close)
        deps.started = upkeep.counters.pod_start.observe
        server = _server(config, clients, manager, engine, parts, upkeep, keeper, prober)
        self._stack.push_async_callback(server.stop)
        networking = engine.networking(keeper)
        static = static_pods(config, manager, mirrors, recorder, keeper.reference, clock)
        live = for_agent(config, clients.cluster, engine.containers, keeper.refresh, upkeep.apply)
        return Node(config, clients, recorder, engine, parts, keeper, networking, manager, server, live, static, upkeep)

    def _workers(
        self, parts: Common, operations: Operations, prober: ProbeRunner, keeper: NodeKeeper, scheme: str
    ) -> tuple[MirrorPods | None, WorkerDeps]:
        config, clock = self._config, self._clock
        tracer = Tracer(config.state / "trace", f"agent {config.node_name}", clock)
        self._stack.callback(tracer.flush)
        writer = StatusWriter(self._clients.node)
        self._stack.push_async_callback(writer.close)
        mirrors = None
        if not config.standalone:
            mirrors = MirrorPods(self._clients.node, writer, lambda: keeper.node, self._recorder)
            self._stack.push_async_callback(mirrors.close)
            keeper.on_change(lambda node: mirrors.check_all())
        return mirrors, WorkerDeps(
            operations=operations,
            status=mirrors or NobodyWatches(),
            events=self._recorder,
            probes=prober,
            tracer=tracer,
            clock=clock,
            node=NodeFacts(parts.host_ips, scheme),
            settings=Settings(BackoffPolicy(config.crash_backoff_initial, config.crash_backoff_max)),
            image_backoff=BackoffPolicy(config.image_backoff_initial, config.image_backoff_max),
        )

    def _holdings(self) -> list[Pod]:
        return [pod for manager in self._context.managers for pod in manager.holdings()]


async def _engine(context: Context) -> Engine:
    if context.config.container_runtime_endpoint:
        # Late: a node that runs its containers itself neither has nor pays for what this needs.
        try:
            from nodewright_agent.remote.assembly import Remote
        except ImportError as error:
            raise ConfigError(f"container_runtime_endpoint: {_lacking(error)}") from error
        return await Remote.open(context)
    from nodewright_agent.builtin import BuiltIn

    return await BuiltIn.open(context)


def _lacking(error: ImportError) -> str:
    return (
        f"{error}: another runtime is spoken to by gRPC; install nodewright with its extra cri "
        "(pip install 'nodewright[cri]'); the image nodewright/agent does not have it"
    )


def _server(
    config: AgentConfig,
    clients: Clients,
    manager: PodManager,
    engine: Engine,
    parts: Common,
    upkeep: Upkeep,
    keeper: NodeKeeper,
    prober: ProbeRunner,
) -> KubeletServer:
    if config.tls_cert_file:
        cert, key = Path(config.tls_cert_file), Path(config.tls_key_file)
    else:
        cert, key = selfsigned.ensure(config.state / "pki", config.node_name, [config.node_ip])
    client_ca = Path(config.client_ca_file) if config.client_ca_file else None
    if client_ca is None and clients.identity is not None:
        client_ca = clients.identity.authority.file
    view = AgentPodsView(manager, parts.runtime, config, parts.files.cluster_dns)
    return KubeletServer(
        view,
        streams=engine.streams(manager, view.pods),
        node_name=config.node_name,
        tls=ServingTLS(cert, key, client_ca),
        authenticator=Authenticator(clients.node),
        authorizer=(EveryCertificate if config.standalone else Authorizer)(clients.node, config.node_name),
        stats=upkeep.usage,
        counters=lambda: upkeep.metrics() + parts.puller.metrics.text(),
        probes=prober.metrics.text,
        machine=(keeper.facts.cpus, keeper.facts.memory),
        address=config.bind_address,
        port=config.port,
    )


def _wake(deps: WorkerDeps, container_id: str) -> None:
    worker = deps.owners.get(container_id)
    if worker is not None:
        worker.wake()
