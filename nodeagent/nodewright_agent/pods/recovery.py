"""What a starting agent makes of what an earlier one left: records, containers, sandboxes, volumes, addresses.

No container is restarted for it. What belongs to a pod with a record goes on at once, also without an API server.
What has no record waits for the API's word (see ``PodManager.run``).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from nodewright.kube.objects import Container, ContainerUser, LinuxContainerUser, ObjectMeta, Pod, PodSpec
from nodewright_agent.pods import spec
from nodewright_agent.pods.model import Instance, PodState, Step, StepState, end_reason, find_container
from nodewright_agent.pods.records import PodRecord
from nodewright_agent.pods.resize.actuate import LABEL_RESOURCES, from_label
from nodewright_agent.runtime import pause
from nodewright_agent.runtime.spec import ContainerRecord

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Found:
    """What is on this host."""

    records: Mapping[str, PodRecord]
    containers: Iterable[ContainerRecord]
    sandboxes: frozenset[str]
    """UIDs of pods whose namespaces are whole."""
    files: frozenset[str]
    """UIDs of those whose /etc/hosts and resolv.conf are written, too; they come last."""
    traces: frozenset[str]
    """UIDs of pods of which anything is left: a sandbox or part of one, volumes, an address, a directory."""


@dataclass(slots=True)
class Recovered:
    """Pods to go on with, and leftovers."""

    restored: dict[str, tuple[Pod, PodState]]
    orphans: dict[str, tuple[Pod, PodState]]
    surplus: list[str] = field(default_factory=list)
    """Ended containers that no pod counts any more: the earlier agent was about to remove them."""


def recover(found: Found) -> Recovered:
    """Sort what was found into pods that go on and leftovers. Pure.

    A sandbox whose making was interrupted, or of which the address is not known, is not ready: it is made once more,
    which takes what is there. What runs in it goes on meanwhile.
    """
    by_pod: dict[str, list[ContainerRecord]] = {}
    for container in found.containers:
        if pause.pod_of(container.id) is not None:
            continue  # part of the sandbox
        by_pod.setdefault(container.spec.pod_uid, []).append(container)
    result = Recovered({}, {})
    for uid, record in found.records.items():
        state = record.state()
        result.surplus += _merge(state, by_pod.pop(uid, []), record.pod)
        _addresses(record.pod, state)
        if uid not in found.sandboxes:
            _sandbox_lost(state)
        elif uid in found.files and (state.ips or record.pod.spec.host_network):
            state.sandbox = Step(StepState.READY)
        _probe_results(record.pod, state)
        result.restored[uid] = (record.pod, state)
    for uid in sorted(set(by_pod) | (found.traces - set(found.records))):
        state = PodState()
        result.surplus += _merge(state, by_pod.get(uid, []), None)
        if uid not in found.sandboxes:
            _sandbox_lost(state)
        result.orphans[uid] = (stand_in(uid, by_pod.get(uid, [])), state)
    return result


def instance(record: ContainerRecord) -> Instance:
    """Return a container of the runtime as a run of ours."""
    labels = record.spec.labels
    run = Instance(
        id=record.id,
        name=record.spec.name,
        attempt=record.spec.attempt,
        state="running" if record.running else "created",
        image=labels.get(spec.LABEL_IMAGE, ""),
        image_id=labels.get(spec.LABEL_IMAGE_ID, ""),
        started_at=record.state.started_at,
        stop_signal=record.spec.stop_signal or "SIGTERM",
        resources=from_label(labels.get(LABEL_RESOURCES)),
        user=identity(record),
        post_start_done=False,
    )
    if record.exit is not None:
        run.state = "exited"
        run.exit_code, run.finished_at = record.exit.code, record.exit.finished_at
        run.reason = end_reason(record.exit.code, record.exit.oom_killed, record.exit.reason)
    return run


def identity(record: ContainerRecord) -> ContainerUser | None:
    """Return who a container's first process is, as the container sees it; None: the runtime does not tell."""
    state = record.state
    if state.uid < 0:
        return None
    return ContainerUser(LinuxContainerUser(state.uid, state.gid, sorted(state.additional_gids)))


def stand_in(uid: str, containers: list[ContainerRecord]) -> Pod:
    """Return a pod for leftovers, with as much as they tell; it is deleted already, with the default grace."""
    first = containers[0].spec if containers else None
    names = dict.fromkeys(container.spec.name for container in containers)
    return Pod(
        metadata=ObjectMeta(
            name=first.pod_name if first else uid,
            namespace=first.pod_namespace if first else "unknown",
            uid=uid,
            deletion_timestamp="1970-01-01T00:00:00Z",
            deletion_grace_period_seconds=30,
        ),
        spec=PodSpec(containers=[Container(name=name) for name in names]),
    )


def _merge(state: PodState, containers: list[ContainerRecord], pod: Pod | None) -> list[str]:
    """Take the runtime's word over the record's: it is the one who knows what runs. Return the ids of surplus ones."""
    remembered = {run.id: run for run in state.all_instances()}
    for record in sorted(containers, key=lambda one: (one.spec.attempt, one.state.created_at)):
        fresh = instance(record)
        known = remembered.pop(fresh.id, None)
        if known is None:
            if pod is None or find_container(pod, fresh.name) is not None:
                state.add(fresh)
        elif known.running:
            _copy(fresh, known)
    for run in remembered.values():
        if run.state == "created":  # never let go, so the runtime has removed it: it counts as if it had not been
            state.instances[run.name].remove(run)
        elif run.running:  # it was running when the record was written, and now nobody has it
            run.state, run.exit_code, run.reason = "exited", 137, "ContainerStatusUnknown"
            run.message = "The container could not be located when the pod was terminated"
            run.finished_at = run.finished_at or run.started_at
    for runs in state.instances.values():
        runs.sort(key=lambda run: run.attempt)
    kept = {run.id for run in state.all_instances()}
    return [one.id for one in containers if one.id not in kept and one.exit is not None]


def _copy(source: Instance, target: Instance) -> None:
    for name in ("state", "started_at", "finished_at", "exit_code", "reason", "image_id", "stop_signal", "user"):
        setattr(target, name, getattr(source, name))
    target.resources = source.resources or target.resources


def _addresses(pod: Pod, state: PodState) -> None:
    """Probes go on at once, and need the address that the API was told, where the record is older than it."""
    if not state.ips and not pod.spec.host_network:
        state.ips = tuple(entry.ip for entry in pod.status.pod_ips)


def _sandbox_lost(state: PodState) -> None:
    """After a reboot everything starts anew, init containers too."""
    for run in state.all_instances():
        run.stale = not run.running
    if not any(run.running for run in state.all_instances()):
        state.backoffs.clear()  # nothing crashed: as with kubelet, whose back-offs do not outlive a reboot


def _probe_results(pod: Pod, state: PodState) -> None:
    """Keep what the API was told: a restart of the agent makes no container unready (upstream since 1.35)."""
    statuses = [*pod.status.init_container_statuses, *pod.status.container_statuses]
    for status in statuses:
        run = state.latest(status.name)
        if run is None or not run.running or not status.container_id.endswith(run.id):
            continue
        run.readiness = run.readiness if run.readiness is not None else status.ready or None
        run.startup = run.startup if run.startup is not None else status.started or None
