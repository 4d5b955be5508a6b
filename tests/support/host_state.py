"""What of a machine Nodewright could leave behind, in a form that can be compared before and after."""

import os
import re
import subprocess
from pathlib import Path

# A kind cluster of somebody else may come and go beside a test: what Docker made is not ours.
_DOCKERS_MOUNT = re.compile(r"/overlay2/[0-9a-f]{20,}|/netns/[0-9a-f]{12}$")


def snapshot(marks: tuple[str, ...] = ()) -> dict[str, list[str]]:
    """Links, namespaces, mounts, cgroups, rules, sysctls, and processes whose command line has one of ``marks``."""
    return {
        **network(),
        "netns": sorted(os.listdir("/run/netns")) if os.path.isdir("/run/netns") else [],
        "mounts": sorted(path for path in _mount_points() if not _DOCKERS_MOUNT.search(path)),
        "cgroups": sorted({str(path.relative_to("/sys/fs/cgroup")) for path in _cgroups()}),
        "runtime files": sorted(str(path) for path in Path("/run").glob("nodewright/*/*")),
        "ip_forward": [Path("/proc/sys/net/ipv4/ip_forward").read_text().strip()],
        "processes": sorted(_processes(marks)),
    }


def network() -> dict[str, list[str]]:
    """Links, addresses, routes and rules of the network namespace that we are in."""
    return {
        "links": _lines("ip", "-o", "-br", "link"),
        "addresses": _lines("ip", "-o", "addr", "show", "scope", "global"),
        "routes": _lines("ip", "route"),
        "rules": _lines("nft", "list", "ruleset"),
    }


def mentioned(marks: tuple[str, ...]) -> dict[str, list[str]]:
    """Mounts and processes that name one of ``marks``, on a machine where others work too."""
    return {
        "mounts": sorted(path for path in _mount_points() if any(mark in path for mark in marks)),
        "processes": sorted(_processes(marks)),
    }


def difference(before: dict[str, list[str]], after: dict[str, list[str]]) -> dict[str, dict[str, list[str]]]:
    """Return per kind what came and what went; empty when nothing did."""
    changed = {}
    for kind, old in before.items():
        new = after[kind]
        came, went = sorted(set(new) - set(old)), sorted(set(old) - set(new))
        if came or went:
            changed[kind] = {"came": came, "went": went}
    return changed


def _lines(*argv: str) -> list[str]:
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    # Packet counters and the order of lines are not state.
    return sorted(line.split(" counter packets")[0].strip() for line in done.stdout.splitlines() if line.strip())


def _mount_points() -> list[str]:
    return [line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]


def _cgroups() -> list[Path]:
    found = Path("/sys/fs/cgroup").glob("**/*nodewright*")
    return [path for path in found if path.is_dir() and "docker" not in path.parts]


def _processes(marks: tuple[str, ...]) -> list[str]:
    ours = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it ended while we looked
        text = b" ".join(words).decode(errors="replace")
        if any(mark in text for mark in marks):
            ours.append(f"{entry.name} {text[:120]}")
    return ours
