"""Runs the probes of running containers in time, and writes their results into the runs."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from nodewright.kube.objects import Container, Pod, Probe
from nodewright_agent.pods import refs
from nodewright_agent.pods.handlers import Answer, Executor, Outcome
from nodewright_agent.pods.model import Instance
from nodewright_agent.pods.ports import Clock, Events
from nodewright_agent.pods.probes.checks import check
from nodewright_agent.pods.probes.counting import Counter
from nodewright_agent.pods.probes.metrics import ProbeMetrics

log = logging.getLogger(__name__)

Kind = Literal["startup", "readiness", "liveness"]


@dataclass(frozen=True, slots=True)
class _Target:
    """What is probed, and where."""

    pod: Pod
    container: Container
    run: Instance
    host: str
    passed: asyncio.Event
    """The startup probe has passed, or there is none."""


class ProbeRunner:
    """Implements ``ports.Probes``: at most three tasks per running container."""

    def __init__(
        self, runtime: Executor, events: Events, clock: Clock, host_ip: str, wake: Callable[[str], None]
    ) -> None:
        """``wake`` is called with a container's id when one of its results has changed."""
        self._runtime, self._events, self._clock, self._host_ip, self._wake = runtime, events, clock, host_ip, wake
        self.metrics = ProbeMetrics()
        self._born = clock()
        self._tasks: dict[str, dict[Kind, asyncio.Task[None]]] = {}

    def start(self, pod: Pod, container: Container, run: Instance, ips: tuple[str, ...]) -> None:
        """Begin to probe a run; startup gates the other two."""
        wanted: dict[Kind, Probe | None] = {
            "startup": container.startup_probe,
            "readiness": container.readiness_probe,
            "liveness": container.liveness_probe,
        }
        if not any(wanted.values()) or run.id in self._tasks:
            return
        target = _Target(pod, container, run, ips[0] if ips else self._host_ip, asyncio.Event())
        if container.startup_probe is None or run.startup is True:
            target.passed.set()
        loop = asyncio.get_running_loop()
        self._tasks[run.id] = {
            kind: loop.create_task(self._probe(kind, probe, target), name=f"{kind} probe of {run.id}")
            for kind, probe in wanted.items()
            if probe is not None and not (kind == "startup" and target.passed.is_set())
        }

    def stop(self, run: Instance, *, readiness: bool = True) -> None:
        """End a run's probes; readiness may go on while the pod terminates."""
        tasks = self._tasks.get(run.id, {})
        for kind in list(tasks):
            if readiness or kind != "readiness":
                tasks.pop(kind).cancel()
        if not tasks:
            self._tasks.pop(run.id, None)

    def forget(self, uid: str) -> None:
        """Drop what was counted for a pod that is gone."""
        self.metrics.forget(uid)

    async def _probe(self, kind: Kind, probe: Probe, target: _Target) -> None:
        run = target.run
        if kind != "startup":
            await target.passed.wait()
        period = float(max(1, probe.period_seconds))
        if run.started_at < self._born:
            # The agent was restarted: not all probes of the node at once.
            await asyncio.sleep(random.uniform(0.0, period))
        await asyncio.sleep(max(0.0, run.started_at + probe.initial_delay_seconds - self._clock()))
        counter = Counter.of(probe)
        while True:
            begun = self._clock()
            answer = await self._once(kind, probe, target)
            # What could not be tried says nothing: upstream throws the result away.
            result = None if answer.outcome is Outcome.UNKNOWN else counter.take(answer.ok)
            if result is not None and self._apply(kind, run, result):
                if kind == "startup":
                    target.passed.set()
                if kind != "readiness" and (result is False or kind == "startup"):
                    return  # passed for good, or the container is going to be killed
            await asyncio.sleep(max(0.0, begun + period - self._clock()))

    async def _once(self, kind: Kind, probe: Probe, target: _Target) -> Answer:
        begun = self._clock()
        try:
            answer = await check(self._runtime, probe, target.container, target.run.id, target.host)
        except Exception as error:
            log.exception("a probe failed in itself", extra={"pod": target.pod.key, "kind": kind})
            answer = Answer(Outcome.UNKNOWN, f"{type(error).__name__}: {error}")
        if target.run.running:
            self.metrics.count(kind, target.pod, target.container, answer.outcome, self._clock() - begun)
            self._tell(kind, target, answer)
        return answer

    def _apply(self, kind: Kind, run: Instance, result: bool) -> bool:
        """Write a result into the run; return whether it is a final one or a change."""
        before: bool | None = getattr(run, kind)
        setattr(run, kind, result)
        if before != result:
            self._wake(run.id)
        return before != result

    def _tell(self, kind: Kind, target: _Target, answer: Answer) -> None:
        title, reason = kind.capitalize(), "Unhealthy"
        match answer.outcome:
            case Outcome.SUCCESS:
                return
            case Outcome.WARNING:
                reason, message = "ProbeWarning", f"{title} probe warning: {answer.text}"
            case Outcome.FAILURE:
                message = f"{title} probe failed: {answer.text}"
            case Outcome.UNKNOWN:
                message = f"{title} probe errored and resulted in unknown state: {answer.text}"
        self._events.event(refs.reference(target.pod, target.container.name), "Warning", reason, message)
