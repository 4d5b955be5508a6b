"""What a pod's resize needs next; part of the pod state machine. Pure.

As upstream: containers whose policy wants a restart are stopped first, then cgroups are written, then they start.
A failed try holds up no start; it is repeated.
"""

from __future__ import annotations

from dataclasses import dataclass

from nodewright.kube.objects import Container, Pod
from nodewright_agent.pods.model import Instance, PodState, is_sidecar
from nodewright_agent.pods.resize.allocation import needs_restart, same

RETRY = 10.0
"""Seconds after a failed try (kubelet's back-off of its pod workers)."""


@dataclass(frozen=True, slots=True)
class Next:
    """``act``: write cgroups now; ``hold``: start no container before that; ``wake_at``: look again then."""

    act: bool = False
    hold: bool = False
    wake_at: float | None = None


NOTHING = Next()


def wants_restart(container: Container, run: Instance) -> bool:
    """Tell whether a running container has to be restarted to get its resources."""
    if run.resources is None or same(run.resources, container.resources):
        return False
    return needs_restart(container, run.resources)


def next_step(pod: Pod, state: PodState, now: float) -> Next:
    """Return what to do for a resize that is under way."""
    progress = state.resize.progress
    if progress is None or not state.sandbox.ready:
        return NOTHING
    if state.resize.busy or state.busy:
        return Next(hold=state.resize.busy)
    sidecars = [container for container in pod.spec.init_containers if is_sidecar(container)]
    for container in (*pod.spec.containers, *sidecars):
        run = state.latest(container.name)
        if run is not None and run.running and wants_restart(container, run):
            return Next(hold=True)
    if progress.error and now < progress.retry_at:
        return Next(wake_at=progress.retry_at)
    return Next(act=True, hold=True)
