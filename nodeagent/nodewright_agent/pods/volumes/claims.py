"""From a Pod's claim to the storage behind it: upstream's checks, in upstream's words.

A node may only get claims and volumes, not watch them, so what is not bound yet has to be asked for again.
What was found is kept beside the Pod's volumes: a Pod that has its storage keeps it, whatever becomes of the claim.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from nodewright.kube.api.storage import BLOCK, FILESYSTEM, PersistentVolume, PersistentVolumeClaim
from nodewright.kube.api.volumes import Volume
from nodewright.kube.client import Client
from nodewright.kube.errors import ApiError
from nodewright.kube.objects import Pod
from nodewright.kube.resources import PERSISTENTVOLUMECLAIMS, PERSISTENTVOLUMES
from nodewright_agent.pods.volumes.errors import ClaimError
from nodewright_agent.pods.volumes.paths import PodPaths

READ_WRITE_ONCE_POD = "ReadWriteOncePod"
_DIRECTORY = "persistent-volume-claim"


class Claimed(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a Pod's claim has led to; ``read_only``: the Pod wants it so."""

    volume: PersistentVolume
    read_only: bool = False

    @property
    def name(self) -> str:
        """The PersistentVolume's name."""
        return self.volume.metadata.name

    @property
    def block(self) -> bool:
        """A device, not a file system."""
        return self.volume.spec.volume_mode == BLOCK

    @property
    def exclusive(self) -> bool:
        """For one Pod at a time."""
        return READ_WRITE_ONCE_POD in self.volume.spec.access_modes


def claim_of(volume: Volume, pod: Pod) -> tuple[str, bool]:
    """Return the name of a volume's claim, and whether it is read-only; a generic ephemeral one has the Pod's name."""
    if volume.persistent_volume_claim is not None:
        return volume.persistent_volume_claim.claim_name, volume.persistent_volume_claim.read_only
    return f"{pod.metadata.name}-{volume.name}", False


def modes(volume: Volume, pod: Pod) -> tuple[bool, bool]:
    """Whether containers mount the volume, and whether they take it as a device."""
    containers = (*pod.spec.init_containers, *pod.spec.containers, *pod.spec.ephemeral_containers)
    mounted = any(mount.name == volume.name for one in containers for mount in one.volume_mounts)
    return mounted, any(device.name == volume.name for one in containers for device in one.volume_devices)


async def resolve(volume: Volume, pod: Pod, client: Client) -> Claimed:
    """Ask the API for a volume's claim and for what it is bound to. Raises ClaimError."""
    name, read_only = claim_of(volume, pod)
    key = f"{pod.metadata.namespace}/{name}"
    try:
        claim = await _claim(client, pod.metadata.namespace, name)
        if volume.ephemeral is not None:
            _check_owner(pod, claim)
        return Claimed(await _bound(client, claim), read_only)
    except ClaimError as error:
        raise ClaimError(f"error processing PVC {key}: {error}") from None


def check_mode(volume: Volume, pod: Pod, claimed: Claimed) -> None:
    """Refuse a device that is mounted, and a file system that is wanted as a device. Pure; raises ClaimError."""
    mounted, device = modes(volume, pod)
    mode = claimed.volume.spec.volume_mode or FILESYSTEM
    if mounted and mode != FILESYSTEM:
        raise ClaimError(f"volume {volume.name} has volumeMode {mode}, but is specified in volumeMounts")
    if device and mode != BLOCK:
        raise ClaimError(f"volume {volume.name} has volumeMode {mode}, but is specified in volumeDevices")


def remembered(paths: PodPaths, name: str) -> Claimed | None:
    """What an earlier set-up has found and finished; None when there was none, or its record is of no use."""
    try:
        return msgspec.json.decode(_record(paths, name).read_bytes(), type=Claimed)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def remember(paths: PodPaths, name: str, claimed: Claimed) -> None:
    """Note that the volume is set up. It goes with the Pod's volumes."""
    path = _record(paths, name)
    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    temporary = path.with_name(f".{name}")
    temporary.write_bytes(msgspec.json.encode(claimed))
    os.replace(temporary, path)


def _record(paths: PodPaths, name: str) -> Path:
    return paths.volume(_DIRECTORY, name)


async def _claim(client: Client, namespace: str, name: str) -> PersistentVolumeClaim:
    try:
        claim = await client.get(PERSISTENTVOLUMECLAIMS, name, namespace, type=PersistentVolumeClaim)
    except ApiError as error:
        raise ClaimError(f"failed to fetch PVC from API server: {error}") from None
    if claim.metadata.deletion_timestamp is not None:
        raise ClaimError("PVC is being deleted")
    if claim.status.phase != "Bound":
        raise ClaimError("PVC is not bound")
    if not claim.spec.volume_name:
        raise ClaimError("PVC has empty pvc.Spec.VolumeName")
    return claim


async def _bound(client: Client, claim: PersistentVolumeClaim) -> PersistentVolume:
    name = claim.spec.volume_name
    try:
        volume = await client.get(PERSISTENTVOLUMES, name, type=PersistentVolume)
    except ApiError as error:
        raise ClaimError(f"failed to fetch PV {name} from API server: {error}") from None
    reference = volume.spec.claim_ref
    if reference is None:
        raise ClaimError(
            f"found PV object {name} but it has a nil pv.Spec.ClaimRef indicating it is not yet bound to the claim"
        )
    if reference.uid != claim.metadata.uid:
        raise ClaimError(
            f"found PV object {name} but its pv.Spec.ClaimRef.UID {reference.uid} "
            f"does not point to claim.UID {claim.metadata.uid}"
        )
    return volume


def _check_owner(pod: Pod, claim: PersistentVolumeClaim) -> None:
    if not any(owner.controller and owner.uid == pod.metadata.uid for owner in claim.metadata.owner_references):
        meta = claim.metadata
        raise ClaimError(
            f"PVC {meta.namespace}/{meta.name} was not created for pod {pod.metadata.namespace}/{pod.metadata.name} "
            "(pod is not owner)"
        )
