"""The pause program: process 1 of Pods whose containers share a process namespace, and its file system.

A pid namespace lives as long as its first process, so such a Pod needs one that outlives every container. All it
does is to have the kernel reap what is orphaned in the Pod: with SIGCHLD ignored no child becomes a zombie. It is ten
instructions, which we write ourselves (see docs/decisions/0009-a-pause-program-from-python.md): a few hundred bytes, no
compiler on any host, no binary in the repository, and nothing to trust but this page.
"""

from __future__ import annotations

import os
import struct
import threading
from dataclasses import dataclass
from pathlib import Path

from nodewright_agent.runtime import seccomp, syscalls
from nodewright_agent.runtime.sandbox import SandboxPaths
from nodewright_agent.runtime.spec import ContainerSpec, IdRange, Resources, User

NAME = "POD"
"""The container's name in records: as kubelet calls it, and no Pod's container can be called so (no DNS label)."""
NOBODY = 65535
"""Its user and group, as in the pause images of Kubernetes: no process of the Pod's may look into it."""

_SUFFIX = "-pause"
_SIGCHLD, _SIG_IGN = 17, 1
_BASE, _HEADER = 0x400000, 64 + 56

# A kernel struct sigaction: handler, flags, restorer, mask; and how many bytes its mask has.
_SIGACTION = struct.pack("<QQQQ", _SIG_IGN, 0, 0, 0)
_MASK_BYTES = 8


@dataclass(frozen=True, slots=True)
class PausedPod:
    """What of a pod goes into its pause container."""

    uid: str
    name: str
    namespace: str
    paths: SandboxPaths
    cgroup: str
    log: Path
    """A file that stays empty."""
    ids: IdRange | None = None


def program(machine: str) -> bytes:
    """The executable for ``machine`` (``os.uname().machine``). Raises ValueError for one that we have no code for."""
    if machine not in _MACHINES:
        raise ValueError(f"no pause program for {machine}")
    number, code = _MACHINES[machine]
    text = code + _SIGACTION
    size = _HEADER + len(text)
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)  # 64 bit, little-endian, version 1
    # type EXEC, machine, version, entry, program headers, no sections, flags, and the sizes of the headers
    header = struct.pack("<HHIQQQIHHHHHH", 2, number, 1, _BASE + _HEADER, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    # one segment: LOAD, readable and executable, the whole file at _BASE
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)
    return ident + header + segment + text


def _x86_64() -> bytes:
    start = [
        b"\xb8" + struct.pack("<I", 13),  # mov eax, 13          rt_sigaction(
        b"\xbf" + struct.pack("<I", _SIGCHLD),  # mov edi, 17      SIGCHLD,
        b"\x48\x8d\x35" + struct.pack("<i", 19),  # lea rsi, [rip+19]  &ignore: behind the 19 bytes that follow,
        b"\x31\xd2",  # xor edx, edx                               NULL,
        b"\x41\xba" + struct.pack("<I", _MASK_BYTES),  # mov r10d, 8  8)
        b"\x0f\x05",  # syscall
    ]
    forever = [
        b"\xb8" + struct.pack("<I", 34),  # mov eax, 34          pause()
        b"\x0f\x05",  # syscall
        b"\xeb\xf7",  # jmp -9: again
    ]
    return b"".join(start + forever)


def _aarch64() -> bytes:
    def load(register: int, value: int) -> int:
        return 0xD2800000 | value << 5 | register  # movz xREGISTER, #value

    call = 0xD4000001  # svc #0: the number is in x8
    words = [
        load(0, _SIGCHLD),  # rt_sigaction(SIGCHLD,
        0x10000000 | 12 << 5 | 1,  # adr x1, 12 instructions on: &ignore, behind the last one,
        load(2, 0),  # NULL,
        load(3, _MASK_BYTES),  # 8)
        load(8, 134),
        call,
        load(0, 0),  # ppoll(NULL, 0, NULL, NULL): this machine has no pause()
        load(1, 0),
        load(2, 0),
        load(3, 0),
        load(8, 73),
        call,
        0x14000000 | (-6 & 0x3FFFFFF),  # b 6 instructions back: again
    ]
    return struct.pack(f"<{len(words)}I", *words)


_MACHINES = {"x86_64": (62, _x86_64()), "aarch64": (183, _aarch64())}
"""ELF's number of the machine, and the code."""


def layer(directory: Path) -> Path:
    """Make (or find) the image of the pause process below ``directory``: one file. Raises ValueError, OSError."""
    wanted = program(os.uname().machine)
    root = directory / "pause"
    path = root / "pause"
    try:
        if path.read_bytes() == wanted and path.stat().st_mode & 0o777 == 0o555:
            return root
    except FileNotFoundError:
        root.mkdir(mode=0o755, exist_ok=True)
    temporary = root / f".new-{threading.get_native_id()}"
    temporary.write_bytes(wanted)
    temporary.chmod(0o555)
    temporary.replace(path)
    return root


def container_id(pod_uid: str) -> str:
    """The id of a pod's pause container; there is at most one."""
    return pod_uid + _SUFFIX


def pod_of(cid: str) -> str | None:
    """The pod whose pause container this is; None for other containers."""
    return cid.removesuffix(_SUFFIX) if cid.endswith(_SUFFIX) else None


def spec(pod: PausedPod, layer_root: Path) -> ContainerSpec:
    """The order for the runtime: no privileges at all, nothing to write to, next to no CPU, the last to be killed."""
    return ContainerSpec(
        id=container_id(pod.uid),
        pod_uid=pod.uid,
        pod_name=pod.name,
        pod_namespace=pod.namespace,
        name=NAME,
        lowers=[str(layer_root)],
        argv=["/pause"],
        user=User(uid=NOBODY, gid=NOBODY, merge_groups=False),
        netns=pod.paths.net,
        ipc_ns=pod.paths.ipc,
        uts_ns=pod.paths.uts,
        user_ns=pod.paths.user,
        ids=pod.ids,
        resources=Resources(cpu_shares=2),
        oom_score_adj=-998,
        capabilities=[],
        read_only_rootfs=True,
        no_new_privileges=True,
        seccomp=seccomp.default_profile((), os.uname().machine, x32=syscalls.has_x32()),
        log_path=str(pod.log),
        cgroup_parent=pod.cgroup,
    )
