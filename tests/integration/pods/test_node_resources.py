"""What a node of its own is needed for: reserved resources, QoS cgroups, preemption, a resize under a killed agent."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kubernetes import client

from nodewright.controlplane.cluster import LocalCluster
from nodewright_agent.runtime import cgroups
from support.agent_node import AgentNode, wait_until
from support.pod_lab import PodLab, restarts
from support.pod_resources import LARGE, amounts, cpu_and_memory, done, limits_of, resize, resources

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_cluster]


def test_a_killed_agent_goes_on_with_a_resize(own_lab: PodLab) -> None:
    lab = own_lab
    first = resources(amounts("100m"), amounts("200m"))
    lab.create("pod", container={"resources": first})
    lab.wait("pod", "it is ready", done(first))
    lab.node.stop(signal.SIGKILL)
    more = resources(amounts("300m"), amounts("400m"))
    resize(lab, "pod", main=more)
    lab.node.start(environment={"NODEWRIGHT_FAILPOINTS": "update.written=exit"})
    assert lab.node.process is not None
    lab.node.process.wait(30)  # killed between the cgroup and the record
    lab.node.start()
    pod = lab.wait("pod", "the resize is done", done(more))
    assert cpu_and_memory(lab, pod) == cpu_and_memory(lab, pod, container=False) == (307, 40_000, -1)
    assert restarts(pod) == 0


@pytest.fixture
def small_node(lab_cluster: LocalCluster, make_node: Callable[..., AgentNode], tmp_path: Path) -> Iterator[PodLab]:
    """A node that gives one core away, with another OCI runtime and a limit of processes."""
    program = tmp_path / "own-runtime"
    runc = shutil.which("runc")
    program.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/calls\nexec {runc} "$@"\n')
    program.chmod(0o755)
    node = make_node(
        reserved_cpu=f"{len(os.sched_getaffinity(0)) * 1000 - 1000}m",
        reserved_memory="64Mi",
        pod_pids_limit=77,
        runtime_handlers={"own": str(program)},
        pod_cidr="10.222.9.0/24",
    )
    node.start()
    try:
        with PodLab(lab_cluster, node) as made:
            made.wait_ready()
            yield made
    finally:
        node.close()


def test_node_wide_settings_and_preemption(small_node: PodLab, tmp_path: Path) -> None:
    lab, found = small_node, cgroups.detect()
    root = f"{lab.node.cgroup_root}/kubepods"
    client.NodeV1Api(lab.api.api_client).create_runtime_class({"metadata": {"name": "own"}, "handler": "own"})
    lab.create("one", container={"resources": resources(amounts("600m"))}, runtimeClassName="own")
    lab.create("two", container={"resources": resources(amounts("300m"))})
    pod = lab.wait_phase("one", "Running")
    lab.wait_phase("two", "Running")
    assert "create" in (tmp_path / "calls").read_text()
    assert limits_of(lab, pod, container=False).pids == 77
    assert found.limits(f"{root}/burstable").cpu_shares == 921
    assert found.limits(f"{root}/besteffort").cpu_shares == 2
    capacity = lab.api.read_node(lab.node.name).status.capacity["memory"]
    whole = found.limits(root)
    assert whole.cpu_shares == 1024
    assert abs((whole.memory or 0) - (int(capacity.removesuffix("Ki")) << 10) + LARGE) < 1 << 12

    lab.create("refused", container={"resources": resources(amounts("200m"))})
    assert lab.wait_phase("refused", "Failed").status.reason == "OutOfcpu"
    name = "system-node-critical"
    lab.create("critical", container={"resources": resources(amounts("500m"))}, priorityClassName=name)
    victim = lab.wait_phase("one", "Failed")
    assert (victim.status.reason, victim.status.message) == ("Preempting", "Preempted in order to admit critical pod")
    disruption = next(c for c in victim.status.conditions if c.type == "DisruptionTarget")
    assert (disruption.status, disruption.reason) == ("True", "TerminationByKubelet")
    lab.wait_phase("critical", "Running")
    assert lab.get("two").status.phase == "Running"
    wait_until("the share is given back", lambda: found.limits(f"{root}/burstable").cpu_shares == 819, 10)
