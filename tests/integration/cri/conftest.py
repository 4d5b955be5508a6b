"""A CRI server for all tests here, with the demo image in its store, and the proof that each test leaves nothing."""

import os
from collections.abc import Iterator

import pytest

from nodewright.controlplane.assets import Assets
from support.agent_node import load_demo_image
from support.cri_server import CriServer, environment


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CriServer]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    environment()
    work = tmp_path_factory.mktemp("cri")
    crictl = Assets().obtain(["crictl"])["crictl"]
    load_demo_image(work / "images", work / "demo.tar")
    server = CriServer(work, crictl)
    try:
        server.start()
        yield server
    finally:
        server.purge()


@pytest.fixture
def cri(server: CriServer) -> Iterator[CriServer]:
    """The server; afterwards all sandboxes are removed, and nothing of them may be left."""
    yield server
    for sandbox in server.json("pods", "-o", "json")["items"]:
        server.call("RemovePodSandbox", pod_sandbox_id=sandbox["id"])
    assert server.leftovers() == {}
