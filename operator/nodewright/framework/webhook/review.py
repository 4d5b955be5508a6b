"""AdmissionReview (admission.k8s.io/v1) as it comes and as it goes. Pure.

Answers have the form in which the API server's own validation answers: reason Invalid, code 422, one cause per
field. kubectl shows that as the lines `* spec.template...: Invalid value: ...`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

API_VERSION = "admission.k8s.io/v1"
KIND = "AdmissionReview"
MAX_WARNING = 256  # characters; the API server cuts longer ones
MAX_WARNINGS = 16  # all of them together may have 4096 characters
MAX_MESSAGE = 8192  # characters; an object can have more faults than anyone reads


class MalformedReview(ValueError):
    """A body that is no AdmissionReview of version v1."""


class GroupVersionKind(msgspec.Struct, frozen=True):
    """The kind of the object under review."""

    group: str
    version: str
    kind: str


class Request(msgspec.Struct, rename="camel", frozen=True):
    """The part of AdmissionRequest that reviewers use. `object` and `old_object` are JSON, `null` where absent."""

    uid: str
    kind: GroupVersionKind
    operation: str
    name: str = ""
    namespace: str = ""
    object: msgspec.Raw = msgspec.Raw(b"null")
    old_object: msgspec.Raw = msgspec.Raw(b"null")

    def new(self) -> dict[str, Any]:
        """The object as it would be stored; empty for deletions. Raises MalformedReview."""
        return _object(self.object)

    def old(self) -> dict[str, Any]:
        """The object as it is stored; empty for creations. Raises MalformedReview."""
        return _object(self.old_object)


class Cause(msgspec.Struct, frozen=True):
    """One fault: a metav1.StatusCause. `reason` is the machine's word for it, such as FieldValueInvalid."""

    field: str
    message: str
    reason: str = "FieldValueInvalid"

    def __str__(self) -> str:
        """`field: message`, as the API server joins them."""
        return f"{self.field}: {self.message}"


class Answer(msgspec.Struct, frozen=True):
    """What a reviewer says: faults refuse the object, warnings are shown to the user either way."""

    causes: tuple[Cause, ...] = ()
    warnings: tuple[str, ...] = ()


Reviewer = Callable[[Request], Awaitable[Answer]]


class _Review(msgspec.Struct, rename="camel"):
    api_version: str
    kind: str
    request: Request | None = None


def decode(body: bytes) -> Request:
    """Read the body of a call. Raises MalformedReview, saying what is wrong with it."""
    try:
        review = msgspec.json.decode(body, type=_Review)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedReview(f"not an AdmissionReview: {error}") from error
    if (review.api_version, review.kind) != (API_VERSION, KIND):
        raise MalformedReview(f"expected {API_VERSION} {KIND}, got {review.api_version} {review.kind}")
    if review.request is None or not review.request.uid:
        raise MalformedReview("the AdmissionReview has no request with a uid")
    return review.request


def encode(request: Request, answer: Answer) -> bytes:
    """The body of the response to a request."""
    response: dict[str, Any] = {"uid": request.uid, "allowed": not answer.causes}
    if answer.causes:
        response["status"] = refusal(request, answer.causes)
    if answer.warnings:
        response["warnings"] = [_cut(text, MAX_WARNING) for text in answer.warnings[:MAX_WARNINGS]]
    return msgspec.json.encode({"apiVersion": API_VERSION, "kind": KIND, "response": response})


def refusal(request: Request, causes: tuple[Cause, ...]) -> dict[str, Any]:
    """The Status of a refused object, as apimachinery's NewInvalid makes it."""
    lines = [str(cause) for cause in causes]
    faults = lines[0] if len(lines) == 1 else f"[{', '.join(lines)}]"
    kind = f"{request.kind.kind}.{request.kind.group}" if request.kind.group else request.kind.kind
    return {
        "status": "Failure",
        "code": 422,
        "reason": "Invalid",
        "message": _cut(f'{kind} "{request.name}" is invalid: {faults}', MAX_MESSAGE),
        "details": {
            "name": request.name,
            "group": request.kind.group,
            "kind": request.kind.kind,
            "causes": [{"reason": c.reason, "message": c.message, "field": c.field} for c in causes],
        },
    }


def _object(raw: msgspec.Raw) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise MalformedReview(f"the object cannot be read: {error}") from error
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise MalformedReview("the object is not a JSON object")
    return found


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
