"""Puts together what a process needs to follow NodeAgentConfigs: the agent, and the proxy that runs alone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from nodewright.kube.backoff import Backoff
from nodewright.kube.client import Client
from nodewright_agent.config import AgentConfig
from nodewright_agent.liveconfig.agent import LogRotation, MaxPods, log_limits
from nodewright_agent.liveconfig.pressure import Pressure
from nodewright_agent.liveconfig.watcher import LiveConfig
from nodewright_agent.pods.logrotation import Containers, LogRotator
from nodewright_agent.proxy.wishes import Wishes

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AgentLive:
    """The agent's live settings, and what exists only for them."""

    config: LiveConfig
    rotator: LogRotator
    wishes: Wishes | None
    """For the proxy in this process; None where there is none."""

    async def served(self, proxy: Awaitable[None]) -> None:
        """Run the proxy, and note why when it fails, for the status of NodeAgentConfigs."""
        try:
            await proxy
        except Exception as error:
            if self.wishes is not None:
                self.wishes.fail(str(error))
            raise


def for_agent(
    config: AgentConfig,
    cluster: Client,
    containers: Containers,
    node_changed: Callable[[], None],
    pressure_changed: Callable[[], None],
) -> AgentLive:
    """Build the agent's; `node_changed` has the Node's status looked at, `pressure_changed` eviction's settings."""
    rotator = LogRotator(containers, log_limits(config))
    wishes = Wishes() if config.proxy_mode != "none" else None
    host = f"Node {config.host_node_name}" if config.host_node_name else "its own Node"
    live = LiveConfig(
        cluster,
        config.node_name,
        "agent",
        subscribers=(
            MaxPods(config, node_changed),
            LogRotation(config, rotator.change),
            Pressure(config, pressure_changed, node_changed),
        ),
        wishes=wishes,
        proxy_elsewhere=f"the host's service proxy obeys the configurations of {host}",
    )
    return AgentLive(live, rotator, wishes)


async def beside_proxy(client: Client, node_name: str, wishes: Wishes, proxy: Awaitable[None]) -> None:
    """Run a proxy that is alone in its process, and beside it what follows the NodeAgentConfigs of its Node.

    Raises what the proxy raises.
    """
    live = LiveConfig(client, node_name, "proxy", wishes=wishes)
    following = asyncio.create_task(_follow(live), name="live configuration")
    try:
        await proxy
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def _follow(live: LiveConfig) -> None:
    """Services do not depend on it: what goes wrong is logged and tried again."""
    backoff = Backoff(1.0, 60.0)
    while True:
        try:
            await live.run()
        except Exception:
            log.exception("NodeAgentConfigs are not followed, trying again")
            await asyncio.sleep(backoff.next())
