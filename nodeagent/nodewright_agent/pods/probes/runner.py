"""Runs the probes of running containers in time, and writes their results into the runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Literal

from nodewright.kube.objects import Container, Pod, Probe
from nodewright_agent.pods import refs
from nodewright_agent.pods.handlers import Executor
from nodewright_agent.pods.model import Instance
from nodewright_agent.pods.ports import Clock, Events
from nodewright_agent.pods.probes.checks import check
from nodewright_agent.pods.probes.counting import Counter

log = logging.getLogger(__name__)

Kind = Literal["startup", "readiness", "liveness"]


class ProbeRunner:
    """Implements ``ports.Probes``: at most three tasks per running container."""

    def __init__(
        self, runtime: Executor, events: Events, clock: Clock, host_ip: str, wake: Callable[[str], None]
    ) -> None:
        """``wake`` is called with a container's id when one of its results has changed."""
        self._runtime, self._events, self._clock, self._host_ip, self._wake = runtime, events, clock, host_ip, wake
        self._tasks: dict[str, dict[Kind, asyncio.Task[None]]] = {}
        self._startup: dict[str, asyncio.Event] = {}

    def start(self, pod: Pod, container: Container, run: Instance, ips: tuple[str, ...]) -> None:
        """Begin to probe a run; startup gates the other two."""
        host = ips[0] if ips else self._host_ip
        wanted: dict[Kind, Probe | None] = {
            "startup": container.startup_probe,
            "readiness": container.readiness_probe,
            "liveness": container.liveness_probe,
        }
        if not any(wanted.values()) or run.id in self._tasks:
            return
        passed = self._startup[run.id] = asyncio.Event()
        if container.startup_probe is None or run.startup is True:
            passed.set()
        loop = asyncio.get_running_loop()
        self._tasks[run.id] = {
            kind: loop.create_task(self._probe(kind, probe, pod, container, run, host, passed))
            for kind, probe in wanted.items()
            if probe is not None and not (kind == "startup" and passed.is_set())
        }

    def stop(self, run: Instance, *, readiness: bool = True) -> None:
        """End a run's probes; readiness may go on while the pod terminates."""
        tasks = self._tasks.get(run.id, {})
        for kind in list(tasks):
            if readiness or kind != "readiness":
                tasks.pop(kind).cancel()
        if not tasks:
            self._tasks.pop(run.id, None)
            self._startup.pop(run.id, None)

    async def _probe(
        self,
        kind: Kind,
        probe: Probe,
        pod: Pod,
        container: Container,
        run: Instance,
        host: str,
        passed: asyncio.Event,
    ) -> None:
        if kind != "startup":
            await passed.wait()
        await asyncio.sleep(max(0.0, run.started_at + probe.initial_delay_seconds - self._clock()))
        counter = Counter.of(probe)
        while True:
            begun = self._clock()
            answer = await check(self._runtime, probe, container, run.id, host)
            if not answer.ok:
                self._tell(kind, pod, container, answer.text)
            result = counter.take(answer.ok)
            if result is not None and self._apply(kind, run, result):
                if kind == "startup":
                    passed.set()
                if kind != "readiness" and (result is False or kind == "startup"):
                    return  # passed for good, or the container is going to be killed
            await asyncio.sleep(max(0.0, begun + max(1, probe.period_seconds) - self._clock()))

    def _apply(self, kind: Kind, run: Instance, result: bool) -> bool:
        """Write a result into the run; return whether it is a final one or a change."""
        before: bool | None = getattr(run, kind)
        setattr(run, kind, result)
        if before != result:
            self._wake(run.id)
        return before != result

    def _tell(self, kind: Kind, pod: Pod, container: Container, text: str) -> None:
        message = f"{kind.capitalize()} probe failed: {text}"
        self._events.event(refs.reference(pod, container.name), "Warning", "Unhealthy", message)
