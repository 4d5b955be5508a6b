"""What is done to a pod that another runtime runs, against a runtime of the test's own."""

from pathlib import Path
from types import SimpleNamespace

import grpc
import pytest

from nodewright_agent.pods import resources, spec
from nodewright_agent.remote import config
from nodewright_agent.remote.client import CallFailed
from nodewright_agent.remote.containers import RemoteContainers
from nodewright_agent.remote.operations import RemoteOperations
from nodewright_agent.remote.records import Sandbox
from nodewright_agent.runtime.cgroups import CgroupLimits
from unit.pods.pod_doubles import make_pod

NODE = spec.NodeSettings("/nw", 4 << 30, Path("/seccomp"), Path("/logs"), cgroups=resources.CgroupSettings())
MORE = {"requests": {"cpu": "500m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "128Mi"}}


class Cgroups:
    """One pod's cgroup, which has what was written."""

    def __init__(self):
        self.memory: list[int] = []

    def limits(self, path):
        return CgroupLimits(cpu_shares=2, memory=1 << 20)

    def stats(self, path):
        return SimpleNamespace(memory_usage=0)

    def update(self, path, limits):
        self.memory += [limits.memory] if limits.memory is not None else []


class Runtime:
    """Keeps the calls; refuses them with ``problem``."""

    def __init__(self):
        self.calls, self.problem = [], None

    async def runtime(self, method, **fields):
        self.calls.append((method, fields))
        if self.problem is not None:
            raise self.problem


@pytest.fixture
def made():
    runtime, cgroups = Runtime(), Cgroups()
    containers = RemoteContainers(runtime, cgroups, config.Host(), "n", "nw", Path("/layers"))
    containers.add_sandbox(Sandbox("s0", "u1", 0, ready=False, created_at=0))
    containers.add_sandbox(Sandbox("s1", "u1", 1, ready=True, created_at=1))
    pod = make_pod({"name": "a", "image": "img:1", "resources": MORE}, uid="u1", overhead={"memory": "16Mi"})
    pod.status.qos_class = "Burstable"
    return SimpleNamespace(
        runtime=runtime,
        cgroups=cgroups,
        operations=RemoteOperations(SimpleNamespace(runtime=containers, node=NODE)),
        pod=pod,
    )


async def test_the_runtime_is_told_what_a_resized_pod_has(made):
    await made.operations.resize(made.pod, [])
    assert made.cgroups.memory == [(128 + 16) << 20]
    ((method, fields),) = made.runtime.calls
    assert (method, fields["pod_sandbox_id"]) == ("UpdatePodSandboxResources", "s1")
    assert (fields["resources"].cpu_shares, fields["resources"].memory_limit_in_bytes) == (512, 128 << 20)
    assert fields["overhead"].memory_limit_in_bytes == 16 << 20


@pytest.mark.parametrize(
    ("code", "warnings"), [(grpc.StatusCode.UNIMPLEMENTED, 0), (grpc.StatusCode.INTERNAL, 1)], ids=str
)
async def test_a_resize_does_not_fail_of_it(made, caplog, code, warnings):
    made.runtime.problem = CallFailed("no", code)
    await made.operations.resize(made.pod, [])
    assert made.cgroups.memory == [(128 + 16) << 20]
    assert [record.levelname for record in caplog.records].count("WARNING") == warnings
