"""The node's pure parts: settings, facts, conditions, status, patch."""

import json

import msgspec
import pytest

from nodewright.kube.objects import NodeCondition, Pod, Service
from nodewright_agent import config as settings
from nodewright_agent.node import clusterdns
from nodewright_agent.node.conditions import node_conditions, transitions
from nodewright_agent.node.facts import HostFacts, meminfo, os_image, read_facts
from nodewright_agent.node.registration import initial_node, own_labels
from nodewright_agent.node.status import allocatable, capacity, changed, node_status, node_status_patch
from nodewright_agent.pods.podfiles import PodFiles
from nodewright_agent.runtime.hostspace import HostSpace

FACTS = HostFacts("m", "u", "b", "6.1", "Debian", "amd64", 4, 8 << 30, 100 << 30, {"hugepages-2Mi": 4 << 20})


def load(**given):
    return settings.load(None, **{"node_name": "n1", "node_ip": "192.0.2.1", **given})


def test_settings_come_from_a_file_and_are_completed(tmp_path):
    file = tmp_path / "agent.json"
    file.write_text(json.dumps({"node_name": "from-file", "state_dir": "/s", "node_ip": "192.0.2.7"}))
    made = settings.load(file, node_name=None, port=1234)
    assert (made.node_name, made.port, made.bind_address) == ("from-file", 1234, "192.0.2.7")
    assert (made.image_root, made.log_dir) == ("/s/images", "/s/pods-logs")
    yaml_file = tmp_path / "agent.yaml"
    yaml_file.write_text("node_name: y\nnode_ip: 192.0.2.8\ncluster_dns: [10.96.0.10]\n")
    assert settings.load(yaml_file).cluster_dns == ["10.96.0.10"]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"node_name": "Bad_Name"}, "node_name: 'Bad_Name'"),
        ({"state_dir": "relative"}, "state_dir: 'relative' is not an absolute path"),
        ({"run_dir": "/" + "x" * 60}, "run_dir:"),
        ({"node_ip": "nowhere"}, "node_ip: 'nowhere' is no IP address"),
        ({"cluster_dns": ["x"]}, "cluster_dns[0]: 'x'"),
        ({"pod_cidr": "10.0.0.1/24"}, "pod_cidr: 10.0.0.1/24 has host bits set"),
        ({"port": 0}, "port: 0"),
        ({"healthz_port": -1}, "healthz_port: -1 is not between 0 (off) and 65535"),
        ({"healthz_port": 65536}, "healthz_port: 65536"),
        ({"healthz_port": 10250}, "healthz_port: 10250 is port too"),
        ({"healthz_bind_address": "localhost"}, "healthz_bind_address: 'localhost' is no IP address"),
        ({"proxy_mode": "magic"}, "proxy_mode: 'magic' is none of"),
        ({"tls_cert_file": "/x"}, "give both or none"),
        ({"crash_backoff_initial": 50, "crash_backoff_max": 20}, "crash_backoff_initial: is above"),
        ({"max_pods": "many"}, "max_pods"),
        ({"unknown_key": 1}, "unknown_key"),
        ({"bootstrap": True, "kubeconfig": "/k"}, "kubeconfig: the node makes its own identity"),
        ({"bootstrap_kubeconfig": "/b", "kubeconfig": "/k"}, "give bootstrap or kubeconfig, not both"),
        ({"certificate_seconds": 599}, "certificate_seconds: 599 is below 600"),
        ({"node_name": "n" * 64}, "node_name: longer than 63 characters"),
        ({"host_node_name": "Bad_Name"}, "host_node_name: 'Bad_Name'"),
        ({"host_node_name": "n1"}, "host_node_name: 'n1' is node_name too"),
        ({"host_node_name": "h" * 64}, "host_node_name: longer than 63"),
        ({"node_address_type": "Hostname"}, "node_address_type"),
        ({"omit_node_labels": ["team"]}, "omit_node_labels[0]: 'team' is none of kubernetes.io/hostname"),
        ({"copy_topology_labels": True}, "copy_topology_labels: host_node_name is needed"),
        ({"host_mounts": "proc/1/ns/mnt"}, "host_mounts: 'proc/1/ns/mnt' is not an absolute path"),
        ({"host_root": ""}, "host_root: ''"),
        ({"host_root": "/proc/../x"}, "host_root: '/proc/../x'"),
        ({"host_tools": "here"}, "host_tools: 'here'"),
        ({"image_sources": ["docker"]}, "image_sources"),
    ],
)
def test_bad_settings_name_the_field(given, text):
    with pytest.raises(settings.ConfigError) as caught:
        load(**given)
    assert text in str(caught.value)


def test_unreadable_settings(tmp_path):
    with pytest.raises(settings.ConfigError, match="No such file"):
        settings.load(tmp_path / "none")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(settings.ConfigError, match="expected a mapping"):
        settings.load(tmp_path / "list.json")


def test_proc_files():
    assert meminfo("MemTotal:  2 kB\nHugePages_Total: 3\nodd\n") == {"MemTotal": 2048, "HugePages_Total": 3}
    assert os_image('NAME=x\nPRETTY_NAME="Debian GNU/Linux 12"\n') == "Debian GNU/Linux 12"


def test_capacity_and_allocatable():
    config = load(reserved_cpu="500m", reserved_memory="1Gi")
    assert capacity(config, FACTS) == {
        "cpu": "4", "memory": "8388608Ki", "ephemeral-storage": "104857600Ki", "pods": "110", "hugepages-2Mi": "4Mi",
    }  # fmt: skip
    left = allocatable(config, FACTS)
    assert left["cpu"] == "3500m"
    assert left["memory"] == f"{((8 << 30) - (1 << 30) - (100 << 20) - (4 << 20)) // 1024}Ki"


def test_conditions_in_upstreams_words():
    made = node_conditions([], {}, [], "t1")
    assert [(c.type, c.status, c.reason) for c in made] == [
        ("MemoryPressure", "False", "KubeletHasSufficientMemory"),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID"),
        ("Ready", "True", "KubeletReady"),
    ]
    later = node_conditions(made, {}, ["a", "b"], "t2")
    assert (later[-1].status, later[-1].reason, later[-1].message) == ("False", "KubeletNotReady", "[a, b]")
    assert later[-1].last_transition_time == "t2"
    assert later[0].last_transition_time == "t1"
    assert transitions(made, later) == ["NodeNotReady"]
    assert transitions([], made)[0] == "NodeHasSufficientMemory"
    short = node_conditions(made, {"DiskPressure": True}, [], "t3")
    assert (short[1].status, short[1].reason) == ("True", "KubeletHasDiskPressure")
    assert transitions(made, short) == ["NodeHasDiskPressure"]


def test_heartbeats_alone_are_no_change():
    config = load()
    first = node_status(config, FACTS, node_conditions([], {}, [], "t1"), [])
    second = node_status(config, FACTS, node_conditions(first.conditions, {}, [], "t2"), [])
    assert not changed(first, second)
    first.conditions.append(NodeCondition("NetworkUnavailable", "False"))
    assert not changed(first, second)
    third = node_status(config, FACTS, node_conditions(first.conditions, {}, ["x"], "t3"), [])
    assert changed(first, third)
    assert node_status_patch(third)["status"]["addresses"][-1] == {"$patch": "replace"}
    assert third.node_info is not None
    assert (third.node_info.kubelet_version, third.node_info.kube_proxy_version) == ("v1.36.3", "")


def test_labels_and_taints_at_registration():
    config = load(node_labels={"zone": "z"}, register_with_taints=[{"key": "k", "effect": "NoSchedule"}])
    node = initial_node(config, FACTS, node_status(config, FACTS, [], []), {})
    assert node.metadata.labels["zone"] == "z"
    assert node.metadata.labels["kubernetes.io/hostname"] == "n1"
    assert node.metadata.labels["kubernetes.io/arch"] == "amd64"
    assert [(taint.key, taint.effect) for taint in node.spec.taints] == [("k", "NoSchedule")]


def beside_kubelet(**given):
    return load(host_node_name="host-1", **given)


def test_beside_a_kubelet_the_node_says_whose_host_it_is():
    labels = own_labels(beside_kubelet(omit_node_labels=["kubernetes.io/os", "beta.kubernetes.io/os"]), FACTS)
    assert labels == {
        "kubernetes.io/hostname": "n1",
        "kubernetes.io/arch": "amd64",
        "beta.kubernetes.io/arch": "amd64",
        "nodewright.dev/agent": "true",
        "nodewright.dev/host": "host-1",
    }
    assert not [name for name in own_labels(load(), FACTS) if name.startswith("nodewright.dev/")]


def test_the_address_has_the_type_of_the_settings():
    status = node_status(load(node_address_type="ExternalIP"), FACTS, [], [])
    assert [(one.type, one.address) for one in status.addresses] == [("ExternalIP", "192.0.2.1"), ("Hostname", "n1")]
    assert node_status(load(), FACTS, [], []).addresses[0].type == "InternalIP"


def test_copied_labels_give_way_to_the_settings():
    zone = "topology.kubernetes.io/zone"
    config = beside_kubelet(node_labels={zone: "mine"})
    made = initial_node(config, FACTS, node_status(config, FACTS, [], []), {zone: "z1", "region": "r1"})
    assert (made.metadata.labels[zone], made.metadata.labels["region"]) == ("mine", "r1")


def test_facts_are_those_of_the_host(tmp_path):
    host = tmp_path / "host"
    (host / "etc").mkdir(parents=True)
    (host / "usr/lib").mkdir(parents=True)
    (host / "etc/machine-id").write_text("abc\n")
    (host / "usr/lib/release").write_text("PRETTY_NAME=Host\n")
    (host / "etc/os-release").symlink_to("/usr/lib/release")  # leads to the host's file, not to ours
    facts = read_facts(tmp_path, HostSpace(root=str(host)))
    assert (facts.machine_id, facts.os_image) == ("abc", "Host")


def dns_service(**spec):
    return msgspec.convert({"metadata": {"name": "kube-dns"}, "spec": spec}, Service)


@pytest.mark.parametrize(
    ("service", "found"),
    [
        (None, []),
        (dns_service(clusterIP="10.96.0.10", clusterIPs=["10.96.0.10"]), ["10.96.0.10"]),
        (dns_service(clusterIP="10.96.0.10"), ["10.96.0.10"]),
        (dns_service(clusterIP="fd00::a", clusterIPs=["fd00::a", "10.96.0.10"]), ["10.96.0.10"]),
        (dns_service(clusterIP="None", clusterIPs=["None"]), []),
        (dns_service(), []),
    ],
)
def test_the_clusters_dns_is_found_by_its_service(service, found):
    assert clusterdns.addresses(service) == found


def dns_pod(policy, host_network=False):
    return msgspec.convert(
        {"metadata": {"name": "p", "namespace": "ns"}, "spec": {"dnsPolicy": policy, "hostNetwork": host_network}}, Pod
    )


def test_pods_have_the_dns_that_the_cluster_has_now(tmp_path):
    known = []
    resolv = tmp_path / "resolv"
    resolv.write_text("nameserver 192.0.2.53\n")
    files = PodFiles(load(resolv_conf=str(resolv)), discovered_dns=lambda: known)
    pod = dns_pod("ClusterFirst")
    assert [note[0] for note in files.write(pod, tmp_path / "a", ("10.0.0.1",))] == ["MissingClusterDNS"]
    known.append("10.96.0.10")
    assert files.write(pod, tmp_path / "b", ("10.0.0.1",)) == []
    assert (tmp_path / "b/resolv.conf").read_text().splitlines()[1:2] == ["nameserver 10.96.0.10"]
    fixed = PodFiles(load(cluster_dns=["10.0.0.53"]), discovered_dns=lambda: known)
    assert (fixed.cluster_dns(), files.cluster_dns()) == (["10.0.0.53"], ["10.96.0.10"])


@pytest.mark.parametrize(
    ("policy", "host_network", "needed"),
    [
        ("ClusterFirst", False, True),
        ("ClusterFirst", True, False),
        ("ClusterFirstWithHostNet", True, True),
        ("Default", False, False),
        ("None", False, False),
    ],
)
def test_only_pods_that_use_the_clusters_dns_wait_for_services(policy, host_network, needed):
    pod = dns_pod(policy, host_network)
    assert PodFiles(load()).need_services(pod) is needed
    assert not PodFiles(load(cluster_dns=["10.0.0.53"])).need_services(pod)
