"""Applying the objects that every cluster has: our roles, CustomResourceDefinitions and admission policies."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

from nodewright.controlplane import manifests
from nodewright.controlplane.errors import ControlPlaneError, StartTimeout
from nodewright.kube import config as kubeconfigs
from nodewright.kube.client import Client
from nodewright.kube.errors import ApiError, NotFound
from nodewright.kube.resources import (
    CONFIGMAPS,
    CRDS,
    MUTATINGADMISSIONPOLICIES,
    MUTATINGADMISSIONPOLICYBINDINGS,
    Resource,
)

log = logging.getLogger(__name__)

FIELD_MANAGER = "nodewright-up"
_ESTABLISH_TIMEOUT = 30.0  # seconds
_POLL = 0.02  # seconds; a CRD is established a few milliseconds after it was written
_RBAC = "rbac.authorization.k8s.io"
_KINDS = {
    "CustomResourceDefinition": CRDS,
    "ClusterRole": Resource(_RBAC, "v1", "clusterroles", "ClusterRole", False),
    "ClusterRoleBinding": Resource(_RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding", False),
    "Role": Resource(_RBAC, "v1", "roles", "Role", True),
    "RoleBinding": Resource(_RBAC, "v1", "rolebindings", "RoleBinding", True),
    "ConfigMap": CONFIGMAPS,
    "MutatingAdmissionPolicy": MUTATINGADMISSIONPOLICIES,
    "MutatingAdmissionPolicyBinding": MUTATINGADMISSIONPOLICYBINDINGS,
}
# What kube-apiserver has since 1.36.
_NEWER = (MUTATINGADMISSIONPOLICIES, MUTATINGADMISSIONPOLICYBINDINGS)


def apply_all(kubeconfig: Path) -> int:
    """Server-side apply of everything in `manifests`, and wait until the CRDs are served; how many objects."""
    return asyncio.run(_apply_all(kubeconfig))


async def _apply_all(kubeconfig: Path) -> int:
    objects = [*manifests.crds(), *manifests.rbac(), *manifests.node_readiness()]
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
    try:
        made: dict[str, Any] = await client.apply(resource, wanted, field_manager=FIELD_MANAGER)
    except NotFound:
        if resource not in _NEWER:
            raise
        log.info("this kube-apiserver has no %s: new Nodes get no startup taints", resource.plural)
        return
    while resource is CRDS and not _established(made):
        await asyncio.sleep(_POLL)
        made = await client.get(CRDS, made["metadata"]["name"])


def _established(crd: dict[str, Any]) -> bool:
    conditions = (crd.get("status") or {}).get("conditions") or []
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)
