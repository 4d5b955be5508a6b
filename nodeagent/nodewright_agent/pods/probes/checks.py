"""One probe of each kind; the registry is ``check``. A new kind is a branch here and a handler."""

from __future__ import annotations

import asyncio

from nodewright.kube.objects import Container, GRPCAction, HTTPGetAction, Probe
from nodewright_agent.pods import env, handlers
from nodewright_agent.pods.backoff import format_duration
from nodewright_agent.pods.handlers import PROBE_AGENT, Answer, Executor, Outcome

TRIES = 3
"""A probe that could not be tried is tried so often before the result is thrown away."""


async def check(runtime: Executor, probe: Probe, container: Container, container_id: str, host: str) -> Answer:
    """Probe once. UNKNOWN: the probe itself could not be done, which says nothing about the container."""
    answer = Answer(Outcome.UNKNOWN, f"missing probe handler for {container.name}")
    for _ in range(TRIES):
        try:
            answer = await _check(runtime, probe, container, container_id, host)
        except ValueError as error:
            return Answer(Outcome.UNKNOWN, str(error))
        if answer.outcome is not Outcome.UNKNOWN:
            break
    return answer


def command(probe: Probe, container: Container) -> list[str]:
    """Return the command of an exec probe: $(NAME) stands for the variables with a plain value, as upstream. Pure."""
    values = {one.name: one.value for one in container.env if one.value_from is None}
    words = probe.exec.command if probe.exec is not None else []
    return [env.expand(word, values.get) for word in words]


def http_answer(response: handlers.Response | str) -> Answer:
    """Judge an HTTP answer: 200 to 399 is well; what is sent to another host is a success with a warning. Pure.

    A body that breaks off is no answer, whatever the status (upstream's DoHTTPProbe).
    """
    if isinstance(response, str):
        return Answer(Outcome.FAILURE, response)
    if response.cut:
        return Answer(Outcome.UNKNOWN, response.cut)
    if not 200 <= response.status < 400:
        return Answer(Outcome.FAILURE, f"HTTP probe failed with statuscode: {response.status}")
    if response.status >= 300:
        return Answer(Outcome.WARNING, f"Probe terminated redirects, Response body: {response.body}")
    return Answer(Outcome.SUCCESS, response.body)


async def _check(runtime: Executor, probe: Probe, container: Container, container_id: str, host: str) -> Answer:
    timeout = float(max(1, probe.timeout_seconds))
    if probe.exec is not None:
        return await handlers.run_command(runtime, container_id, command(probe, container), timeout)
    if probe.http_get is not None:
        return await _http(probe.http_get, host, container, timeout)
    if probe.tcp_socket is not None:
        return await handlers.tcp_connect(probe.tcp_socket, host, container, timeout)
    if probe.grpc is not None:
        return await _grpc(probe.grpc, host, timeout)
    return Answer(Outcome.UNKNOWN, f"missing probe handler for {container.name}")


async def _http(action: HTTPGetAction, host: str, container: Container, timeout: float) -> Answer:
    url = handlers.http_url(action, host, container)
    return http_answer(await handlers.http_get(url, action, PROBE_AGENT, timeout))


async def _grpc(action: GRPCAction, host: str, timeout: float) -> Answer:
    from nodewright_agent.pods.probes import grpc  # few pods have such probes

    address, within = f"{handlers.bracketed(host)}:{action.port}", format_duration(timeout)
    try:
        async with asyncio.timeout(timeout):
            status = await grpc.check(host, action.port, action.service or "", PROBE_AGENT, timeout)
    except TimeoutError:
        return Answer(Outcome.FAILURE, f"timeout: health rpc did not complete within {within}")
    except OSError as error:
        text = f'error: failed to connect service at "{address}": {handlers.connect_error(error)}'
        return Answer(Outcome.FAILURE, text)
    except grpc.CallError as error:
        return Answer(Outcome.FAILURE, grpc_failure(error.code, error.message, within))
    if status != grpc.SERVING:
        return Answer(Outcome.FAILURE, f'service unhealthy (responded with "{status}")')
    return Answer(Outcome.SUCCESS, "service healthy")


def grpc_failure(code: str, message: str, within: str) -> str:
    """Return upstream's words for a call that failed. Pure."""
    if code == "Unimplemented":
        protocol = "grpc.health.v1.Health"
        return f"error: this server does not implement the grpc health protocol ({protocol}): {message}"
    if code == "DeadlineExceeded":
        return f"timeout: health rpc did not complete within {within}"
    return f"error: health rpc probe failed: rpc error: code = {code} desc = {message}"
