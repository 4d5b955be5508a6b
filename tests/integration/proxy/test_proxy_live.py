"""The `nodewright proxy` program against a real API server, in a node of its own."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from integration.proxy.port_forward import PortForward
from integration.proxy.proxy_lab import BRIDGE, NODE, PODS, Lab, inside, pod_ip

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_cluster]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    made = Lab()
    try:
        for number in PODS:
            made.serve(number)
        yield made
    finally:
        made.close()


class Program:
    """The proxy as a process in the lab's node."""

    def __init__(self, lab: Lab, kubeconfig: Path, log: Path) -> None:
        self.lab, self._kubeconfig, self._log = lab, kubeconfig, log
        self._process: subprocess.Popen[bytes] | None = None

    def arguments(self, *more: str) -> list[str]:
        inner = [sys.executable, "-c", "from nodewright.cli.main import run; run()", "proxy"]
        inner += ["--kubeconfig", str(self._kubeconfig), "--node-name", "lab-node", *more]
        return ["nsenter", f"--net={self.lab.path('node')}", "--", *inner]

    def start(self, *more: str, node_ip: bool = True) -> None:
        options = ("--cluster-cidr", "10.2.0.0/24,fd00:2::/64", "-v", *more)
        options += ("--local-node", "lab-node-nodewright", "--routes")
        options += ("--node-ip", NODE) if node_ip else ()
        with self._log.open("ab") as stream:
            self._process = subprocess.Popen(self.arguments(*options), stdout=stream, stderr=stream)

    def stop(self, *, kill: bool = False) -> int:
        assert self._process is not None
        if kill:
            self._process.kill()
        else:
            self._process.terminate()
        return self._process.wait(20)

    def get(self, address: str, port: int, path: str, namespace: str = "node") -> tuple[int, str]:
        connection = HTTPConnection(address, port, timeout=5)
        with inside(self.lab.path(namespace)):
            connection.connect()
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    @property
    def log(self) -> str:
        return self._log.read_text()


@pytest.fixture
def program(lab: Lab, cluster: Any, tmp_path: Path) -> Iterator[Program]:
    port = urlsplit(json.loads(_view(cluster.kubeconfig))["server"]).port
    forward = PortForward(lab.path("node"), port or 443)
    made = Program(lab, cluster.kubeconfig, tmp_path / "proxy.log")
    made.start()
    try:
        yield made
    except BaseException:
        print(made.log)
        raise
    finally:
        made.stop(kill=True)
        subprocess.run(made.arguments("--cleanup"), check=True, capture_output=True)
        forward.close()


def _view(kubeconfig: Path) -> str:
    from nodewright.kube.config import load

    return json.dumps({"server": load(kubeconfig).server})


def eventually(check: Callable[[], Any], what: str, log: Callable[[], str]) -> Any:
    deadline, last = time.monotonic() + 30, ""
    while True:
        try:
            found = check()
        except OSError as error:
            found, last = None, str(error)
        if found:
            return found
        assert time.monotonic() < deadline, f"{what} {last}\n{log()}"
        time.sleep(0.05)


def put_service(kubectl: Callable[..., str], namespace: str, name: str, *pods: int, labels: Any = None) -> str:
    """Create a Service with a slice by hand; gives its ClusterIP."""
    meta = {"name": name, "namespace": namespace}
    ports = [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}]
    apply_slice(kubectl, namespace, name, *pods)
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {**meta, "labels": labels or {}}}
    kubectl("apply", "-f", "-", stdin=json.dumps({**service, "spec": {"ports": ports}}))
    return kubectl("get", "service", name, "-n", namespace, "-o", "jsonpath={.spec.clusterIP}")


def apply_slice(kubectl: Callable[..., str], namespace: str, name: str, *pods: int) -> None:
    document = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": namespace, "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [pod_ip(pod)], "nodeName": "lab-node"} for pod in pods],
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    }
    kubectl("apply", "-f", "-", stdin=json.dumps(document))


def test_services_of_a_real_cluster(program: Program, lab: Lab, kubectl: Callable[..., str], namespace: str) -> None:
    address = put_service(kubectl, namespace, "web", *PODS)
    eventually(lambda: lab.tcp("client", address, 80, timeout=1), "first answer", lambda: program.log)
    assert set(lab.servers_seen("client", address, 80, 40)) == {str(number) for number in PODS}
    assert set(lab.servers_seen("node", address, 80, 40)) == {str(number) for number in PODS}
    apply_slice(kubectl, namespace, "web", 12)
    eventually(
        lambda: set(lab.servers_seen("client", address, 80, 20)) == {"12"}, "follows the slice", lambda: program.log
    )
    elsewhere = put_service(
        kubectl, namespace, "foreign", 11, labels={"service.kubernetes.io/service-proxy-name": "somebody"}
    )
    third = put_service(kubectl, namespace, "later", 11)
    eventually(lambda: lab.tcp("client", third, 80, timeout=1), "a later service", lambda: program.log)
    assert not _answers(lab, elsewhere), "that is another proxy's"
    kubectl("delete", "service", "later", "-n", namespace)
    eventually(lambda: not _answers(lab, third), "the deleted service is gone", lambda: program.log)


def _answers(lab: Lab, address: str) -> bool:
    try:
        lab.tcp("client", address, 80, timeout=1)
    except OSError:
        return False
    return True


def test_health_metrics_and_the_event(program: Program, lab: Lab, kubectl: Callable[..., str]) -> None:
    status, text = eventually(lambda: program.get(NODE, 10256, "/healthz", "client"), "healthz", lambda: program.log)
    assert status == 200
    assert "lastUpdated" in text
    assert program.get("127.0.0.1", 10249, "/proxyMode") == (200, "nftables")
    eventually(
        lambda: (
            "kubeproxy_sync_full_proxy_rules_duration_seconds_count 1.0"
            in program.get("127.0.0.1", 10249, "/metrics")[1]
        ),
        "a full sync",
        lambda: program.log,
    )
    assert 'service="default/kubernetes:https"' in program.get("127.0.0.1", 10249, "/metrics")[1]

    def event() -> Any:
        listed = json.loads(kubectl("get", "events", "-n", "default", "-o", "json"))["items"]
        return [item for item in listed if item["reason"] == "ProxyModeChosen"]

    message = eventually(event, "event", lambda: program.log)[0]
    assert message["involvedObject"]["name"] == "lab-node"
    assert "ipvs" in message["message"]


def test_rules_outlive_the_process_and_cleanup_removes_them(
    program: Program, lab: Lab, kubectl: Callable[..., str], namespace: str
) -> None:
    address = put_service(kubectl, namespace, "web", 11)
    eventually(lambda: lab.tcp("client", address, 80, timeout=1), "first answer", lambda: program.log)
    held, _ = lab.connect("client", address, 80)
    with held:
        assert program.stop() == 0, program.log
        assert lab.tcp("client", address, 80)
        apply_slice(kubectl, namespace, "web", 13)
        program.start()
        eventually(
            lambda: lab.tcp("client", address, 80, timeout=1).split()[0] == "13", "caught up", lambda: program.log
        )
        held.sendall(b"still there")
        assert held.recv(100) == b"still there"
    program.stop(kill=True)
    subprocess.run(program.arguments("--cleanup"), check=True, capture_output=True)
    assert "nodewright" not in lab.run("node", "nft", "list", "tables")
    program.start()


def put_agent_node(kubectl: Callable[..., str], name: str, cidr: str, address: str) -> None:
    """Register a Node as an agent beside a kubelet does."""
    meta = {"name": name, "labels": {"nodewright.dev/agent": "true"}}
    node = {"apiVersion": "v1", "kind": "Node", "metadata": meta, "spec": {"podCIDR": cidr}}
    kubectl("create", "-f", "-", stdin=json.dumps(node))
    status = {"addresses": [{"type": "ExternalIP", "address": address}]}
    kubectl("patch", "node", name, "--subresource=status", "-p", json.dumps({"status": status}))


def test_routes_follow_the_nodes_of_agents(program: Program, lab: Lab, kubectl: Callable[..., str]) -> None:
    def routes() -> list[str]:
        return [line.strip() for line in lab.run("node", "ip", "route").splitlines() if "proto 78" in line]

    names = ("routed", "lab-node-nodewright")
    try:
        put_agent_node(kubectl, "routed", "10.77.1.0/24", "10.1.0.2")
        put_agent_node(kubectl, "lab-node-nodewright", "10.77.2.0/24", NODE)
        wanted = ["10.77.1.0/24 via 10.1.0.2 dev out proto 78"]
        eventually(lambda: routes() == wanted, "the route of the other node, none to this one", lambda: program.log)
        lab.run("node", "ip", "route", "del", "10.77.1.0/24")
        eventually(lambda: routes() == wanted, "a route removed by hand comes back", lambda: program.log)
        text = program.get("127.0.0.1", 10249, "/metrics")[1]
        assert 'nodewright_proxy_routes{state="set"} 1.0' in text
        kubectl("delete", "node", "routed")
        eventually(lambda: routes() == [], "the node is gone", lambda: program.log)
    finally:
        kubectl("delete", "node", *names, "--ignore-not-found")


def test_endpoints_of_the_other_node_of_this_host_are_local(
    program: Program, lab: Lab, kubectl: Callable[..., str], namespace: str
) -> None:
    address = put_service(kubectl, namespace, "near", 11)
    for node, answers in (("lab-node-nodewright", True), ("elsewhere", False)):
        slices = json.loads(kubectl("get", "endpointslice", "near", "-n", namespace, "-o", "json"))
        slices["endpoints"][0]["nodeName"] = node
        kubectl("replace", "-f", "-", stdin=json.dumps(slices))
        kubectl("patch", "service", "near", "-n", namespace, "-p", '{"spec":{"internalTrafficPolicy":"Local"}}')
        eventually(lambda wanted=answers: _answers(lab, address) is wanted, node, lambda: program.log)


def test_node_ports_follow_the_addresses_of_the_host(
    program: Program, lab: Lab, kubectl: Callable[..., str], namespace: str
) -> None:
    program.stop()
    program.start("--nodeport-addresses", "10.1.0.0/16,10.66.0.0/16", node_ip=False)
    put_service(kubectl, namespace, "ported", 11)
    kubectl("patch", "service", "ported", "-n", namespace, "-p", '{"spec":{"type":"NodePort"}}')
    port = int(kubectl("get", "service", "ported", "-n", namespace, "-o", "jsonpath={.spec.ports[0].nodePort}"))

    def answers(address: str) -> Callable[[], str]:
        return lambda: lab.tcp("client", address, port, timeout=1)

    eventually(answers(NODE), "the address inside", lambda: program.log)
    with pytest.raises(OSError):  # noqa: PT011 - refused or timed out: nobody is there
        lab.tcp("client", BRIDGE, port, timeout=1)
    lab.run("node", "ip", "addr", "add", "10.66.0.1/32", "dev", "lo")
    try:
        eventually(answers("10.66.0.1"), "an address that came later", lambda: program.log)
    finally:
        lab.run("node", "ip", "addr", "del", "10.66.0.1/32", "dev", "lo")


def test_a_second_proxy_waits_and_takes_over(
    program: Program, lab: Lab, cluster: Any, tmp_path: Path, kubectl: Callable[..., str], namespace: str
) -> None:
    address = put_service(kubectl, namespace, "held", 11)
    eventually(lambda: lab.tcp("client", address, 80, timeout=1), "first answer", lambda: program.log)
    second = Program(lab, cluster.kubeconfig, tmp_path / "second.log")
    second.start()
    try:
        eventually(lambda: "takes over when that ends" in second.log, "it says so", lambda: second.log)
        apply_slice(kubectl, namespace, "held", 12)
        eventually(
            lambda: lab.tcp("client", address, 80, timeout=1).split()[0] == "12", "the first", lambda: program.log
        )
        assert "nodewright_proxy_rules_restored_total 0.0" in program.get("127.0.0.1", 10249, "/metrics")[1]
        program.stop(kill=True)
        apply_slice(kubectl, namespace, "held", 13)
        eventually(
            lambda: lab.tcp("client", address, 80, timeout=1).split()[0] == "13", "the second", lambda: second.log
        )
        assert second.stop() == 0, second.log
    finally:
        second.stop(kill=True)


def test_a_port_in_use_ends_with_a_hint(lab: Lab, cluster: Any, tmp_path: Path) -> None:
    program = Program(lab, cluster.kubeconfig, tmp_path / "log")
    with inside(lab.path("node")):
        taken = socket.create_server(("0.0.0.0", 10256))
    with taken:
        result = subprocess.run(program.arguments(), capture_output=True, text=True, timeout=30)
    assert result.returncode == 1
    assert "10256" in result.stderr
    assert "hint: choose --healthz-port" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_mode_that_cannot_work_ends_with_a_hint(lab: Lab, cluster: Any, tmp_path: Path) -> None:
    program = Program(lab, cluster.kubeconfig, tmp_path / "log")
    for mode, reason in (("iptables", "no iptables backend"), ("ipvs", "ip_vs")):
        result = subprocess.run(program.arguments("--proxy-mode", mode), capture_output=True, text=True, timeout=30)
        assert result.returncode == 3
        assert reason in result.stderr
        assert "hint: " in result.stderr
        assert "Traceback" not in result.stderr
