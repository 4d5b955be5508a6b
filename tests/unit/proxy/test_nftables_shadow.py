"""The nftables backend without a kernel: slots, and messages that add up to the wanted elements."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from nodewright_agent.proxy.backends.nftables import wire
from nodewright_agent.proxy.backends.nftables.elements import Jump, decode
from nodewright_agent.proxy.backends.nftables.layout import Layout
from nodewright_agent.proxy.backends.nftables.shadow import Changes, Shadow, frontend_of, place, reslot
from nodewright_agent.proxy.backends.nftables.wire import Op
from nodewright_agent.proxy.model import Frontend, Kind, Masquerade, Refusal, endpoint, frontend_key, pack_address
from nodewright_agent.proxy.netlink import attributes, text_of

ENDPOINTS = [endpoint(pack_address(f"10.0.0.{number}"), 8080) for number in range(1, 9)]
KEYS = [frontend_key(pack_address(f"10.96.0.{number}"), protocol, 80) for number in (1, 2) for protocol in (6, 17)]
some_endpoints = st.lists(st.sampled_from(ENDPOINTS), max_size=8, unique=True).map(lambda found: tuple(sorted(found)))


@given(some_endpoints, some_endpoints)
def test_slots_hold_exactly_the_endpoints_and_who_stays_rarely_moves(
    before: tuple[bytes, ...], after: tuple[bytes, ...]
) -> None:
    slots = reslot(before, after)
    assert sorted(slots) == sorted(after)
    moved = [item for index, item in enumerate(slots) if item in before and before.index(item) != index]
    assert len(moved) <= max(0, len(before) - len(after)), "only those whose slot is gone may move"
    assert reslot(slots, after) == slots or sorted(slots) == list(after)


def test_a_replaced_endpoint_takes_the_slot_of_the_old_one() -> None:
    a, b, c, d = ENDPOINTS[:4]
    assert reslot((a, b, c), (a, c, d)) == (a, d, c)
    assert reslot((a, b, c, d), (a, d)) == (a, d)


def test_a_place_in_registers_leads_back_to_its_frontend() -> None:
    for key in (*KEYS, frontend_key(pack_address("fd00::1"), 17, 53)):
        assert frontend_of(place(key)) == key
        assert len(place(key)) % 4 == 0


class Kernel:
    """Keeps sets as the kernel would, and refuses what it would refuse."""

    def __init__(self) -> None:
        self.sets: dict[str, dict[tuple[bytes, bytes], bytes | Jump | None]] = {}
        self.chains: dict[str, int] = {}

    def take(self, ops: list[Op]) -> None:
        for op in ops:
            parts = attributes(op.payload, 4)
            if op.kind == wire.NEWSET:
                name = text_of(parts[2])
                assert name not in self.sets, f"{name} exists"
                self.sets[name] = {}
            elif op.kind == wire.DELSET:
                del self.sets[text_of(parts[2])]
            elif op.kind == wire.NEWCHAIN:
                name = text_of(parts[3])
                assert name not in self.chains, f"{name} exists"
                self.chains[name] = 0
            elif op.kind == wire.NEWRULE:
                self.chains[text_of(parts[2])] += 1
            elif op.kind == wire.DELRULE:
                self.chains[text_of(parts[2])] = 0
            elif op.kind == wire.DELCHAIN:
                name = text_of(parts[3])
                assert self.chains.pop(name) == 0, f"{name} has rules"
                used = {value.chain for items in self.sets.values() for value in items.values() if type(value) is Jump}
                assert name not in used, f"{name} is in use"
            elif op.kind in (wire.NEWSETELEM, wire.DELSETELEM):
                self._elements(op, self.sets[text_of(parts[2])])

    def _elements(self, op: Op, items: dict[tuple[bytes, bytes], Any]) -> None:
        for item in decode(op.payload):
            key = item.key, item.key_end
            if op.kind == wire.DELSETELEM:
                assert key in items, "deleted what is not there"
                del items[key]
            else:
                assert key not in items, "created what is there"
                if isinstance(item.data, Jump):
                    assert item.data.chain in self.chains, f"no chain {item.data.chain}"
                items[key] = item.data


@st.composite
def frontends(draw: st.DrawFn) -> Frontend:
    endpoints = draw(some_endpoints)
    external = draw(st.none() | some_endpoints)
    if external is not None:
        external = tuple(item for item in external if item in endpoints)
    return Frontend(
        Kind.LOAD_BALANCER,
        draw(st.sampled_from(["ns/a:x", "ns/b:y"])),
        endpoints,
        external,
        draw(st.sampled_from(list(Masquerade))),
        Refusal.NONE if endpoints else draw(st.sampled_from([Refusal.REJECT, Refusal.DROP])),
        draw(st.sampled_from([0, 10, 20])),
        draw(st.sampled_from([None, (), ("10.0.0.0/8", "192.0.2.0/24")])),
    )


@given(st.lists(st.dictionaries(st.sampled_from(KEYS), st.none() | frontends(), min_size=1), max_size=6))
@settings(max_examples=150)
def test_messages_add_up_to_the_wanted_elements(steps: list[dict[bytes, Frontend | None]]) -> None:
    kernel = Kernel()
    shadow = Shadow(Layout(ipv6=False, pod_cidrs=("10.0.0.0/8",)))
    kernel.take([op for op in shadow.layout.ops() if op.kind != wire.DELTABLE])
    fixed = {name: dict(items) for name, items in kernel.sets.items()}
    wanted: dict[bytes, Frontend] = {}
    for step in steps:
        # frontends of one service port agree on their endpoints, as those of a real table do
        step = {key: value and value._replace(owner=f"ns/{key.hex()}") for key, value in step.items()}
        changes, pools = Changes(shadow.layout.family), set[str]()
        for key, value in step.items():
            shadow.apply(key, value, changes, pools)
        shadow.settle(pools, changes)
        kernel.take(changes.ops())
        wanted.update({key: value for key, value in step.items() if value is not None})
        for key in [key for key, value in step.items() if value is None]:
            wanted.pop(key, None)
    assert {key: entry.frontend for key, entry in shadow.entries.items()} == wanted
    expected = {name: dict(items) for name, items in fixed.items()}
    for key, entry in shadow.entries.items():
        assert sorted(entry.slots) == sorted(entry.frontend.endpoints)
        for element in shadow.elements(key, entry):
            expected[element.set][element.key, element.key_end] = element.data
    memories = {name: items for name, items in kernel.sets.items() if name.startswith("clients-")}
    assert {name: items for name, items in kernel.sets.items() if name not in memories} == expected
    assert {f"clients-{pool}" for pool in shadow.pools} == memories.keys()


def test_one_replaced_endpoint_is_two_elements() -> None:
    shadow = Shadow(Layout(ipv6=False, pod_cidrs=()))
    before = Frontend(Kind.CLUSTER_IP, "ns/a:x", tuple(ENDPOINTS[:5]))
    shadow.load({KEYS[0]: before}, (), ())
    changes, pools = Changes(shadow.layout.family), set[str]()
    shadow.apply(KEYS[0], before._replace(endpoints=(*ENDPOINTS[:4], ENDPOINTS[6])), changes, pools)
    assert [(op.what, len(list(decode(op.payload)))) for op in changes.ops()] == [
        ("delete from endpoints", 1),
        ("add to endpoints", 1),
    ]


def test_long_lists_are_split_below_the_limit_of_an_attribute() -> None:
    shadow = Shadow(Layout(ipv6=False, pod_cidrs=()))
    many = tuple(endpoint(bytes((10, 1, n >> 8, n & 255)), 80) for n in range(5000))
    ops = shadow.load({KEYS[0]: Frontend(Kind.CLUSTER_IP, "ns/a:x", many)}, (), ())
    lists = [op for op in ops if op.what == "add to endpoints"]
    assert all(len(op.payload) < 65_000 for op in lists)
    assert sum(len(list(decode(op.payload))) for op in lists) == 5000
