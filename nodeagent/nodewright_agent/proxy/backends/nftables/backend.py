"""The nftables backend: a shadow for each family, and the kernel behind it."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterator

from nodewright_agent.proxy.backends.base import BackendError, BackendOptions, Traffic
from nodewright_agent.proxy.backends.nftables import elements as el
from nodewright_agent.proxy.backends.nftables import layout as names
from nodewright_agent.proxy.backends.nftables import wire
from nodewright_agent.proxy.backends.nftables.kernel import Nftables, usable
from nodewright_agent.proxy.backends.nftables.layout import TABLE, Layout
from nodewright_agent.proxy.backends.nftables.monitor import Monitor
from nodewright_agent.proxy.backends.nftables.shadow import Changes, Shadow, frontend_of
from nodewright_agent.proxy.backends.nftables.wire import Op
from nodewright_agent.proxy.model import Delta, Table, is_ipv6
from nodewright_agent.proxy.netlink import NetlinkError

log = logging.getLogger(__name__)

_VERIFIED = (
    names.FRONTENDS,
    names.EXTERNAL_FRONTENDS,
    names.ENDPOINTS,
    names.EXTERNAL_ENDPOINTS,
    names.TRANSLATED,
    names.NO_ENDPOINTS,
    names.AFFINITY,
    names.EXTERNAL_AFFINITY,
    names.RESTRICTED,
    names.SOURCE_RANGES,
)


class NftablesBackend:
    """Programs tables `ip` and `ip6` `nodewright-proxy`."""

    name = "nftables"

    def __init__(self, options: BackendOptions) -> None:
        """Nothing is opened yet."""
        self._options = options
        self._kernel: Nftables | None = None
        self._monitor: Monitor | None = None
        self._families: list[bool] = []
        self._shadows: list[Shadow] = []

    def open(self) -> None:
        """Open sockets in the current network namespace. Raises BackendError where the kernel has no nf_tables."""
        missing = usable(wire.NFPROTO_IPV4)
        if missing:
            raise BackendError(f"nftables cannot be used here: {missing}")
        self._families = [False]
        if self._options.ipv6:
            missing = usable(wire.NFPROTO_IPV6)
            if missing:
                log.warning("nftables has no IPv6 here, IPv6 services are not served", extra={"reason": missing})
            else:
                self._families.append(True)
        self._kernel = Nftables()
        self._monitor = Monitor(TABLE, self._kernel.pid)
        self._shadows = []

    @property
    def kernel(self) -> Nftables:
        """The socket; raises BackendError before `open`."""
        if self._kernel is None:
            raise BackendError("the nftables backend is not open")
        return self._kernel

    def _shadow_of(self, key: bytes) -> Shadow | None:
        ipv6 = is_ipv6(key)
        return next((shadow for shadow in self._shadows if shadow.layout.ipv6 == ipv6), None)

    def replace(self, table: Table) -> None:
        """Replace both tables in one transaction; which endpoint a client had is carried over."""
        shadows = [Shadow(Layout(ipv6=ipv6, pod_cidrs=self._options.pod_cidrs)) for ipv6 in self._families]
        ops: list[Op] = []
        for shadow in shadows:
            ipv6 = shadow.layout.ipv6
            ops += shadow.layout.ops()
            frontends = {key: value for key, value in table.frontends.items() if is_ipv6(key) == ipv6}
            ops += shadow.load(frontends, table.cluster_ips, table.local_ips)
            ops += self._memories(shadow)
        self.kernel.commit(ops)
        self._shadows = shadows

    def apply(self, delta: Delta) -> None:
        """Apply a difference in one transaction over both families."""
        ops: list[Op] = []
        touched: list[tuple[Shadow, set[str]]] = []
        for shadow in self._shadows:
            ipv6 = shadow.layout.ipv6
            changes, pools = Changes(shadow.layout.family), set[str]()
            for key, frontend in delta.frontends.items():
                if is_ipv6(key) == ipv6:
                    shadow.apply(key, frontend, changes, pools)
            shadow.settle(pools, changes)
            shadow.change_addresses(
                changes,
                delta.cluster_ips_added,
                delta.cluster_ips_removed,
                delta.local_ips_added,
                delta.local_ips_removed,
            )
            ops += changes.ops()
            touched.append((shadow, pools))
        self.kernel.commit(ops)
        for shadow, pools in touched:
            self._forget_gone(shadow, pools)

    def _forget_gone(self, shadow: Shadow, pools: set[str]) -> None:
        """Let go of clients whose endpoint is gone: their next connection is a new client's."""
        family = shadow.layout.family
        for pool in sorted(pools & shadow.pools.keys()):
            live, name = shadow.live(pool), f"clients-{pool}"
            gone = [
                item.key
                for item in self._dump(family, name)
                if isinstance(item.data, bytes) and item.data[:-2] not in live
            ]
            if gone:
                self.kernel.commit(
                    el.remove(family, TABLE, name, (el.encode_key(el.Element(name, key)) for key in gone))
                )

    def _memories(self, shadow: Shadow) -> Iterator[Op]:
        """Carry over which endpoint each client has, from the table that is there (perhaps of a former process)."""
        for pool, wanted in shadow.pools.items():
            live, timeout, name = shadow.live(pool), wanted.seconds * 1000, f"clients-{pool}"
            encoded = [
                el.encode_memory(item.key, item.data, timeout, min(item.expires, timeout) or 1)
                for item in self._dump(shadow.layout.family, name)
                if isinstance(item.data, bytes) and item.data[:-2] in live
            ]
            yield from el.add(shadow.layout.family, TABLE, name, encoded)

    def _dump(self, family: int, name: str) -> list[el.Dumped]:
        try:
            return list(self.kernel.dump(family, TABLE, name))
        except NetlinkError as error:
            if error.errno == errno.ENOENT:  # flushed by hand: nothing to read
                return []
            raise

    def verify(self) -> list[str]:
        """Compare every element with the shadow."""
        found: list[str] = []
        for shadow in self._shadows:
            family = "ip6" if shadow.layout.ipv6 else "ip"
            wanted: dict[str, dict[tuple[bytes, bytes], bytes | el.Jump | None]] = {name: {} for name in _VERIFIED}
            for key, entry in shadow.entries.items():
                for element in shadow.elements(key, entry):
                    wanted[element.set][element.key, element.key_end] = element.data
            for name in _VERIFIED:
                real = {(item.key, item.key_end): item.data for item in self._dump(shadow.layout.family, name)}
                if real != wanted[name]:
                    missing = len(wanted[name].keys() - real.keys())
                    strange = len(real.keys() - wanted[name].keys())
                    other = sum(real[key] != value for key, value in wanted[name].items() if key in real)
                    found.append(f"{family} {name}: {missing} missing, {strange} unknown, {other} different")
        return found

    def watch(self, changed: Callable[[str], None]) -> Callable[[], None]:
        """Call `changed` when another program alters our tables."""
        if self._monitor is None:
            raise BackendError("the nftables backend is not open")
        return self._monitor.start(changed)

    def upkeep(self) -> float | None:
        """Nothing here waits for connections to end: translated ones go on by themselves."""
        return None

    def counters(self) -> dict[bytes, Traffic]:
        """New connections and their first packets' bytes for each frontend, refused ones included."""
        found: dict[bytes, Traffic] = {}
        for shadow in self._shadows:
            for name in (names.TRANSLATED, names.NO_ENDPOINTS):
                for item in self._dump(shadow.layout.family, name):
                    found[frontend_of(item.key)] = Traffic(item.packets, item.size)
        return found

    def describe(self, key: bytes) -> list[str]:
        """Name the elements that carry a frontend."""
        shadow = self._shadow_of(key)
        entry = shadow.entries.get(key) if shadow else None
        if shadow is None or entry is None:
            return []
        table = f"{'ip6' if shadow.layout.ipv6 else 'ip'} {TABLE}"
        lines = []
        for element in shadow.elements(key, entry):
            if element.set in (names.ENDPOINTS, names.EXTERNAL_ENDPOINTS):
                continue
            to = f" -> {element.data.chain}" if isinstance(element.data, el.Jump) else ""
            lines.append(f"map {table} {element.set}{to}")
        if entry.slots:
            lines.append(f"map {table} {names.ENDPOINTS}: {len(entry.slots)} slots")
        if entry.external:
            lines.append(f"map {table} {names.EXTERNAL_ENDPOINTS}: {len(entry.external)} slots")
        return lines

    def cleanup(self) -> None:
        """Delete both tables."""
        ops = [op for ipv6 in self._families for op in Layout(ipv6=ipv6, pod_cidrs=()).remove()]
        self.kernel.commit(ops)
        self._shadows = []

    def close(self) -> None:
        """Close the sockets."""
        if self._monitor is not None:
            self._monitor.close()
            self._monitor = None
        if self._kernel is not None:
            self._kernel.close()
            self._kernel = None
