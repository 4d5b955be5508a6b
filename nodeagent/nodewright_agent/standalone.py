"""What an agent without an API server has in the place of one: everything that would ask it gets the same answer."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

from nodewright.kube.client import Client
from nodewright.kube.config import Config
from nodewright.kube.errors import ApiError
from nodewright.kube.events import EventRecorder
from nodewright.kube.objects import Pod, PodStatus
from nodewright_agent.server.authn import User
from nodewright_agent.server.authz import Authorizer

log = logging.getLogger(__name__)


def _absent() -> ApiError:
    return ApiError(0, "Standalone", "this agent is standalone: it has no API server")


class NoServer(Client):
    """A client of nothing: each request fails with ApiError, status 0."""

    def __init__(self) -> None:
        """Connect to nothing."""
        super().__init__(Config("https://standalone.invalid"))

    async def request(self, *_: Any, **__: Any) -> bytes:
        """Fail."""
        raise _absent()

    async def stream(self, *_: Any, **__: Any) -> AsyncIterator[bytes]:
        """Fail."""
        raise _absent()
        yield b""


class LoggedEvents(EventRecorder):
    """Events for the log, where nobody keeps objects for them."""

    def event(
        self, ref: Any, type: str, reason: str, message: str, *, action: str = "", related: Any | None = None
    ) -> None:
        """Log one event."""
        level = logging.WARNING if type == "Warning" else logging.INFO
        log.log(level, "%s: %s", reason, message, extra={"kind": ref.kind, "object": f"{ref.namespace}/{ref.name}"})

    async def flush(self, timeout: float = 5.0) -> bool:
        """Nothing waits."""
        return True


class NobodyWatches:
    """A status sink without an API: the kubelet API shows statuses as they are."""

    def publish(self, pod: Pod, status: PodStatus, *, lazy: bool = False) -> None:
        """Nobody is told."""

    def observed(self, pod: Pod) -> None:
        """There are no versions."""

    async def flushed(self, uid: str) -> None:
        """Nothing waits."""

    async def delete(self, pod: Pod) -> None:
        """There is nothing to delete."""

    def forget(self, uid: str) -> None:
        """Nothing is kept."""


class EveryCertificate(Authorizer):
    """Whoever has a certificate of ``client_ca_file`` may do all, as with a kubelet's AlwaysAllow."""

    async def allowed(self, user: User, method: str, path: str) -> bool:
        """Allow it."""
        return True
