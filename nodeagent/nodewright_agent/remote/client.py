"""Calls to a CRI v1 runtime, each with a deadline, and its refusals as errors of the agent's own runtime."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio

from nodewright_agent.cri import wire
from nodewright_agent.runtime.errors import ContainerNotFound, ContainerRuntimeError

TIMEOUT = 120.0
"""Seconds for a call (kubelet's runtimeRequestTimeout)."""
LONG = 2 * TIMEOUT
"""For those in which a runtime sets a network up (kubelet's rule)."""
_LIMIT = 64 << 20
_OPTIONS = [
    ("grpc.max_receive_message_length", _LIMIT),
    ("grpc.max_send_message_length", _LIMIT),
    # The runtime is on this machine: when it is back, it is to be found at once.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.enable_http_proxy", 0),
]


class CallFailed(ContainerRuntimeError):
    """The runtime refused a call, or gave no answer; the text is the runtime's."""

    def __init__(self, text: str, code: grpc.StatusCode) -> None:
        super().__init__(text)
        self.code = code

    @property
    def down(self) -> bool:
        """Whether there is nobody who answers."""
        return self.code is grpc.StatusCode.UNAVAILABLE

    @property
    def unknown_call(self) -> bool:
        """Whether the runtime has no such call."""
        return self.code is grpc.StatusCode.UNIMPLEMENTED

    @property
    def late(self) -> bool:
        """Whether the time was not enough."""
        return self.code is grpc.StatusCode.DEADLINE_EXCEEDED


class Missing(CallFailed, ContainerNotFound):
    """There is no such container, sandbox or image."""


class Client:
    """One runtime's two services. Safe for any number of calls at once; lost connections are made anew."""

    def __init__(self, endpoint: str, image_endpoint: str = "") -> None:
        """Take the addresses, such as ``unix:///run/containerd/containerd.sock``; nothing is sent yet."""
        self.endpoint = endpoint
        self._runtime = grpc.aio.insecure_channel(endpoint, options=_OPTIONS)
        apart = image_endpoint not in ("", endpoint)
        self._images = grpc.aio.insecure_channel(image_endpoint, options=_OPTIONS) if apart else self._runtime
        self._calls: dict[str, Any] = {}

    async def close(self) -> None:
        """Hang up; calls that are under way end."""
        await self._runtime.close()
        if self._images is not self._runtime:
            await self._images.close()

    async def runtime(self, method: str, *, deadline: float | None = TIMEOUT, **fields: Any) -> Any:
        """Call the RuntimeService. Raises CallFailed, Missing."""
        return await self._call(self._runtime, "RuntimeService", method, deadline, fields)

    async def images(self, method: str, *, deadline: float | None = TIMEOUT, **fields: Any) -> Any:
        """Call the ImageService. Raises CallFailed, Missing."""
        return await self._call(self._images, "ImageService", method, deadline, fields)

    async def events(self) -> AsyncIterator[Any]:
        """The runtime's ContainerEventResponses from now on. Raises CallFailed."""
        call = self._runtime.unary_stream(
            "/runtime.v1.RuntimeService/GetContainerEvents",
            request_serializer=wire.GetEventsRequest.SerializeToString,
            response_deserializer=wire.ContainerEventResponse.FromString,
        )
        try:
            async for event in call(wire.GetEventsRequest()):
                yield event
        except grpc.aio.AioRpcError as error:
            raise failure(error) from None

    async def _call(
        self, channel: grpc.aio.Channel, service: str, method: str, deadline: float | None, fields: dict[str, Any]
    ) -> Any:
        request = getattr(wire, f"{method}Request")
        call = self._calls.get(method)
        if call is None:
            call = self._calls[method] = channel.unary_unary(
                f"/runtime.v1.{service}/{method}",
                request_serializer=request.SerializeToString,
                response_deserializer=getattr(wire, f"{method}Response").FromString,
            )
        try:
            return await call(request(**fields), timeout=deadline)
        except grpc.aio.AioRpcError as error:
            raise failure(error) from None


def failure(error: grpc.aio.AioRpcError) -> CallFailed:
    """Return what the agent makes of a refusal."""
    code = error.code()
    text = error.details() or code.name
    return Missing(text, code) if code is grpc.StatusCode.NOT_FOUND else CallFailed(text, code)
