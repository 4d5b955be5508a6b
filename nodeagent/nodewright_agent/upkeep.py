"""What keeps a node healthy beside its Pods: usage figures, eviction, image collection, graceful shutdown."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from nodewright.kube.objects import Pod
from nodewright_agent.config import AgentConfig
from nodewright_agent.eviction import reading
from nodewright_agent.eviction.manager import EvictionManager, Reclaimers
from nodewright_agent.node.keeper import NodeKeeper
from nodewright_agent.node.logind import Logind
from nodewright_agent.node.shutdown import ShutdownManager, periods
from nodewright_agent.pods.containers import Containers
from nodewright_agent.pods.manager import PodManager
from nodewright_agent.pods.ports import Clock, Events
from nodewright_agent.runtime.images import gc
from nodewright_agent.runtime.images.errors import ImageError
from nodewright_agent.server import nodemetrics
from nodewright_agent.server.nodemetrics import NodeCounters
from nodewright_agent.usage.collect import UsageReader
from nodewright_agent.usage.disk import Count


class NodeImages(gc.Store, Protocol):
    """What is needed of the images."""

    def usage(self) -> tuple[int, int]:
        """Bytes and entries of all images. Blocking."""

    def id_of(self, ref: str) -> str:
        """The id that a name leads to; else "". Raises ImageError."""


@dataclass(slots=True)
class Upkeep:
    """The parts that run."""

    config: AgentConfig
    manager: PodManager
    usage: UsageReader
    eviction: EvictionManager
    images: gc.ImageCollector
    shutdown: ShutdownManager
    counters: NodeCounters

    async def run(self) -> None:
        """Do all of it until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.eviction.run(), name="eviction")
            group.create_task(self.images.run(), name="image collection")
            group.create_task(self.shutdown.run(), name="shutdown")

    def admit(self, pod: Pod) -> tuple[str, str] | None:
        """Refuse a Pod as the node is now; None when it may come."""
        return self.eviction.admit(pod) or self.shutdown.admit(pod)

    def apply(self) -> None:
        """Obey the settings as they are now. Raises ``ThresholdError`` and changes nothing."""
        config = self.config
        wanted = reading.settings(config)
        self.eviction.apply(wanted)
        self.images.apply(
            gc.Policy(
                config.image_gc_high_threshold_percent,
                config.image_gc_low_threshold_percent,
                config.image_minimum_gc_age,
                config.image_maximum_gc_age,
            )
        )

    def metrics(self) -> str:
        """Write what /metrics says of the node."""
        workers = self.manager.workers.values()
        states: Counter[str] = Counter(run.state for one in workers for run in one.state.all_instances())
        running = [one.pod for one in workers if any(run.running for run in one.state.all_instances())]
        counts = nodemetrics.PodCounts(running, states, len(self.manager.workers))
        return nodemetrics.text(self.config.node_name, self.counters, counts)


def build(
    config: AgentConfig,
    runtime: Containers,
    manager: PodManager,
    images: NodeImages,
    keeper: NodeKeeper,
    events: Events,
    clock: Clock,
    written: Callable[[], Awaitable[Mapping[str, Count]]] | None = None,
) -> Upkeep:
    """Put the parts together, with the settings of the file, and give the keeper its conditions."""
    counters = NodeCounters()
    usage = UsageReader(manager, runtime, config, images.usage, time.time, written)
    root = Path(config.image_root)

    def in_use() -> set[str]:
        found: set[str] = set()
        named: set[str] = set()
        for worker in manager.workers.values():
            spec = worker.pod.spec
            found.update(run.image_id for run in worker.state.all_instances())
            if not worker.state.finished:
                named.update(one.image for one in (*spec.init_containers, *spec.containers, *spec.ephemeral_containers))
                named.update(volume.image.reference for volume in spec.volumes if volume.image is not None)
        return found.union(*(_names(images, name) for name in named))

    collector = gc.ImageCollector(
        images,
        config.state / "image-uses.json",
        in_use,
        lambda: gc.file_system(root),
        events,
        keeper.reference,
        clock,
        counters.images_collected,
    )

    async def ended_containers() -> None:
        for worker in list(manager.workers.values()):
            for run in worker.state.all_instances():
                if run.state == "exited" and run is not worker.state.latest(run.name):
                    await runtime.delete(run.id)

    reclaimers = Reclaimers(
        ended_containers, collector.delete_unused, lambda: os.stat(root).st_dev != os.stat(config.state).st_dev
    )
    eviction = EvictionManager(
        usage, lambda: manager.workers, reclaimers, events, keeper.reference, counters, clock, keeper.refresh
    )
    keeper.pressures = eviction.pressures
    shutdown = ShutdownManager(
        Logind(),
        periods(config),
        lambda: manager.workers,
        lambda problem: keeper.report("shutdown", problem),
        events,
        keeper.reference,
        counters,
        clock,
    )
    made = Upkeep(config, manager, usage, eviction, collector, shutdown, counters)
    made.apply()
    return made


def _names(images: NodeImages, reference: str) -> list[str]:
    """The id of the image that a reference means now; nothing where it is not there, or is no reference."""
    try:
        found = images.id_of(reference)
    except ImageError:  # the Pod is told when it starts
        return []
    return [found] if found else []
