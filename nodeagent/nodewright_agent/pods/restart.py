"""Whether an ended container is started again: restart policy of the pod, of the container, and its exit code rules."""

from __future__ import annotations

from nodewright.kube.objects import Container, Pod
from nodewright_agent.pods.model import RESTART_ALWAYS, RESTART_NEVER, Instance, PodState, is_sidecar

RESTART, RESTART_ALL = "Restart", "RestartAllContainers"


def rule_action(container: Container, exit_code: int) -> str:
    """Return the action of the first rule that speaks of the exit code (KEP-5307); empty: none does."""
    for rule in container.restart_policy_rules:
        codes = rule.exit_codes
        if codes is None:
            continue
        inside = exit_code in codes.values
        if (codes.operator == "In" and inside) or (codes.operator == "NotIn" and not inside):
            return rule.action
    return ""


def restarts_after(pod: Pod, container: Container, exit_code: int, *, init: bool = False) -> bool:
    """Apply upstream's ContainerShouldRestart: rules on exit codes, then the container's policy, then the pod's.

    For init containers ``Always`` means ``OnFailure``, unless they are sidecars.
    """
    if rule_action(container, exit_code) in (RESTART, RESTART_ALL):
        return True
    policy = container.restart_policy or pod.spec.restart_policy
    if policy == RESTART_NEVER:
        return False
    if policy == RESTART_ALWAYS and (not init or is_sidecar(container)):
        return True
    return exit_code != 0


def wants_start(pod: Pod, container: Container, latest: Instance | None, *, init: bool = False) -> bool:
    """Tell whether a container that is not running has to be started (upstream's ShouldContainerBeRestarted)."""
    if pod.metadata.deletion_timestamp is not None:
        return False
    if latest is None or latest.reset:
        return True
    if latest.running:
        return False
    if latest.restart:
        return True
    return restarts_after(pod, container, latest.exit_code, init=init)


def may_restart_all(pod: Pod) -> bool:
    """Tell whether any rule of the pod is RestartAllContainers (upstream's AllContainersCouldRestart)."""
    containers = (*pod.spec.init_containers, *pod.spec.containers)
    return any(rule.action == RESTART_ALL for one in containers for rule in one.restart_policy_rules)


def asks_for_all(container: Container, run: Instance | None) -> bool:
    """Tell whether a run ended in a way that restarts all containers of its pod (KEP-5532)."""
    ended = run is not None and run.state == "exited" and not run.stale
    return ended and run is not None and rule_action(container, run.exit_code) == RESTART_ALL


def all_asked(pod: Pod, state: PodState) -> bool:
    """Tell whether a container has asked for a restart of all, which has not been done yet."""
    for container in (*pod.spec.init_containers, *pod.spec.containers):
        run = state.latest(container.name)
        if run is not None and not run.reset and asks_for_all(container, run):
            return True
    return False


def over_after_reboot(pod: Pod, state: PodState) -> bool:
    """Tell whether a pod whose sandbox is gone is over, so that nothing is made for it again.

    Upstream: a pod that is never restarted is over once any of its containers has existed; others when no main
    container is left to be started. One whose end has not been told yet may be.
    """
    runs = state.all_instances()
    if not runs or not all(run.stale for run in runs):
        return False
    if pod.spec.restart_policy == RESTART_NEVER:
        return True
    latest = [(container, state.latest(container.name)) for container in pod.spec.containers]
    return not any((run is not None and run.running) or wants_start(pod, container, run) for container, run in latest)
