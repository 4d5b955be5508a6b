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


def apply_tree(directory: str, group: int, *, read_only: bool) -> None:
    """Give a tree to the group: group-readable (and writable), directories set-gid. Symlinks are not followed."""
    mask = _READ_ONLY if read_only else _WRITABLE
    stack = [os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)]
    apply(stack[0], group, mask)
    while stack:
        here = stack.pop()
        try:
            for name in os.listdir(here):
                info = os.stat(name, dir_fd=here, follow_symlinks=False)
                if stat.S_ISLNK(info.st_mode):
                    os.chown(name, -1, group, dir_fd=here, follow_symlinks=False)
                elif stat.S_ISDIR(info.st_mode):
                    child = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
                    apply(child, group, mask)
                    stack.append(child)
                elif stat.S_ISREG(info.st_mode):
                    file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=here)
                    try:
                        apply(file, group, mask)
                    finally:
                        os.close(file)
                else:
                    os.chown(name, -1, group, dir_fd=here, follow_symlinks=False)
        finally:
            os.close(here)


def apply(fd: int, group: int, mask: int) -> None:
    """Change one open file or directory."""
    info = os.fstat(fd)
    os.fchown(fd, -1, group)
    extra = stat.S_ISGID | _EXECUTE if stat.S_ISDIR(info.st_mode) else 0
    os.fchmod(fd, stat.S_IMODE(info.st_mode) | mask | extra)  # after chown, which may clear set-id bits
