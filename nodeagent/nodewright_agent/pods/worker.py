"""One worker per pod: an asyncio task that is woken by events, asks the state machine, and acts on its answer.

All of a worker's state is changed in the event loop's thread only. Slow operations run as tasks of their own (see
``starting`` and ``stopping``), so that a pod can be deleted while its image is pulled, and so that sandbox, volumes
and image are prepared side by side.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import msgspec

from nodewright.kube.objects import Pod, PodStatus
from nodewright_agent.pods import actions, killing, phase, refs
from nodewright_agent.pods.backoff import BackoffPolicy
from nodewright_agent.pods.conditions import OWNED
from nodewright_agent.pods.machine import Decision, Settings, decide
from nodewright_agent.pods.model import ImageStep, PodState, Step, StepState, Termination, end_reason, find_container
from nodewright_agent.pods.ports import Clock, Events, Exit, Operations, Probes, StatusSink
from nodewright_agent.pods.resize.allocation import allocated
from nodewright_agent.pods.resize.work import Resizer
from nodewright_agent.pods.starting import Starter
from nodewright_agent.pods.static.manifest import is_static
from nodewright_agent.pods.status import NodeFacts, build_status
from nodewright_agent.pods.stopping import Stopper
from nodewright_agent.pods.times import rfc3339, seconds
from nodewright_agent.pods.trace import Tracer
from nodewright_agent.pods.waiting import Waiting

log = logging.getLogger(__name__)


@dataclass(slots=True)
class WorkerDeps:
    """What all workers of a node share."""

    operations: Operations
    status: StatusSink
    events: Events
    probes: Probes
    tracer: Tracer
    clock: Clock
    node: NodeFacts
    settings: Settings = field(default_factory=Settings)
    image_backoff: BackoffPolicy = field(default_factory=BackoffPolicy)
    owners: dict[str, PodWorker] = field(default_factory=dict)
    """Worker by container id, to route exits and probe results."""
    started: Callable[[float], None] = lambda seconds: None
    """Told how long each pod took from its first sight to Running."""
    save: Callable[[PodWorker], None] = lambda worker: None
    """Persist a pod's record."""
    resize: Callable[[PodWorker], None] = lambda worker: None
    """Told of every new version of a pod: whether the resources that it wishes for can be granted."""
    room: Callable[[], None] = lambda: None
    """Told when a pod has given resources back."""


class PodWorker:
    """Drives one pod from first sight until it is gone."""

    def __init__(self, pod: Pod, deps: WorkerDeps, state: PodState | None = None) -> None:
        """Take a new pod, or one that was restored with what is known of it."""
        self.pod = pod
        """As the API has it, but with the resources that the node has granted."""
        self.desired = pod
        """As the API has it; the same object where it wishes for nothing else."""
        self.state = state or PodState(start_time=deps.clock())
        # What has containers but no record began when the API says so; deadlines count from then.
        self.state.start_time = self.state.start_time or seconds(pod.status.start_time) or deps.clock()
        self.deps = deps
        self.gone = False
        """The API server no longer has the pod."""
        self.settled = False
        """Torn down, and the API knows; nothing is left but to forget the pod."""
        self._keep_logs = False
        self.starter, self.stopper, self.resizer = Starter(self), Stopper(self), Resizer(self)
        self._published: PodStatus | None = None
        self._waiting: dict[str, Waiting] = {}
        self._wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        for run in self.state.all_instances():
            deps.owners[run.id] = self

    @property
    def uid(self) -> str:
        """The pod's UID."""
        return self.pod.metadata.uid

    def wake(self) -> None:
        """Have the worker look at its pod."""
        self._wake.set()

    def update(self, pod: Pod) -> None:
        """Take a new version of the pod from the API."""
        if self.gone:
            return
        self.desired, self.pod = pod, allocated(pod, self.pod)
        self.deps.resize(self)
        self.deps.operations.pod_changed(self.pod)
        self._end_where_api_says()
        self.deps.status.observed(pod)
        self.wake()

    def remove(self) -> None:
        """Take note that the pod is gone from the API: stop what runs, and clean up."""
        self.gone = True
        if self.pod.metadata.deletion_timestamp is None:
            meta = msgspec.structs.replace(
                self.pod.metadata, deletion_timestamp="1970-01-01T00:00:00Z", deletion_grace_period_seconds=0
            )
            self.pod = msgspec.structs.replace(self.pod, metadata=meta)
        self.deps.status.forget(self.uid)
        self.wake()

    @property
    def retiring(self) -> bool:
        """The pod is to be deleted."""
        return self.pod.metadata.deletion_timestamp is not None

    def retire(self, *, keep_logs: bool) -> None:
        """End a static pod, whose file was removed or changed, within its grace; no API server says when it is gone.

        With ``keep_logs`` the next one of the same UID counts its runs on.
        """
        self._keep_logs = keep_logs
        grace = int(killing.default_grace(self.pod))
        meta = msgspec.structs.replace(
            self.pod.metadata, deletion_timestamp=rfc3339(self.deps.clock()), deletion_grace_period_seconds=grace
        )
        self.desired = self.pod = msgspec.structs.replace(self.pod, metadata=meta)
        self.deps.save(self)
        self.wake()

    def exited(self, container_id: str, end: Exit) -> None:
        """Take note of the end of a run."""
        run = next((run for run in self.state.all_instances() if run.id == container_id), None)
        if run is None or not run.running:
            return
        hooked = run.state == "running" and not run.post_start_done
        run.state = "exited"
        run.exit_code, run.finished_at = end.code, end.finished_at
        run.reason = end_reason(end.code, end.oom_killed, end.unknown)
        run.message = self.deps.operations.end_message(self.pod, find_container(self.pod, run.name), run)
        self.deps.probes.stop(run)
        self.stopper.ended(run)
        if hooked:
            self.cancel(lambda name: name == f"start {run.name}")  # its hook has nothing to act on any more
        self.deps.save(self)
        self.wake()

    def sandbox_lost(self) -> None:
        """The process has ended on which the pod's shared process namespace hangs, and with it every other.

        As kubelet does: the sandbox has changed, all containers start again in a new one.
        """
        state = self.state
        if not state.sandbox.ready or state.termination is not None or state.finished:
            return
        for run in state.all_instances():
            run.stale = True
        state.sandbox = Step()
        self.deps.save(self)
        self.wake()

    def end(self, termination: Termination) -> None:
        """End the pod for a reason of the node's: it is short of something, or shuts down. An earlier end counts."""
        if self.state.finished:
            return
        if self.state.termination is None:
            self.stopper.begin(termination)
        else:
            self.state.termination.deadline = min(self.state.termination.deadline, termination.deadline)
        self.deps.save(self)
        self.wake()

    def retry_volumes(self) -> None:
        """Set up the volumes again now, where that had failed."""
        self.state.volumes.retry_at = 0.0
        self.wake()

    async def run(self) -> None:
        """Work until the pod is gone and nothing of it is left."""
        self._end_where_api_says()
        self.starter.resume()
        self._resume_probes()
        try:
            while not (self.gone and self.settled):
                self._wake.clear()
                self._round()
                await self._wake.wait()
            await self.deps.operations.forget(self.pod, keep_logs=self._keep_logs)
        finally:
            self.cancel(lambda name: True)
            self._set_timer(None)
            for run in self.state.all_instances():
                self.deps.probes.stop(run)
                self.deps.owners.pop(run.id, None)
            self.deps.probes.forget(self.uid)

    def status(self) -> PodStatus:
        """Return the pod's present status."""
        return build_status(self._remembered(), self.state, self.deps.clock(), self.deps.node, self._waiting)

    def current(self) -> Pod:
        """Return the pod with its present status, which may be newer than the API's."""
        return msgspec.structs.replace(self.pod, status=self.status())

    def reject(self, reason: str, message: str) -> None:
        """End a pod that the node does not admit, before anything is made for it."""
        now = self.deps.clock()
        told = f"Pod was rejected: {message}"
        self.state.termination = Termination(now, now, reason, told, phase.FAILED, refused=True)
        self.state.finished = True
        self.state.teardown = Step(StepState.READY)
        self.event("Warning", reason, message)

    def event(self, type: str, reason: str, message: str, container: str = "") -> None:
        """Post an event about the pod, or one of its containers."""
        self.deps.events.event(refs.reference(self.pod, container), type, reason, message)

    def spawn(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Run an operation beside the worker; its end wakes the worker."""
        task = asyncio.get_running_loop().create_task(work, name=f"{self.pod.key} {name}")
        self._tasks[name] = task
        task.add_done_callback(lambda done: self._done(name, done))

    def cancel(self, which: Callable[[str], bool]) -> None:
        """Cancel the operations whose name ``which`` accepts."""
        for name, task in list(self._tasks.items()):
            if which(name):
                task.cancel()

    def _round(self) -> None:
        decision = self._decide()
        self._waiting = decision.waiting
        self._publish()
        if decision.wake_at is None:
            self._set_timer(None)
        else:
            delay = max(0.0, decision.wake_at - self.deps.clock())
            self._set_timer(asyncio.get_running_loop().call_later(delay, self.wake))
        if self.state.teardown.ready and not self.settled and "settle" not in self._tasks:
            if self.gone:
                self.settled = True
                self.wake()
            elif self.pod.metadata.deletion_timestamp is not None:
                self.spawn("settle", self._settle())

    async def _settle(self) -> None:
        """The pod is over and to be deleted: bring its end to the API, then remove it there."""
        await self.deps.status.flushed(self.uid)
        if not self.gone:
            await self.deps.status.delete(self.pod)
        self.settled = True
        self.gone = self.gone or is_static(self.pod)

    def _decide(self) -> Decision:
        while True:
            decision = decide(self.pod, self.state, self.deps.clock(), self.deps.settings)
            self._report_backoff(decision)
            if decision.terminate is not None:
                self.stopper.begin(decision.terminate)
                continue
            again = [self._act(action) for action in decision.actions]
            if not any(again):
                return decision

    def _act(self, action: actions.Action) -> bool:
        """Begin an action; return whether to decide again at once."""
        match action:
            case actions.CreateSandbox():
                self.starter.create_sandbox()
            case actions.SetUpVolumes():
                self.starter.set_up_volumes()
            case actions.EnsureImage(name):
                self.starter.ensure_image(name)
            case actions.StartContainer(name):
                self.starter.start(name)
            case actions.StopContainer():
                self.stopper.stop(action)
                return True
            case actions.EndHook(container_id):
                self.stopper.end_hook(container_id)
                return True
            case actions.SignalContainer(container_id):
                self.stopper.signal(container_id)
                return True
            case actions.KillContainer():
                self.stopper.kill(action)
            case actions.RestartAll():
                self.state.restart_all = True
                self.deps.save(self)
                return True
            case actions.Reset():
                self.stopper.reset()
                return True
            case actions.ResizePod():
                self.resizer.begin()
            case actions.Finish():
                self.state.finished = True
                self.deps.save(self)
                self.deps.room()
                return True
            case actions.TearDown():
                self.stopper.tear_down()
        return False

    def _end_where_api_says(self) -> None:
        """A pod that is terminal in the API (evicted, or ended before the agent restarted) runs nothing any more."""
        status = self.pod.status
        if status.phase in phase.TERMINAL and self.state.termination is None and not self.state.finished:
            now = self.deps.clock()
            deadline = now + killing.window(killing.deletion_grace(self.pod))
            self.stopper.begin(Termination(now, deadline, status.reason, status.message, status.phase))

    def _resume_probes(self) -> None:
        if self.state.termination is not None:
            return
        for run in self.state.all_instances():
            container = find_container(self.pod, run.name)
            if run.state == "running" and container is not None:
                self.deps.probes.start(self.pod, container, run, self.state.ips)

    def _remembered(self) -> Pod:
        """Return the pod with the status that we published last: the API's copy may be older than our own."""
        if self._published is None:
            return self.pod
        others = [condition for condition in self.pod.status.conditions if condition.type not in OWNED]
        own = [condition for condition in self._published.conditions if condition.type in OWNED]
        status = msgspec.structs.replace(self._published, conditions=[*others, *own])
        return msgspec.structs.replace(self.pod, status=status)

    def _publish(self) -> None:
        if self.gone:
            return
        status = self.status()
        if status == self._published:
            return
        before = self.pod.status.phase if self._published is None else self._published.phase
        if status.phase == phase.RUNNING and before in ("", phase.PENDING):
            self.deps.started(self.deps.clock() - self.state.start_time)
        self._published = status
        # Nothing but "it is being made" can wait a moment: most pods run by then, and one write tells it all.
        lazy = status.phase == phase.PENDING and not self._waiting and self.state.termination is None
        self.deps.status.publish(self.pod, status, lazy=lazy)

    def _report_backoff(self, decision: Decision) -> None:
        for name, wait in decision.waiting.items():
            before = self._waiting.get(name)
            container = find_container(self.pod, name)
            if container is None or (before is not None and before.reason == wait.reason):
                continue
            if wait.reason == "CrashLoopBackOff":
                text = f"Back-off restarting failed container {name} in pod {refs.display(self.pod)}"
                self.event("Warning", "BackOff", text, name)
            elif wait.reason == "ImagePullBackOff":
                self.event("Normal", "BackOff", f'Back-off pulling image "{container.image}"', name)
                self.event("Warning", "Failed", "Error: ImagePullBackOff", name)

    def _done(self, name: str, task: asyncio.Task[None]) -> None:
        if self._tasks.get(name) is task:
            del self._tasks[name]
        if task.cancelled():
            # Also when it was cancelled before its first step: what was under way is no longer.
            step = self._step(name)
            if step is not None and step.state is StepState.BUSY:
                step.state = StepState.NONE
        elif (error := task.exception()) is not None:
            log.error("pod worker task failed: %s", name, exc_info=error, extra={"pod": self.pod.key})
        self.wake()

    def _step(self, task: str) -> Step | ImageStep | None:
        """The step that a task of this name works on."""
        if task == "sandbox":
            return self.state.sandbox
        if task == "volumes":
            return self.state.volumes
        return self.state.images.get(task.removeprefix("image ")) if task.startswith("image ") else None

    def _set_timer(self, timer: asyncio.TimerHandle | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = timer
