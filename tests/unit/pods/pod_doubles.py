"""In-memory stand-ins for what a pod worker drives, and an event loop whose time is virtual."""

import asyncio
import selectors
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import msgspec

from nodewright.kube.objects import Container, Pod, PodStatus
from nodewright_agent.pods.model import Instance, find_container
from nodewright_agent.pods.ports import Exit, ImageProblem, StartError
from nodewright_agent.pods.status import NodeFacts
from nodewright_agent.pods.worker import PodWorker, WorkerDeps

START = 1_700_000_000.0


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop that never sleeps: when nothing is ready it jumps to the next timer."""

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        return self._now

    def jump(self, seconds: float) -> None:
        self._now += seconds


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready and timeout:
            self._loop.jump(timeout)
        assert ready or timeout is not None, "the loop would wait for ever"
        return ready


def run_virtual(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine in virtual time."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(work)
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def clock() -> float:
    return START + asyncio.get_running_loop().time()


def make_pod(
    *containers: dict[str, Any],
    init: list[dict[str, Any]] | None = None,
    policy: str = "Always",
    uid: str = "uid-1",
    name: str = "pod",
    deleted: int | None = None,
    **spec: Any,
) -> Pod:
    """Build a pod as the API server would give it."""
    given = containers or ({"name": "a"},)
    meta: dict[str, Any] = {"name": name, "namespace": "ns", "uid": uid, "generation": 1, "resourceVersion": "1"}
    if deleted is not None:
        meta |= {"deletionTimestamp": "2023-11-14T22:13:20Z", "deletionGracePeriodSeconds": deleted}
    return msgspec.convert(
        {
            "metadata": meta,
            "spec": {
                "containers": [{"image": "img", **one} for one in given],
                "initContainers": [{"image": "img", **one} for one in init or []],
                "restartPolicy": policy,
                "terminationGracePeriodSeconds": 30,
                **spec,
            },
            "status": {"phase": "Pending", "qosClass": "BestEffort"},
        },
        Pod,
    )


def deleted(pod: Pod, grace: int) -> Pod:
    """Return the pod as it looks once its deletion was asked for."""
    meta = msgspec.structs.replace(
        pod.metadata, deletion_timestamp="2023-11-14T22:13:20Z", deletion_grace_period_seconds=grace
    )
    return msgspec.structs.replace(pod, metadata=meta)


@dataclass
class FakeOperations:
    """Containers are entries of a dict; each does what its ``script`` says."""

    calls: list[str] = field(default_factory=list)
    running: dict[str, Instance] = field(default_factory=dict)
    most_at_once: dict[str, int] = field(default_factory=dict)
    failures: dict[str, list[Exception]] = field(default_factory=dict)
    delays: dict[str, float] = field(default_factory=dict)
    ignore_term: set[str] = field(default_factory=set)
    exit: Callable[[str, Exit], None] = lambda cid, end: None
    lifetimes: dict[str, list[tuple[float, int]]] = field(default_factory=dict)
    """Per container name: for each run in turn, after how many seconds it ends and with which code."""

    async def _step(self, what: str) -> None:
        self.calls.append(what)
        await asyncio.sleep(self.delays.get(what, 0.0))
        queue = self.failures.get(what)
        if queue:
            raise queue.pop(0)

    async def create_sandbox(self, pod: Pod) -> tuple[str, ...]:
        await self._step("sandbox")
        return ("10.1.2.3",)

    async def set_up_volumes(self, pod: Pod) -> None:
        await self._step("volumes")

    def pod_changed(self, pod: Pod) -> None:
        self.calls.append("changed")

    async def ensure_image(self, pod: Pod, container: Container) -> None:
        await self._step(f"image {container.name}")

    def next_attempt(self, pod: Pod, container: Container) -> int:
        return 0

    async def create_container(self, pod: Pod, container: Container, run: Instance, ips: tuple[str, ...]) -> None:
        await self._step(f"create {container.name}")
        run.image_id = "sha256:1"

    async def start_container(self, pod: Pod, container: Container, run: Instance) -> None:
        await self._step(f"start {container.name}")
        alive = [one for one in self.running.values() if one.name == run.name and one.id != run.id]
        self.most_at_once[run.name] = max(self.most_at_once.get(run.name, 0), len(alive) + 1)
        self.running[run.id] = run
        plan = self.lifetimes.get(run.name)
        if plan:
            seconds, code = plan.pop(0)
            asyncio.get_running_loop().call_later(seconds, self.end, run.id, code)

    async def post_start(self, pod: Pod, container: Container, run: Instance) -> None:
        await self._step(f"postStart {container.name}")

    async def pre_stop(self, pod: Pod, container: Container, run: Instance) -> None:
        await self._step(f"preStop {container.name}")

    async def signal(self, pod: Pod, container: Container | None, run: Instance, *, kill: bool) -> None:
        await self._step(f"{'kill' if kill else 'term'} {run.name}")
        if kill or run.name not in self.ignore_term:
            self.end(run.id, 137 if kill else 143)

    def end(self, container_id: str, code: int) -> None:
        if self.running.pop(container_id, None) is not None:
            self.exit(container_id, Exit(code, clock()))

    def end_message(self, pod: Pod, container: Container | None, run: Instance) -> str:
        return ""

    async def remove_container(self, run: Instance) -> None:
        assert run.id not in self.running

    async def resize(self, pod: Pod, runs: list[Instance]) -> None:
        await self._step("resize")
        for run in runs:
            container = find_container(pod, run.name)
            if run.state == "running" and container is not None:
                run.resources = container.resources

    async def tear_down(self, pod: Pod, runs: list[Instance]) -> None:
        assert not self.running, "torn down while containers run"
        await self._step("teardown")

    async def forget(self, pod: Pod, *, keep_logs: bool = False) -> None:
        self.calls.append("forget but logs" if keep_logs else "forget")


@dataclass
class FakeSink:
    """Statuses as they are published."""

    statuses: list[PodStatus] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    deletions: list[str] = field(default_factory=list)
    on_delete: Callable[[], None] = lambda: None

    def publish(self, pod: Pod, status: PodStatus, *, lazy: bool = False) -> None:
        self.statuses.append(status)
        self.times.append(clock() - START)

    def observed(self, pod: Pod) -> None:
        pass

    async def flushed(self, uid: str) -> None:
        await asyncio.sleep(0)

    async def delete(self, pod: Pod) -> None:
        self.deletions.append(pod.metadata.uid)
        asyncio.get_running_loop().call_soon(self.on_delete)

    def forget(self, uid: str) -> None:
        pass


@dataclass
class FakeEvents:
    seen: list[tuple[str, str, str]] = field(default_factory=list)

    def event(self, ref: Any, type: str, reason: str, message: str) -> None:
        self.seen.append((type, reason, message))

    def reasons(self) -> list[str]:
        return [reason for _, reason, _ in self.seen]


class FakeProbes:
    def start(self, pod: Pod, container: Container, run: Instance, ips: tuple[str, ...]) -> None:
        pass

    def stop(self, run: Instance, *, readiness: bool = True) -> None:
        pass

    def forget(self, uid: str) -> None:
        pass


class FakeTracer:
    def mark(self, uid: str, step: str, at: float | None = None) -> None:
        pass


class Rig:
    """A worker with all its doubles."""

    def __init__(self, pod: Pod, operations: FakeOperations | None = None, state: Any = None) -> None:
        self.operations = operations or FakeOperations()
        self.sink, self.events = FakeSink(), FakeEvents()
        self.deps = WorkerDeps(
            operations=self.operations,
            status=self.sink,
            events=self.events,
            probes=FakeProbes(),
            tracer=FakeTracer(),  # type: ignore[arg-type]
            clock=clock,
            node=NodeFacts(("192.0.2.1",)),
        )
        self.worker = PodWorker(pod, self.deps, state)
        self.operations.exit = self.worker.exited
        self.sink.on_delete = self.worker.remove
        self.task = asyncio.get_running_loop().create_task(self.worker.run())

    async def close(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    @property
    def status(self) -> PodStatus:
        return self.sink.statuses[-1]

    @property
    def one(self) -> Any:
        return self.status.container_statuses[0]


def scenario(
    pod: Any, operations: FakeOperations | None = None, state: Any = None
) -> Callable[[Callable[[Rig], Awaitable[None]]], None]:
    """Decorate a coroutine function: run it at once with a rig for ``pod``."""

    def run(body: Callable[[Rig], Awaitable[None]]) -> None:
        async def main() -> None:
            rig = Rig(pod, operations, state)
            try:
                await body(rig)
            finally:
                await rig.close()

        run_virtual(main())

    return run


__all__ = ["ImageProblem", "Rig", "StartError", "clock", "deleted", "make_pod", "run_virtual", "scenario"]
