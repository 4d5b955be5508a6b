"""A picture of the node's containers and sandboxes in another runtime, kept by asking."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from nodewright_agent.failpoints import failpoint
from nodewright_agent.remote import config, labels, records
from nodewright_agent.remote.client import TIMEOUT, CallFailed, Client, Missing
from nodewright_agent.remote.records import RemoteRecord, Sandbox
from nodewright_agent.runtime import cgroup_math
from nodewright_agent.runtime.cgroups import Cgroups
from nodewright_agent.runtime.errors import ContainerNotFound
from nodewright_agent.runtime.spec import ContainerRecord, ExitInfo, Phase, Resources

log = logging.getLogger(__name__)

_STATUS = 10.0
"""Seconds for each container's status when all are asked after: one that hangs must not hide the others."""


class Picture:
    """What the runtime has of this node. Ends, and sandboxes that are lost, are told as they are found."""

    def __init__(
        self, client: Client, cgroups: Cgroups, host: config.Host, node_name: str, cgroup_root: str, layers: Path
    ) -> None:
        """Ask this runtime; ``layers``: where it says that it keeps what containers write."""
        self.cgroups, self.layers = cgroups, layers
        self.cgroup_root = "/" + cgroup_root.strip("/")
        self.monitors_cgroup = f"{self.cgroup_root}/monitors"
        self.on_exit: Callable[[str, ExitInfo], None] = lambda cid, info: None
        self.on_sandbox_lost: Callable[[str], None] = lambda uid: None
        self.sandboxes: dict[str, list[Sandbox]] = {}
        """By the pod's UID, the newest last."""
        self._client, self.host = client, host
        self._selector = {labels.NODE: node_name}
        self._records: dict[str, RemoteRecord] = {}
        self._ended: dict[str, asyncio.Event] = {}
        self._looking = asyncio.Lock()
        self._unsure: set[str] = set()
        """Containers of which only the list is known."""

    async def look(self) -> bool:
        """Ask for all sandboxes and containers, and tell of what has ended since. Raises CallFailed.

        Returns whether the runtime told how each container is.
        """
        async with self._looking:
            known, held = set(self._records), {one.id for all in self.sandboxes.values() for one in all}
            sandboxes = await self._client.runtime("ListPodSandbox", filter={"label_selector": self._selector})
            containers = await self._client.runtime("ListContainers", filter={"label_selector": self._selector})
            self._take_sandboxes([one for item in sandboxes.items if (one := records.sandbox_of(item)).uid], held)
            found = {one.id: one for one in containers.containers if one.labels.get(labels.POD_UID)}
            for cid in known - set(found):
                self._gone(cid)
            answers = await asyncio.gather(*(self._ask_after(item) for item in found.values()))
            self._looked({item.pod_sandbox_id for item in containers.containers})
            return all(answers)

    async def refresh(self, cid: str, sandbox: str = "", *, deadline: float = TIMEOUT) -> None:
        """Ask for one container, and tell of its end. Raises CallFailed."""
        try:
            answer = await self._client.runtime("ContainerStatus", deadline=deadline, container_id=cid)
        except Missing:
            self._gone(cid)
            return
        self._take(answer.status, sandbox)

    def find(self, cid: str) -> RemoteRecord | None:
        """A container; None when there is none."""
        return self._records.get(cid)

    def of_pod(self, pod_uid: str) -> Sequence[RemoteRecord]:
        """The containers of one pod."""
        return [record for record in self._records.values() if record.spec.pod_uid == pod_uid]

    async def list(self) -> list[ContainerRecord]:
        """Every container of this node, oldest first."""
        return sorted(self._records.values(), key=lambda record: record.state.created_at)

    def newest(self, uid: str) -> Sandbox | None:
        """A pod's newest sandbox."""
        found = self.sandboxes.get(uid)
        return found[-1] if found else None

    def add_sandbox(self, sandbox: Sandbox) -> None:
        """Note one that was just made."""
        self._drop_sandbox(sandbox.id)
        self.sandboxes.setdefault(sandbox.uid, []).append(sandbox)
        self.sandboxes[sandbox.uid].sort(key=lambda one: (one.attempt, one.created_at))

    async def _ask_after(self, item: Any) -> bool:
        """Bring one item of ListContainers up to date; whether the runtime told how it is."""
        record = self._records.get(item.id)
        sure = record is not None and item.id not in self._unsure
        if record is not None and sure and not records.later(records.phase(item.state), record.state.phase):
            return True
        try:
            await self.refresh(item.id, item.pod_sandbox_id, deadline=_STATUS)
        except CallFailed as error:
            log.warning("the runtime does not tell how a container is: %s", error, extra={"container": item.id})
            if item.id not in self._records:
                self._records[item.id] = records.of_item(item)
                self._unsure.add(item.id)
            return False
        return True

    def tell_again(self, cid: str) -> bool:
        """Tell of a container's end once more, to whoever did not hear it; whether it has ended."""
        record = self._records.get(cid)
        end = record.exit if record is not None else records.lost(time.time())
        if end is not None:
            self.on_exit(cid, end)
        return end is not None

    def _looked(self, used: set[str]) -> None:
        """All was asked for; ``used``: the ids of sandboxes that have containers."""

    def _lost(self, uid: str) -> None:
        """A pod's newest sandbox is not whole any more."""

    def _take(self, status: Any, sandbox: str) -> None:
        cid = status.id
        record = self._records.get(cid)
        if record is None:
            record = self._records[cid] = records.of_status(status, sandbox)
            self._locate(record)
            return
        if cid in self._unsure:
            self._unsure.discard(cid)
            record.spec = records.of_status(status, record.sandbox).spec
        state = records.state_of(status)
        if not records.later(state.phase, record.state.phase):
            return
        state.pid = record.state.pid
        record.state = state
        self._locate(record)
        if state.exit is not None:
            self._told(cid, state.exit)

    def _locate(self, record: RemoteRecord) -> None:
        try:
            self._find_cgroup(record)
        except OSError as error:  # it has ended meanwhile
            log.debug("the cgroup of a container cannot be read: %s", error, extra={"container": record.id})
            record.place = ""

    def _find_cgroup(self, record: RemoteRecord) -> None:
        """Find a running container's cgroup below its pod's: how it is called there is the runtime's affair."""
        if record.state.phase is not Phase.RUNNING or record.place:
            return
        for qos in cgroup_math.QosClass:
            pod = cgroup_math.pod_path(self.cgroup_root, qos, record.spec.pod_uid)
            for name in self.cgroups.children(pod) if self.cgroups.exists(pod) else ():
                if record.id in name:
                    record.place = f"{pod}/{name}"
        if record.place:
            record.state.pid = min(self.cgroups.pids(record.place), default=0)
            found = self.cgroups.limits(record.place)
            given = Resources(
                cpu_shares=found.cpu_shares,
                cpu_quota=found.cpu_quota,
                cpu_period=found.cpu_period,
                memory_limit=found.memory,
            )
            record.spec = msgspec.structs.replace(record.spec, resources=given)

    def _take_sandboxes(self, found: Sequence[Sandbox], held: set[str]) -> None:
        """``held``: those that were known before the question; what was made since may be missing in the answer."""
        now = {one.id for one in found}
        before = {uid: self._ready(uid) for uid in self.sandboxes}
        known = {one.id for all in self.sandboxes.values() for one in all}
        for sandbox in found:
            if sandbox.id in known or sandbox.id not in held:  # else it was removed since the question
                self.add_sandbox(sandbox)
        for cid in held - now:
            self._drop_sandbox(cid)
        for uid, ready in before.items():
            if ready and not self._ready(uid):
                self._lost(uid)

    def _ready(self, uid: str) -> bool:
        newest = self.newest(uid)
        return newest is not None and newest.ready

    def _drop_sandbox(self, sandbox_id: str) -> None:
        for uid, found in list(self.sandboxes.items()):
            found[:] = [one for one in found if one.id != sandbox_id]
            if not found:
                del self.sandboxes[uid]

    def _gone(self, cid: str) -> None:
        record = self._records.get(cid)
        if record is None:
            return
        if record.state.exit is None:
            log.warning("a container is gone from the runtime", extra={"container": cid})
            record.state.phase, record.state.exit = Phase.EXITED, records.lost(time.time())
            self._told(cid, record.state.exit)
        self._forget(cid)

    def _told(self, cid: str, info: ExitInfo) -> None:
        if cid in self._ended:
            self._ended[cid].set()
        failpoint("exit.seen")
        self.on_exit(cid, info)

    def _forget(self, cid: str) -> None:
        self._records.pop(cid, None)
        self._unsure.discard(cid)
        if (event := self._ended.pop(cid, None)) is not None:
            event.set()

    def _inside(self, sandbox: Sandbox) -> Sequence[str]:
        return [cid for cid, record in self._records.items() if record.sandbox == sandbox.id]

    def _record(self, cid: str) -> RemoteRecord:
        record = self._records.get(cid)
        if record is None:
            raise ContainerNotFound(f"there is no container {cid}")
        return record
