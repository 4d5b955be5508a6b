"""Whether the agent is alive and well: what /healthz says, from the first moment on."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Collection, Mapping

from nodewright_agent.config import AgentConfig, ConfigError
from nodewright_agent.server.healthz import HealthzServer


class Health:
    """What there is to say against this agent. Pods that fail and a missing API server are not among it: they are no
    reason to start another agent."""

    def __init__(self) -> None:
        """Begin as an agent that starts."""
        self._lasting: Collection[asyncio.Task[None]] = ()
        self._server: asyncio.Task[None] | None = None
        self._failures: Mapping[str, str] = {}

    def follow(
        self, lasting: Collection[asyncio.Task[None]], server: asyncio.Task[None], failures: Mapping[str, str]
    ) -> None:
        """Take the tasks that must never end, the one that ends once the kubelet API listens, and pods that nobody
        works for any more: UID -> what happened."""
        self._lasting, self._server, self._failures = lasting, server, failures

    def reasons(self) -> list[str]:
        """Return one text for each thing that is wrong; empty when all is well."""
        if self._server is None:
            return ["starting: what an earlier agent left is not yet taken up"]
        found = [f"{task.get_name()}: has ended" for task in self._lasting if task.done()]
        if not self._server.done():
            found.append("server: the kubelet API does not listen yet")
        return [*found, *self._failures.values()]


@contextlib.asynccontextmanager
async def served(health: Health, config: AgentConfig) -> AsyncIterator[None]:
    """Answer /healthz meanwhile, unless it is switched off. Raises ``ConfigError`` when the port cannot be had."""
    if config.healthz_port == 0:
        yield
        return
    server = HealthzServer(health.reasons, config.healthz_bind_address, config.healthz_port)
    try:
        await server.start()
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise ConfigError(
            f"healthz_port: cannot listen at {config.healthz_bind_address} port {config.healthz_port}: {reason} "
            "(a kubelet has 10248; choose another one, or 0 for none)"
        ) from None
    try:
        yield
    finally:
        await server.stop()
