"""Unpack a tar stream from stdin into one directory, from which nothing can reach out.

Run as `python -I -S child.py DIRECTORY MAX_FILE_BYTES MEMORY_BYTES TOOL=PATH...`, as root. Steps:

1. Own mount, pid, network, ipc and uts namespaces. The layer directory, mounted nodev,nosuid,noexec, becomes the root
   by pivot_root, and the old root is unmounted: `..`, absolute symlinks and links to links have nowhere to lead.
2. tar itself (and the dynamic loader with its libraries) comes along as read-only bind mounts in a directory with a
   random name, gone before step 4. noexec on the rest keeps tar from loading a library that the archive planted (as
   glibc iconv modules would be; CVE-2019-14271 was of that kind).
3. tar runs as PID 1 of the namespace with five capabilities, no_new_privs and resource limits.
4. Whiteouts become overlayfs's: `.wh.NAME` a character device 0:0, `.wh..wh..opq` an attribute of its directory.

The report is lines of `key value` on stdout. `ok`, or `error` with a sentence, is the last one.
"""

import ctypes
import os
import resource
import stat
import sys

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNET = (
    0x20000,
    0x4000000,
    0x8000000,
    0x20000000,
    0x40000000,
)
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = (
    1,
    2,
    4,
    8,
    32,
    4096,
    16384,
    1 << 18,
)
MNT_DETACH = 2
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 24, 38
# chown, dac_override, fowner, fsetid, setfcap: what it takes to restore owners, modes and file capabilities.
KEPT_CAPABILITIES = {0, 1, 3, 4, 31}
OPAQUE = "trusted.overlay.opaque"
WHITEOUT = b".wh."
OPAQUE_MARKER = b".wh..wh..opq"
AUFS_PREFIX = b".wh..wh."
STDERR_LIMIT = 4096

TAR_OPTIONS = (
    "--extract", "--file=-", "--absolute-names", "--preserve-permissions", "--same-owner", "--numeric-owner",
    "--xattrs", "--xattrs-include=user.*", "--xattrs-include=security.capability",
    "--no-acls", "--no-selinux", "--delay-directory-restore", "--warning=no-timestamp", "--directory=/",
)  # fmt: skip

_libc = ctypes.CDLL(None, use_errno=True)


class Refused(Exception):
    """The layer breaks a rule; the text goes to the user."""


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def _mount(source: str, target: str, fstype: str | None, flags: int, data: str | None = None) -> None:
    encoded = [None if text is None else os.fsencode(text) for text in (source, target, fstype)]
    _call("mount", *encoded, ctypes.c_ulong(flags), None if data is None else data.encode())


def confine(directory: str, tools: dict[str, str]) -> str:
    """Make `directory` the root of this process; returns the path of the tools below it."""
    _call("unshare", CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET)
    _mount("none", "/", None, MS_REC | MS_PRIVATE)
    _mount(directory, directory, None, MS_BIND)
    _mount("none", directory, None, MS_REMOUNT | MS_BIND | MS_NODEV | MS_NOSUID | MS_NOEXEC)
    os.chdir(directory)
    box = f".nodewright-{os.urandom(12).hex()}"
    os.mkdir(box, 0o700)
    _mount("tools", box, "tmpfs", MS_NODEV | MS_NOSUID, "size=64k,mode=0700")
    for name, path in tools.items():
        os.close(os.open(f"{box}/{name}", os.O_CREAT | os.O_WRONLY, 0o700))
        _mount(path, f"{box}/{name}", None, MS_BIND)
        _mount("none", f"{box}/{name}", None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NODEV | MS_NOSUID)
    _mount("none", box, None, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NODEV | MS_NOSUID)
    pivot_root = {"x86_64": 155}.get(os.uname().machine, 41)  # 41 is the number of all newer architectures
    _call("syscall", ctypes.c_long(pivot_root), b".", b".")
    _call("umount2", b".", MNT_DETACH)
    os.chdir("/")
    return f"/{box}"


def _drop_privileges(max_file_bytes: int, memory: int) -> None:
    _call("prctl", PR_SET_PDEATHSIG, 9, 0, 0, 0)
    for capability in range(64):
        if capability not in KEPT_CAPABILITIES and _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            if ctypes.get_errno() != 22:  # EINVAL: the kernel has no capability of that number
                raise OSError(ctypes.get_errno(), "PR_CAPBSET_DROP")
            break
    _call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    for limit, value in (
        (resource.RLIMIT_FSIZE, max_file_bytes),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 256),
    ):
        hard = resource.getrlimit(limit)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, value))


def run_tar(box: str, dynamic: bool, max_file_bytes: int, memory: int) -> None:
    """Run tar with the rest of stdin; raises Refused with its words when it fails."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(write_end, 2)
            os.dup2(os.open(f"{box}/tar", os.O_RDONLY), 1)  # anything but the report; reading ends cannot be written
            _drop_privileges(max_file_bytes, memory)
            loader = [f"{box}/ld.so", "--library-path", box] if dynamic else []
            argv = [*loader, f"{box}/tar", *TAR_OPTIONS]
            os.execve(argv[0], argv, {"LC_ALL": "C.UTF-8", "PATH": "/nonexistent"})
        except BaseException as error:
            os.write(2, f"cannot start tar: {error}".encode())
        finally:
            os._exit(126)
    os.close(write_end)
    os.close(0)  # so that the writer gets EPIPE when tar ends
    said = b""
    while chunk := os.read(read_end, 65536):
        said = (said + chunk)[:STDERR_LIMIT]
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == 25:
        raise Refused(f"a file is larger than {max_file_bytes} bytes")
    if status != 0 and _full():
        raise Refused("No space left on device")
    if status != 0:
        code = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit code {os.WEXITSTATUS(status)}"
        lines = [line for line in said.decode(errors="replace").splitlines() if line]
        text = "; ".join(line.replace(f"{box}/", "") for line in lines[:3])
        raise Refused(f"tar failed with {code}: {text}")


def _full() -> bool:
    """Whether the disk is (nearly) full: tar may report no more than a short write then."""
    info = os.statvfs("/")
    return info.f_bavail * info.f_frsize < 65536 or (info.f_files > 0 and info.f_favail == 0)


class Conversion:
    """One walk over the unpacked tree: turns whiteouts into overlayfs's, counts, and bounds the depth."""

    def __init__(self) -> None:
        self.entries = 0
        self.bytes = 0
        self.opaque_root = False

    def run(self) -> None:
        """Walk from the root. Iterative, so that no depth can break it; too deep for PATH_MAX is refused."""
        pending = [b"/"]
        while pending:
            directory = pending.pop()
            markers = []
            with os.scandir(directory) as entries:
                for entry in entries:
                    info = entry.stat(follow_symlinks=False)
                    self.entries += 1
                    if info.st_nlink <= 1 or stat.S_ISDIR(info.st_mode):
                        self.bytes += info.st_blocks * 512
                    else:
                        self.bytes += info.st_blocks * 512 // info.st_nlink
                    if entry.name.startswith(WHITEOUT):
                        markers.append((entry.name, stat.S_ISDIR(info.st_mode)))
                    elif stat.S_ISDIR(info.st_mode):
                        if len(entry.path) > 4000:
                            raise Refused("its directories are nested too deeply")
                        pending.append(entry.path)
            if markers:
                self._convert(directory, markers)

    def _convert(self, directory: bytes, markers: list[tuple[bytes, bool]]) -> None:
        before = os.stat(directory)
        for name, is_directory in markers:
            if is_directory:
                raise Refused(f"whiteout {name!r} is a directory")
            os.unlink(os.path.join(directory, name))
            if name == OPAQUE_MARKER:
                if directory == b"/":
                    self.opaque_root = True  # overlayfs ignores the attribute on a root: the store cuts the list
                else:
                    os.setxattr(directory, OPAQUE, b"y")
            elif not name.startswith(AUFS_PREFIX):
                self._hide(directory, name[len(WHITEOUT) :])
        os.utime(directory, ns=(before.st_atime_ns, before.st_mtime_ns))

    def _hide(self, directory: bytes, name: bytes) -> None:
        if name in (b"", b".", b".."):
            raise Refused(f"whiteout of {name!r}")
        target = os.path.join(directory, name)
        try:
            os.mknod(target, stat.S_IFCHR | 0o000, os.makedev(0, 0))
        except FileExistsError:
            # The same layer removes and brings it back. What is new hides the old by itself, but for a directory.
            if stat.S_ISDIR(os.lstat(target).st_mode):
                os.setxattr(target, OPAQUE, b"y")


def main(arguments: list[str]) -> None:
    """See the module's text."""
    directory, max_file_bytes, memory = arguments[0], int(arguments[1]), int(arguments[2])
    tools = dict(item.split("=", 1) for item in arguments[3:])
    os.umask(0o022)
    box = confine(directory, tools)
    run_tar(box, "ld.so" in tools, max_file_bytes, memory)
    _call("umount2", box.encode(), MNT_DETACH)
    os.rmdir(box)
    conversion = Conversion()
    conversion.run()
    print(f"entries {conversion.entries}\nbytes {conversion.bytes}\nopaque_root {int(conversion.opaque_root)}\nok")  # noqa: T201


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except Refused as refusal:
        print("error", refusal)  # noqa: T201
    except OSError as error:
        print("error", "nested too deeply" if error.errno == 36 else error)  # noqa: T201
