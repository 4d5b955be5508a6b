"""Errors of the API server as exceptions, one class per reason that callers tell apart."""

from __future__ import annotations

from typing import Any

import msgspec


class ConfigError(Exception):
    """A kubeconfig or in-cluster configuration that can't be used; the message names the file and the field."""


class ApiError(Exception):
    """A request that failed.

    `status` is the HTTP status, 0 where no response came. `reason` is Kubernetes' machine-readable reason
    (`NotFound`), `details` the Status' details, `retry_after` what the server asked for, in seconds.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        details: dict[str, Any] | None = None,
        retry_after: float | None = None,
    ) -> None:
        """Keep the parts of a Status object."""
        super().__init__(message or reason)
        self.status = status
        self.reason = reason
        self.message = message
        self.details = details or {}
        self.retry_after = retry_after

    def __repr__(self) -> str:
        """Show class, status, reason and message."""
        return f"{type(self).__name__}({self.status}, {self.reason!r}, {self.message!r})"


class NotFound(ApiError):
    """404: the object or resource does not exist."""


class AlreadyExists(ApiError):
    """409 with reason AlreadyExists: an object of this name exists."""


class Conflict(ApiError):
    """409: the object changed since it was read, a precondition failed, or a field belongs to another manager."""


class Gone(ApiError):
    """410: the resourceVersion or continue token is too old; list again."""


class Invalid(ApiError):
    """422: the object was refused; `causes` tells which fields."""

    @property
    def causes(self) -> list[tuple[str, str]]:
        """Pairs of field path and message."""
        return [(c.get("field", ""), c.get("message", "")) for c in self.details.get("causes") or []]


class BadRequest(ApiError):
    """400: the request can't be understood."""


class Forbidden(ApiError):
    """403: authorization or admission said no."""


class Unauthorized(ApiError):
    """401: the credentials are missing, wrong or expired."""


class TooManyRequests(ApiError):
    """429: the server is busy, or a disruption budget forbids an eviction."""


class ServerUnavailable(ApiError):
    """5xx, or no (complete) answer at all (status 0). A write may have been carried out all the same."""


class BadResponse(ApiError):
    """An answer that is not what the API server would send; a proxy or a wrong address, most often."""


class _Status(msgspec.Struct):
    code: int = 0
    reason: str = ""
    message: str = ""
    details: dict[str, Any] | None = None


_BY_CODE: dict[int, tuple[type[ApiError], str]] = {
    400: (BadRequest, "BadRequest"),
    401: (Unauthorized, "Unauthorized"),
    403: (Forbidden, "Forbidden"),
    404: (NotFound, "NotFound"),
    409: (Conflict, "Conflict"),
    410: (Gone, "Gone"),
    422: (Invalid, "Invalid"),
    429: (TooManyRequests, "TooManyRequests"),
}

_TEXT_SHOWN = 1000  # characters of a body that is not a Status


def from_response(status: int, body: bytes, retry_after: float | None = None, what: str = "") -> ApiError:
    """Build the exception for a response; bodies that are no Status (proxies' HTML, plain text) become the message."""
    parsed = _parse(body)
    if parsed is None:
        text = body[: _TEXT_SHOWN * 4].decode("utf-8", "replace").strip()[:_TEXT_SHOWN]
        parsed = _Status(message=text or f"the server answered {status} to {what or 'the request'}")
    return _build(status, parsed, retry_after)


def from_status(body: bytes | msgspec.Raw) -> ApiError:
    """Build the exception for a Status object, as it comes in a watch's ERROR event."""
    parsed = _parse(bytes(body))
    if parsed is None:
        return BadResponse(0, "BadResponse", "the watch sent an ERROR event without a Status")
    return _build(parsed.code, parsed, None)


def _parse(body: bytes) -> _Status | None:
    try:
        parsed = msgspec.json.decode(body, type=_Status)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    return parsed if parsed.reason or parsed.message or parsed.code else None


def _build(status: int, parsed: _Status, retry_after: float | None) -> ApiError:
    cls, reason = _BY_CODE.get(status, (ServerUnavailable, "ServerUnavailable") if status >= 500 else (ApiError, ""))
    if cls is Conflict and parsed.reason == "AlreadyExists":
        cls = AlreadyExists
    details = parsed.details or {}
    if retry_after is None and isinstance(seconds := details.get("retryAfterSeconds"), int) and seconds > 0:
        retry_after = float(seconds)
    return cls(status, parsed.reason or reason, parsed.message, details, retry_after)
