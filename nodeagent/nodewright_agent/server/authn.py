"""Who asks: client certificates of the cluster's authority, and bearer tokens by TokenReview. Anonymous is refused."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from nodewright.kube.client import Client
from nodewright.kube.errors import ApiError, ConfigError
from nodewright.kube.objects import KubeStruct
from nodewright.kube.resources import TOKENREVIEWS
from nodewright_agent.server.ttlcache import TtlCache

logger = logging.getLogger(__name__)

TOKEN_TTL = 120.0  # kubelet's authentication.webhook.cacheTTL
REVIEW_TIMEOUT = 10.0
_MAX_TOKEN = 64 * 1024
_BEARER = re.compile(r"[Bb]earer +([A-Za-z0-9._~+/=-]+)")


class User(msgspec.Struct, frozen=True):
    """An authenticated user."""

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()


class _ReviewedUser(KubeStruct):
    username: str = ""
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: dict[str, tuple[str, ...]] = {}  # noqa: RUF012 - msgspec copies it


class _ReviewStatus(KubeStruct):
    authenticated: bool = False
    user: _ReviewedUser = msgspec.field(default_factory=_ReviewedUser)
    error: str = ""


class _Review(KubeStruct):
    status: _ReviewStatus = msgspec.field(default_factory=_ReviewStatus)


class Authenticator:
    """Tells who a request is from; None means 401, whatever the reason."""

    def __init__(self, client: Client, *, cache: TtlCache[User | None] | None = None) -> None:
        """Take the client that may create TokenReviews."""
        self._client = client
        self._tokens = cache or TtlCache[User | None](lambda _: TOKEN_TTL)

    async def authenticate(self, peer_certificate: Mapping[str, Any] | None, authorization: str | None) -> User | None:
        """Judge the client's certificate (which TLS has verified) first, then the Authorization header."""
        if peer_certificate and (user := user_of_certificate(peer_certificate)) is not None:
            return user
        match = _BEARER.fullmatch(authorization.strip()) if authorization else None
        if match is None or len(match.group(1)) > _MAX_TOKEN:
            return None
        token = match.group(1)
        key = hashlib.sha256(token.encode()).digest()  # tokens themselves are not kept
        try:
            return await self._tokens.get(key, lambda: self._review(token))
        except (ApiError, ConfigError) as error:
            logger.warning("a token could not be reviewed, the request is refused: %s", error)
            return None

    async def _review(self, token: str) -> User | None:
        body = msgspec.json.encode(
            {"apiVersion": TOKENREVIEWS.api_version, "kind": TOKENREVIEWS.kind, "spec": {"token": token}}
        )
        answer = await self._client.request("POST", TOKENREVIEWS.path(), body=body, timeout=REVIEW_TIMEOUT)
        try:
            status = msgspec.json.decode(answer, type=_Review).status
        except msgspec.DecodeError as error:
            raise ApiError(200, "BadResponse", f"TokenReview: {error}") from error
        if not status.authenticated or not status.user.username:
            return None
        extra = tuple(sorted(status.user.extra.items()))
        return User(status.user.username, status.user.uid, status.user.groups, extra)


def user_of_certificate(certificate: Mapping[str, Any]) -> User | None:
    """Read the user from a verified certificate, as Kubernetes does: common name and organizations."""
    names = [value for rdn in certificate.get("subject", ()) for key, value in rdn if key == "commonName"]
    groups = [value for rdn in certificate.get("subject", ()) for key, value in rdn if key == "organizationName"]
    if len(names) != 1 or not names[0]:
        return None
    return User(names[0], "", (*groups, "system:authenticated"))
