"""The CustomResourceDefinitions as package data; whoever brings up a cluster applies them."""

from __future__ import annotations

from importlib.resources import files

NAMES = (
    "daemonsets.nodewright.dev",
    "nodeagentconfigs.nodewright.dev",
    "schedulerprofiles.nodewright.dev",
)


def manifest(name: str) -> bytes:
    """The YAML of one of NAMES."""
    return files(__name__).joinpath(f"{name}.yaml").read_bytes()
