"""Applying the objects that every cluster has: our roles and our CustomResourceDefinitions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any, cast

from nodewright.controlplane import manifests
from nodewright.controlplane.errors import ControlPlaneError, StartTimeout
from nodewright.kube import config as kubeconfigs
from nodewright.kube.client import Client, WatchEvent
from nodewright.kube.errors import ApiError
from nodewright.kube.resources import CRDS, Resource

FIELD_MANAGER = "nodewright-up"
_ESTABLISH_TIMEOUT = 30.0  # seconds; it takes a few milliseconds per CRD
_RBAC = "rbac.authorization.k8s.io"
_KINDS = {
    "CustomResourceDefinition": CRDS,
    "ClusterRole": Resource(_RBAC, "v1", "clusterroles", "ClusterRole", False),
    "ClusterRoleBinding": Resource(_RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding", False),
    "Role": Resource(_RBAC, "v1", "roles", "Role", True),
    "RoleBinding": Resource(_RBAC, "v1", "rolebindings", "RoleBinding", True),
}


def apply_all(kubeconfig: Path) -> int:
    """Server-side apply of everything in `manifests`, and wait until the CRDs are served; how many objects."""
    return asyncio.run(_apply_all(kubeconfig))


async def _apply_all(kubeconfig: Path) -> int:
    objects = [*manifests.crds(), *manifests.rbac()]
    async with Client(kubeconfigs.load(kubeconfig)) as client:
        try:
            async with asyncio.timeout(_ESTABLISH_TIMEOUT), asyncio.TaskGroup() as tasks:
                for wanted in objects:
                    tasks.create_task(_apply(client, wanted))
        except* ApiError as errors:
            first = errors.exceptions[0]
            raise ControlPlaneError(f"the cluster's own objects could not be applied: {first}") from first
        except* TimeoutError as errors:
            raise StartTimeout("the CustomResourceDefinitions were not served in time") from errors
    return len(objects)


async def _apply(client: Client, wanted: dict[str, Any]) -> None:
    """Apply one object; a CRD is waited for, since writing its kind before it is served fails."""
    resource = _KINDS[wanted["kind"]]
    made: dict[str, Any] = await client.apply(resource, wanted, field_manager=FIELD_MANAGER)
    if resource is not CRDS or _established(made):
        return
    name = made["metadata"]["name"]
    version = made["metadata"]["resourceVersion"]
    changes = client.watch(CRDS, field_selector=f"metadata.name={name}", resource_version=version)
    async with aclosing(cast("AsyncGenerator[WatchEvent[dict[str, Any]]]", changes)) as events:
        async for event in events:
            if _established(event.object):
                return


def _established(crd: dict[str, Any]) -> bool:
    conditions = (crd.get("status") or {}).get("conditions") or []
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)
