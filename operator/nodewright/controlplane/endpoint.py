"""Small HTTP requests to our own processes while they start: readiness, before any client makes sense.

The one place where we poll: none of our processes announces readiness otherwise. Each wait also watches
the process, so that a dead one is reported at once with the end of its log.
"""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nodewright.controlplane.errors import ControlPlaneError, StartTimeout
from nodewright.controlplane.pki import Pair
from nodewright.controlplane.processes import Component, ProcessRecord

_POLL = 0.1  # seconds between questions


@dataclass(frozen=True)
class Endpoint:
    """A server of ours and the credentials to ask it with; plain HTTP where there is no `ca`."""

    host: str
    port: int
    ca: Path | None = None
    client: Pair | None = None

    def get(self, path: str, timeout: float = 5.0) -> tuple[int, str]:
        """Status and body of GET `path`; OSError when there is no answer."""
        connection = self._connection(timeout)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode(errors="replace")
        except http.client.HTTPException as error:
            raise OSError(f"no HTTP answer: {error!r}") from error
        finally:
            connection.close()

    def _connection(self, timeout: float) -> http.client.HTTPConnection:
        if self.ca is None:
            return http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        context = ssl.create_default_context(cafile=str(self.ca))
        if self.client is not None:
            context.load_cert_chain(self.client.cert, self.client.key)
        return http.client.HTTPSConnection(self.host, self.port, context=context, timeout=timeout)

    def problem(self, path: str) -> str | None:
        """None when GET `path` answers 200, else what is wrong, in one line."""
        try:
            status, body = self.get(path)
        except OSError as error:
            return str(error)
        return None if status == 200 else f"{path} answers {status}: {failed_checks(body)}"


def failed_checks(body: str) -> str:
    """The checks that a Kubernetes health answer marks with [-], else its first line."""
    failed = [line[3:].split(" ")[0] for line in body.splitlines() if line.startswith("[-]")]
    if failed:
        return "waiting for " + ", ".join(failed)
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body.strip().partition("\n")[0][:200]


def wait_ready(
    component: Component,
    record: ProcessRecord,
    probe: Callable[[], str | None],
    *,
    timeout: float,
    update: Callable[[str], None] = lambda _text: None,
) -> None:
    """Return once `probe` finds no problem; raise when the process ends first or `timeout` seconds pass."""
    deadline = time.monotonic() + timeout
    while (problem := probe()) is not None:
        update(problem)
        if component.wait_exit(record, _POLL):
            raise ControlPlaneError(
                f"{component.name} ended while it was starting:\n{component.log_tail()}",
                f"the whole log is in {component.log_path}",
            )
        if time.monotonic() > deadline:
            raise StartTimeout(
                f"{component.name} was not ready after {timeout:.0f} s: {problem}",
                f"its log is in {component.log_path}",
            )
