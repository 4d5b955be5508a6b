import json
from pathlib import Path

import pytest

from nodewright_agent.runtime import capabilities, oci, seccomp
from nodewright_agent.runtime.spec import ContainerSpec, Mount, Resources, problems

GOLDEN = Path(__file__).parent / "golden"


def spec(**fields) -> ContainerSpec:
    base = {
        "id": "c1",
        "pod_uid": "u",
        "pod_name": "p",
        "pod_namespace": "ns",
        "name": "main",
        "lowers": ["/l"],
        "argv": ["/bin/app", "-x"],
        "log_path": "/log",
        "cgroup_parent": "/nw/kubepods/podu",
    }
    return ContainerSpec(**{**base, **fields})


def facts(**fields) -> oci.HostFacts:
    return oci.HostFacts(**{"rootfs": "/b/rootfs", "uid": 0, "gid": 0, "cgroup_version": 1, **fields})


PLAIN = spec(
    env=["A=1"],
    hostname="pod",
    netns="/s/net",
    ipc_ns="/s/ipc",
    uts_ns="/s/uts",
    mounts=[
        Mount("/s/shm", "/dev/shm", "bind", ["rw"]),
        Mount("/v/deep", "/data/deep", "bind", ["ro"]),
        Mount("/v", "/data"),
    ],
    resources=Resources(cpu_shares=102, cpu_quota=20000, cpu_period=100000, memory_limit=1 << 20, pids_limit=9),
    oom_score_adj=-997,
    termination_log="/t/log",
    labels={"io.example": "not for the runtime"},
)
PRIVILEGED = spec(privileged=True, pid_ns="host", seccomp={"defaultAction": "SCMP_ACT_ERRNO"}, read_only_rootfs=True)


@pytest.mark.parametrize(
    ("name", "given", "host"),
    [
        ("plain", PLAIN, facts(uid=1000, gid=100, additional_gids=(100, 29), oom_score_floor=0)),
        ("privileged", PRIVILEGED, facts(capabilities=("CAP_CHOWN", "CAP_SYS_ADMIN"), devices=({"path": "/dev/x"},))),
        ("cgroup2", spec(seccomp={"defaultAction": "SCMP_ACT_ERRNO"}), facts(cgroup_version=2)),
    ],
)
def test_golden(name: str, given: ContainerSpec, host: oci.HostFacts):
    text = json.dumps(oci.config(given, host), indent=1, sort_keys=True) + "\n"
    assert text == (GOLDEN / f"{name}.json").read_text()


@pytest.mark.parametrize(
    ("limit", "swap", "expected"),
    [
        (None, True, {"memory.oom.group": "1", "memory.swap.max": "0"}),
        (None, False, {"memory.oom.group": "1"}),  # the kernel counts no swap: the file is not there
        (1 << 20, True, {"memory.oom.group": "1"}),  # the OCI runtime works it out from memory.swap
    ],
)
def test_no_container_swaps_with_cgroup_v2(limit: int | None, swap: bool, expected: dict[str, str]):
    given = oci.config(spec(resources=Resources(memory_limit=limit)), facts(cgroup_version=2, swap=swap))
    assert given["linux"]["resources"]["unified"] == expected
    assert given["linux"]["resources"].get("memory") == ({"limit": limit, "swap": limit} if limit else None)


def test_hostname_is_never_set_since_the_uts_namespace_has_it():
    assert "hostname" not in oci.config(PLAIN, facts())


def test_labels_never_become_annotations():
    assert "not for the runtime" not in json.dumps(oci.config(PLAIN, facts()))


def test_a_command_in_the_container_gets_its_limits_but_not_its_oom_score():
    process = oci.process(PLAIN, facts(), ["ls"], env=["B=2"])
    assert process["args"] == ["ls"]
    assert process["env"][-2:] == ["A=1", "B=2"]
    assert process["capabilities"] == oci.process(PLAIN, facts())["capabilities"]
    assert "oomScoreAdj" not in process


@pytest.mark.parametrize(
    ("options", "propagation"),
    [([], "rprivate"), (["rslave"], "rslave"), (["rshared"], "rshared")],
)
def test_propagation_reaches_the_root(options: list[str], propagation: str):
    config = oci.config(spec(mounts=[Mount("/v", "/data", "bind", options)]), facts())
    assert config["linux"]["rootfsPropagation"] == propagation


@pytest.mark.parametrize(
    ("fields", "recursive", "kind", "options"),
    [
        ({}, True, "sysfs", ["ro"]),
        ({"user_ns": "/u", "netns": "/n"}, True, "sysfs", ["ro"]),
        ({"user_ns": "/u"}, True, "bind", ["ro", "rro"]),
        ({"user_ns": "/u"}, False, "bind", ["ro"]),
        ({"user_ns": "/u", "privileged": True}, True, "bind", ["rw"]),
    ],
)
def test_only_the_owner_of_a_network_may_mount_a_sysfs(fields, recursive, kind, options):
    made = oci.config(spec(**fields), facts(recursive_read_only=recursive))["mounts"]
    (found,) = [mount for mount in made if mount["destination"] == "/sys"]
    assert found["type"] == kind
    assert [option for option in found["options"] if option in ("ro", "rw", "rro")] == options


def test_an_image_path_is_kept():
    assert oci.environment(spec(env=["PATH=/x", "HOSTNAME=me"], hostname="pod")) == ["PATH=/x", "HOSTNAME=me"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"id": "../x"}, "id '../x'"),
        ({"argv": []}, "no command specified"),
        ({"argv": ["a\0b"]}, "NUL byte"),
        ({"env": ["novalue"]}, "is not NAME=value"),
        ({"env": ["=x"]}, "is not NAME=value"),
        ({"cwd": "x"}, "not an absolute path"),
        ({"lowers": []}, "no layers"),
        ({"mounts": [Mount("/v", "/")]}, "mount path '/'"),
        ({"mounts": [Mount("/v", "/a/../../x")]}, "mount path"),
        ({"mounts": [Mount("/v", "rel")]}, "mount path"),
        ({"cgroup_parent": "/a/../b"}, "cgroup_parent"),
    ],
)
def test_bad_specs_are_named(fields: dict, message: str):
    (found,) = problems(spec(**fields))
    assert message in found


def test_a_good_spec_has_no_problems():
    assert problems(PLAIN) == []


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        ([], [], set(capabilities.DEFAULT)),
        (["NET_ADMIN"], ["ALL"], {"CAP_NET_ADMIN"}),
        (["cap_net_admin"], ["CHOWN"], set(capabilities.DEFAULT) - {"CAP_CHOWN"} | {"CAP_NET_ADMIN"}),
        (["ALL"], ["SYS_ADMIN"], {"CAP_CHOWN"}),
        ([], ["ALL"], set()),
    ],
)
def test_capabilities(add: list[str], drop: list[str], expected: set[str]):
    assert set(capabilities.effective(add, drop, ["CAP_CHOWN", "CAP_SYS_ADMIN"])) == expected


def test_unknown_capability():
    with pytest.raises(ValueError, match="unknown capability 'NOPE'"):
        capabilities.effective(["NOPE"])


def test_capability_mask():
    status = "Name:\tx\nCapPrm:\t000001fffeffffff\nCapBnd:\t000001fffeffffff\n"
    assert set(capabilities.ALL) - set(capabilities.of_process(status)) == {"CAP_SYS_RESOURCE"}


def rules(profile: dict, name: str) -> list[dict]:
    return [rule for rule in profile["syscalls"] if name in rule["names"]]


def test_seccomp_default_profile():
    profile = seccomp.default_profile(capabilities.DEFAULT, "x86_64")
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    assert profile["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    without = seccomp.default_profile(capabilities.DEFAULT, "x86_64", x32=False)
    assert without == {**profile, "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]}
    for allowed in ("read", "execve", "openat2", "rseq", "chroot", "arch_prctl"):
        (rule,) = rules(profile, allowed)
        assert rule == {"names": rule["names"], "action": "SCMP_ACT_ALLOW"}
    for refused in (
        "mount",
        "bpf",
        "unshare",
        "setns",
        "kexec_load",
        "io_uring_setup",
        "add_key",
        "userfaultfd",
        "reboot",
    ):
        assert rules(profile, refused) == []
    assert rules(profile, "clone3")[0]["errnoRet"] == 38
    assert rules(profile, "clone")[0]["args"][0]["op"] == "SCMP_CMP_MASKED_EQ"
    assert rules(profile, "socket")[0]["args"][0] == {"index": 0, "value": 40, "op": "SCMP_CMP_NE"}
    assert len(rules(profile, "personality")) == 5


def test_seccomp_profile_follows_the_capabilities():
    profile = seccomp.default_profile(["CAP_SYS_ADMIN"], "aarch64")
    assert len(rules(profile, "mount")) == 1
    assert all(
        "args" not in rule and rule["action"] == "SCMP_ACT_ALLOW"
        for rule in rules(profile, "clone") + rules(profile, "clone3")
    )
    assert rules(profile, "chroot") == []
    with pytest.raises(ValueError, match="no default seccomp profile for z80"):
        seccomp.default_profile([], "z80")
