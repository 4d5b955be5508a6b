"""Fixtures: a network namespace for the test, node hosts on a bridge, and sandboxes with nothing but a namespace."""

import os
import subprocess
import uuid
from pathlib import Path

import pytest

from nodewright_agent.network import hosts
from support.network import own_namespace


@pytest.fixture
def own_network():
    """Run the test (and every thread that it starts) in a network namespace of its own."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    with own_namespace():
        yield


@pytest.fixture
def make_netns():
    """Make named namespaces and delete them afterwards."""
    made: list[str] = []

    def make() -> Path:
        name = f"nwt-{uuid.uuid4().hex[:8]}"
        subprocess.run(["ip", "netns", "add", name], check=True)
        made.append(name)
        return hosts.NETNS_DIR / name

    yield make
    for name in made:
        subprocess.run(["ip", "netns", "delete", name], check=False)


@pytest.fixture
def node_hosts(own_network):
    """Make node hosts on the bridge ``nwbt`` (10.180.49.1/24) and remove all of it afterwards."""
    made: list[str] = []
    hosts.setup_bridge("nwbt", "10.180.49.1/24", nat=True)

    def make(number: int) -> str:
        netns = f"nwt-{uuid.uuid4().hex[:8]}"
        made.append(netns)
        hosts.create(f"node{number}", netns, "nwbt", f"10.180.49.{10 + number}/24", "10.180.49.1")
        return netns

    yield make
    for netns in made:
        hosts.destroy(netns)
    hosts.remove_bridge("nwbt")
