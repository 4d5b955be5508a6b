"""One cluster with two node hosts, started from the command line as a user would, for the whole session.

All of it lives in a network namespace that the session makes for itself.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import host_state
from support.cluster import Cluster
from support.network import own_namespace

NAME = "e2e"


@pytest.fixture(scope="session")
def network() -> Iterator[None]:
    """Move the session into its own network namespace."""
    if os.geteuid() != 0:
        pytest.fail("the end-to-end tests make namespaces and containers: run them as root")
    with own_namespace():
        yield


@pytest.fixture(scope="session")
def state_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the cluster keeps its state."""
    return tmp_path_factory.mktemp("nw")


@pytest.fixture(scope="session")
def marks(state_dir: Path) -> tuple[str, ...]:
    """What stands in the command line of every process of the cluster."""
    return (str(state_dir), f"/run/nodewright/{NAME}")


@pytest.fixture(scope="session")
def before(network: None, marks: tuple[str, ...]) -> dict[str, list[str]]:
    """The machine before the cluster was there."""
    return host_state.snapshot(marks)


@pytest.fixture(scope="session")
def cluster(before: dict[str, list[str]], state_dir: Path) -> Iterator[Cluster]:
    """A running cluster with two node hosts Ready and the demo image in their store."""
    made = Cluster(NAME, state_dir)
    try:
        made.run("up", "--name", made.name, "--nodes", "2", "--wait", timeout=600)
        image = state_dir / "demo.tar"
        made.run("image", "demo", str(image))
        made.run("image", "load", "--name", made.name, str(image))
        yield made
    finally:
        kept = os.environ.get("NODEWRIGHT_E2E_LOGS")
        if kept and made.logs_dir().exists():
            shutil.copytree(made.logs_dir(), kept, dirs_exist_ok=True)
        made.run("down", "--name", made.name, "--purge", check=False)


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace with its default ServiceAccount, deleted afterwards."""
    name = "t-" + request.node.name.split("[")[0].removeprefix("test_").replace("_", "-")[:50].strip("-")
    cluster.kubectl("create", "namespace", name)
    cluster.wait(
        "default ServiceAccount",
        lambda: cluster.kubectl("get", "serviceaccount", "default", "-n", name, "--ignore-not-found"),
    )
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false", check=False)
