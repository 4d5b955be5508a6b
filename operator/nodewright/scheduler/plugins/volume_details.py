"""Which claim or volume keeps a Pod off a node: the sentences that `explain` shows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .. import wording
from ..objects import NodeSelector, Volume
from ..plugin import Context
from ..pods import PodInfo
from ..requests import in_units, nano
from ..state import NodeView
from ..state.storage import StorageState, claim_name, disks_conflict
from ..storage_objects import NO_PROVISIONER, READ_WRITE_ONCE_POD, Claim
from .volume_claims import UNBOUND_IMMEDIATE, ClaimError, find_claim, pod_claims, waits_for_node
from .volume_matching import NO_VOLUME, match_volumes, reachable, size_of
from .volume_provisioning import has_room, in_topology


def unbindable(ctx: Context, position: int) -> Iterator[str]:
    """The Pod's claims that VolumeBinding objects to at a node, or anywhere."""
    storage = ctx.nodes.state.storage
    try:
        claims = pod_claims(storage, ctx.pod)
    except ClaimError as error:
        yield from _unusable(storage, ctx.pod, str(error))
        return
    here = NodeView(ctx.nodes.state, np.array([ctx.nodes.row(position)], dtype=np.intp))
    for claim in claims.bound:
        volume = storage.volumes.get(claim.spec.volume_name)
        name = claim.metadata.name
        if volume is None:
            yield f"claim {name}: its volume {claim.spec.volume_name} does not exist"
        elif (reached := reachable(here, volume)) is not None and not reached[0]:
            assert volume.affinity is not None
            yield f"claim {name}: volume {volume.key} is reached only from nodes with {_selector(volume.affinity)}"
    seeking = sorted((c for c in claims.delayed if storage.selected_node(c) is None), key=size_of)
    picks = match_volumes(here, storage, seeking).picks
    unmatched = {claim.key for claim, pick in zip(seeking, picks, strict=True) if pick[0] == NO_VOLUME}
    for claim in claims.delayed:
        if claim.key in unmatched or storage.selected_node(claim) is not None:
            yield from _not_to_be_made(here, storage, claim)


def _unusable(storage: StorageState, pod: PodInfo, message: str) -> Iterator[str]:
    """Nothing can be had anywhere. Upstream's message does not name the claims that are not bound."""
    if message != UNBOUND_IMMEDIATE:
        yield message
        return
    for volume in pod.spec.volumes:
        claim = find_claim(storage, pod, volume)
        if claim is None or claim.is_bound or (waits_for_node(storage, claim) and not claim.spec.volume_name):
            continue
        wants = f"volume {claim.spec.volume_name}" if claim.spec.volume_name else _wanted(claim)
        yield f"claim {claim.metadata.name} ({wants}) is not bound, and does not wait for a node to be bound"


def _not_to_be_made(here: NodeView, storage: StorageState, claim: Claim) -> Iterator[str]:
    name = f"claim {claim.metadata.name} ({_wanted(claim)})"
    selected = storage.selected_node(claim)
    if selected is not None and selected != here.name(0):
        yield f"{name}: its volume is being made for node {selected}"
        return
    found = storage.classes.get(claim.class_name)
    if found is None:
        yield f"{name}: there is no such class"
    elif found.provisioner in ("", NO_PROVISIONER):
        free = len(list(storage.free_volumes(claim.class_name)))
        why = f"no free volume of the class (of {free}) suits it and is reached from the node; the class makes none"
        yield f"{name}: {why}"
    elif not in_topology(here, found)[0]:
        terms = [
            f"{r.key} In [{', '.join(r.values)}]" for t in found.allowed_topologies for r in t.match_label_expressions
        ]
        yield f"{name}: the class makes volumes only for nodes with {wording.names(terms)}"
    elif not has_room(here, storage, claim, found)[0]:
        limits = [
            in_units("storage", nano(c.limit))
            for c in storage.capacities.values()
            if c.storage_class_name == found.key and c.limit is not None
        ]
        most = f"; the largest it has anywhere is {wording.amount('storage', max(limits))}" if limits else ""
        yield f"{name}: the driver {found.provisioner} has not enough storage left for the node{most}"


def _wanted(claim: Claim) -> str:
    of_class = f" of class {claim.class_name}" if claim.class_name else " without a class"
    return f"{wording.amount('storage', in_units('storage', size_of(claim)))}{of_class}"


def _selector(selector: NodeSelector) -> str:
    return " or ".join(wording.selector_term(term) for term in selector.node_selector_terms) or "nothing"


def in_use(ctx: Context, position: int) -> Iterator[str]:
    """The Pods that hold a disk of the Pod at a node, or its ReadWriteOncePod claim anywhere."""
    state = ctx.nodes.state
    namespace = ctx.pod.pod.metadata.namespace
    for volume in ctx.pod.spec.volumes:
        holders = [
            pod.key
            for pod in state.pods_at[ctx.nodes.row(position)].values()
            if any(disks_conflict(volume, other) for other in pod.spec.volumes)
        ]
        if holders:
            yield f"{_disk(volume)} is in use on the node by {wording.names(sorted(holders))}"
        if volume.persistent_volume_claim is None:
            continue
        key = f"{namespace}/{volume.persistent_volume_claim.claim_name}"
        claim = state.storage.claims.get(key)
        if claim is None:
            yield f"claim {volume.persistent_volume_claim.claim_name} does not exist"
        elif READ_WRITE_ONCE_POD in claim.spec.access_modes:
            users = [f"{pod.key} on {state.names[row]}" for row, pod in _users(ctx, key)]
            if users:
                yield f"claim {claim.metadata.name} is ReadWriteOncePod and in use by {wording.names(sorted(users))}"


def _users(ctx: Context, key: str) -> Iterator[tuple[int, PodInfo]]:
    state, namespace = ctx.nodes.state, key.partition("/")[0]
    for row in state.storage.usage.rows_of(key):
        for pod in state.pods_at[row].values():
            if pod.uid == ctx.pod.uid or pod.pod.metadata.namespace != namespace:
                continue
            if any(f"{namespace}/{claim_name(pod, volume)}" == key for volume in pod.spec.volumes):
                yield row, pod


def _disk(volume: Volume) -> str:
    if volume.gce_persistent_disk is not None:
        return f"GCE disk {volume.gce_persistent_disk.pd_name}"
    if volume.aws_elastic_block_store is not None:
        return f"EBS volume {volume.aws_elastic_block_store.volume_id}"
    if volume.iscsi is not None:
        return f"iSCSI target {volume.iscsi.iqn}"
    return f"Ceph image {volume.rbd.pool}/{volume.rbd.image}" if volume.rbd is not None else "a disk"


def too_many(ctx: Context, wanted: dict[str, set[str]], position: int) -> Iterator[str]:
    """The drivers that would have too many volumes at a node; `wanted` are the Pod's handles by driver."""
    attached, row = ctx.nodes.state.storage.attached, ctx.nodes.row(position)
    for driver, handles in wanted.items():
        column = attached.column(driver)
        if column is None:
            continue
        more = sum(row not in attached.rows_with((driver, handle)) for handle in handles)
        if more and column.counts[row] + more > column.limits[row]:
            yield f"driver {driver}: {column.counts[row]} of {column.limits[row]} volumes attached, {more} more needed"


def elsewhere(ctx: Context, position: int, topologies: list[tuple[str, frozenset[str]]]) -> Iterator[str]:
    """The zones and regions of the Pod's volumes that are not the node's."""
    node = ctx.nodes.node(position)
    labels = node.metadata.labels if node is not None else {}
    for key, values in topologies:
        if labels.get(key) not in values:
            yield f"a volume is in {key} {' or '.join(sorted(values))}, the node has {wording.label(labels, key)}"
