"""Parser of /proc/PID/mountinfo (proc(5)). Pure but for ``read``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

import msgspec

_SPECIAL = re.compile(rb"[ \t\n\\]")
_OCTAL = re.compile(rb"\\([0-7]{3})")


class MountEntry(msgspec.Struct, frozen=True, gc=False):
    """One mount of a mount namespace."""

    mount_id: int
    parent_id: int
    device: str
    root: str
    mount_point: str
    options: str
    propagation: tuple[str, ...]
    """Optional fields: ``shared:N``, ``master:N``, ``propagate_from:N``, ``unbindable``; empty means private."""
    fstype: str
    source: str
    super_options: str

    @property
    def peer_group(self) -> str | None:
        """The number of the mounts that see each other's changes; None when this one is in no such group."""
        return next((field[7:] for field in self.propagation if field.startswith("shared:")), None)

    @property
    def propagation_name(self) -> str:
        """``shared``, ``slave`` or ``private``, for people."""
        kinds = [field.partition(":")[0] for field in self.propagation]
        return "shared" if "shared" in kinds else "slave" if "master" in kinds else "private"


def unescape(field: bytes) -> str:
    r"""Undo the kernel's ``\040`` (space), ``\011``, ``\012``, ``\134``: any ``\`` with three octal digits."""
    return os.fsdecode(_OCTAL.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), field))


def parse(data: bytes) -> list[MountEntry]:
    """Parse the file's content, in the kernel's order (a later mount covers an earlier one at the same point).

    Raises ValueError with the line when a line has not the documented form.
    """
    entries = []
    for line in filter(None, data.split(b"\n")):  # no other end of a line is written in octal
        fields = line.split(b" ")
        try:
            dash = fields.index(b"-", 6)
            entries.append(
                MountEntry(
                    mount_id=int(fields[0]),
                    parent_id=int(fields[1]),
                    device=fields[2].decode(),
                    root=unescape(fields[3]),
                    mount_point=unescape(fields[4]),
                    options=unescape(fields[5]),
                    propagation=tuple(field.decode() for field in fields[6:dash]),
                    fstype=fields[dash + 1].decode(),
                    source=unescape(fields[dash + 2]),
                    super_options=unescape(fields[dash + 3]),
                )
            )
        except (ValueError, IndexError):
            raise ValueError(f"mountinfo line not understood: {line!r}") from None
    return entries


def read(path: str = "/proc/thread-self/mountinfo") -> list[MountEntry]:
    """The mounts of a namespace: by default the calling thread's (see ``HostSpace.call``)."""
    return parse(Path(path).read_bytes())


def at(point: str) -> list[MountEntry]:
    """The calling thread's mounts at just this point, without a look at the many others: 0.3 instead of 3 ms."""
    written = b" " + _SPECIAL.sub(lambda match: b"\\%03o" % match[0][0], os.fsencode(point)) + b" "
    lines = Path("/proc/thread-self/mountinfo").read_bytes().split(b"\n")
    found = parse(b"\n".join(line for line in lines if written in line))
    return [entry for entry in found if entry.mount_point == point]


def below(entries: Iterable[MountEntry], directory: str | Path) -> list[str]:
    """Mount points at or below ``directory``, the last mounted first: the order in which to unmount them."""
    base = os.path.normpath(directory)
    inside = base.rstrip("/") + "/"
    points = [entry.mount_point for entry in entries]
    return [point for point in reversed(points) if point == base or point.startswith(inside)]


def containing(entries: Iterable[MountEntry], path: str | Path) -> MountEntry:
    """The mount that a directory lies on. Raises ValueError for entries without a root. Pure."""
    wanted = os.path.normpath(path)
    found: MountEntry | None = None
    for entry in entries:
        inside = entry.mount_point.rstrip("/") + "/"
        if (wanted == entry.mount_point or wanted.startswith(inside)) and (
            found is None or len(entry.mount_point) >= len(found.mount_point)
        ):
            found = entry
    if found is None:
        raise ValueError(f"no mount holds {wanted}")
    return found
