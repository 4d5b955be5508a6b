"""Records as CRI shows them. Pure."""

from __future__ import annotations

from typing import Any

from nodewright_agent.cri import wire
from nodewright_agent.cri.clock import nanoseconds
from nodewright_agent.cri.records import Container, Sandbox
from nodewright_agent.runtime.images.model import Image
from nodewright_agent.runtime.spec import ContainerRecord, Phase, Resources

STATES = ("CONTAINER_CREATED", "CONTAINER_RUNNING", "CONTAINER_EXITED", "CONTAINER_UNKNOWN")
START_FAILED = 128
_LOST = 255


def state(record: Container, run: ContainerRecord | None) -> int:
    """The ContainerState; ``run``: what the runtime knows of the container."""
    if record.failed_at:
        return int(wire.CONTAINER_EXITED)
    if run is None:
        return int(wire.CONTAINER_EXITED if record.begun else wire.CONTAINER_CREATED)
    if run.state.phase is Phase.EXITED:
        return int(wire.CONTAINER_EXITED)
    return int(wire.CONTAINER_RUNNING if run.running else wire.CONTAINER_CREATED)


def container(record: Container, run: ContainerRecord | None, image: Image | None) -> Any:
    """A ContainerStatus; ``image`` None: it has been removed since."""
    config = record.config
    found = wire.ContainerStatus(
        id=record.id,
        metadata=config.metadata,
        state=state(record, run),
        created_at=record.created_at,
        image=_spec(config, image),
        image_ref=image_ref(record, image),
        image_id=record.image,
        labels=config.labels,
        annotations=config.annotations,
        mounts=config.mounts,
        log_path=record.order.log_path,
        resources=wire.ContainerResources(linux=resources(record.order.resources, record.order.oom_score_adj)),
        stop_signal=wire.signal_number(record.order.stop_signal),
    )
    if run is not None and run.state.started_at:
        found.started_at = nanoseconds(run.state.started_at)
        who = run.state
        found.user.linux.uid, found.user.linux.gid = who.uid, who.gid
        found.user.linux.supplemental_groups.extend(who.additional_gids)
    _end(found, record, run)
    return found


def _end(found: Any, record: Container, run: ContainerRecord | None) -> None:
    if record.failed_at:
        found.finished_at, found.exit_code = record.failed_at, START_FAILED
        found.reason, found.message = "StartError", record.failure
    elif run is None:
        if record.begun:
            found.finished_at, found.exit_code, found.reason = record.created_at, _LOST, "Unknown"
    elif run.exit is not None:
        found.finished_at, found.exit_code = nanoseconds(run.exit.finished_at), run.exit.code
        plain = "Completed" if run.exit.code == 0 else "Error"
        found.reason = "OOMKilled" if run.exit.oom_killed else run.exit.reason or plain


def listed(record: Container, run: ContainerRecord | None, image: Image | None) -> Any:
    """A Container of a list."""
    config = record.config
    return wire.Container(
        id=record.id,
        pod_sandbox_id=record.sandbox,
        metadata=config.metadata,
        image=config.image,
        image_ref=image_ref(record, image),
        image_id=record.image,
        state=state(record, run),
        created_at=record.created_at,
        labels=config.labels,
        annotations=config.annotations,
    )


def image_ref(record: Container, image: Image | None) -> str:
    """A digested name of the image where it came from a registry, else its id."""
    return image.digests[0] if image is not None and image.digests else record.image


def _spec(config: Any, image: Image | None) -> Any:
    """The image by a name where it has one."""
    found = wire.ImageSpec()
    found.CopyFrom(config.image)
    if image is not None and (names := [*image.names, *image.digests]):
        wanted = config.image.user_specified_image or config.image.image
        found.image = wanted if wanted in names else names[0]
    return found


def sandbox_state(record: Sandbox) -> int:
    """The PodSandboxState as it was last seen."""
    return int(wire.SANDBOX_READY if record.ready else wire.SANDBOX_NOTREADY)


def sandbox(record: Sandbox, state: int | None = None) -> Any:
    """A PodSandboxStatus."""
    config = record.config
    found = wire.PodSandboxStatus(
        id=record.id,
        metadata=config.metadata,
        state=sandbox_state(record) if state is None else state,
        created_at=record.created_at,
        labels=config.labels,
        annotations=config.annotations,
        runtime_handler=record.handler,
    )
    found.linux.namespaces.options.CopyFrom(record.namespaces)
    found.network.ip = record.ip if record.ready else ""
    return found


def listed_sandbox(record: Sandbox, state: int) -> Any:
    """A PodSandbox of a list."""
    config = record.config
    return wire.PodSandbox(
        id=record.id,
        metadata=config.metadata,
        state=state,
        created_at=record.created_at,
        labels=config.labels,
        annotations=config.annotations,
        runtime_handler=record.handler,
    )


def resources(limits: Resources, oom_score_adj: int) -> Any:
    """The limits as CRI has them, 0 for none."""
    return wire.LinuxContainerResources(
        cpu_shares=limits.cpu_shares or 0,
        cpu_quota=limits.cpu_quota or 0,
        cpu_period=limits.cpu_period or 0,
        memory_limit_in_bytes=limits.memory_limit or 0,
        oom_score_adj=oom_score_adj,
        hugepage_limits=[wire.HugepageLimit(page_size=size, limit=limit) for size, limit in limits.hugepages.items()],
    )
