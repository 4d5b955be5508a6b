"""Stopping containers: how long they have, in which order, and when SIGKILL follows. Pure.

Upstream gives every container at least 2 s, so that a grace of 1 s lasts 2. We keep an explicit grace to the second,
and use the 2 s where no grace is left: forced deletion, or a preStop hook or an ordering that used all of it.
"""

from __future__ import annotations

from nodewright.kube.objects import Pod, Probe
from nodewright_agent.pods.actions import Action, EndHook, KillContainer, SignalContainer, StopContainer
from nodewright_agent.pods.model import Instance, PodState, Stop, Termination, is_sidecar

MINIMUM_WINDOW = 2.0
DEFAULT_GRACE = 30.0


def window(grace: float) -> float:
    """Return the seconds between SIGTERM and SIGKILL for a grace in seconds."""
    return grace if grace >= 1 else MINIMUM_WINDOW


def default_grace(pod: Pod) -> float:
    """Return terminationGracePeriodSeconds, 30 where it is not set."""
    seconds = pod.spec.termination_grace_period_seconds
    return DEFAULT_GRACE if seconds is None else float(seconds)


def deletion_grace(pod: Pod) -> float:
    """Return the grace of the deletion that was asked for, else the pod's own."""
    seconds = pod.metadata.deletion_grace_period_seconds
    return default_grace(pod) if seconds is None else float(seconds)


def probe_grace(pod: Pod, probe: Probe | None) -> float:
    """Return the grace of a container whose probe failed: the probe's own, else the pod's."""
    if probe is not None and probe.termination_grace_period_seconds is not None:
        return float(probe.termination_grace_period_seconds)
    return default_grace(pod)


def begin(now: float, grace: float, whole: float | None = None) -> Stop:
    """Return the stop of a container that begins at ``now``; ``grace`` is left of ``whole`` (None: all of it).

    What was late for its signal gets 2 s all the same, but no more than the whole.
    """
    least = min(window(grace if whole is None else whole), MINIMUM_WINDOW)
    return Stop(deadline=now + window(grace), least=least)


def step(
    run: Instance, now: float, *, limit: float | None = None, turn: bool = True
) -> tuple[Action | None, float | None]:
    """Return the next step for a container that is being stopped, else when to look again.

    ``limit``: the pod's own deadline, which may come earlier. ``turn``: no container has to go before it. The preStop
    hook does not wait for the turn, only the stop signal does, as upstream has it.
    """
    stop = run.stop
    if stop is None or stop.kill_sent:
        return None, None
    deadline = stop.deadline if limit is None else min(stop.deadline, limit)
    if stop.term_sent:
        due = max(deadline, stop.floor)
        return (KillContainer(run.id, run.name), None) if now >= due else (None, due)
    if stop.hook:
        return (EndHook(run.id, run.name), None) if now >= deadline else (None, deadline)
    if turn or now >= deadline:
        return SignalContainer(run.id, run.name), None
    return None, deadline


def shorten(pod: Pod, termination: Termination, now: float) -> None:
    """Apply a later deletion with a shorter grace; a deadline never moves back."""
    wanted = termination.started_at + window(deletion_grace(pod))
    if wanted < termination.deadline:
        termination.deadline = max(wanted, now)


def stop_all(pod: Pod, state: PodState, termination: Termination, now: float) -> tuple[list[Action], float | None]:
    """Bring every running container one step further towards its end; when to look again."""
    actions: list[Action] = []
    wakes: list[float] = []
    for run in state.all_instances():
        if run.state != "running":
            continue  # ended, or being created: its start will end, and then it is stopped
        if run.stop is None:
            grace = max(0.0, termination.deadline - now)
            whole = termination.deadline - termination.started_at
            actions.append(StopContainer(run.id, run.name, grace, f"Stopping container {run.name}", whole=whole))
            continue
        action, wake_at = step(run, now, limit=termination.deadline, turn=_its_turn(pod, run, state))
        if action is not None:
            actions.append(action)
        if wake_at is not None:
            wakes.append(wake_at)
    return actions, min(wakes, default=None)


def _its_turn(pod: Pod, run: Instance, state: PodState) -> bool:
    """Sidecars go after the main containers, the last one first; all others at once."""
    order = [container.name for container in pod.spec.init_containers if is_sidecar(container)]
    if run.name not in order:
        return True
    before = [container.name for container in pod.spec.containers] + order[order.index(run.name) + 1 :]
    return not any((other := state.latest(name)) is not None and other.running for name in before)
