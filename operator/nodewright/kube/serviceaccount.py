"""Whose token it is: what a ServiceAccount's token tells about itself, without asking the API server.

An object that is owned by the ServiceAccount of the process that made it goes with it: the garbage collector of the
cluster deletes it when, say, Helm has deleted the account, by when nobody can make the object anew.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec

from nodewright.kube.api.meta import OwnerReference
from nodewright.kube.config import Config


async def own_account(config: Config, namespace: str) -> OwnerReference | None:
    """Build a reference to the ServiceAccount as which `config` acts; None when it is not one of this namespace.

    Only objects of the same namespace can be owned: from another, they would be deleted at once. The token is read
    anew each time, as the account may have been made anew under the same name.
    """
    scheme, _, token = (await config.headers()).get("Authorization", "").partition(" ")
    return parse(token, namespace) if scheme == "Bearer" else None


def parse(token: str, namespace: str) -> OwnerReference | None:
    """Read the claims of a bound token; None for any other kind. Pure; the API server is who verifies it."""
    try:
        _, claims, _ = token.split(".")
        data: Any = msgspec.json.decode(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
        about = data["kubernetes.io"]
        account = about["serviceaccount"]
        name, uid, where = account["name"], account["uid"], about["namespace"]
    except (ValueError, binascii.Error, msgspec.DecodeError, KeyError, TypeError):
        return None
    if not (isinstance(name, str) and name and isinstance(uid, str) and uid and where == namespace):
        return None
    return OwnerReference("v1", "ServiceAccount", name, uid)


async def owner_references(config: Config, namespace: str) -> list[dict[str, str]]:
    """Give metadata.ownerReferences for an object that is to go with the account; empty without one."""
    owner = await own_account(config, namespace)
    if owner is None:
        return []
    return [{"apiVersion": owner.api_version, "kind": owner.kind, "name": owner.name, "uid": owner.uid}]
