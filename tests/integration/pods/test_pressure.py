"""Eviction, image collection, figures and shutdown with real containers."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nodewright.controlplane.cluster import LocalCluster
from support.agent_node import MAIN, AgentNode, load_demo_image, wait_until
from support.fake_logind import FakeBus
from support.pod_lab import PodLab

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_cluster]

SIZE = 64 << 20


@pytest.fixture
def small_disk(lab_cluster: LocalCluster, make_node: Callable[..., AgentNode], tmp_path: Path) -> Iterator[PodLab]:
    """A node whose disk is a tmpfs of 64 MiB: it is filled, and nothing else is."""
    node = make_node(eviction_hard={"nodefs.available": "16Mi"}, eviction_pressure_transition_period=2)
    node.state.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "small", str(node.state)], check=True)
    try:
        node.start()
        with PodLab(lab_cluster, node) as made:
            made.wait_ready()
            yield made
    finally:
        node.close()  # unmounts it, too


def condition(lab: PodLab, kind: str) -> Any:
    node = lab.api.read_node(lab.node.name)
    return next(one for one in node.status.conditions if one.type == kind)


def node_events(lab: PodLab) -> list[str]:
    found = lab.api.list_namespaced_event("default", field_selector=f"involvedObject.name={lab.node.name}").items
    return [event.reason for event in found]


def of_pod(pod: Any, kind: str) -> Any:
    return next((one for one in pod.status.conditions if one.type == kind), None)


FILL = "/bin/busybox dd if=/dev/zero of=/data/file bs=1M count={0}; trap 'exit 0' TERM; sleep 1000000 & wait $!"


def filler(megabytes: int, **empty_dir: str) -> dict[str, Any]:
    return {
        "command": ["/bin/sh", "-c", FILL.format(megabytes)],
        "volumes": [{"name": "data", "emptyDir": empty_dir}],
        "container": {"volumeMounts": [{"name": "data", "mountPath": "/data"}]},
    }


def test_the_pod_that_fills_the_disk_goes(small_disk: PodLab) -> None:
    lab = small_disk
    lab.create("quiet")
    lab.wait_phase("quiet", "Running")
    lab.create("greedy", **filler(50))
    gone = lab.wait_phase("greedy", "Failed", 60)
    assert gone.status.reason == "Evicted"
    assert gone.status.message.startswith(
        "The node was low on resource: ephemeral-storage. Threshold quantity: 16Mi, available: "
    )
    target = of_pod(gone, "DisruptionTarget")
    assert (target.status, target.reason) == ("True", "TerminationByKubelet")
    lab.wait_event("greedy", "Evicted", "The node was low on resource: ephemeral-storage.")
    wait_until("the node has told", lambda: "NodeHasDiskPressure" in node_events(lab))
    assert "EvictionThresholdMet" in node_events(lab)
    assert lab.get("quiet").status.phase == "Running", "it used nothing"
    wait_until("the pressure is over", lambda: condition(lab, "DiskPressure").status == "False", 40)
    assert condition(lab, "DiskPressure").reason == "KubeletHasNoDiskPressure"


def test_an_empty_dir_past_its_limit_is_evicted(lab: PodLab) -> None:
    lab.create("large", **filler(3, sizeLimit="1Mi"))
    gone = lab.wait_phase("large", "Failed", 60)
    assert (gone.status.reason, gone.status.message) == (
        "Evicted",
        'Usage of EmptyDir volume "data" exceeds the limit "1Mi". ',
    )


def test_figures(lab: PodLab) -> None:
    lab.create("one", **filler(2))
    lab.wait_phase("one", "Running")
    summary: dict[str, Any] = {}

    def counted() -> bool:
        summary.update(lab.stats_summary())
        pods = {pod["podRef"]["name"]: pod for pod in summary["pods"]}
        return pods.get("one", {}).get("ephemeral-storage", {}).get("usedBytes", 0) >= 2 << 20

    wait_until("the Pod's disk usage", counted, 90, 1.0)
    node = summary["node"]
    assert node["memory"]["workingSetBytes"] + node["memory"]["availableBytes"] > 0
    assert {"fs", "network", "rlimit", "runtime", "cpu", "memory", "systemContainers"} <= node.keys()
    pod = next(pod for pod in summary["pods"] if pod["podRef"]["name"] == "one")
    assert pod["volume"][0]["name"] == "data"
    assert pod["volume"][0]["usedBytes"] >= 2 << 20
    assert pod["process_stats"]["process_count"] >= 1
    container = pod["containers"][0]
    assert {"rootfs", "logs", "cpu", "memory"} <= container.keys()
    assert container["cpu"]["usageCoreNanoSeconds"] > 0
    assert "usageNanoCores" in container["cpu"]
    assert pod["network"]["name"] == "eth0"
    series = lab.ask_node("metrics/cadvisor")
    assert 'container_memory_working_set_bytes{container="main"' in series
    assert "container_network_receive_bytes_total{" in series
    assert f'kubelet_node_name{{node="{lab.node.name}"}} 1' in lab.ask_node("metrics")


def test_under_pressure_only_critical_pods_come(lab_cluster: LocalCluster, make_node: Callable[..., AgentNode]) -> None:
    node = make_node(eviction_hard={"pid.available": "99.9%"})
    node.start()
    try:
        with PodLab(lab_cluster, node) as lab:
            lab.wait_ready()
            wait_until("PID pressure", lambda: condition(lab, "PIDPressure").status == "True", 30)
            lab.create("ordinary")
            refused = lab.wait_phase("ordinary", "Failed")
            assert refused.status.reason == "Evicted"
            assert refused.status.message == "Pod was rejected: The node had condition: [PIDPressure]. "
    finally:
        node.close()


def test_unused_images_go_when_the_disk_is_full(
    lab_cluster: LocalCluster, make_node: Callable[..., AgentNode], tmp_path: Path
) -> None:
    load_demo_image(tmp_path / "store", tmp_path / "demo.tar")
    node = make_node(
        image_root=str(tmp_path / "store"),
        image_gc_high_threshold_percent=1,
        image_gc_low_threshold_percent=0,
        image_minimum_gc_age=0,
    )
    node.start()
    try:
        with PodLab(lab_cluster, node) as lab:
            wait_until("the image is gone", lambda: not list((tmp_path / "store" / "meta" / "images").iterdir()), 30)
            wait_until("and it is said that it was not enough", lambda: "FreeDiskSpaceFailed" in node_events(lab), 30)
    finally:
        node.close()


MAIN_WITH_BUS = "from nodewright_agent.node import logind; logind.Logind.__init__.__defaults__ = ({0!r},); " + MAIN


def test_pods_end_before_the_host_does(
    lab_cluster: LocalCluster, make_node: Callable[..., AgentNode], tmp_path: Path
) -> None:
    node = make_node(shutdown_grace_period=20, shutdown_grace_period_critical_pods=5)

    async def go(lab: PodLab, bus: FakeBus) -> None:
        serving = asyncio.create_task(bus.serve())
        async with asyncio.timeout(30):
            await bus.held.wait()
        lab.create("plain")
        await asyncio.to_thread(lab.wait_phase, "plain", "Running")
        bus.announce(True)
        # The lock is given back when the Pods have ended: then, and not before, the host may go.
        assert await asyncio.to_thread(os.read, bus.read, 1) == b""
        ended = lab.get("plain")
        gone = ended if ended.status.phase == "Failed" else await asyncio.to_thread(lab.wait_phase, "plain", "Failed")
        assert (gone.status.reason, gone.status.message) == (
            "Terminated",
            "Pod was terminated in response to imminent node shutdown.",
        )
        assert of_pod(gone, "DisruptionTarget").reason == "TerminationByKubelet"
        ready = condition(lab, "Ready")
        assert (ready.status, ready.message) == ("False", "node is shutting down")
        lab.create("late")
        refused = await asyncio.to_thread(lab.wait_phase, "late", "Failed")
        assert refused.status.reason == "NodeShutdown"
        serving.cancel()

    async def whole() -> None:
        bus = FakeBus(tmp_path / "bus", 30_000_000)
        try:
            node.start(main=MAIN_WITH_BUS.format(str(tmp_path / "bus")))
            with PodLab(lab_cluster, node) as lab:
                await go(lab, bus)
        finally:
            bus.close()
            node.close()

    asyncio.run(whole())
