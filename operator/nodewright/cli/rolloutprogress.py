"""`nodewright rollout status`: following a rollout to its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import cast

import msgspec

from nodewright.cli.daemonsettarget import Chosen
from nodewright.cli.output import FAILED, OK, PRECONDITION, CliError
from nodewright.cli.rolloutchanges import failed_revision
from nodewright.controllers.daemonset.explain import Explanation, explain
from nodewright.controllers.daemonset.lookup import read
from nodewright.controllers.daemonset.model import DaemonSet
from nodewright.controllers.daemonset.progress import HELD, LATE, WAITING, last_phase
from nodewright.controllers.daemonset.targets import is_paused
from nodewright.kube.client import WatchEvent
from nodewright.kube.errors import Forbidden, Gone, ServerUnavailable
from nodewright.kube.times import now

# Seconds without a change after which it is looked at what the rollout waits for: all nodes and pods are read for that.
# Where that takes long, it is done so much more seldom that it is at most a tenth of the time.
QUIET = 1.0
_SELDOM = 10

_FOR_GOOD = {"partition", "nodeSelector"}


class Progress(msgspec.Struct, frozen=True):
    """How far a rollout is. `code` is the exit code where it has come to an end, else None."""

    message: str
    code: int | None = None


def progress(ds: DaemonSet) -> Progress:
    """What the status says, in kubectl's words where it has some."""
    name, status = f'daemon set "{ds.metadata.name}"', ds.status
    if ds.spec.update_strategy.type != "RollingUpdate":
        raise CliError("rollout status is only available for RollingUpdate strategy type")
    if status.observed_generation < ds.metadata.generation:
        return Progress("Waiting for daemon set spec update to be observed...")
    updated, desired = status.updated_number_scheduled, status.desired_number_scheduled
    available = status.number_available
    phase = last_phase(ds)
    if updated >= desired and available >= desired:
        if phase != WAITING:
            return Progress(f"{name} successfully rolled out", OK)
        return Progress(f"Waiting for {name} rollout to finish: all {updated} new pods are available...")
    if is_paused(ds):
        state = f"{updated} out of {desired} new pods have been updated, {available} pods are available"
        return Progress(f"{name} rollout is paused: {state}", PRECONDITION)
    if failed := failed_revision(ds):
        end = "is rolled back" if ds.rolling.on_failure == "Rollback" else "has stopped"
        failure = status.rollout.failure if status.rollout is not None else ""
        where = f" on {failure}" if failure else ""
        return Progress(f"{name} rollout {end}: new pods of revision {failed} failed{where}", FAILED)
    if phase == LATE:
        return Progress(f"{name} exceeded its progress deadline", FAILED)
    if phase == HELD:
        return Progress(_left_out(ds), OK)
    waiting = f"Waiting for {name} rollout to finish:"
    if updated < desired:
        return Progress(f"{waiting} {updated} out of {desired} new pods have been updated...")
    return Progress(f"{waiting} {available} of {desired} updated pods are available...")


class Follower:
    """Prints how a rollout goes, each line once, until it has come to an end."""

    def __init__(self, chosen: Chosen, say: Callable[[str], None]) -> None:
        self._chosen = chosen
        self._say = say
        self._said = ""
        self._waits: list[str] = []
        self._may_look = True
        self._quiet = QUIET
        self._newest: DaemonSet | None = chosen.ds
        self._changed = asyncio.Event()

    async def look(self) -> int:
        """Say once how far it is; the exit code, 0 where it goes on."""
        code = await self._step(self._chosen.ds)
        if code is None:
            code = await self._look_closely(self._chosen.ds)
        return OK if code is None else code

    async def follow(self) -> int:
        """Say it again with every change; the exit code of its end."""
        watching = asyncio.create_task(self._watch())
        try:
            return await self._until_the_end(watching)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def _until_the_end(self, watching: asyncio.Task[None]) -> int:
        while True:
            self._changed.clear()
            if watching.done():
                await watching
            ds = self._newest
            if ds is None:
                raise self._chosen.refused("has been deleted")
            code = await self._step(ds)
            if code is None and not await self._changes_within(self._quiet):
                code = await self._look_closely(ds)
                if code is None:
                    await self._changed.wait()
            if code is not None:
                return code

    async def _changes_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return False
        return True

    async def _step(self, ds: DaemonSet) -> int | None:
        found = progress(ds)
        self._say_once(found.message)
        return found.code

    def _say_once(self, line: str) -> None:
        if self._said != line:
            self._said = line
            self._say(line)

    async def _look_closely(self, ds: DaemonSet) -> int | None:
        """Say what it waits for. A rollout that leaves nodes out for good is at its end when all others are done."""
        if not self._may_look:
            return None
        began = time.monotonic()
        try:
            explanation = explain(await read(self._chosen.client, self._chosen.kind, ds, now()))
        except Forbidden as error:
            self._may_look = False
            self._say(f"  (what it waits for cannot be told: {error.message})")
            return None
        self._quiet = max(QUIET, _SELDOM * (time.monotonic() - began))
        if end := partial_end(ds, explanation):
            self._say_once(end)
            return OK
        waits = [*explanation.notes, *(wait.message for wait in explanation.waits)]
        for message in waits:
            if message not in self._waits:
                self._say(f"  {message}")
        self._waits = waits
        return None

    async def _watch(self) -> None:
        try:
            while self._newest is not None:
                await self._list_and_watch()
        finally:
            self._changed.set()

    async def _list_and_watch(self) -> None:
        client, resource, meta = self._chosen.client, self._chosen.kind.resource, self._chosen.ds.metadata
        only = f"metadata.name={meta.name}"
        listed = await client.list(resource, meta.namespace, type=DaemonSet, field_selector=only)
        self._see(listed.items[0] if listed.items else None)
        changes = client.watch(
            resource,
            meta.namespace,
            type=DaemonSet,
            field_selector=only,
            resource_version=listed.resource_version,
        )
        try:
            async with aclosing(cast("AsyncGenerator[WatchEvent[DaemonSet]]", changes)) as events:
                async for event in events:
                    if event.type != "BOOKMARK":
                        self._see(event.object if event.type != "DELETED" else None)
                    if self._newest is None:
                        return
        except (Gone, ServerUnavailable):
            await asyncio.sleep(0.5)  # listed again from the start

    def _see(self, ds: DaemonSet | None) -> None:
        is_same = ds is not None and ds.metadata.uid == self._chosen.ds.metadata.uid
        self._newest = ds if is_same else None
        self._changed.set()


def partial_end(ds: DaemonSet, explanation: Explanation) -> str:
    """kubectl's words for the end of a rollout that leaves nodes out; "" where there is more to do."""
    kinds = {wait.kind for wait in explanation.waits}
    if not explanation.complete or not kinds or not kinds <= _FOR_GOOD:
        return ""
    return _left_out(ds)


def _left_out(ds: DaemonSet) -> str:
    name, updated = ds.metadata.name, ds.status.updated_number_scheduled
    return f'daemon set "{name}" partitioned roll out complete: {updated} new pods have been updated...'
