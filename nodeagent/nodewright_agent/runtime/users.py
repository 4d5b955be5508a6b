"""Who an image's ``User`` is, from the image's own /etc/passwd and /etc/group, which nobody may trust.

Parsing is pure; reading is bounded, inside the image's root only, and never from anything but a regular file.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

import msgspec

from nodewright_agent.runtime import syscalls
from nodewright_agent.runtime.errors import CreateContainerError
from nodewright_agent.runtime.spec import MAX_ID, User

MAX_FILE = 4 << 20
"""Larger account files are refused (CVE-2026-47262: an unbounded parse of /etc/group)."""


class Account(msgspec.Struct, frozen=True):
    """One line of passwd."""

    name: str
    uid: int
    gid: int


class ResolvedUser(msgspec.Struct, frozen=True):
    """Numbers for the OCI process."""

    uid: int
    gid: int
    additional_gids: tuple[int, ...] = ()


def parse_passwd(data: bytes) -> Iterator[Account]:
    """Accounts in the file's order; malformed lines are skipped, as libc does."""
    for fields in _lines(data, 4):
        uid, gid = _number(fields[2]), _number(fields[3])
        if uid is not None and gid is not None:
            yield Account(fields[0], uid, gid)


def parse_group(data: bytes) -> Iterator[tuple[str, int, tuple[str, ...]]]:
    """(name, gid, members) in the file's order; malformed lines are skipped."""
    for fields in _lines(data, 3):
        gid = _number(fields[2])
        if gid is not None:
            members = tuple(name for name in fields[3].split(",") if name) if len(fields) > 3 else ()
            yield fields[0], gid, members


def resolve(user: User, passwd: bytes, group: bytes) -> ResolvedUser:
    """Turn the spec's user into numbers. Raises CreateContainerError when a name is not known or a number out of range.

    The first matching line counts. A number needs no line; its primary group is then 0.
    """
    name, colon, group_name = user.image_user.partition(":")
    if user.uid is not None:
        # The pod's runAsUser replaces the image's user; the image's group belongs to that user and goes with it.
        name, group_name, colon = str(user.uid), "", ""
    account = _account(name or "0", passwd)
    gid = user.gid
    if gid is None:
        gid = _group(group_name, group) if colon and group_name else account.gid
    # The primary group too: a supplementary list without it let processes escape group denials (CVE-2022-2995).
    extra = dict.fromkeys([gid, *user.additional_gids])
    if user.merge_groups and account.name:
        extra.update(dict.fromkeys(number for _, number, members in parse_group(group) if account.name in members))
    return ResolvedUser(account.uid, gid, tuple(extra))


def read_bounded(root_fd: int, path: str, limit: int = MAX_FILE) -> bytes:
    """A regular file inside the root, links followed inside it only; empty when there is none.

    Raises CreateContainerError for a FIFO, device or directory (which could hang or feed us for ever) and for a
    file above ``limit`` bytes.
    """
    try:
        fd = syscalls.openat2(
            root_fd,
            path,
            os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY,
            syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS,
        )
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return b""
        raise CreateContainerError(f"/{path} in the image: {error.strerror}") from None
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise CreateContainerError(f"/{path} in the image is not a regular file")
        if info.st_size > limit:
            raise CreateContainerError(f"/{path} in the image is larger than {limit} bytes")
        return os.read(fd, limit)
    finally:
        os.close(fd)


def _account(name: str, passwd: bytes) -> Account:
    number = _number(name)
    if number is None and name.lstrip("+-").isdigit():
        raise CreateContainerError(f"user {name}: numeric ids must be 0 to {MAX_ID}")
    for account in parse_passwd(passwd):
        if account.name == name or (number is not None and account.uid == number):
            return account
    if number is None:
        raise CreateContainerError(f"unable to find user {name}: no matching entries in passwd file")
    return Account("", number, 0)


def _group(name: str, group: bytes) -> int:
    number = _number(name)
    if number is None and name.lstrip("+-").isdigit():
        raise CreateContainerError(f"group {name}: numeric ids must be 0 to {MAX_ID}")
    for found, gid, _ in parse_group(group):
        if found == name:
            return gid
    if number is None:
        raise CreateContainerError(f"unable to find group {name}: no matching entries in group file")
    return number


def _lines(data: bytes, least: int) -> Iterator[list[str]]:
    for line in data.decode(errors="surrogateescape").split("\n"):
        fields = line.split(":")
        if len(fields) >= least and fields[0] and not fields[0].startswith("#"):
            yield fields


def _number(text: str) -> int | None:
    if not (text.isascii() and text.isdigit() and len(text) <= 10):
        return None
    value = int(text)
    return value if value <= MAX_ID else None
