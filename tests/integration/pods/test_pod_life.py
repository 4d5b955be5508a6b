"""A Pod's life on a real node: real API server, runc, namespaces and links."""

from pathlib import Path
from typing import Any

import pytest
from kubernetes import client

from support.agent_node import IMAGE, wait_until
from support.pod_lab import STAY, PodLab, main_status, restarts

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_cluster]


def test_runs_with_everything_a_status_tells(lab: PodLab) -> None:
    lab.create("a", ["/bin/sh", "-c", "hostname; cat /etc/hosts; cat /etc/resolv.conf; env; echo done; sleep 1000"])
    pod = lab.wait_phase("a", "Running")
    status = main_status(pod)
    assert status.ready
    assert status.started
    assert status.restart_count == 0
    assert status.container_id.startswith("nodewright://")
    assert status.image == IMAGE
    assert status.image_id
    assert status.state.running.started_at is not None
    assert pod.status.pod_ip.startswith("10.222.7.")
    assert pod.status.host_ip == "127.0.0.1"
    assert pod.status.start_time is not None
    assert pod.status.qos_class == "BestEffort"
    assert {c.type: c.status for c in pod.status.conditions} == dict.fromkeys(
        ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"], "True"
    )
    lab.wait("a", "its log", lambda _: "done" in lab.logs("a"))
    text = lab.logs("a")
    assert text.startswith("a\n")
    assert "# Kubernetes-managed hosts file.\n" in text
    assert f"{pod.status.pod_ip}\ta\n" in text
    assert "HOSTNAME=a\n" in text
    assert "KUBERNETES_SERVICE_HOST=" in text
    lab.wait_event("a", "Started", "Container started")
    assert {reason for _, reason, _ in lab.events("a")} >= {"Pulled", "Created", "Started"}


def test_logs_are_linked_where_log_collectors_look(lab: PodLab) -> None:
    links = Path(lab.node.settings["log_links_dir"])
    lab.create("twice", ["/bin/sh", "-c", "echo told; exit 1"], restartPolicy="OnFailure")
    pod = lab.wait("twice", "its second run", lambda pod: restarts(pod) >= 1)
    runs = {one.name: one.read_text() for one in links.glob(f"twice_{lab.namespace}_main-*.log")}
    newest = (main_status(pod).last_state.terminated or main_status(pod).state.terminated).container_id
    assert "told" in runs[f"twice_{lab.namespace}_main-{newest.removeprefix('nodewright://')}.log"]
    lab.delete("twice")
    wait_until("the links go with the logs", lambda: not list(links.glob("twice_*")))


def test_restart_policy_never(lab: PodLab) -> None:
    lab.create("ok", ["/bin/sh", "-c", "exit 0"], restartPolicy="Never")
    lab.create("bad", ["/bin/sh", "-c", "echo -n why > /dev/termination-log; exit 3"], restartPolicy="Never")
    good, bad = lab.wait_phase("ok", "Succeeded"), lab.wait_phase("bad", "Failed")
    assert main_status(good).state.terminated.reason == "Completed"
    assert {c.type: c.reason for c in good.status.conditions}["Ready"] == "PodCompleted"
    ended = main_status(bad).state.terminated
    assert (ended.exit_code, ended.reason, ended.message) == (3, "Error", "why")
    assert main_status(bad).restart_count == 0


def test_restart_on_failure_until_it_works(lab: PodLab) -> None:
    script = "if [ -e /data/again ]; then exit 0; fi; touch /data/again; exit 1"
    volume = {"name": "data", "emptyDir": {}}
    mount = {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    command = ["/bin/sh", "-c", script]
    lab.create("retry", command, container=mount, volumes=[volume], restartPolicy="OnFailure")
    pod = lab.wait_phase("retry", "Succeeded")
    assert main_status(pod).restart_count == 1
    assert main_status(pod).last_state.terminated.exit_code == 1


def test_init_containers_run_first(lab: PodLab) -> None:
    mounts = [{"name": "data", "mountPath": "/data"}]
    inits = [
        {
            "name": f"i{n}",
            "image": IMAGE,
            "command": ["/bin/sh", "-c", f"echo {n} >> /data/order"],
            "volumeMounts": mounts,
        }
        for n in (1, 2)
    ]
    lab.create(
        "init",
        ["/bin/sh", "-c", "cat /data/order; sleep 1000"],
        container={"volumeMounts": mounts},
        volumes=[{"name": "data", "emptyDir": {}}],
        initContainers=inits,
    )
    pod = lab.wait_phase("init", "Running")
    assert [status.ready for status in pod.status.init_container_statuses] == [True, True]
    lab.wait("init", "its log", lambda _: lab.logs("init") == "1\n2\n")


def test_crash_loop(lab: PodLab) -> None:
    lab.create("crash", ["/bin/sh", "-c", "exit 7"])
    pod = lab.wait_waiting("crash", "CrashLoopBackOff")
    status = main_status(pod)
    assert status.last_state.terminated.exit_code == 7
    assert "restarting failed container=main pod=crash_" in status.state.waiting.message
    assert pod.status.phase == "Running"
    lab.wait("crash", "two restarts", lambda pod: restarts(pod) >= 2)
    lab.wait_event("crash", "BackOff", "Back-off restarting failed container main in pod crash_")


def test_command_that_does_not_exist(lab: PodLab) -> None:
    lab.create("nocmd", ["/no/such/command"])
    pod = lab.wait_waiting("nocmd", "RunContainerError")
    status = main_status(pod)
    assert "/no/such/command" in status.state.waiting.message
    assert (status.last_state.terminated.exit_code, status.last_state.terminated.reason) == (128, "StartError")
    lab.wait_waiting("nocmd", "CrashLoopBackOff")
    lab.wait_event("nocmd", "Failed", "/no/such/command")


def test_images_that_do_not_exist(lab: PodLab) -> None:
    lab.create("pull", container={"image": "127.0.0.1:9/none:1"})
    lab.create("never", container={"image": "localhost/none:1", "imagePullPolicy": "Never"})
    lab.create("other")
    pod = lab.wait(
        "pull",
        "a pull error",
        lambda pod: pod.status.container_statuses and main_status(pod).state.waiting.reason != "ContainerCreating",
    )
    assert main_status(pod).state.waiting.reason in ("ErrImagePull", "RegistryUnavailable")
    lab.wait_waiting("pull", "ImagePullBackOff")
    lab.wait_event("pull", "Pulling", 'Pulling image "127.0.0.1:9/none:1"')
    lab.wait_event("pull", "Failed", 'Failed to pull image "127.0.0.1:9/none:1"')
    lab.wait_waiting("never", "ErrImageNeverPull")
    lab.wait_phase("other", "Running")


def test_missing_config_map_is_told_and_waited_for(lab: PodLab) -> None:
    env = [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "late", "key": "x"}}}]
    lab.create("config", ["/bin/sh", "-c", "echo $X; sleep 1000"], container={"env": env})
    pod = lab.wait_waiting("config", "CreateContainerConfigError")
    assert main_status(pod).state.waiting.message == 'configmap "late" not found'
    lab.api.create_namespaced_config_map(lab.namespace, {"metadata": {"name": "late"}, "data": {"x": "here"}})
    lab.wait_phase("config", "Running")
    lab.wait("config", "its log", lambda _: lab.logs("config") == "here\n")


def test_deletion_kills_what_ignores_the_signal(lab: PodLab) -> None:
    lab.create("stubborn", ["/bin/sh", "-c", "trap '' TERM; while :; do sleep 1; done"])
    lab.wait_phase("stubborn", "Running")
    lab.delete("stubborn")
    lab.wait_gone("stubborn")
    lab.wait_event("stubborn", "Killing", "Stopping container main")
    wait_until("nothing is left of it", lambda: not lab.on_host())


def test_deletion_ends_well_for_what_listens(lab: PodLab) -> None:
    lab.create("polite", STAY, terminationGracePeriodSeconds=600)
    lab.wait_phase("polite", "Running")
    lab.delete("polite")
    lab.wait_gone("polite")
    wait_until("nothing is left of it", lambda: not lab.on_host())


def test_pre_stop_hook_runs_before_the_signal(lab: PodLab) -> None:
    hook = {"preStop": {"exec": {"command": ["/bin/sh", "-c", "echo hook >> /out/order"]}}}
    script = "trap 'echo term >> /out/order; exit 0' TERM; sleep 1000 & wait $!"
    out = f"{lab.node.state}/hook-out"
    lab.create(
        "hooked",
        ["/bin/sh", "-c", script],
        container={"lifecycle": hook, "volumeMounts": [{"name": "out", "mountPath": "/out"}]},
        volumes=[{"name": "out", "hostPath": {"path": out, "type": "DirectoryOrCreate"}}],
        terminationGracePeriodSeconds=20,
    )
    lab.wait_phase("hooked", "Running")
    lab.delete("hooked")
    lab.wait_gone("hooked")
    with open(f"{out}/order") as file:
        assert file.read() == "hook\nterm\n"


def test_readiness_probe(lab: PodLab) -> None:
    probe = {"exec": {"command": ["/bin/cat", "/tmp/ready"]}, "periodSeconds": 1}
    script = "mkdir -p /tmp; sleep 2; touch /tmp/ready; sleep 1000"
    lab.create("probed", ["/bin/sh", "-c", script], container={"readinessProbe": probe})
    pod = lab.wait_phase("probed", "Running")
    assert not main_status(pod).ready
    assert {c.type: c.reason for c in pod.status.conditions}["Ready"] == "ContainersNotReady"
    lab.wait("probed", "ready", lambda pod: main_status(pod).ready)
    lab.wait_event("probed", "Unhealthy", "Readiness probe failed")


def test_liveness_probe_restarts(lab: PodLab) -> None:
    probe = {"exec": {"command": ["/bin/false"]}, "periodSeconds": 1, "failureThreshold": 1}
    lab.create("sick", container={"livenessProbe": probe})
    lab.wait("sick", "a restart", lambda pod: restarts(pod) >= 1)
    lab.wait_event("sick", "Killing", "Container main failed liveness probe, will be restarted")


def test_http_probe_reaches_the_pod(lab: PodLab) -> None:
    probe = {"httpGet": {"path": "/", "port": "web"}, "periodSeconds": 1}
    ports = [{"name": "web", "containerPort": 8080}]
    lab.create("web", ["/bin/serve"], container={"readinessProbe": probe, "ports": ports})
    lab.wait("web", "ready", lambda pod: pod.status.container_statuses and main_status(pod).ready)


def test_node_refuses_what_does_not_fit(lab: PodLab) -> None:
    lab.create("huge", container={"resources": {"requests": {"cpu": "1000"}}})
    pod = lab.wait_phase("huge", "Failed")
    assert pod.status.reason == "OutOfcpu"
    assert "requested: 1000000" in pod.status.message


def test_non_root_is_enforced(lab: PodLab) -> None:
    lab.create("root", securityContext={"runAsNonRoot": True})
    pod = lab.wait_waiting("root", "CreateContainerConfigError")
    assert "container has runAsNonRoot and image will run as root" in main_status(pod).state.waiting.message


def test_out_of_memory_is_told(lab: PodLab) -> None:
    script = "x=a; while :; do x=$x$x; done"
    limits = {"resources": {"limits": {"memory": "16Mi"}}}
    lab.create("oom", ["/bin/sh", "-c", script], container=limits, restartPolicy="Never")
    pod = lab.wait_phase("oom", "Failed")
    assert main_status(pod).state.terminated.reason == "OOMKilled"
    assert main_status(pod).state.terminated.exit_code == 137


def test_a_pod_that_others_marked_as_not_ready_becomes_ready_again(lab: PodLab) -> None:
    def ready(pod: Any) -> bool:
        return any(c.type == "Ready" and c.status == "True" for c in pod.status.conditions or [])

    lab.create("doubted")
    lab.wait("doubted", "ready", ready)
    doubt = {"status": {"conditions": [{"type": "Ready", "status": "False"}]}}
    lab.api.patch_namespaced_pod_status("doubted", lab.namespace, doubt)  # as the node controller does
    lab.wait("doubted", "ready again", ready)


def test_the_nodes_lease_goes_with_the_node(lab: PodLab) -> None:
    node = lab.api.read_node(lab.node.name)
    leases = client.CoordinationV1Api(lab.api.api_client)
    lease = leases.read_namespaced_lease(lab.node.name, "kube-node-lease")
    (owner,) = lease.metadata.owner_references
    assert (owner.api_version, owner.kind, owner.name, owner.uid) == ("v1", "Node", lab.node.name, node.metadata.uid)
    assert (lease.spec.holder_identity, lease.spec.lease_duration_seconds) == (lab.node.name, 40)
