"""Sysctls of pods: names, which are safe, where they live. Pure."""

from __future__ import annotations

SAFE = frozenset(
    {
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.ping_group_range",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_wmem",
    }
)
"""Namespaced and harmless to others: kubelet's list (pkg/kubelet/sysctl/safe_sysctls.go)."""

DEFAULTS = {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}
"""In pods with a network of their own, as containerd 2: any user may bind port 80 and ping."""

_IPC_NAMES = frozenset({"kernel.sem", "kernel.shmall", "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced"})
_IPC_PREFIXES = ("kernel.msg", "fs.mqueue.")


def normalise(name: str) -> str:
    """``net/ipv4/x.y`` and ``net.ipv4.x/y`` are spellings of one sysctl; the dotted form is returned.

    As sysctl(8): the first separator decides; where it is a slash the two are swapped.
    """
    slash, dot = name.find("/"), name.find(".")
    if slash < 0 or (0 <= dot < slash):
        return name
    return name.translate({ord("/"): ".", ord("."): "/"})


def file_of(name: str) -> str:
    """Path below /proc/sys. Raises ValueError for a name that would leave it."""
    path = normalise(name).translate({ord("/"): ".", ord("."): "/"})
    if not path or any(part in ("", ".", "..") for part in path.split("/")) or "\0" in path:
        raise ValueError(f"invalid sysctl name {name!r}")
    return path


def namespace_of(name: str) -> str | None:
    """``net``, ``ipc`` or ``uts``; None for a sysctl of the whole host, which no pod may set."""
    dotted = normalise(name)
    if dotted.startswith("net."):
        return "net"
    if dotted in _IPC_NAMES or dotted.startswith(_IPC_PREFIXES):
        return "ipc"
    if dotted in ("kernel.hostname", "kernel.domainname"):
        return "uts"
    return None
