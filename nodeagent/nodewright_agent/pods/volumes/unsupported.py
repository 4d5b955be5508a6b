"""Volumes that this node cannot mount: what exactly is missing. Pure."""

from __future__ import annotations

from typing import Any

from nodewright_agent.pods.volumes.errors import VolumeError

_NETWORK = {
    "nfs": "no NFS client (mount.nfs) is driven",
    "iscsi": "no iSCSI initiator (iscsiadm) is driven",
    "fc": "no Fibre Channel devices are attached",
    "rbd": "no Ceph RBD client is driven",
    "cephfs": "no CephFS client is driven",
    "glusterfs": "no GlusterFS client is driven",
    "azureFile": "no SMB client (mount.cifs) is driven",
}


def why_not(kind: str, source: object) -> VolumeError:
    """The error for a volume of a kind that has no plugin; `source` has the volume's sources as attributes."""
    if kind == "csi":
        csi: dict[str, Any] = getattr(source, "csi", None) or {}
        return VolumeError(
            f"kubernetes.io/csi: driver name {csi.get('driver', '')} not found in the list of registered CSI drivers: "
            "this node agent does not run CSI drivers yet"
        )
    if kind in _NETWORK:
        return VolumeError(f"no volume plugin matched: {kind} volumes need a helper on the node, and {_NETWORK[kind]}")
    if kind == "":
        return VolumeError("no volume plugin matched: this kind of volume is not known to this node agent")
    return VolumeError(f"no volume plugin matched: {kind} volumes are not supported by this node agent")
