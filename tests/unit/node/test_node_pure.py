"""The node's pure parts: settings, facts, conditions, status, patch."""

import json

import pytest

from nodewright.kube.objects import NodeCondition
from nodewright_agent import config as settings
from nodewright_agent.node.conditions import node_conditions, pressures, transitions
from nodewright_agent.node.facts import Availability, HostFacts, meminfo, os_image
from nodewright_agent.node.registration import initial_node
from nodewright_agent.node.status import allocatable, capacity, changed, node_status, node_status_patch

FACTS = HostFacts("m", "u", "b", "6.1", "Debian", "amd64", 4, 8 << 30, 100 << 30, {"hugepages-2Mi": 4 << 20})
GOOD = Availability(1 << 30, 50, 100, 50, 100, 1000, 4000)


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
        ({"proxy_mode": "magic"}, "proxy_mode: 'magic' is none of"),
        ({"tls_cert_file": "/x"}, "give both or none"),
        ({"crash_backoff_initial": 50, "crash_backoff_max": 20}, "crash_backoff_initial: is above"),
        ({"max_pods": "many"}, "max_pods"),
        ({"unknown_key": 1}, "unknown_key"),
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


@pytest.mark.parametrize(
    ("left", "short"),
    [
        (GOOD, set()),
        (Availability(50 << 20, 50, 100, 50, 100, 1000, 4000), {"MemoryPressure"}),
        (Availability(1 << 30, 9, 100, 50, 100, 1000, 4000), {"DiskPressure"}),
        (Availability(1 << 30, 50, 100, 4, 100, 1000, 4000), {"DiskPressure"}),
        (Availability(1 << 30, 50, 100, 0, 0, 1000, 4000), set()),
        (Availability(1 << 30, 50, 100, 50, 100, 10, 4000), {"PIDPressure"}),
    ],
)
def test_pressures(left, short):
    assert {name for name, value in pressures(left).items() if value} == short


def test_conditions_in_upstreams_words():
    made = node_conditions([], pressures(GOOD), [], "t1")
    assert [(c.type, c.status, c.reason) for c in made] == [
        ("MemoryPressure", "False", "KubeletHasSufficientMemory"),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID"),
        ("Ready", "True", "KubeletReady"),
    ]
    later = node_conditions(made, pressures(GOOD), ["a", "b"], "t2")
    assert (later[-1].status, later[-1].reason, later[-1].message) == ("False", "KubeletNotReady", "[a, b]")
    assert later[-1].last_transition_time == "t2"
    assert later[0].last_transition_time == "t1"
    assert transitions(made, later) == ["NodeNotReady"]
    assert transitions([], made)[0] == "NodeHasSufficientMemory"


def test_heartbeats_alone_are_no_change():
    config = load()
    first = node_status(config, FACTS, node_conditions([], pressures(GOOD), [], "t1"), [])
    second = node_status(config, FACTS, node_conditions(first.conditions, pressures(GOOD), [], "t2"), [])
    assert not changed(first, second)
    first.conditions.append(NodeCondition("NetworkUnavailable", "False"))
    assert not changed(first, second)
    third = node_status(config, FACTS, node_conditions(first.conditions, pressures(GOOD), ["x"], "t3"), [])
    assert changed(first, third)
    assert node_status_patch(third)["status"]["addresses"][-1] == {"$patch": "replace"}
    assert third.node_info is not None
    assert (third.node_info.kubelet_version, third.node_info.kube_proxy_version) == ("v1.36.3", "")


def test_labels_and_taints_at_registration():
    config = load(node_labels={"zone": "z"}, register_with_taints=[{"key": "k", "effect": "NoSchedule"}])
    node = initial_node(config, FACTS, node_status(config, FACTS, [], []))
    assert node.metadata.labels["zone"] == "z"
    assert node.metadata.labels["kubernetes.io/hostname"] == "n1"
    assert node.metadata.labels["kubernetes.io/arch"] == "amd64"
    assert [(taint.key, taint.effect) for taint in node.spec.taints] == [("k", "NoSchedule")]
