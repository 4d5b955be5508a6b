"""The Linux calls that Python 3.11 does not offer, by ctypes: mounts, namespaces, openat2.

Every function raises OSError with the errno, the call and the path. Descriptors are close-on-exec, always:
a descriptor that leaks into runc is a way out of the container (CVE-2024-21626).
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import struct

_libc = ctypes.CDLL(None, use_errno=True)
_X32_GETPID = 0x40000000 | 39

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_MOVE, MS_REC = 0x20, 0x1000, 0x2000, 0x4000
MS_PRIVATE, MS_SLAVE, MS_SHARED = 1 << 18, 1 << 19, 1 << 20
MNT_DETACH, UMOUNT_NOFOLLOW = 2, 8

CLONE_FS = 0x00000200
CLONE_NEWNS, CLONE_NEWCGROUP = 0x00020000, 0x02000000
CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER = 0x04000000, 0x08000000, 0x10000000
CLONE_NEWPID, CLONE_NEWNET = 0x20000000, 0x40000000

RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_IN_ROOT = 0x02, 0x04, 0x10
_SYS_OPENAT2 = 437

AT_FDCWD, AT_RECURSIVE, OPEN_TREE_CLONE = -100, 0x8000, 1
_AT_EMPTY_PATH, _MOVE_MOUNT_F_EMPTY_PATH, _MOUNT_ATTR_IDMAP = 0x1000, 4, 0x100000
_SYS_OPEN_TREE, _SYS_MOVE_MOUNT, _SYS_MOUNT_SETATTR = 428, 429, 442


def _check(result: int, call: str, path: str | bytes = "") -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{call}: {os.strerror(code)}", os.fsdecode(path) or None)
    return result


def mount(source: str, target: str, fstype: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2). Empty strings are passed as NULL, as bind mounts and remounts want it."""
    result = _libc.mount(
        os.fsencode(source) if source else None,
        os.fsencode(target),
        fstype.encode() if fstype else None,
        ctypes.c_ulong(flags),
        os.fsencode(data) if data else None,
    )
    _check(result, "mount", target)


def umount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    _check(_libc.umount2(os.fsencode(target), flags), "umount", target)


def unshare(flags: int) -> None:
    """unshare(2), for the calling thread only."""
    _check(_libc.unshare(flags), "unshare")


def setns(fd: int, kind: int) -> None:
    """setns(2), for the calling thread only: enter the namespace (of a ``CLONE_NEW*`` kind) that ``fd`` is open on."""
    _check(_libc.setns(ctypes.c_int(fd), ctypes.c_int(kind)), "setns")


def sethostname(name: str) -> None:
    """sethostname(2), in the calling thread's UTS namespace."""
    data = name.encode()
    _check(_libc.sethostname(data, len(data)), "sethostname", name)


def openat2(dir_fd: int, path: str, flags: int, resolve: int, mode: int = 0) -> int:
    """openat2(2) (Linux 5.6): open with the resolution restricted by ``resolve``."""
    how = struct.pack("QQQ", flags | os.O_CLOEXEC, mode, resolve)
    result = _libc.syscall(
        ctypes.c_long(_SYS_OPENAT2),
        ctypes.c_int(dir_fd),
        ctypes.c_char_p(os.fsencode(path)),
        how,
        ctypes.c_size_t(len(how)),
    )
    return _check(int(result), "openat2", path)


def open_tree(path: str, flags: int) -> int:
    """open_tree(2) (Linux 5.2): a descriptor of a mount, with OPEN_TREE_CLONE of a copy that nobody else sees."""
    number = ctypes.c_long(_SYS_OPEN_TREE)
    result = _libc.syscall(number, ctypes.c_int(AT_FDCWD), os.fsencode(path), ctypes.c_uint(flags | os.O_CLOEXEC))
    return _check(int(result), "open_tree", path)


def move_mount(fd: int, target: str) -> None:
    """move_mount(2) (Linux 5.2): attach the mount that ``fd`` is open on at ``target``, a link not being followed."""
    result = _libc.syscall(
        ctypes.c_long(_SYS_MOVE_MOUNT),
        ctypes.c_int(fd),
        b"",
        ctypes.c_int(AT_FDCWD),
        os.fsencode(target),
        ctypes.c_uint(_MOVE_MOUNT_F_EMPTY_PATH),
    )
    _check(int(result), "move_mount", target)


def has_mount_setattr() -> bool:
    """Whether the kernel has mount_setattr(2) (Linux 5.12) and lets us call it; nothing is changed."""
    number = ctypes.c_long(_SYS_MOUNT_SETATTR)
    nothing = struct.pack("QQQQ", 0, 0, 0, 0)
    result = _libc.syscall(
        number, ctypes.c_int(AT_FDCWD), b"/", ctypes.c_uint(0), nothing, ctypes.c_size_t(len(nothing))
    )
    return result == 0 or ctypes.get_errno() not in (errno.ENOSYS, errno.EPERM)


@functools.cache
def has_x32() -> bool:
    """Whether this kernel (an x86_64 one) runs programs of the x32 ABI, which few do: asked by a call of it, getpid(2).

    True where a seccomp filter of our own would answer, or take it amiss.
    """
    with open("/proc/thread-self/status", encoding="ascii", errors="replace") as status:
        if "Seccomp:\t0\n" not in status.read():
            return True
    return int(_libc.syscall(ctypes.c_long(_X32_GETPID))) >= 0 or ctypes.get_errno() != errno.ENOSYS


def set_idmap(fd: int, user_namespace: int) -> None:
    """mount_setattr(2) (Linux 5.12): have a detached mount show its ids as the user namespace maps them."""
    attributes = struct.pack("QQQQ", _MOUNT_ATTR_IDMAP, 0, 0, user_namespace)
    result = _libc.syscall(
        ctypes.c_long(_SYS_MOUNT_SETATTR),
        ctypes.c_int(fd),
        b"",
        ctypes.c_uint(_AT_EMPTY_PATH),
        attributes,
        ctypes.c_size_t(len(attributes)),
    )
    _check(int(result), "mount_setattr(MOUNT_ATTR_IDMAP)")
