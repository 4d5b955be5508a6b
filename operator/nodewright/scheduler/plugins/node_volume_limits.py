"""NodeVolumeLimits: as many volumes of a CSI driver at a node as its CSINode allows."""

from __future__ import annotations

import numpy as np

from ..events import Event
from ..plugin import Context, FilterResult, Plugin, Scope
from ..pods import PodInfo, PodPart
from ..state import ClusterState
from ..state.arrays import IntArray
from ..state.storage import StorageState, claim_name
from .volume_claims import ClaimError, has_claims, is_made_for, not_found
from .volume_details import too_many

REASON = "node(s) exceed max volume count"


class NodeVolumeLimits(Plugin):
    """Rejects nodes where the Pod's volumes, with those in use or attached there, would be too many for a driver.

    A volume counts once per node, however many Pods use it. Claims without a volume count for their class's
    provisioner. In-tree volumes that were migrated to CSI drivers do not count.
    """

    name = "NodeVolumeLimits"
    scope = Scope.NODE_PODS
    reads = PodPart.SPEC
    events = Event.CSI_NODE | Event.POD_DELETE | Event.CLAIM | Event.ATTACHMENT_DELETE

    def shares(self, pod: PodInfo) -> bool:
        """Every Pod has claims of its own, or shares them in a way that counts."""
        return not has_claims(pod)

    def wakes(self, waiting: PodInfo, kind: Event, other: PodInfo, state: ClusterState) -> bool:
        """Only a Pod with claims had volumes attached."""
        return has_claims(other)

    def filter(self, ctx: Context) -> FilterResult | None:
        """None for Pods without volumes of a limited driver."""
        if not ctx.pod.spec.volumes or not has_claims(ctx.pod):
            return None
        state = ctx.nodes.state
        try:
            wanted = _wanted(state.storage, ctx.pod)
        except ClaimError as error:
            return FilterResult(np.zeros(len(ctx.nodes), dtype=np.bool_), str(error), unresolvable=True)
        if not wanted:
            return None
        attached = state.storage.attached
        attached.refresh(state)
        ok = np.ones(len(ctx.nodes), dtype=np.bool_)
        for driver, handles in wanted.items():
            column = attached.column(driver)
            if column is None:
                continue
            needed: IntArray = np.full(len(column.counts), len(handles), dtype=np.int64)
            for handle in handles:
                needed[list(attached.rows_with((driver, handle)))] -= 1
            ok &= ctx.nodes.take((needed == 0) | (column.counts + needed <= column.limits))
        return None if ok.all() else FilterResult(ok, REASON)

    def detail(self, ctx: Context, position: int) -> list[str]:
        """How many volumes of which driver."""
        try:
            return list(too_many(ctx, _wanted(ctx.nodes.state.storage, ctx.pod), position))
        except ClaimError as error:
            return [str(error)]


def _wanted(storage: StorageState, pod: PodInfo) -> dict[str, set[str]]:
    """Handles of the Pod's volumes by driver."""
    wanted: dict[str, set[str]] = {}
    namespace = pod.pod.metadata.namespace
    for volume in pod.spec.volumes:
        name = claim_name(pod, volume)
        if name is None:
            continue
        claim = storage.claims.get(f"{namespace}/{name}")
        if claim is None:
            raise ClaimError(f"looking up PVC {namespace}/{name}: {not_found(name)}")
        if volume.ephemeral is not None and not is_made_for(claim, pod):
            raise ValueError(f"PVC {namespace}/{name} was not created for pod {pod.key} (pod is not owner)")
        found = storage.csi_volume(claim)
        if found is not None:
            driver, handle = found
            wanted.setdefault(driver, set()).add(handle)
    return wanted
