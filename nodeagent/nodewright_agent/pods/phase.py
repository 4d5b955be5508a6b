"""The phase of a pod from the statuses of its containers: upstream's getPhase. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nodewright.kube.objects import Container, ContainerStateTerminated, ContainerStatus, Pod
from nodewright_agent.pods.model import is_sidecar
from nodewright_agent.pods.restart import restarts_after

PENDING, RUNNING, SUCCEEDED, FAILED = "Pending", "Running", "Succeeded", "Failed"
TERMINAL = (SUCCEEDED, FAILED)


@dataclass(slots=True)
class _Counts:
    unknown: int = 0
    running: int = 0
    waiting: int = 0
    stopped: int = 0
    for_good: int = 0
    succeeded: int = 0
    pending_sidecars: int = 0


def phase(pod: Pod, statuses: Mapping[str, ContainerStatus], *, terminal: bool, initialised: bool) -> str:
    """Return the phase.

    ``terminal``: no container will run again (deleted, evicted, past its deadline, or all done).
    ``initialised``: a main container is running now, so a restarting sidecar does not make the pod Pending.
    """
    pending, failed = _init_progress(pod, statuses)
    if failed:
        return FAILED
    counts = _Counts()
    for container in pod.spec.init_containers:
        if is_sidecar(container):
            _count_sidecar(statuses.get(container.name), counts)
    for container in pod.spec.containers:
        _count_main(pod, container, statuses.get(container.name), counts)
    if pending or (counts.pending_sidecars and not initialised) or counts.waiting:
        return PENDING
    if counts.running and not counts.unknown:
        return RUNNING
    if not counts.running and counts.stopped and not counts.unknown:
        if not terminal and counts.stopped != counts.for_good:
            return RUNNING  # at least one is going to be restarted
        return SUCCEEDED if counts.stopped == counts.succeeded else FAILED
    return PENDING


def _init_progress(pod: Pod, statuses: Mapping[str, ContainerStatus]) -> tuple[bool, bool]:
    """Return whether an init container is still to complete, and whether one has failed for good."""
    pending = failed = False
    for container in pod.spec.init_containers:
        if is_sidecar(container):
            continue
        end = _last_end(statuses.get(container.name))
        if end is None:
            pending = True
        elif end.exit_code != 0 and not restarts_after(pod, container, end.exit_code):
            failed = True
    return pending, failed


def _last_end(status: ContainerStatus | None) -> ContainerStateTerminated | None:
    """Return how a container that is not running ended; None when it runs or has never run."""
    if status is None or status.state.running is not None:
        return None
    return status.state.terminated or (status.last_state.terminated if status.state.waiting else None)


def _count_sidecar(status: ContainerStatus | None, counts: _Counts) -> None:
    if status is None:
        counts.unknown += 1
    elif status.state.running is not None:
        counts.running += 1
        counts.pending_sidecars += not status.started
    elif status.state.waiting is not None and status.last_state.terminated is None:
        counts.pending_sidecars += 1
        counts.waiting += 1
    # Ended sidecars do not count: they neither hold a pod up nor fail it.


def _count_main(pod: Pod, container: Container, status: ContainerStatus | None, counts: _Counts) -> None:
    if status is None:
        counts.unknown += 1
        return
    if status.state.running is not None:
        counts.running += 1
        return
    end = _last_end(status)
    if end is None:
        counts.waiting += 1
        return
    counts.stopped += 1
    counts.for_good += not restarts_after(pod, container, end.exit_code)
    counts.succeeded += status.state.terminated is not None and end.exit_code == 0
