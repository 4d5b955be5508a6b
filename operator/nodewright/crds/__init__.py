"""The CustomResourceDefinitions as package data, and how to bring them to a cluster."""

from __future__ import annotations

import asyncio
from importlib.resources import files

from nodewright.kube.client import Client, PatchType
from nodewright.kube.resources import CRDS

NAMES = (
    "daemonsets.nodewright.dev",
    "nodeagentconfigs.nodewright.dev",
    "schedulerprofiles.nodewright.dev",
)
FIELD_MANAGER = "nodewright"


def manifest(name: str) -> bytes:
    """The YAML of one of NAMES."""
    return files(__name__).joinpath(f"{name}.yaml").read_bytes()


async def apply(client: Client, timeout: float = 30.0) -> None:
    """Create or update all definitions and wait until they are served.

    Raises ApiError, and TimeoutError when the API server does not establish one within `timeout` seconds.
    """
    for name in NAMES:
        await client.patch(CRDS, name, manifest(name), kind=PatchType.APPLY, field_manager=FIELD_MANAGER, force=True)
    async with asyncio.timeout(timeout):
        for name in NAMES:
            await _established(client, name)


async def _established(client: Client, name: str) -> None:
    while True:
        async for event in client.watch(CRDS, type=dict, field_selector=f"metadata.name={name}"):
            conditions = (event.object.get("status") or {}).get("conditions") or []
            if any(c["type"] == "Established" and c["status"] == "True" for c in conditions):
                return
