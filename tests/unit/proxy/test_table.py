"""The incremental table equals one computed from scratch, whatever the history."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from nodewright_agent.proxy.model import Table, difference, frontend_key, pack_address, patched
from nodewright_agent.proxy.objects import EndpointSlice, Service
from nodewright_agent.proxy.services import NodeView
from nodewright_agent.proxy.table import TableBuilder, table_from_scratch
from unit.proxy.proxy_objects import endpoint_slice, ready, service

NODE = NodeView("here", "a", (pack_address("192.168.0.5"),), ("10.0.0.0/8",))
EMPTY = Table({}, frozenset(), frozenset())
NAMES = ("a", "b", "c")


@st.composite
def services(draw: st.DrawFn) -> Service:
    name = draw(st.sampled_from(NAMES))
    address = f"10.96.0.{NAMES.index(name) + 1}"
    spec: dict[str, Any] = {
        "sessionAffinity": draw(st.sampled_from(["None", "ClientIP"])),
        "internalTrafficPolicy": draw(st.sampled_from(["Cluster", "Local"])),
        "externalTrafficPolicy": draw(st.sampled_from(["Cluster", "Local"])),
        # the same external addresses for all, so that Services get in each other's way
        "externalIPs": draw(st.lists(st.sampled_from(["203.0.113.1", "203.0.113.2"]), max_size=2, unique=True)),
    }
    numbers = draw(st.lists(st.sampled_from([53, 80]), min_size=1, max_size=2, unique=True))
    ports = [
        {"name": f"p{n}", "port": n, "protocol": draw(st.sampled_from(["TCP", "UDP"])), "nodePort": 0} for n in numbers
    ]
    return service(name, draw(st.sampled_from([address, "None"])), ports, **spec)


@st.composite
def slices(draw: st.DrawFn) -> EndpointSlice:
    endpoints = []
    for number in draw(st.lists(st.integers(1, 4), max_size=4)):
        state = draw(st.sampled_from([{}, {"ready": False, "terminating": True}, {"ready": False, "serving": False}]))
        endpoints.append(ready(f"10.0.0.{number}", draw(st.sampled_from(["here", "elsewhere"])), **state))
    ports = [{"name": f"p{n}", "port": 8000 + n, "protocol": p} for n in (53, 80) for p in ("TCP", "UDP")]
    owner, name = draw(st.sampled_from(NAMES)), draw(st.sampled_from(["x", "y", "z"]))
    return endpoint_slice(*endpoints, service=owner, name=name, ports=ports)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("service"), services()),
        st.tuples(st.just("slice"), slices()),
        st.tuples(st.just("no service"), st.sampled_from(NAMES)),
        st.tuples(st.just("no slice"), st.sampled_from(["x", "y", "z"])),
        st.tuples(st.just("zone"), st.sampled_from(["a", "b"])),
        st.tuples(st.just("take"), st.none()),
    ),
    max_size=25,
)


@given(STEPS)
@settings(max_examples=150)
def test_incremental_equals_from_scratch(steps: list[tuple[str, Any]]) -> None:
    builder = TableBuilder(NODE)
    node, known = NODE, EMPTY
    all_services: dict[str, Service] = {}
    all_slices: dict[str, EndpointSlice] = {}
    for step, value in [*steps, ("take", None)]:
        if step == "service":
            all_services[value.key] = value
            builder.set_service(value.key, value)
        elif step == "slice":
            builder.set_slice(value.key, all_slices.get(value.key), value)
            all_slices[value.key] = value
        elif step == "no service":
            all_services.pop(f"default/{value}", None)
            builder.set_service(f"default/{value}", None)
        elif step == "no slice":
            old = all_slices.pop(f"default/{value}", None)
            if old is not None:
                builder.set_slice(old.key, old, None)
        elif step == "zone":
            node = node._replace(zone=value)
            builder.set_node(node)
        else:
            known = patched(known, builder.take())
            by_service: dict[str, list[EndpointSlice]] = {}
            for item in all_slices.values():
                by_service.setdefault(item.service_key or "", []).append(item)
            assert builder.table() == table_from_scratch(all_services.values(), by_service, node)
            assert known == builder.table(), "the differences add up to the table"


@given(st.lists(services(), max_size=4), st.lists(services(), max_size=4), st.lists(slices(), max_size=3))
@settings(max_examples=50)
def test_difference_leads_from_one_table_to_the_other(
    before: list[Service], after: list[Service], items: list[EndpointSlice]
) -> None:
    listed = {"": items}
    old, new = table_from_scratch(before, listed, NODE), table_from_scratch(after, listed, NODE)
    delta = difference(old, new)
    assert patched(old, delta) == new
    assert bool(delta) == (old != new)


def _builder(*changes: Callable[[TableBuilder], None]) -> TableBuilder:
    builder = TableBuilder(NODE)
    for change in changes:
        change(builder)
    builder.take()
    return builder


def test_only_what_changed_is_in_the_difference() -> None:
    builder = TableBuilder(NODE)
    for number in range(50):
        builder.set_service(f"default/s{number}", service(f"s{number}", f"10.96.1.{number}"))
    assert len(builder.take().frontends) == 50
    item = endpoint_slice(ready("10.0.0.1"), service="s7")
    builder.set_slice(item.key, None, item)
    delta = builder.take()
    assert list(delta.frontends) == [frontend_key(pack_address("10.96.1.7"), 6, 80)]
    assert delta.local_ips_added == {pack_address("10.0.0.1")}
    assert not builder.take()


def test_an_update_that_means_the_same_changes_nothing() -> None:
    item = endpoint_slice(ready("10.0.0.1"))
    builder = _builder(lambda b: b.set_service("default/web", service()), lambda b: b.set_slice(item.key, None, item))
    again = endpoint_slice(ready("10.0.0.1", ready=True))
    builder.set_slice(item.key, item, again)
    assert not builder.take()


def test_conflicting_claims_are_settled_by_name_and_passed_on() -> None:
    key = frontend_key(pack_address("203.0.113.1"), 6, 80)
    first, second = (service(name, f"10.96.0.{n}", externalIPs=["203.0.113.1"]) for n, name in ((1, "a"), (2, "b")))
    for order in ((first, second), (second, first)):
        builder = TableBuilder(NODE)
        for item in order:
            builder.set_service(item.key, item)
            builder.take()
        assert builder.table().frontends[key].owner == "default/a:http"
        assert set(builder.conflicts()[key]) == {"default/a", "default/b"}
        builder.set_service("default/a", None)
        assert builder.take().frontends[key].owner == "default/b:http"  # type: ignore[union-attr]
        assert builder.conflicts() == {}


def test_a_slice_that_changes_its_service_leaves_the_old_one() -> None:
    item = endpoint_slice(ready("10.0.0.1"), service="a", name="x")
    moved = endpoint_slice(ready("10.0.0.1"), service="b", name="x")
    builder = _builder(
        lambda b: b.set_service("default/a", service("a", "10.96.0.1")),
        lambda b: b.set_service("default/b", service("b", "10.96.0.2")),
        lambda b: b.set_slice(item.key, None, item),
    )
    builder.set_slice(item.key, item, moved)
    builder.take()
    ends = {f.owner: len(f.endpoints) for f in builder.table().frontends.values()}
    assert ends == {"default/a:http": 0, "default/b:http": 1}
