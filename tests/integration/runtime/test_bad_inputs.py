"""Bad input and hostile images against the container runtime, entry by entry of the catalogue of known attacks.

The tables are in ``support.bad_containers``; entries that other tests hold are named in ``ELSEWHERE``.
"""

import asyncio
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from nodewright_agent.pods import endmessage
from nodewright_agent.runtime import capabilities, probe, seccomp, userns
from nodewright_agent.runtime.errors import ContainerRuntimeError, CreateContainerError, SandboxError
from nodewright_agent.runtime.runtime import Runtime
from nodewright_agent.runtime.sandbox import Sandboxes
from nodewright_agent.runtime.spec import IdRange, User
from nodewright_agent.usage.collect import shared_files
from support.bad_containers import ENDED, HELD, LOOK, REFUSED, huge
from support.runtime_host import Host

pytestmark = pytest.mark.needs_root

REPOSITORY = Path(__file__).parents[3]
ELSEWHERE = {
    "C05": "integration/runtime/test_bad_inputs.py::test_labels_order_nobody_about",
    "C06": "unit/images/test_manifest.py::test_bad_config",
    "P01": "integration/volumes/test_container_mounts.py::test_sub_path_against_a_racing_swap",
    "P04": "unit/volumes/test_payload.py::test_paths_that_would_leave_the_volume",
    "P05": "integration/pods/test_live_settings.py::test_logs_are_rotated_while_somebody_follows",
    "P07": "unit/pods/test_probe_servers.py::test_the_worst_servers",
    "P08": "integration/pods/test_lifecycle_ends.py::test_a_pod_that_never_started_fails_when_it_is_deleted",
    "P09": "integration/pods/test_host_ports.py::test_a_port_that_cannot_be_had_is_told",
    "P10": "unit/pods/test_static_manifest.py::test_what_is_no_static_pod",
    "P12": "unit/volumes/test_env.py::test_errors_are_upstreams",
    "P13": "integration/pods/test_static_pods.py::test_bad_files_are_told_at_the_node_and_disturb_nobody",
}
ENTRIES = [*(f"C{number:02}" for number in range(1, 8)), *(f"P{number:02}" for number in range(1, 14)), "T11", "D"]


@pytest.mark.parametrize(("fields", "told"), [pytest.param(*row[1:], id=row[0]) for row in REFUSED])
async def test_is_refused(runtime: Runtime, host: Host, tmp_path: Path, fields: Any, told: str):
    values = {"argv": ["sleep", "1000"], **fields(tmp_path, host)}
    argv = values.pop("argv")
    spec = msgspec.structs.replace(host.spec("bad", *argv), **values)
    with pytest.raises(ContainerRuntimeError) as caught:
        await runtime.create(spec)
    assert told in str(caught.value)
    assert len(str(caught.value)) < 4096
    assert await runtime.list() == []
    assert runtime.store.ids() == set()
    assert "/bad" not in Path("/proc/self/mountinfo").read_text()


@pytest.mark.parametrize(("fields", "told"), [pytest.param(*row[1:], id=row[0]) for row in ENDED])
async def test_ends_at_once(runtime: Runtime, host: Host, tmp_path: Path, fields: Any, told: str):
    await runtime.create(msgspec.structs.replace(host.spec("bad", "true"), **fields(tmp_path, host)))
    await runtime.start("bad")
    assert (await runtime.wait("bad")).code != 0
    assert told in host.log("bad")


@pytest.mark.parametrize(("fields", "script", "lines"), [pytest.param(*row[1:], id=row[0]) for row in HELD])
async def test_is_held(
    runtime: Runtime,
    host: Host,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fields: Any,
    script: str,
    lines: list[str],
):
    for name in ("LISTEN_FDS", "LISTEN_PID", "NOTIFY_SOCKET", "BAIT"):
        monkeypatch.setenv(name, "1")
    bait = os.open("/etc", os.O_PATH)
    os.set_inheritable(bait, True)
    try:
        usual = {"seccomp": seccomp.default_profile(capabilities.DEFAULT, os.uname().machine)}
        spec = msgspec.structs.replace(host.spec("c", "sh", "-c", script), **{**usual, **fields(tmp_path, host)})
        await runtime.create(spec)
        await runtime.start("c")
        await runtime.wait("c")
    finally:
        os.close(bait)
    assert host.lines("c") == lines


async def test_labels_order_nobody_about(runtime: Runtime, host: Host):
    labels = {"run.oci.handler": "wasm", "org.criu.config": "/x", "cdi.k8s.io/x": "vendor/gpu=0"}
    await runtime.create(host.spec("c", "sleep", "1000", labels=labels))
    config = json.loads((runtime.layout.bundle("c") / "config.json").read_text())
    assert "annotations" not in config
    assert "hooks" not in config
    assert not any(name in json.dumps(config) for name in labels)


async def test_what_is_on_disk_is_for_root_alone(runtime: Runtime, host: Host):
    await runtime.create(host.spec("c", "sleep", "1000"))
    await runtime.start("c")
    layout = runtime.layout
    private = [layout.run, layout.state, layout.bundles, layout.bundle("c"), layout.record("c")]
    assert {stat.S_IMODE(os.stat(path).st_mode) for path in private} == {0o700}
    assert stat.S_IMODE(os.stat(layout.bundle("c") / "config.json").st_mode) == 0o600
    # Whoever shares a pod's network must not reach its monitor (CVE-2020-15257): no socket without a path.
    names = [line.split()[7] for line in Path("/proc/net/unix").read_text().splitlines()[1:] if len(line.split()) > 7]
    assert not [name for name in names if name.startswith("@") and (host.name in name or "conmon" in name)]


async def test_commands_inherit_nothing_either(runtime: Runtime, host: Host, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LISTEN_FDS", "1")
    await runtime.create(host.spec("c", "sleep", "1000", no_new_privileges=True, user=User(uid=5)))
    await runtime.start("c")
    bait = os.open("/etc", os.O_PATH)
    os.set_inheritable(bait, True)
    try:
        script = f"{LOOK}; env | grep -c LISTEN; grep -E '^(NoNewPrivs|CapEff|Uid)' /proc/self/status"
        found = (await runtime.exec("c", ["sh", "-c", script])).stdout.decode()
    finally:
        os.close(bait)
    status = ["Uid:\t5\t5\t5\t5", f"CapEff:\t{'0' * 16}", "NoNewPrivs:\t1"]
    assert found.splitlines() == ["0", "1", "2", "3", "0", *status]


async def test_an_old_runc_is_told(runtime: Runtime):
    info = runtime.info
    old = probe.version_tuple(info.runc_version) < (1, 3, 6)
    assert any("is older than 1.3.6" in text for text in info.warnings) is (old and "crun" not in info.runc)


@pytest.mark.parametrize(
    "name",
    [
        "vm.swappiness",
        "kernel.core_pattern",
        "net.ipv4.nosuch",
        "net.ipv4/../x",
        "../../etc/passwd",
        "net.ipv4.ip_local_port_range\n",
        "",
    ],
    ids=lambda name: f"P11 {name!r}",
)
async def test_sysctls_of_others(sandboxes: Sandboxes, name: str):
    with pytest.raises(SandboxError):
        await sandboxes.create("pod-1", "pod", {name: "1"})
    assert sandboxes.list() == []


def test_a_bad_value_of_a_sysctl_is_told(sandboxes: Sandboxes):
    with pytest.raises(SandboxError, match="Invalid argument"):
        asyncio.run(sandboxes.create("pod-1", "pod", {"net.ipv4.ip_local_port_range": "high low"}))
    assert sandboxes.list() == []


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda path: path.symlink_to("/etc/passwd"), id="P07 a link"),
        pytest.param(os.mkfifo, id="P07 a FIFO"),
        pytest.param(lambda path: path.mkdir(), id="P07 a directory"),
        pytest.param(lambda path: os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5)), id="P07 a device"),
    ],
)
def test_termination_messages(tmp_path: Path, make: Callable[[Path], object]):
    make(tmp_path / "end")
    assert endmessage.read(tmp_path / "end", tmp_path / "log", None, 1) == ""
    huge(tmp_path / "big")
    with (tmp_path / "big").open("ab") as file:
        file.write(b"\xff the end")
    read = endmessage.read(tmp_path / "big", tmp_path / "log", None, 1)
    assert len(read) == endmessage.MAX_MESSAGE
    assert read.endswith("\ufffd the end")


async def test_a_log_without_line_ends(runtime: Runtime, host: Host):
    script = "head -c 1000000 /dev/zero; printf '\\377\\033[31m\\r'; echo; echo end"
    await runtime.create(host.spec("c", "sh", "-c", script))
    await runtime.start("c")
    await runtime.wait("c")
    lines = (host.logs / "c/0.log").read_bytes().split(b"\n")
    assert lines.pop() == b""
    assert {tuple(line.split(b" ", 3)[1:3]) for line in lines} == {(b"stdout", b"P"), (b"stdout", b"F")}
    assert max(map(len, lines)) < 20_000
    assert lines[-1].endswith(b" stdout F end")


def test_what_the_pods_files_take_of_the_disk_is_counted(tmp_path: Path):
    for name in ("etc-hosts", "containers/main/0-termination-log"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * 100_000)
    assert 200_000 <= shared_files(tmp_path) < 300_000


async def test_a_user_namespace_is_no_way_around(runtime: Runtime, host: Host, sandboxes: Sandboxes, tmp_path: Path):
    if reason := userns.probe(tmp_path / "probe", [tmp_path]):
        pytest.skip(reason)
    ids = IdRange(65536 * 9, 65536)
    paths = await sandboxes.create("pod-1", "pod", ids=ids)
    where = {"user_ns": paths.user, "netns": paths.net, "ipc_ns": paths.ipc, "uts_ns": paths.uts, "ids": ids}
    for name, user in (("user", User(uid=65536)), ("group", User(gid=70000))):
        with pytest.raises(CreateContainerError, match=rf"{name} \d+ does not exist in the pod's user namespace"):
            await runtime.create(host.spec("c", "true", user=user, **where))
    with pytest.raises(CreateContainerError, match="user_ns and ids: give both or none"):
        await runtime.create(host.spec("c", "true", user_ns=paths.user))


def test_every_entry_has_its_place():
    named = {row[0].split()[0] for row in (*REFUSED, *ENDED, *HELD)}
    assert named | set(ELSEWHERE) | {"P11"} == set(ENTRIES)
    for place in ELSEWHERE.values():
        path, _, function = place.partition("::")
        assert f"def {function}(" in (REPOSITORY / "tests" / path).read_text()
