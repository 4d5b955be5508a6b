"""FailedScheduling and Preempted events, aggregated and limited by the recorder that all components share."""

from __future__ import annotations

import asyncio

from nodewright.kube.client import Client
from nodewright.kube.events import NORMAL, WARNING, EventRecorder, ObjectRef

from .pods import PodInfo


class Warnings:
    """One recorder per profile, since the profile's name is the event's reporting controller."""

    def __init__(self, client: Client, instance: str) -> None:
        self._client = client
        self._instance = instance
        self._recorders: dict[str, EventRecorder] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def warn(self, pod: PodInfo, profile: str, note: str) -> None:
        """Post a FailedScheduling event soon; returns at once. Call it in a running loop."""
        self._recorder(profile).event(_reference(pod), WARNING, "FailedScheduling", note, action="Scheduling")

    def evicted(self, victim: PodInfo, preemptor: PodInfo, node: str) -> None:
        """Post a Preempted event about a victim, related to the Pod that it had to go for."""
        note = f"Preempted by pod {preemptor.uid} on node {node}"
        about, related = _reference(victim), _reference(preemptor)
        recorder = self._recorder(preemptor.spec.scheduler_name)
        recorder.event(about, NORMAL, "Preempted", note, action="Preempting", related=related)

    def _recorder(self, profile: str) -> EventRecorder:
        recorder = self._recorders.get(profile)
        if recorder is None:
            recorder = EventRecorder(self._client, component=profile, instance=self._instance, series_api=True)
            self._recorders[profile] = recorder
            self._tasks.add(asyncio.get_running_loop().create_task(recorder.run(), name=f"events of {profile}"))
        return recorder

    async def close(self) -> None:
        """Post what waits, within reason, and stop."""
        for recorder in self._recorders.values():
            await recorder.flush(timeout=2.0)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _reference(pod: PodInfo) -> ObjectRef:
    meta = pod.pod.metadata
    return ObjectRef(
        kind="Pod",
        namespace=meta.namespace,
        name=meta.name,
        uid=pod.uid,
        api_version="v1",
        resource_version=meta.resource_version,
    )
