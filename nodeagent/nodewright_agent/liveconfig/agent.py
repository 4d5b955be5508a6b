"""What the agent applies of the merged settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from nodewright.kube import quantity
from nodewright_agent.config import AgentConfig
from nodewright_agent.liveconfig.merge import Merged
from nodewright_agent.pods.logrotation import LogLimits


class MaxPods:
    """`maxPods`: how many Pods the Node announces and admits. Those that run already stay, whatever it says."""

    fields = frozenset(("maxPods",))

    def __init__(self, config: AgentConfig, changed: Callable[[], None]) -> None:
        """`changed` has the Node's status looked at; the file's value is what absence means."""
        self._config, self._changed, self._own = config, changed, config.max_pods

    def apply(self, merged: Merged) -> Mapping[str, str]:
        """Set it."""
        wanted = merged.get("maxPods")
        value = self._own if wanted is None else wanted
        if value != self._config.max_pods:
            self._config.max_pods = value
            self._changed()
        return {}


class LogRotation:
    """`containerLogMaxSize` and `containerLogMaxFiles`."""

    fields = frozenset(("containerLogMaxSize", "containerLogMaxFiles"))

    def __init__(self, config: AgentConfig, change: Callable[[LogLimits], None]) -> None:
        """`change` takes the limits over; the file's values are what absence means."""
        self._config, self._change = config, change
        self._size, self._files = config.container_log_max_size, config.container_log_max_files

    def apply(self, merged: Merged) -> Mapping[str, str]:
        """Set them."""
        size, files = merged.get("containerLogMaxSize"), merged.get("containerLogMaxFiles")
        self._config.container_log_max_size = self._size if size is None else size
        self._config.container_log_max_files = self._files if files is None else files
        self._change(log_limits(self._config))
        return {}


def log_limits(config: AgentConfig) -> LogLimits:
    """Give the limits that the settings say."""
    return LogLimits(quantity.value(config.container_log_max_size), config.container_log_max_files)
