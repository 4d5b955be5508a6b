"""From a pod and what a run is made of to CRI's PodSandboxConfig and ContainerConfig, by kubelet's rules.

Pure. What CRI has no words for is refused. Upstream: kuberuntime/kuberuntime_sandbox.go,
kuberuntime_container.go, kuberuntime_container_linux.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from nodewright.kube.objects import ContainerPort, Pod
from nodewright_agent.cri import status, wire
from nodewright_agent.network.hostports import wanted_ports
from nodewright_agent.pods import resources, spec
from nodewright_agent.pods.files import DNS
from nodewright_agent.pods.ports import StartError
from nodewright_agent.pods.resize.actuate import LABEL_RESOURCES, label
from nodewright_agent.pods.spec import Inputs, NodeSettings
from nodewright_agent.remote import labels, security
from nodewright_agent.runtime import sysctls
from nodewright_agent.runtime.images.model import Image
from nodewright_agent.runtime.spec import Device, IdRange, Mount, Resources

_PROPAGATION = {
    "rprivate": "PROPAGATION_PRIVATE",
    "rslave": "PROPAGATION_HOST_TO_CONTAINER",
    "rshared": "PROPAGATION_BIDIRECTIONAL",
}
_ACCESS = frozenset({"rbind", "ro", "rw", "rro"})
_PROTOCOLS = {"": "TCP", "TCP": "TCP", "UDP": "UDP", "SCTP": "SCTP"}


@dataclass(frozen=True, slots=True)
class Host:
    """What the host's cgroups can do."""

    cgroup_version: int = 1
    limits_swap: bool = False
    """Whether a memory limit can be one of memory and swap together."""


@dataclass(frozen=True, slots=True)
class Placing:
    """What of the node goes into every config."""

    node_name: str
    settings: NodeSettings
    host: Host = Host()


@dataclass(frozen=True, slots=True)
class ImageMount:
    """An image volume: the runtime mounts it itself."""

    path: str
    image: Image
    sub_path: str = ""


def sandbox(pod: Pod, attempt: int, hostname: str, dns: DNS, ids: IdRange | None, placing: Placing) -> Any:
    """A PodSandboxConfig. Raises ValueError for a port that CRI has no protocol for."""
    meta, node = pod.metadata, placing.settings
    context = pod.spec.security_context
    overhead, given = pod_resources(pod, node)
    return wire.PodSandboxConfig(
        metadata=wire.PodSandboxMetadata(name=meta.name, uid=meta.uid, namespace=meta.namespace, attempt=attempt),
        # With the host's network its name is the host's, which runtimes leave as it is.
        hostname="" if pod.spec.host_network and not pod.spec.hostname_override else hostname,
        log_directory=str(spec.log_directory(node.log_root, pod)),
        dns_config=wire.DNSConfig(servers=dns.servers, searches=dns.searches, options=dns.options),
        port_mappings=[] if pod.spec.host_network else [_port(one) for one in wanted_ports(pod)],
        labels=labels.of_sandbox(pod, placing.node_name),
        annotations=pod.metadata.annotations,
        linux=wire.LinuxPodSandboxConfig(
            cgroup_parent=spec.pod_cgroup(pod, node.cgroup_root),
            security_context=security.sandbox(pod, ids),
            sysctls={sysctls.normalise(one.name): one.value for one in context.sysctls} if context is not None else {},
            overhead=overhead,
            resources=given,
        ),
    )


def pod_resources(pod: Pod, node: NodeSettings) -> tuple[Any, Any]:
    """Two LinuxContainerResources: the pod's overhead (None: it has none), and the sum of its containers'."""
    limits = resources.pod_limits(_plain(pod), node.cgroups)
    given = wire.LinuxContainerResources(
        cpu_shares=limits.cpu_shares or 0,
        cpu_quota=limits.cpu_quota or 0,
        cpu_period=limits.cpu_period or 0,
        memory_limit_in_bytes=limits.memory or 0,
    )
    return _overhead(pod, node), given


def container(
    inputs: Inputs, placing: Placing, *, target: str = "", images: Iterable[ImageMount] = (), program_user: str = ""
) -> Any:
    """A ContainerConfig. ``program_user``: who the image's processes run as. Raises ``StartError``."""
    pod, one, node, run = inputs.pod, inputs.container, placing.settings, inputs.run
    own = {labels.IMAGE: one.image, labels.IMAGE_ID: spec.image_id(inputs.image), LABEL_RESOURCES: label(one.resources)}
    given = resources.container_resources(pod, one, node.cgroups)
    score = resources.oom_score(pod, one, node.memory_capacity)
    seccomp = node.seccomp_directory
    return wire.ContainerConfig(
        metadata=wire.ContainerMetadata(name=one.name, attempt=run.attempt),
        image=wire.ImageSpec(image=inputs.image.id, user_specified_image=one.image),
        command=[inputs.expand(word) for word in one.command],
        args=[inputs.expand(word) for word in one.args],
        working_dir=one.working_dir or "",
        envs=[wire.KeyValue(key=name, value=value) for name, value in inputs.env],
        mounts=[*mounts(inputs), *(_image_mount(mount) for mount in images)],
        devices=[_device(device) for device in inputs.devices],
        labels=labels.of_container(pod, one, placing.node_name),
        annotations=labels.notes(pod, one, run.attempt, own),
        log_path=f"{one.name}/{run.attempt}.log",
        stdin=one.stdin,
        stdin_once=one.stdin_once,
        tty=one.tty,
        stop_signal=stop_signal(one.lifecycle.stop_signal if one.lifecycle is not None else None),
        linux=wire.LinuxContainerConfig(
            resources=limits(given, placing.host, score=score, group=not node.single_process_oom_kill),
            security_context=security.container(pod, one, program_user, inputs.sandbox.ids, seccomp, target),
        ),
    )


def mounts(inputs: Inputs) -> list[Any]:
    """The volumes, the pod's /etc/hosts and the termination message; the rest is the runtime's. Raises StartError."""
    one, ids = inputs.container, inputs.sandbox.ids
    taken = {mount.mount_path.rstrip("/") for mount in one.volume_mounts}
    found = [_mount(mount, ids) for mount in inputs.volume_mounts]
    if "/etc/hosts" not in taken:
        found.append(wire.Mount(container_path="/etc/hosts", host_path=str(inputs.sandbox.hosts)))
    if inputs.message_file is not None:
        path = one.termination_message_path or spec.DEFAULT_MESSAGE_PATH
        found.append(wire.Mount(container_path=path, host_path=str(inputs.message_file)))
    return found


def limits(given: Resources, host: Host, *, score: int = 0, group: bool | None = None) -> Any:
    """LinuxContainerResources; ``group`` None: of a container that runs, whose way to die out of memory stays."""
    made = status.resources(given, score)
    if host.limits_swap and host.cgroup_version == 2:
        made.unified["memory.swap.max"] = "0"
    elif host.limits_swap and given.memory_limit:
        made.memory_swap_limit_in_bytes = given.memory_limit
    if group and host.cgroup_version == 2:
        made.unified["memory.oom.group"] = "1"
    return made


def stop_signal(name: str | None) -> int:
    """The enum's number; 0: what the image says."""
    if not name:
        return 0
    if not (number := wire.signal_number(name)):
        raise StartError("CreateContainerConfigError", f"stop signal {name!r} cannot be given to a CRI runtime")
    return number


def _mount(mount: Mount, ids: IdRange | None) -> Any:
    options = set(mount.options)
    if more := options - _ACCESS - set(_PROPAGATION):
        text = f"mount {mount.destination}: options {', '.join(sorted(more))} cannot be given to a CRI runtime"
        raise StartError("CreateContainerConfigError", text)
    propagation = next((_PROPAGATION[one] for one in mount.options if one in _PROPAGATION), "PROPAGATION_PRIVATE")
    made = wire.Mount(
        container_path=mount.destination,
        host_path=mount.source,
        readonly="ro" in options,
        recursive_read_only="rro" in options,
        propagation=getattr(wire, propagation),
    )
    if ids is not None:
        mapping = wire.IDMapping(host_id=ids.start, container_id=0, length=ids.length)
        made.uidMappings.append(mapping)
        made.gidMappings.append(mapping)
    return made


def _image_mount(mount: ImageMount) -> Any:
    image = wire.ImageSpec(image=mount.image.id)
    return wire.Mount(container_path=mount.path, image=image, image_sub_path=mount.sub_path, readonly=True)


def _device(device: Device) -> Any:
    return wire.Device(container_path=device.path, host_path=device.source, permissions=device.access)


def _port(port: ContainerPort) -> Any:
    protocol = _PROTOCOLS.get(port.protocol or "")
    if protocol is None:
        raise ValueError(f"port {port.container_port}: protocol {port.protocol!r} cannot be given to a CRI runtime")
    return wire.PortMapping(
        protocol=getattr(wire, protocol),
        container_port=port.container_port,
        host_port=port.host_port,
        host_ip=port.host_ip,
    )


def _plain(pod: Pod) -> Pod:
    """The pod without its overhead, which is told apart."""
    return msgspec.structs.replace(pod, spec=msgspec.structs.replace(pod.spec, overhead={}))


def _overhead(pod: Pod, node: NodeSettings) -> Any:
    if not pod.spec.overhead:
        return None
    amounts: Mapping[str, str] = pod.spec.overhead
    cpu, memory = resources.milli_cpu(amounts), resources.memory(amounts)
    quota = cpu * node.cgroups.cpu_period // 1000 if cpu else 0
    return wire.LinuxContainerResources(
        cpu_quota=quota, cpu_period=node.cgroups.cpu_period if quota else 0, memory_limit_in_bytes=memory or 0
    )
