"""What is behind volumes: claims, volumes, classes, CSI drivers and attachments, and who uses what.

`picture.StorageState` holds the objects and the bindings that were decided and are not in the API yet; `usage` tells
which Pods use which claims and disks, `attachments` counts volumes per driver and node, `waiting` lets a binding wait
for a change.
"""

from .attachments import AttachIndex
from .picture import Reservation, StorageState
from .usage import VolumeUsage, claim_keys, claim_name, disks_conflict

__all__ = ["AttachIndex", "Reservation", "StorageState", "VolumeUsage", "claim_keys", "claim_name", "disks_conflict"]
