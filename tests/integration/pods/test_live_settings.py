"""NodeAgentConfig and a running agent: Pods, logs, and what it cannot do."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client

from nodewright.controlplane.cluster import LocalCluster
from support.agent_node import AgentNode, wait_until
from support.pod_lab import PodLab

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_cluster]

KIND = ("nodewright.dev", "v1alpha1", "nodeagentconfigs")


class Settings:
    """One NodeAgentConfig for the node under test."""

    def __init__(self, lab: PodLab) -> None:
        self.api = client.CustomObjectsApi(lab.api.api_client)
        self.lab, self.name = lab, f"c-{lab.node.name}"
        self.made = False

    def put(self, **spec: Any) -> None:
        """Create it, or change fields; None removes one."""
        if self.made:
            self.api.patch_cluster_custom_object(*KIND, self.name, {"spec": spec})
            return
        selector = {"matchLabels": {"kubernetes.io/hostname": self.lab.node.name}}
        body = {
            "apiVersion": "nodewright.dev/v1alpha1",
            "kind": "NodeAgentConfig",
            "metadata": {"name": self.name},
            "spec": {"nodeSelector": selector, **spec},
        }
        self.api.create_cluster_custom_object(*KIND, body)
        self.made = True

    def get(self) -> Any:
        return self.api.get_cluster_custom_object(*KIND, self.name)

    def condition(self) -> Any:
        """The node's Applied condition for the present generation; None while there is none."""
        obj = self.get()
        for entry in obj.get("status", {}).get("nodes", []):
            if entry["name"] == self.lab.node.name and entry["observedGeneration"] == obj["metadata"]["generation"]:
                return entry["conditions"][0]
        return None

    def wait_applied(self) -> Any:
        return wait_until(f"an answer of the node\n{self.lab.node.text()[-3000:]}", self.condition, 20)

    def delete(self) -> None:
        if self.made:
            self.api.delete_cluster_custom_object(*KIND, self.name)
            self.made = False


@pytest.fixture
def settings(lab: PodLab) -> Iterator[Settings]:
    made = Settings(lab)
    yield made
    made.delete()


def pods_of(lab: PodLab) -> tuple[str, str]:
    status = lab.api.read_node(lab.node.name).status
    return status.capacity["pods"], status.allocatable["pods"]


def test_max_pods_is_announced_and_admitted(lab: PodLab, settings: Settings) -> None:
    before = pods_of(lab)
    lab.create("one")
    lab.wait_phase("one", "Running")
    settings.put(maxPods=1)
    answer = settings.wait_applied()
    assert (answer["status"], answer["reason"]) == ("True", "Applied")
    wait_until("the Node says so", lambda: pods_of(lab) == ("1", "1"), 10)
    lab.create("two", restartPolicy="Never")
    refused = lab.wait_phase("two", "Failed")
    assert refused.status.reason == "OutOfpods"
    assert lab.get("one").status.phase == "Running", "what runs stays"
    settings.put(maxPods=None)
    wait_until("the file's value is back", lambda: pods_of(lab) == before, 10)


def test_pressure_settings_are_obeyed_and_what_is_wrong_is_named(lab: PodLab, settings: Settings) -> None:
    before = lab.api.read_node(lab.node.name).status.allocatable["memory"]
    settings.put(
        maxPods=50,
        evictionHard={"memory.available": "1Gi"},
        imageGCHighThresholdPercent=100,
        proxy={"mode": "nftables"},
    )
    answer = settings.wait_applied()
    assert (answer["status"], answer["reason"]) == ("True", "Applied")
    assert "proxy.mode: the host's service proxy obeys the configurations of its own Node" in answer["message"]

    def allocatable() -> int:
        return int(lab.api.read_node(lab.node.name).status.allocatable["memory"].removesuffix("Ki"))

    less = int(before.removesuffix("Ki")) - (1 << 20) + (100 << 10)
    wait_until("what eviction keeps free is not allocatable", lambda: allocatable() == less, 10)
    settings.put(imageGCHighThresholdPercent=None, imageGCLowThresholdPercent=90)
    answer = settings.wait_applied()
    assert (answer["status"], answer["reason"]) == ("False", "NotPossible")
    assert "imageGCLowThresholdPercent 90 is not below imageGCHighThresholdPercent 85" in answer["message"]
    settings.put(nodeSelector={"matchLabels": {"kubernetes.io/hostname": "another"}})
    wait_until("the entry goes", lambda: not settings.get().get("status", {}).get("nodes"), 10)
    wait_until("and the setting", lambda: pods_of(lab) == ("110", "110"), 10)
    wait_until("of eviction, too", lambda: f"{allocatable()}Ki" == before, 10)


class Follower(threading.Thread):
    """`kubectl logs -f`."""

    def __init__(self, lab: PodLab, pod: str) -> None:
        super().__init__(daemon=True)
        self.stream = lab.api.read_namespaced_pod_log(pod, lab.namespace, follow=True, _preload_content=False)
        self.data = b""
        self.start()

    def run(self) -> None:
        for chunk in self.stream.stream():
            self.data += chunk


def test_logs_are_rotated_while_somebody_follows(lab: PodLab, settings: Settings) -> None:
    script = (
        "n=0; while [ $n -lt 4000 ]; do echo line $n of a log that is rotated; n=$((n+1)); "
        "[ $((n % 20)) -ne 0 ] || sleep 0.05; done"
    )
    uid = lab.create("writer", ["/bin/sh", "-c", script], restartPolicy="Never")
    lab.wait("writer", "writer runs", lambda pod: pod.status.phase in ("Running", "Succeeded"), 30)
    follower = Follower(lab, "writer")
    directory = next((lab.node.state / "pods-logs").glob(f"*_{uid}")) / "main"

    def rotated() -> list[Path]:
        return sorted(directory.glob("0.log.2*"))

    for number in range(4):
        time.sleep(1.1)  # names of rotated files have seconds
        # Other limits are looked at at once; else it would be every ten seconds.
        settings.put(containerLogMaxSize="4Ki", containerLogMaxFiles=4 + number % 2)
        assert settings.wait_applied()["reason"] == "Applied"
        least = min(number + 1, 3)
        wait_until("a rotated log", lambda least=least: len(rotated()) >= least, 10)
    lab.wait_phase("writer", "Succeeded", 60)
    follower.join(20)
    lines = follower.data.decode().splitlines()
    assert lines == [f"line {n} of a log that is rotated" for n in range(4000)]
    kept = rotated()
    assert 2 <= len(kept) <= 4
    assert [path.suffix for path in kept[:-1]] == [".gz"] * (len(kept) - 1)
    assert kept[-1].suffix != ".gz"
    assert b" stdout F line " in gzip.decompress(kept[0].read_bytes())
    shown = lab.logs("writer").splitlines()
    assert shown[-1] == lines[-1]
    assert 0 < len(shown) < 4000, "as with kubelet: the current file"


def test_the_proxy_in_the_agent_answers(lab_cluster: LocalCluster, make_node: Callable[..., AgentNode]) -> None:
    node = make_node(proxy_mode="auto", proxy_healthz_port=0, proxy_metrics_port=0, pod_cidr="10.222.8.0/24")
    node.start()
    try:
        with PodLab(lab_cluster, node) as lab:
            lab.wait_ready()
            settings = Settings(lab)
            settings.put(proxy={"mode": "nftables"}, containerLogMaxFiles=3)
            answer = settings.wait_applied()
            assert (answer["status"], answer["reason"]) == ("True", "Applied")
            (entry,) = settings.get()["status"]["nodes"]
            assert entry["proxyMode"] == "nftables"
            settings.put(proxy={"mode": "iptables"})
            answer = settings.wait_applied()
            assert (answer["status"], answer["reason"]) == ("False", "NotPossible")
            assert "no iptables backend" in answer["message"]
            settings.delete()
    finally:
        node.close()
