"""Which layers are mounted right now, in any mount namespace of this machine."""

import os
import re
from pathlib import Path
from typing import Final

_LAYER: Final = re.compile(r"(?:^|[/=:,+])l/([0-9a-f]{24})(?=[:, \n]|$)")


def layers_in_options(mountinfo: str) -> set[str]:
    """Names of layer directories that occur as lower directories of overlay mounts. Pure."""
    found: set[str] = set()
    for line in mountinfo.splitlines():
        if " - overlay " in line:
            found.update(_LAYER.findall(line.partition(" - overlay ")[2]))
    return found


def mounted_layers(proc: Path = Path("/proc")) -> set[str]:
    """Names of layer directories in use, read once per mount namespace: node hosts and containers have their own."""
    found: set[str] = set()
    seen: set[str] = set()
    for entry in os.scandir(proc):
        if not entry.name.isdigit():
            continue
        try:
            namespace = os.readlink(f"{entry.path}/ns/mnt")
            if namespace in seen:
                continue
            text = Path(f"{entry.path}/mountinfo").read_text(errors="replace")
        except (OSError, ValueError):
            continue  # it ended meanwhile
        seen.add(namespace)
        found |= layers_in_options(text)
    return found
