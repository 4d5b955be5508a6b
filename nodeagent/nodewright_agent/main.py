"""The agent: everything of one node put together in one asyncio process.

Stopping it, in whatever way, leaves containers, addresses and mounts as they are; the next one goes on with them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from nodewright.kube.backoff import Backoff
from nodewright.kube.cache import WatchCache
from nodewright.kube.events import EventRecorder
from nodewright.kube.objects import Service
from nodewright.kube.resources import SERVICES
from nodewright_agent import heap
from nodewright_agent.assembly import Node, assemble
from nodewright_agent.bootstrap.clients import Clients, connect
from nodewright_agent.config import AgentConfig, ConfigError
from nodewright_agent.health import Health, served
from nodewright_agent.pods.recovery import Recovered, recover
from nodewright_agent.runtime.errors import ContainerRuntimeError
from nodewright_agent.runtime.images.fsutil import held_alone
from nodewright_agent.standalone import LoggedEvents

log = logging.getLogger(__name__)

FLUSH_SECONDS = 2.0
EVENT_PAUSE = 0.5
"""Seconds that events wait, while the pod that they tell about starts: its containers and status come first."""
LASTING = ("events", "services", "network", "identity", "node", "pods", "static pods")
"""Tasks that end only by an error that the agent cannot live with."""


async def run(config: AgentConfig, ready: Callable[[Node], None] | None = None) -> None:
    """Run the agent until SIGTERM or SIGINT, or until cancelled. Raises ``ConfigError`` and runtime errors at start.

    ``ready`` is called once everything that was left by an earlier agent is taken up.
    """
    heap.share()
    _directories(config)
    # Two agents on one state directory would fight over its containers.
    other = ConfigError(f"another agent is running with state_dir {config.state}")
    with held_alone(config.state / "agent.lock", other):
        health = Health()
        async with served(health, config), connect(config) as clients:
            await _serve(config, clients, health, ready)


async def _serve(config: AgentConfig, clients: Clients, health: Health, ready: Callable[[Node], None] | None) -> None:
    events = LoggedEvents if config.standalone else EventRecorder
    recorder = events(clients.node, component="kubelet", instance=config.node_name, pause=EVENT_PAUSE)
    services: WatchCache[Service] = WatchCache(clients.cluster, SERVICES, type=Service, name="services")
    async with assemble(config, clients, recorder, services, time.time) as node:
        found = await node.engine.found()
        recovered = recover(found)
        counts = {"pods": len(recovered.restored), "orphans": len(recovered.orphans)}
        log.info("agent starts", extra={"node": config.node_name, **counts})
        for cid in recovered.surplus:
            try:
                await node.parts.runtime.delete(cid)
            except ContainerRuntimeError as error:  # it goes with its pod
                log.warning("a container that no pod counts cannot be removed: %s", error, extra={"container": cid})
        heap.settle()
        if ready is not None:
            ready(node)
        stop = _stop_signals()
        works = _works(node, recorder, services, recovered)
        tasks = [asyncio.create_task(work, name=name) for name, work in works.items()]
        named = {task.get_name(): task for task in tasks}
        lasting = [named[name] for name in LASTING if name in named]
        health.follow(lasting, named["server"], node.manager.failures)
        stopper = asyncio.create_task(stop.wait(), name="stop")
        try:
            done, _ = await asyncio.wait([*lasting, stopper], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopper}:
                task.result()
        finally:
            stopper.cancel()
            await node.manager.close()
            await recorder.flush(FLUSH_SECONDS)
            for task in tasks:
                task.cancel()
            await asyncio.gather(stopper, *tasks, return_exceptions=True)
    log.info("agent has stopped; its pods go on")


def _works(
    node: Node, recorder: EventRecorder, services: WatchCache[Service], recovered: Recovered
) -> dict[str, Coroutine[Any, Any, None]]:
    """What the agent does side by side, by name; a standalone one leaves out all that needs an API server."""
    restored, orphans, manager = recovered.restored, recovered.orphans, node.manager
    common = {
        "network ready": _relay(node.networking.ready.wait, node.parts.network_ready),
        "server": _kept(node.serve, node, "server"),
        "log rotation": _kept(node.live.rotator.run, node, "log rotation"),
        "upkeep": _kept(node.upkeep.run, node, "upkeep"),
    }
    if node.config.standalone:
        pods = {"pods": manager.run_alone(restored, orphans, node.static.read.wait), "static pods": node.static.run()}
        return {"network": node.networking.run_alone(), **common, **pods}

    async def known() -> None:
        await node.static.read.wait()  # what they left without a record is theirs
        await node.keeper.known.wait()

    return {
        "events": recorder.run(),
        "services": services.run(),
        "services ready": _relay(services.wait_synced, node.parts.services_ready),
        "network": node.networking.run(),
        "node": node.keeper.run(),
        "identity": node.keep_identity(),
        "proxy": _kept(node.run_proxy, node, "proxy"),
        "settings": _kept(node.live.config.run, node, "settings"),
        **common,
        "pods": manager.run(restored, orphans, known),
        "static pods": node.static.run(),
    }


async def _relay(wait: Callable[[], Awaitable[object]], event: asyncio.Event) -> None:
    await wait()
    event.set()


async def _kept(work: Callable[[], Awaitable[None]], node: Node, name: str) -> None:
    """Run a part that pods do not depend on to its end: its failure makes the node not Ready, and is tried again."""
    backoff = Backoff(1.0, 60.0)
    while True:
        try:
            await work()
        except Exception as error:
            log.exception("%s failed, trying again", name)
            node.keeper.report(name, f"{name}: {error}")
            await asyncio.sleep(backoff.next())
            node.keeper.report(name, None)  # parts run on for good: what fails again is told again
        else:
            node.keeper.report(name, None)
            return


def _directories(config: AgentConfig) -> None:
    try:
        for path in (config.state, config.run, *config.log_directories.values()):
            path.mkdir(parents=True, exist_ok=True, mode=0o755)
    except OSError as error:
        raise ConfigError(f"cannot make {error.filename}: {error.strerror}") from None


def _stop_signals() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(RuntimeError, ValueError):  # not in the main thread: tests
            loop.add_signal_handler(number, stop.set)
    return stop
