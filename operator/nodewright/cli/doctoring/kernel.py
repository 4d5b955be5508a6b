"""Checks of the kernel: asked, not guessed from module lists, since features may be built in."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

from nodewright.cli.doctoring.model import Finding, failed, ok, warning

_MINIMUM = (5, 10)
_NAMESPACES = ("mnt", "net", "pid", "ipc", "uts", "cgroup", "user")


def version(_root: Path) -> Finding:
    """New enough for pidfds, openat2 and overlayfs as we use them."""
    release = platform.release()
    numbers = tuple(int(part) for part in release.split("-")[0].split(".")[:2] if part.isdigit())
    if numbers < _MINIMUM:
        return failed(release, f"a kernel of at least {'.'.join(map(str, _MINIMUM))} is needed")
    return ok(release)


def namespaces(_root: Path) -> Finding:
    """All kinds of namespaces that containers have."""
    missing = [kind for kind in _NAMESPACES if not Path(f"/proc/self/ns/{kind}").exists()]
    if missing:
        return failed(f"no {', '.join(missing)} namespaces", "use a kernel with CONFIG_NAMESPACES and all its kinds")
    return ok(", ".join(_NAMESPACES))


def cgroups(_root: Path) -> Finding:
    """Which layout, and whether memory, cpu and pids can be limited."""
    root = Path("/sys/fs/cgroup")
    needed = {"memory", "cpu", "pids"}
    if (root / "cgroup.controllers").exists():
        layout, have = "v2", set((root / "cgroup.controllers").read_text().split())
    else:
        layout = "v1 (hybrid)" if (root / "unified").is_dir() else "v1"
        have = {entry.name for entry in root.iterdir()} if root.is_dir() else set()
        have |= {part for name in have for part in name.split(",")}
    if missing := needed - have:
        return failed(f"{layout}, without {', '.join(sorted(missing))}", "mount the cgroup controllers")
    if layout != "v2":
        return warning(f"{layout} with {', '.join(sorted(needed))}", "cgroup v2 has better memory limits (memory.high)")
    return ok(f"{layout} with {', '.join(sorted(needed))}")


def overlay(_root: Path) -> Finding:
    """Container file systems are overlays of image layers."""
    return _module("overlay", "overlay" in _file_systems(), "load it with `modprobe overlay`")


def link_type(kind: str, _root: Path) -> Finding:
    """A kind of network link, tried in a network namespace of its own that ends with the command."""
    if os.geteuid() != 0:
        return warning("only root can try", "run as root")
    argv = ["unshare", "--net", "--", "ip", "link", "add", "nwprobe", "type", kind]
    answer = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=10)
    if answer.returncode != 0:
        reason = (answer.stderr.strip().splitlines() or ["no reason given"])[-1]
        return failed(f"cannot be made: {reason}", f"load it with `modprobe {kind}`")
    return ok("can be made")


def nf_tables(_root: Path) -> Finding:
    """Masquerading and the nftables proxy."""
    if os.geteuid() != 0:
        return warning("only root can try", "run as root")
    argv = ["unshare", "--net", "--", "nft", "add table ip nwprobe"]
    try:
        answer = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=10)
    except FileNotFoundError:
        return warning("cannot be tried without unshare", "install the package util-linux")
    if answer.returncode != 0:
        reason = (answer.stderr.strip().splitlines() or ["no reason given"])[0]
        return failed(f"does not work: {reason}", "load it with `modprobe nf_tables`, and install the package nftables")
    return ok("works")


def ip_vs(_root: Path) -> Finding:
    """The IPVS proxy. Without it, `auto` takes nftables."""
    if Path("/proc/net/ip_vs").exists():
        return ok("loaded")
    if _loadable("ip_vs"):
        return ok("loadable")
    return warning("this kernel has none", "Services are served by nftables or iptables instead")


def br_netfilter(_root: Path) -> Finding:
    """Replies between two Pods of one bridge pass netfilter, so that a Service's translation is undone for them."""
    present = Path("/proc/sys/net/bridge/bridge-nf-call-iptables").exists()
    return _module("br_netfilter", present, "Services between Pods of one node will fail; `modprobe br_netfilter`")


def seccomp(_root: Path) -> Finding:
    """System call filters of containers."""
    actions = Path("/proc/sys/kernel/seccomp/actions_avail")
    if not actions.exists():
        return failed("not available", "use a kernel with CONFIG_SECCOMP_FILTER")
    return ok("filters are available")


def _module(name: str, present: bool, hint: str) -> Finding:
    if present:
        return ok("available")
    if _loadable(name):
        return ok("loadable")
    return failed("not available", hint)


def _file_systems() -> set[str]:
    return {line.split()[-1] for line in Path("/proc/filesystems").read_text().splitlines() if line.split()}


def _loadable(name: str) -> bool:
    """Whether the module's file, or the module as a part of the kernel, is listed for the running kernel."""
    base = Path("/lib/modules") / platform.release()
    for index in ("modules.dep", "modules.builtin"):
        try:
            if any(f"/{name}.ko" in line.split(":")[0] for line in (base / index).read_text().splitlines()):
                return True
        except FileNotFoundError:
            continue
    return False
