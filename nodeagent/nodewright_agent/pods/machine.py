"""The pod state machine: what is wanted and what is known, to the next actions. No I/O, no clock.

``decide`` is called after every event of a pod. It never assumes that an action that it returned succeeded: the shell
records the outcome in ``PodState`` and calls again. Rules follow kubelet's computePodActions, its pod workers
(running, terminating, terminated) and its termination order.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from nodewright.kube.objects import Container, Pod
from nodewright_agent.pods import killing, restart, waiting
from nodewright_agent.pods.actions import (
    Action,
    CreateSandbox,
    EnsureImage,
    Finish,
    KillContainer,
    Reset,
    ResizePod,
    RestartAll,
    SetUpVolumes,
    StartContainer,
    StopContainer,
    TearDown,
)
from nodewright_agent.pods.backoff import BackoffPolicy
from nodewright_agent.pods.model import RESTART_NEVER, Instance, PodState, StepState, Termination, is_sidecar
from nodewright_agent.pods.resize import decide as resizing
from nodewright_agent.pods.restart import restarts_after, wants_start


@dataclass(frozen=True, slots=True)
class Settings:
    """What the decisions depend on besides the pod."""

    crash: BackoffPolicy = field(default_factory=BackoffPolicy)


@dataclass(slots=True)
class Decision:
    """What to do now, why containers wait (name to reason and message), and when to look again without an event."""

    actions: list[Action] = field(default_factory=list)
    waiting: dict[str, waiting.Waiting] = field(default_factory=dict)
    wake_at: float | None = None
    terminate: Termination | None = None
    """The pod has to be terminated now; the shell records it and decides again."""

    def wake(self, when: float) -> None:
        """Ask for another decision at ``when``."""
        self.wake_at = when if self.wake_at is None else min(self.wake_at, when)


def decide(pod: Pod, state: PodState, now: float, settings: Settings) -> Decision:
    """Return what has to be done for the pod at ``now``."""
    this = _Round(pod, state, now, settings)
    if state.finished:
        this.after_end()
    elif state.termination is not None:
        this.terminating(state.termination)
    else:
        this.running()
    return this.decision


class _Round:
    """One decision: the inputs, and the decision as it grows."""

    def __init__(self, pod: Pod, state: PodState, now: float, settings: Settings) -> None:
        self.pod, self.state, self.now, self.settings = pod, state, now, settings
        self.decision = Decision()
        self.hold = False
        """No container is started now: the pod's cgroup is to be written first."""

    def running(self) -> None:
        """The pod shall run: prepare it, and start, restart or stop its containers."""
        self.decision.terminate = self._termination_due()
        if self.decision.terminate is not None:
            return
        if self._restarting_all():
            return
        if restart.over_after_reboot(self.pod, self.state):
            self._complete()
            return
        self._prepare()
        self._resize()
        if self._initialise():
            self._run_main()
        for container in self.pod.spec.ephemeral_containers:
            if self.state.latest(container.name) is None:
                self._start(container)

    def terminating(self, termination: Termination) -> None:
        """The pod shall stop: signal its containers in order, kill what does not go, then finish."""
        if self.pod.metadata.deletion_timestamp is not None:
            killing.shorten(self.pod, termination, self.now)
        actions, wake_at = killing.stop_all(self.pod, self.state, termination, self.now)
        self.decision.actions += actions
        if wake_at is not None:
            self.decision.wake(wake_at)
        if not self.state.busy and not any(run.running for run in self.state.all_instances()):
            self.decision.actions.append(Finish())

    def after_end(self) -> None:
        """All containers have stopped for good: remove what the pod used."""
        step = self.state.teardown
        if step.due(self.now):
            # What is half made cannot be removed: wait until its maker is done or cancelled.
            if StepState.BUSY not in (self.state.sandbox.state, self.state.volumes.state):
                self.decision.actions.append(TearDown())
        elif step.state is StepState.FAILED:
            self.decision.wake(step.retry_at)

    def _termination_due(self) -> Termination | None:
        """Return why the pod has to stop: deleted, or past activeDeadlineSeconds; None: it goes on."""
        pod, now = self.pod, self.now
        if pod.metadata.deletion_timestamp is not None:
            return Termination(started_at=now, deadline=now + killing.window(killing.deletion_grace(pod)))
        limit = pod.spec.active_deadline_seconds
        if limit is None or not self.state.start_time:
            return None
        if now < self.state.start_time + limit:
            self.decision.wake(self.state.start_time + limit)
            return None
        return Termination(
            started_at=now,
            deadline=now + killing.window(killing.default_grace(pod)),
            reason="DeadlineExceeded",
            message="Pod was active on the node longer than the specified deadline",
            phase="Failed",
        )

    def _restarting_all(self) -> bool:
        """End all containers where one has asked for it, without hooks and grace, and start over (KEP-5532)."""
        actions, state = self.decision.actions, self.state
        if not state.restart_all:
            if not restart.all_asked(self.pod, state):
                return False
            actions.append(RestartAll())
            return True
        alive = [run for run in state.all_instances() if run.running]
        for run in alive:
            if run.state == "running" and (run.stop is None or not run.stop.kill_sent):
                actions.append(KillContainer(run.id, run.name, f"Stopping container {run.name}"))
        if not alive and not state.busy:
            actions.append(Reset())
        return True

    def _complete(self) -> None:
        """Nothing is left to run: stop sidecars, and let the pod end by its exit codes."""
        grace = killing.window(killing.default_grace(self.pod))
        self.decision.terminate = Termination(started_at=self.now, deadline=self.now + grace)

    def _prepare(self) -> None:
        # What ran in a sandbox that has changed is on its way out: its end comes first.
        if any(run.stale and run.running for run in self.state.all_instances()):
            return
        for step, action in ((self.state.sandbox, CreateSandbox()), (self.state.volumes, SetUpVolumes())):
            if step.due(self.now):
                self.decision.actions.append(action)
            elif step.state is StepState.FAILED:
                self.decision.wake(step.retry_at)

    def _resize(self) -> None:
        step = resizing.next_step(self.pod, self.state, self.now)
        self.hold = step.hold
        if step.act:
            self.decision.actions.append(ResizePod())
        if step.wake_at is not None:
            self.decision.wake(step.wake_at)

    def _current(self, name: str) -> Instance | None:
        """Return the newest run of a container within the present sandbox."""
        run = self.state.latest(name)
        return None if run is None or run.stale or run.reset else run

    def _initialise(self) -> bool:
        """Bring the init containers forward; return whether the main containers may run.

        The last init container that has run tells how far the pod got: all before it had succeeded.
        """
        inits = self.pod.spec.init_containers
        if not inits:
            return True
        main_ran = any(self._current(container.name) is not None for container in self.pod.spec.containers)
        reached = max((i for i, c in enumerate(inits) if self._current(c.name) is not None), default=-1)
        for container in inits if main_ran else inits[: max(reached, 0)]:
            if is_sidecar(container):
                self._keep_sidecar(container)
        if main_ran:
            return True
        if reached < 0:
            self._start(inits[0])
        elif self._init_done(inits[reached]):
            if reached + 1 == len(inits):
                return True
            self._start(inits[reached + 1])
        return False

    def _init_done(self, container: Container) -> bool:
        """Look at the init container that the pod has reached; return whether the next one may start."""
        run = self.state.latest(container.name)
        assert run is not None
        if is_sidecar(container):
            self._keep_sidecar(container)
            return run.state == "running" and has_started(container, run)
        if run.running:
            return False
        if run.exit_code == 0:
            return True
        if restarts_after(self.pod, container, run.exit_code, init=True):
            self._start(container)
        else:
            self._complete()
        return False

    def _keep_sidecar(self, container: Container) -> None:
        run = self._current(container.name)
        if run is not None and run.running:
            self._check_running(container, run, "Init container")
        else:
            self._start(container)

    def _run_main(self) -> None:
        alive = 0
        for container in self.pod.spec.containers:
            run = self.state.latest(container.name)
            if run is not None and run.running:
                alive += 1
                self._check_running(container, run, "Container")
            elif wants_start(self.pod, container, run):
                alive += 1
                self._start(container)
        if not alive and not self.state.busy:
            self._complete()

    def _check_running(self, container: Container, run: Instance, kind: str) -> None:
        """Stop a running container whose image was changed or whose probe has failed; kill one that does not stop."""
        if run.stop is not None:
            self._stop_further(run)
            return
        if run.state != "running":
            return
        grace = killing.default_grace(self.pod)
        again = (container.restart_policy or self.pod.spec.restart_policy) != RESTART_NEVER
        if run.image != container.image:
            why, again = "definition changed", True
        elif run.liveness is False:
            why, grace = "failed liveness probe", killing.probe_grace(self.pod, container.liveness_probe)
        elif run.startup is False:
            why, grace = "failed startup probe", killing.probe_grace(self.pod, container.startup_probe)
        elif resizing.wants_restart(container, run):
            message = f"Container {container.name} resize requires restart"
            self.decision.actions.append(StopContainer(run.id, container.name, grace, message, restart=True))
            return
        else:
            return
        message = f"{kind} {container.name} {why}" + (", will be restarted" if again else "")
        changed = run.image != container.image
        self.decision.actions.append(StopContainer(run.id, container.name, grace, message, restart=changed))

    def _stop_further(self, run: Instance) -> None:
        action, wake_at = killing.step(run, self.now)
        if action is not None:
            self.decision.actions.append(action)
        if wake_at is not None:
            self.decision.wake(wake_at)

    def _start(self, container: Container) -> None:
        """Bring the start of a container one step further: back-off, image, then the start itself."""
        name, state, now = container.name, self.state, self.now
        found = waiting.for_backoff(self.pod, container, state, now, self.settings.crash)
        if found is None:
            found = waiting.for_failure(container, state, now)
        if found is None:
            self._ensure_image(container)
            found = waiting.for_image(container, state, now)
        if found is not None:
            if found.reason:
                self.decision.waiting[name] = found
            if found.until is not None:
                self.decision.wake(found.until)
            return
        failure = state.failures.get(name)
        if failure is not None and failure.retry_at:
            self.decision.waiting[name] = waiting.Waiting(failure.reason, failure.message)  # shown while we try again
        # One start at a time: order and postStart hooks are upstream's promise.
        ready = state.sandbox.ready and state.volumes.ready and not state.busy and not self.hold
        if ready and not any(isinstance(action, StartContainer) for action in self.decision.actions):
            self.decision.actions.append(StartContainer(name))

    def _ensure_image(self, container: Container) -> None:
        image = self.state.images.get(container.name)
        changed = image is not None and image.image != container.image and image.state is not StepState.BUSY
        if image is None or changed or image.due(self.now):
            self.decision.actions.append(EnsureImage(container.name))


def has_started(container: Container, run: Instance) -> bool:
    """Tell whether a running container counts as started: postStart done and startup probe passed."""
    return run.post_start_done and (container.startup_probe is None or run.startup is True)
