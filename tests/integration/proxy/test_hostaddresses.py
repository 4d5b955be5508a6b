"""The host's own addresses, read from a real kernel."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator

import pytest

from nodewright_agent.proxy.hostaddresses import IPVS_LINK, HostAddresses
from support.network import own_namespace

pytestmark = pytest.mark.needs_root


@pytest.fixture
def addresses() -> Iterator[HostAddresses]:
    with own_namespace():
        made = HostAddresses()
        try:
            yield made
        finally:
            made.close()


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def test_addresses_of_services_are_not_the_hosts(addresses: HostAddresses) -> None:
    ip("link", "add", IPVS_LINK, "type", "veth", "peer", "name", "eth0")  # its kind does not matter
    ip("addr", "add", "10.96.0.1/32", "dev", IPVS_LINK)
    ip("addr", "add", "10.1.0.5/24", "dev", "eth0")
    ip("addr", "add", "fd00::5/64", "dev", "eth0", "nodad")
    assert addresses.read() == {"127.0.0.1", "::1", "10.1.0.5", "fd00::5"}


async def test_changes_are_told_once(addresses: HostAddresses) -> None:
    told: asyncio.Queue[frozenset[str]] = asyncio.Queue()
    task = asyncio.create_task(addresses.changes(told.put_nowait))
    try:
        assert "10.1.0.5" not in await asyncio.wait_for(told.get(), 5)
        ip("addr", "add", "10.1.0.5/32", "dev", "lo")
        assert "10.1.0.5" in await asyncio.wait_for(told.get(), 5)
        ip("addr", "del", "10.1.0.5/32", "dev", "lo")
        assert "10.1.0.5" not in await asyncio.wait_for(told.get(), 5)
        await asyncio.sleep(0.3)
        assert told.empty()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
