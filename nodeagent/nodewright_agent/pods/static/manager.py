"""Has the node run exactly the static Pods that the files tell of; of a name one at a time: a changed one ends first.

Nothing here waits for an API server.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from nodewright.kube.objects import Pod
from nodewright_agent.pods.model import Termination
from nodewright_agent.pods.static.folder import Reading
from nodewright_agent.pods.static.manifest import StaticPod, is_static
from nodewright_agent.pods.worker import PodWorker

log = logging.getLogger(__name__)


class Files(Protocol):
    """Where manifests come from."""

    async def run(self, take: Callable[[Reading], None]) -> None:
        """Give each reading to ``take``, the first at once; never returns."""


class Workers(Protocol):
    """What is needed of the pod manager."""

    workers: dict[str, PodWorker]

    def start_static(self, pod: Pod) -> None:
        """Begin a Pod, or take up what an earlier agent left of it."""

    def withdraw(self, uid: str) -> None:
        """Forget a Pod that still waits for room."""


class Mirrors(Protocol):
    """Who shows static Pods in the API."""

    def show(self, static: StaticPod) -> None:
        """A Pod is run: the API shall have its mirror."""

    def keep(self, pod: Pod) -> None:
        """A Pod is left from an earlier agent: what the API shows of it stays."""

    def hide(self, pod: Pod) -> None:
        """It has ended: away with the mirror."""

    def seen(self, name: str, mirror: Pod | None) -> None:
        """The API has this mirror under a name, or none any more."""

    def ready(self) -> None:
        """All static Pods have been named: mirrors of others may go."""


class StaticPods:
    """The static Pods of a node."""

    def __init__(self, folder: Files, workers: Workers, mirrors: Mirrors | None) -> None:
        """Take the files, who runs Pods, and who shows them (None: there is no API)."""
        self.read = asyncio.Event()
        """Set after the first look at the files."""
        self._folder, self._workers, self._mirrors = folder, workers, mirrors
        self._wanted: dict[str, StaticPod] = {}
        self._again: set[str] = set()
        self._digests: dict[str, str] = {}
        """Of what runs or waits, by UID."""
        self._started: dict[str, StaticPod] = {}
        self._failed: set[str] = set()
        self._whole = False

    async def run(self) -> None:
        """Follow the files; never returns."""
        await self._folder.run(self._take)

    def mirrored(self, name: str, mirror: Pod | None) -> None:
        """Pass a mirror on."""
        if self._mirrors is not None:
            self._mirrors.seen(name, mirror)

    def ended(self, pod: Pod, *, failed: bool) -> None:
        """A worker is done with a static Pod; one that failed by itself is not begun again with the same content."""
        digest = self._digests.pop(pod.metadata.uid, "")
        self._started.pop(pod.key, None)
        if failed:
            self._failed.add(digest)
        if self._mirrors is not None:
            self._mirrors.hide(pod)
        if self.read.is_set():
            self._reconcile()

    def _take(self, reading: Reading) -> None:
        self._wanted = {one.name: one for one in reading.pods}
        self._again |= reading.removed
        self._whole = reading.whole
        if not self.read.is_set():
            self._take_over()
        self._reconcile()
        if not self.read.is_set():
            self.read.set()
            if self._mirrors is not None:
                self._mirrors.ready()

    def _take_over(self) -> None:
        """What an earlier agent left: its mirrors stay, and what the node itself had ended begins anew.

        A node that was shut down has its static Pods again afterwards; so it is with kubelet.
        """
        for name, worker in self._present().items():
            if self._mirrors is not None:
                self._mirrors.keep(worker.pod)
            if _ended_by_node(worker.state.termination):
                self._again.add(name)

    def _present(self) -> dict[str, PodWorker]:
        return {worker.pod.key: worker for worker in self._workers.workers.values() if is_static(worker.pod)}

    def _reconcile(self) -> None:
        present = self._present()
        for name, worker in present.items():
            self._check(worker, self._wanted.get(name), removed=name in self._again)
        self._again.clear()
        for name, one in list(self._started.items()):
            if name not in present and self._wanted.get(name) is not one:
                self._workers.withdraw(one.pod.metadata.uid)  # it was still waiting for room
                del self._started[name]
                if self._mirrors is not None:
                    self._mirrors.hide(one.pod)
        for name, wanted in self._wanted.items():
            if name not in present and name not in self._started and wanted.digest not in self._failed:
                log.info("static pod begins", extra={"pod": name, "file": wanted.file})
                self._started[name] = wanted
                self._digests[wanted.pod.metadata.uid] = wanted.digest
                self._show(wanted)
                self._workers.start_static(wanted.pod)

    def _check(self, worker: PodWorker, wanted: StaticPod | None, *, removed: bool) -> None:
        """Let a running Pod go on, or end it."""
        known = self._digests.get(worker.uid)
        if wanted is None:
            if known is None and not self._whole:
                return  # from an earlier agent, and its file may be the one that cannot be read
        elif wanted.pod.metadata.uid == worker.uid and not removed:
            unchanged = wanted.digest == known if known is not None else _alike(wanted.pod, worker.pod)
            if unchanged:
                self._digests[worker.uid] = wanted.digest
                if not worker.retiring:
                    self._show(wanted)
                    return
        if not worker.retiring:
            log.info("static pod ends", extra={"pod": worker.pod.key, "changed": wanted is not None})
            # Where the next one has the same UID, its runs are counted on.
            worker.retire(keep_logs=wanted is not None and wanted.pod.metadata.uid == worker.uid)

    def _show(self, wanted: StaticPod) -> None:
        if self._mirrors is not None:
            self._mirrors.show(wanted)


def _ended_by_node(termination: Termination | None) -> bool:
    if termination is None or termination.reason == "DeadlineExceeded":
        return False
    return bool(termination.reason) or termination.refused


def _alike(one: Pod, other: Pod) -> bool:
    return one.spec == other.spec and one.metadata.labels == other.metadata.labels
