"""Gangs: groups of Pods of which at least so many are placed at once, or none.

A Pod joins a gang by the label `nodewright.dev/pod-group`, and says with annotations how many of the group have to fit
(`nodewright.dev/pod-group-min-member`) and how long room that was cleared for the group is kept
(`nodewright.dev/pod-group-timeout`, in seconds). A gang is tried as a whole within one cycle, in memory: while some of
it does not fit, none of it holds anything, so two gangs can't block each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from .pods import PodInfo

GROUP_LABEL = "nodewright.dev/pod-group"
MIN_MEMBER = "nodewright.dev/pod-group-min-member"
TIMEOUT = "nodewright.dev/pod-group-timeout"
DEFAULT_TIMEOUT = 60

GangKey = tuple[str, str]


class GangError(ValueError):
    """The Pod's annotations make no sense; the message names the one."""


class GangSpec(msgspec.Struct, frozen=True):
    """What a Pod says of its gang. `timeout` in seconds."""

    namespace: str
    name: str
    min_member: int
    timeout: int

    @property
    def title(self) -> str:
        """How messages name the gang."""
        return f"pod group {self.namespace}/{self.name}"


def gang_key(pod: PodInfo) -> GangKey | None:
    """The gang that a Pod belongs to, or None."""
    name = pod.pod.metadata.labels.get(GROUP_LABEL)
    return (pod.pod.metadata.namespace, name) if name else None


def gang_spec(pod: PodInfo) -> GangSpec:
    """What the Pod says of its gang. Raises GangError."""
    meta = pod.pod.metadata
    if MIN_MEMBER not in meta.annotations:
        raise GangError(f"metadata.annotations[{MIN_MEMBER}]: required for a pod with the label {GROUP_LABEL}")
    minimum = _positive(meta.annotations, MIN_MEMBER)
    timeout = _positive(meta.annotations, TIMEOUT) if TIMEOUT in meta.annotations else DEFAULT_TIMEOUT
    return GangSpec(meta.namespace, meta.labels[GROUP_LABEL], minimum, timeout)


def _positive(annotations: Mapping[str, str], key: str) -> int:
    text = annotations[key]
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise GangError(f"metadata.annotations[{key}]: must be a whole number above zero, not {text!r}")
    return int(text)


class Gangs:
    """Who belongs to which gang: Pods that wait, and Pods that have a node."""

    def __init__(self) -> None:
        self._waiting: dict[GangKey, dict[str, None]] = {}
        self._placed: dict[GangKey, set[str]] = {}
        self._keys: dict[str, GangKey] = {}
        # When room was last cleared for a gang by evicting Pods.
        self.cleared_at: dict[GangKey, float] = {}

    def waits(self, pod: PodInfo) -> bool:
        """A Pod without a node is known. True when it is new to its gang."""
        key = self._join(pod)
        if key is None or pod.uid in self._waiting.get(key, ()):
            return False
        self._placed.get(key, set()).discard(pod.uid)
        self._waiting.setdefault(key, {})[pod.uid] = None
        return True

    def placed(self, pod: PodInfo) -> None:
        """A Pod has a node, if only in our mind."""
        key = self._join(pod)
        if key is not None:
            self._waiting.get(key, {}).pop(pod.uid, None)
            self._placed.setdefault(key, set()).add(pod.uid)

    def gone(self, uid: str) -> None:
        """A Pod has ended, or is none of ours any more."""
        key = self._keys.pop(uid, None)
        if key is None:
            return
        self._waiting.get(key, {}).pop(uid, None)
        self._placed.get(key, set()).discard(uid)
        if not self._waiting.get(key) and not self._placed.get(key):
            self._waiting.pop(key, None)
            self._placed.pop(key, None)
            self.cleared_at.pop(key, None)

    def waiting(self, key: GangKey) -> list[str]:
        """The UIDs of members without a node, in the order in which they came."""
        return list(self._waiting.get(key, ()))

    def incomplete(self) -> list[str]:
        """The UIDs of members that wait while others of their gang have nodes."""
        return [uid for key, waiting in self._waiting.items() if self._placed.get(key) for uid in waiting]

    def placed_count(self, key: GangKey) -> int:
        """How many members have a node."""
        return len(self._placed.get(key, ()))

    def _join(self, pod: PodInfo) -> GangKey | None:
        key = gang_key(pod)
        if self._keys.get(pod.uid, key) != key:
            self.gone(pod.uid)
        if key is not None:
            self._keys[pod.uid] = key
        return key


def too_few(spec: GangSpec, known: int) -> str:
    """What a member is told while others of its gang are missing."""
    return (
        f"{spec.title}: waiting for minCount pods from a gang to appear in scheduling queue"
        f" ({known} of {spec.min_member})"
    )


def not_at_once(spec: GangSpec, fitting: int, blockers: Iterable[str]) -> str:
    """What every member is told when too few fit at once; the first blocker's message says what is missing."""
    why = next(iter(blockers), "")
    text = f"{spec.title}: {fitting} of at least {spec.min_member} pods fit at once, so none is placed."
    return f"{text} {why}" if why else text
