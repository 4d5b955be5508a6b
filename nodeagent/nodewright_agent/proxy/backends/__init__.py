"""Backends: what makes the kernel match the desired table. `BACKENDS` is the one place that names them."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from nodewright_agent.proxy.backends.base import Backend, BackendOptions

BACKENDS: dict[str, tuple[str, str]] = {
    "ipvs": ("nodewright_agent.proxy.backends.ipvs.backend", "IpvsBackend"),
    "nftables": ("nodewright_agent.proxy.backends.nftables.backend", "NftablesBackend"),
}
"""Name -> module and class; imported only when chosen. `detect.ORDER` says which one `auto` prefers."""


def make_backend(name: str, options: BackendOptions) -> Backend:
    """Make a backend by name. Raises KeyError for an unknown one."""
    module, attribute = BACKENDS[name]
    factory: Callable[[BackendOptions], Backend] = getattr(import_module(module), attribute)
    return factory(options)
