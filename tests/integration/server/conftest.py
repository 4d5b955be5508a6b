"""A control plane and one node agent in a network namespace of their own, and Pods to be connected to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nodewright.controlplane.assets import Assets
from support import lab_cluster as labs
from support.agent_node import IMAGE, load_demo_image
from support.kubectl_sessions import Kubectl
from support.pod_lab import STAY, PodLab

LISTEN = "trap 'exit 0' TERM; nc -ll -p {port} -e cat & wait $!"


@pytest.fixture(scope="module")
def stream_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PodLab]:
    """Pod ``p``: containers ``main``, ``user`` (somebody with an environment) and ``net``; Pod ``host`` on the host's
    network. What listens gives back what it gets."""
    directory = tmp_path_factory.mktemp("n")
    load_demo_image(directory / "store", directory / "demo.tar")
    with (
        labs.lab_cluster(tmp_path_factory.mktemp("c"), "streams") as cluster,
        labs.agents(cluster, lambda: directory, image_root=str(directory / "store")) as make,
    ):
        node = make()
        node.start()
        with PodLab(cluster, node) as lab:
            lab.wait_ready()
            _make_pods(lab)
            yield lab


@pytest.fixture(scope="module")
def kubectl_binary() -> Path:
    return Assets().obtain(["kubectl"])["kubectl"]


@pytest.fixture(params=["websocket", "spdy"])
def sessions(stream_lab: PodLab, kubectl_binary: Path, request: pytest.FixtureRequest) -> Kubectl:
    """kubectl, over either protocol."""
    return Kubectl(kubectl_binary, stream_lab, websockets=request.param == "websocket")


def _make_pods(lab: PodLab) -> None:
    user = {
        "securityContext": {"runAsUser": 1234, "runAsGroup": 55, "capabilities": {"drop": ["ALL"]}},
        "workingDir": "/tmp",
        "env": [{"name": "GREETING", "value": "hello"}],
    }
    containers = [
        {"name": "main", "image": IMAGE, "command": STAY},
        {"name": "user", "image": IMAGE, "command": STAY, **user},
        {"name": "net", "image": IMAGE, "command": ["sh", "-c", LISTEN.format(port=7000)]},
    ]
    lab.create("p", containers=containers)
    lab.create("host", ["sh", "-c", LISTEN.format(port=7999)], hostNetwork=True)
    for name in ("p", "host"):
        lab.wait_phase(name, "Running")
