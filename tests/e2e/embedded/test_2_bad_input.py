"""Bad input gives the state and the event that users of Kubernetes know, and disturbs nobody else."""

import pytest

from support.cluster import Cluster

IMAGE = "localhost/nodewright-demo:1"


def pod(name: str, namespace: str, container: str, spec: str = "") -> str:
    return (
        f"apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: {namespace}}}\n"
        f"spec:\n  terminationGracePeriodSeconds: 1\n{spec}  containers:\n  - {container}\n"
    )


def waiting(cluster: Cluster, name: str, namespace: str) -> dict:
    found = cluster.pod(name, namespace)
    statuses = found["status"].get("containerStatuses", [])
    return statuses[0]["state"].get("waiting", {}) if statuses else {}


def events(cluster: Cluster, name: str, namespace: str) -> list[tuple[str, str]]:
    items = cluster.get("events", "-n", namespace, f"--field-selector=involvedObject.name={name}")["items"]
    return [(item["reason"], item.get("message") or item.get("note") or "") for item in items]


def test_a_bad_field_is_refused_with_its_path(cluster):
    text = cluster.apply(
        "apiVersion: nodewright.dev/v1alpha1\nkind: DaemonSet\nmetadata: {name: bad}\nspec:\n"
        "  selector: {matchLabels: {app: bad}}\n  template:\n    metadata: {labels: {app: bad}}\n"
        f"    spec:\n      containers: [{{name: c, image: {IMAGE}, ports: [{{containerPort: http}}]}}]\n",
        check=False,
    )
    assert "spec.template.spec.containers[0].ports[0].containerPort" in text


def test_an_image_that_does_not_exist(cluster, namespace):
    cluster.apply(pod("noimage", namespace, "{name: c, image: 'localhost:1/none:1'}"))
    reasons = {"ErrImagePull", "ImagePullBackOff"}
    seen = cluster.wait("ErrImagePull", lambda: waiting(cluster, "noimage", namespace).get("reason") in reasons)
    assert seen
    cluster.wait("ImagePullBackOff", lambda: waiting(cluster, "noimage", namespace).get("reason") == "ImagePullBackOff")
    cluster.wait("BackOff event", lambda: "BackOff" in [reason for reason, _ in events(cluster, "noimage", namespace)])
    listed = events(cluster, "noimage", namespace)
    assert any(reason == "Failed" and "localhost:1/none:1" in message for reason, message in listed), listed


def test_never_pull(cluster, namespace):
    cluster.apply(pod("never", namespace, "{name: c, image: 'localhost:1/none:1', imagePullPolicy: Never}"))
    cluster.wait("ErrImageNeverPull", lambda: waiting(cluster, "never", namespace).get("reason") == "ErrImageNeverPull")


def test_an_image_name_that_is_none(cluster, namespace):
    cluster.apply(pod("badname", namespace, "{name: c, image: 'UPPER/Case::x'}"))
    cluster.wait("InvalidImageName", lambda: waiting(cluster, "badname", namespace).get("reason") == "InvalidImageName")


def test_a_command_that_does_not_exist(cluster, namespace):
    cluster.apply(pod("nocommand", namespace, f"{{name: c, image: '{IMAGE}', command: [/nosuch]}}"))

    def broken() -> bool:
        status = cluster.pod("nocommand", namespace)["status"].get("containerStatuses", [{}])[0]
        last = status.get("lastState", {}).get("terminated", {}) or status.get("state", {}).get("terminated", {})
        return last.get("reason") == "StartError" and "/nosuch" in last.get("message", "")

    cluster.wait("StartError naming the command", broken)
    cluster.wait(
        "CrashLoopBackOff or RunContainerError",
        lambda: waiting(cluster, "nocommand", namespace).get("reason") in {"CrashLoopBackOff", "RunContainerError"},
    )


def test_a_container_that_fails_backs_off(cluster, namespace):
    cluster.apply(pod("crash", namespace, f"{{name: c, image: '{IMAGE}', command: [/bin/sh, -c, 'exit 7']}}"))
    cluster.wait("CrashLoopBackOff", lambda: waiting(cluster, "crash", namespace).get("reason") == "CrashLoopBackOff")
    status = cluster.pod("crash", namespace)["status"]["containerStatuses"][0]
    assert status["lastState"]["terminated"]["exitCode"] == 7
    assert status["restartCount"] >= 1


def test_a_missing_configmap_is_told(cluster, namespace):
    container = f"{{name: c, image: '{IMAGE}', envFrom: [{{configMapRef: {{name: absent}}}}]}}"
    cluster.apply(pod("noconfig", namespace, container))
    cluster.wait(
        "CreateContainerConfigError",
        lambda: waiting(cluster, "noconfig", namespace).get("reason") == "CreateContainerConfigError",
    )
    assert 'configmap "absent" not found' in waiting(cluster, "noconfig", namespace)["message"]
    cluster.kubectl("create", "configmap", "absent", "-n", namespace, "--from-literal=a=b")
    cluster.wait_running("noconfig", namespace, timeout=120)


def test_a_pod_that_fits_nowhere_says_why(cluster, namespace):
    container = f"{{name: c, image: '{IMAGE}', resources: {{requests: {{cpu: 1000}}}}}}"
    cluster.apply(pod("huge", namespace, container))

    def reason() -> str:
        conditions = cluster.pod("huge", namespace)["status"].get("conditions", [])
        return next((c["message"] for c in conditions if c["type"] == "PodScheduled" and c["status"] == "False"), "")

    message = cluster.wait("PodScheduled=False", reason)
    assert message.startswith("0/2 nodes are available: 2 Insufficient cpu.")
    cluster.wait(
        "FailedScheduling event", lambda: "FailedScheduling" in [r for r, _ in events(cluster, "huge", namespace)]
    )
    explained = cluster.run("explain", "pod", f"{namespace}/huge", "--name", cluster.name).stdout
    assert "Insufficient cpu" in explained


@pytest.mark.parametrize("name", ["client"])
def test_other_pods_were_not_disturbed(cluster, name):
    status = cluster.pod(name)["status"]["containerStatuses"][0]
    assert status["restartCount"] == 0
    assert status["ready"]
