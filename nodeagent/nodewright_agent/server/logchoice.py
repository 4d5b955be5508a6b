"""Which container's log is meant, and why there is none yet: kubelet's rules and texts. Pure."""

from __future__ import annotations

from nodewright.kube.objects import ContainerStatus, Pod


class NoLog(Exception):
    """There is no log to show; the text is what kubelet says, and kubectl shows."""


def has_container(pod: Pod, name: str) -> bool:
    """Tell whether the Pod's spec has a container of any sort by this name."""
    spec = pod.spec
    return any(c.name == name for c in (*spec.containers, *spec.init_containers, *spec.ephemeral_containers))


def container_id(pod: Pod, name: str, previous: bool) -> str:
    """Give the ID (as in the status) of the container whose log to show. Raises NoLog.

    Upstream: validateContainerLogStatus. A container that is waiting to restart shows the log of its last run.
    """
    status = _status(pod, name)
    where = f'container "{name}" in pod "{pod.metadata.name}"'
    if status is None:
        raise NoLog(f"{where} is not available")
    last = status.last_state.terminated
    last_id = last.container_id if last is not None else ""
    state = status.state
    if previous:
        if not last_id:
            raise NoLog(f'previous terminated container "{name}" in pod "{pod.metadata.name}" not found')
        return last_id
    if state.running is not None:
        return status.container_id
    if state.terminated is not None or last is not None:
        found = (state.terminated.container_id if state.terminated is not None else "") or last_id
        if not found:
            raise NoLog(f"{where} is terminated")
        return found
    if state.waiting is None:
        raise NoLog(f"{where} is waiting to start - no logs yet")
    match state.waiting.reason:
        case "ErrImagePull":
            raise NoLog(f"{where} is waiting to start: image can't be pulled")
        case "ImagePullBackOff":
            raise NoLog(f"{where} is waiting to start: trying and failing to pull image")
        case reason:
            raise NoLog(f"{where} is waiting to start: {reason}")


def _status(pod: Pod, name: str) -> ContainerStatus | None:
    status = pod.status
    groups = (status.container_statuses, status.init_container_statuses, status.ephemeral_container_statuses)
    return next((each for group in groups for each in group if each.name == name), None)
