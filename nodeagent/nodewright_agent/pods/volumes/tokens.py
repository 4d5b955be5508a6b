"""Service account tokens for Pods: requested, kept, and renewed before they expire."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import msgspec

from nodewright.kube.client import Client
from nodewright.kube.objects import Pod
from nodewright.kube.resources import SERVICEACCOUNTS
from nodewright.kube.times import now, parse_rfc3339

_DAY = timedelta(hours=24)
_JITTER = timedelta(seconds=10)
_USED = 0.8  # of the lifetime; upstream renews when less than a fifth is left
DEFAULT_SECONDS = 3600


class Token(msgspec.Struct, frozen=True):
    """A token and the moment at which it should be renewed."""

    text: str
    renew_at: datetime
    expires_at: datetime


def renew_at(issued: datetime, expires: datetime, jitter: timedelta) -> datetime:
    """80 % of the lifetime or 24 hours, whichever is earlier, less some jitter. Pure."""
    return min(issued + (expires - issued) * _USED, issued + _DAY) - jitter


class TokenSource:
    """Tokens by Pod, audience and lifetime. Old ones serve until a renewal succeeds or they expire."""

    def __init__(self, client: Client, clock: Callable[[], datetime] = now) -> None:
        """Use a client; `clock` is for tests."""
        self._client = client
        self._clock = clock
        self._tokens: dict[tuple[str, str, int], Token] = {}

    async def get(self, pod: Pod, audience: str, seconds: int) -> Token:
        """A token bound to the Pod; raises ApiError when none can be had."""
        key = (pod.metadata.uid, audience, seconds)
        known = self._tokens.get(key)
        if known is not None and self._clock() < known.renew_at:
            return known
        token = await self._request(pod, audience, seconds)
        self._tokens[key] = token
        return token

    def last(self, pod: Pod, audience: str, seconds: int) -> Token | None:
        """The token held now if it has not expired, whatever its age."""
        known = self._tokens.get((pod.metadata.uid, audience, seconds))
        return known if known is not None and self._clock() < known.expires_at else None

    def forget(self, pod_uid: str) -> None:
        """Drop a Pod's tokens; the server drops them with the Pod, which they are bound to."""
        for key in [key for key in self._tokens if key[0] == pod_uid]:
            del self._tokens[key]

    async def _request(self, pod: Pod, audience: str, seconds: int) -> Token:
        spec: dict[str, Any] = {
            "expirationSeconds": seconds,
            "boundObjectRef": {
                "apiVersion": "v1", "kind": "Pod", "name": pod.metadata.name, "uid": pod.metadata.uid,
            },
        }  # fmt: skip
        if audience:
            spec["audiences"] = [audience]
        issued = self._clock()
        answer = await self._client.create(
            SERVICEACCOUNTS,
            {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec},
            pod.metadata.namespace,
            name=pod.spec.service_account_name or "default",
            subresource="token",
        )
        status = answer["status"]
        expires = parse_rfc3339(status["expirationTimestamp"])
        jitter = min(_JITTER, (expires - issued) * 0.05) * random.random()
        return Token(status["token"], renew_at(issued, expires, jitter), expires)
