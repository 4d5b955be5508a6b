"""The pause program: what is in the file, and what it does when it runs."""

import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nodewright_agent.runtime import pause, processes
from nodewright_agent.runtime.sandbox import SandboxPaths
from nodewright_agent.runtime.spec import problems

PATHS = SandboxPaths(net="/sb/net", ipc="/sb/ipc", uts="/sb/uts", shm="/sb/shm")
POD = pause.PausedPod("u-1", "p", "ns", PATHS, "/nw/podu-1", Path("/pods/u-1/pause.log"))


@pytest.mark.parametrize(("machine", "number", "code"), [("x86_64", 62, 36), ("aarch64", 183, 52)])
def test_file(machine: str, number: int, code: int):
    data = pause.program(machine)
    kind, got, _, entry, headers = struct.unpack_from("<HHIQQ", data, 16)
    assert (data[:7], kind, got, headers) == (b"\x7fELF\x02\x01\x01", 2, number, 64)
    segment = struct.unpack_from("<IIQQQQQQ", data, 64)
    base = segment[3]
    # One segment, readable and executable, never writable: the whole file.
    assert (segment[0], segment[1], segment[2], segment[5]) == (1, 5, 0, len(data))
    assert entry - base == 120
    assert len(data) == 120 + code + 32
    assert data[120 + code :] == struct.pack("<QQQQ", 1, 0, 0, 0)


def test_aarch64_by_the_manual():
    # Checked against the encodings of the Arm Architecture Reference Manual (C6.2): movz, adr, svc, b.
    words = struct.unpack_from("<13I", pause.program("aarch64"), 120)
    assert words[0] == 0xD2800220  # movz x0, #17
    assert words[1] == 0x10000181  # adr x1, +48
    assert words[4] == 0xD28010C8  # movz x8, #134
    assert words[5] == words[11] == 0xD4000001  # svc #0
    assert words[10] == 0xD2800928  # movz x8, #73
    assert words[12] == 0x17FFFFFA  # b -24


def test_machine_without_code():
    with pytest.raises(ValueError, match="no pause program for riscv64"):
        pause.program("riscv64")


@pytest.mark.skipif(os.uname().machine not in ("x86_64", "aarch64"), reason="no program for this machine")
def test_it_waits_for_ever_and_leaves_no_zombies(tmp_path: Path):
    program = pause.layer(tmp_path) / "pause"
    assert pause.layer(tmp_path) / "pause" == program
    # A child of its own, inherited over exec: it must be reaped although nobody waits for it.
    script = "import os, sys\nif not os.fork():\n sys.stdin.read(1); os._exit(0)\nos.execv(sys.argv[1], ['pause'])"
    with subprocess.Popen([sys.executable, "-c", script, str(program)], stdin=subprocess.PIPE) as process:
        try:
            assert process.stdin is not None
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            deadline = time.monotonic() + 30
            while processes.command_line(process.pid) != ["pause"]:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            (child,) = children.read_text().split()
            gone = os.pidfd_open(int(child))
            process.stdin.write(b"x")
            process.stdin.close()
            processes.wait_gone([int(child)], deadline)
            os.close(gone)
            while children.read_text():
                assert time.monotonic() < deadline
            os.kill(process.pid, signal.SIGCHLD)
            assert process.poll() is None
        finally:
            process.kill()


def test_the_order_has_no_privileges():
    spec = pause.spec(POD, Path("/rt/pause"))
    assert problems(spec) == []
    assert (spec.id, spec.name, spec.argv) == ("u-1-pause", "POD", ["/pause"])
    assert spec.capabilities == []
    assert spec.no_new_privileges
    assert spec.read_only_rootfs
    assert spec.seccomp is not None
    assert (spec.user.uid, spec.user.gid) == (65535, 65535)
    assert pause.pod_of(spec.id) == "u-1"
    assert pause.pod_of("0123abcd") is None
