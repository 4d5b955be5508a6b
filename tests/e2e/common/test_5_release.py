"""What only a Helm release in a cluster of other kubelets has: agents in Pods, and perhaps kube-proxy beside ours."""

import pytest

from support.live import Live, is_ready, node_ready
from support.live_facts import PROXY_NAME, RELEASE_NAMESPACE, Facts
from support.live_objects import Traffic, pod, script_spec, server_spec, service


@pytest.fixture(autouse=True)
def _release(facts: Facts) -> None:
    if not facts.release:
        pytest.skip("no Helm release is installed in this cluster")


def agent_pods(live: Live) -> dict[str, str]:
    """Uid of the Ready agent Pod by the kubelet node that it is on."""
    pods = live.pods(RELEASE_NAMESPACE, "app.kubernetes.io/component=agent")
    return {each.spec.node_name: each.metadata.uid for each in pods if is_ready(each)}


def test_each_chosen_host_has_a_nodewright_node_that_daemonsets_of_the_cluster_do_not_follow(
    live: Live, facts: Facts
) -> None:
    assert {facts.hosts[node] for node in facts.nodewright_nodes} == set(facts.kubelet_nodes)
    for name in facts.nodewright_nodes:
        node = live.core.read_node(name)
        assert node_ready(node)
        assert node.metadata.labels["nodewright.dev/agent"] == "true"
        assert "kubernetes.io/os" not in node.metadata.labels
        assert node.spec.pod_cidr
        lease = live.coordination.read_namespaced_lease(name, "kube-node-lease")
        assert lease.spec.holder_identity == name
    for space in ("kube-system", RELEASE_NAMESPACE):
        strays = [each.metadata.name for each in live.pods(space) if each.spec.node_name in facts.nodewright_nodes]
        assert strays == []


def test_an_agents_pod_deleted_leaves_its_pods_alone(live: Live, facts: Facts, namespace: str) -> None:
    live.apply(
        *(
            pod(f"web-{n}", namespace, server_spec(node), {"app": "web"})
            for n, node in enumerate(facts.nodewright_nodes)
        ),
        service("web", namespace, {"app": "web"}, facts.service_labels),
    )
    live.wait_ready(namespace, [f"web-{n}" for n in range(len(facts.nodewright_nodes))])
    address = live.core.read_namespaced_service("web", namespace).spec.cluster_ip
    traffic = Traffic.start(live, namespace, f"http://{address}/", facts.nodes)
    before, agents = live.containers(namespace), agent_pods(live)
    live.kubectl("delete", "pods", "-n", RELEASE_NAMESPACE, "-l", "app.kubernetes.io/component=agent", "--wait=true")
    live.wait(
        "new agents, all Ready",
        lambda: (now := agent_pods(live)).keys() == agents.keys() and not set(now.values()) & set(agents.values()),
        120,
    )
    live.wait("all Nodes Ready", lambda: all(map(node_ready, live.core.list_node().items)))
    live.apply(pod("after", namespace, server_spec(facts.nodewright_nodes[0])))
    live.wait_ready(namespace, ["after"])
    live.kubectl("delete", "pod", "after", "-n", namespace)
    traffic.flows(10)
    assert live.containers(namespace) == before
    assert traffic.errors() == []


def test_beside_kube_proxy_only_labelled_services_are_ours(live: Live, facts: Facts, namespace: str) -> None:
    if not facts.scoped:
        pytest.skip("Nodewright serves all Services here")
    live.apply(
        pod("web", namespace, server_spec(facts.kubelet_nodes[0]), {"app": "web"}),
        service("ours", namespace, {"app": "web"}, {PROXY_NAME: "nodewright"}),
        service("theirs", namespace, {"app": "web"}),
    )
    live.wait_ready(namespace, ["web"])
    addresses = {
        name: live.core.read_namespaced_service(name, namespace).spec.cluster_ip for name in ("ours", "theirs")
    }
    # Both answer, from both kinds of nodes; who serves which stands in the rules of the host.
    script = "for i in $(seq 20); do busybox timeout 3 wget -q -O - http://$A/ && break; sleep 1; done; echo end"
    clients = {f"{n}-{w}": (node, ip) for n, node in enumerate(facts.nodes) for w, ip in addresses.items()}
    names = {f"client-{key}": value for key, value in clients.items()}
    live.apply(*(pod(name, namespace, script_spec(node, script, {"A": ip})) for name, (node, ip) in names.items()))
    for name in names:
        live.wait(f"{name} to end", lambda name=name: live.log(name, namespace).endswith("end\n"))
        assert "pod=web" in live.log(name, namespace), name
    rules = _rules_of_nodewright(live, facts.kubelet_nodes[0])
    assert addresses["ours"] in rules
    assert addresses["theirs"] not in rules


def _rules_of_nodewright(live: Live, node: str) -> str:
    """Our own table, read in the proxy's Pod on that node."""
    pods = live.pods(RELEASE_NAMESPACE, "app.kubernetes.io/component=proxy")
    name = next(each.metadata.name for each in pods if each.spec.node_name == node)
    return live.kubectl("exec", "-n", RELEASE_NAMESPACE, name, "--", "nft", "list", "table", "ip", "nodewright-proxy")
