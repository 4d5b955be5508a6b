from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodewright_agent.runtime import cgroup_math as cm
from nodewright_agent.runtime import cgroups, mountinfo
from nodewright_agent.runtime.cgroups import CgroupLimits
from nodewright_agent.runtime.cgroups_v1 import CgroupsV1
from nodewright_agent.runtime.cgroups_v2 import CgroupsV2
from nodewright_agent.runtime.errors import RuntimeUnavailable

GIB = 1 << 30


@pytest.mark.parametrize(
    ("milli", "expected"), [(0, 2), (1, 2), (2, 2), (100, 102), (1000, 1024), (999999999, 262144), (-5, 2)]
)
def test_shares(milli: int, expected: int):
    assert cm.shares(milli) == expected


@pytest.mark.parametrize(
    ("request_milli", "limit", "expected"),
    [(None, None, 2), (None, 500, 512), (0, 500, 2), (250, 500, 256), (250, None, 256)],
)
def test_container_shares(request_milli: int | None, limit: int | None, expected: int):
    assert cm.container_shares(request_milli, limit) == expected


@pytest.mark.parametrize(
    ("milli", "expected"), [(None, None), (0, None), (1, 1000), (10, 1000), (200, 20000), (1500, 150000)]
)
def test_quota(milli: int | None, expected: int | None):
    assert cm.quota(milli) == expected


@pytest.mark.parametrize(("shares", "expected"), [(0, 0), (2, 1), (1024, 39), (262144, 10000)])
def test_weight(shares: int, expected: int):
    assert cm.weight(shares) == expected


@given(st.integers(0, 10**9))
def test_weight_is_always_valid(milli: int):
    assert 1 <= cm.weight(cm.shares(milli)) <= 10000


@pytest.mark.parametrize(
    ("qos", "request_bytes", "critical", "expected"),
    [
        (cm.QosClass.GUARANTEED, GIB, False, -997),
        (cm.QosClass.BEST_EFFORT, 0, False, 1000),
        (cm.QosClass.BEST_EFFORT, 0, True, -997),
        (cm.QosClass.BURSTABLE, 0, False, 999),
        (cm.QosClass.BURSTABLE, 2 * GIB, False, 500),
        (cm.QosClass.BURSTABLE, 4 * GIB, False, 3),
    ],
)
def test_oom_score(qos: cm.QosClass, request_bytes: int, critical: bool, expected: int):
    assert cm.oom_score_adj(qos, request_bytes, 4 * GIB, node_critical=critical) == expected


def test_paths():
    assert cm.pod_path("/nw/c/n", cm.QosClass.BURSTABLE, "u") == "/nw/c/n/kubepods/burstable/podu"
    assert cm.pod_path("/nw/", cm.QosClass.GUARANTEED, "u") == "/nw/kubepods/podu"
    assert cm.qos_path("/nw", cm.QosClass.BEST_EFFORT) == "/nw/kubepods/besteffort"


def entry(point: str, fstype: str, options: str) -> mountinfo.MountEntry:
    return mountinfo.MountEntry(1, 1, "0:1", "/", point, "rw", (), fstype, "cgroup", options)


HYBRID = [
    entry("/c/cpu,cpuacct", "cgroup", "rw,cpu,cpuacct"),
    entry("/c/memory", "cgroup", "rw,memory"),
    entry("/c/pids", "cgroup", "rw,pids"),
    entry("/c/devices", "cgroup", "rw,devices"),
    entry("/c/systemd", "cgroup", "rw,xattr,name=systemd"),
    entry("/c/unified", "cgroup2", "rw,nsdelegate"),
]


def test_detection():
    hybrid = cgroups.detect(HYBRID)
    assert isinstance(hybrid, CgroupsV1)
    assert hybrid.controllers["cpuacct"] == Path("/c/cpu,cpuacct")
    assert list(map(str, hybrid.hierarchies())) == [
        "/c/cpu,cpuacct",
        "/c/memory",
        "/c/pids",
        "/c/devices",
        "/c/systemd",
        "/c/unified",
    ]
    assert hybrid.mount_of("name=systemd") == Path("/c/systemd")
    assert hybrid.mount_of("cpu,cpuacct") == Path("/c/cpu,cpuacct")
    unified = cgroups.detect([entry("/c", "cgroup2", "rw")])
    assert isinstance(unified, CgroupsV2)
    assert unified.mount_of("") == Path("/c")
    # v2 with only a name=systemd hierarchy beside it is v2.
    assert isinstance(cgroups.detect([HYBRID[4], HYBRID[5]]), CgroupsV2)
    with pytest.raises(RuntimeUnavailable, match="controllers not mounted: memory"):
        cgroups.detect([HYBRID[0], HYBRID[2], HYBRID[3]])
    with pytest.raises(RuntimeUnavailable, match="no cgroup file system"):
        cgroups.detect([])


@pytest.fixture
def v2(tmp_path: Path) -> CgroupsV2:
    """A tree of plain files: what is written is what the kernel would get."""
    for directory in (tmp_path, tmp_path / "nw", tmp_path / "nw/kubepods"):
        directory.mkdir(exist_ok=True)
        (directory / "cgroup.controllers").write_text("cpuset cpu io memory hugetlb pids rdma misc\n")
        (directory / "cgroup.subtree_control").write_text("")
    (tmp_path / "cgroup.subtree_control").write_text("cpu io memory pids\n")
    return CgroupsV2(tmp_path)


def test_v2_enables_controllers_on_the_way_down_but_not_in_the_leaf(v2: CgroupsV2):
    v2.create("/nw/kubepods/pod1")
    # The plain file was opened without truncation: only the beginning is what we wrote.
    assert (v2.mount / "cgroup.subtree_control").read_text().startswith("+cpuset +hugetlb")
    assert (v2.mount / "nw/cgroup.subtree_control").read_text() == "+cpuset +cpu +io +memory +hugetlb +pids"
    assert (v2.mount / "nw/kubepods/cgroup.subtree_control").read_text() == "+cpuset +cpu +io +memory +hugetlb +pids"
    assert list((v2.mount / "nw/kubepods/pod1").iterdir()) == []


def files(directory: Path, **content: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in content.items():
        (directory / name.replace("__", ".")).write_text(text)
    return directory


def test_v2_limits(v2: CgroupsV2):
    here = files(v2.mount / "nw/pod", cpu__weight="", cpu__max="", memory__max="", pids__max="")
    v2.update("/nw/pod", CgroupLimits(cpu_shares=1024, cpu_quota=20000, cpu_period=100000, memory=1 << 20, pids=7))
    assert [(here / name).read_text() for name in ("cpu.weight", "cpu.max", "memory.max", "pids.max")] == [
        "39",
        "20000 100000",
        "1048576",
        "7",
    ]
    files(here, cpu__max="", memory__max="", pids__max="")
    v2.update("/nw/pod", CgroupLimits(cpu_quota=-1, memory=-1, pids=-1))
    assert [(here / name).read_text() for name in ("cpu.max", "memory.max", "pids.max")] == ["max 100000", "max", "max"]


def test_v2_reads_limits_and_page_sizes(v2: CgroupsV2):
    here = files(v2.mount / "nw/pod", cpu__weight="39", cpu__max="max 100000", memory__max="max", pids__max="7")
    assert v2.limits("/nw/pod") == CgroupLimits(cpu_shares=998, cpu_quota=-1, cpu_period=100_000, memory=-1, pids=7)
    assert v2.hugepage_sizes("/nw/pod") == []
    files(here, hugetlb__2MB__max="", hugetlb__1GB__max="", hugetlb__2MB__rsvd__max="", hugetlb__2MB__current="")
    assert v2.hugepage_sizes("/nw/pod") == ["1GB", "2MB"]
    v2.update("/nw/pod", CgroupLimits(hugepages={"2MB": 0, "1GB": -1}))
    assert [(here / f"hugetlb.{size}.max").read_text() for size in ("2MB", "1GB")] == ["0", "max"]


def test_v1_reads_limits_and_page_sizes(tmp_path: Path):
    cpu, memory, pids, huge = (tmp_path / name for name in ("cpu", "memory", "pids", "hugetlb"))
    files(cpu / "p", cpu__shares="512", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")
    files(memory / "p", memory__limit_in_bytes=str((1 << 63) - 4096))
    files(pids / "p", pids__max="max")
    here = files(huge / "p", hugetlb__2MB__limit_in_bytes="", hugetlb__2MB__rsvd__limit_in_bytes="")
    v1 = CgroupsV1({"cpu": cpu, "memory": memory, "pids": pids, "hugetlb": huge}, None)
    assert v1.limits("/p") == CgroupLimits(cpu_shares=512, cpu_quota=-1, cpu_period=100_000, memory=-1, pids=-1)
    assert v1.hugepage_sizes("/p") == ["2MB"]
    v1.update("/p", CgroupLimits(hugepages={"2MB": 4 << 20}))
    assert (here / "hugetlb.2MB.limit_in_bytes").read_text() == str(4 << 20)


def test_v2_stats_and_oom(v2: CgroupsV2):
    here = files(
        v2.mount / "nw/pod",
        cpu__stat="usage_usec 12\nuser_usec 5\n",
        memory__stat="anon 100\nfile 900\ninactive_file 300\npgfault 4\npgmajfault 1\n",
        memory__current="1000\n",
        memory__max="max\n",
        pids__current="3\n",
        memory__events="low 0\noom_kill 5\n",
    )
    stats = v2.stats("/nw/pod")
    assert (stats.cpu_usage_ns, stats.memory_usage, stats.memory_working_set, stats.memory_rss) == (
        12000,
        1000,
        700,
        100,
    )
    assert (stats.memory_limit, stats.pids, stats.page_faults, stats.major_page_faults) == (None, 3, 4, 1)
    assert v2.oom_kills("/nw/pod") == 5
    (here / "memory.events.local").write_text("oom_kill 2\n")
    assert v2.oom_kills("/nw/pod") == 2
    assert v2.oom_kills("/nw/gone") == 0


def test_v1_limits_and_cpuset_copy(tmp_path: Path):
    mounts = {name: files(tmp_path / name) for name in ("cpu", "cpuacct", "memory", "pids", "cpuset")}
    files(mounts["cpuset"], cpuset__cpus="0-3\n", cpuset__mems="0\n")
    for level in ("nw", "nw/pod"):
        files(mounts["cpuset"] / level, cpuset__cpus="", cpuset__mems="")
    here = files(mounts["cpu"] / "nw/pod", cpu__shares="", cpu__cfs_period_us="", cpu__cfs_quota_us="")
    files(mounts["memory"] / "nw/pod", memory__limit_in_bytes="")
    files(mounts["pids"] / "nw/pod", pids__max="")
    v1 = CgroupsV1(mounts, None)
    limits = CgroupLimits(cpu_shares=2, cpu_quota=-1, cpu_period=100000, memory=4096, pids=-1)
    v1.create("/nw/pod", limits)
    assert (mounts["cpuset"] / "nw/pod/cpuset.cpus").read_text() == "0-3"
    assert (mounts["cpuset"] / "nw/cpuset.mems").read_text() == "0"
    assert [(here / f"cpu.{name}").read_text() for name in ("shares", "cfs_period_us", "cfs_quota_us")] == [
        "2",
        "100000",
        "-1",
    ]
    assert (mounts["memory"] / "nw/pod/memory.limit_in_bytes").read_text() == "4096"
    assert (mounts["pids"] / "nw/pod/pids.max").read_text() == "max"


def test_the_root_is_never_removed(v2: CgroupsV2):
    with pytest.raises(ValueError, match="root cgroup"):
        v2.remove("/")
    with pytest.raises(ValueError, match="without \\.\\."):
        v2.create("/a/../../b")


@pytest.mark.parametrize("everywhere", [False, True])
def test_v1_moves_a_monitor_where_it_is_counted_or_everywhere(tmp_path: Path, everywhere: bool):
    names = ("cpu", "cpuacct", "memory", "pids", "devices", "freezer", "name=systemd", "unified")
    for name in names:
        (tmp_path / name / "ours").mkdir(parents=True)
        (tmp_path / name / "ours/cgroup.procs").touch()
    v1 = CgroupsV1({name: tmp_path / name for name in names[:-1]}, tmp_path / "unified")
    v1.enter("/ours", 42, everywhere=everywhere)
    moved = {name for name in names if (tmp_path / name / "ours/cgroup.procs").read_text() == "42"}
    assert moved == (set(names) if everywhere else {"cpu", "cpuacct", "memory", "pids"})
