"""Kernel settings of the current network namespace."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

log = logging.getLogger(__name__)


def read(name: str) -> str | None:
    """Read `net.ipv4.ip_forward` and the like; None where the kernel has no such setting."""
    try:
        return _path(name).read_text().strip()
    except OSError:
        return None


def write(name: str, value: str, *, required: bool = True) -> bool:
    """Set a value unless it is set already. A missing or refused setting is logged; gives whether it is in effect."""
    if read(name) == value:
        return True
    try:
        _path(name).write_text(value)
    except OSError as error:
        level = logging.WARNING if required else logging.DEBUG
        log.log(level, "cannot set kernel setting", extra={"setting": name, "value": value, "error": error.strerror})
        return False
    return True


def _path(name: str) -> Path:

    return Path("/proc/sys", *name.split("."))


def kernel_version() -> tuple[int, int]:
    """Give the kernel's major and minor version."""
    major, minor = re.findall(r"\d+", os.uname().release)[:2]
    return int(major), int(minor)


def conntrack_max(cores: int) -> int:
    """Give kube-proxy's default size of the conntrack table: 32768 for each core, within bounds."""
    return min(max(32_768 * cores, 131_072), 1_048_576)


def tune_conntrack(cores: int) -> None:
    """Set what kube-proxy sets: long life for idle connections, short for half-closed ones, room for many.

    The size is the whole machine's and is only ever raised; inside of a network namespace it cannot be written.
    """
    write("net.netfilter.nf_conntrack_tcp_timeout_established", "86400", required=False)
    write("net.netfilter.nf_conntrack_tcp_timeout_close_wait", "3600", required=False)
    present = read("net.netfilter.nf_conntrack_max")
    wanted = conntrack_max(cores)
    if present is not None and present.isdigit() and int(present) < wanted:
        write("net.netfilter.nf_conntrack_max", str(wanted), required=False)
