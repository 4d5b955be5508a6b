"""What the host is: identity, kernel, capacity, and what is available now. Reads /proc, /sys, and the host's /etc."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nodewright_agent.runtime.hostspace import HostSpace

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What does not change while the host is up; bytes and counts."""

    machine_id: str
    system_uuid: str
    boot_id: str
    kernel_version: str
    os_image: str
    architecture: str
    cpus: int
    memory: int
    disk: int
    hugepages: Mapping[str, int]


def read_facts(state_dir: Path, host: HostSpace) -> HostFacts:
    """Read the host's facts; the file system of ``state_dir`` is the node's disk."""
    disk = os.statvfs(state_dir)
    boot_id = _text("/proc/sys/kernel/random/boot_id")
    machine_id = _host_text(host, "/etc/machine-id", "/var/lib/dbus/machine-id")
    return HostFacts(
        machine_id=machine_id,
        # Readable for root only, and absent in virtual machines of some kinds: upstream then shows the machine id.
        system_uuid=_text("/sys/class/dmi/id/product_uuid").lower() or machine_id,
        boot_id=boot_id,
        kernel_version=platform.release(),
        os_image=os_image(_host_text(host, "/etc/os-release", "/usr/lib/os-release")),
        architecture=_ARCHITECTURES.get(platform.machine(), platform.machine()),
        cpus=len(os.sched_getaffinity(0)),
        memory=meminfo(_text("/proc/meminfo"))["MemTotal"],
        disk=disk.f_blocks * disk.f_frsize,
        hugepages=_hugepages(Path("/sys/kernel/mm/hugepages")),
    )


def meminfo(text: str) -> dict[str, int]:
    """Parse /proc/meminfo to bytes."""
    found = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdecimal():
            found[name] = int(words[0]) * (1024 if words[1:] == ["kB"] else 1)
    return found


def os_image(text: str) -> str:
    """Return PRETTY_NAME of an os-release file, as Node.status.nodeInfo.osImage shows it."""
    for line in text.splitlines():
        name, _, value = line.partition("=")
        if name == "PRETTY_NAME":
            return value.strip().strip("\"'")
    return "Linux"


def _hugepages(directory: Path) -> dict[str, int]:
    """Return bytes by resource name (``hugepages-2Mi``) of the sizes that the kernel knows."""
    found = {}
    for entry in sorted(directory.glob("hugepages-*kB")):
        size = int(entry.name.removeprefix("hugepages-").removesuffix("kB"))
        count = int(_text(str(entry / "nr_hugepages")) or 0)
        unit = f"{size >> 20}Gi" if size >= 1 << 20 else f"{size >> 10}Mi" if size >= 1024 else f"{size}Ki"
        found[f"hugepages-{unit}"] = count * size * 1024
    return found


def _text(path: str) -> str:
    """Return a small file's text without surrounding space; empty where it does not exist or may not be read."""
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _host_text(host: HostSpace, *paths: str) -> str:
    """Return the text of the first file of the host that has any."""
    for path in paths:
        try:
            text = host.read_text(path).strip()
        except OSError:
            continue
        if text:
            return text
    return ""
