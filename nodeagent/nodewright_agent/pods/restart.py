"""Whether an ended container is started again: restart policy of the pod, of the container, and its exit code rules."""

from __future__ import annotations

from nodewright.kube.objects import Container, Pod
from nodewright_agent.pods.model import RESTART_ALWAYS, RESTART_NEVER, Instance, is_sidecar


def restarts_after(pod: Pod, container: Container, exit_code: int, *, init: bool = False) -> bool:
    """Apply upstream's ContainerShouldRestart (KEP-5307): rules on exit codes, then the container's or pod's policy.

    For init containers ``Always`` means ``OnFailure``, unless they are sidecars.
    """
    for rule in container.restart_policy_rules:
        codes = rule.exit_codes
        if codes is None:
            continue
        inside = exit_code in codes.values
        if (codes.operator == "In" and inside) or (codes.operator == "NotIn" and not inside):
            if rule.action == "Restart":
                return True
            break  # RestartAllContainers is a node feature that we do not declare: the policy decides
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
    if latest is None:
        return True
    if latest.running:
        return False
    return restarts_after(pod, container, latest.exit_code, init=init)
