"""Kernel settings of the current network namespace."""

from __future__ import annotations

import logging
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
