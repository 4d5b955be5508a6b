"""postStart and preStop hooks, by the rules of kubelet's lifecycle handlers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from nodewright.kube.objects import Container, HTTPGetAction, LifecycleHandler
from nodewright_agent.pods import handlers
from nodewright_agent.pods.handlers import HOOK_AGENT, Answer, Executor, Outcome

HTTP_TIMEOUT = 30.0
"""Seconds that an HTTP hook may take where nothing else ends it; upstream's client has none of its own."""
_FALLBACK = "request to HTTPS lifecycle hook got HTTP response, retry with HTTP succeeded"

Tell = Callable[[str, str, str], None]
"""Takes type, reason and message of an event about the pod."""


async def run(
    runtime: Executor, hook: LifecycleHandler, container: Container, container_id: str, host: str, pod: str, tell: Tell
) -> Answer:
    """Run a hook to its end; ``pod`` is its display name, for the text of a failure.

    The caller bounds its time where the rules do (preStop: the grace period).
    """
    which = f'for Container "{container.name}" in Pod "{pod}" failed - error:'
    if hook.exec is not None:
        answer = await handlers.run_command(runtime, container_id, hook.exec.command, None)
        if answer.ok:
            return answer
        words = " ".join(hook.exec.command)
        text = f'Exec lifecycle hook ([{words}]) {which} command failed, message: "{answer.text}"'
        return Answer(answer.outcome, text)
    if hook.http_get is not None:
        problem = await _http(hook.http_get, host, container, tell)
        if not problem:
            return Answer(Outcome.SUCCESS)
        return Answer(Outcome.FAILURE, f"HTTP lifecycle hook ({hook.http_get.path}) {which} {problem}")
    if hook.sleep is not None:
        await asyncio.sleep(hook.sleep.seconds)
        return Answer(Outcome.SUCCESS)
    # tcpSocket is kept in the API for compatibility only; upstream refuses it in the same way.
    return Answer(Outcome.FAILURE, "Cannot run handler: invalid handler: nothing to do")


async def _http(action: HTTPGetAction, host: str, container: Container, tell: Tell) -> str:
    """Ask once and return what went wrong. Any answer will do, whatever its status."""
    try:
        url = handlers.http_url(action, host, container)
    except ValueError as error:
        return str(error)
    response = await handlers.http_get(url, action, HOOK_AGENT, HTTP_TIMEOUT)
    if isinstance(response, str) and url.scheme == "https" and "tls: " in response:
        # Before 1.27 kubelets asked by HTTP whatever the scheme; servers that were written for them still work.
        plain = msgspec.structs.replace(
            action, http_headers=[one for one in action.http_headers if one.name.lower() != "authorization"]
        )
        retry = await handlers.http_get(url.with_scheme("http"), plain, HOOK_AGENT, HTTP_TIMEOUT)
        if not isinstance(retry, str):
            tell("Warning", "LifecycleHTTPFallback", _FALLBACK)
            return ""
    return response if isinstance(response, str) else ""
