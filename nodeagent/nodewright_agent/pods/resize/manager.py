"""Which wishes for other resources are granted, and when: those that do not fit wait until something becomes free."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from nodewright.kube.objects import Pod
from nodewright_agent.pods import resources
from nodewright_agent.pods.resize import allocation, messages
from nodewright_agent.pods.resize.conditions import INFEASIBLE
from nodewright_agent.pods.resize.state import Pending
from nodewright_agent.runtime.cgroup_math import QosClass

if TYPE_CHECKING:
    from nodewright_agent.pods.worker import PodWorker

Refusal = Callable[[Pod, list[Pod]], tuple[str, str] | None]
"""Gets a pod with what it wishes for and the others with what they hold; gives reason and message of a refusal."""


class ResizeManager:
    """All pods' wishes. Everything happens in the event loop, at once."""

    def __init__(self, workers: Mapping[str, PodWorker], refusal: Refusal) -> None:
        """Decide for these workers, by UID."""
        self._workers, self._refusal = workers, refusal
        self._deferred: set[str] = set()

    def consider(self, worker: PodWorker) -> None:
        """Look at a pod of which the API has a newer version."""
        if worker.pod is worker.desired:
            self._deferred.discard(worker.uid)
            if worker.state.resize.pending is not None:
                worker.state.resize.pending = None  # the wish was taken back
            return
        self._deferred.add(worker.uid)
        self.retry()

    def retry(self) -> None:
        """Something may have become free: try those that wait, in upstream's order.

        First who asks for no more than it has, then by priority and QoS class, then who waits longest.
        """
        waiting = [self._workers[uid] for uid in self._deferred if uid in self._workers]
        self._deferred &= {worker.uid for worker in waiting}
        for worker in sorted(waiting, key=_rank):
            self._try(worker)

    def _try(self, worker: PodWorker) -> None:
        state = worker.state
        if state.finished or state.termination is not None or worker.pod is worker.desired:
            self._deferred.discard(worker.uid)
            return
        others = [
            holding(other) for other in self._workers.values() if other is not worker and not other.state.finished
        ]
        refusal = self._refusal(worker.desired, others)
        generation = worker.desired.metadata.generation
        if refusal is None:
            self._deferred.discard(worker.uid)
            worker.resizer.grant(generation)
            return
        reason, message = refusal
        if reason == INFEASIBLE:
            self._deferred.discard(worker.uid)
        before = state.resize.pending
        known = before is not None and before.reason == reason
        since = before.since if before is not None and known else worker.deps.clock()
        state.resize.pending = Pending(reason, message, generation, since)
        if not known or (before is not None and before.generation != generation):
            text = messages.pending(worker.desired, generation, reason, message)
            worker.event("Warning", f"Resize{reason}", text)
        worker.wake()


def holding(worker: PodWorker) -> Pod:
    """Return a worker's pod with what it holds now: what was allocated, or what its containers still have of more."""
    runs = worker.state.all_instances()
    return allocation.held(worker.pod, {run.name: run.resources for run in runs if run.running and run.resources})


def _rank(worker: PodWorker) -> tuple[bool, int, bool, float]:
    desired, granted = worker.desired, worker.pod
    grows = any(
        resources.pod_request(desired, read) > resources.pod_request(granted, read)
        for read in (resources.milli_cpu, resources.memory)
    )
    pending = worker.state.resize.pending
    since = pending.since if pending is not None else float("inf")
    return grows, -(desired.spec.priority or 0), resources.qos_class(desired) is not QosClass.GUARANTEED, since
