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
from nodewright_agent.config import AgentConfig
from nodewright_agent.gates import Gates
from nodewright_agent.liveconfig.assembly import AgentLive, for_agent
from nodewright_agent.network.podnet import NetworkConfig, PodNetwork
from nodewright_agent.node import clusterdns, selfsigned
from nodewright_agent.node.keeper import NodeKeeper
from nodewright_agent.node.networking import NodeNetworking
from nodewright_agent.node.status import unreserved_cpu
from nodewright_agent.pods import pullassembly, refs, spec
from nodewright_agent.pods.backoff import BackoffPolicy
from nodewright_agent.pods.machine import Settings
from nodewright_agent.pods.manager import PodManager
from nodewright_agent.pods.operations import Parts, PodOperations
from nodewright_agent.pods.podfiles import PodFiles
from nodewright_agent.pods.ports import Clock, Exit
from nodewright_agent.pods.probes.runner import ProbeRunner
from nodewright_agent.pods.qos import QosCgroups
from nodewright_agent.pods.records import Records
from nodewright_agent.pods.resources import CgroupSettings
from nodewright_agent.pods.runtimeclass import RuntimeClasses
from nodewright_agent.pods.static.assembly import build as static_pods
from nodewright_agent.pods.static.manager import StaticPods
from nodewright_agent.pods.static.mirrors import MirrorPods
from nodewright_agent.pods.status import NodeFacts
from nodewright_agent.pods.status_writer import StatusWriter
from nodewright_agent.pods.streams import AgentStreams
from nodewright_agent.pods.trace import Tracer
from nodewright_agent.pods.view import AgentPodsView
from nodewright_agent.pods.volumes.manager import VolumeManager
from nodewright_agent.pods.worker import WorkerDeps
from nodewright_agent.proxy.config import ProxyConfig
from nodewright_agent.runtime import cgroup_math, hosttools, userns
from nodewright_agent.runtime.hostspace import HostSpace
from nodewright_agent.runtime.images.containerd import Containerd
from nodewright_agent.runtime.images.store import ImageStore
from nodewright_agent.runtime.runtime import Runtime
from nodewright_agent.runtime.sandbox import Sandboxes
from nodewright_agent.runtime.spec import ExitInfo
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
    parts: Parts
    keeper: NodeKeeper
    networking: NodeNetworking
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
        self._recorder, self._services, self._clock = recorder, services, clock
        self._space = HostSpace(config.host_mounts, config.host_root)
        self._managers: list[PodManager] = []  # none until the parts below it are there

    async def node(self) -> Node:
        """Build it."""
        config, clients, recorder, clock = self._config, self._clients, self._recorder, self._clock
        images = pullassembly.store(config)
        self._stack.push_async_callback(images.close)
        network = self._network()
        runtime = await self._runtime()
        qos = QosCgroups(runtime.cgroups, config.cgroup_root, self._holdings)
        qos.prepare()
        keeper = NodeKeeper(clients, config, recorder, images.list, clock)
        parts = await self._parts(images, network, runtime, keeper)
        prober = ProbeRunner(runtime, recorder, clock, config.node_ip, lambda cid: _wake(deps, cid))
        mirrors, deps = self._workers(parts, prober, keeper)
        gates = Gates(config, keeper, runtime.info.app_armor, lambda pod: upkeep.admit(pod))
        manager = PodManager(
            clients.node, config.node_name, deps, parts.records, gates.admit, gates.resize, gates.preempt
        )
        self._managers.append(manager)
        trimmer = heap.Trimmer()
        self._stack.callback(trimmer.busy)
        manager.room_listeners += [qos.refresh, trimmer.idle]
        if config.enforce_allocatable:
            memory = max(0, keeper.facts.memory - quantity.value(config.reserved_memory))
            qos.enforce(unreserved_cpu(config, keeper.facts), memory, recorder, keeper.reference)
        else:
            qos.release()
        upkeep = build_upkeep(config, runtime, manager, images, keeper, recorder, clock)
        self._stack.push_async_callback(upkeep.usage.close)
        deps.started = upkeep.counters.pod_start.observe
        server = _server(config, clients, manager, parts, upkeep, keeper, prober)
        self._stack.push_async_callback(server.stop)
        networking = NodeNetworking(clients.cluster, keeper, network, config)
        static = static_pods(config, manager, mirrors, recorder, keeper.reference, clock)
        live = for_agent(config, clients.cluster, runtime, keeper.refresh, upkeep.apply)
        return Node(config, clients, recorder, parts, keeper, networking, manager, server, live, static, upkeep)

    def _network(self) -> PodNetwork:
        config = self._config
        network = PodNetwork(
            NetworkConfig(state_dir=config.state / "network", cluster_cidr=config.cluster_cidr, mtu=config.pod_mtu)
        )
        self._stack.callback(network.close)
        return network

    async def _runtime(self) -> Runtime:
        config, space = self._config, self._space
        space.check({"log_dir": config.logs}, {})
        runc, monitor = await asyncio.to_thread(hosttools.prepare, space, config.host_tools, config.runc, config.conmon)
        runtime = Runtime(
            run_dir=config.run / "rt",
            state_dir=config.state / "runtime",
            cgroup_root=config.cgroup_root,
            runc=runc,
            monitor=monitor,
            host=space,
            on_exit=lambda cid, info: _ended(self._managers, cid, info),
        )
        await runtime.open()
        self._stack.push_async_callback(runtime.close)
        await runtime.know(config.runtime_handlers.values())
        return runtime

    async def _parts(self, images: ImageStore, network: PodNetwork, runtime: Runtime, keeper: NodeKeeper) -> Parts:
        config, client, services = self._config, self._clients.node, self._services
        sources = [Containerd(images, self._space) for name in config.image_sources if name == "containerd"]
        records = Records(config.state / "pods")
        users = await self._users(runtime)
        keeper.user_namespaces = users.supported
        keeper.recursive_read_only = runtime.info.recursive_read_only
        keeper.handlers = {name: runtime.info.handlers[path] for name, path in config.runtime_handlers.items()}
        return Parts(
            runtime=runtime,
            sandboxes=Sandboxes(config.run / "sb", private=not self._space.separate),
            users=users,
            network=network,
            volumes=self._volumes(runtime),
            puller=pullassembly.puller(config, images, client, self._recorder, self._clock, sources),
            classes=RuntimeClasses(client, records, config.runtime_handlers),
            files=PodFiles(config, self._space, lambda: clusterdns.addresses(services.get(clusterdns.SERVICE))),
            records=records,
            events=self._recorder,
            node=_settings(config, runtime, keeper),
            host_ips=(config.node_ip,),
            allocatable=keeper.allocatable,
            node_name=config.node_name,
            node_labels=lambda: keeper.node.metadata.labels if keeper.node is not None else None,
            services=services.values,
        )

    async def _users(self, runtime: Runtime) -> userns.UserNamespaces:
        config = self._config
        roots = [Path(config.image_root), config.state]
        problem = await asyncio.to_thread(userns.probe, runtime.layout.run / "userns-probe", roots)
        state = config.state / "pods"
        return userns.for_node(state, config.userns_range, config.userns_ids_per_pod, config.max_pods, problem)

    def _volumes(self, runtime: Runtime) -> VolumeManager:
        def failed(pod: Pod, message: str) -> None:
            self._recorder.event(refs.reference(pod), "Warning", "FailedMount", message)

        def awaken(uid: str) -> None:
            for manager in self._managers:
                manager.volumes_changed(uid)

        volumes = VolumeManager(
            self._clients.node,
            self._config.state,
            on_failed=failed,
            on_wake=awaken,
            space=self._space,
            recursive_read_only=runtime.info.recursive_read_only,
        )
        self._stack.push_async_callback(volumes.close)
        return volumes

    def _workers(self, parts: Parts, prober: ProbeRunner, keeper: NodeKeeper) -> tuple[MirrorPods | None, WorkerDeps]:
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
            operations=PodOperations(parts),
            status=mirrors or NobodyWatches(),
            events=self._recorder,
            probes=prober,
            tracer=tracer,
            clock=clock,
            node=NodeFacts(parts.host_ips),
            settings=Settings(BackoffPolicy(config.crash_backoff_initial, config.crash_backoff_max)),
            image_backoff=BackoffPolicy(config.image_backoff_initial, config.image_backoff_max),
        )

    def _holdings(self) -> list[Pod]:
        return [pod for manager in self._managers for pod in manager.holdings()]


def _settings(config: AgentConfig, runtime: Runtime, keeper: NodeKeeper) -> spec.NodeSettings:
    return spec.NodeSettings(
        cgroup_root=config.cgroup_root,
        memory_capacity=keeper.facts.memory,
        seccomp_directory=config.state / "seccomp",
        log_root=config.logs,
        cgroups=CgroupSettings(
            cpu_quota=config.cpu_cfs_quota,
            cpu_period=round(config.cpu_cfs_quota_period * 1_000_000),
            pod_pids_limit=config.pod_pids_limit,
            page_sizes=runtime.cgroups.hugepage_sizes(cgroup_math.kubepods_path(config.cgroup_root)),
        ),
        single_process_oom_kill=config.single_process_oom_kill,
        app_armor=runtime.info.app_armor_default,
    )


def _server(
    config: AgentConfig,
    clients: Clients,
    manager: PodManager,
    parts: Parts,
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
        streams=AgentStreams(manager, parts.runtime, parts.sandboxes, view.pods),
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


def _ended(managers: list[PodManager], container_id: str, info: ExitInfo) -> None:
    for manager in managers:  # none yet while the runtime is being opened: recovery reads what it found
        manager.exited(container_id, Exit(info.code, info.finished_at or 0.0, info.oom_killed, info.reason))


def _wake(deps: WorkerDeps, container_id: str) -> None:
    worker = deps.owners.get(container_id)
    if worker is not None:
        worker.wake()
