"""Packet tests that every backend has to pass; test classes inherit `PacketCases` and give a `rig`."""

from __future__ import annotations

import socket
import time
from typing import Any

import pytest

from integration.proxy.proxy_lab import BRIDGE, CLIENT, NODE, POD_CIDRS, PODS, Lab, inside, pod_ip
from nodewright_agent.proxy.backends import make_backend
from nodewright_agent.proxy.backends.base import Backend, BackendOptions
from nodewright_agent.proxy.conntrack import Conntrack
from nodewright_agent.proxy.model import Frontend, frontend_key, pack_address
from nodewright_agent.proxy.objects import EndpointSlice, Service
from nodewright_agent.proxy.services import NodeView
from nodewright_agent.proxy.table import TableBuilder
from unit.proxy.proxy_objects import endpoint_slice, ready, service

VIP, VIP6 = "10.96.0.10", "fd00:96::10"
BALANCER = "192.0.2.10"
NODE_PORT = 30080
BOTH = [{"name": "http", "port": 80, "protocol": "TCP"}, {"name": "dns", "port": 53, "protocol": "UDP"}]
BOTH_TARGETS = [{"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "dns", "port": 8080, "protocol": "UDP"}]
EVERYONE = {str(number) for number in PODS}


class Rig:
    """A lab with a backend programming its node, driven by Services and slices."""

    def __init__(self, lab: Lab, backend: str) -> None:
        self.lab = lab
        view = NodeView("here", "zone-a", (pack_address(NODE), pack_address("fd00:1::1")), POD_CIDRS)
        self.builder = TableBuilder(view)
        self.backend: Backend = make_backend(backend, BackendOptions(POD_CIDRS))
        with inside(lab.path("node")):
            self.backend.open()
            self.backend.replace(self.builder.table())
            self.conntrack = Conntrack()
        self._services: dict[str, Service] = {}
        self._slices: dict[str, EndpointSlice] = {}

    def put(self, *objects: Service | EndpointSlice) -> None:
        """Create or change objects, and program the difference."""
        for item in objects:
            if isinstance(item, Service):
                self.builder.set_service(item.key, item)
                self._services[item.key] = item
            else:
                self.builder.set_slice(item.key, self._slices.get(item.key), item)
                self._slices[item.key] = item
        self.sync()

    def sync(self) -> None:
        delta = self.builder.take()
        with inside(self.lab.path("node")):
            self.backend.apply(delta)
        udp: dict[bytes, Frontend] = {key: v for key, v in delta.frontends.items() if v is not None and key[-3] == 17}
        self.conntrack.forget(udp)
        assert self.verify() == []

    def verify(self) -> list[str]:
        with inside(self.lab.path("node")):
            return self.backend.verify()

    def reset(self) -> None:
        """Delete all objects, and forget the flows: the next test's client may get the port of one of them."""
        for key in list(self._services):
            self.builder.set_service(key, None)
        for key, item in list(self._slices.items()):
            self.builder.set_slice(key, item, None)
        self._services.clear()
        self._slices.clear()
        self.sync()
        for vip in (VIP, VIP6):
            self.conntrack.forget_addresses({pack_address(vip)}, ipv6=":" in vip)

    def close(self) -> None:
        with inside(self.lab.path("node")):
            self.backend.cleanup()
        self.backend.close()
        self.conntrack.close()


def slices(*numbers: int, **keywords: Any) -> list[EndpointSlice]:
    """Slices of both families with these pods."""
    return [
        endpoint_slice(*(ready(pod_ip(n)) for n in numbers), ports=BOTH_TARGETS, **keywords),
        endpoint_slice(*(ready(pod_ip(n, True)) for n in numbers), ports=BOTH_TARGETS, family="IPv6", **keywords),
    ]


class PacketCases:
    """Behaviour of Services as clients see it."""

    backend = ""

    @pytest.fixture(scope="class")
    @classmethod
    def lab_rig(cls) -> Any:
        lab = Lab()
        try:
            for number in PODS:
                lab.serve(number)
            rig = Rig(lab, cls.backend)
            try:
                yield rig
            finally:
                rig.close()
        finally:
            lab.close()

    @pytest.fixture
    def rig(self, lab_rig: Rig) -> Any:
        yield lab_rig
        lab_rig.reset()

    @pytest.mark.parametrize("vip", [VIP, VIP6])
    @pytest.mark.parametrize("protocol", ["tcp", "udp"])
    def test_client_reaches_every_backend(self, rig: Rig, vip: str, protocol: str) -> None:
        rig.put(service(ports=BOTH, clusterIPs=[VIP, VIP6]), *slices(*PODS))
        port = 80 if protocol == "tcp" else 53
        assert set(rig.lab.servers_seen("client", vip, port, 40, protocol)) == EVERYONE

    def test_node_reaches_every_backend(self, rig: Rig) -> None:
        rig.put(service(ports=BOTH), *slices(*PODS))
        assert set(rig.lab.servers_seen("node", VIP, 80, 40)) == EVERYONE
        assert set(rig.lab.servers_seen("node", VIP, 53, 40, "udp")) == EVERYONE

    def test_pod_reaches_every_backend_and_itself(self, rig: Rig) -> None:
        rig.put(service(ports=BOTH), *slices(*PODS))
        answers = {rig.lab.tcp("pod11", VIP, 80) for _ in range(40)}
        assert {answer.split()[0] for answer in answers} == EVERYONE
        sources = {tuple(answer.split()) for answer in answers}
        assert ("12", pod_ip(11)) in sources, "a pod's address must be kept towards other pods"
        assert ("11", pod_ip(11)) not in sources, "a pod must not see itself as its client"

    def test_clients_from_outside_are_masqueraded(self, rig: Rig) -> None:
        rig.put(service(), *slices(11))
        assert rig.lab.tcp("client", VIP, 80) == f"11 {BRIDGE}"

    def test_no_endpoints_is_refused_at_once(self, rig: Rig) -> None:
        rig.put(service(ports=BOTH, clusterIPs=[VIP, VIP6]))
        for vip in (VIP, VIP6):
            with pytest.raises(ConnectionRefusedError):
                rig.lab.tcp("client", vip, 80)
        with pytest.raises(ConnectionRefusedError):
            rig.lab.tcp("node", VIP, 80)
        with pytest.raises(ConnectionRefusedError):
            rig.lab.udp("client", VIP, 53)
        rig.put(*slices(12))
        assert rig.lab.tcp("client", VIP, 80).split()[0] == "12"

    def test_affinity_keeps_a_client_until_its_endpoint_goes(self, rig: Rig) -> None:
        sticky: dict[str, Any] = {"sessionAffinity": "ClientIP"}
        rig.put(service(ports=BOTH, **sticky), *slices(*PODS))
        first = rig.lab.servers_seen("client", VIP, 80, 12)
        assert len(first) == 1
        gone = next(iter(first))
        rig.put(*slices(*(number for number in PODS if str(number) != gone)))
        second = rig.lab.servers_seen("client", VIP, 80, 12)
        assert len(second) == 1
        assert gone not in second
        rig.put(service(ports=BOTH))
        assert len(rig.lab.servers_seen("client", VIP, 80, 40)) == 2

    def test_node_port(self, rig: Rig) -> None:
        ports = [{"name": "http", "port": 80, "protocol": "TCP", "nodePort": NODE_PORT}]
        rig.put(service(ports=ports, type="NodePort", externalTrafficPolicy="Cluster"), *slices(*PODS))
        assert set(rig.lab.servers_seen("client", NODE, NODE_PORT, 40)) == EVERYONE
        assert rig.lab.tcp("client", NODE, NODE_PORT).split()[1] == BRIDGE
        assert rig.lab.tcp("node", NODE, NODE_PORT).split()[0] in EVERYONE

    def test_external_policy_local_keeps_the_source(self, rig: Rig) -> None:
        ports = [{"name": "http", "port": 80, "protocol": "TCP", "nodePort": NODE_PORT}]
        local = service(ports=ports, type="NodePort", externalTrafficPolicy="Local")
        rig.put(local, endpoint_slice(ready(pod_ip(11)), ready(pod_ip(12), "elsewhere")))
        assert {rig.lab.tcp("client", NODE, NODE_PORT) for _ in range(12)} == {f"11 {CLIENT}"}

    def test_external_policy_local_without_local_endpoints_is_silent(self, rig: Rig) -> None:
        ports = [{"name": "http", "port": 80, "protocol": "TCP", "nodePort": NODE_PORT}]
        local = service(ports=ports, type="NodePort", externalTrafficPolicy="Local")
        rig.put(local, endpoint_slice(ready(pod_ip(12), "elsewhere")))
        with pytest.raises(TimeoutError):
            rig.lab.tcp("client", NODE, NODE_PORT, timeout=1.0)
        assert rig.lab.tcp("pod11", NODE, NODE_PORT).split()[0] == "12", "pods are inside: they get other endpoints"

    def test_internal_policy_local_without_local_endpoints_is_silent(self, rig: Rig) -> None:
        rig.put(service(internalTrafficPolicy="Local"), endpoint_slice(ready(pod_ip(12), "elsewhere")))
        with pytest.raises(TimeoutError):
            rig.lab.tcp("client", VIP, 80, timeout=1.0)

    def test_balancer_with_source_ranges(self, rig: Rig) -> None:
        def balanced(*ranges: str) -> Service:
            return service(type="LoadBalancer", ingress=[{"ip": BALANCER}], loadBalancerSourceRanges=list(ranges))

        rig.put(balanced("203.0.113.0/24"), *slices(*PODS))
        with pytest.raises(TimeoutError):
            rig.lab.tcp("client", BALANCER, 80, timeout=1.0)
        rig.put(balanced("203.0.113.0/24", "10.1.0.0/30"))
        assert rig.lab.tcp("client", BALANCER, 80).split()[0] in EVERYONE

    def test_removed_endpoint_gets_nothing_new_and_keeps_what_it_has(self, rig: Rig) -> None:
        rig.put(service(), *slices(11))
        held, greeting = rig.lab.connect("client", VIP, 80)
        with held:
            assert greeting.split()[0] == "11"
            rig.put(*slices(12, 13))
            assert set(rig.lab.servers_seen("client", VIP, 80, 30)) == {"12", "13"}
            held.sendall(b"still there")
            assert held.recv(100) == b"still there"

    def test_udp_flow_moves_to_a_live_endpoint(self, rig: Rig) -> None:
        rig.put(service(ports=BOTH), *slices(11))
        with rig.lab.udp_socket("client", VIP, 53) as sock:
            sock.send(b"?")
            assert sock.recv(100).split()[0] == b"11"
            rig.put(*slices(12))
            sock.send(b"?")
            assert sock.recv(100).split()[0] == b"12"

    def test_same_port_in_two_protocols(self, rig: Rig) -> None:
        ports = [{"name": "t", "port": 53, "protocol": "TCP"}, {"name": "u", "port": 53, "protocol": "UDP"}]
        targets = [{"name": "t", "port": 8080, "protocol": "TCP"}, {"name": "u", "port": 8080, "protocol": "UDP"}]
        rig.put(service(ports=ports), endpoint_slice(ready(pod_ip(11)), ready(pod_ip(12)), ports=targets))
        assert set(rig.lab.servers_seen("client", VIP, 53, 30)) == {"11", "12"}
        assert set(rig.lab.servers_seen("client", VIP, 53, 30, "udp")) == {"11", "12"}

    def test_connections_are_counted(self, rig: Rig) -> None:
        rig.put(service(), *slices(*PODS))
        for _ in range(5):
            rig.lab.tcp("client", VIP, 80)
        key = frontend_key(pack_address(VIP), 6, 80)
        deadline = time.monotonic() + 10  # IPVS adds up every two seconds
        while time.monotonic() < deadline:
            if rig.backend.counters()[key].connections >= 5:
                break
            time.sleep(0.2)
        assert rig.backend.counters()[key].connections == 5

    def test_deleted_service_is_gone(self, rig: Rig) -> None:
        rig.put(service(), *slices(*PODS))
        assert rig.lab.tcp("client", VIP, 80)
        rig.reset()
        with pytest.raises((TimeoutError, OSError)):
            rig.lab.tcp("client", VIP, 80, timeout=1.0)
        assert rig.backend.counters() == {}

    def test_replace_takes_over_what_is_there(self, rig: Rig) -> None:
        rig.put(service(), *slices(11))
        held, _ = rig.lab.connect("client", VIP, 80)
        with held:
            with inside(rig.lab.path("node")):
                rig.backend.replace(rig.builder.table())
            assert rig.verify() == []
            held.sendall(b"still there")
            assert held.recv(100) == b"still there"
        assert isinstance(held, socket.socket)
