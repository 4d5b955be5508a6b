"""What a node takes in: the questions that its Pod manager asks before a Pod is run, resized, or makes others go."""

from __future__ import annotations

from collections.abc import Callable

from nodewright.kube.objects import Pod
from nodewright_agent.config import AgentConfig
from nodewright_agent.node.keeper import NodeKeeper
from nodewright_agent.node.registration import own_labels
from nodewright_agent.pods import security
from nodewright_agent.pods.admission import admit, lacking, mismatch, resize_refusal
from nodewright_agent.pods.preemption import victims

Refusal = tuple[str, str] | None
"""Reason and message, or None."""


class Gates:
    """Admission with what this node has: its labels, its allocatable resources, its settings."""

    def __init__(
        self, config: AgentConfig, keeper: NodeKeeper, app_armor: bool, pressure: Callable[[Pod], Refusal]
    ) -> None:
        """`app_armor`: whether the kernel has it. `pressure`: refuses while the node lacks something, or shuts down."""
        self._config, self._keeper, self._app_armor, self._pressure = config, keeper, app_armor, pressure

    def admit(self, pod: Pod, others: list[Pod]) -> Refusal:
        """Why a Pod cannot run beside the others; None when it can."""
        refusal = self._pressure(pod) or security.app_armor_refusal(pod, self._app_armor)
        if refusal is not None:
            return refusal
        name, unsafe = self._config.node_name, self._config.allowed_unsafe_sysctls
        return admit(pod, others, self._keeper.allocatable(), self._labels(), name, unsafe)

    def preempt(self, pod: Pod, others: list[Pod]) -> list[Pod]:
        """Which of the others have to go for a critical Pod; none when that would not help."""
        if mismatch(pod, self._labels(), self._config.node_name, self._config.allowed_unsafe_sysctls) is not None:
            return []
        return victims(pod, others, lacking(pod, others, self._keeper.allocatable()))

    def resize(self, pod: Pod, others: list[Pod]) -> Refusal:
        """Why a Pod cannot have the resources that it asks for now; None when it can."""
        return resize_refusal(pod, others, self._keeper.allocatable())

    def _labels(self) -> dict[str, str]:
        """Those that the Node will have, where the API has not told yet: static pods do not wait for it."""
        if self._keeper.node is not None:
            return self._keeper.node.metadata.labels
        return {**self._config.node_labels, **own_labels(self._config, self._keeper.facts)}
