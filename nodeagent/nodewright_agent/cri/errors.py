"""Refusals, each with its gRPC status, and the status of every error that the runtime's parts raise."""

from __future__ import annotations

import grpc

from nodewright_agent.network.addresses import NetworkError
from nodewright_agent.runtime import errors as runtime
from nodewright_agent.runtime.images import errors as images

_Code = grpc.StatusCode


class CriError(Exception):
    """A call is refused; the text is for the caller."""

    code = _Code.UNKNOWN


class NotFound(CriError):
    """There is no such sandbox, container or image."""

    code = _Code.NOT_FOUND


class Invalid(CriError):
    """The request contradicts itself or the protocol."""

    code = _Code.INVALID_ARGUMENT


class Exists(CriError):
    """The name is taken."""

    code = _Code.ALREADY_EXISTS


class Unfit(CriError):
    """The object is not in a state in which this can be done."""

    code = _Code.FAILED_PRECONDITION


class Lacking(CriError):
    """We do not do this."""

    code = _Code.UNIMPLEMENTED


class Expired(CriError):
    """It took longer than was allowed."""

    code = _Code.DEADLINE_EXCEEDED


class Exhausted(CriError):
    """There are too many of these."""

    code = _Code.RESOURCE_EXHAUSTED


_CODES: tuple[tuple[type[Exception], grpc.StatusCode], ...] = (
    (runtime.ContainerNotFound, _Code.NOT_FOUND),
    (runtime.ContainerStateError, _Code.FAILED_PRECONDITION),
    (runtime.RuntimeUnavailable, _Code.UNAVAILABLE),
    (images.InvalidImageName, _Code.INVALID_ARGUMENT),
    (images.ImageNotFound, _Code.NOT_FOUND),
    (images.Unauthorized, _Code.PERMISSION_DENIED),
    (images.ImageInUse, _Code.FAILED_PRECONDITION),
    (images.StoreFull, _Code.RESOURCE_EXHAUSTED),
    (images.RegistryUnavailable, _Code.UNAVAILABLE),
)
EXPECTED = (CriError, runtime.ContainerRuntimeError, images.ImageError, NetworkError)
"""What calls may fail with; anything else is a fault of ours, and logged."""


def code_of(error: Exception) -> grpc.StatusCode:
    """The status that a caller gets."""
    if isinstance(error, CriError):
        return error.code
    return next((code for kind, code in _CODES if isinstance(error, kind)), _Code.UNKNOWN)
