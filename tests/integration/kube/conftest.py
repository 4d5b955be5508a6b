"""A client as the cluster's administrator."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from nodewright.kube.client import Client
from nodewright.kube.config import load


@pytest.fixture
async def client(cluster) -> AsyncIterator[Client]:
    async with Client(load(cluster.kubeconfig)) as made:
        yield made
