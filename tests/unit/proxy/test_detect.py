"""The choice of a backend, and settings that make no sense."""

from __future__ import annotations

from typing import Any

import pytest

from nodewright_agent.proxy.backends import BACKENDS
from nodewright_agent.proxy.config import MODES, ProxyConfig, ProxyConfigError
from nodewright_agent.proxy.detect import ORDER, PROBES, SHARED_ORDER, ProxyModeError, choose


def probes(**missing: str | None) -> dict[str, Any]:
    return {name: (lambda name=name: missing.get(name)) for name in ORDER}


def test_auto_takes_the_first_that_works_and_says_why() -> None:
    assert choose("auto", probes()).mode == "ipvs"
    choice = choose("auto", probes(ipvs="no ip_vs"))
    assert choice.mode == "nftables"
    assert "ipvs: no ip_vs" in choice.reason
    assert choose("auto", probes(ipvs="x", nftables="y")).mode == "iptables"


def test_beside_another_proxy_auto_prefers_what_shares_nothing() -> None:
    choice = choose("auto", probes(), SHARED_ORDER)
    assert choice.mode == "nftables"
    assert choose("auto", probes(nftables="no nf_tables"), SHARED_ORDER).mode == "ipvs"
    assert sorted(SHARED_ORDER) == sorted(ORDER)


def test_auto_without_any_names_all_reasons() -> None:
    with pytest.raises(ProxyModeError, match=r"ipvs: a; nftables: b; iptables: c") as caught:
        choose("auto", probes(ipvs="a", nftables="b", iptables="c"))
    assert caught.value.hint


def test_an_explicit_mode_is_never_replaced() -> None:
    assert choose("nftables", probes(ipvs=None)).mode == "nftables"
    with pytest.raises(ProxyModeError, match="proxy mode ipvs cannot be used: no ip_vs"):
        choose("ipvs", probes(ipvs="no ip_vs"))


def test_a_mode_without_a_backend_is_an_error() -> None:
    assert "iptables" not in BACKENDS, "when there is one, this test has to go"
    with pytest.raises(ProxyModeError, match="no iptables backend"):
        choose("iptables", PROBES)


def test_tables_agree() -> None:
    assert set(MODES) == {"auto", *ORDER} == {"auto", *PROBES}
    assert set(BACKENDS) <= set(ORDER)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("node_name", ""),
        ("mode", "userspace"),
        ("cluster_cidr", "10.0.0.1/8"),
        ("cluster_cidr", "10.0.0.0/8,nonsense"),
        ("node_ips", ("10.0.0",)),
        ("coalesce", -1.0),
        ("local_nodes", ("",)),
        ("node_port_addresses", ("10.0.0.1/8",)),
        ("node_port_addresses", ("primary", "10.0.0.0/8")),
    ],
)
def test_bad_settings_name_the_field(field: str, value: Any) -> None:
    with pytest.raises(ProxyConfigError, match=f"^{field}: "):
        ProxyConfig("node")._replace(**{field: value}).check()


def test_pod_cidrs_are_split() -> None:
    assert ProxyConfig("node", cluster_cidr="10.0.0.0/8, fd00::/8").check().pod_cidrs == ("10.0.0.0/8", "fd00::/8")


def test_node_ports_answer_on_the_nodes_or_on_given_addresses() -> None:
    with pytest.raises(ProxyConfigError, match=r"^node_port_addresses: .*not both"):
        ProxyConfig("node", node_ips=("10.0.0.1",), node_port_addresses=("10.0.0.0/8",)).check()
    assert (
        ProxyConfig("node", node_ips=("10.0.0.1",), node_port_addresses=("primary",)).check().node_port_networks == ()
    )
