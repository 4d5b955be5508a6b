"""The way down of a pod: preStop hooks, signals, tear-down. The machine decides when; this does it."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from nodewright_agent.pods import killing
from nodewright_agent.pods.actions import StopContainer
from nodewright_agent.pods.model import Instance, Step, StepState, Stop, Termination, find_container

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

    def stop(self, action: StopContainer) -> None:
        """Begin to stop a running container."""
        worker, run = self._worker, self._find(action.id)
        run.stop = Stop(deadline=worker.deps.clock() + killing.window(action.grace))
        worker.event("Normal", "Killing", action.message, action.container)
        worker.deps.probes.stop(run, readiness=False)
        worker.spawn(f"stop {run.id}", self._stop(run, run.stop, action.grace))

    def kill(self, container_id: str) -> None:
        """Send SIGKILL."""
        run = self._find(container_id)
        assert run.stop is not None
        run.stop.kill_sent = True
        self._worker.spawn(f"kill {run.id}", self._signal(run, run.stop, kill=True))

    def tear_down(self) -> None:
        """Begin to remove what the pod used."""
        self._worker.state.teardown = Step(StepState.BUSY)
        self._worker.spawn("teardown", self._tear_down())

    def _find(self, container_id: str) -> Instance:
        return next(run for run in self._worker.state.all_instances() if run.id == container_id)

    async def _stop(self, run: Instance, stop: Stop, grace: float) -> None:
        worker = self._worker
        container = find_container(worker.pod, run.name)
        hook = container.lifecycle.pre_stop if container is not None and container.lifecycle is not None else None
        if container is not None and hook is not None and grace > 0:
            try:
                async with asyncio.timeout(grace):
                    await worker.deps.operations.pre_stop(worker.pod, container, run)
            except TimeoutError:
                log.warning("a preStop hook used up the grace period", extra={"pod": worker.pod.key, "run": run.name})
        if run.running:
            stop.floor = killing.floor_after(worker.deps.clock(), grace)
            stop.term_sent = True
            await self._signal(run, stop, kill=False)

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
