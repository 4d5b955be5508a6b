"""The status of a pod from what is known of it: pure, and the same for the same input.

The pod's own ``status`` (what the API has) serves as memory: start time, transition times, the last states of
containers whose records are gone, and conditions that others own.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from nodewright.kube.objects import (
    Container,
    ContainerState,
    ContainerStateRunning,
    ContainerStateTerminated,
    ContainerStateWaiting,
    ContainerStatus,
    HostIP,
    ImageVolumeStatus,
    Pod,
    PodIP,
    PodStatus,
    VolumeMountStatus,
    VolumeStatus,
)
from nodewright_agent.pods import phase as phases
from nodewright_agent.pods.conditions import OWNED, pod_conditions
from nodewright_agent.pods.machine import has_started
from nodewright_agent.pods.model import Instance, PodState, Step, all_containers, is_sidecar
from nodewright_agent.pods.resize import conditions as resize
from nodewright_agent.pods.restart import all_asked
from nodewright_agent.pods.times import rfc3339
from nodewright_agent.pods.waiting import Waiting

CONTAINER_ID_SCHEME = "nodewright://"
MAX_POD_MESSAGES = 12 * 1024
_NO_WAITING: Mapping[str, Waiting] = {}


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What of the node goes into a pod's status."""

    host_ips: Sequence[str] = field(default_factory=tuple)
    scheme: str = CONTAINER_ID_SCHEME
    """What stands before the ids of containers: the runtime's name."""


def build_status(
    pod: Pod, state: PodState, now: float, node: NodeFacts, waiting: Mapping[str, Waiting] = _NO_WAITING
) -> PodStatus:
    """Return the status to be written. A terminal phase never reverts."""
    old = {status.name: status for status in _old_statuses(pod)}
    missing = _missing(pod, state)

    def of(container: Container, init: bool) -> ContainerStatus:
        lost = ContainerState(waiting=missing.waiting) if init and not is_sidecar(container) else missing
        before, wait = old.get(container.name), waiting.get(container.name)
        return container_status(container, state, before, wait, lost, init, node.scheme)

    status = PodStatus(
        observed_generation=pod.metadata.generation,
        qos_class=pod.status.qos_class,
        start_time=pod.status.start_time or rfc3339(state.start_time or now),
    )
    # With statuses of containers, kubectl would show theirs in place of the reason of a refusal.
    if state.termination is None or not state.termination.refused:
        status.init_container_statuses = [of(container, True) for container in pod.spec.init_containers]
        status.container_statuses = [of(container, False) for container in pod.spec.containers]
        _pod_level(pod, state, status)
        status.ephemeral_container_statuses = [of(container, False) for container in pod.spec.ephemeral_containers]
    by_name = {one.name: one for one in (*status.init_container_statuses, *status.container_statuses)}
    status.phase = _phase(pod, state, by_name)
    _explain(pod, state, status)
    _not_ready_when_over(status)
    # What runs has a sandbox, also while a restarted agent still looks for the rest of what it knew of it.
    there = state.sandbox.ready or any(run.running for run in state.all_instances())
    sandbox = there and not (state.finished or state.teardown != Step())
    disruption = state.termination.disruption if state.termination is not None else ""
    own = pod_conditions(
        pod,
        status.phase,
        by_name,
        sandbox,
        rfc3339(now),
        restarting_all=state.restart_all or all_asked(pod, state),
        disruption=disruption,
    )
    own += [] if status.phase in phases.TERMINAL else resize.conditions(state.resize)
    taken = {*OWNED, *resize.TYPES, *(condition.type for condition in own)}
    status.conditions = [*(one for one in pod.status.conditions if one.type not in taken), *own]
    _addresses(pod, state, status, node)
    _bound_messages(pod, status)
    return status


def container_status(
    container: Container,
    state: PodState,
    old: ContainerStatus | None,
    wait: Waiting | None,
    missing: ContainerState,
    init: bool,
    scheme: str = CONTAINER_ID_SCHEME,
) -> ContainerStatus:
    """Return the status of one container; ``missing`` is the state of one that has never run."""
    run, before = state.latest(container.name), state.previous(container.name)
    status = ContainerStatus(
        name=container.name,
        ready=False,
        restart_count=old.restart_count if old else 0,
        image=container.image,
        image_id=old.image_id if old else "",
        container_id=old.container_id if old else "",
        last_state=old.last_state if old else ContainerState(),
        allocated_resources=container.resources.requests,
        resources=run.resources if run is not None and run.running and run.resources else container.resources,
        volume_mounts=_mounts(container, run),
        started=False,
    )
    if run is None:
        _never_seen(status, old, missing)
    elif run.reset or (run.restart and run.state == "exited" and state.termination is None):
        # It starts again whatever its policy says: an end that the API took for its last could not be taken back.
        _from_run(status, container, run, init, scheme)
        status.ready, status.last_state, status.state = False, status.state, ContainerState(waiting=missing.waiting)
    else:
        _from_run(status, container, run, init, scheme)
        if before is not None:
            status.last_state = ContainerState(terminated=terminated(before, scheme))
            if run.state == "created":
                # A restart counts once it runs: who sees the number change takes what else stands there for that run.
                status.restart_count, status.container_id = before.attempt, scheme + before.id
    if wait is not None and (run is None or not run.running):
        if run is not None and not run.reset:
            status.last_state = ContainerState(terminated=terminated(run, scheme))
        status.state = ContainerState(waiting=ContainerStateWaiting(reason=wait.reason, message=wait.message))
    return status


def terminated(run: Instance, scheme: str = CONTAINER_ID_SCHEME) -> ContainerStateTerminated:
    """Return how a run ended, as the API tells it."""
    return ContainerStateTerminated(
        exit_code=run.exit_code,
        reason=run.reason,
        message=run.message,
        started_at=rfc3339(run.started_at),
        finished_at=rfc3339(run.finished_at),
        container_id=scheme + run.id,
    )


def _from_run(status: ContainerStatus, container: Container, run: Instance, init: bool, scheme: str) -> None:
    status.restart_count = run.attempt
    status.image = run.image or container.image
    status.image_id = run.image_id
    status.container_id = scheme + run.id
    status.user = run.user
    if run.state == "exited":
        status.state = ContainerState(terminated=terminated(run, scheme))
        # An init container that has done its work counts as ready; sidecars are judged like main containers.
        status.ready = init and not is_sidecar(container) and run.exit_code == 0
    elif run.state == "created":
        status.state = ContainerState(waiting=ContainerStateWaiting(reason="ContainerCreating"))
    else:
        status.state = ContainerState(running=ContainerStateRunning(started_at=rfc3339(run.started_at)))
        status.started = has_started(container, run)
        lasting = not init or is_sidecar(container)
        probe = container.readiness_probe
        status.ready = lasting and status.started and (probe is None or run.readiness is True)


def _missing(pod: Pod, state: PodState) -> ContainerState:
    """Return the state of containers without a run: they wait, or nobody knows how they ended.

    Of an initialised pod that is over, upstream takes every missing container for failed, so that nothing takes it for
    done; containers that were still to be initialised keep waiting.
    """
    initialised = all(
        (run := state.latest(container.name)) is not None
        and not run.reset
        and (is_sidecar(container) or run.exit_code == 0)
        for container in pod.spec.init_containers
    )
    reason = "PodInitializing" if pod.spec.init_containers else "ContainerCreating"
    # Upstream tells what is wrong with volumes by events only.
    wait = ContainerStateWaiting(reason=reason, message="" if state.volumes.ready else state.volumes.message)
    if not (state.finished and initialised):
        return ContainerState(waiting=wait)
    end = ContainerStateTerminated(
        exit_code=137,
        reason="ContainerStatusUnknown",
        message="The container could not be located when the pod was terminated",
    )
    return ContainerState(waiting=wait, terminated=end)


def _never_seen(status: ContainerStatus, old: ContainerStatus | None, missing: ContainerState) -> None:
    """Fill in a container of which we have no record: it waits for its first start, or its record was lost."""
    if old is not None and old.state.terminated is not None:
        status.state = old.state
        status.ready = old.ready
        return
    if missing.terminated is not None:
        status.state = ContainerState(terminated=missing.terminated)
        return
    status.state = missing
    if old is not None and old.state.running is not None:
        status.restart_count += 1
        status.last_state = ContainerState(
            terminated=ContainerStateTerminated(
                exit_code=137,
                reason="ContainerStatusUnknown",
                message="The container could not be located when the pod was deleted.  "
                "The container used to be Running",
            )
        )


def _old_statuses(pod: Pod) -> list[ContainerStatus]:
    status = pod.status
    return [*status.init_container_statuses, *status.container_statuses, *status.ephemeral_container_statuses]


def _phase(pod: Pod, state: PodState, statuses: Mapping[str, ContainerStatus]) -> str:
    if pod.status.phase in phases.TERMINAL:
        return pod.status.phase
    if state.finished and state.termination is not None and state.termination.phase:
        return state.termination.phase
    latest = [state.latest(container.name) for container in pod.spec.containers]
    if not state.finished and (state.restart_all or any(run is not None and run.reset for run in latest)):
        return phases.PENDING  # it starts from the beginning (KEP-5532)
    initialised = any(run is not None and run.running for run in latest)
    found = phases.phase(pod, statuses, terminal=state.finished, initialised=initialised)
    if state.finished and found not in phases.TERMINAL:
        return phases.FAILED  # stopped before it had run: not a success
    return found if found not in phases.TERMINAL or state.finished else phases.RUNNING


def _explain(pod: Pod, state: PodState, status: PodStatus) -> None:
    termination = state.termination
    if termination is not None and termination.reason and status.phase in phases.TERMINAL:
        status.reason, status.message = termination.reason, termination.message
    elif status.phase == pod.status.phase:
        status.reason, status.message = pod.status.reason, pod.status.message


def _not_ready_when_over(status: PodStatus) -> None:
    if status.phase in phases.TERMINAL:
        for one in status.container_statuses:
            one.ready = one.started = False


def _addresses(pod: Pod, state: PodState, status: PodStatus, node: NodeFacts) -> None:
    hosts = list(node.host_ips)
    if hosts:
        status.host_ip = hosts[0]
        status.host_ips = [HostIP(ip=ip) for ip in hosts]
    ips = list(state.ips)
    if not ips and pod.spec.host_network and state.sandbox.ready:
        ips = hosts
    # A pod whose network is gone keeps the address that it had, as upstream does.
    if not ips:
        ips = [entry.ip for entry in pod.status.pod_ips]
    if ips:
        status.pod_ip = ips[0]
        status.pod_ips = [PodIP(ip=ip) for ip in ips]


def _bound_messages(pod: Pod, status: PodStatus) -> None:
    """Share out the 12 KiB that the termination messages of a pod may have together, as upstream does."""
    share = MAX_POD_MESSAGES // max(1, len(all_containers(pod)))
    every = (*status.init_container_statuses, *status.container_statuses, *status.ephemeral_container_statuses)
    for one in every:
        for end in (one.state.terminated, one.last_state.terminated):
            if end is not None and len(end.message) * 4 > share:  # a character has at most four bytes
                end.message = end.message.encode()[:share].decode(errors="ignore")


def _pod_level(pod: Pod, state: PodState, status: PodStatus) -> None:
    """Tell what the pod as a whole was granted, and what its cgroup has."""
    granted = pod.spec.resources
    if granted is None:
        return
    status.allocated_resources = granted.requests
    under_way = state.resize.progress is not None and pod.status.resources is not None
    status.resources = pod.status.resources if under_way else granted


def _mounts(container: Container, run: Instance | None) -> list[VolumeMountStatus]:
    recursive = run.recursive if run is not None else []
    images = run.volume_images if run is not None else {}
    return [
        VolumeMountStatus(
            name=mount.name,
            mount_path=mount.mount_path,
            read_only=mount.read_only,
            recursive_read_only=("Enabled" if posixpath.join("/", mount.mount_path) in recursive else "Disabled")
            if mount.read_only
            else None,
            volume_status=VolumeStatus(ImageVolumeStatus(images[mount.name])) if mount.name in images else None,
        )
        for mount in container.volume_mounts
    ]
