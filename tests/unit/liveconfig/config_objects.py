"""NodeAgentConfigs for tests."""

from __future__ import annotations

from typing import Any

import msgspec

from nodewright.kube.api.nodeconfigs import NodeAgentConfig


def config(name: str, spec: dict[str, Any] | None = None, **meta: Any) -> NodeAgentConfig:
    status = meta.pop("status", {})
    metadata = {
        "name": name,
        "uid": f"uid-{name}",
        "generation": 1,
        "resourceVersion": "1",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        **meta,
    }
    return msgspec.convert({"metadata": metadata, "spec": spec or {}, "status": status}, NodeAgentConfig)
