"""These tests use the cluster through the command line only."""

from collections.abc import Iterator

import pytest

from support.cluster import Cluster


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
