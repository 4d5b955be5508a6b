"""Making a decision about volumes real: write it down, then wait for the controllers that carry it out."""

from __future__ import annotations

import asyncio

import numpy as np

from nodewright.kube.client import Client
from nodewright.kube.resources import PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES

from ..plugin import Refusal
from ..pods import PodInfo
from ..state import ClusterState, NodeView
from ..state.storage import Reservation, StorageState
from ..storage_objects import BOUND_BY_CONTROLLER, SELECTED_NODE, Claim, PersistentVolume
from .volume_matching import reachable

Things = set[tuple[str, str]]


class BindError(Refusal):
    """The volumes of a Pod cannot be bound as decided: the Pod has to be decided anew."""


async def bind_volumes(pod: PodInfo, node: str, state: ClusterState, client: Client, timeout: float) -> None:
    """Write what was reserved for the Pod, and wait until its claims are bound, for up to `timeout` seconds.

    Raises BindError where that has become impossible or takes too long, ApiError where a write is refused. What was
    written stays: there is no way back in the API, and the next attempt starts from there.
    """
    try:
        await _bind(pod, node, state, client, timeout)
    except asyncio.CancelledError:
        # Somebody else has bound the Pod: what was held for it is nobody's to give back any more.
        state.storage.release(pod.uid)
        raise


async def _bind(pod: PodInfo, node: str, state: ClusterState, client: Client, timeout: float) -> None:
    storage = state.storage
    reservation = storage.reservations[pod.uid]
    versions: dict[tuple[str, str], int] = {}
    # Upstream's order: all volumes, then all claims.
    for key, name in reservation.bindings.items():
        versions["volume", name] = await _write_volume(storage, client, key, name)
    for key in reservation.provisions:
        versions["claim", key] = await _write_claim(storage, client, key, node)
    try:
        async with asyncio.timeout(timeout):
            while things := _missing(pod, reservation, state, versions):
                await storage.waiters.wait(things)
    except TimeoutError as error:
        raise BindError("binding volumes: context deadline exceeded") from error
    # All of it is in the API now, and known here.
    storage.release(pod.uid)


async def _write_volume(storage: StorageState, client: Client, key: str, name: str) -> int:
    """Point the volume at the claim. Gives the resourceVersion in which it does."""
    claim, volume = _get(storage, key), storage.volumes.get(name)
    if volume is None:
        raise BindError(f'binding volumes: persistentvolume "{name}" not found')
    meta = claim.metadata
    held = volume.spec.claim_ref
    if held is not None and held.uid == meta.uid:
        return int(volume.metadata.resource_version)
    patch: dict[str, object] = {
        "metadata": {"resourceVersion": volume.metadata.resource_version, "annotations": {BOUND_BY_CONTROLLER: "yes"}},
        "spec": {
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": meta.namespace,
                "name": meta.name,
                "uid": meta.uid,
                "resourceVersion": meta.resource_version,
            }
        },
    }
    if held is not None and held.is_for(claim):
        # Set aside by a user, who keeps the say over it: the volume controller must not undo that.
        patch["metadata"] = {"resourceVersion": volume.metadata.resource_version}
    written = await client.patch(PERSISTENTVOLUMES, name, patch, type=PersistentVolume)
    return int(written.metadata.resource_version)


async def _write_claim(storage: StorageState, client: Client, key: str, node: str) -> int:
    """Ask for a volume for this node. Gives the resourceVersion in which the claim does."""
    claim = _get(storage, key)
    meta = claim.metadata
    if meta.annotations.selected_node == node:
        return int(meta.resource_version)
    patch = {"metadata": {"resourceVersion": meta.resource_version, "annotations": {SELECTED_NODE: node}}}
    written = await client.patch(PERSISTENTVOLUMECLAIMS, meta.name, patch, meta.namespace, type=Claim)
    return int(written.metadata.resource_version)


def _get(storage: StorageState, key: str) -> Claim:
    claim = storage.claims.get(key)
    if claim is None:
        raise BindError(f'binding volumes: persistentvolumeclaim "{key.partition("/")[2]}" not found')
    return claim


def _missing(
    pod: PodInfo, reservation: Reservation, state: ClusterState, versions: dict[tuple[str, str], int]
) -> Things:
    """What has to change before all claims are bound; nothing when they are. Raises BindError where they will not be.

    What is older than our own write says nothing yet.
    """
    storage, node = state.storage, reservation.node
    row = state.rows.get(node)
    if row is None or state.nodes[row] is None:
        raise BindError(f'binding volumes: failed to get node "{node}": node "{node}" not found')
    if state.node_of(pod.uid) != node:
        raise BindError(f'binding volumes: pod does not exist any more: pod "{pod.pod.metadata.name}" not found')
    waiting: Things = set()
    for key, name in reservation.bindings.items():
        claim, volume = _get(storage, key), storage.volumes.get(name)
        if volume is None:
            raise BindError(f'binding volumes: failed to check binding: persistentvolume "{name}" not found')
        if int(volume.metadata.resource_version) < versions["volume", name]:
            waiting.add(("volume", name))
            continue
        _check_reach(state, volume, row)
        if volume.spec.claim_ref is None or not volume.spec.claim_ref.uid:
            raise BindError(f'binding volumes: ClaimRef got reset for pv "{name}"')
        if not claim.is_bound:
            waiting |= {("claim", key), ("volume", name)}
    for key in reservation.provisions:
        claim = _get(storage, key)
        if int(claim.metadata.resource_version) < versions["claim", key]:
            waiting.add(("claim", key))
            continue
        if claim.metadata.annotations.selected_node != node:
            # Taken away by the provisioner, which cannot make a volume for that node.
            raise BindError(f'binding volumes: provisioning failed for PVC "{claim.metadata.name}"')
        name = claim.spec.volume_name
        volume = storage.volumes.get(name) if name else None
        if volume is not None:
            _check_reach(state, volume, row)
        if volume is None or not claim.is_bound:
            waiting |= {("claim", key), ("volume", name)}
    return waiting | {("pod", pod.uid), ("node", node)} if waiting else waiting


def _check_reach(state: ClusterState, volume: PersistentVolume, row: int) -> None:
    reached = reachable(NodeView(state, np.array([row], dtype=np.intp)), volume)
    if reached is not None and not reached[0]:
        raise BindError(
            f'binding volumes: pv "{volume.key}" node affinity doesn\'t match node "{state.names[row]}": '
            "no matching NodeSelectorTerms"
        )
