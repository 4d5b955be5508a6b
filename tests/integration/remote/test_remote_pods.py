"""Pods by another runtime: the agent speaks CRI to `nodewright cri`, and to containerd where it is installed."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nodewright.controlplane.assets import Assets
from nodewright_agent.remote import cleanup
from support.agent_node import MAIN, AgentNode, wait_until
from support.kubectl_sessions import Kubectl
from support.pod_lab import STAY, PodLab, main_status, restarts, walk_cgroups
from support.pod_resources import amounts, done, resize, resources
from support.private_registry import PrivateRegistry, make_secret
from support.remote_runtimes import RemoteRuntime, call

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_cluster, pytest.mark.timeout(300)]


OFTEN = f"""
from nodewright_agent.pods.logrotation import LogRotator
LogRotator.__init__.__defaults__ = (*LogRotator.__init__.__defaults__[:-1], 0.5)
{MAIN}
"""
"""Looks at logs twice a second."""


def ready(lab: PodLab) -> Any:
    conditions = lab.api.read_node(lab.node.name).status.conditions
    return next(one for one in conditions if one.type == "Ready")


def pids(lab: PodLab, cid: str) -> list[str]:
    """The processes of a container, from the kernel."""
    bare = cid.rpartition("/")[2]
    for path, _, _ in walk_cgroups(lab.node.cgroup_root):
        if bare in Path(path).name and (found := (Path(path) / "cgroup.procs").read_text().split()):
            return found
    return []


@pytest.fixture
def kubectl(lab: PodLab) -> Kubectl:
    return Kubectl(Assets().obtain(["kubectl"])["kubectl"], lab)


def test_the_node_tells_who_runs_its_containers(lab: PodLab, runtime: RemoteRuntime) -> None:
    status = lab.api.read_node(lab.node.name).status
    assert status.node_info.container_runtime_version.startswith(f"{runtime.name}://")
    names = {one.name for one in status.runtime_handlers or []}
    assert names == ({"", "other"} if runtime.name == "nodewright" else set())  # containerd tells since 2.0
    assert "ExtendWebSocketsToKubelet" not in (status.declared_features or [])
    wait_until("the images are shown", lambda: any("nodewright-demo" in name for name in shown(lab)))


def shown(lab: PodLab) -> list[str]:
    images = lab.api.read_node(lab.node.name).status.images or []
    return [name for image in images for name in image.names]


def test_a_pod_runs_and_goes(lab: PodLab, runtime: RemoteRuntime) -> None:
    script = "echo $GREETING from $(hostname); cat /data/file /etc/resolv.conf; cat /etc/hosts; exec sleep 1000"
    lab.api.create_namespaced_config_map(lab.namespace, {"metadata": {"name": "c"}, "data": {"file": "of a volume\n"}})
    mounts = [{"name": "v", "mountPath": "/data"}, {"name": "scratch", "mountPath": "/scratch"}]
    lab.create(
        "web",
        ["sh", "-c", script],
        container={
            "env": [{"name": "GREETING", "value": "hello"}],
            "volumeMounts": mounts,
            "readinessProbe": {"exec": {"command": ["cat", "/data/file"]}, "periodSeconds": 1},
            "lifecycle": {"postStart": {"exec": {"command": ["touch", "/scratch/hooked"]}}},
        },
        volumes=[{"name": "v", "configMap": {"name": "c"}}, {"name": "scratch", "emptyDir": {}}],
        hostAliases=[{"ip": "192.0.2.9", "hostnames": ["alias"]}],
        dnsPolicy="None",
        dnsConfig={"nameservers": ["192.0.2.53"], "searches": ["x.test"]},
    )
    pod = lab.wait("web", "web is ready", lambda pod: pod.status.container_statuses and main_status(pod).ready)
    status = main_status(pod)
    assert status.container_id.startswith(f"{runtime.name}://")
    assert status.image_id
    assert pod.status.pod_ip.startswith(runtime.cidr.removesuffix("0/24"))
    assert pids(lab, status.container_id)
    text = lab.logs("web")
    for line in ("hello from web", "of a volume", "nameserver 192.0.2.53", "search x.test", "192.0.2.9\talias"):
        assert line in text
    assert f"{pod.status.pod_ip}\tweb" in text
    usage = wait_until("usage is told", lambda: [one for one in lab.stats_summary()["pods"] if one.get("containers")])
    mine = next(one for one in usage if one["podRef"]["name"] == "web")
    assert mine["containers"][0]["memory"]["workingSetBytes"] > 0
    assert mine["network"]["interfaces"]
    scratch = lab.node.state / "pods" / pod.metadata.uid / "volumes/kubernetes.io~empty-dir/scratch"
    assert (scratch / "hooked").exists()
    lab.delete("web")
    lab.wait_gone("web")
    wait_until("nothing of it is left", lambda: lab.on_host() == [])


def test_ends_are_told(lab: PodLab) -> None:
    tell = "echo last words > /dev/termination-log; exit 3"
    lab.create("fails", ["sh", "-c", tell], restartPolicy="OnFailure")
    lab.create("hungry", ["sh", "-c", "x=$(cat /dev/zero | head -c 200000000 | tr '\\0' x)"], restartPolicy="Never",
               container={"resources": resources(amounts(memory="16Mi"), amounts(memory="16Mi"))})  # fmt: skip
    lab.create("nosuch", ["/no/such"], restartPolicy="Never")
    lab.create("absent", container={"image": "localhost/absent:1", "imagePullPolicy": "Never"})
    pod = lab.wait("fails", "fails was started again", lambda pod: restarts(pod) >= 1)
    last = main_status(lab.wait("fails", "its end", lambda pod: main_status(pod).last_state.terminated)).last_state
    assert (last.terminated.exit_code, last.terminated.reason, last.terminated.message) == (3, "Error", "last words\n")
    assert last.terminated.finished_at
    pod = lab.wait_phase("hungry", "Failed")
    assert (main_status(pod).state.terminated.reason, main_status(pod).state.terminated.exit_code) == ("OOMKilled", 137)
    pod = lab.wait_phase("nosuch", "Failed")
    ended = main_status(pod).state.terminated
    assert (ended.reason, ended.exit_code) == ("StartError", 128)
    assert "/no/such" in ended.message
    lab.wait_waiting("absent", "ErrImageNeverPull")


def test_it_has_its_grace_and_no_more(lab: PodLab) -> None:
    lab.create("deaf", ["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"], terminationGracePeriodSeconds=3)
    lab.create("polite", ["sh", "-c", "trap 'exit 7' TERM; while :; do sleep 0.1; done"],
               terminationGracePeriodSeconds=600)  # fmt: skip
    lab.wait_phase("deaf", "Running")
    lab.wait_phase("polite", "Running")
    begun = time.monotonic()
    lab.delete("deaf")
    lab.delete("polite")
    lab.wait_gone("polite")
    lab.wait_gone("deaf")
    assert time.monotonic() - begun >= 2.9


def test_the_agent_goes_and_comes(lab: PodLab) -> None:
    lab.create("stays")
    lab.create("ends", ["sh", "-c", "trap 'exit 9' USR1; while :; do sleep 0.1; done"], restartPolicy="Never")
    before = lab.wait_phase("stays", "Running")
    pod = lab.wait_phase("ends", "Running")
    lab.node.stop(signal.SIGKILL)
    [pid, *_] = pids(lab, main_status(pod).container_id)
    subprocess.run(["kill", "-USR1", pid], check=True)
    wait_until("the container's end", lambda: not pids(lab, main_status(pod).container_id))
    lab.node.start()
    pod = lab.wait_phase("ends", "Failed")
    assert main_status(pod).state.terminated.exit_code == 9
    lab.create("next")
    lab.wait_phase("next", "Running")
    after = lab.get("stays")
    assert main_status(after).container_id == main_status(before).container_id
    assert (restarts(after), after.status.pod_ip) == (0, before.status.pod_ip)
    assert main_status(after).ready


def test_the_runtime_goes_and_comes(lab: PodLab, runtime: RemoteRuntime) -> None:
    lab.create("stays")
    before, node = lab.wait_phase("stays", "Running"), ready(lab)
    told = lab.node.text().count("the runtime does not answer")
    runtime.stop(signal.SIGKILL)
    wait_until("the agent finds out", lambda: lab.node.text().count("the runtime does not answer") > told)
    assert pids(lab, main_status(before).container_id)
    lab.create("waits")
    lab.wait("waits", "it waits", lambda pod: pod.status.start_time is not None)
    runtime.start()
    lab.wait_phase("waits", "Running", 60)
    assert ready(lab).last_transition_time == node.last_transition_time, "no Service is to lose its endpoints for that"
    after = lab.get("stays")
    assert main_status(after).container_id == main_status(before).container_id
    assert restarts(after) == 0
    lab.delete("stays")
    lab.wait_gone("stays")


@pytest.mark.parametrize("websockets", [True, False])
def test_streams(lab: PodLab, websockets: bool) -> None:
    kubectl = Kubectl(Assets().obtain(["kubectl"])["kubectl"], lab, websockets=websockets)
    script = "trap 'exit 0' TERM; nc -ll -p 7000 -e cat & while read word; do echo got $word; done"
    lab.create("open", ["sh", "-c", script], container={"stdin": True})
    lab.wait_phase("open", "Running")
    assert kubectl.output("exec", "-i", "open", "--", "cat", stdin=b"both ways") == b"both ways"
    found = kubectl.run("exec", "open", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (found.stdout, found.stderr) == (b"out\n", b"err\ncommand terminated with exit code 7\n")
    with kubectl.terminal("exec", "-it", "open", "--", "sh") as terminal:
        terminal.type("stty size\n")
        terminal.expect("30 100")
        terminal.type("exit 3\n")
        assert terminal.code() == 3
    with kubectl.started("attach", "-i", "open") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"one\n")
        process.stdin.flush()
        while (line := process.stdout.readline()) != b"got one\n":
            assert line, "the attachment has ended"
    with kubectl.forwarded("pod/open", 7000) as port, socket.create_connection(("127.0.0.1", port), 30) as client:
        client.sendall(b"through")
        assert client.recv(100) == b"through"
    assert lab.logs("open") == "got one\n"


def ended(pod: Any) -> bool:
    return any(one.state.terminated for one in pod.status.ephemeral_container_statuses or [])


def test_a_debugger_sees_its_target(lab: PodLab, kubectl: Kubectl) -> None:
    command = ["sh", "-c", "trap 'exit 0' TERM; sleep 4321 & wait"]
    lab.create("p", command)
    lab.create("shared", command, shareProcessNamespace=True)
    lab.wait_phase("p", "Running")
    words = ["debug", "p", "--image=localhost/nodewright-demo:1", "--image-pull-policy=IfNotPresent", "--target=main"]
    kubectl.output(*words, "-q", "-c", "dbg", "--", "sh", "-c", "tr '\\0' ' ' < /proc/1/cmdline")
    lab.wait("p", "the debugger has ended", ended)
    assert "sleep 4321" in lab.logs("p", "dbg")
    lab.wait_phase("shared", "Running")
    assert b"sleep 4321" not in kubectl.output("exec", "shared", "--", "sh", "-c", "tr '\\0' ' ' < /proc/1/cmdline")


def test_resources_change_in_place(lab: PodLab) -> None:
    first = resources(amounts("100m", "32Mi"), amounts("200m", "64Mi"))
    lab.create("grow", container={"resources": first})
    before = lab.wait("grow", "grow is ready", done(first))
    more = resources(amounts("300m", "64Mi"), amounts("400m", "128Mi"))
    resize(lab, "grow", main=more)
    after = lab.wait("grow", "grow has more", done(more))
    assert main_status(after).container_id == main_status(before).container_id
    limits = [
        (Path(path) / name).read_text().strip()
        for path, _, _ in walk_cgroups(lab.node.cgroup_root)
        for name in ("memory.limit_in_bytes", "memory.max")
        if main_status(after).container_id.rpartition("/")[2] in Path(path).name and (Path(path) / name).exists()
    ]
    assert limits == [str(128 << 20)]


def test_a_host_port_leads_to_the_pod(lab: PodLab, runtime: RemoteRuntime) -> None:
    lab.create("served", ["sh", "-c", "trap 'exit 0' TERM; nc -ll -p 7000 -e cat & wait"],
               container={"ports": [{"containerPort": 7000, "hostPort": 17000}]})  # fmt: skip
    pod = lab.wait_phase("served", "Running")
    gateway = runtime.cidr.removesuffix("0/24") + "1"

    def answers() -> bool:
        try:
            with socket.create_connection((pod.status.pod_ip, 7000), 5):
                pass
            with socket.create_connection((gateway, 17000), 5) as client:
                client.sendall(b"x")
                return client.recv(1) == b"x"
        except OSError:
            return False

    wait_until("the port answers", answers)


def test_a_log_is_rotated_and_a_node_is_cleaned_up(
    lab_cluster: Any, make_node: Callable[..., AgentNode], runtime: RemoteRuntime
) -> None:
    node = make_node(container_log_max_size="20Ki", container_log_max_files=3)
    node.start(main=OFTEN)
    try:
        with PodLab(lab_cluster, node) as lab:
            lab.wait_ready()
            lab.create(
                "chatty", ["sh", "-c", "i=0; while :; do i=$((i+1)); echo line $i of many words; sleep 0.005; done"]
            )
            pod = lab.wait_phase("chatty", "Running")
            directory = node.state / "pods-logs" / f"{lab.namespace}_chatty_{pod.metadata.uid}" / "main"
            wait_until("a log is rotated", lambda: any(directory.glob("0.log.*")), 60)
            wait_until("the new one grows", lambda: (directory / "0.log").stat().st_size > 0)
            node.stop()
            endpoint = f"unix://{runtime.socket}"
            assert cleanup.remove_all(endpoint, node.name) == ["1 sandboxes"]
            assert cleanup.remove_all(endpoint, node.name) == []
            node.start()
    finally:
        node.close()


def test_what_the_runtime_cannot_do_is_refused(lab: PodLab, runtime: RemoteRuntime) -> None:
    lab.create("users", STAY, hostUsers=False)
    image = {"name": "i", "image": {"reference": "localhost/nodewright-demo:1"}}
    lab.create("shown", ["cat", "/i/bin/sh"], volumes=[image], restartPolicy="Never",
               container={"volumeMounts": [{"name": "i", "mountPath": "/i"}]})  # fmt: skip
    if runtime.name == "nodewright":
        lab.wait_phase("shown", "Succeeded")
        return
    pod = lab.wait_waiting("shown", "CreateContainerConfigError")
    assert "does not mount images" in main_status(pod).state.waiting.message
    lab.wait_event("users", "FailedCreatePodSandBox", 'runtime handler "" does not support user namespaces')


def test_a_sandbox_that_is_lost_is_made_anew(lab: PodLab, runtime: RemoteRuntime) -> None:
    lab.create("moved")
    before = lab.wait_phase("moved", "Running")
    [sandbox] = [one for one in call(runtime.socket, "ListPodSandbox").items if one.metadata.uid == before.metadata.uid]
    call(runtime.socket, "StopPodSandbox", pod_sandbox_id=sandbox.id)
    after = lab.wait("moved", "it runs again", lambda pod: restarts(pod) == 1 and main_status(pod).state.running)
    assert main_status(after).container_id != main_status(before).container_id
    lab.wait_event("moved", "SandboxChanged")
    left = [one.id for one in call(runtime.socket, "ListPodSandbox").items if one.metadata.uid == before.metadata.uid]
    assert len(left) == 1
    assert left != [sandbox.id]


def test_an_image_is_pulled_with_the_pods_secret(lab: PodLab) -> None:
    registry = PrivateRegistry()
    try:
        make_secret(lab, "good", registry.host, "right")
        make_secret(lab, "bad", registry.host, "wrong")
        lab.create("stranger", container={"image": registry.image}, imagePullSecrets=[{"name": "bad"}])
        lab.wait_waiting("stranger", "ImagePullBackOff")
        both = [{"name": "bad"}, {"name": "good"}]
        lab.create("owner", container={"image": registry.image}, imagePullSecrets=both)
        pod = lab.wait_phase("owner", "Running")
        assert main_status(pod).image_id.startswith(registry.image.partition(":1")[0].rpartition("/")[0])
        lab.wait_event("owner", "Pulled", f'Successfully pulled image "{registry.image}" in ')
        lab.delete("stranger", grace=0)
        lab.wait_gone("stranger")
        lab.create("stranger", container={"image": registry.image})
        lab.wait_waiting("stranger", "ImagePullBackOff")  # that it is here now changes nothing
    finally:
        registry.close()
