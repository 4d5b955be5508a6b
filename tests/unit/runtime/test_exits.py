"""Ends of containers whose monitor does not tell them."""

from __future__ import annotations

import asyncio
from typing import Any

from nodewright_agent.runtime import processes
from nodewright_agent.runtime.exits import MONITOR_LOST, ExitCollector
from nodewright_agent.runtime.spec import ContainerRecord, ContainerSpec, ContainerState, Phase
from nodewright_agent.runtime.store import Layout, Store


class Cgroups:
    """Everything in them is gone."""

    def kill(self, path: str) -> None:
        pass

    def pids(self, path: str) -> list[int]:
        return []

    def oom_kills(self, path: str) -> int:
        return 0


async def test_a_monitor_that_does_not_end_is_killed_and_the_end_is_reported(tmp_path):
    spec = ContainerSpec(
        id="c1", pod_uid="u", pod_name="p", pod_namespace="ns", name="main", lowers=["/"], argv=["x"], log_path="/l",
        cgroup_parent="/x",
    )  # fmt: skip
    store, cgroups = Store(Layout(tmp_path / "run", tmp_path / "state")), Cgroups()
    store.layout.record("c1").mkdir(parents=True)
    monitor = processes.spawn(["/bin/sleep", "1000"])
    record = ContainerRecord(spec=spec, state=ContainerState(phase=Phase.RUNNING, monitor_pid=monitor.pid))
    reports: list[Any] = []
    exits = ExitCollector(store, cgroups, {"c1": record}, lambda cid, info: reports.append((cid, info)))  # type: ignore[arg-type]
    waiting = asyncio.create_task(exits.wait("c1"))
    try:
        await exits.ended("c1", timeout=0.05)
        async with asyncio.timeout(10):
            info = await waiting
            code = await processes.wait(monitor)
    finally:
        monitor.kill()
        monitor.wait()
    assert (info.code, info.reason, code) == (137, MONITOR_LOST, -9)
    assert reports == [("c1", info)]
    await exits.close()
