"""What a user may do: SubjectAccessReviews on the node's subresources, by the rules of kubelet's server/auth.go."""

from __future__ import annotations

from typing import Any

import msgspec

from nodewright.kube.client import Client
from nodewright.kube.errors import ApiError
from nodewright.kube.objects import KubeStruct
from nodewright.kube.resources import SUBJECTACCESSREVIEWS
from nodewright_agent.server.authn import REVIEW_TIMEOUT, User
from nodewright_agent.server.ttlcache import TtlCache

ALLOWED_TTL = 300.0  # kubelet's authorization.webhook.cacheAuthorizedTTL
DENIED_TTL = 30.0  # and cacheUnauthorizedTTL

_VERBS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}

# KubeletFineGrainedAuthz (GA in 1.36): these paths have a subresource of their own, besides "proxy"
_FINE_GRAINED = (("/pods", "pods"), ("/healthz", "healthz"), ("/configz", "configz"), ("/runningpods", "pods"))
_OWN = (
    ("/stats", "stats"),
    ("/metrics", "metrics"),
    ("/logs", "log"),
    ("/checkpoint", "checkpoint"),
    ("/statusz", "statusz"),
    ("/flagz", "configz"),
)


def _below(prefix: str, path: str) -> bool:
    return path == prefix or path.startswith(prefix + "/")


def subresources(path: str) -> list[str]:
    """Give the subresources of `nodes` of which one must be allowed, in the order to ask."""
    found = [subresource for prefix, subresource in _FINE_GRAINED if _below(prefix, path)]
    own = next((subresource for prefix, subresource in _OWN if _below(prefix, path)), "proxy")
    return [*found, own]


def verb(method: str) -> str:
    """Give the API verb of an HTTP method, "" for those that have none (which no rule but `*` allows)."""
    return _VERBS.get(method, "")


class _ReviewStatus(KubeStruct):
    allowed: bool = False
    denied: bool = False


class _Review(KubeStruct):
    status: _ReviewStatus = msgspec.field(default_factory=_ReviewStatus)


class Authorizer:
    """Asks the API server; remembers what it said (5 minutes for yes, 30 s for no)."""

    def __init__(self, client: Client, node_name: str, *, cache: TtlCache[bool] | None = None) -> None:
        """Take the client that may create SubjectAccessReviews, and the node that requests are about."""
        self._client = client
        self._node = node_name
        self._decisions = cache or TtlCache[bool](lambda allowed: ALLOWED_TTL if allowed else DENIED_TTL)

    async def allowed(self, user: User, method: str, path: str) -> bool:
        """Tell whether a request may be served. Raises ApiError where the API server gives no answer (so: no)."""
        for subresource in subresources(path):
            if await self._allowed(user, verb(method), subresource):
                return True
        return False

    async def _allowed(self, user: User, verb: str, subresource: str) -> bool:
        return await self._decisions.get((user, verb, subresource), lambda: self._review(user, verb, subresource))

    async def _review(self, user: User, verb: str, subresource: str) -> bool:
        spec: dict[str, Any] = {
            "user": user.name,
            "groups": user.groups,
            "resourceAttributes": {
                "verb": verb,
                "version": "v1",
                "resource": "nodes",
                "subresource": subresource,
                "name": self._node,
            },
        }
        if user.uid:
            spec["uid"] = user.uid
        if user.extra:
            spec["extra"] = dict(user.extra)
        resource = SUBJECTACCESSREVIEWS
        body = msgspec.json.encode({"apiVersion": resource.api_version, "kind": resource.kind, "spec": spec})
        answer = await self._client.request("POST", resource.path(), body=body, timeout=REVIEW_TIMEOUT)
        try:
            status = msgspec.json.decode(answer, type=_Review).status
        except msgspec.DecodeError as error:
            raise ApiError(200, "BadResponse", f"SubjectAccessReview: {error}") from error
        return status.allowed and not status.denied
