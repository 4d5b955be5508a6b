"""Containers in user namespaces, on a real host: who owns what on which side."""

import os
import stat
from pathlib import Path

import pytest

from nodewright_agent.runtime import userns
from nodewright_agent.runtime.runtime import Runtime
from nodewright_agent.runtime.sandbox import Sandboxes
from nodewright_agent.runtime.spec import IdRange, Mount
from support.runtime_host import Host

pytestmark = pytest.mark.needs_root

IDS = IdRange(65536 * 7, 65536)


@pytest.fixture(autouse=True)
def able(tmp_path: Path) -> None:
    if reason := userns.probe(tmp_path / "probe", [tmp_path]):
        pytest.skip(reason)


async def run(runtime: Runtime, spec) -> int:
    await runtime.create(spec)
    await runtime.start(spec.id)
    return (await runtime.wait(spec.id)).code


async def sandboxed(sandboxes: Sandboxes, **settings) -> dict[str, object]:
    paths = await sandboxes.create("pod-1", "inside", ids=IDS, **settings)
    return {
        "user_ns": paths.user,
        "ids": IDS,
        "netns": paths.net,
        "ipc_ns": paths.ipc,
        "uts_ns": paths.uts,
    }


async def test_root_is_nobody_outside(runtime: Runtime, host: Host, sandboxes: Sandboxes):
    volume = host.state.parent / "volume"
    volume.mkdir()
    (volume / "given").write_text("x")
    os.chown(volume / "given", 1000, 2000)
    script = (
        "cat /proc/self/uid_map; id -u; hostname; stat -c '%u:%g' /bin/busybox /v/given /v /end;"
        "echo new > /v/made; echo new > /made; echo bye > /end; stat -c '%u:%g' /v/made /made;"
        "cat /proc/sys/net/ipv4/ip_unprivileged_port_start; sleep 1000"
    )
    own = await sandboxed(sandboxes, sysctl={"net.ipv4.ip_unprivileged_port_start": "7"})
    message = host.state.parent / "end"
    message.touch()
    spec = host.spec(
        "u",
        "sh",
        "-c",
        script,
        mounts=[Mount(str(volume), "/v")],
        termination_log=str(message),
        termination_message_path="/end",
        **own,
    )
    await runtime.create(spec)
    await runtime.start("u")
    shown = await runtime.exec("u", ["sh", "-c", "id -u; echo exec > /v/exec; stat -c %u /v/exec"])
    assert shown.stdout == b"0\n0\n"
    record = next(iter(await runtime.list()))
    assert os.stat(f"/proc/{record.state.pid}").st_uid == IDS.start
    # The image store asks mountinfo for layers, by their names, before it removes any.
    assert "/layers/l/layer0," in Path("/proc/self/mountinfo").read_text()
    while len(host.lines("u")) < 10:
        pass
    assert host.lines("u")[0].split() == ["0", str(IDS.start), "65536"]
    assert host.lines("u")[1:] == ["0", "inside", "0:0", "1000:2000", "0:0", "0:0", "0:0", "0:0", "7"]
    # On disk a volume has the ids of the inside, as under any other pod; the writable layer has the pod's.
    assert os.stat(volume / "made").st_uid == 0
    assert os.stat(volume / "exec").st_uid == 0
    assert os.stat(runtime.layout.record("u") / "upper/made").st_uid == IDS.start
    assert message.read_text() == "bye\n"
    bundle = os.stat(runtime.layout.bundle("u"))
    assert (stat.S_IMODE(bundle.st_mode), bundle.st_gid) == (0o710, IDS.start)
    await runtime.delete("u", force=True)


async def test_on_the_hosts_network(runtime: Runtime, host: Host, sandboxes: Sandboxes):
    own = await sandboxed(sandboxes, network=False)
    script = (
        "id -u; readlink /proc/self/ns/net; ls -d /sys/class/net/lo; mount | grep -c ' on /sys/fs/cgroup/.*rw[,)]';"
        "for f in /sys/kernel/mm/ksm/run /sys/fs/cgroup/x; do touch $f 2>&1 | grep -c Read-only; done"
    )
    assert await run(runtime, host.spec("u", "sh", "-c", script, **own)) == 1
    assert host.lines("u")[:4] == ["0", os.readlink("/proc/self/ns/net"), "/sys/class/net/lo", "0"]
