"""Where things of the host are looked for, without a second namespace at hand."""

import os
from pathlib import Path

import pytest

from nodewright_agent.runtime import cgroups, mountinfo
from nodewright_agent.runtime.errors import RuntimeUnavailable
from nodewright_agent.runtime.hostspace import HostSpace


def mount(point: str, *, root: str = "/", fields: str = "", kind: str = "ext4", options: str = "rw") -> str:
    space = f" {fields}" if fields else ""
    return f"1 0 8:1 {root} {point} rw{space} - {kind} none {options}"


def parse(*lines: str) -> list[mountinfo.MountEntry]:
    return mountinfo.parse("\n".join(lines).encode())


def test_without_a_namespace_nothing_changes():
    space = HostSpace()
    assert not space.separate
    assert space.command(["runc", "--version"], cwd="/x") == ["runc", "--version"]
    assert space.call(os.getpid) == os.getpid()
    space.check({"state_dir": None}, {"state_dir": None})  # type: ignore[dict-item]


def test_the_hosts_programs_run_in_its_mount_ipc_and_uts_namespaces():
    words = HostSpace("/proc/1/ns/mnt").command(["/x/conmon", "-b"], cwd="/run/b")
    entered = ["--mount=/proc/1/ns/mnt", "--ipc=/proc/1/ns/ipc", "--uts=/proc/1/ns/uts"]
    assert words == ["nsenter", *entered, "--wdns=/run/b", "--", "/x/conmon", "-b"]


def test_a_pinned_namespace_has_no_siblings(tmp_path):
    assert HostSpace(str(tmp_path / "mnt")).command(["a"]) == [
        "nsenter",
        f"--mount={tmp_path}/mnt",
        "--wdns=/",
        "--",
        "a",
    ]


def test_errors_of_the_work_are_the_callers(tmp_path):
    with pytest.raises(ZeroDivisionError):
        HostSpace().call(lambda: 1 // 0)
    with pytest.raises(OSError, match="No such file"):
        HostSpace(str(tmp_path / "mnt")).call(os.getpid)


def test_links_of_the_host_lead_where_the_host_has_them_lead(tmp_path):
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "run/systemd").mkdir(parents=True)
    (root / "run/systemd/resolv.conf").write_text("nameserver 192.0.2.1\n")
    (root / "etc/resolv.conf").symlink_to("/run/systemd/resolv.conf")
    (root / "etc/out").symlink_to("../../../../etc/passwd")
    space = HostSpace(root=str(root))
    assert space.read_text("/etc/resolv.conf") == "nameserver 192.0.2.1\n"
    with pytest.raises(FileNotFoundError):
        space.read_text("/etc/out")


def test_a_namespace_that_cannot_be_entered_is_said(tmp_path):
    space = HostSpace(str(tmp_path / "mnt"))
    with pytest.raises(RuntimeUnavailable, match=r"cannot enter .*privileged, with hostPID"):
        space.check({"state_dir": tmp_path}, {})


def test_the_mount_that_holds_a_directory():
    entries = parse(mount("/"), mount("/run", fields="shared:7"), mount("/runs"), mount("/run/x", fields="master:7"))
    assert mountinfo.containing(entries, "/run/nodewright").mount_point == "/run"
    assert mountinfo.containing(entries, "/run/nodewright").peer_group == "7"
    assert mountinfo.containing(entries, "/run/x/y").propagation_name == "slave"
    assert mountinfo.containing(entries, "/runs/y").propagation_name == "private"
    assert mountinfo.containing(entries, "/etc").mount_point == "/"
    later = [*entries, *parse(mount("/run", kind="tmpfs"))]
    assert mountinfo.containing(later, "/run/a").fstype == "tmpfs", "a later mount covers an earlier one"
    with pytest.raises(ValueError, match="no mount holds"):
        mountinfo.containing([], "/run")


def test_a_containers_own_view_of_cgroups_is_not_the_hosts():
    own = "/kubelet/kubepods/pod1/c1"
    lines = [
        mount(f"/sys/fs/cgroup/{name}", root=own, kind="cgroup", options=f"rw,{name}")
        for name in ("cpu", "memory", "pids", "devices")
    ]
    with pytest.raises(RuntimeUnavailable, match=r"/sys/fs/cgroup/cpu shows one cgroup only.*mount the host's"):
        cgroups.detect(parse(*lines))
    with pytest.raises(RuntimeUnavailable, match="shows one cgroup only"):
        cgroups.detect(parse(mount("/sys/fs/cgroup", root=own, kind="cgroup2")))
    theirs = [
        mount(f"/host/{name}", kind="cgroup", options=f"rw,{name}") for name in ("cpu", "memory", "pids", "devices")
    ]
    found = cgroups.detect(parse(*lines, *theirs))
    assert {str(path) for path in found.hierarchies()} == {f"/host/{n}" for n in ("cpu", "memory", "pids", "devices")}


def test_mounts_at_a_point(monkeypatch):
    lines = [
        r"1 0 0:1 / / rw - ext4 /dev/a rw",
        r"2 1 0:2 / /run/a\040b\134c rw shared:1 - tmpfs none rw",
        r"3 2 0:3 / /run/a\040b\134c rw - tmpfs none rw",
        r"4 3 0:3 /run/a /elsewhere rw - tmpfs /run/a rw",
        r"5 1 0:4 / /run/a rw - tmpfs none rw",
        "garbage of a kernel to come",
    ]
    monkeypatch.setattr(Path, "read_bytes", lambda _: "\n".join(lines).encode() + b"\n")
    assert [entry.mount_id for entry in mountinfo.at("/run/a b\\c")] == [2, 3]
    assert [entry.mount_id for entry in mountinfo.at("/run/a")] == [5]
    assert mountinfo.at("/run") == []
