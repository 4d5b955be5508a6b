"""Limits of containers: what happens at them, what is told of them, and how they change."""

import msgspec
import pytest

from nodewright.kube.objects import Pod
from nodewright_agent.pods import resources as pod_resources
from nodewright_agent.pods.model import Instance
from nodewright_agent.pods.resize.actuate import ResizeError, actuate
from nodewright_agent.runtime.runtime import Runtime
from nodewright_agent.runtime.spec import Resources
from support.runtime_host import Host

pytestmark = pytest.mark.needs_root


async def test_memory_limit_is_reported_as_oom(runtime: Runtime, host: Host):
    spec = host.spec(
        "oom", "dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=1", resources=Resources(memory_limit=20 << 20)
    )
    await runtime.create(spec)
    await runtime.start("oom")
    info = await runtime.wait("oom")
    assert (info.code, info.oom_killed) == (137, True)


async def test_a_child_killed_for_memory_is_not_the_end_of_the_container(runtime: Runtime, host: Host):
    spec = host.spec(
        "oomc",
        "sh",
        "-c",
        "dd if=/dev/zero of=/dev/null bs=200M count=1; exit 9",
        resources=Resources(memory_limit=20 << 20),
    )
    await runtime.create(spec)
    await runtime.start("oomc")
    info = await runtime.wait("oomc")
    assert (info.code, info.oom_killed) == (9, False) if runtime.cgroups.version == 1 else (137, True)


async def test_resources_and_stats(runtime: Runtime, host: Host):
    limits = Resources(cpu_shares=512, cpu_quota=20000, cpu_period=100000, memory_limit=64 << 20, pids_limit=50)
    await runtime.create(host.spec("res", "sleep", "1000", resources=limits))
    await runtime.start("res")
    stats = runtime.stats("res")
    assert stats.memory_limit == 64 << 20
    assert 1 <= stats.pids <= 50  # the runtime's init has threads until it has become the program
    assert stats.cpu_usage_ns > 0
    await runtime.update("res", Resources(memory_limit=32 << 20))
    assert runtime.stats("res").memory_limit == 32 << 20
    await runtime.update("res", Resources(memory_limit=128 << 20, cpu_shares=100))
    assert runtime.stats("res").memory_limit == 128 << 20
    changed = Resources(cpu_shares=100, cpu_quota=20000, cpu_period=100000, memory_limit=128 << 20, pids_limit=50)
    assert [record.spec.resources for record in await runtime.list()] == [changed]
    stored = runtime.store.read("res")
    assert stored is not None
    assert stored.spec.resources == changed, "the next agent knows"


async def test_a_pod_is_resized_in_place(runtime: Runtime, host: Host):
    def pod(cpu: str, memory: str) -> Pod:
        limits = {"cpu": cpu, "memory": memory}
        one = {"name": "c1", "resources": {"limits": limits, "requests": limits}}
        given = {"metadata": {"name": "p", "uid": "p"}, "spec": {"containers": [one]}}
        made = msgspec.convert(given, Pod)
        made.status.qos_class = "Guaranteed"
        return made

    first = pod("100m", "64Mi")
    spec = host.spec(
        "c1", "sleep", "1000", resources=pod_resources.container_resources(first, first.spec.containers[0])
    )
    runtime.cgroups.create(spec.cgroup_parent, pod_resources.pod_limits(first))
    await runtime.create(spec)
    await runtime.start("c1")
    run = Instance("c1", "c1", 0, "running", resources=first.spec.containers[0].resources)
    old = runtime.cgroups.version == 1
    names = ("memory/memory.limit_in_bytes", "cpu/cpu.cfs_quota_us") if old else ("memory.max", "cpu.max")

    async def inside() -> list[str]:
        found = await runtime.exec("c1", ["cat", *(f"/sys/fs/cgroup/{name}" for name in names)])
        return found.stdout.decode().split()[:2]

    assert await inside() == [str(64 << 20), "10000"]
    for cpu, memory, quota, limit in (("300m", "128Mi", "30000", 128), ("50m", "32Mi", "5000", 32)):
        wanted = pod(cpu, memory)
        await actuate(runtime, wanted, [run], spec.cgroup_parent, pod_resources.DEFAULT_SETTINGS)
        assert run.resources == wanted.spec.containers[0].resources
        assert await inside() == [str(limit << 20), quota]
        whole = runtime.cgroups.limits(spec.cgroup_parent)
        assert (whole.memory, whole.cpu_quota) == (limit << 20, int(quota))
    with pytest.raises(ResizeError, match="below current usage"):
        await actuate(runtime, pod("50m", "4Ki"), [run], spec.cgroup_parent, pod_resources.DEFAULT_SETTINGS)
    assert await inside() == [str(32 << 20), "5000"]
