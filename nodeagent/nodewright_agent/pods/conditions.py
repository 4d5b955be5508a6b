"""The conditions of a pod that its node owns: reasons and messages of kubelet's status/generate.go. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from nodewright.kube.objects import ContainerStatus, Pod, PodCondition
from nodewright_agent.pods.model import is_sidecar
from nodewright_agent.pods.phase import FAILED, SUCCEEDED
from nodewright_agent.pods.restart import may_restart_all

READY_TO_START = "PodReadyToStartContainers"
RESTARTING_ALL = "AllContainersRestarting"
DISRUPTION_TARGET, BY_KUBELET = "DisruptionTarget", "TerminationByKubelet"
OWNED = (READY_TO_START, "Initialized", "Ready", "ContainersReady", "PodScheduled", RESTARTING_ALL)
"""Types that nobody but the node writes. DisruptionTarget is shared: the node only ever sets it to True."""

_TERMINAL_REASON = {SUCCEEDED: "PodCompleted", FAILED: "PodFailed"}


def pod_conditions(
    pod: Pod,
    phase: str,
    statuses: Mapping[str, ContainerStatus],
    sandbox_ready: bool,
    now: str,
    *,
    restarting_all: bool = False,
    disruption: str = "",
) -> list[PodCondition]:
    """Return the node's conditions; the transition time of an unchanged one is kept from ``pod.status``.

    ``disruption``: why the node itself ends the pod (eviction, preemption, shutdown); empty where it does not.
    """
    ready = _containers_ready(pod, phase, statuses)
    made = [
        PodCondition(type=READY_TO_START, status=_bool(sandbox_ready)),
        _initialised(pod, phase, statuses),
        _pod_ready(pod, ready),
        PodCondition(type="ContainersReady", status=ready[0], reason=ready[1], message=ready[2]),
        PodCondition(type="PodScheduled", status="True"),
    ]
    if may_restart_all(pod):
        made.append(_restarting_all(phase, restarting_all))
    if disruption:
        made.append(PodCondition(type=DISRUPTION_TARGET, status="True", reason=BY_KUBELET, message=disruption))
    old = {condition.type: condition for condition in pod.status.conditions}
    for condition in made:
        before = old.get(condition.type)
        same = before is not None and before.status == condition.status and before.last_transition_time
        condition.last_transition_time = before.last_transition_time if before is not None and same else now
        condition.observed_generation = pod.metadata.generation
    return made


def _bool(value: bool) -> str:
    return "True" if value else "False"


def _go_list(names: Iterable[str]) -> str:
    return f"[{' '.join(names)}]"


def _containers_ready(pod: Pod, phase: str, statuses: Mapping[str, ContainerStatus]) -> tuple[str, str, str]:
    """Return status, reason and message of ContainersReady."""
    lasting = [c for c in pod.spec.init_containers if is_sidecar(c)] + pod.spec.containers
    unknown = [c.name for c in lasting if c.name not in statuses]
    unready = [c.name for c in lasting if c.name in statuses and not statuses[c.name].ready]
    if phase == FAILED or (phase == SUCCEEDED and not unknown):
        return "False", _TERMINAL_REASON[phase], ""
    parts = []
    if unknown:
        parts.append(f"containers with unknown status: {_go_list(unknown)}")
    if unready:
        parts.append(f"containers with unready status: {_go_list(unready)}")
    return ("False", "ContainersNotReady", ", ".join(parts)) if parts else ("True", "", "")


def _pod_ready(pod: Pod, containers: tuple[str, str, str]) -> PodCondition:
    status, reason, message = containers
    if status == "True":
        current = {condition.type: condition.status for condition in pod.status.conditions}
        problems = []
        for gate in pod.spec.readiness_gates:
            value = current.get(gate.condition_type)
            if value is None:
                problems.append(
                    f'corresponding condition of pod readiness gate "{gate.condition_type}" does not exist.'
                )
            elif value != "True":
                problems.append(f'the status of pod readiness gate "{gate.condition_type}" is not "True", but {value}')
        if problems:
            status, reason, message = "False", "ReadinessGatesNotReady", ", ".join(problems)
    return PodCondition(type="Ready", status=status, reason=reason, message=message)


def _initialised(pod: Pod, phase: str, statuses: Mapping[str, ContainerStatus]) -> PodCondition:
    unknown, incomplete = [], []
    for container in pod.spec.init_containers:
        status = statuses.get(container.name)
        if status is None:
            unknown.append(container.name)
        elif not (status.started if is_sidecar(container) else status.ready):
            incomplete.append(container.name)
    if phase == SUCCEEDED and not unknown:
        return PodCondition(type="Initialized", status="True", reason="PodCompleted")
    main_ran = any(
        (status := statuses.get(c.name)) is not None
        and (status.state.running or status.state.terminated or status.last_state.terminated)
        for c in pod.spec.containers
    )
    parts = []
    if unknown:
        parts.append(f"containers with unknown status: {_go_list(unknown)}")
    if incomplete:
        parts.append(f"containers with incomplete status: {_go_list(incomplete)}")
    # Once initialised, a pod stays so, also while all its containers are restarted (KEP-5532).
    before = any(one.type == "Initialized" and one.status == "True" for one in pod.status.conditions)
    if not parts or main_ran or (before and may_restart_all(pod)):
        return PodCondition(type="Initialized", status="True")
    return PodCondition(type="Initialized", status="False", reason="ContainersNotInitialized", message=", ".join(parts))


def _restarting_all(phase: str, now: bool) -> PodCondition:
    if phase in _TERMINAL_REASON:
        return PodCondition(type=RESTARTING_ALL, status="False", reason=_TERMINAL_REASON[phase])
    if not now:
        return PodCondition(type=RESTARTING_ALL, status="False")
    message = "container exited with restart policy rule"
    return PodCondition(type=RESTARTING_ALL, status="True", reason="RestartAllContainersStarted", message=message)
