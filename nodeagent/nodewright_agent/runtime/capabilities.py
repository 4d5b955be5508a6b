"""Linux capabilities: containerd's default set, Kubernetes' add and drop, and what this host can give at all."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

# In the kernel's order: the index is the bit in /proc/PID/status.
_ALL = """
CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
"""
_DEFAULT = """
CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL
AUDIT_WRITE
"""
ALL = tuple(f"CAP_{name}" for name in _ALL.split())
DEFAULT = tuple(f"CAP_{name}" for name in _DEFAULT.split())


def normalise(name: str) -> str:
    """``net_admin``, ``NET_ADMIN`` and ``CAP_NET_ADMIN`` are one. Raises ValueError for a name that Linux has not."""
    full = name.upper()
    full = full if full.startswith("CAP_") else f"CAP_{full}"
    if full not in ALL:
        raise ValueError(f"unknown capability {name!r}")
    return full


def effective(add: Iterable[str] = (), drop: Iterable[str] = (), available: Iterable[str] = ALL) -> list[str]:
    """The set of a container with securityContext.capabilities ``add`` and ``drop`` (``ALL`` in either).

    As CRI runtimes do it: drop ALL or the defaults first, then add, then drop what is named. ``add: [ALL]`` gives what
    the host has (``available``); one that is added by name and that the host lacks is kept, for the caller to refuse.
    """
    adds, drops = list(add), list(drop)
    add_all = any(name.upper() == "ALL" for name in adds)
    drop_all = any(name.upper() == "ALL" for name in drops)
    chosen = set(available) if add_all else set() if drop_all else set(DEFAULT)
    chosen |= {normalise(name) for name in adds if name.upper() != "ALL"}
    chosen -= {normalise(name) for name in drops if name.upper() != "ALL"}
    return [name for name in ALL if name in chosen]


def decode(mask: int) -> list[str]:
    """Names of the bits in ``mask``; bits newer than our table are left out."""
    return [name for bit, name in enumerate(ALL) if mask >> bit & 1]


def of_process(status: str) -> list[str]:
    """What a process may pass on: the permitted and bounding sets of a /proc/PID/status text."""
    masks = {
        key: int(value, 16)
        for key, _, value in (line.partition(":\t") for line in status.splitlines())
        if key in ("CapPrm", "CapBnd")
    }
    return decode(masks["CapPrm"] & masks["CapBnd"])


def available() -> list[str]:
    """What this agent can give to containers."""
    return of_process(Path("/proc/self/status").read_text())
