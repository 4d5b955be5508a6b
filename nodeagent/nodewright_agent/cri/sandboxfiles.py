"""The files of a sandbox that its containers get: hosts, hostname and resolv.conf."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def resolv_conf(dns: Any) -> str:
    """The text for a DNSConfig."""
    lines = [f"search {' '.join(dns.searches)}"] if dns.searches else []
    lines += [f"nameserver {server}" for server in dns.servers]
    if dns.options:
        lines.append(f"options {' '.join(dns.options)}")
    return "".join(f"{line}\n" for line in lines)


def write(directory: Path, config: Any, hostname: str) -> None:
    """Write all of them. Without a DNSConfig the host's resolv.conf is taken, as CRI runtimes do. Raises OSError."""
    resolver = resolv_conf(config.dns_config) or _host_file("/etc/resolv.conf")
    for name, text in (("hosts", _host_file("/etc/hosts")), ("hostname", f"{hostname}\n"), ("resolv.conf", resolver)):
        path = directory / name
        path.write_text(text)
        path.chmod(0o644)


def _host_file(path: str) -> str:
    try:
        return Path(path).read_text()
    except FileNotFoundError:
        return ""
