"""A runtime of the test's own, and hierarchies of cgroups."""

import grpc

from nodewright_agent.cri import wire
from nodewright_agent.remote import labels
from nodewright_agent.remote.client import Missing
from nodewright_agent.runtime.cgroups import CgroupLimits

SECOND = 10**9
ORDER = wire.ContainerConfig(metadata=wire.ContainerMetadata(name="main", attempt=0), labels={labels.POD_UID: "u1"})


class Cgroups:
    """Hierarchies in which each container has what the test says."""

    def __init__(self):
        self.below = {}

    def exists(self, path):
        return path in self.below

    def children(self, path):
        return self.below[path]

    def pids(self, path):
        return {42, 41}

    def remove(self, path):
        self.below.pop(path, None)

    def limits(self, path):
        return CgroupLimits(cpu_shares=512, memory=1 << 20)


class Runtime:
    """Answers calls from what the test puts here, and keeps them."""

    def __init__(self):
        self.statuses, self.sandboxes, self.calls, self.fails, self.within = {}, {}, [], {}, "s1"

    def container(self, cid, state="CONTAINER_RUNNING", sandbox="s1", **fields):
        known = {labels.POD_UID: "u1", labels.POD_NAME: "web", labels.CONTAINER_NAME: "main", labels.NODE: "n"}
        self.statuses[cid] = wire.ContainerStatus(
            id=cid, state=getattr(wire, state), labels=known, metadata=wire.ContainerMetadata(name="main"),
            created_at=SECOND, started_at=2 * SECOND, **fields,
        )  # fmt: skip
        self.statuses[cid].annotations[labels.IMAGE_ID] = "img@sha256:1"

    def sandbox(self, sid, uid="u1", ready=True, attempt=0):
        self.sandboxes[sid] = wire.PodSandbox(
            id=sid, labels={labels.POD_UID: uid}, state=wire.SANDBOX_READY if ready else wire.SANDBOX_NOTREADY,
            metadata=wire.PodSandboxMetadata(uid=uid, attempt=attempt),
        )  # fmt: skip

    async def runtime(self, method, *, deadline=0.0, **fields):
        self.calls.append((method, fields))
        if method in self.fails:
            raise self.fails[method]
        return await getattr(self, method)(**fields)

    async def ListPodSandbox(self, filter):
        assert filter == {"label_selector": {labels.NODE: "n"}}
        return wire.ListPodSandboxResponse(items=list(self.sandboxes.values()))

    async def ListContainers(self, filter):
        found = [wire.Container(id=one.id, state=one.state, pod_sandbox_id=self.within, labels=one.labels)
                 for one in self.statuses.values()]  # fmt: skip
        return wire.ListContainersResponse(containers=found)

    async def ContainerStatus(self, container_id):
        if container_id not in self.statuses:
            raise Missing("no such container", grpc.StatusCode.NOT_FOUND)
        return wire.ContainerStatusResponse(status=self.statuses[container_id])

    async def CreateContainer(self, pod_sandbox_id, config, sandbox_config):
        self.container("new", "CONTAINER_CREATED", pod_sandbox_id)
        return wire.CreateContainerResponse(container_id="new")

    async def StartContainer(self, container_id):
        self.statuses[container_id].state = wire.CONTAINER_RUNNING

    async def StopContainer(self, container_id, timeout):
        if container_id not in self.statuses:
            raise Missing("no such container", grpc.StatusCode.NOT_FOUND)
        self.ends(container_id, 137 if timeout == 0 else 0)

    async def StopPodSandbox(self, pod_sandbox_id):
        return None

    async def RemovePodSandbox(self, pod_sandbox_id):
        self.sandboxes.pop(pod_sandbox_id, None)

    async def RemoveContainer(self, container_id):
        self.statuses.pop(container_id, None)

    async def ExecSync(self, container_id, cmd, timeout):
        return wire.ExecSyncResponse(stdout=b"out", stderr=b"err", exit_code=3)

    async def UpdateContainerResources(self, container_id, linux):
        return None

    def ends(self, cid, code, reason="", at=9):
        status = self.statuses[cid]
        status.state, status.exit_code, status.reason, status.finished_at = (
            wire.CONTAINER_EXITED, code, reason or ("Completed" if code == 0 else "Error"), at * SECOND,
        )  # fmt: skip
