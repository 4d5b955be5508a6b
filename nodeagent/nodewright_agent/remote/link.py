"""The tie to the runtime: whether it is there, whether its network is, what it is like now, and what it runs."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from nodewright.kube.objects import Node
from nodewright_agent.config import AgentConfig
from nodewright_agent.node.keeper import NodeKeeper
from nodewright_agent.remote import facts
from nodewright_agent.remote.client import CallFailed, Client
from nodewright_agent.remote.facts import RuntimeFacts
from nodewright_agent.remote.images import RemoteImages
from nodewright_agent.remote.watching import Watcher

log = logging.getLogger(__name__)

PERIOD = 5.0
"""Seconds between two questions for the runtime's status (kubelet's)."""
_SOON = 1.0
"""While it does not answer."""
PATIENCE = 30.0
"""Seconds without an answer after which the node is not Ready (kubelet's): what is restarted is back by then."""
SILENCE = 180.0
"""Seconds without a whole picture of the containers after which the node is not Ready (kubelet's PLEG threshold)."""
IMAGES_PERIOD = 60.0
RUNTIME, NETWORK = "container runtime", "network"
"""Components in the Node's condition Ready."""
DOWN = "container runtime is down"


class Link:
    """Implements ``engine.Networking``: the pods' network is the runtime's affair, and is there when it says so."""

    def __init__(
        self,
        client: Client,
        watcher: Watcher,
        images: RemoteImages,
        keeper: NodeKeeper,
        config: AgentConfig,
        changed: Callable[[RuntimeFacts], None],
        up: asyncio.Event,
    ) -> None:
        """``changed`` is told what the runtime is like, each time that it is asked; ``up`` is set while it answers."""
        self.ready = asyncio.Event()
        self._client, self._watcher, self._images, self._keeper = client, watcher, images, keeper
        self._changed, self._up = changed, up
        self._given = config.pod_cidr
        self._told = ""
        """The pod CIDR that the runtime has been told."""
        self._wake = asyncio.Event()
        keeper.on_change(lambda node: self._wake.set())
        watcher.on_silence = self._wake.set
        keeper.report(NETWORK, "container runtime network not ready: container runtime status check may not have "
                      "completed yet")  # fmt: skip

    async def run(self) -> None:
        """Follow the runtime; never returns."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watcher.run())
            group.create_task(self._ask())
            group.create_task(self._look_at_images())

    async def run_alone(self) -> None:
        """The same: no other node has a part in it."""
        await self.run()

    async def _ask(self) -> None:
        down, answered = False, time.monotonic()
        while True:
            self._wake.clear()
            try:
                await self._tell_cidr(self._keeper.node)
                version = await self._client.runtime("Version", deadline=PERIOD * 2)
                status = await self._client.runtime("Status", deadline=PERIOD * 2, verbose=True)
            except CallFailed as error:
                if not down:
                    log.error("the runtime does not answer: %s", error)
                down, self._told = True, ""
                self._up.clear()
                if time.monotonic() - answered >= PATIENCE:
                    self._keeper.report(RUNTIME, DOWN)
            else:
                if down:
                    log.info("the runtime answers again")
                    self._watcher.wake()
                down, answered = False, time.monotonic()
                self._up.set()
                self._take(version, status)
            try:
                async with asyncio.timeout(min(PERIOD, _SOON) if down else PERIOD):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _tell_cidr(self, node: Node | None) -> None:
        """Some runtimes make their network's configuration from it, others have one already."""
        cidr = self._given or (node.spec.pod_cidr if node is not None else "")
        if not cidr or cidr == self._told:
            return
        wanted = {"network_config": {"pod_cidr": cidr}}
        try:
            await self._client.runtime("UpdateRuntimeConfig", deadline=PERIOD * 2, runtime_config=wanted)
        except CallFailed as error:
            if error.down or error.late:
                raise
            log.warning("the runtime does not take the pod CIDR %s: %s", cidr, error)
        self._told = cidr

    def _take(self, version: Any, status: Any) -> None:
        self._changed(facts.of_answers(version, status))
        runtime = facts.problem(status, facts.RUNTIME_READY)
        if not runtime and (silent := self._watcher.silent()) >= SILENCE:
            runtime = f"it has not told of its containers for {silent:.0f} seconds"
        network = facts.problem(status, facts.NETWORK_READY)
        self._keeper.report(RUNTIME, f"container runtime not ready: {runtime}" if runtime else None)
        self._keeper.report(NETWORK, f"container runtime network not ready: {network}" if network else None)
        if not network:
            self.ready.set()

    async def _look_at_images(self) -> None:
        while True:
            try:
                await self._images.look()
            except CallFailed as error:
                log.debug("the runtime does not tell of its images: %s", error)
            await asyncio.sleep(IMAGES_PERIOD)
