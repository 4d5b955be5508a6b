"""The Pods in the API that stand for static ones (upstream: pod/mirror_client.go), and where static Pods' statuses go.

A mirror follows its static Pod and never the other way: who deletes it gets another one, and no container notices. One
that stands for something else, or for nothing, is deleted. Each name has one task at most, which is tried until it is
as it should be.
"""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Callable
from typing import Any

from nodewright.kube.backoff import Backoff
from nodewright.kube.client import Client
from nodewright.kube.errors import AlreadyExists, ApiError, Conflict, NotFound
from nodewright.kube.objects import Node, Pod, PodStatus
from nodewright.kube.resources import PODS
from nodewright_agent.pods.ports import Events, StatusSink
from nodewright_agent.pods.refs import reference
from nodewright_agent.pods.static.manifest import HASH, MIRROR, StaticPod, is_static

log = logging.getLogger(__name__)

RETRY_FIRST, RETRY_MAX = 1.0, 30.0
_SERVER_SETS = ("uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp", "managedFields")


def mirror_of(static: StaticPod, node: Node) -> dict[str, Any]:
    """Return the mirror as it is to be created. NodeRestriction asks for the hash and the Node as its owner."""
    body = copy.deepcopy(static.body)
    meta = body["metadata"]
    for name in _SERVER_SETS:
        meta.pop(name, None)
    meta["annotations"] = {**meta["annotations"], MIRROR: meta["annotations"][HASH]}
    owner = {"apiVersion": "v1", "kind": "Node", "name": node.metadata.name, "uid": node.metadata.uid}
    meta["ownerReferences"] = [{**owner, "controller": True}]
    return body


class MirrorPods:
    """The mirrors of a node. It is a status sink, too: of other Pods it passes everything on."""

    def __init__(self, client: Client, sink: StatusSink, node: Callable[[], Node | None], events: Events) -> None:
        """Create and delete through ``client``; ``node`` gives the Node once it is known (see ``node_known``)."""
        self._client, self._sink, self._node, self._events = client, sink, node, events
        self._shown: dict[str, StaticPod] = {}
        self._alive: dict[str, str] = {}
        """UID of the static Pod that runs under a name."""
        self._stale: set[str] = set()
        """UIDs of mirrors whose static Pod has ended, although the next one may have the same hash."""
        self._mirrors: dict[str, Pod] = {}
        self._statuses: dict[str, tuple[str, PodStatus]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ready = False

    def show(self, static: StaticPod) -> None:
        """A Pod is run: the API shall have its mirror."""
        if self._shown.get(static.name) is not static:
            self._shown[static.name] = static
            self._alive[static.name] = static.pod.metadata.uid
            self._check(static.name)

    def keep(self, pod: Pod) -> None:
        """A Pod is left from an earlier agent: what the API shows of it stays."""
        self._alive.setdefault(pod.key, pod.metadata.uid)

    def hide(self, pod: Pod) -> None:
        """It has ended: away with the mirror."""
        name = pod.key
        if self._alive.get(name) == pod.metadata.uid:
            self._shown.pop(name, None)
            del self._alive[name]
            if name in self._mirrors:
                self._stale.add(self._mirrors[name].metadata.uid)
            self._check(name)

    def ready(self) -> None:
        """All static Pods have been named: mirrors of others may go."""
        self._ready = True
        self.check_all()

    def check_all(self) -> None:
        """Look at every name: the Node may be known now."""
        for name in {*self._mirrors, *self._shown}:
            self._check(name)

    def seen(self, name: str, mirror: Pod | None) -> None:
        """Take note of what the API has under a name: a mirror, or none."""
        before = self._mirrors.get(name)
        if before is not None and (mirror is None or mirror.metadata.uid != before.metadata.uid):
            self._lost(name, before)
        if mirror is not None:
            self._found(name, mirror)
        self._check(name)

    async def close(self) -> None:
        """Stop; what is not done the next agent does."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # The status sink.

    def publish(self, pod: Pod, status: PodStatus, *, lazy: bool = False) -> None:
        """Have the status written to the Pod, or to the mirror of a static one as soon as there is one."""
        if not is_static(pod):
            self._sink.publish(pod, status, lazy=lazy)
            return
        self._statuses[pod.key] = (pod.metadata.uid, status)
        mirror = self._mirrors.get(pod.key)
        if mirror is not None and self._right(pod.key, mirror):
            self._sink.publish(mirror, status, lazy=lazy)

    def observed(self, pod: Pod) -> None:
        """Take note of a version of a Pod."""
        self._sink.observed(pod)

    async def flushed(self, uid: str) -> None:
        """Wait until the status is written; for a static Pod nothing waits."""
        await self._sink.flushed(uid)

    async def delete(self, pod: Pod) -> None:
        """Delete a Pod from the API; what shows a static one goes when its worker has ended."""
        if not is_static(pod):
            await self._sink.delete(pod)

    def forget(self, uid: str) -> None:
        """Drop what is still to be written."""
        self._sink.forget(uid)
        for name in [name for name, (of, _) in self._statuses.items() if of == uid]:
            del self._statuses[name]

    def _right(self, name: str, mirror: Pod) -> bool:
        meta = mirror.metadata
        return (
            meta.annotations.get(MIRROR) == self._alive.get(name)
            and meta.deletion_timestamp is None
            and meta.uid not in self._stale
        )

    def _found(self, name: str, mirror: Pod) -> None:
        known = self._mirrors.get(name)
        if known is not None and _version(mirror) < _version(known):
            return
        self._mirrors[name] = mirror
        if not self._right(name, mirror):
            return
        if known is not None:
            self._sink.observed(mirror)
        else:
            self._tell(name, mirror)

    def _tell(self, name: str, mirror: Pod) -> None:
        of, status = self._statuses.get(name, ("", None))
        if status is not None and of == self._alive.get(name):
            self._sink.publish(mirror, status)

    def _lost(self, name: str, mirror: Pod) -> None:
        if self._mirrors.get(name) is mirror or self._mirrors[name].metadata.uid == mirror.metadata.uid:
            del self._mirrors[name]
        self._stale.discard(mirror.metadata.uid)
        self._sink.forget(mirror.metadata.uid)

    def _check(self, name: str) -> None:
        if name not in self._tasks and self._todo(name) is not None:
            task = asyncio.get_running_loop().create_task(self._work(name), name=f"mirror of {name}")
            self._tasks[name] = task
            task.add_done_callback(lambda done: self._done(name, done))

    def _done(self, name: str, task: asyncio.Task[None]) -> None:
        del self._tasks[name]
        if task.cancelled():
            return
        if (error := task.exception()) is not None:
            log.error("the mirror of a static pod is left as it is", exc_info=error, extra={"pod": name})
        else:
            self._check(name)  # what changed in the last moment

    def _todo(self, name: str) -> str | None:
        """Return what is to be done about a name now: delete, create, or nothing."""
        mirror = self._mirrors.get(name)
        if mirror is not None:
            if self._right(name, mirror):
                return None
            return "delete" if self._ready else None
        return "create" if name in self._shown and self._node() is not None else None

    async def _work(self, name: str) -> None:
        backoff = Backoff(RETRY_FIRST, RETRY_MAX)
        told = ""
        while (todo := self._todo(name)) is not None:
            try:
                await (self._delete(name) if todo == "delete" else self._create(name))
            except ApiError as error:
                text = f"Failed to {todo} mirror pod {name}: {error}"
                log.warning("%s; trying again", text)
                static = self._shown.get(name)
                if static is not None and error.status and text != told:
                    self._events.event(reference(static.pod), "Warning", "FailedMirrorPod", text)
                told = text
                await asyncio.sleep(backoff.next())
            else:
                backoff.reset()

    async def _delete(self, name: str) -> None:
        mirror = self._mirrors[name]
        meta = mirror.metadata
        try:
            await self._client.delete(PODS, meta.name, meta.namespace, grace_period_seconds=0, uid=meta.uid)
        except (NotFound, Conflict):
            pass  # it is gone, or another one is there: the watch tells
        if self._mirrors.get(name) is mirror or name in self._mirrors:
            self._lost(name, mirror)

    async def _create(self, name: str) -> None:
        static, node = self._shown[name], self._node()
        assert node is not None
        meta = static.pod.metadata
        try:
            made = await self._client.create(PODS, mirror_of(static, node), meta.namespace, type=Pod)
        except AlreadyExists:
            made = await self._client.get(PODS, meta.name, meta.namespace, type=Pod)
            if MIRROR not in made.metadata.annotations or made.spec.node_name != static.pod.spec.node_name:
                raise
        self._found(name, made)


def _version(pod: Pod) -> int:
    return int(pod.metadata.resource_version or 0)
