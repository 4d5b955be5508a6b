"""Probes of every kind against real containers and servers: what they decide, and what is told of them."""

from typing import Any

import pytest

from support.agent_node import IMAGE, wait_until
from support.pod_lab import STAY, PodLab, main_status, restarts
from support.probe_server import ProbeServer

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_cluster]


def ready(pod: Any) -> bool:
    return any(one.type == "Ready" and one.status == "True" for one in pod.status.conditions or [])


def test_grpc_probes_follow_the_server(lab: PodLab) -> None:
    with ProbeServer() as server:
        grpc = {"grpc": {"port": server.port, "service": "web"}, "periodSeconds": 1, "failureThreshold": 1}
        probes = {"readinessProbe": grpc, "livenessProbe": grpc | {"failureThreshold": 1000}}
        lab.create("grpc", container=probes, hostNetwork=True)
        lab.wait("grpc", "ready", ready)
        assert any(b"/grpc.health.v1.Health/Check" in request for request in server.requests)
        server.status = 2
        lab.wait("grpc", "not ready", lambda pod: not ready(pod))
        lab.wait_event("grpc", "Unhealthy", 'Readiness probe failed: service unhealthy (responded with "NOT_SERVING")')
        text = lab.ask_node("metrics/probes")
        labels = f'container="main",namespace="{lab.namespace}",pod="grpc"'
        assert f"prober_probe_total{{{labels}" in text
        assert 'probe_type="Liveness",result="failed"' in text


def test_http_probes_as_kubelet_sends_them(lab: PodLab) -> None:
    with ProbeServer() as server:
        headers = [{"name": "Host", "value": "example.com"}]
        get = {"port": server.port, "path": "/health?full=1", "httpHeaders": headers}
        lab.create("http", container={"readinessProbe": {"httpGet": get, "periodSeconds": 1}}, hostNetwork=True)
        lab.wait("http", "ready", ready)
        request = server.requests[0].decode()
        assert request.startswith("GET /health?full=1 HTTP/1.1\r\nHost: example.com\r\n")
        assert "User-Agent: kube-probe/1.36\r\n" in request
        server.reply = b"HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\nContent-Length: 4\r\n\r\naway"
        lab.wait_event(
            "http", "ProbeWarning", "Readiness probe warning: Probe terminated redirects, Response body: away"
        )
        assert ready(lab.get("http"))


def test_startup_liveness_and_their_graces(lab: PodLab) -> None:
    fails = {"exec": {"command": ["/bin/false"]}, "periodSeconds": 1, "failureThreshold": 1}
    stubborn = ["/bin/sh", "-c", "trap '' TERM; while :; do sleep 1; done"]
    grace = {"terminationGracePeriodSeconds": 1}
    lab.create("killed", stubborn, container={"startupProbe": fails | grace}, terminationGracePeriodSeconds=600)
    slow = {"exec": {"command": ["/bin/sleep", "100"]}, "periodSeconds": 1, "failureThreshold": 1}
    lab.create("late", STAY, container={"livenessProbe": slow | grace}, restartPolicy="Never")
    odd = {"exec": {"command": ["/no/such/command"]}, "periodSeconds": 1, "failureThreshold": 1}
    lab.create("odd", container={"livenessProbe": odd})
    started = {"exec": {"command": ["/bin/true"]}, "initialDelaySeconds": 2, "periodSeconds": 10}
    then = {"exec": {"command": ["/bin/true"]}, "periodSeconds": 600}
    lab.create("gated", container={"startupProbe": started, "readinessProbe": then})
    pod = lab.wait_phase("gated", "Running")
    assert (main_status(pod).started, main_status(pod).ready) == (False, False)
    lab.wait("gated", "ready", lambda pod: main_status(pod).started and ready(pod))
    lab.wait("killed", "a restart", lambda pod: restarts(pod) >= 1)
    lab.wait_event("killed", "Killing", "Container main failed startup probe, will be restarted")
    lab.wait_phase("late", "Succeeded")  # its handler ends it with 0
    lab.wait_event("late", "Killing", "Container main failed liveness probe")
    lab.wait_event("late", "Unhealthy", 'Liveness probe failed: command timed out: "/bin/sleep 100" timed out after 1s')
    lab.wait_event("odd", "Unhealthy", "Liveness probe errored and resulted in unknown state: ")
    assert restarts(lab.get("odd")) == 0
    lab.delete("killed", grace=0)


def test_sidecars_and_readiness_gates_hold_a_pod_back(lab: PodLab) -> None:
    mount = [{"name": "data", "mountPath": "/data"}]
    probe = {"exec": {"command": ["/bin/cat", "/data/ready"]}, "periodSeconds": 1}
    side = {
        "name": "side",
        "image": IMAGE,
        "command": ["/bin/sh", "-c", "sleep 2; touch /data/ready; sleep 1000"],
        "restartPolicy": "Always",
        "readinessProbe": probe,
        "volumeMounts": mount,
    }
    lab.create(
        "held",
        initContainers=[side],
        volumes=[{"name": "data", "emptyDir": {}}],
        readinessGates=[{"conditionType": "example.com/open"}],
    )
    pod = lab.wait("held", "its main container ready", lambda p: p.status.container_statuses and main_status(p).ready)
    assert not ready(pod)

    def reason(pod: Any) -> str:
        return {one.type: one.reason for one in pod.status.conditions}["Ready"] or ""

    lab.wait("held", "held back by its gate", lambda pod: reason(pod) == "ReadinessGatesNotReady")
    gate = {"status": {"conditions": [{"type": "example.com/open", "status": "True"}]}}
    lab.api.patch_namespaced_pod_status("held", lab.namespace, gate)
    lab.wait("held", "ready", ready)
    wait_until("the sidecar counts", lambda: lab.get("held").status.init_container_statuses[0].ready)
