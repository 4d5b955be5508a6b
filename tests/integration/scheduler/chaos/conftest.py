"""Faults between schedulers and a real API server: a proxy that fails by rules, and processes to be killed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from nodewright.controlplane.cluster import LocalCluster
from nodewright.kube.resources import LEASES
from support.fault_proxy import FaultProxy
from support.scheduler_chaos import Spawned, Verdict

from ..conftest import Space

# Short enough for a test; the renewals still fit in when the machine is busy.
SHORT_LEASE = (
    "--leader-elect-lease-duration=5s",
    "--leader-elect-renew-deadline=3s",
    "--leader-elect-retry-period=500ms",
)


@pytest.fixture
async def proxy(lab: LocalCluster, tmp_path: Path) -> AsyncIterator[FaultProxy]:
    one = FaultProxy(lab, tmp_path / "proxy")
    await one.start()
    yield one
    await one.stop()


@pytest.fixture
def spawn(lab: LocalCluster, tmp_path: Path) -> Iterator[Callable[..., Spawned]]:
    """Starts scheduler processes; through a proxy, or straight (and then without a Lease unless told otherwise)."""
    started: list[Spawned] = []

    def start(*arguments: str, proxy: FaultProxy | None = None, name: str = "one") -> Spawned:
        kubeconfig = proxy.kubeconfig(name) if proxy else lab.layout.kubeconfig("scheduler")
        process = Spawned(name, kubeconfig, tmp_path, *(arguments or ("--no-leader-elect",)))
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()


@pytest.fixture
async def fresh_lease(space: Space) -> AsyncIterator[None]:
    """Nobody leads at the start, nor at the end."""

    async def remove() -> None:
        for lease in (await space.client.list(LEASES, "kube-system")).items:
            if lease["metadata"]["name"] == "nodewright-scheduler":
                await space.client.delete(LEASES, "nodewright-scheduler", "kube-system")

    await remove()
    yield
    await remove()


@pytest.fixture
def verdict(space: Space, lab: LocalCluster) -> Callable[[], object]:
    return lambda: Verdict.of(space.client, lab, space.namespace)
