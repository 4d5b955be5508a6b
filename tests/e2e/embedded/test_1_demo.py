"""The README's way: nodes Ready, examples applied, the Service answering, the story of one Pod told."""

import subprocess

from support.cluster import EXAMPLES, NODEWRIGHT, Cluster


def daemon_pods(cluster: Cluster) -> list[dict]:
    return cluster.get("pods", "-l", "app=hello")["items"]


def test_two_nodes_are_ready(cluster):
    nodes = cluster.get("nodes")["items"]
    assert len(nodes) == 2
    for node in nodes:
        conditions = {c["type"]: c["status"] for c in node["status"]["conditions"]}
        assert conditions["Ready"] == "True"
        assert node["spec"]["podCIDR"]
        assert not node["spec"].get("taints")


def test_examples_give_one_running_pod_on_each_node(cluster):
    cluster.apply(EXAMPLES)
    nodes = {node["metadata"]["name"] for node in cluster.get("nodes")["items"]}

    def running() -> bool:
        pods = daemon_pods(cluster)
        return {p["spec"].get("nodeName") for p in pods if p["status"].get("phase") == "Running"} == nodes and len(
            pods
        ) == len(nodes)

    cluster.wait("one hello Pod Running on each node", running)
    status = cluster.wait(
        "DaemonSet status",
        lambda: (s := cluster.get("nds", "hello")["status"]).get("numberReady") == len(nodes) and s,
    )
    assert status["desiredNumberScheduled"] == status["currentNumberScheduled"] == len(nodes)
    assert status["observedGeneration"] == 1


def test_the_service_answers_from_nodes_and_pods_and_every_backend_is_seen(cluster):
    names = {pod["metadata"]["name"] for pod in daemon_pods(cluster)}
    ip = cluster.get("service", "hello")["spec"]["clusterIP"]

    def answers(number: int) -> str:
        return cluster.in_node(
            number, "sh", "-c", f"for i in $(seq 20); do timeout 5 busybox wget -q -O - http://{ip}/; done", timeout=90
        )

    def all_twenty(text: str) -> str:
        return text if text.count("\n") >= 20 else ""

    for number in (1, 2):
        text = cluster.wait(f"answers on node host {number}", lambda n=number: all_twenty(answers(n)))
        assert all(name in text for name in names), text
    cluster.wait_running("client")
    cluster.wait(
        "both backends in the client's log",
        lambda: all(name in cluster.kubectl("logs", "client", check=False) for name in names),
    )


def test_trace_tells_every_step(cluster):
    name = daemon_pods(cluster)[0]["metadata"]["name"]
    text = cluster.wait(
        "a whole trace",
        lambda: "status" in (t := cluster.run("trace", "pod", f"default/{name}", "--name", "e2e").stdout) and t,
    )
    steps = ["accepted", "stored", "seen by the controller", "created", "scheduled", "seen by the agent"]
    steps += ["image", "sandbox", "container started", "status"]
    positions = [text.find(step) for step in steps]
    assert all(position >= 0 for position in positions), text
    assert positions == sorted(positions), text


def test_logs_follow(cluster):
    command = ["kubectl", "--name", cluster.name, "--", "logs", "-f", "--tail=1", "client"]
    with subprocess.Popen([*NODEWRIGHT, *command], env=cluster.env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            lines = [process.stdout.readline() for _ in range(3)]
        finally:
            process.terminate()
    assert all("hello" in line for line in lines), lines


def test_up_is_idempotent(cluster):
    def ids() -> set[str | None]:
        pods = cluster.get("pods")["items"]
        return {s.get("containerID") for p in pods for s in p["status"].get("containerStatuses", [{}])}

    before = cluster.wait("every container of the examples started", lambda: None not in (now := ids()) and now)
    cluster.run("up", "--name", cluster.name, "--nodes", "2", "--wait")
    assert ids() == before
