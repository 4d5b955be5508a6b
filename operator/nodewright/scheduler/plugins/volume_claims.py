"""A Pod's claims: found, checked, and sorted into bound ones and those that wait for a node."""

from __future__ import annotations

import msgspec

from ..objects import Volume
from ..pods import PodInfo
from ..state.storage import StorageState, claim_name
from ..storage_objects import WAIT_FOR_FIRST_CONSUMER, Claim

UNBOUND_IMMEDIATE = "pod has unbound immediate PersistentVolumeClaims"


class ClaimError(Exception):
    """The Pod cannot be placed as its claims are now; `str()` is the reason in upstream's words."""


class PodClaims(msgspec.Struct):
    """The claims of a Pod, each once, in the order of the Pod's volumes."""

    # With a volume.
    bound: list[Claim] = []
    # Without, where the class waits for the Pod's node.
    delayed: list[Claim] = []


def has_claims(pod: PodInfo) -> bool:
    """Whether the Pod names a claim, or has a volume for which one is made."""
    return any(v.persistent_volume_claim is not None or v.ephemeral is not None for v in pod.spec.volumes)


def not_found(name: str) -> str:
    """What is said of a claim that does not exist."""
    return f'persistentvolumeclaim "{name}" not found'


def find_claim(storage: StorageState, pod: PodInfo, volume: Volume) -> Claim | None:
    """The claim behind a volume; None for volumes without one. Raises ClaimError where it cannot be used."""
    name = claim_name(pod, volume)
    if name is None:
        return None
    meta = pod.pod.metadata
    claim = storage.claims.get(f"{meta.namespace}/{name}")
    if claim is None:
        if volume.ephemeral is not None:
            raise ClaimError(f'waiting for ephemeral volume controller to create the persistentvolumeclaim "{name}"')
        raise ClaimError(not_found(name))
    if claim.status.phase == "Lost":
        volume_name = claim.spec.volume_name
        raise ClaimError(f'persistentvolumeclaim "{name}" bound to non-existent persistentvolume "{volume_name}"')
    if claim.metadata.deletion_timestamp is not None:
        raise ClaimError(f'persistentvolumeclaim "{name}" is being deleted')
    if volume.ephemeral is not None and not is_made_for(claim, pod):
        namespace = meta.namespace
        raise ClaimError(f"PVC {namespace}/{name} was not created for pod {namespace}/{meta.name} (pod is not owner)")
    return claim


def is_made_for(claim: Claim, pod: PodInfo) -> bool:
    """Whether an ephemeral claim is this Pod's, and not that of an earlier Pod or a user with the same name."""
    return any(owner.controller and owner.uid == pod.uid for owner in claim.metadata.owner_references)


def pod_claims(storage: StorageState, pod: PodInfo) -> PodClaims:
    """The Pod's claims by what has to be done for them. Raises ClaimError where one cannot be used."""
    found: dict[str, Claim] = {}
    for volume in pod.spec.volumes:
        claim = find_claim(storage, pod, volume)
        if claim is not None:
            found[claim.key] = claim
    claims, unbound = PodClaims(bound=[], delayed=[]), False
    for claim in found.values():
        if claim.is_bound:
            claims.bound.append(claim)
        elif waits_for_node(storage, claim) and not claim.spec.volume_name:
            claims.delayed.append(claim)
        else:
            # A claim with the name of a volume in it is for the volume controller to bind.
            unbound = True
    if unbound:
        raise ClaimError(UNBOUND_IMMEDIATE)
    return claims


def waits_for_node(storage: StorageState, claim: Claim) -> bool:
    """Whether the claim's class binds only once a Pod has a node. Raises ValueError where the class does not say."""
    storage_class = storage.classes.get(claim.class_name) if claim.class_name else None
    if storage_class is None:
        return False
    if storage_class.volume_binding_mode is None:
        raise ValueError(f'VolumeBindingMode not set for StorageClass "{storage_class.key}"')
    return storage_class.volume_binding_mode == WAIT_FOR_FIRST_CONSUMER
