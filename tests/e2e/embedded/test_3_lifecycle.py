"""Deletion, restart policy, rolling updates, and parts that are killed."""

import json
import os
import signal
import time
from pathlib import Path

from support.cluster import Cluster

IMAGE = "localhost/nodewright-demo:1"


def pod(name: str, namespace: str, command: str, spec: str = "") -> str:
    return (
        f"apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec:\n{spec}"
        f"  containers:\n  - {{name: c, image: '{IMAGE}', command: [/bin/sh, -c, '{command}']}}\n"
    )


def phase(cluster: Cluster, name: str, namespace: str) -> str:
    return (cluster.pod(name, namespace) or {}).get("status", {}).get("phase", "")


def pid_of(cluster: Cluster, component: str) -> int:
    record = cluster.state_dir / "clusters" / cluster.name / "run" / f"{component}.json"
    return int(json.loads(record.read_text())["pid"])


def container_ids(cluster: Cluster) -> dict[str, tuple[str, int]]:
    return {
        p["metadata"]["name"]: (s["containerID"], s["restartCount"])
        for p in cluster.get("pods")["items"]
        for s in p["status"].get("containerStatuses", [])
    }


def test_pods_that_end_succeed_or_fail(cluster, namespace):
    cluster.apply(pod("good", namespace, "exit 0", "  restartPolicy: Never\n"))
    cluster.apply(pod("bad", namespace, "exit 3", "  restartPolicy: Never\n"))
    cluster.wait("Succeeded", lambda: phase(cluster, "good", namespace) == "Succeeded")
    cluster.wait("Failed", lambda: phase(cluster, "bad", namespace) == "Failed")
    status = cluster.pod("bad", namespace)["status"]["containerStatuses"][0]
    assert status["state"]["terminated"]["exitCode"] == 3
    assert status["state"]["terminated"]["reason"] == "Error"


def test_deletion_gives_sigterm_then_ends_at_the_grace_period(cluster, namespace):
    grace = "  terminationGracePeriodSeconds: 2\n"
    cluster.apply(pod("deaf", namespace, 'trap "" TERM; while :; do sleep 1; done', grace))
    cluster.apply(pod("polite", namespace, 'trap "exit 0" TERM; while :; do sleep 1 & wait; done', grace))
    cluster.wait_running("deaf", namespace)
    cluster.wait_running("polite", namespace)
    started = time.monotonic()
    cluster.kubectl("delete", "pod", "deaf", "polite", "-n", namespace, "--timeout=30s")
    assert time.monotonic() - started >= 2, "the deaf container had its grace period"
    assert cluster.pod("deaf", namespace) is None
    assert cluster.pod("polite", namespace) is None


def test_volumes_and_environment_reach_the_container(cluster, namespace):
    cluster.kubectl("create", "configmap", "settings", "-n", namespace, "--from-literal=colour=blue")
    cluster.apply(
        f"apiVersion: v1\nkind: Pod\nmetadata: {{name: reader, namespace: {namespace}, labels: {{tier: web}}}}\nspec:\n"
        "  restartPolicy: Never\n  volumes:\n  - {name: settings, configMap: {name: settings}}\n"
        "  - {name: scratch, emptyDir: {}}\n"
        f"  containers:\n  - name: c\n    image: {IMAGE}\n"
        "    command: [/bin/sh, -c, 'echo file=$(cat /etc/settings/colour) pod=$POD ip=$IP; touch /scratch/x;"
        " ls /var/run/secrets/kubernetes.io/serviceaccount; cat /etc/hosts']\n"
        "    env:\n    - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}\n"
        "    - {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}\n"
        "    volumeMounts:\n    - {name: settings, mountPath: /etc/settings}\n"
        "    - {name: scratch, mountPath: /scratch}\n"
    )
    cluster.wait("Succeeded", lambda: phase(cluster, "reader", namespace) == "Succeeded")
    ip = cluster.pod("reader", namespace)["status"]["podIP"]
    text = cluster.kubectl("logs", "reader", "-n", namespace)
    assert f"file=blue pod=reader ip={ip}" in text
    assert {"ca.crt", "namespace", "token"} <= set(text.split())
    assert "# Kubernetes-managed hosts file." in text


def test_a_template_change_rolls_out_one_node_at_a_time(cluster):
    patch = {"spec": {"template": {"metadata": {"annotations": {"round": str(time.time_ns())}}}}}
    old = {p["metadata"]["uid"] for p in cluster.get("pods", "-l", "app=hello")["items"]}
    cluster.kubectl("patch", "nds", "hello", "--type=merge", "-p", json.dumps(patch))
    least = len(old)

    def rolled_out() -> bool:
        nonlocal least
        pods = cluster.get("pods", "-l", "app=hello")["items"]
        up = [p for p in pods if ready(p)]
        least = min(least, len([p for p in up if not p["metadata"].get("deletionTimestamp")]))
        return len(up) == len(old) and not old & {p["metadata"]["uid"] for p in pods}

    cluster.wait("every Pod replaced", rolled_out, timeout=90)
    assert least >= len(old) - 1, "maxUnavailable 1"
    status = cluster.wait(
        "status", lambda: (s := cluster.get("nds", "hello")["status"]).get("updatedNumberScheduled") == len(old) and s
    )
    assert status["observedGeneration"] == 2


def test_a_killed_agent_comes_back_and_restarts_nothing(cluster):
    before = container_ids(cluster)
    killed = int(_agent_record(cluster, 1)["pid"])
    os.kill(killed, signal.SIGKILL)
    cluster.wait("the agent to end", lambda: not Path(f"/proc/{killed}").exists())
    cluster.run("up", "--name", cluster.name, "--nodes", "2", "--wait")
    assert int(_agent_record(cluster, 1)["pid"]) != killed
    time.sleep(2)  # a restart, if one were to come, would come with the first sync
    assert container_ids(cluster) == before
    assert "hello" in cluster.kubectl("logs", "client", "--tail=1")


def test_the_api_server_killed_is_resumed_and_pods_go_on(cluster):
    before = container_ids(cluster)
    os.kill(pid_of(cluster, "kube-apiserver"), signal.SIGKILL)
    cluster.run("up", "--name", cluster.name, "--nodes", "2", "--wait")
    assert container_ids(cluster) == before


def ready(pod: dict) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))


def _agent_record(cluster: Cluster, number: int) -> dict:
    for path in (cluster.state_dir / "clusters" / cluster.name / "run").glob("*agent*.json"):
        if path.stem.endswith(f"node{number}"):
            return json.loads(path.read_text())
    raise AssertionError(f"no record of node {number}'s agent")
