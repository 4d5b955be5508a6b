"""Packet tests of the IPVS backend. They run inside user-mode Linux, started by test_uml_proxy.py."""

from __future__ import annotations

import subprocess

import pytest

from integration.proxy.packet_cases import VIP, PacketCases, Rig, slices
from integration.proxy.proxy_lab import PODS, inside
from nodewright_agent.proxy.backends.ipvs.backend import LINK
from nodewright_agent.proxy.cleanup import remove_all
from nodewright_agent.proxy.detect import PROBES, choose
from nodewright_agent.proxy.model import Frontend, Kind, Masquerade, Table, endpoint, frontend_key
from unit.proxy.proxy_objects import service


@pytest.fixture(scope="session", autouse=True)
def modules() -> None:
    subprocess.run(["modprobe", "-a", "ip_vs", "ip_vs_rr", "br_netfilter", "veth", "bridge"], check=True)
    subprocess.run(["modprobe", "dummy", "numdummies=0"], check=True)


def test_auto_chooses_ipvs() -> None:
    choice = choose("auto", PROBES)
    assert choice.mode == "ipvs"
    assert "auto" in choice.reason


class TestIpvs(PacketCases):
    backend = "ipvs"

    def test_drained_destination_is_deleted_when_its_last_connection_ends(self, rig: Rig) -> None:
        rig.put(service(), *slices(11))
        held, _ = rig.lab.connect("client", VIP, 80)
        with held:
            rig.put(*slices(12))
            with inside(rig.lab.path("node")):
                assert rig.backend.upkeep() is not None, "a connection is open: look again later"
            listed = rig.lab.run("node", "ipvsadm", "-Ln")
            assert "10.2.0.11:8080               Masq    0" in listed
            held.sendall(b"still there")
            assert held.recv(100) == b"still there"
        rig.put(*slices(11, 12))
        assert "10.2.0.11:8080               Masq    1" in rig.lab.run("node", "ipvsadm", "-Ln"), "it is back in use"

    def test_idle_destination_goes_at_once(self, rig: Rig) -> None:
        rig.put(service(), *slices(11, 12))
        rig.put(*slices(12))
        with inside(rig.lab.path("node")):
            assert rig.backend.upkeep() is None
        assert "10.2.0.11" not in rig.lab.run("node", "ipvsadm", "-Ln")

    def test_restart_removes_stale_services_and_keeps_foreign_ones(self, rig: Rig) -> None:
        ports = [{"name": "http", "port": 80, "protocol": "TCP", "nodePort": 30080}]
        rig.put(service(ports=ports, type="NodePort"), *slices(*PODS))
        rig.lab.run("node", "ipvsadm", "-A", "-t", "198.51.100.1:80", "-s", "rr")
        with inside(rig.lab.path("node")):
            rig.backend.close()
            rig.backend.open()
            rig.backend.replace(Table({}, frozenset(), frozenset()))
        listed = rig.lab.run("node", "ipvsadm", "-Ln")
        assert VIP not in listed
        assert "30080" not in listed
        assert "198.51.100.1:80" in listed, "not ours"
        rig.lab.run("node", "ipvsadm", "-D", "-t", "198.51.100.1:80")
        with inside(rig.lab.path("node")):
            rig.backend.replace(rig.builder.table())

    def test_verify_finds_changes_by_hand(self, rig: Rig) -> None:
        rig.put(service(), *slices(*PODS))
        rig.lab.run("node", "ipvsadm", "-C")
        rig.lab.run("node", "ip", "addr", "flush", "dev", LINK)
        found = rig.verify()
        assert any("service 10.96.0.10:80/TCP: missing" in line for line in found)
        assert any(LINK in line for line in found)
        with inside(rig.lab.path("node")):
            rig.backend.replace(rig.builder.table())
        assert rig.verify() == []
        assert rig.lab.tcp("client", VIP, 80)

    def test_a_thousand_services_load(self, rig: Rig) -> None:
        frontends = {}
        for number in range(1000):
            key = frontend_key(bytes((10, 97, number >> 8, number & 255)), 6, 80)
            first = 0x0AC80000 + number * 10
            ends = tuple(endpoint((first + n).to_bytes(4, "big"), 8080) for n in range(10))
            frontends[key] = Frontend(Kind.CLUSTER_IP, f"default/s{number}", ends, masquerade=Masquerade.OFF_CLUSTER)
        with inside(rig.lab.path("node")):
            rig.backend.replace(Table(frontends, frozenset(), frozenset()))
        listed = rig.lab.run("node", "ipvsadm", "-Sn").splitlines()
        assert sum(line.startswith("-A") for line in listed) == 1000
        assert sum(line.startswith("-a") for line in listed) == 10_000
        with inside(rig.lab.path("node")):
            rig.backend.replace(rig.builder.table())
        assert rig.lab.run("node", "ipvsadm", "-Sn") == ""

    def test_the_hosts_cleanup_finds_what_a_former_process_left(self, rig: Rig) -> None:
        rig.put(service(), *slices(*PODS))
        rig.backend.close()
        with inside(rig.lab.path("node")):
            removed = remove_all()
            assert "ipset NODEWRIGHT-OFF-CLUSTER" in removed
            assert any(text.startswith("ipvs services") for text in removed)
            assert remove_all() == []
        assert rig.lab.run("node", "ipvsadm", "-Sn") == ""
        assert rig.lab.run("node", "ipset", "list", "-n") == ""
        rig.lab.run("node", "ip", "link", "add", LINK, "type", "dummy")
        with inside(rig.lab.path("node")):
            assert remove_all() == [], "without sets of ours it is kube-proxy's"
        assert LINK in rig.lab.run("node", "ip", "link")
        with inside(rig.lab.path("node")):
            rig.backend.open()
            rig.backend.replace(rig.builder.table())

    def test_cleanup_leaves_nothing(self, rig: Rig) -> None:
        rig.put(service(), *slices(*PODS))
        with inside(rig.lab.path("node")):
            rig.backend.cleanup()
        assert rig.lab.run("node", "ipvsadm", "-Sn") == ""
        assert rig.lab.run("node", "ipset", "list", "-n") == ""
        for table in ("nat", "filter"):
            assert "NODEWRIGHT" not in rig.lab.run("node", "iptables-legacy", "-t", table, "-S")
        assert LINK not in rig.lab.run("node", "ip", "link")
        rig.backend.close()
        with inside(rig.lab.path("node")):
            rig.backend.open()
            rig.backend.replace(rig.builder.table())
