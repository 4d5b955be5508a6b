import asyncio
import os
import re
import shutil
import signal
from pathlib import Path

import pytest

from nodewright_agent.runtime import capabilities, cleanup, processes, seccomp
from nodewright_agent.runtime.errors import (
    ContainerStateError,
    CreateContainerError,
    ExecError,
    RunContainerError,
)
from nodewright_agent.runtime.runtime import Runtime
from nodewright_agent.runtime.sandbox import Sandboxes
from nodewright_agent.runtime.spec import Mount, Phase, User
from support.runtime_host import Host

pytestmark = pytest.mark.needs_root


async def run(runtime: Runtime, spec) -> int:
    await runtime.create(spec)
    await runtime.start(spec.id)
    return (await runtime.wait(spec.id)).code


async def test_runs_and_reports_the_exit_code_and_cri_log(runtime: Runtime, host: Host):
    spec = host.spec(
        "one", "sh", "-c", "echo hello; echo oops >&2; printf part; exit 7", hostname="pod-a", env=["A=b c"]
    )
    assert await run(runtime, spec) == 7
    assert [(cid, info.code) for cid, info in host.exits] == [("one", 7)]
    log = host.log("one")
    assert re.search(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}\S* stdout F hello$", log, re.M)
    assert re.search(r" stderr F oops$", log, re.M)
    assert re.search(r" stdout P part$", log, re.M)
    records = await runtime.list()
    assert [(record.id, record.state.phase, record.exit.code) for record in records] == [("one", Phase.EXITED, 7)]
    await runtime.delete("one")
    assert await runtime.list() == []


async def test_environment_user_and_working_directory(runtime: Runtime, host: Host):
    spec = host.spec(
        "two",
        "sh",
        "-c",
        "id; env; pwd",
        user=User(image_user="bob", additional_gids=[77]),
        env=["A=b c"],
        cwd="/made/for/me",
        hostname="pod-a",
    )
    assert await run(runtime, spec) == 0
    lines = host.lines("two")
    assert lines[0] == "uid=1000(bob) gid=100(users) groups=29(audio),77,100(users)"
    assert {"A=b c", "HOSTNAME=pod-a"} < set(lines)
    assert "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" in lines
    assert lines[-1] == "/made/for/me"


async def test_isolation_as_under_a_cri_runtime(runtime: Runtime, host: Host):
    script = (
        "grep -E '^Cap(Bnd|Inh|Amb)|^NoNewPrivs' /proc/self/status; cat /proc/keys | wc -c;"
        f"for f in /proc/sys/x /sys/x {cgroup_directory(runtime)}/x; do touch $f 2>&1; done; "
        "cat /proc/self/oom_score_adj"
    )
    assert await run(runtime, host.spec("iso", "sh", "-c", script, no_new_privileges=True, oom_score_adj=-997)) == 0
    lines = host.lines("iso")
    assert lines[:4] == [
        "CapInh:\t0000000000000000",
        "CapBnd:\t00000000a80425fb",
        "CapAmb:\t0000000000000000",
        "NoNewPrivs:\t1",
    ]
    assert lines[4] == "0"
    refusals = [line.rpartition(": ")[2] for line in lines[5:8]]
    # runc makes the names below /sys/fs/cgroup read-only on v1, and v2's file system knows no such file.
    assert refusals[0] in ("Read-only file system", "No such file or directory")
    assert refusals[1:] == ["Read-only file system", "Read-only file system"]
    assert int(lines[-1]) == max(-997, runtime.info.oom_score_floor)


async def test_signals_reach_the_process(runtime: Runtime, host: Host):
    script = "trap 'echo got term; exit 3' TERM; echo ready; while true; do sleep 0.05; done"
    spec = host.spec("sig", "sh", "-c", script)
    await runtime.create(spec)
    await runtime.start("sig")
    await _line(host, "sig", "ready")
    await runtime.kill("sig", "SIGTERM")
    assert (await runtime.wait("sig")).code == 3
    await runtime.kill("sig", 9)  # nothing: it has ended


async def test_sigkill_is_137(runtime: Runtime, host: Host):
    await runtime.create(host.spec("k", "sleep", "1000"))
    await runtime.start("k")
    await runtime.kill("k", signal.SIGKILL)
    info = await runtime.wait("k")
    assert (info.code, info.signal, info.oom_killed) == (137, 9, False)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["nosuch"], 'exec: "nosuch": executable file not found in $PATH'),
        (["/etc/passwd"], 'exec: "/etc/passwd": permission denied'),
        (["/nosuch/file"], "no such file or directory"),
    ],
)
async def test_a_command_that_cannot_run(runtime: Runtime, host: Host, argv: list[str], message: str):
    with pytest.raises(RunContainerError, match=re.escape(message)):
        await run(runtime, host.spec("bad", *argv))
    assert await runtime.list() == []
    assert runtime.store.ids() == set()
    assert await run(runtime, host.spec("bad", "true")) == 0


async def test_bad_working_directories(runtime: Runtime, host: Host, tmp_path: Path):
    with pytest.raises(CreateContainerError, match="below /proc"):
        await runtime.create(host.spec("cwd", "true", cwd="/proc/self/fd/7"))
    top = tmp_path / "top"
    (top / "etc").mkdir(parents=True)
    (top / "trap").symlink_to("/proc/self/fd/7")
    (top / "up").symlink_to("../../../etc")
    (top / "file").write_text("")
    layers = [str(top), str(host.layer)]
    with pytest.raises(CreateContainerError, match="leads into /proc"):
        await runtime.create(host.spec("cwd", "true", cwd="/trap", lowers=layers))
    with pytest.raises(CreateContainerError, match="leads out of the image"):
        await runtime.create(host.spec("cwd", "true", cwd="/up", lowers=layers))
    with pytest.raises(RunContainerError, match="not a directory"):
        await runtime.create(host.spec("cwd", "true", cwd="/file", lowers=layers))
    with pytest.raises(CreateContainerError, match="not an absolute path"):
        await runtime.create(host.spec("cwd", "true", cwd="relative"))


@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
async def test_an_image_with_a_link_for_a_kernel_directory_is_refused(
    runtime: Runtime, host: Host, tmp_path: Path, name: str
):
    layer = tmp_path / "evil"
    shutil.copytree(host.layer, layer, symlinks=True)
    (layer / name).rmdir()
    (layer / name).symlink_to("/tmp")
    with pytest.raises(CreateContainerError, match=f"/{name} is a symbolic link"):
        await runtime.create(host.spec("evil", "true", lowers=[str(layer)]))
    assert runtime.store.ids() == set()


async def test_mounts_through_links_stay_inside(runtime: Runtime, host: Host, tmp_path: Path):
    source = tmp_path / "volume"
    source.mkdir()
    (source / "token").write_text("secret\n")
    top = tmp_path / "top"
    top.mkdir()
    (top / "out").symlink_to("../../../../tmp")
    mount = [Mount(str(source), "/var/run/secrets/x", "bind", ["ro"])]
    assert await run(runtime, host.spec("m", "cat", "/run/secrets/x/token", mounts=mount)) == 0
    assert host.lines("m") == ["secret"]
    outside = [Mount(str(source), "/out/x", "bind", ["ro"])]
    with pytest.raises(CreateContainerError, match="leads out of the image"):
        await runtime.create(host.spec("m2", "true", mounts=outside, lowers=[str(top), str(host.layer)]))


async def test_account_files_that_are_no_files(runtime: Runtime, host: Host, tmp_path: Path):
    top = tmp_path / "top"
    (top / "etc").mkdir(parents=True)
    os.mkfifo(top / "etc/passwd")
    with pytest.raises(CreateContainerError, match="/etc/passwd in the image is not a regular file"):
        await runtime.create(host.spec("fifo", "true", lowers=[str(top), str(host.layer)]))
    with pytest.raises(CreateContainerError, match="unable to find user nobody-here"):
        await runtime.create(host.spec("who", "true", user=User(image_user="nobody-here")))


async def test_a_log_that_is_a_link_is_refused(runtime: Runtime, host: Host, tmp_path: Path):
    (host.logs / "lnk").mkdir()
    (host.logs / "lnk/0.log").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CreateContainerError, match="not a regular file"):
        await runtime.create(host.spec("lnk", "true"))


async def test_exec(runtime: Runtime, host: Host):
    await runtime.create(host.spec("ex", "sleep", "1000", env=["A=1"], user=User(uid=1000)))
    await runtime.start("ex")
    result = await runtime.exec("ex", ["sh", "-c", "echo $A$B; id -u; echo err >&2; exit 4"], env=["B=2"])
    assert (result.code, result.stdout, result.stderr) == (4, b"12\n1000\n", b"err\n")
    with pytest.raises(ExecError, match="executable file not found"):
        await runtime.exec("ex", ["nosuch"])
    flood = await runtime.exec("ex", ["sh", "-c", "yes | head -c 3000000; echo end >&2"], max_output=1000)
    assert (len(flood.stdout), flood.truncated, flood.stderr, flood.code) == (1000, True, b"end\n", 0)
    late = await runtime.exec("ex", ["sh", "-c", "echo begun; sleep 1000"], timeout=1.0)
    assert late.timed_out
    assert late.stdout == b"begun\n"
    # A child that stays behind with the pipe open does not keep the caller waiting.
    behind = await runtime.exec("ex", ["sh", "-c", "sleep 1000 & echo done"], timeout=30)
    assert (behind.code, behind.stdout) == (0, b"done\n")
    await runtime.kill("ex", 9)
    await runtime.wait("ex")
    with pytest.raises(ContainerStateError, match="not running"):
        await runtime.exec("ex", ["true"])


async def test_long_names(host: Host):
    host.run = host.run / ("a-cluster-with-a-rather-long-name" * 2)
    runtime = host.runtime()
    await runtime.open()
    try:
        cid = "f" * 128
        await runtime.create(host.spec(cid, "sleep", "1000"))
        await runtime.start(cid)
        assert (await runtime.exec(cid, ["echo", "here"])).stdout == b"here\n"
        await runtime.delete(cid, force=True)
        assert list(runtime.layout.sockets.iterdir()) == []
    finally:
        await runtime.close()
        cleanup.purge(
            run_dir=host.run.parent, state_dir=host.state, cgroup_root=host.cgroup_root, cgroups=runtime.cgroups
        )


async def test_exec_refuses_a_working_directory_that_became_a_link_through_proc(runtime: Runtime, host: Host):
    await runtime.create(
        host.spec("cw", "sh", "-c", "cd /; rm -r /w; ln -s /proc/self/fd/7 /w; echo ready; sleep 1000", cwd="/w")
    )
    await runtime.start("cw")
    await _line(host, "cw", "ready")
    with pytest.raises(ExecError, match="leads into /proc"):
        await runtime.exec("cw", ["true"])


async def test_log_rotation(runtime: Runtime, host: Host):
    await runtime.create(host.spec("rot", "sh", "-c", "i=0; while true; do echo line $i; i=$((i+1)); sleep 0.02; done"))
    await runtime.start("rot")
    await _line(host, "rot", "line 3")
    old = host.logs / "rot/0.log.old"
    await runtime.rotate_log("rot", old)
    first = host.lines("rot")[0] if host.log("rot") else None
    if first is None:
        await _grows(host, "rot")
        first = host.lines("rot")[0]
    last = old.read_text().splitlines()[-1].split(" ", 3)[3]
    assert int(first.split()[1]) == int(last.split()[1]) + 1


async def test_sandbox_is_shared_and_survives_its_containers(runtime: Runtime, host: Host, sandboxes: Sandboxes):
    paths = await sandboxes.create("pod-1", "my-pod", {"net.ipv4.ip_local_port_range": "2000 3000"})
    assert sandboxes.list() == ["pod-1"]
    where = {
        "netns": paths.net,
        "ipc_ns": paths.ipc,
        "uts_ns": paths.uts,
        "mounts": [Mount(paths.shm, "/dev/shm", "bind", ["rw"])],
    }
    script = "hostname; cat /proc/sys/net/ipv4/ip_local_port_range; cat /sys/class/net/lo/flags; echo x >/dev/shm/f"
    links = "; for n in net ipc uts; do readlink /proc/self/ns/$n; done"
    assert await run(runtime, host.spec("s1", "sh", "-c", script + links, **where)) == 0
    assert await run(runtime, host.spec("s2", "sh", "-c", "cat /dev/shm/f" + links, **where)) == 0
    one, two = host.lines("s1"), host.lines("s2")
    assert one[0] == "my-pod"
    assert one[1] == "2000\t3000"
    assert int(one[2], 16) & 1 == 1
    assert two[0] == "x"
    assert one[3:] == two[1:]
    assert os.readlink("/proc/self/ns/net") not in one
    assert await Sandboxes(host.run / "sandboxes").create("pod-1", "ignored") == paths
    await sandboxes.remove("pod-1")
    await sandboxes.remove("pod-1")
    assert sandboxes.list() == []


async def test_host_pid_namespace_takes_the_children_with_it(runtime: Runtime, host: Host):
    await runtime.create(host.spec("hp", "sh", "-c", "sleep 1000 & echo $!; sleep 0.2; exit 5", pid_ns="host"))
    await runtime.start("hp")
    assert (await runtime.wait("hp")).code == 5
    child = int(host.lines("hp")[0])
    await processes.gone(child)
    assert runtime.cgroups.pids(f"{host.cgroup_root}/kubepods/podpod-1/hp") == set()


async def test_delete_of_a_running_container_needs_force(runtime: Runtime, host: Host):
    await runtime.create(host.spec("del", "sleep", "1000"))
    with pytest.raises(ContainerStateError, match="exists"):
        await runtime.create(host.spec("del", "sleep", "1000"))
    await runtime.start("del")
    with pytest.raises(ContainerStateError, match="stop it first"):
        await runtime.delete("del")
    await runtime.delete("del", force=True)
    await runtime.delete("del", force=True)
    assert [info.code for _, info in host.exits] == [137]
    assert runtime.store.ids() == set()


async def test_seccomp_default_profile(runtime: Runtime, host: Host):
    profile = seccomp.default_profile(capabilities.ALL, os.uname().machine)
    confined = seccomp.default_profile(capabilities.DEFAULT, os.uname().machine)
    grant = [name for name in capabilities.ALL if name in runtime.info.capabilities]
    script = "grep '^Seccomp:' /proc/self/status; hostname other 2>/dev/null && echo renamed; echo end"
    paths = await Sandboxes(host.run / "sandboxes").create("pod-1", "pod")
    for cid, used, expected in (
        ("sec1", confined, ["Seccomp:\t2", "end"]),
        ("sec2", profile, ["Seccomp:\t2", "renamed", "end"]),
        ("sec3", None, ["Seccomp:\t0", "renamed", "end"]),
    ):
        spec = host.spec(cid, "sh", "-c", script, seccomp=used, capabilities=grant, uts_ns=paths.uts)
        assert await run(runtime, spec) == 0
        assert host.lines(cid) == expected


async def test_images_with_very_many_layers(runtime: Runtime, host: Host, tmp_path: Path):
    layers = []
    for number in range(200):
        layer = tmp_path / f"layers-with-a-long-name-{number:04}" / "diff"
        layer.mkdir(parents=True)
        (layer / "newest").write_text(f"{number}\n")
        layers.append(str(layer))
    spec = host.spec("many", "cat", "/newest", lowers=[*reversed(layers), str(host.layer)])
    assert await run(runtime, spec) == 0
    assert host.lines("many") == ["199"]
    with pytest.raises(CreateContainerError, match="501 layers are more than one mount takes"):
        await runtime.create(host.spec("more", "true", lowers=["/bin"] * 501))


async def test_layers_with_special_characters(runtime: Runtime, host: Host, tmp_path: Path):
    layer = tmp_path / "a:b,c\\d"
    layer.mkdir()
    (layer / "here").write_text("yes\n")
    assert await run(runtime, host.spec("chars", "cat", "/here", lowers=[str(layer), str(host.layer)])) == 0
    assert host.lines("chars") == ["yes"]


async def test_a_capability_that_this_node_lacks(runtime: Runtime, host: Host):
    lacking = [name for name in capabilities.ALL if name not in runtime.info.capabilities]
    if not lacking:
        pytest.skip("this host has every capability")
    with pytest.raises(CreateContainerError, match=f"cannot grant {lacking[0]}"):
        await runtime.create(host.spec("cap", "true", capabilities=[lacking[0]]))


async def test_many_at_once(runtime: Runtime, host: Host):
    codes = await asyncio.gather(*(run(runtime, host.spec(f"c{i}", "sh", "-c", f"exit {i}")) for i in range(8)))
    assert codes == list(range(8))


async def test_privileged(runtime: Runtime, host: Host):
    script = (
        "grep CapBnd /proc/self/status; ls /dev | grep -c .; "
        f"echo 0 >{cgroup_directory(runtime)}/cgroup.procs && echo writable"
    )
    assert await run(runtime, host.spec("priv", "sh", "-c", script, privileged=True)) == 0
    lines = host.lines("priv")
    status = Path("/proc/self/status").read_text()
    assert lines[0].split()[1] == re.search(r"CapBnd:\t(\w+)", status)[1]
    assert int(lines[1]) > 10
    assert lines[2] == "writable"


def cgroup_directory(runtime: Runtime) -> str:
    return "/sys/fs/cgroup" if runtime.cgroups.version == 2 else "/sys/fs/cgroup/memory"


async def _line(host: Host, cid: str, text: str) -> None:
    """Wait for a line of the log; its writer is another program, which tells nobody."""
    while text not in (host.lines(cid) if host.log(cid) else []):  # noqa: ASYNC110
        await asyncio.sleep(0.02)


async def _grows(host: Host, cid: str) -> None:
    while not host.log(cid):  # noqa: ASYNC110
        await asyncio.sleep(0.02)
