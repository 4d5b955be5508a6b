"""A pod worker's part of a resize: does the writes as a task, and tells how it went."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from nodewright_agent.failpoints import failpoint
from nodewright_agent.pods.resize import messages
from nodewright_agent.pods.resize.actuate import ResizeError
from nodewright_agent.pods.resize.decide import RETRY
from nodewright_agent.pods.resize.state import Progress

if TYPE_CHECKING:
    from nodewright_agent.pods.worker import PodWorker

log = logging.getLogger(__name__)


class Resizer:
    """Gives granted resources to a pod's cgroups."""

    def __init__(self, worker: PodWorker) -> None:
        """Work for one pod."""
        self._worker = worker

    def grant(self, generation: int) -> None:
        """Take the desired resources as allocated: from now on they are the pod's, also after a crash."""
        worker = self._worker
        worker.pod = worker.desired
        worker.state.resize.pending = None
        worker.state.resize.progress = Progress(generation, worker.deps.clock())
        worker.event("Normal", "ResizeStarted", messages.started(worker.pod, generation))
        worker.deps.operations.pod_changed(worker.pod)
        worker.deps.save(worker)
        failpoint("resize.granted")
        worker.wake()

    def begin(self) -> None:
        """Begin to write cgroups."""
        progress = self._worker.state.resize.progress
        assert progress is not None
        self._worker.state.resize.busy = True
        self._worker.spawn("resize", self._work(progress))

    async def _work(self, progress: Progress) -> None:
        worker, resize, pod = self._worker, self._worker.state.resize, self._worker.pod
        try:
            await worker.deps.operations.resize(pod, worker.state.all_instances())
        except ResizeError as error:
            self._failed(progress, str(error))
        except Exception as error:
            log.exception("a resize failed", extra={"pod": pod.key})
            self._failed(progress, f"{type(error).__name__}: {error}")
        else:
            # Something newer may have been granted meanwhile: then it goes on with that.
            if resize.progress is progress:
                resize.progress = None
                worker.event("Normal", "ResizeCompleted", messages.completed(pod, progress.generation))
                worker.deps.save(worker)
                worker.deps.room()
        finally:
            resize.busy = False

    def _failed(self, progress: Progress, text: str) -> None:
        worker = self._worker
        told = progress.error == text
        progress.error, progress.retry_at = text, worker.deps.clock() + RETRY
        if not told and worker.state.resize.progress is progress:
            worker.event("Warning", "ResizeError", messages.failed(worker.pod, progress.generation, text))
