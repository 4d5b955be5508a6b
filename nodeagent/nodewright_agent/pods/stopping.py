"""The way down of a pod: preStop hooks, signals, tear-down. The machine decides when; this does it."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from nodewright.kube.objects import Container
from nodewright_agent.pods import killing
from nodewright_agent.pods.actions import KillContainer, StopContainer
from nodewright_agent.pods.model import Instance, Step, StepState, Stop, Termination, find_container
from nodewright_agent.pods.restart import asks_for_all

if TYPE_CHECKING:
    from nodewright_agent.pods.worker import PodWorker

log = logging.getLogger(__name__)

# Tear-down is tried again sooner than other steps, since it holds up a deletion.
RETRY = 2.0
SIGNAL_RETRY = 1.0


class Stopper:
    """Stops what the machine asks for."""

    def __init__(self, worker: PodWorker) -> None:
        """Work for one pod."""
        self._worker = worker

    def begin(self, termination: Termination) -> None:
        """From now on the pod only goes down: what was being prepared is given up."""
        worker = self._worker
        worker.state.termination = termination
        if termination.reason == "DeadlineExceeded":
            worker.event("Normal", termination.reason, termination.message)
        worker.cancel(lambda name: name in ("sandbox", "volumes") or name.startswith("image "))
        for run in worker.state.all_instances():
            worker.deps.probes.stop(run, readiness=False)
        worker.deps.save(worker)  # another agent goes on with the grace that is left

    def stop(self, action: StopContainer) -> None:
        """Begin to stop a running container."""
        worker, run = self._worker, self._find(action.id)
        stop = run.stop = killing.begin(worker.deps.clock(), action.grace, action.whole)
        run.restart = action.restart
        worker.event("Normal", "Killing", action.message, action.container)
        worker.deps.probes.stop(run, readiness=False)
        container = find_container(worker.pod, run.name)
        hook = container.lifecycle.pre_stop if container is not None and container.lifecycle is not None else None
        if container is not None and hook is not None and action.grace > 0:
            stop.hook = True
            worker.spawn(_hook(run), self._pre_stop(container, run, stop))

    def end_hook(self, container_id: str) -> None:
        """Give a preStop hook up that has used the grace."""
        run = self._find(container_id)
        if run.stop is not None:
            run.stop.hook = False
        log.warning("a preStop hook used up the grace period", extra={"pod": self._worker.pod.key, "run": run.name})
        self._worker.cancel(lambda name: name == _hook(run))

    def ended(self, run: Instance) -> None:
        """A container has ended: nothing is left for its preStop hook to act on."""
        self._worker.cancel(lambda name: name == _hook(run))

    def signal(self, container_id: str) -> None:
        """Send the stop signal."""
        run = self._find(container_id)
        assert run.stop is not None
        run.stop.term_sent = True
        run.stop.floor = self._worker.deps.clock() + run.stop.least
        self._worker.spawn(f"stop {run.id}", self._signal(run, run.stop, kill=False))

    def kill(self, action: KillContainer) -> None:
        """Send SIGKILL."""
        worker, run = self._worker, self._find(action.id)
        if run.stop is None:
            run.stop = Stop(deadline=worker.deps.clock())
            worker.deps.probes.stop(run)
            if action.message:
                worker.event("Normal", "Killing", action.message, action.container)
        run.stop.kill_sent = True
        worker.cancel(lambda name: name == _hook(run))
        worker.spawn(f"kill {run.id}", self._signal(run, run.stop, kill=True))

    def reset(self) -> None:
        """All containers have ended for a restart of all: what ran counts no more (KEP-5532).

        Who asked for it keeps its back-off, which slows a loop down; the others are to blame for nothing.
        """
        pod, state = self._worker.pod, self._worker.state
        for container in (*pod.spec.init_containers, *pod.spec.containers):
            run = state.latest(container.name)
            if run is None:
                continue
            run.reset = True
            state.failures.pop(container.name, None)
            if not asks_for_all(container, run):
                state.backoffs.pop(container.name, None)
        state.restart_all = False
        self._worker.deps.save(self._worker)

    def tear_down(self) -> None:
        """Begin to remove what the pod used."""
        self._worker.state.teardown = Step(StepState.BUSY)
        self._worker.spawn("teardown", self._tear_down())

    def _find(self, container_id: str) -> Instance:
        return next(run for run in self._worker.state.all_instances() if run.id == container_id)

    async def _pre_stop(self, container: Container, run: Instance, stop: Stop) -> None:
        try:
            await self._worker.deps.operations.pre_stop(self._worker.pod, container, run)
        finally:
            stop.hook = False

    async def _signal(self, run: Instance, stop: Stop, *, kill: bool) -> None:
        worker = self._worker
        try:
            await worker.deps.operations.signal(worker.pod, find_container(worker.pod, run.name), run, kill=kill)
        except Exception as error:
            worker.event("Warning", "FailedKillPod", f"error killing pod: {error}")
            log.exception("cannot signal a container", extra={"pod": worker.pod.key, "container": run.name})
            await asyncio.sleep(SIGNAL_RETRY)
            stop.kill_sent = False  # the machine sends it again

    async def _tear_down(self) -> None:
        worker = self._worker
        try:
            await worker.deps.operations.tear_down(worker.pod, worker.state.all_instances())
        except Exception as error:
            log.exception("tear-down failed, will be tried again", extra={"pod": worker.pod.key})
            worker.state.teardown = Step(StepState.FAILED, str(error), worker.deps.clock() + RETRY)
        else:
            worker.state.teardown = Step(StepState.READY)
            worker.deps.save(worker)


def _hook(run: Instance) -> str:
    """Return the name of the task that runs the preStop hook."""
    return f"preStop {run.id}"
