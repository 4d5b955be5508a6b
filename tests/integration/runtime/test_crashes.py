"""The agent is killed at every step; the next one recovers, and a purge alone leaves nothing either."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nodewright_agent import failpoints
from nodewright_agent.runtime import cleanup, processes, syscalls
from nodewright_agent.runtime.errors import CreateContainerError
from nodewright_agent.runtime.exits import MONITOR_LOST
from nodewright_agent.runtime.recovery import HOST_RESTARTED
from nodewright_agent.runtime.runtime import Runtime
from nodewright_agent.runtime.sandbox import Sandboxes
from nodewright_agent.runtime.spec import Phase
from support.runtime_host import Host

pytestmark = pytest.mark.needs_root

ROOT = Path(__file__).parents[3]
BEFORE_START = [
    "sandbox.before",
    "sandbox.pinned",
    "sandbox.shm",
    "create.before",
    "create.recorded",
    "create.directories",
    "create.mounted",
    "create.config",
    "conmon.spawned",
    "conmon.released",
    "create.answered",
    "create.done",
    "start.recorded",
]
STARTED = ["start.released", "start.done", "exit.seen", "exit.recorded"]
REMOVING = [
    "wipe.helpers",
    "wipe.cgroup",
    "sandbox.remove",
    "purge.helpers",
    "purge.killed",
    "purge.cgroups",
    "purge.unmounted",
]


def agent(host: Host, failpoint: str, *command: str) -> subprocess.Popen:
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("operator", "nodeagent", "tests")),
        "NODEWRIGHT_FAILPOINTS": f"{failpoint}=exit" if failpoint else "",
    }
    words = [host.run, host.state, host.cgroup_root, host.layer, host.logs / "victim.log"]
    argv = [sys.executable, "-m", "support.runtime_agent", *map(str, words), *command]
    host.state.mkdir(exist_ok=True)
    return subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def killed_at(host: Host, failpoint: str, *command: str) -> None:
    process = agent(host, failpoint, *command)
    output = process.communicate(timeout=50)
    assert process.returncode == failpoints.EXIT_CODE, output


def test_the_agent_script_reaches_its_end(host: Host):
    process = agent(host, "", "true")
    output = process.communicate(timeout=50)
    assert process.returncode == 0, output
    assert output[0].split() == ["started", "clean"]


@pytest.mark.parametrize("failpoint", BEFORE_START)
async def test_killed_before_the_container_was_let_go(host: Host, failpoint: str):
    killed_at(host, failpoint, "sleep", "1000")
    runtime = host.runtime()
    await runtime.open()
    try:
        assert await runtime.list() == []
        assert runtime.store.ids() == set()
        assert host.exits == []
        assert runtime.cgroups.pids(f"{host.cgroup_root}/kubepods") == set()
        assert processes.with_argument(str(host.run)) == []
        # The same container can be made now.
        paths = await Sandboxes(host.run / "sandboxes").create("pod-1", "pod")
        await runtime.create(host.spec("victim", "sh", "-c", "exit 5", netns=paths.net))
        await runtime.start("victim")
        assert (await runtime.wait("victim")).code == 5
    finally:
        await runtime.close()


@pytest.mark.parametrize("failpoint", STARTED)
async def test_killed_when_the_container_ran_or_had_ended(host: Host, failpoint: str):
    # Long enough that the agent which is killed at "start" cannot have seen the end.
    killed_at(host, failpoint, "sh", "-c", "sleep 0.5; exit 7")
    runtime = host.runtime()
    await runtime.open()
    try:
        assert (await runtime.wait("victim")).code == 7
        assert [record.id for record in await runtime.list()] == ["victim"]
        # Reported, unless the killed agent had written it down: then the list tells it.
        assert [(cid, info.code) for cid, info in host.exits] == (
            [] if failpoint == "exit.recorded" else [("victim", 7)]
        )
        await runtime.delete("victim")
        assert runtime.store.ids() == set()
    finally:
        await runtime.close()


@pytest.mark.parametrize("failpoint", [*BEFORE_START, *STARTED, *REMOVING])
def test_killed_anywhere_a_purge_leaves_nothing(host: Host, failpoint: str):
    killed_at(host, failpoint, "true")
    cleanup.purge(run_dir=host.run, state_dir=host.state, cgroup_root=host.cgroup_root, cgroups=host.cgroups)
    assert host.leftovers() == {}
    cleanup.purge(run_dir=host.run, state_dir=host.state, cgroup_root=host.cgroup_root, cgroups=host.cgroups)


async def test_a_new_agent_finds_running_containers_and_what_ended_meanwhile(host: Host):
    first = host.runtime()
    await first.open()
    for cid, script in (("stays", "sleep 1000"), ("ends", "sleep 0.3; exit 9")):
        await first.create(host.spec(cid, "sh", "-c", script))
        await first.start(cid)
    pids = {record.id: record.state.pid for record in await first.list()}
    await first.close()
    await processes.gone(pids["ends"])
    while not first.layout.exit_file("ends").exists():  # noqa: ASYNC110 - written by the monitor, with no agent to tell
        await asyncio.sleep(0.01)
    assert host.exits == []

    second = host.runtime()
    await second.open()
    try:
        assert [(cid, info.code) for cid, info in host.exits] == [("ends", 9)]
        records = {record.id: record for record in await second.list()}
        assert records["stays"].state.phase is Phase.RUNNING
        assert records["stays"].state.pid == pids["stays"]
        assert (await second.exec("stays", ["echo", "here"])).stdout == b"here\n"
        await second.kill("stays", "KILL")
        assert (await second.wait("stays")).code == 137
    finally:
        await second.close()


async def test_an_agent_process_that_is_killed_leaves_its_container_running(host: Host):
    process = agent(host, "", "sh", "-c", "sleep 1000")
    assert process.stdout.readline() == "started\n"
    process.kill()
    process.communicate()
    runtime = host.runtime()
    await runtime.open()
    try:
        (record,) = await runtime.list()
        assert record.state.phase is Phase.RUNNING
        await runtime.kill("victim", signal.SIGTERM)
        await runtime.kill("victim", signal.SIGKILL)
        assert (await runtime.wait("victim")).code == 137
    finally:
        await runtime.close()


@pytest.mark.parametrize("while_away", [False, True])
async def test_a_killed_monitor_ends_its_container(host: Host, while_away: bool):
    runtime = host.runtime()
    await runtime.open()
    await runtime.create(host.spec("lost", "sleep", "1000"))
    await runtime.start("lost")
    (record,) = await runtime.list()
    if while_away:
        await runtime.close()
    os.kill(record.state.monitor_pid, signal.SIGKILL)
    if while_away:
        cleanup.kill_helpers(str(runtime.layout.bundle("lost")))
        runtime = host.runtime()
        await runtime.open()
    try:
        info = await runtime.wait("lost")
        assert (info.code, info.reason) == (137, MONITOR_LOST)
        assert [cid for cid, _ in host.exits] == ["lost"]
        assert runtime.cgroups.pids(record.cgroup) == set()
    finally:
        await runtime.close()


@pytest.mark.parametrize("boot", ["another", None], ids=["reboot", "restart of a host that is a container"])
async def test_after_a_reboot_containers_are_reported_as_ended(
    host: Host, monkeypatch: pytest.MonkeyPatch, boot: str | None
):
    runtime = host.runtime()
    await runtime.open()
    await runtime.create(host.spec("old", "sleep", "1000"))
    await runtime.start("old")
    await runtime.close()
    # A reboot takes processes, cgroups, mounts and /run; records and writable layers stay.
    cleanup.purge(run_dir=host.run, state_dir=host.state / "none", cgroup_root=host.cgroup_root, cgroups=host.cgroups)
    if boot is not None:
        monkeypatch.setattr("nodewright_agent.runtime.recovery.boot_id", lambda: boot)
    runtime = host.runtime()
    await runtime.open()
    try:
        assert [(cid, info.code, info.reason) for cid, info in host.exits] == [("old", 255, HOST_RESTARTED)]
        await runtime.delete("old")
        assert runtime.store.ids() == set()
    finally:
        await runtime.close()


async def test_records_of_older_versions_do_not_look_like_a_restart(host: Host):
    runtime = host.runtime()
    await runtime.open()
    await runtime.create(host.spec("old", "sleep", "1000"))
    await runtime.start("old")
    (record,) = await runtime.list()
    await runtime.close()
    record.state.run_id = ""
    runtime.store.write_state("old", record.state)
    runtime.layout.run_id.unlink()
    runtime = host.runtime()
    await runtime.open()
    try:
        (record,) = await runtime.list()
        assert record.state.phase is Phase.RUNNING
    finally:
        await runtime.delete("old", force=True)
        await runtime.close()


async def test_purge_by_a_running_runtime(host: Host):
    runtime = host.runtime()
    await runtime.open()
    await Sandboxes(host.run / "sandboxes").create("pod-1", "pod")
    for cid in ("a", "b"):
        await runtime.create(host.spec(cid, "sleep", "1000"))
    await runtime.start("a")
    await runtime.purge()
    await runtime.purge()
    assert not runtime.layout.run.exists()
    assert not runtime.layout.state.exists()
    assert not runtime.cgroups.exists(host.cgroup_root)


async def test_a_full_disk_is_an_error_of_that_container_alone(host: Host, runtime: Runtime):
    await runtime.create(host.spec("before", "sleep", "1000"))
    await runtime.start("before")
    syscalls.mount("tmpfs", str(runtime.layout.bundles), "tmpfs", 0, "size=4k")
    (runtime.layout.bundles / "filler").write_bytes(b"x" * 4096)
    with pytest.raises(CreateContainerError, match="No space left on device"):
        await runtime.create(host.spec("full", "true"))
    syscalls.umount(str(runtime.layout.bundles))
    assert runtime.store.ids() == {"before"}
    await runtime.create(host.spec("full", "true"))
    assert len(await runtime.list()) == 2
