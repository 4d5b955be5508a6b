"""Pod + container + image to what the runtime starts (ContainerSpec). Pure, but for a Localhost seccomp profile."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nodewright.kube.objects import Container, Pod
from nodewright_agent.pods import resources, security
from nodewright_agent.pods.model import Instance
from nodewright_agent.pods.resize.actuate import LABEL_RESOURCES, label
from nodewright_agent.runtime import cgroup_math
from nodewright_agent.runtime.images.model import Image
from nodewright_agent.runtime.sandbox import SandboxPaths
from nodewright_agent.runtime.spec import ContainerSpec, Device, IdRange, Mount

LABEL_IMAGE, LABEL_IMAGE_ID = "image", "imageID"

NODE_CRITICAL = 2_000_001_000
"""Priority of system-node-critical."""
DEFAULT_MESSAGE_PATH = "/dev/termination-log"


@dataclass(frozen=True, slots=True)
class Sandbox:
    """The pod's namespaces and files on this host."""

    paths: SandboxPaths
    hostname: str
    hosts: Path
    resolv_conf: Path
    ids: IdRange | None = None
    """What the pod's user namespace maps; None: it has none."""


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """What of the node goes into every container."""

    cgroup_root: str
    memory_capacity: int
    seccomp_directory: Path
    log_root: Path
    cgroups: resources.CgroupSettings = field(default_factory=resources.CgroupSettings)
    single_process_oom_kill: bool = False
    log_links: Path | None = None
    """Where log collectors look for links to the logs; None: nowhere."""
    app_armor: bool = False
    """Whether the default AppArmor profile is there, for containers that ask for none."""


@dataclass(slots=True)
class Inputs:
    """Everything that one run of a container is made of."""

    pod: Pod
    container: Container
    run: Instance
    image: Image
    env: Sequence[tuple[str, str]]
    sandbox: Sandbox
    volume_mounts: Sequence[Mount]
    message_file: Path | None
    devices: Sequence[Device] = ()
    pid_ns: str | None = None
    """Whose processes it sees: a path, ``host``, or None for its own only."""
    program: str = ""
    """The OCI runtime of the pod's class; empty: the node's own."""
    expand: Callable[[str], str] = field(default=lambda text: text)
    """Replaces $(NAME) by the container's variables."""


def container_spec(inputs: Inputs, node: NodeSettings) -> ContainerSpec:
    """Return the runtime's order for one run. Raises ``StartError`` for what cannot be run as asked."""
    pod, container, image = inputs.pod, inputs.container, inputs.image
    security.verify_non_root(pod, container, image.config.user)
    granted = security.capabilities(pod, container)
    privileged = security.privileged(pod, container)
    read_only = security.read_only_root(pod, container)
    mounts = [*inputs.volume_mounts, *file_mounts(inputs)]
    return ContainerSpec(
        id=inputs.run.id,
        pod_uid=pod.metadata.uid,
        pod_name=pod.metadata.name,
        pod_namespace=pod.metadata.namespace,
        name=container.name,
        attempt=inputs.run.attempt,
        lowers=[str(layer) for layer in image.layers],
        argv=command(container, image, inputs.expand),
        env=merged_env(image.config.env, inputs.env),
        cwd=container.working_dir or image.config.working_dir or "/",
        user=security.user(pod, container, image.config.user),
        hostname=inputs.sandbox.hostname,
        netns=inputs.sandbox.paths.net,
        ipc_ns=inputs.sandbox.paths.ipc,
        uts_ns=inputs.sandbox.paths.uts,
        pid_ns=inputs.pid_ns,
        user_ns=inputs.sandbox.paths.user,
        ids=inputs.sandbox.ids if inputs.sandbox.paths.user else None,
        mounts=mounts,
        image_volumes=image_volumes(image, mounts) if read_only else [],
        devices=list(inputs.devices),
        resources=resources.container_resources(pod, container, node.cgroups),
        oom_score_adj=resources.oom_score(pod, container, node.memory_capacity),
        runtime=inputs.program,
        oom_group=not node.single_process_oom_kill,
        capabilities=granted,
        privileged=privileged,
        read_only_rootfs=read_only,
        no_new_privileges=security.no_new_privileges(pod, container),
        seccomp=None if privileged else security.seccomp_profile(pod, container, granted, node.seccomp_directory),
        app_armor=security.app_armor_profile(pod, container, node.app_armor),
        masked_paths=security.mask(pod, container),
        read_only_paths=security.mask(pod, container),
        log_path=str(log_path(node.log_root, pod, container.name, inputs.run.attempt)),
        termination_log=str(inputs.message_file) if inputs.message_file else "",
        termination_message_path=container.termination_message_path or DEFAULT_MESSAGE_PATH,
        tty=container.tty,
        stdin=container.stdin,
        stdin_once=container.stdin_once,
        stop_signal=stop_signal(container, image),
        cgroup_parent=pod_cgroup(pod, node.cgroup_root),
        labels={
            LABEL_IMAGE: container.image,
            LABEL_IMAGE_ID: image_id(image),
            LABEL_RESOURCES: label(container.resources),
        },
    )


def command(container: Container, image: Image, expand: Callable[[str], str]) -> list[str]:
    """Return the argument vector: the pod's command replaces the image's entrypoint and, without args, its cmd too."""
    args = [expand(word) for word in container.args]
    if container.command:
        return [expand(word) for word in container.command] + args
    return [*image.config.entrypoint, *(args or ([] if container.args else image.config.cmd))]


def merged_env(image_env: Sequence[str], own: Sequence[tuple[str, str]]) -> list[str]:
    """Return the variables: the image's that the pod does not set, then the pod's."""
    names = {name for name, _ in own}
    kept = [entry for entry in image_env if entry.partition("=")[0] not in names]
    return [*kept, *(f"{name}={value}" for name, value in own)]


def file_mounts(inputs: Inputs) -> list[Mount]:
    """Return the managed files; one that the container mounts itself is left to it."""
    own = {mount.mount_path.rstrip("/") for mount in inputs.container.volume_mounts}
    sandbox = inputs.sandbox
    read_only = security.read_only_root(inputs.pod, inputs.container)
    mounts = []
    # kubelet's hosts file is always writable, the CRI runtime's resolv.conf unless the root file system is not.
    for source, target, access in (
        (sandbox.hosts, "/etc/hosts", "rw"),
        (sandbox.resolv_conf, "/etc/resolv.conf", "ro" if read_only else "rw"),
    ):
        if target not in own:
            mounts.append(Mount(str(source), target, "bind", ["rbind", "rprivate", access]))
    if "/dev/shm" not in own:
        mounts.append(
            Mount(sandbox.paths.shm, "/dev/shm", "bind", ["rbind", "rprivate", "nosuid", "nodev", "noexec", "rw"])
        )
    return mounts


def image_volumes(image: Image, mounts: Sequence[Mount]) -> list[str]:
    """Return what the image declares as VOLUME and nothing is mounted on: with CRI runtimes writable under any root."""
    taken = {posixpath.normpath(mount.destination) for mount in mounts}
    return [path for path in image.config.volumes if path not in taken]


def pod_cgroup(pod: Pod, root: str) -> str:
    """Return the path of the pod's cgroup."""
    return cgroup_math.pod_path(root, resources.qos_class(pod), pod.metadata.uid)


def log_directory(root: Path, pod: Pod) -> Path:
    """Return where the pod's logs are."""
    meta = pod.metadata
    return root / f"{meta.namespace}_{meta.name}_{meta.uid}"


def log_path(root: Path, pod: Pod, container: str, attempt: int) -> Path:
    """Return the CRI log of one run."""
    return log_directory(root, pod) / container / f"{attempt}.log"


def stop_signal(container: Container, image: Image) -> str:
    """Return the signal that stops the container (KEP-4960 before the image's STOPSIGNAL)."""
    own = container.lifecycle.stop_signal if container.lifecycle is not None else None
    return own or image.config.stop_signal or "SIGTERM"


def image_id(image: Image) -> str:
    """Return what the status shows as imageID: a digested name where the image came from a registry, else its id."""
    return image.digests[0] if image.digests else image.id
