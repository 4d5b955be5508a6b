"""Errors of volumes, in the kubelet's words."""

from __future__ import annotations

from collections.abc import Iterable


class VolumeError(Exception):
    """One volume cannot be made; the text is what follows the volume's name in the event.

    ``name``: what the event calls the volume, where it is not its name in the Pod. ``step``: what failed.
    """

    def __init__(self, message: str, *, name: str = "", step: str = "MountVolume.SetUp failed") -> None:
        """Keep the text."""
        super().__init__(message)
        self.name, self.step = name, step


class ClaimError(VolumeError):
    """It cannot be told yet what a volume is: its claim is not there, or not bound. Nobody tells when that changes."""


class FailedMount(Exception):
    """Some of a Pod's volumes cannot be made now; `messages` are for events of that reason, one per volume."""

    reason = "FailedMount"

    def __init__(self, messages: list[str]) -> None:
        """Keep one sentence per volume."""
        super().__init__("; ".join(messages))
        self.messages = messages


class MountError(Exception):
    """A container's volumeMount cannot be prepared; `reason` is the waiting reason."""

    def __init__(self, message: str, reason: str = "CreateContainerConfigError") -> None:
        """Keep the text."""
        super().__init__(message)
        self.reason = reason


def failed(volume: str, error: object) -> str:
    """Word a failure as upstream does (operation_generator's GenerateError)."""
    step, name = "MountVolume.SetUp failed", volume
    if isinstance(error, VolumeError):
        step, name = error.step, error.name or volume
    return f'{step} for volume "{name}" : {error}'


def unprocessed(unmounted: Iterable[str], problems: Iterable[tuple[str, str]]) -> str:
    """Word that claims could not be followed (volumeManager's WaitForAttachAndMount)."""
    found = list(problems)
    waiting, lost = " ".join(sorted(unmounted)), " ".join(sorted(name for name, _ in found))
    return (
        f"Unable to attach or mount volumes: unmounted volumes=[{waiting}], unattached volumes=[], "
        f"failed to process volumes=[{lost}]: {'; '.join(text for _, text in found)}"
    )
