"""Objects that are there from the beginning and never change: namespaces, what selects Pods, and classes.

kube-scheduler does not log when it learns of these, so they are made before it starts. What varies is which Pods they
apply to.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from nodewright.kube.client import Client
from nodewright.kube.config import load
from nodewright.kube.resources import NAMESPACES, RUNTIMECLASSES, SERVICEACCOUNTS

NAMESPACE_LABELS: dict[str, dict[str, str]] = {
    "blue": {"team": "blue", "env": "prod"},
    "red": {"team": "red", "env": "prod"},
    "bare": {},
}

OVERHEAD = {"cpu": "150m", "memory": "70Mi"}


class Standing(msgspec.Struct):
    """The objects as the API has them."""

    namespaces: list[dict[str, Any]] = []


async def make(kubeconfig: Path) -> Standing:
    """Create all of them."""
    async with Client(load(kubeconfig), user_agent="differential") as client:
        return await _make(client)


async def _make(client: Client) -> Standing:
    made = Standing(namespaces=[])
    for name, labels in NAMESPACE_LABELS.items():
        made.namespaces.append(await client.create(NAMESPACES, {"metadata": {"name": name, "labels": labels}}))
        await client.create(SERVICEACCOUNTS, {"metadata": {"name": "default", "namespace": name}})
    await client.create(
        RUNTIMECLASSES, {"metadata": {"name": "heavy"}, "handler": "heavy", "overhead": {"podFixed": OVERHEAD}}
    )
    return made
