"""Namespaces and security of Pods as users see them: shared processes, user namespaces, who a container runs as."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from support.agent_node import IMAGE, wait_until
from support.pod_lab import STAY, PodLab, main_status, restarts

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_cluster]

SLEEPERS = {"one": "1001", "two": "1002"}
PEER = {"name": "peer", "image": IMAGE, "command": STAY}


def two(command: list[str]) -> dict[str, Any]:
    return {"containers": [{"name": "main", "image": IMAGE, "command": command}, PEER]}


def sh(script: str) -> list[str]:
    return ["/bin/sh", "-c", script]


def finished_log(lab: PodLab, name: str) -> list[str]:
    """The lines of the Pod's log once it has said that it is done."""
    lab.wait_phase(name, "Running")
    lab.wait(name, "its log", lambda _: "done" in lab.logs(name))
    return lab.logs(name).splitlines()


def processes(lab: PodLab, uid: str) -> dict[int, list[str]]:
    """Pids of the Pod's processes by cgroup, with the last lines of their NSpid and their command."""
    found = {}
    for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
        try:
            with open(f"/proc/{pid}/cgroup") as file:
                if f"pod{uid}" not in file.read():
                    continue
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                found[pid] = file.read().decode().rstrip("\0").split("\0")
        except OSError:
            continue
    return found


def monitor(words: list[str]) -> bool:
    return os.path.basename(words[0]) == "conmon"


def pause_of(lab: PodLab, uid: str) -> int:
    return next(pid for pid, words in processes(lab, uid).items() if words == ["/pause"])


def test_shared_processes(lab: PodLab) -> None:
    # The sub-shell's child is orphaned: process 1 has to reap it. Nobody may look into the pause process.
    script = (
        "(sleep 0.01 &); while ! ps | grep -v grep | grep -q 'sleep 1000000'; do sleep 0.05; done; sleep 0.1;"
        "cat /proc/1/cmdline; echo; ls /proc/1/root/ 2>&1; ps -o stat | grep -c Z; echo done; sleep 1000"
    )
    uid = lab.create("share", **two(sh(script)), shareProcessNamespace=True)
    lines = finished_log(lab, "share")
    assert lines[0].rstrip("\0") == "/pause"
    assert "Permission denied" in lines[1]
    assert lines[2] == "0"
    first = pause_of(lab, uid)
    with open(f"/proc/{first}/status") as file:
        status = dict(line.split(":\t", 1) for line in file.read().splitlines() if ":\t" in line)
    assert status["Uid"].split() == ["65535"] * 4
    assert (status["CapEff"], status["CapBnd"], status["NoNewPrivs"]) == ("0" * 16, "0" * 16, "1")
    assert int(status["VmRSS"].split()[0]) < 64

    lab.node.stop(signal.SIGKILL)
    lab.node.start()
    lab.wait_ready()
    assert pause_of(lab, uid) == first
    pod = lab.get("share")
    assert restarts(pod) == 0

    os.kill(first, signal.SIGKILL)
    pod = lab.wait("share", "both containers again", lambda pod: _ready_again(pod, 1))
    assert pod.status.pod_ip.startswith("10.222.7.")
    assert pause_of(lab, uid) != first
    lab.wait_event("share", "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.")
    lab.delete("share")
    lab.wait_gone("share")
    assert processes(lab, uid) == {}


def test_without_shared_processes_there_is_no_first_process(lab: PodLab) -> None:
    """All that a Pod has in its cgroups is what its containers run, and the monitor of each."""
    both = [{"name": name, "image": IMAGE, "command": ["/bin/sleep", seconds]} for name, seconds in SLEEPERS.items()]
    alone = lab.create("alone", containers=both)
    shared = lab.create("together", containers=both, shareProcessNamespace=True)
    for name in ("alone", "together"):
        lab.wait_phase(name, "Running")
    ours = [["/bin/sleep", seconds] for seconds in SLEEPERS.values()]
    found = [sorted(words for words in processes(lab, uid).values() if not monitor(words)) for uid in (alone, shared)]
    assert found == [ours, sorted([["/pause"], *ours])]


def _ready_again(pod: Any, count: int) -> bool:
    statuses = pod.status.container_statuses or []
    return len(statuses) == 2 and all(one.ready and one.restart_count == count for one in statuses)


def test_ephemeral_container_joins_its_target(lab: PodLab) -> None:
    lab.create("debug", **two(sh("exec sleep 777")))
    lab.wait_phase("debug", "Running")
    probe = {"image": IMAGE, "terminationMessagePolicy": "File"}
    containers = [
        {"name": "with", "command": sh("ps; exit 0"), "targetContainerName": "main", **probe},
        {"name": "without", "command": sh("ps; exit 0"), **probe},
    ]
    body = {"spec": {"ephemeralContainers": containers}}
    lab.api.patch_namespaced_pod_ephemeralcontainers("debug", lab.namespace, body)

    def over(pod: Any) -> bool:
        statuses = pod.status.ephemeral_container_statuses or []
        return len(statuses) == 2 and all(one.state.terminated is not None for one in statuses)

    lab.wait("debug", "both have looked", over)
    assert "sleep 777" in lab.logs("debug", "with")
    assert "sleep 777" not in lab.logs("debug", "without")


def test_host_namespaces(lab: PodLab) -> None:
    show = "readlink /proc/self/ns/pid; readlink /proc/self/ns/ipc; readlink /proc/self/ns/net; echo done; sleep 1000"
    lab.create("host", sh(show), hostPID=True, hostIPC=True, hostNetwork=True)
    lab.create("own", sh(show))
    ours = [os.readlink(f"/proc/{lab.node.process.pid}/ns/{kind}") for kind in ("pid", "ipc", "net")]
    assert finished_log(lab, "host")[:3] == ours
    assert not set(finished_log(lab, "own")[:3]) & set(ours)


def user_namespaces(lab: PodLab) -> bool:
    """Whether the node says that it has them; what it declares goes with that."""
    status = lab.api.read_node(lab.node.name).status
    there = [handler.features.user_namespaces for handler in status.runtime_handlers]
    assert all(there) is any(there)
    assert ("UserNamespacesHostNetworkSupport" in status.declared_features) is all(there)
    return all(there)


def test_user_namespace(lab: PodLab) -> None:
    if not user_namespaces(lab):
        pytest.skip("this kernel has no idmapped mounts for the directories of the tests")
    lab.api.create_namespaced_config_map(lab.namespace, {"metadata": {"name": "c"}, "data": {"k": "from a map"}})
    script = (
        "cat /proc/self/uid_map; id -u; id -G; cat /c/k; echo; stat -L -c '%u:%g' /c/k /e /etc/hosts /dev/shm;"
        "echo x > /e/made; stat -c '%u:%g' /e/made; echo y >> /etc/hosts; hostname own 2>&1;"
        "ping -c 1 -W 2 127.0.0.1 | grep -c '1 packets received'; cat /proc/sys/kernel/shm_rmid_forced; echo done;"
        "echo -n bye > /dev/termination-log; sleep 1000"
    )
    volumes = [{"name": "c", "configMap": {"name": "c"}}, {"name": "e", "emptyDir": {}}]
    mounts = [{"name": "c", "mountPath": "/c"}, {"name": "e", "mountPath": "/e"}]
    context = {"fsGroup": 2000, "sysctls": [{"name": "kernel.shm_rmid_forced", "value": "1"}]}
    uids = [
        lab.create(
            name,
            sh(script),
            container={"volumeMounts": mounts},
            volumes=volumes,
            hostUsers=False,
            securityContext=context,
            shareProcessNamespace=name == "u2",
        )
        for name in ("u1", "u2")
    ]
    starts = []
    for name in ("u1", "u2"):
        lines = finished_log(lab, name)
        inside, outside, length = lines[0].split()
        assert (inside, length) == ("0", "65536")
        starts.append(int(outside))
        assert lines[1:4] == ["0", "0 2000", "from a map"]
        assert lines[4:9] == ["0:2000", "0:2000", "0:0", "0:0", "0:2000"]
        assert lines[-3:-1] == ["1", "1"]
    assert abs(starts[0] - starts[1]) >= 65536
    assert min(starts) >= 65536
    lab.node.stop(signal.SIGKILL)
    lab.node.start()
    lab.wait_ready()
    uids.append(lab.create("u3", sh("cat /proc/self/uid_map; echo done; sleep 1000"), hostUsers=False))
    third = int(finished_log(lab, "u3")[0].split()[1])
    assert all(abs(third - start) >= 65536 for start in starts)
    assert all(restarts(lab.get(name)) == 0 for name in ("u1", "u2"))
    for name in ("u1", "u2", "u3"):
        lab.delete(name)
        lab.wait_gone(name)
    assert not any(processes(lab, uid) for uid in uids)
    wait_until("nothing is left", lambda: not lab.on_host())
    lab.create("u4", sh("cat /proc/self/uid_map; echo done; sleep 1000"), hostUsers=False)
    assert int(finished_log(lab, "u4")[0].split()[1]) == min(starts)


def test_volumes_in_a_user_namespace(lab: PodLab, tmp_path: Path) -> None:
    if not user_namespaces(lab):
        pytest.skip("this kernel has no idmapped mounts for the directories of the tests")
    lab.api.create_namespaced_secret(lab.namespace, {"metadata": {"name": "s"}, "stringData": {"k": "secret"}})
    (tmp_path / "given").write_text("host")
    os.chown(tmp_path / "given", 1000, 1000)
    tmp_path.chmod(0o777)
    sources = [
        {"serviceAccountToken": {"path": "token"}},
        {"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
    ]
    volumes = [
        {"name": "memory", "emptyDir": {"medium": "Memory"}},
        {"name": "secret", "secret": {"secretName": "s", "defaultMode": 0o400}},
        {"name": "projected", "projected": {"sources": sources}},
        {"name": "host", "hostPath": {"path": str(tmp_path)}},
        {"name": "disk", "emptyDir": {}},
        {"name": "image", "image": {"reference": IMAGE, "pullPolicy": "IfNotPresent"}},
    ]
    mounts = [{"name": one["name"], "mountPath": f"/v/{one['name']}"} for one in volumes]
    mounts += [
        {"name": "disk", "mountPath": "/v/sub", "subPath": "a/b"},
        {"name": "secret", "mountPath": "/v/key", "subPath": "k", "readOnly": True},
    ]
    script = (
        "id -u; id -G; cat /v/secret/k /v/key; echo; cat /v/projected/name; echo; head -c 2 /v/projected/token; echo;"
        "cat /v/host/given; echo; for d in memory disk sub host; do echo x > /v/$d/made; done;"
        "stat -c %u:%g /v/memory/made /v/disk/made /v/disk/a/b/made /v/host/made /v/host/given;"
        "/v/image/bin/sh -c 'echo ran'; echo x 2>/dev/null >/v/key || echo no; echo done; sleep 1000"
    )
    context = {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 2000}
    lab.create(
        "vol", sh(script), container={"volumeMounts": mounts}, volumes=volumes, hostUsers=False, securityContext=context
    )
    lines = finished_log(lab, "vol")
    assert lines[:6] == ["1000", "1000 2000", "secretsecret", "vol", "ey", "host"]
    assert lines[6:11] == ["1000:2000", "1000:2000", "1000:2000", "1000:1000", "1000:1000"]
    assert lines[11:] == ["ran", "no", "done"]
    assert os.stat(tmp_path / "made").st_uid == 1000


def test_what_containers_may(lab: PodLab) -> None:
    """One Pod, one container for each setting; each says what it finds."""
    seccomp = Path(lab.node.settings["state_dir"]) / "seccomp"
    seccomp.mkdir(exist_ok=True)
    (seccomp / "none.json").write_text(
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["chmod", '
        '"fchmodat", "fchmodat2"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}]}'
    )
    show = "grep -E '^(CapBnd|NoNewPrivs|Seccomp):' /proc/self/status | cut -f2 | tr '\\n' ' '; "
    write = "for d in / /tmp; do touch $d/x 2>/dev/null && echo -n $d' '; done; "
    masked = "grep -c ' /proc/' /proc/self/mountinfo | tr '\\n' ' '; "
    change = "chmod 700 /tmp 2>&1 | grep -c supported; "
    usual = "00000000a80425fb 0 2"
    wanted: dict[str, tuple[dict[str, Any], str, str]] = {
        "usual": ({}, show + write, f"{usual} / /tmp "),
        "none": ({"capabilities": {"drop": ["ALL"]}, "allowPrivilegeEscalation": False}, show, f"{'0' * 16} 1 2 "),
        "some": ({"capabilities": {"drop": ["all"], "add": ["NET_BIND_SERVICE"]}}, show, f"{'0' * 13}400 0 2 "),
        "free": ({"seccompProfile": {"type": "Unconfined"}}, show, "00000000a80425fb 0 0 "),
        "own": ({"seccompProfile": {"type": "Localhost", "localhostProfile": "none.json"}}, change, "1"),
        "read": ({"readOnlyRootFilesystem": True}, show + write, f"{usual} "),
    }
    containers = [
        {"name": name, "image": IMAGE, "command": sh(script + "echo"), "securityContext": context}
        for name, (context, script, _) in wanted.items()
    ]
    lab.create("may", containers=containers, restartPolicy="Never")
    lab.wait_phase("may", "Succeeded")
    assert {name: lab.logs("may", name).rstrip("\n") for name in wanted} == {n: row[2] for n, row in wanted.items()}
    if user_namespaces(lab):
        container = {"securityContext": {"procMount": "Unmasked"}}
        lab.create("proc", sh(masked), container=container, hostUsers=False, restartPolicy="Never")
        lab.wait_phase("proc", "Succeeded")
        assert lab.logs("proc") == "0 "


@pytest.mark.parametrize(
    ("context", "reason", "message"),
    [
        (
            {"seccompProfile": {"type": "Localhost", "localhostProfile": "missing.json"}},
            "CreateContainerError",
            'cannot load seccomp profile "{0}/missing.json": open {0}/missing.json: no such file or directory',
        ),
        (
            {"runAsNonRoot": True},
            "CreateContainerConfigError",
            'container has runAsNonRoot and image will run as root (pod: "bad_{1}({2})", container: main)',
        ),
        ({"capabilities": {"add": ["FLY"]}}, "CreateContainerConfigError", "unknown capability 'FLY'"),
    ],
)
def test_what_cannot_be_is_told(lab: PodLab, context: dict[str, Any], reason: str, message: str) -> None:
    uid = lab.create("bad", STAY, container={"securityContext": context})
    pod = lab.wait_waiting("bad", reason)
    expected = message.format(f"{lab.node.settings['state_dir']}/seccomp", lab.namespace, uid)
    assert main_status(pod).state.waiting.message == expected


def test_identity_is_told(lab: PodLab) -> None:
    context = {"runAsUser": 1234, "runAsGroup": 50, "supplementalGroups": [9, 7], "supplementalGroupsPolicy": "Strict"}
    lab.create("who", STAY, securityContext=context)
    pod = lab.wait("who", "an identity", lambda pod: pod.status.container_statuses and main_status(pod).user)
    linux = main_status(pod).user.linux
    assert (linux.uid, linux.gid, linux.supplemental_groups) == (1234, 50, [7, 9, 50])
    assert lab.api.read_node(lab.node.name).status.features.supplemental_groups_policy is True
