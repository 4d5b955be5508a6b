"""Which endpoints a node uses: the rules of upstream's CategorizeEndpoints, case by case."""

from __future__ import annotations

from typing import Any

import pytest

from nodewright_agent.proxy.endpoints import Choice, backends_of, choose, topology
from nodewright_agent.proxy.model import endpoint_text
from unit.proxy.proxy_objects import endpoint_slice, ready

CLUSTER, LOCAL = {"uses_cluster": True, "uses_local": False}, {"uses_cluster": False, "uses_local": True}
HERE = frozenset({"here", "here-too"})
BOTH = {"uses_cluster": True, "uses_local": True}
TERMINATING = {"ready": False, "serving": True, "terminating": True}
GONE = {"ready": False, "serving": False, "terminating": True}
UNREADY = {"ready": False, "serving": False, "terminating": False}


def hinted(address: str, node: str = "here", *, zones: tuple[str, ...] = (), nodes: tuple[str, ...] = ()) -> Any:
    hints = {"forZones": [{"name": z} for z in zones], "forNodes": [{"name": n} for n in nodes]}
    return {**ready(address, node), "hints": {key: value for key, value in hints.items() if value}}


def chosen(*endpoints: Any, zone: str = "zone-a", **uses: bool) -> tuple[list[str], list[str], bool]:
    backends = backends_of([endpoint_slice(*endpoints)], "http", "TCP", HERE, ipv6=False)
    choice: Choice = choose(backends, here=HERE, zone=zone, **uses)
    return (
        [endpoint_text(item).removesuffix(":8080") for item in choice.cluster],
        [endpoint_text(item).removesuffix(":8080") for item in choice.local],
        choice.any,
    )


def test_nothing() -> None:
    assert chosen(**BOTH) == ([], [], False)


def test_conditions_left_out_mean_ready() -> None:
    assert chosen(ready("10.0.0.1"), **CLUSTER) == (["10.0.0.1"], [], True)


def test_unready_endpoints_are_not_used() -> None:
    assert chosen(ready("10.0.0.1", **UNREADY), ready("10.0.0.2"), **CLUSTER) == (["10.0.0.2"], [], True)
    assert chosen(ready("10.0.0.1", **UNREADY), ready("10.0.0.2", **GONE), **BOTH) == ([], [], False)


def test_terminating_endpoints_serve_only_while_none_is_ready() -> None:
    assert chosen(ready("10.0.0.1", **TERMINATING), ready("10.0.0.2"), **CLUSTER)[0] == ["10.0.0.2"]
    assert chosen(ready("10.0.0.1", **TERMINATING), ready("10.0.0.2", **GONE), **CLUSTER) == (["10.0.0.1"], [], True)


def test_the_fallback_of_local_is_its_own() -> None:
    here, elsewhere = ready("10.0.0.1", **TERMINATING), ready("10.0.0.2", "elsewhere")
    assert chosen(here, elsewhere, **BOTH) == (["10.0.0.2"], ["10.0.0.1"], True)
    assert chosen(ready("10.0.0.3"), here, elsewhere, **BOTH) == (["10.0.0.2", "10.0.0.3"], ["10.0.0.3"], True)


def test_local_alone_knows_of_endpoints_elsewhere() -> None:
    assert chosen(ready("10.0.0.2", "elsewhere"), **LOCAL) == ([], [], True)
    assert chosen(ready("10.0.0.2", "elsewhere", **TERMINATING), **LOCAL) == ([], [], True)
    assert chosen(ready("10.0.0.2", "elsewhere", **UNREADY), **LOCAL) == ([], [], False)


@pytest.mark.parametrize(
    ("endpoints", "zone", "wanted"),
    [
        pytest.param([("1", ("zone-a",)), ("2", ("zone-b",))], "zone-a", ["1"], id="same zone"),
        pytest.param([("1", ("zone-a", "zone-b")), ("2", ("zone-b",))], "zone-b", ["1", "2"], id="several zones"),
        pytest.param([("1", ("zone-a",)), ("2", ())], "zone-a", ["1", "2"], id="one without hints"),
        pytest.param([("1", ("zone-b",)), ("2", ("zone-b",))], "zone-a", ["1", "2"], id="none for this zone"),
        pytest.param([("1", ("zone-a",)), ("2", ("zone-b",))], "", ["1", "2"], id="node without zone"),
    ],
)
def test_zone_hints(endpoints: list[tuple[str, tuple[str, ...]]], zone: str, wanted: list[str]) -> None:
    listed = [hinted(f"10.0.0.{number}", zones=zones) for number, zones in endpoints]
    assert chosen(*listed, zone=zone, **CLUSTER)[0] == [f"10.0.0.{number}" for number in wanted]


def test_node_hints_win_over_zone_hints() -> None:
    listed = [
        hinted("10.0.0.1", zones=("zone-a",), nodes=("here",)),
        hinted("10.0.0.2", zones=("zone-a",), nodes=("elsewhere",)),
    ]
    assert chosen(*listed, **CLUSTER)[0] == ["10.0.0.1"]


def test_every_node_of_this_host_is_local() -> None:
    listed = [ready("10.0.0.1", "here-too"), ready("10.0.0.2", "elsewhere"), ready("10.0.0.3", "here")]
    assert chosen(*listed, **BOTH)[1] == ["10.0.0.1", "10.0.0.3"]
    hints = [hinted("10.0.0.1", nodes=("here-too",)), hinted("10.0.0.2", nodes=("elsewhere",))]
    assert chosen(*hints, **CLUSTER)[0] == ["10.0.0.1"]


def test_node_hints_for_others_leave_the_zone_hints() -> None:
    listed = [
        hinted("10.0.0.1", zones=("zone-a",), nodes=("elsewhere",)),
        hinted("10.0.0.2", zones=("zone-b",), nodes=("elsewhere",)),
    ]
    assert chosen(*listed, **CLUSTER)[0] == ["10.0.0.1"]


def test_hints_do_not_filter_local_endpoints() -> None:
    listed = [hinted("10.0.0.1", zones=("zone-b",)), hinted("10.0.0.2", zones=("zone-a",))]
    assert chosen(*listed, **BOTH) == (["10.0.0.2"], ["10.0.0.1", "10.0.0.2"], True)


def test_hints_of_unready_endpoints_do_not_count() -> None:
    listed = [hinted("10.0.0.1", zones=("zone-a",)), ready("10.0.0.2", **UNREADY)]
    backends = backends_of([endpoint_slice(*listed)], "http", "TCP", HERE, ipv6=False)
    assert topology(backends, HERE, "zone-a") == "zone"


def test_overlapping_slices_prefer_the_endpoint_that_stays() -> None:
    going = endpoint_slice(ready("10.0.0.1", **TERMINATING), name="a")
    staying = endpoint_slice(ready("10.0.0.1"), name="b")
    for order in ([going, staying], [staying, going]):
        backends = backends_of(order, "http", "TCP", HERE, ipv6=False)
        assert [(b.ready, b.terminating) for b in backends] == [(True, False)]


def test_ports_are_matched_by_name_and_protocol() -> None:
    ports = [
        {"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "dns", "port": 5353, "protocol": "TCP"},
        {"name": "none"},
        {"port": 9},
    ]
    item = endpoint_slice(ready("10.0.0.1"), ports=ports)
    for name, protocol, wanted in (("dns", "UDP", 53), ("dns", "TCP", 5353), ("", "TCP", 9)):
        found = backends_of([item], name, protocol, HERE, ipv6=False)
        assert [endpoint_text(b.address) for b in found] == [f"10.0.0.1:{wanted}"]
    assert backends_of([item], "none", "TCP", HERE, ipv6=False) == []


def test_families_and_malformed_addresses_are_kept_apart() -> None:
    v4 = endpoint_slice(ready("10.0.0.1"), ready("not-an-address"), {"addresses": None}, ready("fd00::1"))
    v6 = endpoint_slice(ready("fd00::2"), family="IPv6")
    fqdn = endpoint_slice(ready("example.org"), family="FQDN")
    listed = [v4, v6, fqdn]
    assert [endpoint_text(b.address) for b in backends_of(listed, "http", "TCP", HERE, ipv6=False)] == ["10.0.0.1:8080"]
    assert [endpoint_text(b.address) for b in backends_of(listed, "http", "TCP", HERE, ipv6=True)] == ["[fd00::2]:8080"]


def test_only_the_first_address_counts() -> None:
    item = endpoint_slice({"addresses": ["10.0.0.1", "10.0.0.2"]})
    assert len(backends_of([item], "http", "TCP", HERE, ipv6=False)) == 1
