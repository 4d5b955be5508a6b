"""How Pods restart as a whole, and how they end: real containers, hooks, signals and reboots."""

import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from nodewright_agent.runtime import cgroups, mounts
from nodewright_agent.runtime.cleanup import purge
from support.agent_node import IMAGE, MAIN, AgentNode, wait_until
from support.pod_lab import STAY, PodLab, main_status, restarts
from support.probe_server import ProbeServer

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_cluster]


OWN_NET = (("IP", "status.podIP"), ("IPS", "status.podIPs"), ("HOST", "status.hostIP"))


def shell(script: str) -> list[str]:
    return ["/bin/sh", "-c", script]


def container(name: str, script: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "image": IMAGE, "command": shell(script), **more}


def on_exit(code: int, action: str) -> list[dict[str, Any]]:
    return [{"action": action, "exitCodes": {"operator": "In", "values": [code]}}]


def every_status(pod: Any) -> dict[str, Any]:
    return {one.name: one for one in (*(pod.status.init_container_statuses or []), *pod.status.container_statuses)}


def test_all_containers_restart_in_place_and_others_by_their_own_rules(lab: PodLab) -> None:
    data = {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    once = "if [ -e /data/{0} ]; then exec sleep 1000; fi; touch /data/{0}; sleep 1; exit {1}"
    uid = lab.create(
        "all",
        containers=[
            container(
                "source",
                once.format("a", 42),
                restartPolicy="Never",
                restartPolicyRules=on_exit(42, "RestartAllContainers"),
                **data,
            ),
            container("other", "sleep 1000"),
        ],
        initContainers=[
            container("init", "echo ran >> /data/init", **data),
            container("side", "trap '' TERM; while :; do sleep 1; done", restartPolicy="Always"),
        ],
        volumes=[{"name": "data", "emptyDir": {}}],
        restartPolicy="Never",
        terminationGracePeriodSeconds=600,
    )
    ruled = container("ruled", once.format("r", 7), restartPolicyRules=on_exit(7, "Restart"), restartPolicy="Never")
    lab.create(
        "own",
        containers=[
            ruled | data,
            container("never", "exit 3", restartPolicy="Never"),
            container("always", once.format("s", 0), restartPolicy="Always", **data),
        ],
        volumes=[{"name": "data", "emptyDir": {}}],
        restartPolicy="OnFailure",
    )

    def restarted(pod: Any) -> bool:
        found = every_status(pod) if pod.status.container_statuses else {}
        return len(found) == 4 and all(one.restart_count == 1 for one in found.values()) and found["other"].ready

    first = lab.wait("all", "an address", lambda pod: pod.status.pod_ip)
    pod = lab.wait("all", "one restart of all", restarted)
    assert (pod.metadata.uid, pod.status.pod_ip, pod.status.phase) == (uid, first.status.pod_ip, "Running")
    assert every_status(pod)["source"].last_state.terminated.exit_code == 42
    conditions = {one.type: one.status for one in pod.status.conditions}
    assert conditions["AllContainersRestarting"] == "False"
    assert conditions["Initialized"] == "True"

    pod = lab.wait("own", "the ruled one again", lambda pod: restarts(pod) == 1)
    pod = lab.wait("own", "the third again", lambda pod: every_status(pod)["always"].restart_count == 1)
    assert every_status(pod)["never"].restart_count == 0
    assert every_status(pod)["never"].state.terminated.exit_code == 3
    assert pod.status.phase == "Running"
    for name in ("all", "own"):
        lab.delete(name, grace=0)


def test_hooks_signals_and_their_order(lab: PodLab) -> None:
    out = Path(lab.node.state) / "ends"
    mount = {"volumeMounts": [{"name": "out", "mountPath": "/out"}]}
    volume = {"name": "out", "hostPath": {"path": str(out), "type": "DirectoryOrCreate"}}

    def noting(name: str, hook: str, **more: Any) -> dict[str, Any]:
        script = f"trap 'echo term {name} >> /out/order; exit 0' TERM; sleep 1000 & wait $!"
        command = shell(f"{hook}echo hook {name} >> /out/order")
        return container(name, script, lifecycle={"preStop": {"exec": {"command": command}}}, **mount, **more)

    lab.create(
        "order",
        containers=[noting("main", "sleep 1; ")],
        initContainers=[noting("s1", "", restartPolicy="Always"), noting("s2", "", restartPolicy="Always")],
        volumes=[volume],
        terminationGracePeriodSeconds=30,
    )
    # Its hook would take a minute; it is given up as soon as a second deletion leaves no time for it.
    slow = {"lifecycle": {"preStop": {"sleep": {"seconds": 60}}}}
    lab.create("hurried", container=slow, terminationGracePeriodSeconds=120)
    zero = {"lifecycle": {"preStop": {"sleep": {"seconds": 0}}, "postStart": {"sleep": {"seconds": 0}}}}
    lab.create("zero", STAY, container=zero, terminationGracePeriodSeconds=600)
    # What ends by itself does not wait for its hook.
    lab.create("ends", shell("sleep 4"), container=slow, terminationGracePeriodSeconds=600, restartPolicy="Never")
    for name in ("order", "hurried", "zero", "ends"):
        lab.wait(name, "ready", lambda pod: pod.status.container_statuses and main_status(pod).ready)
        lab.delete(name)
    lab.wait_event("hurried", "Killing", "Stopping container main")
    lab.delete("hurried", grace=1)
    for name in ("order", "hurried", "zero", "ends"):
        lab.wait_gone(name)
    lines = (out / "order").read_text().splitlines()
    assert sorted(lines[:2]) == ["hook s1", "hook s2"], lines
    assert lines[2:] == ["hook main", "term main", "term s2", "term s1"]


def test_hooks_where_no_grace_is_left(lab: PodLab) -> None:
    """A Pod with a grace of 0 is gone from the API at once; its hooks run all the same, within the least window."""
    out = Path(lab.node.state) / "forced"
    mount = {"name": "out", "mountPath": "/out"}
    volume = {"name": "out", "hostPath": {"path": str(out), "type": "DirectoryOrCreate"}}
    note = {"exec": {"command": shell("echo hook >> /out/order")}}
    term = shell("trap 'echo term >> /out/order; exit 0' TERM; sleep 1000 & wait $!")
    with ProbeServer() as server:
        ask = {"httpGet": {"port": server.port, "path": "/bye", "host": "127.0.0.1"}}
        lab.create(
            "forced",
            containers=[
                container("exec", "", lifecycle={"preStop": note}, volumeMounts=[mount]) | {"command": term},
                container("http", "", lifecycle={"preStop": ask}) | {"command": STAY},
            ],
            volumes=[volume],
            terminationGracePeriodSeconds=0,
        )
        lab.wait_phase("forced", "Running")
        lab.delete("forced")
        lab.wait_gone("forced")
        wait_until("nothing of it is left", lambda: not lab.on_host())
        (request,) = server.requests
    assert request.startswith(b"GET /bye HTTP/1.1")
    assert b"User-Agent: kube-lifecycle/1.36" in request
    assert (out / "order").read_text() == "hook\nterm\n"


def test_names_that_a_pod_has_inside(lab: PodLab) -> None:
    show = shell("hostname; cat /etc/hosts")
    own = {"hostname": "web", "subdomain": "sub"}
    alias = {"ip": "192.0.2.7", "hostnames": ["one.example", "two.example"]}
    lab.create("plain", show, restartPolicy="Never", hostAliases=[alias], **own)
    lab.create("full", show, restartPolicy="Never", setHostnameAsFQDN=True, **own)
    lab.create("other", show, restartPolicy="Never", hostnameOverride="named.example")
    full = f"web.sub.{lab.namespace}.svc.cluster.local"
    said = {}
    for name in ("plain", "full", "other"):
        pod = lab.wait_phase(name, "Succeeded")
        hostname, *said[name] = lab.logs(name).splitlines()
        expected = {"plain": "web", "full": full, "other": "named.example"}[name]
        assert hostname == expected
        names = "named.example" if name == "other" else f"{full}\tweb"
        assert f"{pod.status.pod_ip}\t{names}" in said[name]
    assert said["plain"][-2:] == ["# Entries added by HostAliases.", "192.0.2.7\tone.example\ttwo.example"]
    lab.create(
        "host",
        shell('echo "$IP $IPS $HOST"; cat /etc/hosts'),
        container={"env": [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in OWN_NET]},
        restartPolicy="Never",
        hostNetwork=True,
        hostAliases=[alias],
    )
    pod = lab.wait_phase("host", "Succeeded")
    told, *hosts = lab.logs("host").splitlines()
    assert told == f"{pod.status.pod_ip} {pod.status.pod_ip} {pod.status.host_ip}"
    assert hosts[0] == "# Kubernetes-managed hosts file (host network)."
    assert hosts[-2:] == said["plain"][-2:]
    lab.create("long", setHostnameAsFQDN=True, hostname="h" * 63, subdomain="sub")
    lab.wait_event("long", "FailedCreatePodSandBox", "is too long (64 is the max")


def test_how_ends_are_told(lab: PodLab) -> None:
    fallback = {"terminationMessagePolicy": "FallbackToLogsOnError"}
    long = "i=0; while [ $i -lt 700 ]; do echo line-$i; i=$((i+1)); done"
    lab.create(
        "messages",
        containers=[
            container("log", "echo one; echo two >&2; exit 1", **fallback),
            container("fine", "echo one", **fallback),
            container("file", f"({long}) > /dev/termination-log; exit 1"),
            container("bounded", f"{long}; exit 1", **fallback),
        ],
        restartPolicy="Never",
    )
    lab.create("late", activeDeadlineSeconds=600)
    pod = lab.wait_phase("messages", "Failed")
    message = {one.name: one.state.terminated.message for one in pod.status.container_statuses}
    assert sorted(message["log"].splitlines()) == ["one", "two"]
    assert message["fine"] is None
    assert "line-1\n" not in message["file"], "its last 4 KiB"
    assert len(message["file"]) == 3072, "a quarter of 12 KiB"
    assert len(message["bounded"].splitlines()) == 80
    lab.wait_phase("late", "Running")
    lab.api.patch_namespaced_pod("late", lab.namespace, {"spec": {"activeDeadlineSeconds": 1}})
    pod = lab.wait_phase("late", "Failed")
    assert pod.status.reason == "DeadlineExceeded"
    assert pod.status.pod_ip


def test_a_pod_that_never_started_fails_when_it_is_deleted(lab: PodLab) -> None:
    lab.create("pending", container={"image": "127.0.0.1:9/none:1"}, annotations={"x": "y"})
    lab.api.patch_namespaced_pod("pending", lab.namespace, {"metadata": {"finalizers": ["example.com/keep"]}})
    try:
        lab.wait("pending", "its sandbox", lambda pod: pod.status.pod_ip)
        lab.delete("pending")
        pod = lab.wait_phase("pending", "Failed")
        assert main_status(pod).state.terminated.reason == "ContainerStatusUnknown"
        assert pod.metadata.generation == pod.status.observed_generation
        assert all(one.observed_generation == pod.metadata.generation for one in pod.status.conditions)
    finally:
        lab.api.patch_namespaced_pod("pending", lab.namespace, {"metadata": {"finalizers": None}})
    lab.wait_gone("pending")


def reboot(node: AgentNode) -> None:
    """Take all that a reboot takes: processes, cgroups, namespaces, /run, links and rules; and the boot's identity."""
    node.stop(signal.SIGKILL)
    purge(run_dir=node.run, state_dir=node.run, cgroup_root=node.cgroup_root, cgroups=cgroups.detect())
    mounts.unmount_below(node.state)
    for words in (("ip", "link", "delete", "nw-pods"), ("nft", "flush", "ruleset")):
        subprocess.run(words, check=True)
    other = "import nodewright_agent.runtime.recovery as recovery; recovery.boot_id = lambda: 'another'; "
    node.start(main=other + MAIN)


def test_after_a_reboot_pods_go_on_by_their_policy(own_lab: PodLab) -> None:
    lab, node = own_lab, own_lab.node
    data = {
        "volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "memory", "mountPath": "/memory"}],
        "lifecycle": {"postStart": {"exec": {"command": shell("echo hook >> /data/hooks")}}},
    }
    spec: dict[str, Any] = {
        "volumes": [{"name": "data", "emptyDir": {}}, {"name": "memory", "emptyDir": {"medium": "Memory"}}],
        "initContainers": [container("init", "echo ran >> /data/init; echo ran >> /memory/init")],
    }
    spec["initContainers"][0]["volumeMounts"] = data["volumeMounts"]
    lab.create("always", shell("cat /data/init /memory/init; exec sleep 1000"), container=data, **spec)
    lab.create("never", restartPolicy="Never")
    lab.create("done", shell("exit 0"), restartPolicy="OnFailure")
    lab.wait_phase("done", "Succeeded")
    for name in ("always", "never"):
        lab.wait_phase(name, "Running")
    lab.wait("always", "its hook done", lambda pod: main_status(pod).started)
    before = lab.get("always")
    reboot(node)
    pod = lab.wait("always", "a second run", lambda pod: restarts(pod) == 1 and main_status(pod).ready)
    assert every_status(pod)["init"].restart_count == 1
    assert pod.metadata.uid == before.metadata.uid
    last = main_status(pod).last_state.terminated
    assert (last.exit_code, last.reason) == (255, "Unknown")
    # Its disk was kept, its memory was not.
    wait_until("init containers ran again", lambda: lab.logs("always") == "ran\nran\nran\n")
    assert str(lab.api.read_namespaced_pod_log("always", lab.namespace, previous=True)) == "ran\nran\n"
    lab.wait_event("always", "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.")
    pod = lab.wait_phase("never", "Failed")
    assert restarts(pod) == 0
    assert lab.get("done").status.phase == "Succeeded"
