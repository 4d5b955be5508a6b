"""The agent as the DaemonSet runs it beside a kubelet: a process with a ServiceAccount only."""

from __future__ import annotations

import functools
import json
import ssl
import urllib.error
import urllib.request

import pytest

from nodewright.controlplane.assets import Assets
from support import lab_cluster as labs
from support.agent_node import AgentNode, load_demo_image, wait_until
from support.pod_lab import PodLab

pytestmark = [pytest.mark.needs_cluster, pytest.mark.needs_root]

HOST = "host-1"
MAIN = """
from pathlib import Path
from nodewright.kube import config
config.SERVICE_ACCOUNT_DIR = Path({directory!r})
from nodewright.cli.main import run
run()
"""


@pytest.fixture(scope="module")
def lab_cluster(tmp_path_factory):
    binaries = Assets().obtain(["kube-controller-manager", "kubectl"])
    with labs.lab_cluster(tmp_path_factory.mktemp("c"), "bootstrap") as cluster:
        cluster.start_controller_manager(binaries["kube-controller-manager"])
        yield cluster


@pytest.fixture(scope="module")
def lab_kubectl(lab_cluster, kubectl_for):
    return kubectl_for(lab_cluster)


@pytest.fixture(scope="module")
def host_node(lab_kubectl):
    """The kubelet's Node on this host, as far as the agent looks at it."""
    labels = {"topology.kubernetes.io/zone": "z1", "topology.kubernetes.io/region": "r1", "other": "x"}
    body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": HOST, "labels": labels}}
    lab_kubectl("create", "-f", "-", stdin=json.dumps(body))


@pytest.fixture(scope="module")
def kube_dns(lab_kubectl):
    ports = [{"name": "dns", "port": 53, "protocol": "UDP"}]
    meta = {"name": "kube-dns", "namespace": "kube-system"}
    body = {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"ports": ports}}
    return json.loads(lab_kubectl("create", "-f", "-", "-o", "json", stdin=json.dumps(body)))["spec"]["clusterIP"]


@pytest.fixture(scope="module")
def agent(lab_cluster, lab_kubectl, host_node, tmp_path_factory, mount_agent_account):
    """An agent that has nothing but its account."""
    directory = tmp_path_factory.mktemp("agent")
    load_demo_image(directory / "store", directory / "demo.tar")
    account = mount_agent_account(lab_cluster, lab_kubectl, directory / "account")
    node = AgentNode(
        lab_cluster,
        directory / "n",
        image_root=str(directory / "store"),
        kubeconfig="",
        client_ca_file="",
        bootstrap=True,
        host_node_name=HOST,
        node_address_type="ExternalIP",
        omit_node_labels=["kubernetes.io/os", "beta.kubernetes.io/os"],
        copy_topology_labels=True,
        node_labels={"team": "t"},
    )
    node.begin = functools.partial(
        node.start,
        main=MAIN.format(directory=str(account)),
        environment={"NODEWRIGHT_API_SERVER": lab_cluster.server, "KUBECONFIG": "/nowhere"},
    )
    node.begin()
    try:
        yield node
    finally:
        node.close()


@pytest.fixture
def lab(lab_cluster, agent):
    with PodLab(lab_cluster, agent) as made:
        made.wait_ready()
        yield made


def node_object(kubectl, name):
    return json.loads(kubectl("get", "node", name, "-o", "json"))


def test_the_node_is_registered_as_it_should_be_beside_a_kubelet(lab, agent, lab_kubectl):
    node = node_object(lab_kubectl, agent.name)
    labels = node["metadata"]["labels"]
    assert labels["nodewright.dev/agent"] == "true"
    assert labels["nodewright.dev/host"] == HOST
    assert (labels["topology.kubernetes.io/zone"], labels["topology.kubernetes.io/region"]) == ("z1", "r1")
    assert labels["team"] == "t"
    assert "other" not in labels
    assert not [name for name in labels if name.endswith("kubernetes.io/os")]
    assert "kubernetes.io/arch" in labels
    addresses = {entry["type"]: entry["address"] for entry in node["status"]["addresses"]}
    assert addresses == {"ExternalIP": "127.0.0.1", "Hostname": agent.name}


def test_a_restart_puts_no_omitted_label_back_and_keeps_the_certificate(lab, agent, lab_kubectl):
    pem = agent.state / "pki" / "kubelet-client-current.pem"
    before = pem.read_bytes()
    lab_kubectl("label", "node", agent.name, "topology.kubernetes.io/zone=wrong", "--overwrite")
    assert agent.stop() == 0
    agent.begin()

    def corrected():
        labels = node_object(lab_kubectl, agent.name)["metadata"]["labels"]
        return labels if labels["topology.kubernetes.io/zone"] == "z1" else None

    labels = wait_until("the zone is right again", corrected)
    assert not [name for name in labels if name.endswith("kubernetes.io/os")]
    assert pem.read_bytes() == before


def test_pods_run_and_have_the_clusters_dns(lab, agent, kube_dns):
    lab.create("dns", ["/bin/sh", "-c", "cat /etc/resolv.conf"], restartPolicy="Never")
    lab.wait("dns", "it ended", lambda pod: pod.status.phase == "Succeeded")
    # not by the API server: this one calls nodes by their InternalIP only
    (log,) = (agent.state / "pods-logs").glob(f"{lab.namespace}_dns_*/main/0.log")
    text = log.read_text()
    assert f"nameserver {kube_dns}\n" in text
    assert f"search {lab.namespace}.svc.cluster.local svc.cluster.local cluster.local" in text
    lab.wait_event("dns", "Started")  # what was said before is there by then
    assert "MissingClusterDNS" not in str(lab.events("dns"))


def test_the_kubelet_api_trusts_the_clusters_clients(lab, agent, lab_cluster):
    """The authorities come from the ConfigMap that kube-apiserver publishes."""
    pki = lab_cluster.layout.pki
    context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
    context.check_hostname = False
    url = f"https://127.0.0.1:{agent.settings['port']}/healthz"
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(url, context=context, timeout=10)
    refused.value.close()
    assert refused.value.code == 401
    context.load_cert_chain(pki / "apiserver-kubelet-client.crt", pki / "apiserver-kubelet-client.key")
    with urllib.request.urlopen(url, context=context, timeout=10) as answer:
        assert answer.status == 200
    assert "-----BEGIN CERTIFICATE-----" in (agent.state / "pki" / "client-ca.crt").read_text()
