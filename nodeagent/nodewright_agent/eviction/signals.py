"""Eviction signals and the thresholds that the settings give for them: parsed, checked, and turned to numbers. Pure."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace

from nodewright.kube import quantity
from nodewright_agent.eviction.durations import seconds

MEMORY, ALLOCATABLE = "memory.available", "allocatableMemory.available"
NODE_FS, NODE_INODES = "nodefs.available", "nodefs.inodesFree"
IMAGE_FS, IMAGE_INODES = "imagefs.available", "imagefs.inodesFree"
CONTAINER_FS, CONTAINER_INODES = "containerfs.available", "containerfs.inodesFree"
PIDS = "pid.available"

MEMORY_PRESSURE, DISK_PRESSURE, PID_PRESSURE = "MemoryPressure", "DiskPressure", "PIDPressure"
STORAGE = "ephemeral-storage"

CONDITION = {
    MEMORY: MEMORY_PRESSURE,
    ALLOCATABLE: MEMORY_PRESSURE,
    NODE_FS: DISK_PRESSURE,
    NODE_INODES: DISK_PRESSURE,
    IMAGE_FS: DISK_PRESSURE,
    IMAGE_INODES: DISK_PRESSURE,
    CONTAINER_FS: DISK_PRESSURE,
    CONTAINER_INODES: DISK_PRESSURE,
    PIDS: PID_PRESSURE,
}
"""The node condition that a signal stands for."""
RESOURCE = {
    MEMORY: "memory",
    ALLOCATABLE: "memory",
    NODE_FS: STORAGE,
    NODE_INODES: "inodes",
    IMAGE_FS: STORAGE,
    IMAGE_INODES: "inodes",
    CONTAINER_FS: STORAGE,
    CONTAINER_INODES: "inodes",
    PIDS: "pids",
}
"""What is short, in the words of events and messages."""
DEFAULT_HARD: Mapping[str, str] = {
    MEMORY: "100Mi",
    NODE_FS: "10%",
    NODE_INODES: "5%",
    IMAGE_FS: "15%",
    IMAGE_INODES: "5%",
}
"""kubelet's defaults; whoever sets evictionHard sets all of them."""

_PERCENTAGE = re.compile(r"([0-9]+(?:\.[0-9]+)?)%")
_SETTABLE = frozenset(CONDITION) - {ALLOCATABLE}


class ThresholdError(ValueError):
    """A threshold that cannot be used; the text names the signal and the reason."""


@dataclass(frozen=True, slots=True)
class Amount:
    """An amount as it was written: absolute, or a share of the capacity."""

    absolute: int | None = None
    share: float = 0.0
    text: str = ""
    """How upstream prints it; empty for shares, which are printed as the amount that they come to."""

    def of(self, capacity: int) -> int:
        """The amount in bytes or pieces."""
        return self.absolute if self.absolute is not None else int(capacity * self.share)

    def shown(self, capacity: int) -> str:
        """The amount as a message shows it."""
        return self.text or quantity.format_binary(self.of(capacity))


@dataclass(frozen=True, slots=True)
class Threshold:
    """Below ``value`` the node is short of what ``signal`` measures; a ``grace`` (seconds) makes it a soft one."""

    signal: str
    value: Amount
    grace: float = 0.0
    reclaim: Amount | None = None
    """How much more than the value must be free again before it counts as over."""

    @property
    def hard(self) -> bool:
        """Acts at once."""
        return self.grace == 0


@dataclass(frozen=True, slots=True)
class Settings:
    """What the eviction manager obeys; times in seconds."""

    thresholds: tuple[Threshold, ...] = ()
    max_pod_grace: float = 0.0
    """Longest grace period of a Pod that a soft threshold evicts."""
    transition_period: float = 300.0
    """How long a node condition stays after its threshold was last met."""


def amount(signal: str, text: str) -> Amount:
    """Read ``10%`` or a quantity. Raises ``ThresholdError``."""
    if match := _PERCENTAGE.fullmatch(text):
        # upstream keeps shares in single precision, and messages show what that comes to
        (share,) = struct.unpack("f", struct.pack("f", float(match[1])))
        (share,) = struct.unpack("f", struct.pack("f", share / 100))
        return Amount(share=share)
    try:
        number = quantity.parse(text)
        value = quantity.value(text)
    except quantity.QuantityError as error:
        raise ThresholdError(f"{signal}: {error}") from None
    if number < 0:
        raise ThresholdError(f"{signal}: {text} is negative")
    binary = text.endswith("i")
    return Amount(absolute=value, text=quantity.format_binary(value) if binary else quantity.format_decimal(number))


def thresholds(
    hard: Mapping[str, str],
    soft: Mapping[str, str],
    grace_periods: Mapping[str, str],
    minimum_reclaim: Mapping[str, str],
) -> tuple[Threshold, ...]:
    """Return the thresholds in upstream's order. Raises ``ThresholdError``.

    0% and 100% switch a signal off. Each soft threshold needs its grace period. A hard threshold for memory holds for
    what is allocatable to Pods, too.
    """
    made = [Threshold(signal, value) for signal, value in _statements("evictionHard", hard)]
    graces = {signal: _grace(signal, text) for signal, text in grace_periods.items()}
    for signal, value in _statements("evictionSoft", soft):
        if signal not in graces:
            raise ThresholdError(f"evictionSoft: {signal}: a grace period must be given in evictionSoftGracePeriod")
        made.append(Threshold(signal, value, graces[signal]))
    for signal in minimum_reclaim:
        _known("evictionMinimumReclaim", signal)
    reclaims = {signal: amount(f"evictionMinimumReclaim: {signal}", text) for signal, text in minimum_reclaim.items()}
    made = [replace(one, reclaim=reclaims.get(one.signal)) for one in made]
    made += [replace(one, signal=ALLOCATABLE) for one in made if one.signal == MEMORY and one.hard]
    return tuple(made)


def reserved(given: tuple[Threshold, ...], signal: str, capacity: int) -> int:
    """How much of a resource hard eviction keeps free: what is not allocatable to Pods."""
    return next((one.value.of(capacity) for one in given if one.signal == signal and one.hard), 0)


def _statements(field: str, written: Mapping[str, str]) -> list[tuple[str, Amount]]:
    found = []
    for signal, text in written.items():
        _known(field, signal)
        value = amount(f"{field}: {signal}", text)
        if value.absolute is None and value.share in (0.0, 1.0):
            continue
        if value.absolute == 0 or value.share > 1:
            raise ThresholdError(f"{field}: {signal}: {text} is not above zero and below all there is")
        if signal in (CONTAINER_FS, CONTAINER_INODES):
            continue  # containers share nodefs, and its thresholds: upstream ignores these, too
        found.append((signal, value))
    return found


def _known(field: str, signal: str) -> None:
    if signal not in _SETTABLE:
        raise ThresholdError(f"{field}: unsupported eviction signal {signal}")


def _grace(signal: str, text: str) -> float:
    _known("evictionSoftGracePeriod", signal)
    try:
        return seconds(text)
    except ValueError as error:
        raise ThresholdError(f"evictionSoftGracePeriod: {signal}: {error}") from None
