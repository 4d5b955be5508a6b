"""Two control planes, one served by upstream's DaemonSet controller, one by ours; cases are held against both."""

from __future__ import annotations

import asyncio
import time

from differential.daemonsets.picture import differences, picture
from differential.daemonsets.side import Object, Side, node_of
from differential.daemonsets.steps import STEPS, Case, Step, create, told
from nodewright.kube.resources import APPS_DAEMONSETS, NODES, PODS

QUIET = 0.12  # seconds without any change before the sides are looked at
PATIENCE = 10.0  # seconds that differing sides get to become equal


class Lab:
    """The two sides, and the loop in which everything happens."""

    def __init__(self, upstream: Side, ours: Side) -> None:
        self.upstream = upstream
        self.ours = ours
        self._cases = 0

    @property
    def sides(self) -> tuple[Side, Side]:
        """Both."""
        return self.upstream, self.ours

    # --- a case ---------------------------------------------------------------------------------------------------

    async def hold(self, case: Case) -> None:
        """Go through a case on both sides. Raises AssertionError at the first difference."""
        try:
            await self.prepare(case)
            await self._compare(case, -1)
            for number, step in enumerate(case.steps):
                if case.slow:
                    await asyncio.sleep(1.001 - time.time() % 1)
                await self.take(step)
                await self._compare(case, number)
        finally:
            await self.clean()

    async def prepare(self, case: Case) -> None:
        """Make the nodes and the DaemonSet on both sides, and wait until they rest."""
        self._cases += 1
        await asyncio.gather(*(self._set_up(side, case) for side in self.sides))
        await self._rest()

    async def take(self, step: Step) -> None:
        """Take a step on both sides, and wait until they rest."""
        name, *arguments = step
        await asyncio.gather(*(STEPS[name](side, *arguments) for side in self.sides))
        await self._rest()

    async def clean(self) -> None:
        """Remove all that belongs to the case."""
        await asyncio.gather(*(side.clean() for side in self.sides))

    async def _set_up(self, side: Side, case: Case) -> None:
        side.namespace, side.kubelet = f"case-{self._cases}", case.kubelet
        await side.make_namespace(side.namespace)
        for labels, taints in case.nodes:
            await side.add_node(labels, taints)
        await create(side, case.spec)

    async def _compare(self, case: Case, number: int) -> None:
        """Wait until both sides rest in the same state."""
        deadline = time.monotonic() + PATIENCE
        while difference := differences(*map(picture, self.sides)):
            left = deadline - time.monotonic()
            if left <= 0:
                raise AssertionError(f"{told(case, number)}\n\n{difference}")
            await self._next_change(left)
            await self._rest()

    # --- until nothing moves --------------------------------------------------------------------------------------

    async def _rest(self) -> None:
        await asyncio.gather(*map(_rest, self.sides))

    async def _next_change(self, seconds: float) -> None:
        waits = [asyncio.create_task(_changed(side)) for side in self.sides]
        await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)


async def _rest(side: Side) -> None:
    """Until the controller has seen all, and nothing has changed for a moment."""
    while True:
        await side.caught_up()
        await side.barrier()
        await side.quiet(QUIET)
        if not _is_waiting(side):
            return
        await side.until(lambda: not _is_waiting(side), "ended Pods are deleted")


async def _changed(side: Side) -> None:
    side.changed.clear()
    await side.changed.wait()


def _is_waiting(side: Side) -> bool:
    """Whether the controller's pause between failures is running."""
    owners = {ds["metadata"]["uid"] for ds in side.all(APPS_DAEMONSETS) if "deletionTimestamp" not in ds["metadata"]}
    nodes = {node["metadata"]["name"] for node in side.all(NODES)}
    return any(_is_ended(pod) and owners & _owner_uids(pod) and node_of(pod) in nodes for pod in side.all(PODS))


def _is_ended(pod: Object) -> bool:
    return pod["status"].get("phase") in ("Failed", "Succeeded") and "deletionTimestamp" not in pod["metadata"]


def _owner_uids(pod: Object) -> set[str]:
    return {ref["uid"] for ref in pod["metadata"].get("ownerReferences") or ()}
