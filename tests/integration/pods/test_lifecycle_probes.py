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


def test_probes_and_hooks_of_sidecars(lab: PodLab) -> None:
    """A sidecar is restarted as a main container is, and holds nothing back that it should not."""
    mounts = [{"name": "data", "mountPath": "/data"}]

    def side(name: str, **more: Any) -> dict[str, Any]:
        # What its probe looks for is there in its second run.
        script = f"test -e /data/{name} && touch /data/{name}.well; touch /data/{name}; trap 'exit 0' TERM; "
        command = ["/bin/sh", "-c", script + "sleep 1000000 & wait $!"]
        return {
            "name": name,
            "image": IMAGE,
            "command": command,
            "restartPolicy": "Always",
            "volumeMounts": mounts,
        } | more

    def until(name: str, **more: Any) -> dict[str, Any]:
        command = {"exec": {"command": ["/bin/cat", f"/data/{name}.well"]}}
        return command | {"periodSeconds": 1, "failureThreshold": 1, "terminationGracePeriodSeconds": 1} | more

    with ProbeServer() as server:
        hooks = {
            "postStart": {"exec": {"command": ["/bin/touch", "/data/hooked.well"]}},
            "preStop": {"httpGet": {"port": server.port, "path": "/bye", "host": "127.0.0.1"}},
        }
        ready_after_hook = until("hooked")
        del ready_after_hook["terminationGracePeriodSeconds"]
        lab.create(
            "sides",
            initContainers=[
                side("begins", startupProbe=until("begins")),
                side("lives", livenessProbe=until("lives")),
                side("hooked", lifecycle=hooks, readinessProbe=ready_after_hook),
            ],
            volumes=[{"name": "data", "emptyDir": {}}],
            terminationGracePeriodSeconds=30,
        )
        lab.wait_event("sides", "Killing", "Init container begins failed startup probe, will be restarted")
        lab.wait_event("sides", "Killing", "Init container lives failed liveness probe, will be restarted")

        def well(pod: Any) -> bool:
            sides = {one.name: one for one in pod.status.init_container_statuses or []}
            return ready(pod) and all(one.started and one.ready for one in sides.values())

        pod = lab.wait("sides", "all ready", well)
        counts = {one.name: one.restart_count for one in pod.status.init_container_statuses}
        assert counts == {"begins": 1, "lives": 1, "hooked": 0}
        assert restarts(pod) == 0
        lab.delete("sides")
        lab.wait_gone("sides")
        (request,) = server.requests
    assert request.startswith(b"GET /bye HTTP/1.1")


def test_a_pod_that_is_being_deleted_is_judged_by_readiness_alone(lab: PodLab) -> None:
    """While its hook runs it becomes not ready; what it is no more able to do does not have it restarted."""
    stays = {
        "exec": {"command": ["/bin/sh", "-c", "! test -e /data/leaving"]},
        "periodSeconds": 1,
        "failureThreshold": 1,
    }
    leave = {"preStop": {"exec": {"command": ["/bin/sh", "-c", "touch /data/leaving; sleep 1000"]}}}
    mounts = [{"name": "data", "mountPath": "/data"}]
    side = {"name": "side", "image": IMAGE, "command": STAY, "restartPolicy": "Always", "volumeMounts": mounts}
    lab.create(
        "leaves",
        container={"livenessProbe": stays, "readinessProbe": stays, "lifecycle": leave, "volumeMounts": mounts},
        initContainers=[side | {"livenessProbe": stays, "readinessProbe": stays}],
        volumes=[{"name": "data", "emptyDir": {}}],
        terminationGracePeriodSeconds=600,
    )
    lab.wait("leaves", "ready", ready)
    lab.delete("leaves")

    def judged(pod: Any) -> bool:
        both = [*pod.status.container_statuses, *pod.status.init_container_statuses]
        return not ready(pod) and not any(one.ready for one in both)

    pod = lab.wait("leaves", "not ready", judged)
    both = [*pod.status.container_statuses, *pod.status.init_container_statuses]
    assert pod.metadata.deletion_timestamp is not None
    assert all(one.state.running is not None and one.restart_count == 0 for one in both)
    assert not [text for _, reason, text in lab.events("leaves") if "iveness probe" in text or reason == "BackOff"]
    lab.delete("leaves", grace=1)
    lab.wait_gone("leaves")
