"""User namespaces of pods (hostUsers: false): which ids a pod gets, the namespaces themselves, whether the host can.

A pod's range is written beside its record before it is used (``pods/UID/userns``, as kubelet has it), and is free
again when that is gone: no other memory of it exists, so a restart cannot give one range to two pods.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from nodewright_agent.failpoints import failpoint
from nodewright_agent.runtime import idmap, mounts, processes, syscalls
from nodewright_agent.runtime.errors import SandboxError
from nodewright_agent.runtime.spec import MAX_ID, IdRange

UNIT = 65536
"""Ids of one pod are a multiple of this, and begin at one: kubelet's rule."""
FILE = "userns"
SUBUID_USERS = ("nodewright", "kubelet")
"""Whose line in /etc/subuid and /etc/subgid says what pods may use, where the settings do not."""


class RangeError(ValueError):
    """The ids set aside for pods cannot be used; the text says where they are written and why."""


def parse_range(text: str, per_pod: int) -> IdRange:
    """``FIRST:COUNT`` of the settings. Raises RangeError. Pure."""
    first, _, count = text.partition(":")
    if not (first.isdecimal() and count.isdecimal()):
        raise RangeError(f"{text!r} is not FIRST:COUNT")
    return _checked(IdRange(int(first), int(count)), per_pod, repr(text))


def subordinate_range(subuid: str, subgid: str, per_pod: int) -> IdRange | None:
    """What the texts of /etc/subuid and /etc/subgid set aside for pods; None: nothing. Raises RangeError. Pure."""
    for user in SUBUID_USERS:
        uids, gids = (
            [line.split(":")[1:] for line in text.splitlines() if line.startswith(f"{user}:")]
            for text in (subuid, subgid)
        )
        if not uids and not gids:
            continue
        if uids != gids or len(uids) != 1:
            raise RangeError(f"/etc/subuid and /etc/subgid must have one and the same line for {user}")
        return _checked(parse_range(":".join(uids[0]), per_pod), per_pod, f"{user} in /etc/subuid")
    return None


def default_range(pods: int, per_pod: int) -> IdRange:
    """As kubelet's: from 65536 on, for as many pods as the node takes. Pure."""
    return IdRange(UNIT, pods * per_pod)


def first_free(pool: IdRange, per_pod: int, taken: Iterable[IdRange]) -> IdRange:
    """The lowest range that overlaps none of ``taken``. Raises SandboxError where there is none. Pure."""
    start = pool.start
    for used in sorted(taken, key=lambda one: one.start):
        if used.start >= start + per_pod:
            break
        start = max(start, -(-(used.start + used.length) // UNIT) * UNIT)
    if start + per_pod > pool.start + pool.length:
        last = pool.start + pool.length - 1
        raise SandboxError(f"no user ids are left for the pod's user namespace ({pool.start} to {last} are in use)")
    return IdRange(start, per_pod)


def _checked(found: IdRange, per_pod: int, where: str) -> IdRange:
    if found.start % UNIT or found.start < UNIT:
        raise RangeError(f"{where}: the first id must be a multiple of {UNIT}, at least {UNIT}")
    if found.length < per_pod or found.start + found.length > MAX_ID:
        raise RangeError(f"{where}: {found.length} ids are too few for a pod ({per_pod}), or more than there are")
    return found


class IdPool:
    """The ranges of one node's pods, on disk below ``root`` (one directory per pod UID)."""

    def __init__(self, root: Path, pool: IdRange, per_pod: int = UNIT) -> None:
        self._root, self._pool, self._per_pod = root, pool, per_pod

    def get(self, uid: str) -> IdRange | None:
        """A pod's range; None: it has none."""
        try:
            return msgspec.json.decode((self._root / uid / FILE).read_bytes(), type=IdRange)
        except (FileNotFoundError, msgspec.DecodeError):
            return None  # the file appears whole: what is none was never used

    def claim(self, uid: str) -> IdRange:
        """Give a pod its range, the same again when it has one. Raises SandboxError, OSError."""
        if (found := self.get(uid)) is not None:
            return found
        others = (self.get(path.parent.name) for path in self._root.glob(f"*/{FILE}"))
        found = first_free(self._pool, self._per_pod, [one for one in others if one is not None])
        directory = self._root / uid
        directory.mkdir(mode=0o750, exist_ok=True)
        temporary = directory / f".{FILE}"
        temporary.write_bytes(msgspec.json.encode(found))
        failpoint("userns.written")
        temporary.replace(directory / FILE)
        failpoint("userns.claimed")
        return found


class UserNamespaces:
    """The user namespaces of a node: its pool of ids, or why there are none (``problem``)."""

    def __init__(self, pool: IdPool | None, problem: str = "") -> None:
        self._pool, self.problem = pool, problem

    @property
    def supported(self) -> bool:
        """Whether pods may have them."""
        return self._pool is not None and not self.problem

    def claim(self, uid: str) -> IdRange:
        """As ``IdPool.claim``. Raises SandboxError where this node cannot."""
        if self._pool is None or self.problem:
            text = "can't set `spec.hostUsers: false`, runtime does not support user namespaces"
            raise SandboxError(f"{text}: {self.problem}")
        return self._pool.claim(uid)

    def get(self, uid: str) -> IdRange | None:
        """As ``IdPool.get``."""
        return self._pool.get(uid) if self._pool is not None else None


def for_node(root: Path, wanted: str, per_pod: int, max_pods: int, problem: str = "") -> UserNamespaces:
    """The pool from the settings (``FIRST:COUNT``), else /etc/subuid, else as many as ``max_pods`` need.

    ``problem``: what ``probe`` found.
    """
    try:
        if wanted:
            pool = parse_range(wanted, per_pod)
        else:
            found = subordinate_range(_text("/etc/subuid"), _text("/etc/subgid"), per_pod)
            pool = found or default_range(max_pods, per_pod)
    except RangeError as error:
        return UserNamespaces(None, str(error))
    return UserNamespaces(IdPool(root, pool, per_pod), problem)


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except FileNotFoundError:
        return ""


@contextlib.contextmanager
def new_namespaces(ids: IdRange, kinds: Iterable[str]) -> Iterator[int]:
    """A process in a user namespace of its own that maps ``ids``, with those of ``kinds`` that belong to it.

    ``kinds`` are long options of unshare(1): net, ipc, uts. Its pid is given: who wants the namespaces binds
    ``/proc/PID/ns/KIND`` before it ends with the context. A process, since a thread cannot enter a user namespace.
    Blocks. Raises SandboxError, OSError.
    """
    words = ["unshare", "--user", *(f"--{kind}" for kind in kinds), "--", "cat"]
    with contextlib.ExitStack() as stack:
        ours, theirs = _pipe(stack)
        answer, said = _pipe(stack)
        process = processes.spawn(words, stdin=ours.fileno(), stdout=said.fileno(), stderr=said.fileno())
        stack.callback(_end, process)
        ours.close()
        said.close()
        # What comes back went through cat: the namespaces are there.
        theirs.write(b"\n")
        if (text := answer.read(4096)) != b"\n":
            raise SandboxError(f"cannot make a user namespace: {(text or b'').decode(errors='replace').strip()}")
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{process.pid}/{name}").write_text(f"0 {ids.start} {ids.length}\n")
        yield process.pid


def write_as_root(user_ns: str, ipc_ns: str, path: str, value: str) -> None:
    """Write a file as the root of a user namespace, in an IPC namespace of its own. Raises SandboxError."""
    words = ["nsenter", f"--user={user_ns}", f"--ipc={ipc_ns}", "--setuid=0", "--setgid=0", "--", "tee", path]
    with contextlib.ExitStack() as stack:
        given, theirs = _pipe(stack)
        answer, said = _pipe(stack)
        process = processes.spawn(words, stdin=given.fileno(), stderr=said.fileno())
        given.close()
        said.close()
        with contextlib.suppress(BrokenPipeError):
            theirs.write(value.encode())
        theirs.close()
        text = answer.read(4096) or b""
        if process.wait():
            raise SandboxError(f"cannot write {path}: {text.decode(errors='replace').strip()}")


def _pipe(stack: contextlib.ExitStack) -> tuple[io.FileIO, io.FileIO]:
    read, write = os.pipe()
    return stack.enter_context(io.FileIO(read, "r")), stack.enter_context(io.FileIO(write, "w"))


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def probe(scratch: Path, directories: Iterable[Path]) -> str:
    """Try whether this host can run pods with user namespaces; why not, or empty when it can. Blocks.

    ``directories`` (layers, volumes) must take idmapped mounts, and so must tmpfs and overlay's layers. ``scratch`` is
    made for it, and gone when this returns.
    """
    if shutil.which("unshare", path=processes.ENVIRONMENT["PATH"]) is None:
        return "unshare(1) is not installed (Debian: apt-get install util-linux)"
    try:
        _clear(scratch)
        scratch.mkdir(mode=0o700)
        try:
            with new_namespaces(IdRange(UNIT, UNIT), ("net", "ipc", "uts")) as pid:
                _try(scratch, list(directories), f"/proc/{pid}/ns/user")
        finally:
            _clear(scratch)
    except (OSError, SandboxError) as error:
        return str(error)
    return ""


def _try(work: Path, directories: list[Path], user_ns: str) -> None:
    for name in ("tmp", "upper", "work", "root"):
        (work / name).mkdir()
    syscalls.mount("probe", str(work / "tmp"), "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV)
    for index, directory in enumerate([work / "tmp", *directories]):
        idmap.bind(str(directory), work / str(index), user_ns)
    mounts.unmount(str(work / "tmp"))
    upper, below = str(work / "upper"), str(work / "work")
    idmap.mount_overlay(str(work / "root"), directories[:1], upper, below, user_ns, work / "layers")
    failpoint("userns.probed")


def _clear(scratch: Path) -> None:
    """Also what an agent that was killed at it has left."""
    mounts.unmount_below(scratch)
    if scratch.exists():
        shutil.rmtree(scratch)
