"""Source NAT for traffic that leaves the cluster: pods appear with their node's address.

Rules are set once per start, so the tools themselves do it: ``nft`` where the kernel has nf_tables, else iptables.
"""

from __future__ import annotations

import logging
import subprocess

from nodewright_agent.network.addresses import NetworkError

log = logging.getLogger(__name__)
_COMMENT = "nodewright: pods to outside the cluster"


def nft_table(table: str, sources: str, except_destinations: str) -> str:
    """Return the nft script that replaces ``table`` with one masquerading everything but ``except_destinations``."""
    return (
        f"table ip {table}\n"
        f"delete table ip {table}\n"
        f"table ip {table} {{\n"
        "  chain postrouting {\n"
        "    type nat hook postrouting priority srcnat; policy accept;\n"
        f'    ip saddr {sources} ip daddr != {except_destinations} counter masquerade comment "{_COMMENT}"\n'
        "  }\n"
        "}\n"
    )


def ensure(table: str, sources: str, except_destinations: str) -> str:
    """Masquerade packets from ``sources`` to anywhere but ``except_destinations``. Return the tool that did it.

    Raise ``NetworkError`` with every tool's answer when none can.
    """
    problems = [_run(["nft", "-f", "-"], nft_table(table, sources, except_destinations))]
    if problems[0] is None:
        return "nft"
    rule = _iptables_rule(sources, except_destinations)
    for tool in ("iptables", "iptables-legacy"):
        if _run([tool, "-w", "-t", "nat", "-C", "POSTROUTING", *rule]) is None:
            return tool
        problem = _run([tool, "-w", "-t", "nat", "-A", "POSTROUTING", *rule])
        if problem is None:
            return tool
        problems.append(problem)
    raise NetworkError("cannot masquerade pod traffic: " + "; ".join(filter(None, problems)))


def remove(table: str, sources: str, except_destinations: str) -> None:
    """Take the rule away again, whichever tool made it."""
    _run(["nft", "delete", "table", "ip", table])
    for tool in ("iptables", "iptables-legacy"):
        _run([tool, "-w", "-t", "nat", "-D", "POSTROUTING", *_iptables_rule(sources, except_destinations)])


def _iptables_rule(sources: str, except_destinations: str) -> list[str]:
    match = ["-s", sources, "!", "-d", except_destinations]
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
