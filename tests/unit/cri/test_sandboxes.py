"""Sandboxes that cannot be made, and what is told of them; and the network that they get."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest

from nodewright_agent.cri import network, wire
from nodewright_agent.cri.network import Network
from nodewright_agent.cri.podsandboxes import PodSandboxes
from nodewright_agent.cri.records import Records
from nodewright_agent.cri.runtimeservice import RuntimeService
from nodewright_agent.runtime.errors import SandboxError


async def done(*_: Any, **__: Any) -> None:
    """What is undone here is not there."""


async def refused(*_: Any, **__: Any) -> None:
    raise OSError("cannot be undone")


@pytest.fixture
def parts(tmp_path) -> Any:
    records = Records(tmp_path)
    records.load()
    cgroups = SimpleNamespace(exists=lambda path: True)
    return SimpleNamespace(
        records=records,
        locks=defaultdict(asyncio.Lock),
        settings=SimpleNamespace(program=lambda handler: ""),
        runtime=SimpleNamespace(cgroups=cgroups, cgroup_root="/x", delete=done, of_pod=lambda sid: []),
        network=SimpleNamespace(detach=done),
        sandboxes=SimpleNamespace(remove=done, get=lambda sid: None),
        volumes=SimpleNamespace(remove=lambda sid: None),
    )


CONFIG = wire.PodSandboxConfig(metadata=wire.PodSandboxMetadata(name="p", namespace="n", uid="u"))


def full(record: Any) -> None:
    raise OSError("no space left")


async def test_nothing_is_left_of_one_that_cannot_be_written_down(parts, monkeypatch):
    monkeypatch.setattr(parts.records, "keep", full)
    for _ in range(2):  # the name is not taken either
        with pytest.raises(SandboxError, match="no space left"):
            await PodSandboxes(parts).run(CONFIG, "")
    assert parts.records.sandboxes == parts.locks == {}


async def test_one_that_cannot_be_undone_is_listed_so_that_it_is_removed(parts, monkeypatch):
    sandboxes: Any = PodSandboxes(parts)
    service = RuntimeService(parts, sandboxes, SimpleNamespace(), SimpleNamespace())  # type: ignore[arg-type]
    request = wire.ListPodSandboxRequest()
    seen = []

    async def make(sandbox: Any) -> None:
        seen.append(await service.ListPodSandbox(request))
        raise OSError("no space left")

    monkeypatch.setattr(sandboxes, "_make", make)
    monkeypatch.setattr(parts.network, "detach", refused)
    with pytest.raises(SandboxError):
        await sandboxes.run(CONFIG, "")
    assert not seen[0].items  # it was being made
    (left,) = (await service.ListPodSandbox(request)).items
    assert (left.metadata.name, left.state) == ("p", wire.SANDBOX_NOTREADY)
    monkeypatch.setattr(parts.network, "detach", done)
    await service.RemovePodSandbox(wire.RemovePodSandboxRequest(pod_sandbox_id=left.id))
    assert not (await service.ListPodSandbox(request)).items


async def test_only_one_network_is_begun(tmp_path, monkeypatch):
    begun = []

    class PodNetwork:
        def __init__(self, config: Any) -> None:
            begun.append(self)

        async def start(self, pod_cidr: str) -> None:
            await asyncio.sleep(0.01)

        async def keep(self) -> None:
            pass

        def close(self) -> None:
            pass

    monkeypatch.setattr(network, "PodNetwork", PodNetwork)
    one = Network(tmp_path, "")
    await asyncio.gather(one.use("10.0.0.0/24"), one.use("10.0.1.0/24"))
    assert len(begun) == 1
    assert (tmp_path / "pod-cidr").read_text() == "10.0.0.0/24"
    await one.close()
