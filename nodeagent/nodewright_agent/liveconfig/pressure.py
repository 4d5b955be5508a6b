"""What eviction and image collection take over of the merged settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from nodewright_agent.config import AgentConfig
from nodewright_agent.eviction import reading
from nodewright_agent.eviction.signals import ThresholdError
from nodewright_agent.liveconfig.merge import Merged

EVICTION = {
    "evictionHard": "eviction_hard",
    "evictionSoft": "eviction_soft",
    "evictionSoftGracePeriod": "eviction_soft_grace_period",
    "evictionMinimumReclaim": "eviction_minimum_reclaim",
}
IMAGES = {
    "imageGCHighThresholdPercent": "image_gc_high_threshold_percent",
    "imageGCLowThresholdPercent": "image_gc_low_threshold_percent",
}


class Pressure:
    """Thresholds of eviction and of image collection, each group as a whole: half of one could mean the opposite."""

    fields = frozenset((*EVICTION, *IMAGES))

    def __init__(self, config: AgentConfig, apply: Callable[[], None], node_changed: Callable[[], None]) -> None:
        """`apply` makes the settings count, `node_changed` has allocatable computed anew; the file's are kept."""
        self._config, self._apply, self._node_changed = config, apply, node_changed
        self._own = {name: getattr(config, name) for name in (*EVICTION.values(), *IMAGES.values())}

    def apply(self, merged: Merged) -> Mapping[str, str]:
        """Set them; what does not fit together is said, and the file's settings stay for that group."""
        problems: dict[str, str] = {}
        before = self._now()
        self._take(EVICTION, merged)
        try:
            reading.settings(self._config)
        except ThresholdError as error:
            problems.update(self._refuse(EVICTION, merged, str(error)))
        self._take(IMAGES, merged)
        low, high = self._config.image_gc_low_threshold_percent, self._config.image_gc_high_threshold_percent
        if low >= high:
            text = f"imageGCLowThresholdPercent {low} is not below imageGCHighThresholdPercent {high}"
            problems.update(self._refuse(IMAGES, merged, text))
        if self._now() != before:
            self._apply()
            self._node_changed()
        return problems

    def _now(self) -> dict[str, object]:
        return {name: getattr(self._config, name) for name in self._own}

    def _take(self, group: Mapping[str, str], merged: Merged) -> None:
        for field, name in group.items():
            wanted = merged.get(field)
            setattr(self._config, name, self._own[name] if wanted is None else wanted)

    def _refuse(self, group: Mapping[str, str], merged: Merged, why: str) -> dict[str, str]:
        for name in group.values():
            setattr(self._config, name, self._own[name])
        return {field: why for field in group if merged.get(field) is not None}
