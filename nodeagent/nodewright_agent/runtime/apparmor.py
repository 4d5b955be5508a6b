"""AppArmor: whether this kernel has it, which profiles are loaded, and the profile that containers get by default."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from nodewright_agent.runtime import processes
from nodewright_agent.runtime.hostspace import HostSpace

PROFILE = "nodewright-default"
"""RuntimeDefault: equal in effect to the profile that containerd generates."""
UNCONFINED = "unconfined"

# Mounts and the kernel's own knobs are denied, and other profiles' processes can be neither traced nor signalled;
# all else is left to capabilities, seccomp, masked and read-only paths. Without includes: nothing need be installed.
_TEXT = f"""\
@{{PROC}}=/proc/

profile {PROFILE} flags=(attach_disconnected,mediate_deleted) {{
  network,
  capability,
  file,
  umount,

  # The agent, its monitors and runtimes may stop a container; within it everybody may signal everybody.
  signal (receive) peer=unconfined,
  signal (receive) peer=runc,
  signal (receive) peer=crun,
  signal (send, receive) peer={PROFILE},

  # Below /proc: processes only, and of the sysctls those of shared memory.
  deny @{{PROC}}/* w,
  deny @{{PROC}}/{{[^1-9],[^1-9][^0-9],[^1-9s][^0-9y][^0-9s],[^1-9][^0-9][^0-9][^0-9]*}}/** w,
  deny @{{PROC}}/sys/[^k]** w,
  deny @{{PROC}}/sys/kernel/{{?,??,[^s][^h][^m]**}} w,
  deny @{{PROC}}/sysrq-trigger rwklx,
  deny @{{PROC}}/mem rwklx,
  deny @{{PROC}}/kmem rwklx,
  deny @{{PROC}}/kcore rwklx,

  deny mount,

  # Below /sys: control groups only.
  deny /sys/[^f]*/** wklx,
  deny /sys/f[^s]*/** wklx,
  deny /sys/fs/[^c]*/** wklx,
  deny /sys/fs/c[^g]*/** wklx,
  deny /sys/fs/cg[^r]*/** wklx,
  deny /sys/firmware/** rwklx,
  deny /sys/devices/virtual/powercap/** rwklx,
  deny /sys/kernel/security/** rwklx,

  ptrace (trace, read, tracedby, readby) peer={PROFILE},
}}
"""


def enabled(sys: Path = Path("/sys")) -> bool:
    """Whether the kernel enforces AppArmor, and we can see its profiles."""
    try:
        on = (sys / "module/apparmor/parameters/enabled").read_text().startswith("Y")
    except OSError:
        return False
    return on and (sys / "kernel/security/apparmor").is_dir()


def loaded(sys: Path = Path("/sys")) -> set[str]:
    """The names of the profiles that the kernel has. Raises OSError."""
    return set(names((sys / "kernel/security/apparmor/profiles").read_text().splitlines()))


def names(lines: Iterable[str]) -> Iterable[str]:
    """Of ``NAME (MODE)`` lines, the names; they may have spaces. Pure."""
    return (line.rpartition(" (")[0] for line in lines if line.endswith(")"))


async def load(host: HostSpace, run_dir: Path) -> str:
    """Load the default profile (again: it may be an older version's); why it cannot be, or empty."""
    path = run_dir / "apparmor-profile"
    path.write_text(_TEXT)
    try:
        code, output = await processes.run(
            host.command(["apparmor_parser", "--replace", "--skip-cache", str(path)]), timeout=30
        )
    except (OSError, TimeoutError) as error:
        return f"apparmor_parser: {error or 'no answer within 30 s'}"
    return f"apparmor_parser: {output.decode(errors='replace').strip()}" if code else ""
