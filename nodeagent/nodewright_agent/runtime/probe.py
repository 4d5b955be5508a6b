"""What this host and this agent's privileges allow, found out once at start."""

from __future__ import annotations

import logging
import os
import re
import shutil
from pathlib import Path

import msgspec

from nodewright_agent.runtime import capabilities, conmon, features, processes, syscalls
from nodewright_agent.runtime.cgroups import Cgroups
from nodewright_agent.runtime.errors import RuntimeUnavailable
from nodewright_agent.runtime.hostspace import HostSpace

logger = logging.getLogger(__name__)

_VERSION = re.compile(r"(\d+\.\d+[^\s]*)")
_RECOMMENDED_RUNC = (1, 3, 6)
# The shell writes its own value, lowest wish first; a child of ours has our limits and is gone afterwards.
_OOM_SCRIPT = """
for value in "$@"; do
    { echo "$value" >/proc/self/oom_score_adj; } 2>/dev/null && echo "$value" && exit 0
done
exit 1
"""


class RuntimeInfo(msgspec.Struct, frozen=True, kw_only=True):
    """The findings, for the node's status, `doctor` and the log."""

    runc: str
    runc_version: str
    conmon: str
    conmon_version: str
    cgroup_version: int
    capabilities: tuple[str, ...]
    oom_score_floor: int
    """Lowest oom_score_adj that containers can get; -1000 with CAP_SYS_RESOURCE."""
    limits_swap: bool = True
    recursive_read_only: bool = False
    """Whether runc and kernel can make a mount read-only with all that is mounted below it."""
    handlers: dict[str, features.RuntimeFeatures] = {}
    """What OCI runtimes beside the node's own can do, by program."""
    app_armor: bool = False
    """Whether the kernel enforces AppArmor."""
    app_armor_default: bool = False
    """Whether our default profile is loaded."""
    warnings: tuple[str, ...] = ()


async def probe(runc: str, monitor: str, cgroups: Cgroups, host: HostSpace) -> RuntimeInfo:
    """Look at programs (the host's) and privileges (ours). Raises RuntimeUnavailable with what is missing."""
    if host.separate and shutil.which("nsenter", path=processes.ENVIRONMENT["PATH"]) is None:
        raise RuntimeUnavailable("nsenter is not installed beside the agent (Debian: apt-get install util-linux)")
    runc_path, monitor_path = host.call(lambda: (_find(runc, "runc"), _find(monitor, "conmon")))
    runc_version = await _version(runc_path, host)
    monitor_version = await _version(monitor_path, host)
    if "crun" in os.path.basename(runc_path) and cgroups.version == 1 and getattr(cgroups, "unified", None) is not None:
        raise RuntimeUnavailable("crun refuses hybrid cgroup layouts (v1 with v2 mounted beside it): use runc")
    floor = await oom_score_floor()
    warnings = []
    if floor > -1000:
        warnings.append(f"no CAP_SYS_RESOURCE: oom_score_adj of containers is never below {floor}")
    if version_tuple(runc_version) < _RECOMMENDED_RUNC and "crun" not in runc_path:
        wanted = ".".join(map(str, _RECOMMENDED_RUNC))
        warnings.append(
            f"runc {runc_version} is older than {wanted}; distributions may have backported its security fixes"
        )
    recursive = syscalls.has_mount_setattr() and (await features.ask(runc_path, host)).recursive_read_only
    return RuntimeInfo(
        recursive_read_only=recursive,
        runc=runc_path,
        runc_version=runc_version,
        conmon=monitor_path,
        conmon_version=monitor_version,
        cgroup_version=cgroups.version,
        capabilities=tuple(capabilities.available()),
        oom_score_floor=floor,
        warnings=tuple(warnings),
    )


async def oom_score_floor() -> int:
    """The lowest oom_score_adj that a child of ours may have: -1000, our own value if negative, 0, our own value."""
    own = int(Path("/proc/self/oom_score_adj").read_text())
    wishes = sorted({-1000, min(own, 0), 0, own})
    code, output = await processes.run(["/bin/sh", "-c", _OOM_SCRIPT, "sh", *map(str, wishes)], timeout=10)
    if code:
        raise RuntimeUnavailable("cannot write /proc/self/oom_score_adj at all")
    return int(output)


def version_tuple(text: str) -> tuple[int, ...]:
    """``1.1.5+ds1`` -> (1, 1, 5). Pure."""
    return tuple(int(part) for part in re.findall(r"\d+", text.partition("+")[0])[:3])


def _find(name: str, package: str) -> str:
    path = shutil.which(name, path=processes.ENVIRONMENT["PATH"]) if "/" not in name else name
    if path is None or not os.access(path, os.X_OK):
        raise RuntimeUnavailable(f"{name} is not installed (Debian: apt-get install {package})")
    return path


async def _version(path: str, host: HostSpace) -> str:
    try:
        code, output = await processes.run(host.command([path, "--version"]), timeout=10)
    except (OSError, TimeoutError) as error:
        raise RuntimeUnavailable(f"{path} --version: {error or 'no answer within 10 s'}") from error
    found = _VERSION.search(output.decode(errors="replace"))
    if code or found is None:
        raise RuntimeUnavailable(f"{path} --version failed: {conmon.tail(output)}")
    return found[1]
