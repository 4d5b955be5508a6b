"""A CRI server for all tests here, with the demo image in its store, and the proof that each test leaves nothing."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodewright.controlplane.assets import Assets
from nodewright_agent.runtime.images import demo
from nodewright_agent.runtime.images.store import ImageStore
from support.cri_server import CriServer, environment


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CriServer]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    environment()
    work = tmp_path_factory.mktemp("cri")
    crictl = Assets().obtain(["crictl"])["crictl"]
    demo.write(work / "demo.tar")
    asyncio.run(_load(work / "images", work / "demo.tar"))
    server = CriServer(work, crictl)
    try:
        server.start()
        yield server
    finally:
        server.purge()


async def _load(root: Path, archive: Path) -> None:
    store = ImageStore(root)
    try:
        await store.load(archive)
    finally:
        await store.close()


@pytest.fixture
def cri(server: CriServer) -> Iterator[CriServer]:
    """The server; afterwards all sandboxes are removed, and nothing of them may be left."""
    yield server
    for sandbox in server.json("pods", "-o", "json")["items"]:
        server.call("RemovePodSandbox", pod_sandbox_id=sandbox["id"])
    assert server.leftovers() == {}
