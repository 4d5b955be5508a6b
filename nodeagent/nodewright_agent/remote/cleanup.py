"""The end of a node whose containers another runtime runs: its sandboxes there, with all that is in them."""

from __future__ import annotations

import asyncio

from nodewright_agent.remote import labels
from nodewright_agent.remote.client import LONG, CallFailed, Client
from nodewright_agent.runtime.errors import RuntimeUnavailable


def remove_all(endpoint: str, node_name: str) -> list[str]:
    """End and remove the node's sandboxes; what was removed. Idempotent. Blocks. Raises RuntimeUnavailable."""
    try:
        removed = asyncio.run(_remove_all(endpoint, node_name))
    except CallFailed as error:
        raise RuntimeUnavailable(f"the container runtime at {endpoint}: {error}") from error
    return [f"{removed} sandboxes"] if removed else []


async def _remove_all(endpoint: str, node_name: str) -> int:
    client = Client(endpoint)
    try:
        answer = await client.runtime("ListPodSandbox", filter={"label_selector": {labels.NODE: node_name}})
        for one in answer.items:
            await client.runtime("StopPodSandbox", deadline=LONG, pod_sandbox_id=one.id)
            await client.runtime("RemovePodSandbox", deadline=LONG, pod_sandbox_id=one.id)
    finally:
        await client.close()
    return len(answer.items)
