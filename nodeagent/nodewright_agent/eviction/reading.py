"""The eviction settings of the agent's configuration file. Pure."""

from __future__ import annotations

from nodewright_agent.config import AgentConfig
from nodewright_agent.eviction.signals import DEFAULT_HARD, MEMORY, Settings, thresholds


def hard(config: AgentConfig) -> dict[str, str]:
    """The hard thresholds: as written, else kubelet's defaults with ``eviction_memory``."""
    if config.eviction_hard is not None:
        return config.eviction_hard
    return {**DEFAULT_HARD, MEMORY: config.eviction_memory}


def settings(config: AgentConfig) -> Settings:
    """What the eviction manager obeys. Raises ``ThresholdError``."""
    return Settings(
        thresholds(
            hard(config), config.eviction_soft, config.eviction_soft_grace_period, config.eviction_minimum_reclaim
        ),
        config.eviction_max_pod_grace_period,
        config.eviction_pressure_transition_period,
    )
