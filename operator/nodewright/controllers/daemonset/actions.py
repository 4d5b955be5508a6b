"""Carrying out a plan: creating pods in growing batches, deleting them, telling about it. The only writer of pods."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from nodewright.controllers.daemonset.kinds import Kind
from nodewright.controllers.daemonset.model import DaemonSet, Pod
from nodewright.controllers.daemonset.template import Json, PodFactory
from nodewright.framework.consistency import ConsistencyGuard
from nodewright.kube.cache import WatchCache
from nodewright.kube.client import Client
from nodewright.kube.errors import ApiError, Conflict, Forbidden, NotFound, ServerUnavailable
from nodewright.kube.events import EventRecorder
from nodewright.kube.objects import ObjectReference, PartialObject
from nodewright.kube.quickwrite import QuickWriter
from nodewright.kube.resources import PODS

log = logging.getLogger(__name__)

BURST = 250  # creates, and deletes, per reconciliation (upstream: burstReplicas)
PROVEN = 32  # the size of the first batch where pods of the same spec could be made a moment ago

X = TypeVar("X")


def reference(kind: Kind, ds: DaemonSet) -> ObjectReference:
    """What events on the DaemonSet refer to."""
    return ObjectReference(
        kind=kind.resource.kind,
        api_version=kind.resource.api_version,
        namespace=ds.metadata.namespace,
        name=ds.metadata.name,
        uid=ds.metadata.uid,
        resource_version=ds.metadata.resource_version,
    )


async def slow_start(items: Sequence[X], act: Callable[[X], Awaitable[None]], first: int = 1) -> list[Exception]:
    """Do `act` for all items in parallel batches of `first`, twice as many, ...; stop after the first with a failure.

    So a template that no pod can be made from costs one request, not one per node.
    """
    errors: list[Exception] = []
    start, size = 0, first
    while start < len(items) and not errors:
        batch = items[start : start + size]
        results = await asyncio.gather(*(act(item) for item in batch), return_exceptions=True)
        errors = [r for r in results if isinstance(r, Exception)]
        start, size = start + size, size * 2
    return errors


class PodActions:
    """Creates and deletes a DaemonSet's pods."""

    def __init__(
        self, client: Client, kind: Kind, pods: WatchCache[Pod], guard: ConsistencyGuard, events: EventRecorder
    ) -> None:
        """`guard` learns of every write."""
        self._writer = QuickWriter(client)
        self._kind = kind
        self._pods = pods
        self._guard = guard
        self._events = events
        self._proven: dict[str, tuple[str, int]] = {}  # by key: UID and generation that all pods could be made of

    async def apply(self, ds: DaemonSet, maker: PodFactory, create: Sequence[str], delete: Sequence[Pod]) -> None:
        """Create on these nodes, then delete these pods, at most BURST of each; raises the first failure at the end."""
        errors = await self._create_all(ds, maker, create[:BURST])
        results = await asyncio.gather(*(self._delete(ds, pod) for pod in delete[:BURST]), return_exceptions=True)
        errors += [r for r in results if isinstance(r, Exception)]
        if errors:
            raise errors[0]

    def forget(self, key: str) -> None:
        """The DaemonSet is gone."""
        self._proven.pop(key, None)

    async def _create_all(self, ds: DaemonSet, maker: PodFactory, nodes: Sequence[str]) -> list[Exception]:
        """Start slowly, unless the last pods of this spec could all be made: a rollout makes them in small portions."""
        spec = (ds.metadata.uid, ds.metadata.generation)
        first = PROVEN if self._proven.get(ds.key) == spec else 1
        errors = await slow_start(nodes, lambda node: self._create(ds, maker, node), first)
        if errors:
            self.forget(ds.key)
        elif nodes:
            self._proven[ds.key] = spec
        return errors

    async def _create(self, ds: DaemonSet, maker: PodFactory, node: str) -> None:
        made = await self.create(ds, maker.pod_for(node))
        if made is not None:
            text = f"Created pod: {made.metadata.name}"
            self._events.event(reference(self._kind, ds), "Normal", "SuccessfulCreate", text)
            log.info("created pod", extra={"pod": made.metadata.name, "node": node})

    async def create(self, ds: DaemonSet, pod: Json, error: str = "Error creating") -> PartialObject | None:
        """Create a pod for the DaemonSet; a failure is told, beginning with `error`, and raised.

        None where the namespace is being deleted: everything in it is about to go, and telling would only make noise.
        """
        try:
            made = await self._writer.create(PODS, pod, ds.metadata.namespace)
        except ApiError as failure:
            if isinstance(failure, ServerUnavailable):
                self._guard.doubt(ds.key, self._pods)
            if _namespace_terminating(failure):
                log.info("no pod is made: the namespace is being deleted")
                return None
            # Without the name that the server made up: texts that differ in nothing else are one event, one status.
            failure.message = nameless(failure.message, pod["metadata"]["generateName"].removesuffix("-"))
            failure.args = (failure.message,)
            self._events.event(reference(self._kind, ds), "Warning", "FailedCreate", f"{error}: {failure.message}")
            raise
        self._guard.wrote(ds.key, self._pods, made.metadata.resource_version)
        return made

    async def _delete(self, ds: DaemonSet, pod: Pod) -> None:
        ref = reference(self._kind, ds)
        name = pod.metadata.name
        try:
            await self._writer.delete(PODS, name, pod.metadata.namespace, uid=pod.metadata.uid)
        except NotFound:
            log.info("pod is gone already", extra={"pod": name})
            self._guard.deleted(ds.key, self._pods, pod.key, pod.metadata.uid)
            return
        except ApiError as error:
            if isinstance(error, ServerUnavailable | Conflict):
                # Its name belongs to another pod by now, or so says a webhook, and the pod is still there.
                self._guard.doubt(ds.key, self._pods)
            self._events.event(ref, "Warning", "FailedDelete", f"Error deleting: {error.message}")
            raise
        self._guard.deleted(ds.key, self._pods, pod.key, pod.metadata.uid)
        self._events.event(ref, "Normal", "SuccessfulDelete", f"Deleted pod: {name}")
        log.info("deleted pod", extra={"pod": name, "node": pod.target_node or ""})


def nameless(message: str, name: str) -> str:
    """An error's text with the generated pod name `name-x7k2p` cut back to `name-`."""
    return re.sub(rf'"{re.escape(name)}-[a-z0-9]{{5}}"', f'"{name}-"', message)


def _namespace_terminating(error: ApiError) -> bool:
    """Whether nothing more can be created, as the whole namespace is being deleted."""
    causes = error.details.get("causes") or []
    return isinstance(error, Forbidden) and any(c.get("reason") == "NamespaceTerminating" for c in causes)
