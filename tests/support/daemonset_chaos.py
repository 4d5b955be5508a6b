"""Operators as processes that can be killed, kubelets that are quick, and the check of what must hold meanwhile.

The check is a watch of the pods, which shows every state in the order in which the API server stored it: nothing that
was wrong for a moment only is missed.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from nodewright.kube.resources import PODS
from support.scheduler_chaos import Spawned

Object = dict[str, Any]

CREATES = {"method": "POST", "path": r"/pods$"}
DELETES = {"method": "DELETE", "path": r"/pods/"}


class SpawnedOperator(Spawned):
    """A `nodewright operator` process."""

    command = "operator"


def node_of(pod: Object) -> str:
    """The node that a daemon pod is pinned to."""
    terms = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    return str(terms["nodeSelectorTerms"][0]["matchFields"][0]["values"][0])


def is_ready(pod: Object) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


class PodWatch:
    """Sees every change of a World's pods; `problems` has what may never be. Each new pod becomes ready at once.

    `world` is the World of the DaemonSet tests. `lowest` is the least number of nodes that had a ready pod, from when
    `expect` was called.
    """

    def __init__(self, world: Any) -> None:
        self.problems: list[str] = []
        self.lowest: int | None = None
        self.created = 0
        self._world = world
        self._pods: dict[str, Object] = {}
        self._new: asyncio.Queue[Object] = asyncio.Queue()
        world._caches[PODS].add_handler(self._note)
        self._task = asyncio.create_task(self._kubelets())

    def expect(self) -> None:
        """All are ready by now: count from here on."""
        self.lowest = self.ready

    @property
    def ready(self) -> int:
        """Nodes that have a ready pod."""
        live = (p for p in self._pods.values() if is_ready(p) and not p["metadata"].get("deletionTimestamp"))
        return len({node_of(pod) for pod in live})

    async def stop(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    def _note(self, old: Object | None, new: Object | None) -> None:
        if new is None:
            self._pods.pop((old or {})["metadata"]["uid"], None)
        else:
            self._pods[new["metadata"]["uid"]] = new
        if old is None and new is not None:
            self.created += 1
            self._new.put_nowait(new)
            node = node_of(new)
            there = [
                p for p in self._pods.values() if node_of(p) == node and not p["metadata"].get("deletionTimestamp")
            ]
            if len(there) > 1:
                self.problems.append(f"{node} has {[p['metadata']['name'] for p in there]}")
        if self.lowest is not None:
            self.lowest = min(self.lowest, self.ready)

    async def _kubelets(self) -> None:
        while True:
            pod = await self._new.get()
            with contextlib.suppress(Exception):  # gone meanwhile, or the server is; then it is tried again below
                await self._world.set_status(pod)
                continue
            await asyncio.sleep(0.2)
            self._new.put_nowait(pod)
