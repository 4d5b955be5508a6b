"""What of the table is in the kernel for one family, and the messages that lead to another state. No I/O."""

from __future__ import annotations

import hashlib
import ipaddress
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from nodewright_agent.proxy.backends.nftables import elements as el
from nodewright_agent.proxy.backends.nftables import layout as names
from nodewright_agent.proxy.backends.nftables import wire
from nodewright_agent.proxy.backends.nftables.elements import Element, Jump
from nodewright_agent.proxy.backends.nftables.layout import TABLE, Layout
from nodewright_agent.proxy.backends.nftables.wire import VERDICT_GOTO, VERDICT_JUMP, Op
from nodewright_agent.proxy.model import Frontend, Refusal

_SLOT = struct.Struct("=I")


class Entry(NamedTuple):
    """A frontend with the order in which its endpoints fill the slots."""

    frontend: Frontend
    slots: tuple[bytes, ...]
    external: tuple[bytes, ...]


class Pool(NamedTuple):
    """What the chains of an affinity pool (the endpoints of a service port under one policy) are made for."""

    owner: str
    pick: str
    seconds: int


def reslot(slots: tuple[bytes, ...], endpoints: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Order endpoints so that as few slots as possible change: who stays keeps its slot, the last fill the holes."""
    if slots == endpoints:
        return slots
    wanted = set(endpoints)
    known = set(slots)
    fresh = [endpoint for endpoint in endpoints if endpoint not in known]
    result: list[bytes | None] = [slot if slot in wanted else None for slot in slots]
    holes = [index for index, slot in enumerate(result) if slot is None]
    for index in holes[: len(fresh)]:
        result[index] = fresh.pop(0)
    kept = [(index, slot) for index, slot in enumerate(result[len(endpoints) :], len(endpoints)) if slot is not None]
    for index, slot in enumerate(result[: len(endpoints)]):
        if slot is None:
            result[index] = kept.pop()[1]
    return tuple(slot for slot in result[: len(endpoints)] if slot is not None) + tuple(fresh)


def place(key: bytes) -> bytes:
    """Turn a frontend key into the registers' form: each part padded to four bytes."""
    return key[:-3] + key[-3:-2] + b"\0\0\0" + key[-2:] + b"\0\0"


def frontend_of(registers: bytes) -> bytes:
    """Undo `place`."""
    return registers[:-8] + registers[-8:-7] + registers[-4:-2]


def pool_name(frontend: Frontend, key: bytes, policy: str) -> str:
    """Give a short name for the endpoints of a service port under a policy, the same for all its addresses."""
    text = f"{frontend.owner}/{key[-3]}/{policy}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Changes:
    """Messages of a transaction under construction, in the order in which the kernel needs them."""

    def __init__(self, family: int) -> None:
        """Begin empty."""
        self._family = family
        self.before: list[Op] = []
        self.after: list[Op] = []
        self._removed: dict[str, list[bytes]] = {}
        self._added: dict[str, list[bytes]] = {}

    def replace(self, old: Iterable[Element], new: Iterable[Element]) -> None:
        """Lead from one collection of elements to another."""
        was = {(element.set, element.key, element.key_end): element for element in old}
        for element in new:
            known = was.pop((element.set, element.key, element.key_end), None)
            if known == element:
                continue
            if known is not None:
                self._removed.setdefault(element.set, []).append(el.encode_key(element))
            self._added.setdefault(element.set, []).append(el.encode(element))
        for element in was.values():
            self._removed.setdefault(element.set, []).append(el.encode_key(element))

    def add(self, elements: Iterable[Element]) -> None:
        """Create elements in sets that have none of them."""
        for element in elements:
            self._added.setdefault(element.set, []).append(el.encode(element))

    def ops(self) -> list[Op]:
        """Give the messages: what elements point to, gone elements, new elements, what nothing points to any more."""
        ops = list(self.before)
        for name, encoded in self._removed.items():
            ops += el.remove(self._family, TABLE, name, encoded)
        for name, encoded in self._added.items():
            ops += el.add(self._family, TABLE, name, encoded)
        return ops + self.after


class Shadow:
    """The state of one family's table."""

    def __init__(self, layout: Layout) -> None:
        """Begin with the fixed part alone."""
        self.layout = layout
        self.entries: dict[bytes, Entry] = {}
        self.cluster_ips: set[bytes] = set()
        self.local_ips: set[bytes] = set()
        self._picks: set[str] = set()
        self._pools: dict[str, Pool] = {}
        self._members: dict[str, set[bytes]] = {}

    @property
    def pools(self) -> dict[str, Pool]:
        """The affinity pools by name."""
        return self._pools

    def load(
        self, frontends: dict[bytes, Frontend], cluster_ips: Iterable[bytes], local_ips: Iterable[bytes]
    ) -> list[Op]:
        """Fill an empty shadow; gives the messages that come after the fixed part."""
        changes = Changes(self.layout.family)
        pools: set[str] = set()
        for key, frontend in frontends.items():
            entry = Entry(frontend, frontend.endpoints, frontend.external or ())
            self.entries[key] = entry
            self._need_picks(entry, changes)
            self._join(key, entry, pools)
            changes.add(self.elements(key, entry))
        self._settle(pools, changes)
        self.change_addresses(changes, cluster_ips, (), local_ips, ())
        return changes.ops()

    def apply(self, key: bytes, frontend: Frontend | None, changes: Changes, pools: set[str]) -> None:
        """Add the change of one frontend to a transaction; `pools` collects affinity pools to settle at its end."""
        old = self.entries.get(key)
        before = list(self.elements(key, old)) if old else []
        if old is not None:
            self._leave(key, old, pools)
        if frontend is None:
            self.entries.pop(key, None)
            changes.replace(before, ())
            return
        slots, external = (old.slots, old.external) if old else ((), ())
        entry = Entry(frontend, reslot(slots, frontend.endpoints), reslot(external, frontend.external or ()))
        self.entries[key] = entry
        self._need_picks(entry, changes)
        self._join(key, entry, pools)
        changes.replace(before, self.elements(key, entry))

    def settle(self, pools: set[str], changes: Changes) -> None:
        """Make, change and delete the chains of the affinity pools that a transaction touched."""
        self._settle(pools, changes)

    def change_addresses(
        self,
        changes: Changes,
        cluster_added: Iterable[bytes],
        cluster_removed: Iterable[bytes],
        local_added: Iterable[bytes],
        local_removed: Iterable[bytes],
    ) -> None:
        """Add changes of the plain sets to a transaction; addresses of the other family are left out."""
        length = self.layout.length
        for name, known, added, removed, times in (
            (names.CLUSTER_IPS, self.cluster_ips, cluster_added, cluster_removed, 1),
            (names.HAIRPIN, self.local_ips, local_added, local_removed, 2),
        ):
            new = {ip for ip in added if len(ip) == length} - known
            gone = {ip for ip in removed if len(ip) == length} & known
            changes.replace((Element(name, ip * times) for ip in gone), (Element(name, ip * times) for ip in new))
            known |= new
            known -= gone

    def elements(self, key: bytes, entry: Entry) -> Iterator[Element]:
        """Give the elements that carry one frontend."""
        frontend, where = entry.frontend, place(key)
        owner = frontend.owner
        if frontend.refusal is not Refusal.NONE:
            chain = names.REJECT if frontend.refusal is Refusal.REJECT else names.DROP
            yield Element(names.NO_ENDPOINTS, where, Jump(VERDICT_GOTO, chain), owner)
        if entry.slots:
            yield Element(names.FRONTENDS, where, Jump(VERDICT_GOTO, self._target(key, entry)), owner)
            masquerade = names.MASQUERADE[frontend.masquerade]
            yield Element(names.TRANSLATED, where, Jump(VERDICT_JUMP, masquerade), owner)
            for index, endpoint in enumerate(entry.slots):
                yield Element(names.ENDPOINTS, where + _SLOT.pack(index), endpoint + b"\0\0")
            if frontend.affinity:
                learn = f"learn-{pool_name(frontend, key, 'cluster')}"
                yield Element(names.AFFINITY, where, Jump(VERDICT_GOTO, learn), owner)
            if frontend.external is not None:
                yield from self._external_elements(key, where, entry)
        if frontend.sources is not None:
            yield Element(names.RESTRICTED, where)
            for text in frontend.sources:
                network = ipaddress.ip_network(text)
                first, last = where + network.network_address.packed, where + network.broadcast_address.packed
                yield Element(names.SOURCE_RANGES, first, key_end=last)

    def _external_elements(self, key: bytes, where: bytes, entry: Entry) -> Iterator[Element]:
        frontend = entry.frontend
        if not entry.external:
            yield Element(names.EXTERNAL_FRONTENDS, where, Jump(VERDICT_GOTO, names.DROP), frontend.owner)
            return
        pick = f"pick-external-{len(entry.external)}"
        if frontend.affinity:
            pool = pool_name(frontend, key, "external")
            pick = f"sticky-{pool}"
            learn = Jump(VERDICT_GOTO, f"learn-{pool}")
            yield Element(names.EXTERNAL_AFFINITY, where, learn, frontend.owner)
        yield Element(names.EXTERNAL_FRONTENDS, where, Jump(VERDICT_GOTO, pick), frontend.owner)
        for index, endpoint in enumerate(entry.external):
            yield Element(names.EXTERNAL_ENDPOINTS, where + _SLOT.pack(index), endpoint + b"\0\0")

    def _target(self, key: bytes, entry: Entry) -> str:
        if entry.frontend.affinity:
            return f"sticky-{pool_name(entry.frontend, key, 'cluster')}"
        return f"pick-{len(entry.slots)}"

    def _need_picks(self, entry: Entry, changes: Changes) -> None:
        for name, count, endpoints in (
            (f"pick-{len(entry.slots)}", len(entry.slots), names.ENDPOINTS),
            (f"pick-external-{len(entry.external)}", len(entry.external), names.EXTERNAL_ENDPOINTS),
        ):
            if count and name not in self._picks:
                self._picks.add(name)
                changes.before += self.layout.pick(name, endpoints, count)

    def _pools_of(self, key: bytes, entry: Entry) -> Iterator[tuple[str, Pool]]:
        frontend = entry.frontend
        if frontend.affinity and entry.slots:
            name = pool_name(frontend, key, "cluster")
            yield name, Pool(frontend.owner, f"pick-{len(entry.slots)}", frontend.affinity)
            if entry.external:
                name = pool_name(frontend, key, "external")
                yield name, Pool(frontend.owner, f"pick-external-{len(entry.external)}", frontend.affinity)

    def _join(self, key: bytes, entry: Entry, pools: set[str]) -> None:
        for name, _ in self._pools_of(key, entry):
            self._members.setdefault(name, set()).add(key)
            pools.add(name)

    def _leave(self, key: bytes, entry: Entry, pools: set[str]) -> None:
        for name, _ in self._pools_of(key, entry):
            self._members[name].discard(key)
            pools.add(name)

    def _settle(self, pools: set[str], changes: Changes) -> None:
        for name in sorted(pools):
            members = self._members.get(name)
            if not members:
                self._members.pop(name, None)
                if self._pools.pop(name, None) is not None:
                    changes.after += self._pool_removal(name)
                continue
            key = min(members)
            wanted = dict(self._pools_of(key, self.entries[key]))[name]
            known = self._pools.get(name)
            if known == wanted:
                continue
            self._pools[name] = wanted
            changes.before += self._pool_rules(name, wanted, known, len(changes.before))

    def _pool_rules(self, name: str, wanted: Pool, known: Pool | None, number: int) -> list[Op]:
        family, memory = self.layout.family, f"clients-{name}"
        sticky, learn = f"sticky-{name}", f"learn-{name}"
        if known is None:
            spec = names.affinity_map(self.layout.ipv6, memory, wanted.seconds, wanted.owner)
            ops = [
                wire.new_set(family, TABLE, spec, 1000 + number),
                wire.new_chain(family, TABLE, sticky, wanted.owner),
                wire.new_chain(family, TABLE, learn, wanted.owner),
            ]
        else:
            ops = [wire.flush_chain(family, TABLE, sticky), wire.flush_chain(family, TABLE, learn)]
        return [
            *ops,
            *self.layout.sticky_rules(sticky, memory, wanted.pick),
            self.layout.learn_rule(learn, memory, wanted.seconds),
        ]

    def _pool_removal(self, name: str) -> list[Op]:
        family = self.layout.family
        chains = (f"sticky-{name}", f"learn-{name}")
        return [
            *(wire.flush_chain(family, TABLE, chain) for chain in chains),
            *(wire.delete_chain(family, TABLE, chain) for chain in chains),
            wire.delete_set(family, TABLE, f"clients-{name}"),
        ]

    def live(self, pool: str) -> set[bytes]:
        """Give the endpoints that clients of an affinity pool may stay with."""
        members = self._members.get(pool)
        if not members:
            return set()
        key = min(members)
        entry = self.entries[key]
        external = pool == pool_name(entry.frontend, key, "external")
        return set(entry.external if external else entry.slots)
