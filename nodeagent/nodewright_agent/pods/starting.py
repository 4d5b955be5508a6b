"""The way up of a pod: sandbox, volumes, images, containers; each operation a task that reports into the state."""

from __future__ import annotations

import logging
import secrets
from typing import TYPE_CHECKING

from nodewright.kube.objects import Container
from nodewright_agent.pods import killing
from nodewright_agent.pods.actions import StopContainer
from nodewright_agent.pods.backoff import BackoffPolicy, advance
from nodewright_agent.pods.model import Backoff, Failure, ImageStep, Instance, Step, StepState, find_container
from nodewright_agent.pods.ports import ImageProblem, StartError
from nodewright_agent.pods.restart import asks_for_all
from nodewright_agent.pods.volumes.errors import FailedMount

if TYPE_CHECKING:
    from nodewright_agent.pods.worker import PodWorker

log = logging.getLogger(__name__)

# Failures that are not a container's own (sandbox, configuration) are tried again after this, as upstream does (its pod
# workers' error back-off).
RETRY = 10.0
# Volumes soon, for the API server may only not have heard yet that the pod is this node's; then later (volume manager,
# its exponential back-off starts the same, and grows to two minutes).
VOLUME_RETRIES = BackoffPolicy(0.5, RETRY)


class Starter:
    """Starts what the machine asks for."""

    def __init__(self, worker: PodWorker) -> None:
        """Work for one pod."""
        self._worker = worker
        self._image_backoffs: dict[str, Backoff] = {}
        self._volume_backoff: Backoff | None = None

    def create_sandbox(self) -> None:
        """Begin to make the pod's namespaces and network."""
        state = self._worker.state
        if state.sandbox.state is StepState.NONE and any(run.stale for run in state.all_instances()):
            text = "Pod sandbox changed, it will be killed and re-created."
            self._worker.event("Normal", "SandboxChanged", text)
        state.sandbox = Step(StepState.BUSY)
        self._worker.spawn("sandbox", self._create_sandbox())

    def set_up_volumes(self) -> None:
        """Begin to make the pod's volumes."""
        state = self._worker.state
        state.volumes = Step(StepState.BUSY, state.volumes.message)  # what was wrong is told until it is right
        self._worker.spawn("volumes", self._set_up_volumes())

    def ensure_image(self, name: str) -> None:
        """Begin to find or pull a container's image; the last failure stays visible meanwhile."""
        images = self._worker.state.images
        container = find_container(self._worker.pod, name)
        assert container is not None
        old = images.get(name) or ImageStep()
        if old.image != container.image:
            old = ImageStep()
        images[name] = ImageStep(
            StepState.BUSY, old.message, 0.0, old.reason, old.failed_at, container.image, old.lacking
        )
        self._worker.spawn(f"image {name}", self._ensure_image(name))

    def start(self, name: str) -> None:
        """Begin to start a container."""
        self._worker.state.busy.add(name)
        self._worker.spawn(f"start {name}", self._start(name))

    def resume(self) -> None:
        """Go on where an earlier agent was: read how containers ended meanwhile, and run hooks that it did not finish.

        A hook may so run twice, as upstream's do ("at least once"); what the API was told to have started is done.
        """
        worker, pod = self._worker, self._worker.pod
        statuses = (*pod.status.init_container_statuses, *pod.status.container_statuses)
        told = {one.container_id.rpartition("/")[2] for one in statuses if one.started}
        for run in worker.state.all_instances():
            container = find_container(pod, run.name)
            if run.state == "exited" and not run.message:
                run.message = worker.deps.operations.end_message(pod, container, run)
            elif run.state == "running" and not run.post_start_done:
                if container is None or not _has_hook(container) or run.id in told:
                    run.post_start_done = True
                elif worker.state.termination is None:
                    worker.state.busy.add(run.name)
                    worker.spawn(f"start {run.name}", self._resume_hook(container, run))

    async def _resume_hook(self, container: Container, run: Instance) -> None:
        try:
            await self._post_start(container, run)
        finally:
            self._worker.state.busy.discard(run.name)

    async def _create_sandbox(self) -> None:
        worker = self._worker
        try:
            worker.state.ips = await worker.deps.operations.create_sandbox(worker.pod)
        except Exception as error:
            log.warning("sandbox failed: %s", error, extra={"pod": worker.pod.key})
            worker.event("Warning", "FailedCreatePodSandBox", f"Failed to create pod sandbox: {error}")
            worker.state.sandbox = Step(StepState.FAILED, str(error), worker.deps.clock() + RETRY)
        else:
            worker.state.sandbox = Step(StepState.READY)
            worker.deps.tracer.mark(worker.uid, "sandbox ready")

    async def _set_up_volumes(self) -> None:
        worker = self._worker
        try:
            await worker.deps.operations.set_up_volumes(worker.pod)
        except Exception as error:
            log.warning("volumes failed: %s", error, extra={"pod": worker.pod.key})
            for text in error.messages if isinstance(error, FailedMount) else [str(error)]:
                worker.event("Warning", "FailedMount", text)
            now = worker.deps.clock()
            self._volume_backoff = advance(self._volume_backoff, now, now, VOLUME_RETRIES)
            worker.state.volumes = Step(StepState.FAILED, str(error), now + self._volume_backoff.delay)
        else:
            self._volume_backoff = None
            worker.state.volumes = Step(StepState.READY)

    async def _ensure_image(self, name: str) -> None:
        worker, images = self._worker, self._worker.state.images
        container = find_container(worker.pod, name)
        assert container is not None
        try:
            await worker.deps.operations.ensure_image(worker.pod, container)
        except Exception as error:
            problem = _image_problem(error, name, worker.pod.key)
            now = worker.deps.clock()
            entry = advance(self._image_backoffs.get(container.image), now, now, worker.deps.image_backoff)
            self._image_backoffs[container.image] = entry
            worker.event("Warning", "Failed", f"Error: {problem.reason}", name)
            retry_at = now + entry.delay
            images[name] = ImageStep(
                StepState.FAILED, problem.message, retry_at, problem.reason, now, container.image, problem.image
            )
        else:
            self._image_backoffs.pop(container.image, None)
            images[name] = ImageStep(StepState.READY, image=container.image)
            worker.deps.tracer.mark(worker.uid, f"image ready {name}")

    async def _start(self, name: str) -> None:
        worker = self._worker
        container = find_container(worker.pod, name)
        assert container is not None
        run = self._new_run(container)
        operations = worker.deps.operations
        try:
            await self._create(container, run)
            worker.deps.tracer.mark(worker.uid, f"container created {name}")
            await operations.start_container(worker.pod, container, run)
            self._started(container, run)
            await self._post_start(container, run)
        except StartError as error:
            self._start_failed(run, error)
        except Exception as error:
            # A fault of ours must not leave the container half made for ever: it is told, and tried again.
            log.exception("a container start failed", extra={"pod": worker.pod.key, "container": name})
            if run.state == "created":
                self._start_failed(run, StartError("CreateContainerError", f"{type(error).__name__}: {error}"))
        finally:
            worker.state.busy.discard(name)
            worker.state.images.pop(name, None)  # the next run looks for its image anew, by its pull policy

    async def _create(self, container: Container, run: Instance) -> None:
        worker, asked = self._worker, run.id
        try:
            await worker.deps.operations.create_container(worker.pod, container, run, worker.state.ips)
        finally:
            if run.id != asked:  # a runtime of its own names its containers itself
                worker.deps.owners[run.id] = worker.deps.owners.pop(asked)

    def _new_run(self, container: Container) -> Instance:
        worker, state, name = self._worker, self._worker.state, container.name
        before = state.latest(name)
        if before is None:
            attempt = worker.deps.operations.next_attempt(worker.pod, container)
        else:
            attempt = before.attempt + 1
            self._back_off(container, before)
        # 32 digits, where others have 64: the id is part of socket paths, which are limited to 107 bytes.
        run = Instance(secrets.token_hex(16), name, attempt, image=container.image, resources=container.resources)
        run.post_start_done = not _has_hook(container)
        for old in state.add(run):
            worker.deps.owners.pop(old.id, None)
            worker.spawn(f"remove {old.id}", worker.deps.operations.remove_container(old))
        worker.deps.owners[run.id] = worker
        return run

    def _back_off(self, container: Container, before: Instance) -> None:
        """Note the restart of a container for the next one's delay."""
        state, clock = self._worker.state, self._worker.deps.clock
        same = before.image == container.image
        if same and (before.stale or before.restart or (before.reset and not asks_for_all(container, before))):
            return  # a reboot, or another container's end: not its own doing
        # Another image is another container, as for kubelet: its crashes have nothing to do with those before.
        last = state.backoffs.get(container.name) if same else None
        policy = self._worker.deps.settings.crash
        state.backoffs[container.name] = advance(last, before.finished_at, clock(), policy)

    def _started(self, container: Container, run: Instance) -> None:
        worker = self._worker
        worker.state.failures.pop(run.name, None)
        worker.deps.tracer.mark(worker.uid, f"container started {run.name}")
        run.started_at = run.started_at or worker.deps.clock()
        if run.state == "created":  # it may have ended already
            run.state = "running"
            worker.deps.probes.start(worker.pod, container, run, worker.state.ips)
        worker.wake()

    async def _post_start(self, container: Container, run: Instance) -> None:
        worker = self._worker
        if run.post_start_done or not run.running:
            return
        try:
            await worker.deps.operations.post_start(worker.pod, container, run)
            run.post_start_done = True
            worker.deps.save(worker)  # another agent is not to run it again
        except StartError as error:
            worker.state.failures[run.name] = Failure(error.reason, error.message, worker.deps.clock())
            worker.event("Warning", "FailedPostStartHook", "PostStartHook failed", run.name)
            if run.running and run.stop is None:
                grace = killing.default_grace(worker.pod)
                worker.stopper.stop(StopContainer(run.id, run.name, grace, "FailedPostStartHook"))

    def _start_failed(self, run: Instance, error: StartError) -> None:
        state, now = self._worker.state, self._worker.deps.clock()
        self._worker.event("Warning", "Failed", f"Error: {error.message}", run.name)
        if error.ran:
            run.state, run.exit_code, run.reason, run.message = "exited", 128, "StartError", error.message
            run.finished_at = now
            state.failures[run.name] = Failure(error.reason, error.message, now)
            return
        state.instances[run.name].remove(run)
        self._worker.deps.owners.pop(run.id, None)
        retry_at = now if run.stale else now + RETRY  # a sandbox that was lost is no fault of the container's
        state.failures[run.name] = Failure(error.reason, error.message, now, retry_at)


def _has_hook(container: Container) -> bool:
    return container.lifecycle is not None and container.lifecycle.post_start is not None


def _image_problem(error: Exception, name: str, pod: str) -> ImageProblem:
    """What kept an image away; a disk that cannot be read is tried again like a registry that cannot be reached."""
    if isinstance(error, ImageProblem):
        return error
    log.error("an image cannot be looked for", exc_info=error, extra={"pod": pod, "container": name})
    return ImageProblem("ErrImagePull", f"{type(error).__name__}: {error}")
