"""What IPVS cannot do: masquerading, refusing in silence, source ranges. By ipset and a few fixed iptables rules.

The rules are fixed and the sets carry the services, so that a change is a few lines to `ipset restore`. All names begin
with NODEWRIGHT; nothing else is touched but the six jumps from the built-in chains.
"""

from __future__ import annotations

import ipaddress
import logging
import subprocess
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from nodewright_agent.proxy.backends.base import BackendError
from nodewright_agent.proxy.model import PROTOCOL_NAMES, Frontend, Masquerade, Refusal, split_key, unpack_address

log = logging.getLogger(__name__)

MARK = "0x4000"
"""The bit that Kubernetes uses for connections to masquerade."""

PREFIX = "NODEWRIGHT-"
"""Names of all sets and chains begin so."""

OFF_CLUSTER, LOCAL_SOURCE, ALWAYS, NEVER = "OFF-CLUSTER", "LOCAL-SRC", "ALWAYS", "NEVER"
SILENT, OUTSIDE_SILENT, RESTRICTED, SOURCES, HAIRPIN, PODS = (
    "SILENT",
    "OUT-SILENT",
    "RESTRICTED",
    "SOURCES",
    "HAIRPIN",
    "PODS",
)

_MASQUERADE_SETS = {
    Masquerade.NEVER: NEVER,
    Masquerade.OFF_CLUSTER: OFF_CLUSTER,
    Masquerade.LOCAL_SOURCE: LOCAL_SOURCE,
    Masquerade.ALWAYS: ALWAYS,
}
OWNER_SETS = tuple(_MASQUERADE_SETS.values())
"""Every frontend is in one of these, so they tell which IPVS services are ours after a restart."""

_TYPES = {
    **dict.fromkeys((*OWNER_SETS, SILENT, OUTSIDE_SILENT, RESTRICTED), "hash:ip,port"),
    SOURCES: "hash:ip,port,net",
    HAIRPIN: "hash:ip,port,ip",
    PODS: "hash:net",
}

_HOOKS = (
    ("nat", "PREROUTING", "NODEWRIGHT-SERVICES"),
    ("nat", "OUTPUT", "NODEWRIGHT-SERVICES"),
    ("nat", "POSTROUTING", "NODEWRIGHT-POSTROUTING"),
    ("filter", "INPUT", "NODEWRIGHT-FIREWALL"),
    ("filter", "OUTPUT", "NODEWRIGHT-FIREWALL"),
    ("filter", "FORWARD", "NODEWRIGHT-FORWARD"),
)


class Member(NamedTuple):
    """An entry of a set."""

    set: str
    text: str


def set_name(name: str, ipv6: bool) -> str:
    """Give the kernel's name of a set."""
    return f"{PREFIX}{name}{'-6' if ipv6 else ''}"


def place_text(key: bytes) -> str:
    """Write a frontend key as ipset does."""
    address, protocol, port = split_key(key)
    return f"{unpack_address(address)},{PROTOCOL_NAMES[protocol].lower()}:{port}"


def members(key: bytes, frontend: Frontend, local_ips: set[bytes]) -> Iterator[Member]:
    """Give the entries that one frontend needs."""
    text = place_text(key)
    yield Member(_MASQUERADE_SETS[frontend.masquerade], text)
    if frontend.refusal is Refusal.DROP:
        yield Member(SILENT, text)
    if frontend.external == () and frontend.endpoints:
        yield Member(OUTSIDE_SILENT, text)
    if frontend.sources is not None:
        yield Member(RESTRICTED, text)
        for source in frontend.sources:
            yield Member(SOURCES, f"{text},{source}")
    protocol = PROTOCOL_NAMES[key[-3]].lower()
    for endpoint in {*frontend.endpoints, *(frontend.external or ())}:
        if endpoint[:-2] in local_ips:
            address = unpack_address(endpoint[:-2])
            yield Member(HAIRPIN, f"{address},{protocol}:{int.from_bytes(endpoint[-2:], 'big')},{address}")


def rules(ipv6: bool) -> str:
    """Give the fixed rules in the format of iptables-restore."""

    def match(name: str, fields: str, negate: bool = False) -> str:
        return f"-m set {'! ' if negate else ''}--match-set {set_name(name, ipv6)} {fields}"

    mark = f"-j MARK --or-mark {MARK}"
    outside = f"{match(PODS, 'src', negate=True)} -m addrtype ! --src-type LOCAL"
    return f"""*nat
:NODEWRIGHT-SERVICES - [0:0]
:NODEWRIGHT-POSTROUTING - [0:0]
-A NODEWRIGHT-SERVICES {match(ALWAYS, "dst,dst")} {mark}
-A NODEWRIGHT-SERVICES {match(OFF_CLUSTER, "dst,dst")} {match(PODS, "src", negate=True)} {mark}
-A NODEWRIGHT-SERVICES {match(LOCAL_SOURCE, "dst,dst")} -m addrtype --src-type LOCAL {mark}
-A NODEWRIGHT-POSTROUTING {match(HAIRPIN, "dst,dst,src")} -j MASQUERADE --random-fully
-A NODEWRIGHT-POSTROUTING -m mark ! --mark {MARK}/{MARK} -j RETURN
-A NODEWRIGHT-POSTROUTING -j MARK --xor-mark {MARK}
-A NODEWRIGHT-POSTROUTING -j MASQUERADE --random-fully
COMMIT
*filter
:NODEWRIGHT-FIREWALL - [0:0]
:NODEWRIGHT-FORWARD - [0:0]
-A NODEWRIGHT-FIREWALL {match(SILENT, "dst,dst")} -m conntrack --ctstate NEW -j DROP
-A NODEWRIGHT-FIREWALL {match(OUTSIDE_SILENT, "dst,dst")} {outside} -j DROP
-A NODEWRIGHT-FIREWALL {match(RESTRICTED, "dst,dst")} {match(SOURCES, "dst,dst,src", negate=True)} -j DROP
-A NODEWRIGHT-FORWARD -m conntrack --ctstate INVALID -j DROP
-A NODEWRIGHT-FORWARD -m mark --mark {MARK}/{MARK} -j ACCEPT
COMMIT
"""


class Companion:
    """The sets and rules of one family, in the network namespace of the calling thread."""

    def __init__(self, *, ipv6: bool, variant: str, pod_cidrs: tuple[str, ...]) -> None:
        """`variant`: "legacy" or "nft", which of the kernel's two packet filters iptables shall talk to."""
        self.ipv6 = ipv6
        self._tool = f"ip6tables-{variant}" if ipv6 else f"iptables-{variant}"
        networks = [ipaddress.ip_network(text, strict=False) for text in pod_cidrs]
        self._pods = [Member(PODS, str(network)) for network in networks if (network.version == 6) == ipv6]

    def known(self) -> set[str]:
        """Give the frontends (as ipset writes them) that the sets in the kernel have: ours, from a former run."""
        ours = {set_name(name, self.ipv6) for name in OWNER_SETS}
        words = (line.split() for line in _run(["ipset", "save"]).splitlines())
        return {entry[2] for entry in words if entry[:1] == ["add"] and entry[1] in ours}

    def replace(self, wanted: Iterable[Member]) -> None:
        """Fill the sets anew: beside the old ones, then swapped, so that no packet meets an empty set."""
        lines = []
        family = "inet6" if self.ipv6 else "inet"
        for name, kind in _TYPES.items():
            real, fresh = set_name(name, self.ipv6), set_name(f"{name}-T", self.ipv6)
            options = "" if kind == "bitmap:port" else f" family {family} maxelem 1048576"
            lines += [f"create {real} {kind}{options}", f"create {fresh} {kind}{options}", f"flush {fresh}"]
        lines += [f"add {set_name(f'{item.set}-T', self.ipv6)} {item.text}" for item in (*self._pods, *wanted)]
        for name in _TYPES:
            real, fresh = set_name(name, self.ipv6), set_name(f"{name}-T", self.ipv6)
            lines += [f"swap {fresh} {real}", f"destroy {fresh}"]
        self._ipset(lines)

    def change(self, added: Iterable[Member], removed: Iterable[Member]) -> None:
        """Change entries of the sets."""
        lines = [f"del {set_name(item.set, self.ipv6)} {item.text}" for item in removed]
        lines += [f"add {set_name(item.set, self.ipv6)} {item.text}" for item in added]
        if lines:
            self._ipset(lines)

    def _ipset(self, lines: list[str]) -> None:
        _run(["ipset", "restore", "-exist"], "\n".join(lines) + "\n")

    def install(self) -> None:
        """Write the fixed rules, and the jumps to them where they are missing."""
        text = rules(self.ipv6)
        for table, chain, target in self._missing():
            text += f"*{table}\n-I {chain} -j {target}\nCOMMIT\n"
        self._restore(text)

    def _restore(self, text: str) -> None:
        _run([f"{self._tool}-restore", "--wait", "--noflush"], text)

    def _saved(self) -> dict[str, list[str]]:
        """Give the chains and rules of each table, as iptables-save prints them."""
        tables: dict[str, list[str]] = {}
        lines: list[str] = []
        for line in _run([f"{self._tool}-save"]).splitlines():
            if line.startswith("*"):
                lines = tables.setdefault(line[1:], [])
            elif line[:1] in (":", "-"):
                lines.append(line)
        return tables

    def _missing(self) -> list[tuple[str, str, str]]:
        saved = self._saved()
        return [hook for hook in _HOOKS if f"-A {hook[1]} -j {hook[2]}" not in saved.get(hook[0], ())]

    def missing(self) -> list[str]:
        """Give the jumps that are not there."""
        return [f"{self._tool} {table} {chain}: no jump to {target}" for table, chain, target in self._missing()]

    def remove(self) -> None:
        """Delete jumps, chains and sets, those that are there."""
        saved = self._saved()
        for table in ("nat", "filter"):
            there = saved.get(table, [])
            jumps = [f"{chain} -j {target}" for name, chain, target in _HOOKS if name == table]
            chains = sorted({target for name, _, target in _HOOKS if name == table})
            chains = [chain for chain in chains if any(line.startswith(f":{chain} ") for line in there)]
            lines = [f"-D {jump}" for jump in jumps if f"-A {jump}" in there]
            lines += [f"-F {chain}" for chain in chains] + [f"-X {chain}" for chain in chains]
            if lines:
                self._restore("\n".join([f"*{table}", *lines, "COMMIT", ""]))
        sets = set(_run(["ipset", "list", "-n"]).split())
        self._ipset([f"destroy {name}" for name in (set_name(key, self.ipv6) for key in _TYPES) if name in sets])


def _run(argv: list[str], text: str = "") -> str:
    try:
        result = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise BackendError(f"{argv[0]} is not installed") from error
    if result.returncode:
        raise BackendError(f"{' '.join(argv)}: {result.stderr.strip() or result.returncode}")
    return result.stdout
