"""What crictl does not show: statuses of errors, repeated calls, events, host ports."""

import threading

import grpc
import pytest

from nodewright_agent.cri import wire
from support.cri_server import CriServer

pytestmark = pytest.mark.needs_root

CODE = grpc.StatusCode


def refused(cri: CriServer, method: str, **fields) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        cri.call(method, **fields)
    return caught.value.code(), caught.value.details()


def test_what_is_gone_can_be_stopped_and_removed_again(cri):
    sandbox, cid = cri.started(cri.pod(), cri.container("main", "sleep", "1000"))
    for _ in range(2):
        cri.call("StopContainer", container_id=cid)
    for _ in range(2):
        cri.call("RemoveContainer", container_id=cid)
    for _ in range(2):
        cri.call("StopPodSandbox", pod_sandbox_id=sandbox)
    for _ in range(2):
        cri.call("RemovePodSandbox", pod_sandbox_id=sandbox)
    cri.call("StopContainer", container_id=cid)
    cri.call("RemoveImage", "ImageService", image=wire.ImageSpec(image="localhost/none:1"))


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("PodSandboxStatus", {"pod_sandbox_id": "none"}),
        ("ContainerStatus", {"container_id": "none"}),
        ("StartContainer", {"container_id": "none"}),
        ("ExecSync", {"container_id": "none", "cmd": ["true"]}),
        ("ContainerStats", {"container_id": "none"}),
        ("PortForward", {"pod_sandbox_id": "none"}),
    ],
)
def test_not_found(cri, method, fields):
    code, text = refused(cri, method, **fields)
    assert code is CODE.NOT_FOUND
    assert '"none" not found' in text


def test_statuses_of_refusals(cri):
    pod = cri.pod()
    sandbox, cid = cri.started(pod, cri.container("main", "sleep", "1000"))
    config = wire.PodSandboxConfig(metadata=pod["metadata"])
    assert refused(cri, "RunPodSandbox", config=config)[0] is CODE.ALREADY_EXISTS
    assert refused(cri, "RunPodSandbox", config=wire.PodSandboxConfig())[0] is CODE.INVALID_ARGUMENT
    assert refused(cri, "RunPodSandbox", config=config, runtime_handler="none")[0] is CODE.INVALID_ARGUMENT
    main = wire.ContainerConfig(metadata={"name": "main"}, image={"image": "localhost/none:1"})
    assert refused(cri, "CreateContainer", pod_sandbox_id=sandbox, config=main)[0] is CODE.ALREADY_EXISTS
    other = wire.ContainerConfig(metadata={"name": "other"}, image={"image": "localhost/none:1"})
    assert refused(cri, "CreateContainer", pod_sandbox_id=sandbox, config=other)[0] is CODE.NOT_FOUND
    assert refused(cri, "StartContainer", container_id=cid)[0] is CODE.FAILED_PRECONDITION
    code, text = refused(cri, "ExecSync", container_id=cid, cmd=["sleep", "100"], timeout=1)
    assert code is CODE.DEADLINE_EXCEEDED
    assert "timeout 1s exceeded" in text
    assert refused(cri, "Attach", container_id=cid, stdout=True, tty=True)[0] is CODE.INVALID_ARGUMENT
    cri.call("StopContainer", container_id=cid)
    assert refused(cri, "ExecSync", container_id=cid, cmd=["true"])[0] is CODE.FAILED_PRECONDITION
    assert refused(cri, "Exec", container_id=cid, cmd=["true"], stdout=True)[0] is CODE.FAILED_PRECONDITION


def test_a_call_that_we_do_not_have(cri):
    with cri.channel() as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/runtime.v1.RuntimeService/CheckpointContainer")(b"", timeout=60)
    assert caught.value.code() is CODE.UNIMPLEMENTED
    assert caught.value.details() == "checkpoints of containers are not implemented"


def test_another_runtime_handler(cri):
    sandbox = cri.crictl("runp", "--runtime", "other", cri.file(cri.pod()))
    assert cri.call("PodSandboxStatus", pod_sandbox_id=sandbox).status.runtime_handler == "other"


def test_events(cri):
    found: list[tuple[str, int]] = []
    with cri.channel() as channel:
        follow = channel.unary_stream(
            "/runtime.v1.RuntimeService/GetContainerEvents",
            request_serializer=wire.GetEventsRequest.SerializeToString,
            response_deserializer=wire.ContainerEventResponse.FromString,
        )
        stream = follow(wire.GetEventsRequest())
        stream.initial_metadata()  # it has begun

        def read() -> None:
            for event in stream:
                found.append((event.container_id, event.container_event_type))
                if event.container_event_type == wire.CONTAINER_DELETED_EVENT:
                    return

        reader = threading.Thread(target=read)
        reader.start()
        _, cid = cri.started(cri.pod(), cri.container("main", "true"))
        while cri.call("ContainerStatus", container_id=cid).status.state != wire.CONTAINER_EXITED:
            pass
        cri.call("RemoveContainer", container_id=cid)
        reader.join(60)
        assert not reader.is_alive()
    assert found == [
        (cid, wire.CONTAINER_CREATED_EVENT),
        (cid, wire.CONTAINER_STARTED_EVENT),
        (cid, wire.CONTAINER_STOPPED_EVENT),
        (cid, wire.CONTAINER_DELETED_EVENT),
    ]


def test_host_network_and_host_ports(cri):
    ports = [{"protocol": 0, "container_port": 8080, "host_port": 18080}]
    cri.started(cri.pod("published", port_mappings=ports), cri.container())
    assert "host=" in cri.fetched("http://127.0.0.1:18080/")
    host = {"security_context": {"namespace_options": {"network": 2}}}
    sandbox, cid = cri.started(cri.pod("host", linux=host), cri.container("main", "sleep", "1000", linux=host))
    assert cri.call("PodSandboxStatus", pod_sandbox_id=sandbox).status.network.ip == ""
    links = cri.call("ExecSync", container_id=cid, cmd=["ls", "/sys/class/net"]).stdout.decode().split()
    assert "nw-pods" in links


def test_no_log_without_a_path(cri):
    _, cid = cri.started(cri.pod(), cri.container("main", "sh", "-c", "echo said; sleep 1000", log_path=""))
    assert cri.call("ContainerStatus", container_id=cid).status.log_path == ""
    cri.call("ReopenContainerLog", container_id=cid)
