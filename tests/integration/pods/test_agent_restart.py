"""The agent is killed and started again: containers go on, ends are reported, nothing is left behind."""

import os
import signal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nodewright.controlplane.assets import Assets
from support.agent_node import wait_until
from support.pod_lab import PodLab, main_status, restarts, walk_cgroups

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_cluster]


def processes(lab: PodLab) -> dict[str, int]:
    """Container id to process id of what runs, from the kernel."""
    found = {}
    for path, _, _ in walk_cgroups(lab.node.cgroup_root):
        group = Path(path)
        if not group.parent.name.startswith("pod"):
            continue
        try:
            pids = (group / "cgroup.procs").read_text().split()
        except OSError:
            continue  # it was removed meanwhile
        if pids:
            found[group.name] = int(pids[0])
    return found


def container_id(pod: Any) -> str:
    return str(main_status(pod).container_id).removeprefix("nodewright://")


def test_containers_live_through_a_kill(own_lab: PodLab) -> None:
    lab = own_lab
    lab.create("stays")
    before = lab.wait_phase("stays", "Running")
    pids = processes(lab)
    lab.node.stop(signal.SIGKILL)
    assert processes(lab) == pids
    lab.node.start()
    lab.create("next")
    lab.wait_phase("next", "Running")
    after = lab.get("stays")
    assert container_id(after) == container_id(before)
    assert main_status(after).restart_count == 0
    assert main_status(after).ready
    assert after.status.pod_ip == before.status.pod_ip
    assert after.status.conditions == before.status.conditions
    assert processes(lab)[container_id(before)] == pids[container_id(before)]


def test_an_end_while_the_agent_was_away_is_reported(own_lab: PodLab) -> None:
    lab = own_lab
    lab.create("ends", ["/bin/sh", "-c", "trap 'exit 9' USR1; while :; do sleep 0.1; done"], restartPolicy="Never")
    pod = lab.wait_phase("ends", "Running")
    pid = processes(lab)[container_id(pod)]
    lab.node.stop(signal.SIGKILL)
    os.kill(pid, signal.SIGUSR1)
    wait_until("the container's end", lambda: not processes(lab))
    lab.node.start()
    pod = lab.wait_phase("ends", "Failed")
    assert main_status(pod).state.terminated.exit_code == 9
    assert main_status(pod).restart_count == 0


def test_a_pod_deleted_while_the_agent_was_away_is_cleaned_up(own_lab: PodLab) -> None:
    lab = own_lab
    lab.create("forced")
    lab.create("asked")
    lab.wait_phase("forced", "Running")
    lab.wait_phase("asked", "Running")
    lab.node.stop(signal.SIGTERM)
    lab.delete("forced", grace=0)
    lab.delete("asked")
    lab.node.start()
    lab.wait_gone("asked")
    wait_until("nothing is left", lambda: not lab.on_host() and not processes(lab))


def test_a_lost_record_costs_no_container(own_lab: PodLab) -> None:
    lab = own_lab
    uid = lab.create("stays")
    before = lab.wait_phase("stays", "Running")
    lab.node.stop(signal.SIGKILL)
    (lab.node.state / "pods" / uid / "pod.json").unlink(missing_ok=True)
    lab.node.start()
    lab.create("next")
    lab.wait_phase("next", "Running")
    after = lab.get("stays")
    assert container_id(after) == container_id(before)
    assert main_status(after).restart_count == 0
    assert after.status.phase == "Running"


def test_pods_are_restarted_while_the_api_server_is_away(own_lab: PodLab) -> None:
    """The agent itself was restarted meanwhile, and knows the Pod from its record only."""
    lab = own_lab
    lab.create("loyal", ["/bin/sh", "-c", "trap 'exit 4' USR1; while :; do sleep 0.1; done"])
    pod = lab.wait_phase("loyal", "Running")
    record = lab.node.state / "pods" / pod.metadata.uid / "pod.json"
    wait_until("the record", lambda: record.exists() and _phase(record) == "Running")
    pid = processes(lab)[container_id(pod)]
    lab.cluster.component("kube-apiserver").stop()
    try:
        os.kill(pid, signal.SIGUSR1)
        wait_until("a new container", lambda: _others(lab, container_id(pod)))
    finally:
        lab.cluster.start_apiserver(Assets().obtain(["kube-apiserver"])["kube-apiserver"])
    after = lab.wait("loyal", "the restart is reported", lambda pod: restarts(pod) == 1)
    assert main_status(after).last_state.terminated.exit_code == 4


def _others(lab: PodLab, known: str) -> list[str]:
    return [cid for cid in processes(lab) if cid != known]


def _phase(record: Path) -> str:
    return str(msgspec.json.decode(record.read_bytes())["pod"]["status"]["phase"])
