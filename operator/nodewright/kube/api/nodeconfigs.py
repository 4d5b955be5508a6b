"""NodeAgentConfig as it is on the wire, what is wrong with one, and which of several goes before the others. Pure."""
# ruff: noqa: RUF012 - msgspec gives every instance its own copy of an empty list or dict default

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import msgspec

from nodewright.kube import quantity
from nodewright.kube.api.base import KubeStruct
from nodewright.kube.api.meta import Condition, LabelSelector, Object, ObjectMeta

PROXY_MODES = ("auto", "ipvs", "nftables", "iptables")
_OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")
_PERCENTAGE = re.compile(r"[0-9]+(\.[0-9]+)?%")


class ManagedFields(KubeStruct):
    """Who owns fields of the object; which fields is of no interest here."""

    manager: str = ""
    subresource: str = ""


class ConfigMeta(ObjectMeta):
    """Metadata with the owners of fields: an agent finds its own entry by them."""

    managed_fields: list[ManagedFields] = []


class NodeEntry(KubeStruct):
    """What one node made of the object."""

    name: str
    observed_generation: int = 0
    proxy_mode: str = ""
    proxy_reason: str = ""
    ipvs_scheduler: str = ""
    conditions: list[Condition] = []


class NodeAgentConfigStatus(KubeStruct):
    """The status: `nodes` is written by the nodes, the rest by the operator."""

    observed_generation: int = 0
    selected: int = 0
    applied: int = 0
    conditions: list[Condition] = []
    nodes: list[NodeEntry] = []


class NodeAgentConfig(Object):
    """A NodeAgentConfig. `spec` stays as it came, so that an object from a newer version is no reason to fail."""

    API_VERSION: ClassVar[str] = "nodewright.dev/v1alpha1"
    KIND: ClassVar[str] = "NodeAgentConfig"

    metadata: ConfigMeta
    spec: dict[str, Any] = {}
    status: NodeAgentConfigStatus = msgspec.field(default_factory=NodeAgentConfigStatus)

    @property
    def priority(self) -> int:
        """The priority; a value that is no number counts as 0 (and makes the object invalid)."""
        value = self.spec.get("priority", 0)
        return value if isinstance(value, int) else 0


class InvalidConfig(ValueError):
    """A spec that cannot be used; the text names the field and the reason."""


def precedence(config: NodeAgentConfig) -> tuple[int, str, str]:
    """Give the sort key: the highest priority comes first, then the older object, then the name."""
    return (-config.priority, config.metadata.creation_timestamp or "", config.metadata.name)


def selector(config: NodeAgentConfig) -> LabelSelector:
    """Give the selector; an absent one selects all nodes. Raises InvalidConfig."""
    raw = config.spec.get("nodeSelector")
    try:
        found = msgspec.convert(raw or {}, LabelSelector)
    except msgspec.ValidationError as error:
        raise InvalidConfig(f"nodeSelector: {error}") from None
    for requirement in found.match_expressions:
        if requirement.operator not in _OPERATORS:
            raise InvalidConfig(f"nodeSelector: unknown operator {requirement.operator!r}")
        if requirement.operator in ("In", "NotIn") and not requirement.values:
            raise InvalidConfig(f"nodeSelector: operator {requirement.operator} of {requirement.key!r} needs values")
    return found


def selects(config: NodeAgentConfig, labels: Mapping[str, str]) -> bool:
    """Tell whether the object means a node with these labels. A selector that cannot be read selects nothing."""
    try:
        return selector(config).matches(dict(labels))
    except InvalidConfig:
        return False


def fields(config: NodeAgentConfig) -> dict[str, Any]:
    """Give the settings that an object has, by the path of the field. Raises InvalidConfig for the first wrong one.

    A map such as evictionHard is one setting: thresholds of two objects are not mixed.
    """
    spec = dict(config.spec)
    if not isinstance(spec.pop("priority", 0), int):
        raise InvalidConfig("priority: must be a whole number")
    selector(config)
    spec.pop("nodeSelector", None)
    found: dict[str, Any] = {}
    proxy = _mapping("proxy", spec.pop("proxy", None) or {})
    if proxy.get("mode") is not None:
        found["proxy.mode"] = proxy["mode"]
    ipvs = _mapping("proxy.ipvs", proxy.get("ipvs") or {})
    if ipvs.get("scheduler") is not None:
        found["proxy.ipvs.scheduler"] = ipvs["scheduler"]
    found.update((name, value) for name, value in spec.items() if value is not None)
    for name, value in found.items():
        check = _CHECKS.get(name)
        problem = "this version of Nodewright does not know the field" if check is None else check(value)
        if problem:
            raise InvalidConfig(f"{name}: {problem}")
    return found


def _mapping(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidConfig(f"{name}: must be a mapping")
    return value


def _mode(value: Any) -> str:
    return "" if value in PROXY_MODES else f"{value!r} is none of {', '.join(PROXY_MODES)}"


def _text(value: Any) -> str:
    return "" if isinstance(value, str) and value else "must be a text"


def _whole(least: int) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        good = isinstance(value, int) and not isinstance(value, bool) and value >= least
        return "" if good else f"{value!r} is no whole number from {least} on"

    return check


def _size(value: Any) -> str:
    try:
        return "" if quantity.value(str(value)) > 0 else f"{value!r} is not greater than zero"
    except quantity.QuantityError as error:
        return str(error)


def _thresholds(value: Any) -> str:
    if not isinstance(value, dict):
        return "must be a mapping of signals"
    for signal, amount in value.items():
        if not isinstance(amount, str):
            return f"{signal}: must be a text"
        if _PERCENTAGE.fullmatch(amount):
            continue
        try:
            quantity.parse(amount)
        except quantity.QuantityError as error:
            return f"{signal}: {error}"
    return ""


def _durations(value: Any) -> str:
    good = isinstance(value, dict) and all(isinstance(each, str) for each in value.values())
    return "" if good else "must be a mapping of signals to durations"


_CHECKS: dict[str, Callable[[Any], str]] = {
    "proxy.mode": _mode,
    "proxy.ipvs.scheduler": _text,
    "evictionHard": _thresholds,
    "evictionSoft": _thresholds,
    "evictionSoftGracePeriod": _durations,
    "evictionMinimumReclaim": _thresholds,
    "containerLogMaxSize": _size,
    "containerLogMaxFiles": _whole(2),
    "maxPods": _whole(0),
    "imageGCHighThresholdPercent": _whole(0),
    "imageGCLowThresholdPercent": _whole(0),
}
FIELDS = tuple(_CHECKS)
"""All settings, by path."""
