"""Errors of volumes, in the kubelet's words."""

from __future__ import annotations


class VolumeError(Exception):
    """One volume cannot be made; the text is what follows the volume's name in the event."""


class FailedMount(Exception):
    """Some of a Pod's volumes cannot be made now; `messages` are for events of that reason, one per volume."""

    reason = "FailedMount"

    def __init__(self, messages: list[str]) -> None:
        """Keep one sentence per volume."""
        super().__init__("; ".join(messages))
        self.messages = messages


class MountError(Exception):
    """A container's volumeMount cannot be prepared (CreateContainerConfigError)."""

    reason = "CreateContainerConfigError"


def failed(volume: str, error: object) -> str:
    """Word a failure as upstream does (operation_generator's GenerateError)."""
    return f'MountVolume.SetUp failed for volume "{volume}" : {error}'
