"""postStart and preStop hooks."""

from __future__ import annotations

import asyncio

from nodewright.kube.objects import Container, LifecycleHandler
from nodewright_agent.pods import handlers
from nodewright_agent.pods.handlers import Answer, Executor

HTTP_TIMEOUT = 30.0
"""Seconds that an HTTP hook may take where nothing else ends it; upstream's client has none of its own."""


async def run(runtime: Executor, hook: LifecycleHandler, container: Container, container_id: str, host: str) -> Answer:
    """Run a hook to its end. The caller bounds its time where the rules do (preStop: the grace period)."""
    if hook.exec is not None:
        return await handlers.run_command(runtime, container_id, hook.exec.command, None)
    if hook.http_get is not None:
        return await handlers.http_get(hook.http_get, host, container, HTTP_TIMEOUT)
    if hook.sleep is not None:
        await asyncio.sleep(hook.sleep.seconds)
        return Answer(True)
    # tcpSocket is kept in the API for compatibility only; upstream refuses it in the same way.
    return Answer(False, "invalid handler: nothing to do")
