"""Puts together a node's static Pods."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from nodewright.kube.objects import ObjectReference
from nodewright_agent.config import AgentConfig
from nodewright_agent.pods.manager import PodManager
from nodewright_agent.pods.ports import Clock, Events
from nodewright_agent.pods.static.folder import Folder, Reading
from nodewright_agent.pods.static.manager import StaticPods
from nodewright_agent.pods.static.mirrors import MirrorPods
from nodewright_agent.pods.times import rfc3339


class NoFolder:
    """Of a node without static Pods: those of an earlier agent that had some are not wanted any more."""

    async def run(self, take: Callable[[Reading], None]) -> None:
        """Give an empty reading; never returns."""
        take(Reading([], frozenset(), whole=True))
        await asyncio.Event().wait()


def build(
    config: AgentConfig,
    manager: PodManager,
    mirrors: MirrorPods | None,
    events: Events,
    node: ObjectReference,
    clock: Clock,
) -> StaticPods:
    """Connect files, workers and mirrors (None: there is no API)."""

    def told(text: str) -> None:
        events.event(node, "Warning", "FailedValidation", text)

    path = config.static_pod_path
    folder = Folder(Path(path), config.node_name, lambda: rfc3339(clock()), told) if path else NoFolder()
    static = StaticPods(folder, manager, mirrors)
    manager.static = static
    return static
