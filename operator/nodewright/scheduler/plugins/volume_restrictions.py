"""VolumeRestrictions: disks that one node may hold once, and claims that one Pod may use."""

from __future__ import annotations

import numpy as np

from ..events import Event
from ..plugin import Context, FilterResult, Plugin, Reason, Rejected, Scope
from ..pods import PodInfo, PodPart
from ..state import ClusterState
from ..state.storage import StorageState, claim_keys, disks_conflict
from ..storage_objects import READ_WRITE_ONCE_POD
from .volume_claims import has_claims, not_found
from .volume_details import in_use

REASON_DISK = "node(s) had no available disk"
REASON_CLAIM = (
    "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod"
)


class VolumeRestrictions(Plugin):
    """Rejects nodes that hold a disk of the Pod already, and all while another Pod uses its ReadWriteOncePod claim.

    Disks are GCE, EBS, iSCSI and Ceph volumes named in Pods; all but EBS may be there twice if everybody only reads.
    """

    name = "VolumeRestrictions"
    scope = Scope.NODE_PODS
    reads = PodPart.SPEC
    events = Event.POD_DELETE | Event.NODE_ADD | Event.CLAIM

    def shares(self, pod: PodInfo) -> bool:
        """Who uses a claim is another question for every Pod."""
        return not has_claims(pod)

    def wakes(self, waiting: PodInfo, kind: Event, other: PodInfo, state: ClusterState) -> bool:
        """Only a Pod that used a disk or a claim of the waiting one was in its way."""
        if not set(claim_keys(waiting)).isdisjoint(claim_keys(other)):
            return True
        return any(disks_conflict(mine, theirs) for mine in waiting.spec.volumes for theirs in other.spec.volumes)

    def prepare(self, ctx: Context) -> Rejected | None:
        """Claims must exist: their access modes count."""
        storage = ctx.nodes.state.storage
        for volume in ctx.pod.spec.volumes:
            if volume.persistent_volume_claim is not None:
                name = volume.persistent_volume_claim.claim_name
                if f"{ctx.pod.pod.metadata.namespace}/{name}" not in storage.claims:
                    return Rejected(not_found(name))
        return None

    def filter(self, ctx: Context) -> FilterResult | None:
        """None for Pods whose claims are free and whose disks are nowhere in use."""
        if not ctx.pod.spec.volumes:
            return None
        storage = ctx.nodes.state.storage
        taken = {row for volume in ctx.pod.spec.volumes for row in storage.usage.conflicting_rows(volume)}
        in_use = _claim_in_use(storage, ctx.pod)
        if not taken and not in_use:
            return None
        disks_free = ~ctx.nodes.mask_of_rows(taken)
        if not in_use:
            return FilterResult(disks_free, REASON_DISK)
        reasons = (Reason(REASON_DISK, ~disks_free), Reason(REASON_CLAIM, disks_free))
        return FilterResult(np.zeros(len(ctx.nodes), dtype=np.bool_), reasons)

    def detail(self, ctx: Context, position: int) -> list[str]:
        """Who uses which disk or claim."""
        return list(in_use(ctx, position))


def _claim_in_use(storage: StorageState, pod: PodInfo) -> bool:
    for volume in pod.spec.volumes:
        if volume.persistent_volume_claim is None:
            continue
        key = f"{pod.pod.metadata.namespace}/{volume.persistent_volume_claim.claim_name}"
        claim = storage.claims.get(key)
        if (
            claim is not None
            and READ_WRITE_ONCE_POD in claim.spec.access_modes
            and storage.usage.is_used_by_others(key, pod.uid)
        ):
            return True
    return False
