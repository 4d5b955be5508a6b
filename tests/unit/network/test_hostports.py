"""Which ports of the host a Pod wants, and who is in whose way."""

import pytest

from nodewright_agent.network import hostports
from nodewright_agent.network.addresses import NetworkError
from nodewright_agent.network.hostports import HostPorts, PortMapping, conflict, mappings, table_text
from nodewright_agent.pods.admission import admit
from unit.pods.pod_doubles import make_pod


def pod(*ports, **spec):
    return make_pod({"name": "a", "ports": list(ports)}, **spec)


def port(number=80, **more):
    return {"containerPort": 8080, "hostPort": number, **more}


def test_containers_and_sidecars_have_host_ports_and_nobody_in_the_hosts_network():
    sidecar = {"name": "s", "restartPolicy": "Always", "ports": [port(81, protocol="UDP", hostIP="10.0.0.1")]}
    first = {"name": "i", "ports": [port(82)]}
    made = mappings(pod(port(), {"containerPort": 90}, init=[sidecar, first]), "10.1.1.1")
    assert made == [
        PortMapping("udp", "10.0.0.1", 81, "10.1.1.1", 8080),
        PortMapping("tcp", "", 80, "10.1.1.1", 8080),
    ]
    assert mappings(pod(port(), hostNetwork=True), "10.1.1.1") == []


@pytest.mark.parametrize(("address", "told"), [("::1", "IPv4 addresses only"), ("x; drop", "no IP address")])
def test_addresses_that_cannot_be(address, told):
    with pytest.raises(NetworkError, match=told):
        mappings(pod(port(hostIP=address)), "10.1.1.1")


@pytest.mark.parametrize(
    ("one", "other", "taken"),
    [
        (port(), port(), True),
        (port(), port(81), False),
        (port(), port(protocol="UDP"), False),
        (port(hostIP="10.0.0.1"), port(hostIP="10.0.0.2"), False),
        (port(hostIP="10.0.0.1"), port(hostIP="10.0.0.1"), True),
        (port(hostIP="10.0.0.1"), port(), True),
        (port(hostIP="0.0.0.0"), port(hostIP="127.0.0.1"), True),
        ({"containerPort": 80}, {"containerPort": 80}, False),
    ],
)
def test_conflicts(one, other, taken):
    assert conflict(pod(one), [pod(other)]) is taken
    assert conflict(pod(other), [pod(one)]) is taken


def test_a_refused_pod_is_told_so_in_kubelets_words():
    text = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"
    assert admit(pod(port()), [pod(port(), hostNetwork=True)], {"pods": "9"}, {}, "n") == ("NodePorts", text)


def test_a_port_twice_does_not_break_the_table():
    """Two Pods with one port are not admitted; if they were, the others' ports must not suffer."""
    wanted = [PortMapping("tcp", "", 80, "10.1.1.1", 1), PortMapping("tcp", "", 80, "10.1.1.2", 1)]
    text = table_text(wanted, "br", ["10.0.0.1", "127.0.0.1", "fe80::1"])
    assert "elements = { tcp . 80 : 10.1.1.1 . 1 }" in text
    assert "elements = { 127.0.0.0/8, 10.0.0.1 }" in text


def test_ports_that_could_not_be_closed_are_closed_by_the_next_try(tmp_path, monkeypatch):
    told = []

    def apply(self):
        told.append(sorted(self._by_pod))
        if len(told) == 2:
            raise NetworkError("nft takes too long")

    monkeypatch.setattr(HostPorts, "_apply", apply)
    monkeypatch.setattr(hostports, "_forget_flows", lambda ports: None)
    ports = HostPorts(tmp_path, "bridge")
    ports.publish("uid", mappings(pod(port()), "10.1.2.3"))
    with pytest.raises(NetworkError):
        ports.withdraw("uid")
    ports.withdraw("uid")
    assert told == [["uid"], [], []]
    assert not list(tmp_path.glob("*.json"))
