"""What one Service becomes: its frontends and their settings."""

from __future__ import annotations

from typing import Any

import pytest

from nodewright_agent.proxy.model import (
    Frontend,
    Kind,
    Masquerade,
    Refusal,
    endpoint_text,
    key_text,
    pack_address,
    split_key,
)
from nodewright_agent.proxy.objects import EndpointSlice, Service
from nodewright_agent.proxy.services import HealthCheck, NodeView, rules_of, source_ranges
from unit.proxy.proxy_objects import endpoint_slice, ready, service

NODE = NodeView("here", "zone-a", (pack_address("192.168.0.5"),), ("10.0.0.0/8", "fd00::/16"))
HERE, ELSEWHERE = ready("10.0.0.1"), ready("10.0.0.2", "elsewhere")
NODE_PORT = [{"name": "http", "port": 80, "protocol": "TCP", "nodePort": 30080}]


def frontends(item: Service, *slices: EndpointSlice, node: NodeView = NODE) -> dict[str, Frontend]:
    return {key_text(key): value for key, value in rules_of(item, slices, node).frontends.items()}


def texts(endpoints: tuple[bytes, ...] | None) -> list[str] | None:
    return None if endpoints is None else [endpoint_text(item) for item in endpoints]


@pytest.mark.parametrize(
    "spec", [{"cluster_ip": "None"}, {"cluster_ip": ""}, {"type": "ExternalName", "externalName": "example.org"}]
)
def test_services_without_an_address_are_skipped(spec: dict[str, Any]) -> None:
    assert frontends(service(**spec), endpoint_slice(HERE)) == {}


def test_cluster_ip() -> None:
    found = frontends(service(), endpoint_slice(HERE, ELSEWHERE))
    assert list(found) == ["10.96.0.10:80/TCP"]
    frontend = found["10.96.0.10:80/TCP"]
    assert frontend.owner == "default/web:http"
    assert texts(frontend.endpoints) == ["10.0.0.1:8080", "10.0.0.2:8080"]
    assert frontend.kind is Kind.CLUSTER_IP
    assert frontend.masquerade is Masquerade.OFF_CLUSTER
    assert frontend.refusal is Refusal.NONE
    assert (frontend.external, frontend.affinity, frontend.sources) == (None, 0, None)


def test_masquerade_follows_the_settings() -> None:
    (frontend,) = frontends(service(), node=NODE._replace(pod_cidrs=())).values()
    assert frontend.masquerade is Masquerade.NEVER
    (frontend,) = frontends(service(), node=NODE._replace(masquerade_all=True)).values()
    assert frontend.masquerade is Masquerade.ALWAYS


def test_every_kind_of_address() -> None:
    item = service(
        type="LoadBalancer",
        ports=NODE_PORT,
        externalIPs=["203.0.113.1"],
        ingress=[{"ip": "192.0.2.1"}, {"hostname": "x"}],
    )
    found = frontends(item, endpoint_slice(HERE))
    assert {text: (value.kind, value.masquerade) for text, value in found.items()} == {
        "10.96.0.10:80/TCP": (Kind.CLUSTER_IP, Masquerade.OFF_CLUSTER),
        "192.168.0.5:30080/TCP": (Kind.NODE_PORT, Masquerade.ALWAYS),
        "192.0.2.1:80/TCP": (Kind.LOAD_BALANCER, Masquerade.ALWAYS),
        "203.0.113.1:80/TCP": (Kind.EXTERNAL_IP, Masquerade.ALWAYS),
    }


def test_balancers_that_change_the_address_are_left_to_themselves() -> None:
    ingress = [{"ip": "192.0.2.1", "ipMode": "Proxy"}, {"ip": "192.0.2.2", "ipMode": "VIP"}]
    found = frontends(service(type="LoadBalancer", ingress=ingress), endpoint_slice(HERE))
    assert "192.0.2.1:80/TCP" not in found
    assert "192.0.2.2:80/TCP" in found


def test_internal_policy_local() -> None:
    item = service(internalTrafficPolicy="Local")
    (frontend,) = frontends(item, endpoint_slice(HERE, ELSEWHERE)).values()
    assert texts(frontend.endpoints) == ["10.0.0.1:8080"]
    (frontend,) = frontends(item, endpoint_slice(ELSEWHERE)).values()
    assert (frontend.endpoints, frontend.refusal) == ((), Refusal.DROP)
    (frontend,) = frontends(item).values()
    assert (frontend.endpoints, frontend.refusal) == ((), Refusal.REJECT)


def test_external_policy_local() -> None:
    item = service(type="NodePort", ports=NODE_PORT, externalTrafficPolicy="Local")
    found = frontends(item, endpoint_slice(HERE, ELSEWHERE))
    outside = found["192.168.0.5:30080/TCP"]
    assert texts(outside.endpoints) == ["10.0.0.1:8080", "10.0.0.2:8080"]
    assert texts(outside.external) == ["10.0.0.1:8080"]
    assert outside.masquerade is Masquerade.LOCAL_SOURCE
    assert found["10.96.0.10:80/TCP"].external is None
    outside = frontends(item, endpoint_slice(ELSEWHERE))["192.168.0.5:30080/TCP"]
    assert (outside.external, outside.refusal) == ((), Refusal.NONE)
    outside = frontends(item)["192.168.0.5:30080/TCP"]
    assert (outside.external, outside.refusal) == ((), Refusal.REJECT)


def test_both_policies_local() -> None:
    item = service(type="NodePort", ports=NODE_PORT, externalTrafficPolicy="Local", internalTrafficPolicy="Local")
    found = frontends(item, endpoint_slice(HERE, ELSEWHERE))
    assert texts(found["10.96.0.10:80/TCP"].endpoints) == ["10.0.0.1:8080"]
    assert texts(found["192.168.0.5:30080/TCP"].endpoints) == ["10.0.0.1:8080", "10.0.0.2:8080"]


@pytest.mark.parametrize(
    ("spec", "seconds"),
    [
        ({}, 0),
        ({"sessionAffinity": "None"}, 0),
        ({"sessionAffinity": "ClientIP"}, 10800),
        ({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10}}}, 10),
    ],
)
def test_affinity(spec: dict[str, Any], seconds: int) -> None:
    (frontend,) = frontends(service(**spec), endpoint_slice(HERE)).values()
    assert frontend.affinity == seconds


def test_udp_knows_who_still_serves() -> None:
    ports = [{"name": "dns", "port": 53, "protocol": "UDP"}]
    going = ready("10.0.0.3", ready=False, serving=True, terminating=True)
    gone = ready("10.0.0.4", ready=False, serving=False, terminating=True)
    (frontend,) = frontends(service(ports=ports), endpoint_slice(HERE, going, gone, ports=ports)).values()
    assert texts(frontend.endpoints) == ["10.0.0.1:53"]
    assert texts(frontend.serving) == ["10.0.0.1:53", "10.0.0.3:53"]


def test_both_families() -> None:
    item = service(clusterIPs=["10.96.0.10", "fd00:96::10"])
    found = frontends(item, endpoint_slice(HERE), endpoint_slice(ready("fd00::1"), family="IPv6"))
    assert texts(found["10.96.0.10:80/TCP"].endpoints) == ["10.0.0.1:8080"]
    assert texts(found["[fd00:96::10]:80/TCP"].endpoints) == ["[fd00::1]:8080"]


def test_local_addresses_are_those_of_used_endpoints_here() -> None:
    rules = rules_of(service(), [endpoint_slice(HERE, ELSEWHERE, ready("10.0.0.9", ready=False, serving=False))], NODE)
    assert rules.local_ips == {pack_address("10.0.0.1")}
    assert rules.cluster_ips == {pack_address("10.96.0.10")}


def test_health_check_counts_ready_addresses_of_this_node_once() -> None:
    ports = [{"name": "a", "port": 80, "protocol": "TCP"}, {"name": "b", "port": 81, "protocol": "TCP"}]
    targets = [{"name": name, "port": 8080, "protocol": "TCP"} for name in "ab"]
    going = ready("10.0.0.3", ready=False, serving=True, terminating=True)
    item = service(type="LoadBalancer", ports=ports, externalTrafficPolicy="Local", healthCheckNodePort=32000)
    found = rules_of(item, [endpoint_slice(HERE, ELSEWHERE, going, ports=targets)], NODE).health_check
    assert found == HealthCheck(32000, 1)
    other = service(type="LoadBalancer", ports=ports, externalTrafficPolicy="Cluster", healthCheckNodePort=32000)
    assert rules_of(other, [], NODE).health_check is None


def test_endpoints_of_another_node_on_this_host_are_local() -> None:
    item = service(
        type="LoadBalancer",
        ports=NODE_PORT,
        internalTrafficPolicy="Local",
        externalTrafficPolicy="Local",
        healthCheckNodePort=32000,
    )
    ends = endpoint_slice(HERE, ready("10.0.0.4", "here-nodewright"), ELSEWHERE)
    rules = rules_of(item, [ends], NODE._replace(also_here=frozenset({"here-nodewright"})))
    both = ["10.0.0.1:8080", "10.0.0.4:8080"]
    found = {key_text(key): value for key, value in rules.frontends.items()}
    assert texts(found["10.96.0.10:80/TCP"].endpoints) == both
    assert texts(found["192.168.0.5:30080/TCP"].external) == both
    assert rules.health_check == HealthCheck(32000, 2)
    assert rules.local_ips == {pack_address("10.0.0.1"), pack_address("10.0.0.4")}


def test_unknown_protocols_are_left_out() -> None:
    assert frontends(service(ports=[{"name": "x", "port": 1, "protocol": "QUIC"}])) == {}


def test_same_port_in_two_protocols_is_two_frontends() -> None:
    ports = [{"name": "a", "port": 53, "protocol": "TCP"}, {"name": "b", "port": 53, "protocol": "UDP"}]
    found = rules_of(service(ports=ports), [], NODE).frontends
    assert [split_key(key)[1:] for key in found] == [(6, 53), (17, 53)]


@pytest.mark.parametrize(
    ("ranges", "wanted"),
    [
        ([], None),
        (["0.0.0.0/0", "10.0.0.0/8"], None),
        ([" 10.0.0.0/8 "], ("10.0.0.0/8",)),
        (["10.0.0.0/8", "10.1.0.0/16"], ("10.0.0.0/8",)),
        (["fd00::/8"], ()),
        (["nonsense"], None),
        (["10.1.2.3/8"], ("10.0.0.0/8",)),
    ],
)
def test_source_ranges(ranges: list[str], wanted: tuple[str, ...] | None) -> None:
    assert source_ranges(ranges, ipv6=False) == wanted


def test_source_ranges_concern_balancers_only_and_admit_the_node_by_the_balancers_address() -> None:
    item = service(
        type="LoadBalancer", ports=NODE_PORT, ingress=[{"ip": "192.0.2.1"}], loadBalancerSourceRanges=["192.168.0.0/24"]
    )
    found = frontends(item, endpoint_slice(HERE))
    assert found["192.0.2.1:80/TCP"].sources == ("192.0.2.1/32", "192.168.0.0/24")
    assert found["192.168.0.5:30080/TCP"].sources is None
    away = NODE._replace(addresses=())
    assert frontends(item, endpoint_slice(HERE), node=away)["192.0.2.1:80/TCP"].sources == ("192.168.0.0/24",)
