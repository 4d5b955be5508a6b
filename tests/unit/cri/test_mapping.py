"""CRI's container config to the runtime's order, by containerd's rules."""

import os
from pathlib import Path

import pytest

from nodewright_agent.cri import mapping, security, wire
from nodewright_agent.cri.errors import Invalid, Lacking
from nodewright_agent.cri.records import Sandbox
from nodewright_agent.runtime import apparmor
from nodewright_agent.runtime import capabilities as caps
from nodewright_agent.runtime.images.config import ImageConfig
from nodewright_agent.runtime.images.model import Image
from nodewright_agent.runtime.sandbox import SandboxPaths
from nodewright_agent.runtime.spec import IdRange, Mount, Resources

PATHS = SandboxPaths(net="/sb/net", ipc="/sb/ipc", uts="/sb/uts", shm="/sb/shm")


def image(**config):
    return Image("sha256:1", ["img"], [], 1, ImageConfig(**config), [Path("/l/2"), Path("/l/1")])


def sandbox(**config):
    meta = wire.PodSandboxMetadata(name="p", namespace="ns", uid="u")
    request = wire.PodSandboxConfig(metadata=meta, **config)
    return Sandbox(
        id="sb",
        request=request.SerializeToString(),
        handler="",
        created_at=1,
        hostname="host",
        cgroup="/kubepods/pod",
        own_cgroup=False,
    )


def config(**fields):
    fields.setdefault("command", ["run"])
    return wire.ContainerConfig(metadata=wire.ContainerMetadata(name="c", attempt=2), **fields)


def linux(**context):
    return {"linux": {"security_context": context}}


def order(given=None, place=None, img=None):
    place = place or mapping.Place(sandbox(log_directory="/logs"), PATHS, Path("/files"))
    return mapping.container_spec("cid", given or config(), img or image(), place)


def test_the_whole_of_a_plain_container():
    made = order(config(log_path="c/0.log", working_dir="/w", envs=[wire.KeyValue(key="A", value="1")]))
    assert (made.id, made.pod_uid, made.pod_name, made.pod_namespace) == ("cid", "sb", "p", "ns")
    assert (made.name, made.attempt, made.cwd, made.hostname) == ("c", 2, "/w", "host")
    assert (made.netns, made.ipc_ns, made.uts_ns, made.pid_ns) == ("/sb/net", "/sb/ipc", "/sb/uts", None)
    assert made.lowers == ["/l/2", "/l/1"]
    assert made.env == ["A=1"]
    assert made.log_path == "/logs/c/0.log"
    assert made.cgroup_parent == "/kubepods/pod"
    assert made.seccomp is None  # nothing said: unconfined, as CRI has it
    assert made.masked_paths == []
    assert [mount.destination for mount in made.mounts] == [
        "/etc/hosts",
        "/etc/hostname",
        "/etc/resolv.conf",
        "/dev/shm",
    ]


@pytest.mark.parametrize(
    ("command", "args", "argv"),
    [
        ([], [], ["/entry", "cmd"]),
        ([], ["x"], ["/entry", "x"]),
        (["c"], [], ["c"]),
        (["c"], ["x"], ["c", "x"]),
    ],
)
def test_command(command, args, argv):
    given = config(command=command, args=args)
    assert order(given, img=image(entrypoint=["/entry"], cmd=["cmd"])).argv == argv


def test_no_command_at_all():
    with pytest.raises(Invalid, match="no command specified"):
        order(config(command=[]))


def test_own_variables_replace_the_image_s():
    given = config(envs=[wire.KeyValue(key="X", value="own=1")])
    assert order(given, img=image(env=["PATH=/bin", "X=image"])).env == ["PATH=/bin", "X=own=1"]


def test_no_log_without_both_parts_of_its_path():
    assert order(config(log_path="")).log_path == ""
    assert order(config(log_path="a"), mapping.Place(sandbox(), PATHS, Path("/files"))).log_path == ""


def test_mounts(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    given = config(
        mounts=[
            wire.Mount(container_path="/a", host_path=str(tmp_path / "link"), readonly=True),
            wire.Mount(container_path="b", host_path="/", propagation=wire.PROPAGATION_BIDIRECTIONAL),
            wire.Mount(container_path="/c", host_path="/", readonly=True, recursive_read_only=True),
            wire.Mount(container_path="/etc/hosts", host_path="/etc/hosts"),
        ]
    )
    made = order(given).mounts
    assert made[:3] == [
        Mount(str(tmp_path / "real"), "/a", "bind", ["rbind", "rprivate", "ro"]),
        Mount("/", "/b", "bind", ["rbind", "rshared", "rw"]),
        Mount("/", "/c", "bind", ["rbind", "rprivate", "rro"]),
    ]
    assert [mount.source for mount in made if mount.destination == "/etc/hosts"] == ["/etc/hosts"]


@pytest.mark.parametrize(
    ("mount", "kind", "text"),
    [
        ({"host_path": "rel"}, Invalid, "host_path 'rel' is not an absolute path"),
        ({"host_path": "/", "recursive_read_only": True}, Invalid, "needs readonly"),
        (
            {"host_path": "/", "recursive_read_only": True, "readonly": True, "propagation": 1},
            Invalid,
            "PROPAGATION_PRIVATE",
        ),
    ],
)
def test_mounts_that_are_refused(mount, kind, text):
    with pytest.raises(kind, match=text):
        order(config(mounts=[wire.Mount(container_path="/a", **mount)]))


def test_read_only_root_makes_the_files_read_only_and_keeps_image_volumes():
    made = order(config(**linux(readonly_rootfs=True)), img=image(volumes=["/data"]))
    assert made.read_only_rootfs
    assert made.image_volumes == ["/data"]
    assert [mount.options[-1] for mount in made.mounts] == ["ro", "ro", "ro", "rw"]


def test_privileged_only_in_a_privileged_sandbox():
    given = config(**linux(privileged=True))
    with pytest.raises(Invalid, match="no privileged container allowed in sandbox"):
        order(given)
    place = mapping.Place(sandbox(linux={"security_context": {"privileged": True}}), PATHS, Path("/files"))
    assert order(given, place).privileged


def test_resources():
    given = config(linux={"resources": {"cpu_shares": 512, "cpu_quota": 50000, "memory_limit_in_bytes": 1 << 20}})
    given.linux.resources.oom_score_adj = 500
    made = order(given)
    assert made.resources == Resources(cpu_shares=512, cpu_quota=50000, memory_limit=1 << 20)
    assert made.oom_score_adj == 500


def test_huge_pages_are_limited_where_the_kernel_can():
    given = wire.LinuxContainerResources()
    given.hugepage_limits.add(page_size="2MB", limit=0)
    given.hugepage_limits.add(page_size="1GB", limit=0)
    assert mapping.resources(given, ["2MB"]).hugepages == {"2MB": 0}
    given.hugepage_limits[1].limit = 1 << 30
    assert mapping.resources(given, ["2MB", "1GB"]).hugepages == {"2MB": 0, "1GB": 1 << 30}
    with pytest.raises(Lacking, match="cannot limit pages of 1GB"):
        mapping.resources(given, ["2MB"])


@pytest.mark.parametrize("field", ["cpuset_cpus", "cpuset_mems"])
def test_limits_that_we_do_not_set_are_refused(field):
    with pytest.raises(Lacking, match=field):
        order(config(linux={"resources": {field: "0"}}))


def test_devices():
    made = order(config(devices=[wire.Device(host_path="/dev/null", container_path="/dev/x", permissions="rw")]))
    (device,) = made.devices
    assert (device.path, device.kind, device.major, device.minor, device.access) == ("/dev/x", "c", 1, 3, "rw")
    assert device.mode == os.stat("/dev/null").st_mode & 0o7777


@pytest.mark.parametrize(
    ("device", "text"),
    [({"host_path": "/etc/passwd"}, "is not a device"), ({"host_path": "/dev/null", "permissions": "x"}, "r, w and m")],
)
def test_devices_that_are_refused(device, text):
    with pytest.raises(Invalid, match=text):
        order(config(devices=[wire.Device(**device)]))


@pytest.mark.parametrize(
    ("own", "from_image", "signal"),
    [
        (wire.RUNTIME_DEFAULT, "", "SIGTERM"),
        (wire.RUNTIME_DEFAULT, "SIGQUIT", "SIGQUIT"),
        (wire.SIGUSR1, "SIGQUIT", "SIGUSR1"),
        (wire.SIGRTMINPLUS3, "", "SIGRTMIN+3"),
    ],
)
def test_stop_signal(own, from_image, signal):
    assert order(config(stop_signal=own), img=image(stop_signal=from_image)).stop_signal == signal


def context(**fields):
    return wire.LinuxContainerSecurityContext(**fields)


def number(value):
    return wire.Int64Value(value=value)


def test_users():
    assert security.user(context(), "web:www").image_user == "web:www"
    assert security.user(context(run_as_username="x"), "web").image_user == "x"
    made = security.user(context(run_as_user=number(0), run_as_group=number(5), supplemental_groups=[7]), "web")
    assert (made.uid, made.gid, made.additional_gids, made.merge_groups) == (0, 5, [7], True)
    assert not security.user(context(supplemental_groups_policy=wire.Strict), "").merge_groups


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"run_as_group": number(1)}, "user group is specified without user"),
        ({"run_as_user": number(1), "run_as_username": "x"}, "only one may be"),
    ],
)
def test_users_that_are_refused(fields, text):
    with pytest.raises(Invalid, match=text):
        security.user(context(**fields), "")


def test_capabilities():
    given = wire.Capability(add_capabilities=["SYS_TIME"], drop_capabilities=["CHOWN"])
    expected = {*caps.DEFAULT, "CAP_SYS_TIME"} - {"CAP_CHOWN"}
    assert set(security.capabilities(context(capabilities=given))) == expected
    with pytest.raises(Invalid, match="unknown capability 'NONE'"):
        security.capabilities(context(capabilities=wire.Capability(add_capabilities=["NONE"])))


def test_seccomp(tmp_path):
    profile = tmp_path / "p.json"
    profile.write_text('{"defaultAction":"SCMP_ACT_ALLOW"}')

    def made(kind, path="", **fields):
        given = wire.SecurityProfile(profile_type=kind, localhost_ref=path)
        return security.seccomp_profile(context(seccomp=given, **fields), [])

    assert made(wire.RuntimeDefault)["defaultAction"] == "SCMP_ACT_ERRNO"
    assert made(wire.RuntimeDefault, privileged=True) is None
    assert made(wire.Unconfined) is None
    assert made(wire.Localhost, str(profile)) == {"defaultAction": "SCMP_ACT_ALLOW"}
    assert security.seccomp_profile(context(seccomp_profile_path="runtime/default"), []) is not None
    assert security.seccomp_profile(context(seccomp_profile_path=f"localhost/{profile}"), []) is not None
    for path in ("p.json", str(tmp_path / "none")):
        with pytest.raises(Invalid, match="seccomp"):
            made(wire.Localhost, path)
    with pytest.raises(Invalid, match="none of"):
        security.seccomp_profile(context(seccomp_profile_path="what"), [])


def test_app_armor():
    local = wire.SecurityProfile(profile_type=wire.Localhost, localhost_ref="mine")
    assert security.app_armor(context(), available=True) == apparmor.PROFILE
    assert security.app_armor(context(), available=False) == ""
    assert security.app_armor(context(privileged=True), available=True) == ""
    assert security.app_armor(context(apparmor=local), available=True) == "mine"
    assert security.app_armor(context(apparmor_profile="unconfined"), available=True) == ""


def options(**fields):
    return wire.NamespaceOption(userns_options=wire.UserNamespace(**fields))


def test_user_namespaces():
    one = [wire.IDMapping(host_id=65536, container_id=0, length=65536)]
    assert security.ids(wire.NamespaceOption()) is None
    assert security.ids(options(mode=wire.NODE)) is None
    assert security.ids(options(mode=wire.POD, uids=one, gids=one)) == IdRange(65536, 65536)
    with pytest.raises(Lacking, match="mapped differently"):
        security.ids(options(mode=wire.POD, uids=one))
    with pytest.raises(Lacking, match="exactly one"):
        security.ids(options(mode=wire.POD, uids=one * 2, gids=one * 2))
    with pytest.raises(Invalid, match="only POD and NODE"):
        security.ids(options(mode=wire.TARGET))


def test_unified_is_for_the_way_to_die():
    def asked(**unified):
        given = {name.replace("_", "."): value for name, value in unified.items()}
        return config(linux={"resources": {"unified": given}})

    assert not order(asked()).oom_group
    assert order(asked(memory_oom_group="1")).oom_group
    assert not order(asked(memory_swap_max="0")).oom_group
    with pytest.raises(Lacking, match=r"unified: memory.swap.max is not implemented"):
        order(asked(memory_swap_max="max"))
    with pytest.raises(Lacking, match=r"unified: memory.high is not implemented"):
        order(asked(memory_oom_group="1", memory_high="1"))
