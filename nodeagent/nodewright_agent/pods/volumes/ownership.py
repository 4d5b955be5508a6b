"""fsGroup: who owns the files of a volume (upstream's SetVolumeOwnership and FsUserFrom)."""

from __future__ import annotations

import os
import stat

from nodewright.kube.objects import Pod

_WRITABLE, _READ_ONLY, _EXECUTE = 0o660, 0o440, 0o110


def fs_group(pod: Pod) -> int | None:
    """The Pod's fsGroup."""
    context = pod.spec.security_context
    return context.fs_group if context is not None else None


def fs_user(pod: Pod) -> int | None:
    """The one user that all containers run as, if they do; token files then belong to it."""
    common = pod.spec.security_context.run_as_user if pod.spec.security_context is not None else None
    users = set()
    for container in (*pod.spec.containers, *pod.spec.init_containers):
        own = container.security_context.run_as_user if container.security_context is not None else None
        users.add(own if own is not None else common)
    return users.pop() if len(users) == 1 else None


def change_policy(pod: Pod) -> str:
    """The Pod's fsGroupChangePolicy."""
    context = pod.spec.security_context
    return (context.fs_group_change_policy if context is not None else None) or "Always"


def hand_over(directory: str, group: int, policy: str) -> None:
    """Give a lasting volume to the group, unless it has it already and the policy is OnRootMismatch."""
    if policy == "OnRootMismatch" and _owned(os.stat(directory), group):
        return
    apply_tree(os.path.realpath(directory), group, read_only=False)


def _owned(info: os.stat_result, group: int) -> bool:
    wanted = _WRITABLE | _EXECUTE | stat.S_ISGID
    return info.st_gid == group and stat.S_IMODE(info.st_mode) & wanted == wanted


def apply_tree(directory: str, group: int, *, read_only: bool) -> None:
    """Give a tree to the group: group-readable (and writable), directories set-gid. Symlinks are not followed.

    The root comes last: as long as it is not changed, OnRootMismatch tells that the work is not done.
    """
    mask = _READ_ONLY if read_only else _WRITABLE
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _apply_below(os.dup(root), group, mask)
        apply(root, group, mask)
    finally:
        os.close(root)


def _apply_below(start: int, group: int, mask: int) -> None:
    """Change what is in a directory; closes it. As many directories are open as the tree is deep."""
    stack = [(start, _apply_entries(start, group, mask))]
    try:
        while stack:
            here, left = stack[-1]
            if not left:
                os.close(here)
                stack.pop()
                continue
            child = os.open(left.pop(), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            stack.append((child, []))
            stack[-1] = (child, _apply_entries(child, group, mask))
            apply(child, group, mask)
    finally:
        for here, _ in stack:
            os.close(here)


def _apply_entries(directory: int, group: int, mask: int) -> list[str]:
    """Change the entries of a directory but for its directories, whose names are returned."""
    directories = []
    for name in os.listdir(directory):
        mode = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
        if stat.S_ISDIR(mode):
            directories.append(name)
        elif stat.S_ISREG(mode):
            file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
            try:
                apply(file, group, mask)
            finally:
                os.close(file)
        else:
            os.chown(name, -1, group, dir_fd=directory, follow_symlinks=False)
    return directories


def apply(fd: int, group: int, mask: int) -> None:
    """Change one open file or directory."""
    info = os.fstat(fd)
    os.fchown(fd, -1, group)
    extra = stat.S_ISGID | _EXECUTE if stat.S_ISDIR(info.st_mode) else 0
    os.fchmod(fd, stat.S_IMODE(info.st_mode) | mask | extra)  # after chown, which may clear set-id bits
