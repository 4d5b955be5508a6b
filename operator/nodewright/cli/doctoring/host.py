"""Checks of this host's set-up: who we are, what we may, where the state goes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from nodewright.cli.doctoring.model import Finding, failed, ok, warning
from nodewright.controlplane import slots, state
from nodewright.controlplane.errors import PreconditionError

_CAPABILITIES = {"CAP_CHOWN": 0, "CAP_DAC_OVERRIDE": 1, "CAP_KILL": 5, "CAP_NET_ADMIN": 12, "CAP_SYS_CHROOT": 18}
_CAPABILITIES |= {"CAP_SYS_PTRACE": 19, "CAP_SYS_ADMIN": 21, "CAP_MKNOD": 27}
_SYS_RESOURCE = 24
_INOTIFY = {"max_user_instances": 512, "max_user_watches": 65536}
"""What a few node hosts on one machine need. Most kernels allow 128 instances, and a kubelet alone takes 7; the limit
is per user, and all containers' root is one. 65536 watches are what small machines get; large ones have more."""
_SPACE_NEEDED, _SPACE_GOOD = 1_000_000_000, 10_000_000_000  # bytes


def state_directory(root: Path) -> Finding:
    """Clusters can be kept there."""
    existing = next(path for path in (root, *root.parents) if path.exists())
    if not existing.is_dir():
        return failed(f"{existing} is not a directory", "choose another with --state-dir")
    if not os.access(existing, os.W_OK | os.X_OK):
        return failed(f"{existing} is not writable", "choose another with --state-dir, or run as root")
    return ok(str(root))


def disk_space(root: Path) -> Finding:
    """Enough for etcd, images and logs."""
    existing = next(path for path in (root, *root.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    text = f"{free / 1e9:.1f} GB free for {root}"
    if free < _SPACE_NEEDED:
        return failed(text, "free some space: etcd stops taking writes on a full disk")
    if free < _SPACE_GOOD:
        return warning(text, "images and the build of the binaries may need up to 10 GB")
    return ok(text)


def is_root(_root: Path) -> Finding:
    """Node hosts need root."""
    if os.geteuid() == 0:
        return ok("root")
    return failed(f"uid {os.geteuid()}", "node hosts need root: run with sudo; a control plane alone does not")


def capabilities(_root: Path) -> Finding:
    """Root inside a container may lack what containers need."""
    have = _effective()
    missing = [name for name, bit in _CAPABILITIES.items() if not have >> bit & 1]
    if missing:
        return failed(f"lacks {', '.join(missing)}", "run as root of the machine, or in a privileged container")
    return ok("all that the agent needs")


def sys_resource(_root: Path) -> Finding:
    """Without CAP_SYS_RESOURCE, negative oom_score_adj values cannot be set."""
    if _effective() >> _SYS_RESOURCE & 1:
        return ok("present")
    return warning("absent", "oom_score_adj cannot be lowered: under memory pressure Guaranteed Pods are not preferred")


def ip_forward(_root: Path) -> Finding:
    """Packets between node hosts and the outside."""
    if Path("/proc/sys/net/ipv4/ip_forward").read_text().strip() == "1":
        return ok("on")
    return ok("off; `nodewright up --nodes K` switches it on, and off again at the end")


def address_ranges(root: Path) -> Finding:
    """A slot of addresses is free."""
    try:
        slot = slots.choose_slot(state.slots_taken(root, ""), [network for _, network in slots.host_routes()])
    except PreconditionError as error:
        return warning(error.message, error.hint)
    return ok(f"the next cluster takes {slot.node_cidr} and {slot.pod_cidr}")


def inotify(_root: Path, limits: Path = Path("/proc/sys/fs/inotify")) -> Finding:
    """Enough for node hosts beside each other: kubelets, agents, container runtimes and systemds all watch files."""
    have = {name: int((limits / name).read_text()) for name in _INOTIFY}
    text = ", ".join(f"{name} {value}" for name, value in have.items())
    short = [f"fs.inotify.{name}={good}" for name, good in _INOTIFY.items() if have[name] < good]
    if short:
        hint = "several nodes on this machine (kind) may fail with `too many open files`: `sysctl -w "
        return warning(text, f"{hint}{' '.join(short)}`, and the same in a file below /etc/sysctl.d")
    return ok(text)


def _effective() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    raise OSError("/proc/self/status has no CapEff line")
