"""Which backend this kernel can carry, and why."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from nodewright_agent.proxy.backends import BACKENDS

ORDER = ("ipvs", "nftables", "iptables")
"""What `auto` prefers, best first."""

SHARED_ORDER = ("nftables", "ipvs", "iptables")
"""The same beside another proxy: kube-proxy in ipvs mode deletes virtual servers that it does not know."""


class Choice(NamedTuple):
    """The backend to use and the reason, for people."""

    mode: str
    reason: str


class ProxyModeError(RuntimeError):
    """The wanted mode cannot work here; `hint` says what to do."""

    def __init__(self, message: str, hint: str) -> None:
        """Hold both."""
        super().__init__(message)
        self.hint = hint


Probe = Callable[[], str | None]
"""Gives what is missing, or None where the backend can work."""


def choose(mode: str, probes: Mapping[str, Probe], order: Sequence[str] = ORDER) -> Choice:
    """Choose a backend, for `auto` by `order`. An explicit mode is never replaced by another one.

    Raises ProxyModeError where the mode, or for `auto` every mode, is impossible.
    """
    if mode != "auto":
        missing = probes[mode]()
        if missing is None:
            return Choice(mode, "chosen by configuration")
        raise ProxyModeError(
            f"proxy mode {mode} cannot be used: {missing}", "use --proxy-mode auto, or supply what is missing"
        )
    rejected: list[str] = []
    for name in order:
        missing = probes[name]()
        if missing is None:
            why = "; ".join(rejected)
            return Choice(name, f"auto: the first of {', '.join(order)} that works here{f' ({why})' if why else ''}")
        rejected.append(f"{name}: {missing}")
    raise ProxyModeError(
        f"no proxy mode can be used: {'; '.join(rejected)}",
        "the kernel needs ip_vs with dummy links and ipset, or nf_tables with NAT; the process needs CAP_NET_ADMIN",
    )


def probe_ipvs() -> str | None:
    """Try IPVS: its netlink family, a dummy link, and the tools for what IPVS cannot express."""
    from nodewright_agent.proxy.backends.base import BackendError
    from nodewright_agent.proxy.backends.ipvs.backend import load_modules
    from nodewright_agent.proxy.backends.ipvs.kernel import Ipvs
    from nodewright_agent.proxy.backends.ipvs.links import DummyLink

    load_modules()
    try:
        Ipvs().close()
        link = DummyLink(f"nwprobe{os.getpid() % 10**7}")
        try:
            link.ensure()
            link.delete()
        finally:
            link.close()
    except (BackendError, OSError) as error:
        return str(error)
    if shutil.which("ipset") is None:
        return "ipset is not installed"
    if shutil.which("iptables-legacy") is None and shutil.which("iptables-nft") is None:
        return "iptables is not installed"
    return None


def probe_nftables() -> str | None:
    """Try nf_tables with NAT."""
    from nodewright_agent.proxy.backends.nftables.kernel import usable
    from nodewright_agent.proxy.backends.nftables.wire import NFPROTO_IPV4

    return usable(NFPROTO_IPV4)


def probe_iptables() -> str | None:
    """Say that there is no such backend yet, rather than doing nothing under its name."""
    return None if "iptables" in BACKENDS else "this version of Nodewright has no iptables backend"


PROBES: Mapping[str, Probe] = {"ipvs": probe_ipvs, "nftables": probe_nftables, "iptables": probe_iptables}
