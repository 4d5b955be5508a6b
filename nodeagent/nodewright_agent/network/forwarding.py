"""Lets packets of pods through a host whose FORWARD chain drops what nobody accepts (Docker sets such a policy).

A rule in a table of our own cannot do that: in nf_tables a drop in any chain is final, an accept is not. So, as flannel
does, two rules go into the chain itself; only where its policy is not ACCEPT, so that most hosts stay as they are.
Firewalls with tables of their own (firewalld, ufw's deeper chains) have to be told by their own means.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from nodewright_agent.network.addresses import NetworkError

_COMMENT = "nodewright: pods"
_LEGACY_TABLES = Path("/proc/net/ip_tables_names")


def ensure(bridge: str) -> list[str]:
    """Accept what comes from and goes to ``bridge``, where the policy is not ACCEPT; return the tools that were needed.

    Idempotent. Raise ``NetworkError`` where a rule is needed and refused.
    """
    used = []
    for tool in _tools():
        rules = _rules(tool)
        policy = next((line.split()[-1] for line in rules if line.startswith("-P FORWARD")), "ACCEPT")
        if policy == "ACCEPT":
            continue
        for words in _words(bridge):
            if _run([tool, "-w", "-C", "FORWARD", *words]).returncode == 0:
                continue
            done = _run([tool, "-w", "-I", "FORWARD", *words])
            if done.returncode:
                raise NetworkError(f"FORWARD drops packets of pods: {tool}: {done.stderr.strip()}")
        used.append(tool)
    return used


def remove(bridge: str) -> list[str]:
    """Take the rules away again; return a text for each that was there."""
    removed = []
    for tool in _tools():
        for words in _words(bridge):
            while _run([tool, "-w", "-D", "FORWARD", *words]).returncode == 0:
                removed.append(f"{tool} FORWARD {' '.join(words[:2])}")
    return removed


def _words(bridge: str) -> list[list[str]]:
    tail = ["-m", "comment", "--comment", _COMMENT, "-j", "ACCEPT"]
    return [["-i", bridge, *tail], ["-o", bridge, *tail]]


def _tools() -> list[str]:
    """Return the packet filters that this host may use; asking the legacy one would load it."""
    tools = ["iptables-nft"]
    if _LEGACY_TABLES.exists() and "filter" in _LEGACY_TABLES.read_text().split():
        tools.append("iptables-legacy")
    return tools


def _rules(tool: str) -> list[str]:
    done = _run([tool, "-w", "-S", "FORWARD"])
    return done.stdout.splitlines() if done.returncode == 0 else []


def _run(argv: list[str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    except FileNotFoundError:
        return subprocess.CompletedProcess(argv, 127, "", "not installed")
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(argv, 124, "", "no answer within 30 s")
