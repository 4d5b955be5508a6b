"""What a runtime tells of its containers and sandboxes, as the agent keeps it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nodewright_agent.cri import wire
from nodewright_agent.pods.spec import LABEL_IMAGE, LABEL_IMAGE_ID
from nodewright_agent.remote import labels
from nodewright_agent.runtime.spec import ContainerRecord, ContainerSpec, ContainerState, ExitInfo, Phase

_PHASES = {"CONTAINER_CREATED": Phase.CREATED, "CONTAINER_RUNNING": Phase.RUNNING, "CONTAINER_EXITED": Phase.EXITED}
_RANKS = {Phase.CREATING: 0, Phase.CREATED: 1, Phase.RUNNING: 2, Phase.EXITED: 3}
_LOST = 137


class RemoteRecord(ContainerRecord):
    """A container of the runtime. Of its spec only what the agent needs later is known."""

    sandbox: str = ""
    place: str = ""
    """Its cgroup; empty: not found (yet)."""

    @property
    def cgroup(self) -> str:
        """Its cgroup. Raises FileNotFoundError where the runtime keeps its containers out of the pods' cgroups."""
        if not self.place:
            raise FileNotFoundError(f"the cgroup of container {self.id} is not known")
        return self.place


@dataclass(slots=True)
class Sandbox:
    """A pod's sandbox in the runtime."""

    id: str
    uid: str
    attempt: int
    ready: bool
    created_at: int


def of_status(status: Any, sandbox: str) -> RemoteRecord:
    """A record of a ContainerStatus."""
    found, notes = status.labels, status.annotations
    return RemoteRecord(
        spec=ContainerSpec(
            id=status.id,
            pod_uid=found.get(labels.POD_UID, ""),
            pod_name=found.get(labels.POD_NAME, ""),
            pod_namespace=found.get(labels.POD_NAMESPACE, ""),
            name=found.get(labels.CONTAINER_NAME, status.metadata.name),
            attempt=status.metadata.attempt,
            lowers=[],
            argv=[],
            log_path=status.log_path,
            cgroup_parent="/",
            stop_signal=wire.signal_name(status.stop_signal),
            labels={
                LABEL_IMAGE: notes.get(labels.IMAGE, ""),
                LABEL_IMAGE_ID: notes.get(labels.IMAGE_ID, status.image_ref),
            },
        ),
        state=state_of(status),
        sandbox=sandbox,
    )


def of_item(item: Any) -> RemoteRecord:
    """A record of an item of ListContainers whose status cannot be had (yet): it may run, so it counts as running."""
    fields = {name: getattr(item, name) for name in ("id", "metadata", "labels", "annotations", "image_ref")}
    status = wire.ContainerStatus(state=wire.CONTAINER_RUNNING, created_at=item.created_at, **fields)
    return of_status(status, item.pod_sandbox_id)


def state_of(status: Any) -> ContainerState:
    """The changing half of it."""
    user = status.user.linux
    state = ContainerState(
        phase=phase(status.state),
        uid=user.uid if status.HasField("user") else -1,
        gid=user.gid,
        additional_gids=list(user.supplemental_groups),
        created_at=status.created_at / 1e9,
        started_at=status.started_at / 1e9,
    )
    if state.phase is Phase.EXITED:
        state.exit = exit_of(status)
    return state


def phase(state: int) -> Phase:
    """The phase of a ContainerState; one that the runtime does not know itself counts as running, for it may."""
    return next((phase for name, phase in _PHASES.items() if getattr(wire, name) == state), Phase.RUNNING)


def later(new: Phase, old: Phase) -> bool:
    """Whether a phase comes after another: answers may overtake each other, containers only go forward."""
    return _RANKS[new] > _RANKS[old]


def exit_of(status: Any) -> ExitInfo:
    """How a container ended."""
    code = status.exit_code
    unknown = "HostRestarted" if status.reason == "Unknown" else ""
    return ExitInfo(
        code=code,
        signal=code - 128 if 128 < code <= 128 + 64 else 0,
        oom_killed=status.reason == "OOMKilled",
        finished_at=status.finished_at / 1e9,
        reason=unknown,
    )


def lost(now: float) -> ExitInfo:
    """The end of a container that the runtime has no more: somebody else removed it."""
    return ExitInfo(code=_LOST, signal=9, finished_at=now, reason="MonitorLost")


def sandbox_of(item: Any) -> Sandbox:
    """One item of ListPodSandbox."""
    uid = item.labels.get(labels.POD_UID, item.metadata.uid)
    return Sandbox(item.id, uid, item.metadata.attempt, item.state == wire.SANDBOX_READY, item.created_at)
