"""Objects that every cluster of ours has from its first start: identities' rights, by least privilege.

They live in YAML files next to this one, read as package data; CRDs come from `nodewright.crds`.
"""

from __future__ import annotations

from importlib import resources
from typing import Any

import yaml


def rbac() -> list[dict[str, Any]]:
    """Roles and bindings of the embedded cluster."""
    return _read("rbac.yaml")


def node_readiness() -> list[dict[str, Any]]:
    """The policy that gives new nodes startup taints, its binding, and the ConfigMap that names them."""
    return _read("nodereadiness.yaml")


def _read(name: str) -> list[dict[str, Any]]:
    text = resources.files("nodewright.controlplane").joinpath(name).read_text()
    return [document for document in yaml.safe_load_all(text) if document]


def crds() -> list[dict[str, Any]]:
    """The CustomResourceDefinitions of group nodewright.dev."""
    found = []
    for entry in sorted(resources.files("nodewright").joinpath("crds").iterdir(), key=lambda e: e.name):
        if entry.name.endswith(".yaml"):
            found += [document for document in yaml.safe_load_all(entry.read_text()) if document]
    return found
