"""Which Pods use which claims and disks, where. Only Pods with volumes come here."""

from __future__ import annotations

from collections.abc import Iterator

from ...objects import Volume
from ...pods import PodInfo

# Two volumes with the same kind and id are the same disk, as far as can be told without their monitors.
DiskId = tuple[str, str]


def claim_name(pod: PodInfo, volume: Volume) -> str | None:
    """The claim behind a volume of the Pod; None where there is none. Ephemeral claims are named `POD-VOLUME`."""
    if volume.persistent_volume_claim is not None:
        return volume.persistent_volume_claim.claim_name
    if volume.ephemeral is not None:
        return f"{pod.pod.metadata.name}-{volume.name}"
    return None


def claim_keys(pod: PodInfo) -> Iterator[str]:
    """Namespace and name of the Pod's claims, joined by a slash."""
    for volume in pod.spec.volumes:
        name = claim_name(pod, volume)
        if name is not None:
            yield f"{pod.pod.metadata.namespace}/{name}"


def disk_ids(volume: Volume) -> Iterator[DiskId]:
    """What identifies the in-tree disks of a volume."""
    if volume.gce_persistent_disk is not None:
        yield "gce", volume.gce_persistent_disk.pd_name
    if volume.aws_elastic_block_store is not None:
        yield "aws", volume.aws_elastic_block_store.volume_id
    if volume.iscsi is not None:
        yield "iscsi", volume.iscsi.iqn
    if volume.rbd is not None:
        yield "rbd", f"{volume.rbd.pool}/{volume.rbd.image}"


def disks_conflict(one: Volume, other: Volume) -> bool:
    """Whether two volumes may not be at one node (upstream: isVolumeConflict).

    The same GCE disk, iSCSI target or Ceph image may be there twice if all only read it; an EBS volume never.
    """
    a, b = one.gce_persistent_disk, other.gce_persistent_disk
    if a is not None and b is not None and a.pd_name == b.pd_name and not (a.read_only and b.read_only):
        return True
    c, d = one.aws_elastic_block_store, other.aws_elastic_block_store
    if c is not None and d is not None and c.volume_id == d.volume_id:
        return True
    e, f = one.iscsi, other.iscsi
    if e is not None and f is not None and e.iqn == f.iqn and not (e.read_only and f.read_only):
        return True
    g, h = one.rbd, other.rbd
    if g is None or h is None or (g.pool, g.image) != (h.pool, h.image):
        return False
    return not set(g.monitors).isdisjoint(h.monitors) and not (g.read_only and h.read_only)


class VolumeUsage:
    """Claims and disks in use, by bound and assumed Pods."""

    def __init__(self) -> None:
        # Claim -> UIDs of the Pods that use it -> their rows.
        self._users: dict[str, dict[str, int]] = {}
        # The same without ephemeral claims, which no other Pod can use.
        self._named: dict[str, set[str]] = {}
        # Disk -> row -> volumes there, by UID of the Pod.
        self._disks: dict[DiskId, dict[int, list[tuple[str, Volume]]]] = {}
        # Row -> claims of the Pods there, by UID.
        self._claims_at: dict[int, dict[str, tuple[str, ...]]] = {}

    def add(self, row: int, pod: PodInfo) -> None:
        """The Pod is at the row."""
        claims = tuple(claim_keys(pod))
        if claims:
            self._claims_at.setdefault(row, {})[pod.uid] = claims
        for claim in claims:
            self._users.setdefault(claim, {})[pod.uid] = row
        for volume in pod.spec.volumes:
            if volume.persistent_volume_claim is not None:
                key = f"{pod.pod.metadata.namespace}/{volume.persistent_volume_claim.claim_name}"
                self._named.setdefault(key, set()).add(pod.uid)
            for disk in disk_ids(volume):
                self._disks.setdefault(disk, {}).setdefault(row, []).append((pod.uid, volume))

    def remove(self, row: int, pod: PodInfo) -> None:
        """The Pod has left the row."""
        at = self._claims_at.get(row, {})
        for claim in at.pop(pod.uid, ()):
            users = self._users.get(claim, {})
            users.pop(pod.uid, None)
            if not users:
                self._users.pop(claim, None)
            named = self._named.get(claim, set())
            named.discard(pod.uid)
            if not named:
                self._named.pop(claim, None)
        if not at:
            self._claims_at.pop(row, None)
        for volume in pod.spec.volumes:
            for disk in disk_ids(volume):
                self._remove_disk(disk, row, pod.uid)

    def _remove_disk(self, disk: DiskId, row: int, uid: str) -> None:
        rows = self._disks.get(disk, {})
        left = [entry for entry in rows.pop(row, ()) if entry[0] != uid]
        if left:
            rows[row] = left
        if not rows:
            self._disks.pop(disk, None)

    def is_used_by_others(self, claim: str, uid: str) -> bool:
        """Whether a Pod other than this one names the claim."""
        return any(user != uid for user in self._named.get(claim, ()))

    def rows_of(self, claim: str) -> set[int]:
        """Where Pods use the claim."""
        return set(self._users.get(claim, {}).values())

    def claims_at(self, row: int) -> Iterator[str]:
        """The claims of the Pods at a row; one that several use comes several times."""
        for claims in self._claims_at.get(row, {}).values():
            yield from claims

    def conflicting_rows(self, volume: Volume) -> Iterator[int]:
        """Where a disk of this volume is in use in a way that leaves no room for it."""
        for disk in disk_ids(volume):
            for row, there in self._disks.get(disk, {}).items():
                if any(disks_conflict(volume, other) for _, other in there):
                    yield row
