"""One probe of each kind; the registry is ``check``. A new kind is a branch here and a handler."""

from __future__ import annotations

from nodewright.kube.objects import Container, Probe
from nodewright_agent.pods import handlers
from nodewright_agent.pods.handlers import Answer, Executor


async def check(runtime: Executor, probe: Probe, container: Container, container_id: str, host: str) -> Answer:
    """Probe once. What goes wrong in the probe itself counts as a failure, with its text."""
    timeout = float(max(1, probe.timeout_seconds))
    try:
        if probe.exec is not None:
            return await handlers.run_command(runtime, container_id, probe.exec.command, timeout)
        if probe.http_get is not None:
            return await handlers.http_get(probe.http_get, host, container, timeout)
        if probe.tcp_socket is not None:
            return await handlers.tcp_connect(probe.tcp_socket, host, container, timeout)
    except ValueError as error:
        return Answer(False, str(error))
    return Answer(False, "missing probe handler")


def supported(probe: Probe | None) -> bool:
    """Tell whether this node can do the probe: all but gRPC."""
    return probe is None or probe.grpc is None
