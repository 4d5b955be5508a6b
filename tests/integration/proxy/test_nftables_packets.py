"""Real packets through the nftables backend."""

from __future__ import annotations

import re

import pytest

from integration.proxy.packet_cases import VIP, PacketCases, Rig, slices
from integration.proxy.proxy_lab import POD_CIDRS, PODS, inside
from nodewright_agent.proxy.backends import make_backend
from nodewright_agent.proxy.backends.base import BackendOptions
from unit.proxy.proxy_objects import service

pytestmark = pytest.mark.needs_root


class TestNftables(PacketCases):
    backend = "nftables"

    def test_undefined_port_is_refused(self, rig: Rig) -> None:
        rig.put(service(), *slices(*PODS))
        with pytest.raises(ConnectionRefusedError):
            rig.lab.tcp("client", VIP, 81)
        with pytest.raises(ConnectionRefusedError):
            rig.lab.tcp("node", VIP, 81)

    def test_nft_prints_everything(self, rig: Rig) -> None:
        sticky = service(sessionAffinity="ClientIP", type="LoadBalancer", ingress=[{"ip": "192.0.2.9"}])
        sticky.spec.load_balancer_source_ranges = ["10.0.0.0/8"]
        sticky.spec.external_traffic_policy = "Local"
        rig.put(sticky, *slices(*PODS))
        rig.lab.tcp("client", VIP, 80)
        text = rig.lab.run("node", "nft", "list", "ruleset")
        assert 'comment "default/web:http"' in text
        assert re.search(r"10\.1\.0\.2 .*expires .* : 10\.2\.0\.1[123] \. 8080", text), (
            "the client's endpoint is remembered, and shown"
        )

    def test_affinity_survives_a_full_replacement(self, rig: Rig) -> None:
        rig.put(service(sessionAffinity="ClientIP"), *slices(*PODS))
        first = rig.lab.tcp("client", VIP, 80).split()[0]
        for _ in range(8):
            with inside(rig.lab.path("node")):
                rig.backend.replace(rig.builder.table())
            assert rig.lab.tcp("client", VIP, 80).split()[0] == first
        successor = make_backend("nftables", BackendOptions(POD_CIDRS))
        with inside(rig.lab.path("node")):
            successor.open()
        try:
            successor.replace(rig.builder.table())
            assert {rig.lab.tcp("client", VIP, 80).split()[0] for _ in range(8)} == {first}, "nor a new process"
        finally:
            successor.close()
        rig.backend.replace(rig.builder.table())

    def test_cleanup_leaves_nothing(self, rig: Rig) -> None:
        rig.put(service(), *slices(*PODS))
        rig.lab.run("node", "nft", "add", "table", "ip", "somebody-elses")
        rig.backend.cleanup()
        assert rig.lab.run("node", "nft", "list", "tables").split() == ["table", "ip", "somebody-elses"]
        rig.lab.run("node", "nft", "delete", "table", "ip", "somebody-elses")
        rig.backend.replace(rig.builder.table())
