"""An agent in a container: what it starts lives in the host's namespace, survives the container, and is found again."""

import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodewright_agent.runtime import cleanup, mountinfo, processes
from support.runtime_host import Host
from support.two_namespaces import TwoNamespaces, two_namespaces

pytestmark = pytest.mark.needs_root


@pytest.fixture
def node(host: Host, tmp_path: Path) -> Iterator[TwoNamespaces]:
    work = tmp_path / "work"
    work.mkdir()
    try:
        with two_namespaces(host, work) as here:
            yield here
    finally:
        host.cgroups.kill(f"/nodewright-{host.name}")
        cleanup.kill_helpers(str(host.run))
        host.cgroups.remove(f"/nodewright-{host.name}")


def test_containers_outlive_the_agents_container(node: TwoNamespaces, host: Host):
    agent = node.start("start")
    started = node.answer(agent)
    pid, monitor = started["pid"], started["monitor"]
    wait_for_log(host, "ready")
    assert host.lines("c1") == ["hello from the host", "inner", "nameserver 192.0.2.53", "devices", "ready"]
    assert (node.data / "made-by-the-container").read_text() == "made\n"
    assert (node.data / "new/er").is_dir()

    namespace = os.readlink(node.space.mounts)
    assert os.readlink(f"/proc/{monitor}/ns/mnt") == namespace
    assert os.readlink(f"/proc/{agent.pid}/ns/mnt") != namespace
    assert os.readlink(f"/proc/{monitor}/cwd") == str(host.run / "a/runtime/c/c1")
    assert foreign_files(node, monitor) == []
    assert node.host.cgroups.pids(node.cgroup) == {agent.pid}
    below = [point for point in node.mounts() if point.endswith(("/rootfs", "/net", "/uts", "/shm", "/scratch", "/1"))]
    assert len(below) == 6, node.mounts()

    assert any(point.endswith("/scratch/inner") for point in node.mounts()), "Bidirectional reaches the host"
    assert node.kill(agent) == {agent.pid}
    assert processes.in_cgroup(pid, f"{host.cgroup_root}/kubepods")
    assert processes.command_line(monitor)[0].endswith("conmon")
    assert below == [point for point in node.mounts() if point in below]

    again = node.start("recover")
    answer = node.answer(again)
    assert answer == {
        "phases": ["running"],
        "pid": pid,
        "exec": "scratch\n",
        "sandbox": True,
        "code": 7,
        "reason": "",
    }
    again.communicate(timeout=10)
    assert host.lines("c1")[-1] == "bye"
    left = [point for point in node.mounts() if not point.endswith(("/scratch", "/inner", "/1"))]
    assert left == [], "a container's root or a namespace is still mounted on the host"


@pytest.mark.parametrize("propagation", ["private", "slave"])
@pytest.mark.parametrize("which", ["run", "state"])
def test_without_bidirectional_propagation_the_agent_does_not_start(
    node: TwoNamespaces, host: Host, propagation: str, which: str
):
    directory = {"run": host.run / "a/runtime", "state": host.state / "a/containers"}[which]
    process = node.start("start", spoil=f"mount --make-{propagation} {getattr(host, which)}")
    error = node.answer(process)["error"]
    process.communicate(timeout=10)
    assert f"{which}_dir {directory}" in error
    assert f"with {propagation} propagation" in error
    assert "mountPropagation: Bidirectional" in error


def test_another_directory_of_the_same_name_is_noticed(node: TwoNamespaces, host: Host):
    process = node.start("start", spoil=f"mount --make-private {host.run}; mount -t tmpfs none {host.run}")
    error = node.answer(process).get("error", "")
    process.communicate(timeout=10)
    assert "is not the host's directory of that name" in error


def test_cleanup_leaves_nothing_on_the_host(node: TwoNamespaces, host: Host):
    agent = node.start("start")
    monitor = node.answer(agent)["monitor"]
    wait_for_log(host, "ready")
    config, tools = node.work / "agent.json", node.work / "tools"
    # The agent's image has the folder, the host has not.
    tools.mkdir()
    (node.work / "image").mkdir()
    (node.work / "image/PREFIX").write_text(f"{host.state}/host/abcd\n")
    (host.state / "host/abcd").mkdir(parents=True)
    settings = {
        "state_dir": f"{host.state}/a",
        "run_dir": f"{host.run}/a",
        "log_dir": str(host.logs),
        "cgroup_root": host.cgroup_root,
        "host_mounts": node.space.mounts,
        "node_ip": "127.0.0.1",
        "copy_topology_labels": True,
        "host_tools": str(tools),
    }
    config.write_text(json.dumps(settings))
    with open(host.state / "a/agent.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert cleanup_says(node, 3, config, "0.3").startswith("error: an agent is still running on this host")
    assert processes.command_line(monitor), "nothing is touched while an agent is at work"
    node.kill(agent)

    said = cleanup_says(node, 0, config, "5").splitlines()
    assert said[0].endswith(f"processes, cgroup {host.cgroup_root}")
    assert said[1] == "mounts: 8 mounts"
    assert said[-1] == "nothing of Nodewright is left on this host"
    assert processes.command_line(monitor) == []
    assert node.mounts() == []
    assert not host.cgroups.exists(host.cgroup_root)
    assert list(host.run.iterdir()) == list(host.state.iterdir()) == []
    assert (node.data / "greeting").exists(), "what a hostPath volume showed is not ours"
    host.logs.mkdir()

    again = cleanup_says(node, 0, config, "5").splitlines()
    assert again[:4] == [f"{name}: nothing there" for name in ("containers", "mounts", "network", "service rules")]


def cleanup_says(node: TwoNamespaces, code: int, config: Path, wait: str) -> str:
    image = f"mount --bind {node.work}/image {node.work}/tools"
    process = node.run("nodewright.cli.main", "cleanup", f"--config={config}", f"--wait={wait}", spoil=image)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == code, output + errors
    return output + errors


def wait_for_log(host: Host, word: str) -> None:
    import time

    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if (host.logs / "c1/0.log").exists() and word in host.lines("c1"):
            return
        time.sleep(0.02)
    raise AssertionError(f"{word!r} is not in the log")


def foreign_files(node: TwoNamespaces, pid: int) -> list[str]:
    """What a process has open (or stands in) by a mount that is not of the host's namespace."""
    known = {entry.mount_id for entry in node.space.call(mountinfo.read)}
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        target = os.readlink(f"/proc/{pid}/fd/{name}")
        lines = Path(f"/proc/{pid}/fdinfo/{name}").read_text().splitlines()
        mount = next(int(line.split()[1]) for line in lines if line.startswith("mnt_id:"))
        if target.startswith("/") and mount not in known:
            found.append(f"{name}: {target}")
    return found
