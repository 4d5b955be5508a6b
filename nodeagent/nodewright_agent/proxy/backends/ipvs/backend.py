"""The IPVS backend: virtual servers by bulk netlink, addresses on a dummy link, graceful removal of destinations."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Callable, Iterable
from typing import NamedTuple

from nodewright_agent.proxy import sysctl
from nodewright_agent.proxy.backends.base import BackendError, BackendOptions, Traffic
from nodewright_agent.proxy.backends.ipvs import wire
from nodewright_agent.proxy.backends.ipvs.companion import Companion, Member, members, place_text
from nodewright_agent.proxy.backends.ipvs.kernel import EXISTS, GONE, Command, Ipvs
from nodewright_agent.proxy.backends.ipvs.links import DummyLink
from nodewright_agent.proxy.backends.nftables.kernel import usable
from nodewright_agent.proxy.backends.nftables.wire import NFPROTO_IPV4
from nodewright_agent.proxy.hostaddresses import IPVS_LINK
from nodewright_agent.proxy.model import Delta, Frontend, Kind, Table, endpoint_text, is_ipv6, key_text

log = logging.getLogger(__name__)

LINK = IPVS_LINK
DRAIN_SECONDS = 5.0
"""How often destinations that wait for their last connections are looked at; IPVS announces no end of a connection."""
_UDP, _SCTP = 17, 132

_SYSCTLS = {
    "net.ipv4.ip_forward": "1",
    "net.ipv4.vs.conntrack": "1",  # else POSTROUTING rules do not see IPVS connections
    "net.ipv4.vs.expire_nodest_conn": "1",
    "net.ipv4.vs.expire_quiescent_template": "1",
}


class Server(NamedTuple):
    """A frontend as IPVS has it."""

    settings: wire.Service
    destinations: frozenset[bytes]


def server_of(frontend: Frontend, scheduler: str) -> Server:
    """Give the virtual server for a frontend.

    IPVS cannot tell clients apart: under externalTrafficPolicy Local all of them get the local endpoints. While there
    are none, clients inside of the cluster get the others, and the companion drops the rest.
    """
    if frontend.affinity:
        settings = wire.Service(scheduler, wire.PERSISTENT, frontend.affinity)
    else:
        settings = wire.Service(scheduler)
    return Server(settings, frozenset(frontend.external or frontend.endpoints))


class IpvsBackend:
    """Programs IPVS services, the link kube-ipvs0, ipsets and iptables rules named NODEWRIGHT."""

    name = "ipvs"

    def __init__(self, options: BackendOptions) -> None:
        """Nothing is opened yet."""
        self._options = options
        self._ipvs: Ipvs | None = None
        self._link: DummyLink | None = None
        self._companions: dict[bool, Companion] = {}
        self._frontends: dict[bytes, Frontend] = {}
        self._servers: dict[bytes, Server] = {}
        self._local_ips: set[bytes] = set()
        self._counts: dict[Member, int] = {}
        self._addresses: dict[bytes, int] = {}
        self._draining: dict[bytes, set[bytes]] = {}

    def open(self) -> None:
        """Open sockets, make the link and set kernel settings. Raises BackendError naming what the kernel lacks."""
        self._ipvs = Ipvs()
        self._link = DummyLink(LINK)
        self._link.ensure()
        for name, value in _SYSCTLS.items():
            sysctl.write(name, value)
        if sysctl.kernel_version() < (5, 9):
            # before, a client that reused its port had its connection delayed by a second; since, 0 would pin it to
            # destinations that are being drained (kubernetes#81775)
            sysctl.write("net.ipv4.vs.conn_reuse_mode", "0", required=False)
        if self._options.ipv6:
            sysctl.write("net.ipv6.conf.all.forwarding", "1", required=False)
        variant = "nft" if usable(NFPROTO_IPV4) is None else "legacy"
        families = [False, True] if self._options.ipv6 else [False]
        self._companions = {
            ipv6: Companion(ipv6=ipv6, variant=variant, pod_cidrs=self._options.pod_cidrs) for ipv6 in families
        }

    @property
    def kernel(self) -> Ipvs:
        """The socket; raises BackendError before `open`."""
        if self._ipvs is None:
            raise BackendError("the ipvs backend is not open")
        return self._ipvs

    @property
    def link(self) -> DummyLink:
        """The link; raises BackendError before `open`."""
        if self._link is None:
            raise BackendError("the ipvs backend is not open")
        return self._link

    def _served(self, key: bytes) -> bool:
        return is_ipv6(key) in self._companions

    def replace(self, table: Table) -> None:
        """Make everything match, whatever is there; services of a former run are taken over."""
        self._frontends = {key: value for key, value in table.frontends.items() if self._served(key)}
        self._servers = {key: server_of(value, self._options.ipvs_scheduler) for key, value in self._frontends.items()}
        self._local_ips = set(table.local_ips)
        self._draining = {}
        self._counts = {}
        wanted: dict[bool, list[Member]] = {ipv6: [] for ipv6 in self._companions}
        for key, frontend in self._frontends.items():
            for member in self._count(key, frontend, 1):
                wanted[is_ipv6(key)].append(member)
        owned = {ipv6: companion.known() for ipv6, companion in self._companions.items()}
        there = self.link.addresses()
        for ipv6, companion in self._companions.items():
            companion.replace(wanted[ipv6])
            companion.install()
        self._addresses = {}
        for key, frontend in self._frontends.items():
            if frontend.kind is not Kind.NODE_PORT:
                self._addresses[key[:-3]] = self._addresses.get(key[:-3], 0) + 1
        real = self.kernel.services()
        stale = [
            key
            for key in real
            if key not in self._servers
            and self._served(key)
            and (key[:-3] in there or place_text(key) in owned[is_ipv6(key)])
        ]
        self.kernel.run(_delete_service(key) for key in stale)
        self.link.change(self._addresses.keys() - there, there - self._addresses.keys())
        commands: list[Command] = []
        for key, server in self._servers.items():
            commands += self._match(key, server, real.get(key), self.kernel.destinations(key) if key in real else {})
        self.kernel.run(commands)

    def _match(
        self, key: bytes, server: Server, settings: wire.Service | None, real: dict[bytes, wire.Destination]
    ) -> list[Command]:
        commands: list[Command] = []
        if settings is None:
            commands.append(_new_service(key, server.settings))
        elif settings != server.settings:
            commands.append(_set_service(key, server.settings))
        for endpoint in sorted(server.destinations):
            if endpoint not in real:
                commands.append(_new_destination(key, endpoint))
            elif real[endpoint].weight != 1:
                commands.append(_set_weight(key, endpoint, 1))
        for endpoint in sorted(real.keys() - server.destinations):
            commands.append(self._retire(key, endpoint))
        return commands

    def _retire(self, key: bytes, endpoint: bytes) -> Command:
        """Take a destination out of use: connections over TCP may end, datagrams have nothing to end (as upstream)."""
        if key[-3] in (_UDP, _SCTP):
            return _delete_destination(key, endpoint)
        self._draining.setdefault(key, set()).add(endpoint)
        return _set_weight(key, endpoint, 0)

    def apply(self, delta: Delta) -> None:
        """Change services, destinations, addresses and sets by a difference."""
        before: dict[bool, dict[Member, int]] = {ipv6: {} for ipv6 in self._companions}
        commands: list[Command] = []
        addresses_before: set[bytes] = set(self._addresses)
        changed_ips = delta.local_ips_added | delta.local_ips_removed
        keys = [key for key in delta.frontends if self._served(key)]
        if changed_ips:
            keys += [key for key in self._frontends if key not in delta.frontends and self._uses(key, changed_ips)]
        for key in keys:
            self._track(before, key, -1)
        self._local_ips = (self._local_ips | delta.local_ips_added) - delta.local_ips_removed
        for key in keys:
            old = self._servers.get(key)
            new = delta.frontends.get(key, self._frontends.get(key))
            self._hold_address(key, self._frontends.get(key), -1)
            if new is None:
                self._frontends.pop(key, None)
                self._servers.pop(key, None)
                self._draining.pop(key, None)
                if old is not None:
                    commands.append(_delete_service(key))
                continue
            self._frontends[key] = new
            self._hold_address(key, new, 1)
            self._track(before, key, 1)
            server = server_of(new, self._options.ipvs_scheduler)
            self._servers[key] = server
            commands += self._step(key, old, server)
        self._carry_out(before, addresses_before, commands)

    def _carry_out(
        self, before: dict[bool, dict[Member, int]], addresses_before: set[bytes], commands: list[Command]
    ) -> None:
        for ipv6, known in before.items():
            added = [member for member, was in known.items() if not was and member in self._counts]
            removed = [member for member, was in known.items() if was and member not in self._counts]
            self._companions[ipv6].change(added, removed)
        addresses = set(self._addresses)
        self.link.change(addresses - addresses_before, ())
        self.kernel.run(commands)
        self.link.change((), addresses_before - addresses)

    def _uses(self, key: bytes, ips: frozenset[bytes]) -> bool:
        frontend = self._frontends[key]
        return any(endpoint[:-2] in ips for endpoint in (*frontend.endpoints, *(frontend.external or ())))

    def _step(self, key: bytes, old: Server | None, new: Server) -> list[Command]:
        """Give the commands that lead from one state of a server to another."""
        commands: list[Command] = []
        draining = self._draining.get(key, set())
        if old is None:
            commands.append(_new_service(key, new.settings))
        elif old.settings != new.settings:
            commands.append(_set_service(key, new.settings))
        known = old.destinations if old is not None else frozenset[bytes]()
        for endpoint in sorted(new.destinations - known):
            if endpoint in draining:
                draining.discard(endpoint)
                commands.append(_set_weight(key, endpoint, 1))
            else:
                commands.append(_new_destination(key, endpoint))
        commands += [self._retire(key, endpoint) for endpoint in sorted(known - new.destinations)]
        return commands

    def _count(self, key: bytes, frontend: Frontend, step: int) -> Iterable[Member]:
        """Count the entries a frontend needs up or down; gives those that came or went."""
        changed = []
        for member in members(key, frontend, self._local_ips):
            # entries of the two families look alike in no set, so one count serves both
            count = self._counts.get(member, 0)
            if count + step:
                self._counts[member] = count + step
            else:
                del self._counts[member]
            if not count or not count + step:
                changed.append(member)
        return changed

    def _track(self, before: dict[bool, dict[Member, int]], key: bytes, step: int) -> None:
        frontend = self._frontends.get(key)
        if frontend is None:
            return
        known = before[is_ipv6(key)]
        for member in members(key, frontend, self._local_ips):
            known.setdefault(member, self._counts.get(member, 0))
        self._count(key, frontend, step)

    def _hold_address(self, key: bytes, frontend: Frontend | None, step: int) -> None:
        if frontend is None or frontend.kind is Kind.NODE_PORT:
            return
        count = self._addresses.get(key[:-3], 0) + step
        if count:
            self._addresses[key[:-3]] = count
        else:
            self._addresses.pop(key[:-3], None)

    def upkeep(self) -> float | None:
        """Delete drained destinations; gives when to look again, None once nothing waits."""
        for key in list(self._draining):
            real = self.kernel.destinations(key)
            waiting = self._draining[key]
            done = [endpoint for endpoint in sorted(waiting) if endpoint not in real or real[endpoint].idle]
            self.kernel.run(_delete_destination(key, endpoint) for endpoint in done)
            waiting.difference_update(done)
            if not waiting:
                del self._draining[key]
        return DRAIN_SECONDS if self._draining else None

    def retire(self) -> float | None:
        """Weigh every destination 0, and wait for connections over TCP to end: they live in IPVS's own table.

        IPVS counts those that are being opened or closed alike, so the former get one pause to become established.
        """
        busy, commands = False, []
        for key in self._servers:
            for endpoint, state in self.kernel.destinations(key).items():
                if state.weight:
                    commands.append(_set_weight(key, endpoint, 0))
                busy = busy or (key[-3] not in (_UDP, _SCTP) and state.active > 0)
        self.kernel.run(commands)
        return DRAIN_SECONDS if busy or commands else None

    def verify(self) -> list[str]:
        """Compare services, destinations, addresses and jumps with what was programmed."""
        found: list[str] = []
        real = self.kernel.services()
        for key, server in self._servers.items():
            if real.get(key) != server.settings:
                found.append(f"service {key_text(key)}: {'missing' if key not in real else 'different'}")
                continue
            there = {endpoint for endpoint, state in self.kernel.destinations(key).items() if state.weight}
            if there != server.destinations:
                found.append(f"service {key_text(key)}: destinations differ")
        missing = self._addresses.keys() - self.link.addresses()
        if missing:
            found.append(f"{LINK}: {len(missing)} addresses missing")
        for companion in self._companions.values():
            found += companion.missing()
        return found

    def watch(self, changed: Callable[[str], None]) -> Callable[[], None]:
        """IPVS tells nobody about changes: `verify` finds them."""
        return lambda: None

    def counters(self) -> dict[bytes, Traffic]:
        """Connections and bytes of each service, as of at most two seconds ago."""
        return {key: Traffic(*value) for key, value in self.kernel.traffic().items() if key in self._servers}

    def describe(self, key: bytes) -> list[str]:
        """Name what carries a frontend."""
        server = self._servers.get(key)
        if server is None:
            return []
        lines = [f"ipvs service {key_text(key)} scheduler {server.settings.scheduler}"]
        if server.settings.timeout:
            lines.append(f"ipvs persistence {server.settings.timeout} s")
        lines += [f"ipvs destination {endpoint_text(endpoint)}" for endpoint in sorted(server.destinations)]
        lines += [f"ipvs destination {endpoint_text(e)} draining" for e in sorted(self._draining.get(key, ()))]
        if self._frontends[key].kind is not Kind.NODE_PORT:
            lines.append(f"address on {LINK}")
        return lines + [f"ipset {m.set}: {m.text}" for m in members(key, self._frontends[key], self._local_ips)]

    def cleanup(self) -> None:
        """Remove our services, the link, sets and rules, also those of a former run."""
        there = self.link.addresses()
        owned = {ipv6: companion.known() for ipv6, companion in self._companions.items()}
        ours = [
            key
            for key in self.kernel.services()
            if self._served(key) and (key[:-3] in there or place_text(key) in owned[is_ipv6(key)])
        ]
        self.kernel.run(_delete_service(key) for key in ours)
        for companion in self._companions.values():
            companion.remove()
        self.link.delete()
        self._servers, self._frontends, self._draining = {}, {}, {}
        self._counts, self._addresses = {}, {}

    def close(self) -> None:
        """Close the sockets."""
        if self._ipvs is not None:
            self._ipvs.close()
            self._ipvs = None
        if self._link is not None:
            self._link.close()
            self._link = None


def load_modules() -> None:
    """Ask for the modules that the kernel does not load by itself; where there is no modprobe, it may be built in."""
    try:
        subprocess.run(["modprobe", "-aq", "ip_vs", "ip_vs_rr", "dummy"], capture_output=True, check=False)
    except FileNotFoundError:
        log.debug("no modprobe here")


def _new_service(key: bytes, settings: wire.Service) -> Command:
    return Command(wire.NEW_SERVICE, wire.service(key, settings), f"add service {key_text(key)}", EXISTS)


def _set_service(key: bytes, settings: wire.Service) -> Command:
    return Command(wire.SET_SERVICE, wire.service(key, settings), f"change service {key_text(key)}")


def _delete_service(key: bytes) -> Command:
    return Command(wire.DEL_SERVICE, wire.service_key(key), f"delete service {key_text(key)}", GONE)


def _new_destination(key: bytes, endpoint: bytes) -> Command:
    payload = wire.service_key(key) + wire.destination(endpoint, 1)
    return Command(wire.NEW_DEST, payload, f"add {endpoint_text(endpoint)} to {key_text(key)}", EXISTS)


def _set_weight(key: bytes, endpoint: bytes, weight: int) -> Command:
    payload = wire.service_key(key) + wire.destination(endpoint, weight)
    return Command(wire.SET_DEST, payload, f"weigh {endpoint_text(endpoint)} of {key_text(key)}", GONE)


def _delete_destination(key: bytes, endpoint: bytes) -> Command:
    payload = wire.service_key(key) + wire.destination_key(endpoint)
    return Command(wire.DEL_DEST, payload, f"delete {endpoint_text(endpoint)} of {key_text(key)}", GONE)
