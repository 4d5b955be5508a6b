"""Builds the parts of a node from its settings and connects them; the only place that knows all of them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from nodewright.kube.cache import WatchCache
from nodewright.kube.client import Client
from nodewright.kube.events import EventRecorder
from nodewright.kube.objects import Pod, Service
from nodewright_agent.config import AgentConfig
from nodewright_agent.network.podnet import NetworkConfig, PodNetwork
from nodewright_agent.node import selfsigned
from nodewright_agent.node.keeper import NodeKeeper
from nodewright_agent.node.networking import NodeNetworking
from nodewright_agent.node.status import allocatable
from nodewright_agent.pods import refs, spec
from nodewright_agent.pods.admission import admit
from nodewright_agent.pods.backoff import BackoffPolicy
from nodewright_agent.pods.machine import Settings
from nodewright_agent.pods.manager import PodManager
from nodewright_agent.pods.operations import Parts, PodOperations
from nodewright_agent.pods.podfiles import PodFiles
from nodewright_agent.pods.ports import Clock, Exit
from nodewright_agent.pods.probes.runner import ProbeRunner
from nodewright_agent.pods.pulling import ImagePuller
from nodewright_agent.pods.records import Records
from nodewright_agent.pods.status import NodeFacts
from nodewright_agent.pods.status_writer import StatusWriter
from nodewright_agent.pods.trace import Tracer
from nodewright_agent.pods.view import AgentPodsView, AgentStats
from nodewright_agent.pods.volumes.manager import VolumeManager
from nodewright_agent.pods.worker import WorkerDeps
from nodewright_agent.proxy.config import ProxyConfig
from nodewright_agent.runtime import cgroup_math
from nodewright_agent.runtime.cgroups import CgroupLimits
from nodewright_agent.runtime.images.store import ImageStore
from nodewright_agent.runtime.runtime import Runtime
from nodewright_agent.runtime.sandbox import Sandboxes
from nodewright_agent.runtime.spec import ExitInfo
from nodewright_agent.server.authn import Authenticator
from nodewright_agent.server.authz import Authorizer
from nodewright_agent.server.server import KubeletServer
from nodewright_agent.server.tls import ServingTLS


@dataclass(slots=True)
class Node:
    """The parts that run."""

    config: AgentConfig
    client: Client
    recorder: EventRecorder
    parts: Parts
    keeper: NodeKeeper
    networking: NodeNetworking
    manager: PodManager
    server: KubeletServer

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
        await Proxy(settings, self.client, recorder=self.recorder).run()


@contextlib.asynccontextmanager
async def assemble(
    config: AgentConfig, client: Client, recorder: EventRecorder, services: WatchCache[Service], clock: Clock
) -> AsyncIterator[Node]:
    """Open everything, and close it again at the end; what runs on the host goes on."""
    async with contextlib.AsyncExitStack() as stack:
        images = ImageStore(Path(config.image_root))
        stack.push_async_callback(images.close)
        settings = NetworkConfig(
            state_dir=config.state / "network", cluster_cidr=config.cluster_cidr, mtu=config.pod_mtu
        )
        network = PodNetwork(settings)
        stack.callback(network.close)
        holder: list[PodManager] = []
        runtime = Runtime(
            run_dir=config.run / "rt",
            state_dir=config.state / "runtime",
            cgroup_root=config.cgroup_root,
            runc=config.runc,
            monitor=config.conmon,
            on_exit=lambda cid, info: _ended(holder, cid, info),
        )
        await runtime.open()
        stack.push_async_callback(runtime.close)
        runtime.cgroups.create(
            cgroup_math.qos_path(config.cgroup_root, cgroup_math.QosClass.BEST_EFFORT), CgroupLimits(cpu_shares=2)
        )

        def failed(pod: Pod, message: str) -> None:
            recorder.event(refs.reference(pod), "Warning", "FailedMount", message)

        def awaken(uid: str) -> None:
            for manager in holder:
                manager.volumes_changed(uid)

        volumes = VolumeManager(client, config.state, on_failed=failed, on_wake=awaken)
        stack.push_async_callback(volumes.close)
        keeper = NodeKeeper(client, config, recorder, images.list, clock)
        networking = NodeNetworking(client, keeper, network, config.state / "network", config.pod_cidr)
        records = Records(config.state / "pods")
        host_ips = (config.node_ip,)
        parts = Parts(
            runtime=runtime,
            sandboxes=Sandboxes(config.run / "sb"),
            network=network,
            volumes=volumes,
            puller=ImagePuller(images, client, recorder, clock),
            files=PodFiles(config),
            records=records,
            events=recorder,
            node=spec.NodeSettings(
                cgroup_root=config.cgroup_root,
                memory_capacity=keeper.facts.memory,
                seccomp_directory=config.state / "seccomp",
                log_root=config.logs,
            ),
            host_ips=host_ips,
            allocatable=lambda: allocatable(config, keeper.facts),
            services=services.values,
        )
        tracer = Tracer(config.state / "trace", f"agent {config.node_name}", clock)
        stack.callback(tracer.flush)
        writer = StatusWriter(client)
        stack.push_async_callback(writer.close)
        deps = WorkerDeps(
            operations=PodOperations(parts),
            status=writer,
            events=recorder,
            probes=ProbeRunner(runtime, recorder, clock, config.node_ip, lambda cid: _wake(deps, cid)),
            tracer=tracer,
            clock=clock,
            node=NodeFacts(host_ips),
            settings=Settings(BackoffPolicy(config.crash_backoff_initial, config.crash_backoff_max)),
            image_backoff=BackoffPolicy(config.image_backoff_initial, config.image_backoff_max),
        )

        def admission(pod: Pod, others: list[Pod]) -> tuple[str, str] | None:
            labels = keeper.node.metadata.labels if keeper.node is not None else {}
            free = allocatable(config, keeper.facts)
            return admit(pod, others, free, labels, config.node_name, config.allowed_unsafe_sysctls)

        manager = PodManager(client, config.node_name, deps, records, admission)
        holder.append(manager)
        server = _server(config, client, manager, runtime)
        stack.push_async_callback(server.stop)
        yield Node(config, client, recorder, parts, keeper, networking, manager, server)


def _server(config: AgentConfig, client: Client, manager: PodManager, runtime: Runtime) -> KubeletServer:
    if config.tls_cert_file:
        cert, key = Path(config.tls_cert_file), Path(config.tls_key_file)
    else:
        cert, key = selfsigned.ensure(config.state / "pki", config.node_name, [config.node_ip])
    return KubeletServer(
        AgentPodsView(manager, runtime, config),
        node_name=config.node_name,
        tls=ServingTLS(cert, key, Path(config.client_ca_file) if config.client_ca_file else None),
        authenticator=Authenticator(client),
        authorizer=Authorizer(client, config.node_name),
        stats=AgentStats(manager, runtime),
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
