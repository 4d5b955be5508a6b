"""Source NAT for traffic that leaves: pods appear with their node's address, node hosts with the machine's.

Rules are set once per start, so the tools themselves do it: ``nft`` where the kernel has nf_tables, else iptables.
"""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import msgspec

from nodewright_agent.network.addresses import NetworkError

_COMMENT = "nodewright: to the outside"


class Rule(msgspec.Struct, frozen=True):
    """What is masqueraded: packets from ``sources``, but those to ``except_destinations`` or out through ``bridge``.

    With br_netfilter, frames that merely cross a bridge pass these hooks too, and must keep their source.
    """

    table: str
    sources: str
    except_destinations: str
    bridge: str


def nft_table(rule: Rule) -> str:
    """Return the nft script that replaces the rule's table, or makes it."""
    table = rule.table
    return (
        f"table ip {table}\n"
        f"delete table ip {table}\n"
        f"table ip {table} {{\n"
        "  chain postrouting {\n"
        "    type nat hook postrouting priority srcnat; policy accept;\n"
        f"    {_match(rule)} "
        f'counter masquerade comment "{_COMMENT}"\n'
        "  }\n"
        "}\n"
    )


def _match(rule: Rule) -> str:
    return f'ip saddr {rule.sources} ip daddr != {rule.except_destinations} oifname != "{rule.bridge}"'


def ensure(rule: Rule) -> str:
    """Put the rule into the kernel, with whichever tool works; return which. Idempotent.

    Raise ``NetworkError`` with every tool's answer when none does.
    """
    problems = [_run(["nft", "-f", "-"], nft_table(rule))]
    if problems[0] is None:
        return "nft"
    words = _iptables_words(rule)
    for tool in ("iptables", "iptables-legacy"):
        if _run([tool, "-w", "-t", "nat", "-C", "POSTROUTING", *words]) is None:
            return tool
        problem = _run([tool, "-w", "-t", "nat", "-A", "POSTROUTING", *words])
        if problem is None:
            return tool
        problems.append(problem)
    raise NetworkError("cannot masquerade: " + "; ".join(filter(None, problems)))


def present(rule: Rule) -> bool:
    """Return whether nft has the rule."""
    try:
        done = subprocess.run(
            ["nft", "list", "table", "ip", rule.table], capture_output=True, text=True, timeout=30, check=False
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and all(text in done.stdout for text in (_match(rule), _COMMENT))


def remove_table(table: str) -> bool:
    """Remove the nft table of a rule; return whether it was there."""
    return _run(["nft", "delete", "table", "ip", table]) is None


def remove(rule: Rule) -> None:
    """Take the rule away again, whichever tool made it."""
    remove_table(rule.table)
    for tool in ("iptables", "iptables-legacy"):
        _run([tool, "-w", "-t", "nat", "-D", "POSTROUTING", *_iptables_words(rule)])


def remove_iptables(source_bridge: str) -> list[str]:
    """Remove iptables rules of ours that keep traffic of ``source_bridge`` apart; return a text for each."""
    removed = []
    for tool in ("iptables", "iptables-legacy"):
        for words in _iptables_rules(tool):
            if _COMMENT in words and source_bridge in words and not _run([tool, "-w", "-t", "nat", "-D", *words[1:]]):
                removed.append(f"{tool} nat {words[1]}: masquerade of {words[3]}")
    return removed


def _iptables_rules(tool: str) -> list[list[str]]:
    """Return our kind of rules in POSTROUTING as words; the legacy tool is asked only where it is in use."""
    names = Path("/proc/net/ip_tables_names")
    if tool == "iptables-legacy" and not (names.exists() and "nat" in names.read_text().split()):
        return []
    try:
        argv = [tool, "-w", "-t", "nat", "-S", "POSTROUTING"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return []
    return [shlex.split(line) for line in done.stdout.splitlines() if _COMMENT in line]


def _iptables_words(rule: Rule) -> list[str]:
    match = ["-s", rule.sources, "!", "-d", rule.except_destinations, "!", "-o", rule.bridge]
    return [*match, "-m", "comment", "--comment", _COMMENT, "-j", "MASQUERADE"]


def _run(argv: list[str], stdin: str = "") -> str | None:
    """Run one tool; return ``None`` when it worked, else what it said."""
    try:
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=30, check=False)
    except FileNotFoundError:
        return f"{argv[0]}: not installed"
    except subprocess.TimeoutExpired:
        return f"{argv[0]}: no answer within 30 s"
    if done.returncode == 0:
        return None
    return f"{argv[0]}: {done.stderr.strip() or f'exit {done.returncode}'}"
