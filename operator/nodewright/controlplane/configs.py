"""Configuration files of kube-apiserver, as JSON: encryption at rest, audit policy, authentication."""

from __future__ import annotations

import base64
import secrets
from pathlib import Path
from typing import Any

import msgspec

from nodewright.controlplane.errors import ControlPlaneError
from nodewright.controlplane.files import make_dir, write_atomic, write_if_changed
from nodewright.controlplane.layout import Layout

HEALTH_PATHS = ("/livez", "/readyz", "/healthz")
_KEY_BYTES = 32  # secretbox: XSalsa20 with Poly1305


def encryption_file(layout: Layout) -> Path:
    """The encryption configuration: it holds the key, so it lives with the other keys."""
    return layout.pki / "encryption.json"


def audit_policy_file(layout: Layout) -> Path:
    """The audit policy."""
    return layout.config / "audit-policy.json"


def authentication_file(layout: Layout) -> Path:
    """The authentication configuration."""
    return layout.config / "authentication.json"


def encryption(key: bytes) -> dict[str, Any]:
    """Secrets are written with secretbox; what an older configuration left as plain text stays readable."""
    secretbox = {"secretbox": {"keys": [{"name": "key1", "secret": base64.b64encode(key).decode()}]}}
    return {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "EncryptionConfiguration",
        "resources": [{"resources": ["secrets"], "providers": [secretbox, {"identity": {}}]}],
    }


def authentication() -> dict[str, Any]:
    """Requests without credentials are user system:anonymous on the health paths and refused elsewhere (CIS 1.2.1)."""
    return {
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AuthenticationConfiguration",
        "anonymous": {"enabled": True, "conditions": [{"path": path} for path in HEALTH_PATHS]},
    }


def audit_policy() -> dict[str, Any]:
    """Who changed what, and who read secrets; not the steady hum of nodes and controllers.

    Metadata only: bodies of writes cost more than the writes at thousands of Pods a minute, and those of secrets
    must not be in a log at all.
    """
    quiet_users = ["system:apiserver", "system:kube-controller-manager", "system:kube-scheduler"]
    coordination = {"group": "coordination.k8s.io", "resources": ["leases"]}
    events = [{"group": "", "resources": ["events"]}, {"group": "events.k8s.io", "resources": ["events"]}]
    sensitive = [
        {"group": "", "resources": ["secrets", "configmaps", "serviceaccounts/token"]},
        {"group": "authentication.k8s.io", "resources": ["tokenreviews"]},
    ]
    rules: list[dict[str, Any]] = [
        {"level": "None", "nonResourceURLs": ["/healthz*", "/livez*", "/readyz*", "/version", "/openapi/*"]},
        {"level": "None", "resources": [*events, coordination]},
        {"level": "None", "users": quiet_users, "verbs": ["get", "list", "watch"]},
        {"level": "Metadata", "resources": sensitive},
        {"level": "None", "verbs": ["get", "list", "watch"]},
        {
            "level": "None",
            "userGroups": ["system:nodes"],
            "verbs": ["update", "patch"],
            "resources": [{"group": "", "resources": ["nodes/status"]}],
        },
        {"level": "Metadata"},
    ]
    return {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": rules,
    }


def ensure(layout: Layout) -> None:
    """Write the files. The encryption key is made once; a damaged file is an error, never replaced by a new key."""
    make_dir(layout.config)
    make_dir(layout.audit_log.parent, 0o700)
    write_if_changed(audit_policy_file(layout), _json(audit_policy()), 0o644)
    write_if_changed(authentication_file(layout), _json(authentication()), 0o644)
    path = encryption_file(layout)
    if not path.exists():
        write_atomic(path, _json(encryption(secrets.token_bytes(_KEY_BYTES))), 0o600)
        return
    try:
        msgspec.json.decode(path.read_bytes(), type=dict)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise ControlPlaneError(
            f"{path} is damaged: {error}", "restore it from a backup: without its key the cluster's secrets are lost"
        ) from error
    if path.stat().st_mode & 0o077:
        path.chmod(0o600)


def _json(content: dict[str, Any]) -> bytes:
    return msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"
