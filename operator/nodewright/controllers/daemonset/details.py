"""Why a pod is not ready, in words: more of its status than the controller keeps. Pure."""
# ruff: noqa: RUF012 - msgspec gives every instance its own copy of an empty list or dict default

from __future__ import annotations

import msgspec

from nodewright.kube.api.base import KubeStruct
from nodewright.kube.objects import Condition


class Stopped(KubeStruct):
    """Why a container waits, or how it ended."""

    reason: str = ""
    message: str = ""
    exit_code: int = 0


class State(KubeStruct):
    """The states of a container that tell of trouble."""

    waiting: Stopped | None = None
    terminated: Stopped | None = None


class ContainerDetail(KubeStruct):
    """A container as the node reports it."""

    name: str = ""
    ready: bool = False
    restart_count: int = 0
    state: State = msgspec.field(default_factory=State)
    last_state: State = msgspec.field(default_factory=State)


class StatusDetail(KubeStruct):
    """What a pod's status says about trouble."""

    phase: str = "Pending"
    reason: str = ""
    message: str = ""
    conditions: list[Condition] = []
    init_container_statuses: list[ContainerDetail] = []
    container_statuses: list[ContainerDetail] = []


class PodDetail(KubeStruct):
    """A pod, of which only the status is of interest."""

    status: StatusDetail = msgspec.field(default_factory=StatusDetail)


class Trouble(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is wrong with a pod: `reason` is the same for pods with the same trouble, `message` is the pod's own."""

    reason: str
    message: str = ""


def trouble(pod: PodDetail) -> Trouble | None:
    """What keeps the pod from being ready, from the inside out: a container, the pod, its way to the node."""
    status = pod.status
    for container in (*status.init_container_statuses, *status.container_statuses):
        if (found := _container(container)) is not None:
            return found
    if status.phase in ("Failed", "Succeeded"):
        return Trouble(status.reason, status.message) if status.reason else None
    for type_, words in (("PodScheduled", "not scheduled"), ("Initialized", "not initialized"), ("Ready", "not ready")):
        found_condition = next((c for c in status.conditions if c.type == type_ and c.status == "False"), None)
        if found_condition is not None:
            why = found_condition.reason
            return Trouble(f"{words} ({why})" if why else words, found_condition.message)
    return None


def _container(container: ContainerDetail) -> Trouble | None:
    waiting, ended = container.state.waiting, container.state.terminated
    if waiting is not None and waiting.reason not in ("", "ContainerCreating", "PodInitializing"):
        before = container.last_state.terminated
        last = f"; it ended with {_ending(before)}" if before is not None else ""
        return Trouble(f"container {container.name}: {waiting.reason}", f"{waiting.message}{last}".removeprefix("; "))
    if ended is not None and (ended.exit_code != 0 or ended.reason not in ("", "Completed")):
        return Trouble(f"container {container.name}: {_ending(ended)}", ended.message)
    return None


def _ending(ended: Stopped) -> str:
    code = f"exit code {ended.exit_code}"
    return f"{ended.reason} ({code})" if ended.reason and ended.reason != "Completed" else code
