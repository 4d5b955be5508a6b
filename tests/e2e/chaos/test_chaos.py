"""Parts are killed and rules deleted while workloads run: all is right again within seconds, and nothing is lost.

The bounds are generous (a busy machine with two cores); the figures say what it took.
"""

import time

from support.live import is_ready
from support.live_facts import RELEASE_NAMESPACE
from support.live_objects import server_spec, workload


def new_daemonset_works(scene, name):
    """The controllers are at work: a new DaemonSet gets a Ready Pod on each node."""
    live = scene.live
    live.apply(workload("nodewright.dev/v1alpha1", "DaemonSet", name, scene.namespace, server_spec()))
    return lambda: (
        {p.spec.node_name for p in live.pods(scene.namespace, f"app={name}") if is_ready(p)} == set(scene.facts.nodes)
    )


def leader(live, lease):
    """Name of the Pod that holds a Lease of the release."""
    holder = live.coordination.read_namespaced_lease(lease, RELEASE_NAMESPACE).spec.holder_identity or ""
    pods = [pod for pod in live.pods(RELEASE_NAMESPACE) if holder.startswith(pod.metadata.name)]
    assert pods, f"{lease} is held by {holder!r}, which is no Pod of the release"
    return pods[0]


def kill_container(machines, pod):
    """SIGKILL the first process of the Pod's container, as the kernel's OOM killer would."""
    container = pod.status.container_statuses[0].container_id.removeprefix("containerd://")
    pid = machines.sh(pod.spec.node_name, f"crictl inspect -o go-template --template '{{{{.info.pid}}}}' {container}")
    machines.sh(pod.spec.node_name, f"kill -KILL {int(pid)}")


def test_the_operators_leader_is_killed(scene, machines):
    before = scene.live.containers(scene.namespace)
    kill_container(machines, leader(scene.live, "nodewright-operator"))
    errors = scene.recovers("operator's leader killed", 60, new_daemonset_works(scene, "second"))
    assert errors == []
    assert before.items() <= scene.live.containers(scene.namespace).items()


def test_the_schedulers_leader_is_killed(scene, machines):
    kill_container(machines, leader(scene.live, "nodewright-scheduler"))
    spec = server_spec() | {"schedulerName": "nodewright"}
    scene.live.apply(workload("apps/v1", "Deployment", "placed", scene.namespace, spec, replicas=2))

    def placed():
        pods = scene.live.pods(scene.namespace, "app=placed")
        return len(pods) == 2 and all(map(is_ready, pods))

    assert scene.recovers("scheduler's leader killed", 60, placed) == []


def test_all_agents_are_killed(scene, machines):
    before = scene.live.containers(scene.namespace)
    hosts = [scene.facts.hosts[node] for node in scene.facts.nodewright_nodes]
    assert all(machines.kill(host, "nodewright agent --config") for host in hosts)
    errors = scene.recovers("all agents killed", 90, new_daemonset_works(scene, "second"))
    assert errors == []
    assert before.items() <= scene.live.containers(scene.namespace).items()


def test_all_proxies_are_killed(scene, machines):
    hosts = scene.facts.kubelet_nodes
    assert all(machines.kill(host, "nodewright proxy --node-name") for host in hosts)
    errors = scene.recovers("all proxies killed", 60, new_daemonset_works(scene, "second"))
    assert errors == []


def test_rules_are_deleted_by_hand(scene, machines):
    host = scene.facts.kubelet_nodes[0]
    address = scene.live.core.read_namespaced_service("web", scene.namespace).spec.cluster_ip
    listed = "nft list table ip nodewright-proxy"
    assert address in machines.sh(host, listed)
    machines.sh(host, "nft delete table ip nodewright-proxy")
    began = time.monotonic()
    scene.recovers("rules deleted by hand", 60, lambda: address in machines.sh(host, listed, check=False))
    assert time.monotonic() - began < 60


def test_the_api_server_is_restarted(scene, machines):
    before = scene.live.containers(scene.namespace)
    control_plane = scene.facts.control_plane_nodes[0]
    old = machines.sh(control_plane, "crictl ps -q --name kube-apiserver").strip()
    machines.sh(control_plane, f"crictl stop -t 0 {old}")

    def another():
        new = machines.sh(control_plane, "crictl ps -q --name kube-apiserver").strip()
        return new and new != old and scene.live.kubectl("get", "--raw", "/readyz", check=False) == "ok"

    scene.live.wait("another API server", another, 90)
    errors = scene.recovers("API server restarted", 90, new_daemonset_works(scene, "second"))
    assert errors == []
    assert before.items() <= scene.live.containers(scene.namespace).items()


def test_a_machine_is_restarted(scene, machines):
    host = scene.facts.kubelet_nodes[-1]
    there = {node for node in scene.facts.nodes if scene.facts.hosts.get(node, node) == host}
    elsewhere = {p.metadata.name for p in scene.live.pods(scene.namespace, "app=web") if p.spec.node_name not in there}
    before = {
        name: value for name, value in scene.live.containers(scene.namespace).items() if name.split("/")[0] in elsewhere
    }
    machines.restart(host)
    # The clients of that machine do not come back (restartPolicy Never): what counts are the others.
    traffic = scene.traffic
    survivors = tuple(
        name for name, node in zip(traffic.names, scene.facts.nodes, strict=True) if node not in there
    )  # fmt: skip
    scene.traffic = type(traffic)(traffic.live, traffic.namespace, survivors)
    scene.recovers(f"machine {host} restarted", 180, new_daemonset_works(scene, "second"))
    assert before.items() <= scene.live.containers(scene.namespace).items()
