"""Volumes as containers see them: real mounts, images, devices and claims, through a real API server."""

import os
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nodewright_agent.runtime import mountinfo, mounts, syscalls
from support.agent_node import IMAGE, wait_until
from support.pod_lab import STAY, PodLab, main_status, restarts

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_cluster]


def mounted(uid: str) -> list[str]:
    return [entry.mount_point for entry in mountinfo.read() if uid in entry.mount_point]


def wait_unmounted(uid: str) -> None:
    """Wait until nothing of the Pod is mounted: its sandbox goes after the Pod."""
    wait_until("all is unmounted", lambda: mounted(uid) == [])


def mount(name: str, path: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "mountPath": path, **more}


def bound(lab: PodLab, name: str, spec: dict[str, Any], claim: dict[str, Any] | None = None) -> None:
    """A claim and its volume, bound as the volume controller binds them (this cluster has none)."""
    size = {"requests": {"storage": "1Mi"}}
    body = {
        "metadata": {"name": name, **(claim or {})},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": size,
            "storageClassName": "",
            "volumeName": f"{lab.namespace}-{name}",
            "volumeMode": spec.get("volumeMode", "Filesystem"),
        },
    }
    made = lab.api.create_namespaced_persistent_volume_claim(lab.namespace, body)
    reference = {"kind": "PersistentVolumeClaim", "namespace": lab.namespace, "name": name, "uid": made.metadata.uid}
    volume = {
        "metadata": {"name": f"{lab.namespace}-{name}"},
        "spec": {"capacity": {"storage": "1Mi"}, "accessModes": ["ReadWriteOnce"], "claimRef": reference, **spec},
    }
    lab.api.create_persistent_volume(volume)
    lab.api.patch_namespaced_persistent_volume_claim_status(name, lab.namespace, {"status": {"phase": "Bound"}})


def wait_for_message(lab: PodLab, name: str, text: str) -> None:
    """Wait until the containers that wait for the volumes say what is wrong with them."""

    def told(pod: Any) -> bool:
        waiting = main_status(pod).state.waiting if pod.status.container_statuses else None
        return waiting is not None and waiting.reason == "ContainerCreating" and text in (waiting.message or "")

    lab.wait(name, f"{name} waits and tells {text}", told)


def here(node: str) -> dict[str, Any]:
    terms = [{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}]
    return {"required": {"nodeSelectorTerms": terms}}


@pytest.fixture
def loop_device(tmp_path: Path) -> Iterator[str]:
    image = tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(8 << 20)
    device = subprocess.run(["losetup", "-f", "--show", image], capture_output=True, text=True, check=True).stdout
    yield device.strip()
    subprocess.run(["losetup", "-d", device.strip()], check=True)


def test_an_image_as_a_volume(lab: PodLab) -> None:
    script = (
        "ls /img/bin/sh /sub/sh; touch /img/x || echo no-write; cp /img/bin/busybox /img/bin/y || echo no-copy; "
        "/img/bin/sh -c 'echo ran'; echo done; sleep 1000"
    )
    container = {"volumeMounts": [mount("i", "/img"), mount("i", "/sub", subPath="bin")]}
    volumes = [{"name": "i", "image": {"reference": IMAGE, "pullPolicy": "IfNotPresent"}}]
    uid = lab.create("img", ["/bin/sh", "-c", script], container=container, volumes=volumes)
    pod = lab.wait("img", "its log", lambda pod: pod.status.phase == "Running" and "done" in lab.logs("img"))
    text = lab.logs("img")
    assert "/img/bin/sh\n/sub/sh\n" in text
    assert "no-write" in text
    assert "no-copy" in text
    assert "ran\n" in text
    assert [one.mount_path for one in main_status(pod).volume_mounts] == ["/img", "/sub"]
    assert len(mounted(uid)) >= 2
    lab.delete("img")
    lab.wait_gone("img")
    wait_unmounted(uid)


def test_images_for_volumes_that_are_not_to_be_had(lab: PodLab) -> None:
    def pod(name: str, reference: str, policy: str, **more: Any) -> None:
        volumes = [{"name": "i", "image": {"reference": reference, "pullPolicy": policy}}]
        lab.create(name, STAY, container={"volumeMounts": [mount("i", "/img", **more)]}, volumes=volumes)

    pod("never", "localhost/nothing:1", "Never")
    pod("pull", "localhost:1/nothing:1", "Always")
    pod("sub", IMAGE, "IfNotPresent", subPath="no/such")
    said = main_status(lab.wait_waiting("never", "ErrImageNeverPull")).state.waiting.message
    assert said == 'Container image "localhost/nothing:1" is not present with pull policy of Never'
    said = main_status(lab.wait_waiting("pull", "ImagePullBackOff")).state.waiting.message
    assert said.startswith('Back-off pulling image "localhost:1/nothing:1"')
    assert "no/such" in main_status(lab.wait_waiting("sub", "CreateContainerError")).state.waiting.message


def test_env_from_files_and_unused_volumes(lab: PodLab) -> None:
    def of(key: str, **more: Any) -> dict[str, Any]:
        return {"name": key, "valueFrom": {"fileKeyRef": {"volumeName": "e", "path": "env", "key": key, **more}}}

    init = {
        "name": "init",
        "image": IMAGE,
        "command": ["/bin/sh", "-c", "printf \"A='one'\\nB='two\\nlines'\\n\" > /e/env"],
        "volumeMounts": [mount("e", "/e")],
    }
    volumes = [{"name": "e", "emptyDir": {}}, {"name": "unused", "configMap": {"name": "there-is-none"}}]
    env = [of("A"), of("B"), of("C", optional=True), {"name": "D", "value": "$(A)-$(C)"}]
    command = ["/bin/sh", "-c", 'echo "$A/$B/${C-unset}/$D"']
    common: dict[str, Any] = {"initContainers": [init], "volumes": volumes, "restartPolicy": "Never"}
    lab.create("env", command, container={"env": env}, **common)
    lab.create("lost", command, container={"env": [of("C")]}, **common)
    lab.wait_phase("env", "Succeeded")
    assert lab.logs("env") == "one/two\nlines/unset/one-$(C)\n"
    said = main_status(lab.wait_waiting("lost", "CreateContainerConfigError")).state.waiting.message
    assert said == 'environment variable key "C" not found in file "env"'


def test_recursive_read_only(lab: PodLab, tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    syscalls.mount("tmpfs", str(tmp_path / "inner"), "tmpfs")
    try:
        (handler,) = [h for h in lab.api.read_node(lab.node.name).status.runtime_handlers if not h.name]
        assert handler.features.recursive_read_only_mounts is True
        asked = {"readOnly": True, "recursiveReadOnly": "Enabled"}
        container = {"volumeMounts": [mount("h", "/all", **asked), mount("h", "/top", readOnly=True)]}
        script = "for d in all top; do for p in $d $d/inner; do touch /$p/x && echo wrote $p; done; done; echo done"
        volumes = [{"name": "h", "hostPath": {"path": str(tmp_path)}}]
        lab.create("rro", ["/bin/sh", "-c", script], container=container, volumes=volumes, restartPolicy="Never")
        pod = lab.wait_phase("rro", "Succeeded")
        assert [line for line in lab.logs("rro").splitlines() if line.startswith("wrote")] == ["wrote top/inner"]
        assert [m.recursive_read_only for m in main_status(pod).volume_mounts] == ["Enabled", "Disabled"]
    finally:
        mounts.unmount(str(tmp_path / "inner"))


def test_mounts_of_a_privileged_container_reach_the_others_and_are_gone_with_the_pod(lab: PodLab) -> None:
    script = "mkdir -p /v/in && mount -t tmpfs none /v/in && echo hello > /v/in/f && echo made; sleep 1000"
    sees = "until cat /v/in/f 2>/dev/null; do sleep 0.1; done; sleep 1000"
    containers = [
        {"name": "sees", "image": IMAGE, "command": ["/bin/sh", "-c", sees],
         "volumeMounts": [mount("v", "/v", mountPropagation="HostToContainer")]},
        {"name": "makes", "image": IMAGE, "command": ["/bin/sh", "-c", script], "securityContext": {"privileged": True},
         "volumeMounts": [mount("v", "/v", mountPropagation="Bidirectional")]},
    ]  # fmt: skip
    uid = lab.create("prop", containers=containers, volumes=[{"name": "v", "emptyDir": {}}])
    lab.wait("prop", "sight of it", lambda pod: pod.status.phase == "Running" and "hello" in lab.logs("prop", "sees"))
    assert any(point.endswith("/v/in") for point in mounted(uid))
    lab.delete("prop", grace=1)
    lab.wait_gone("prop")
    wait_unmounted(uid)


def test_claims(lab: PodLab, tmp_path: Path, loop_device: str) -> None:
    """hostPath, local, a device as such, an ephemeral claim; all at once."""
    for name in ("host", "local", "own"):
        (tmp_path / name).mkdir()
    (tmp_path / "local" / "f").write_text("x")
    affinity = {"nodeAffinity": here(lab.node.name)}
    bound(lab, "host", {"hostPath": {"path": str(tmp_path / "host")}})
    bound(lab, "local", {"local": {"path": str(tmp_path / "local")}, "mountOptions": ["noexec"], **affinity})
    bound(lab, "device", {"local": {"path": loop_device}, "volumeMode": "Block", **affinity})
    claims = [{"name": n, "persistentVolumeClaim": {"claimName": n}} for n in ("host", "local", "device")]
    wanted = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1"}}}
    ephemeral = {"metadata": {}, "spec": wanted}
    script = (
        "echo h > /host/f; stat -c '%g %a' /local /local/f; grep -c ' /local .*noexec' /proc/mounts; "
        "echo raw | dd of=/dev/disk conv=notrunc 2>/dev/null; cat /own/f; echo done; sleep 1000"
    )
    container = {
        "volumeMounts": [mount("host", "/host"), mount("local", "/local"), mount("own", "/own")],
        "volumeDevices": [{"name": "device", "devicePath": "/dev/disk"}],
    }
    uid = lab.create(
        "pv", ["/bin/sh", "-c", script], container=container, securityContext={"fsGroup": 777},
        volumes=[*claims, {"name": "own", "ephemeral": {"volumeClaimTemplate": ephemeral}}],
    )  # fmt: skip
    missing = 'failed to fetch PVC from API server: persistentvolumeclaims "pv-own" not found'
    lab.wait_event("pv", "FailedMount", missing)
    wait_for_message(lab, "pv", missing)
    (tmp_path / "own" / "f").write_text("mine\n")
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "pv", "uid": uid, "controller": True}
    bound(lab, "pv-own", {"hostPath": {"path": str(tmp_path / "own")}}, {"ownerReferences": [owner]})
    lab.wait("pv", "its log", lambda pod: pod.status.phase == "Running" and "done" in lab.logs("pv"))
    assert lab.logs("pv").splitlines() == ["777 2775", "777 664", "1", "mine", "done"]
    assert (tmp_path / "host" / "f").read_text() == "h\n"
    with open(loop_device, "rb") as device:
        assert device.read(4) == b"raw\n"
    lab.delete("pv")
    lab.wait_gone("pv")
    assert (tmp_path / "local" / "f").exists()
    for name in ("host", "local", "device", "pv-own"):
        lab.api.delete_persistent_volume(f"{lab.namespace}-{name}")


def test_a_blank_local_disk_is_formatted_once(lab: PodLab, loop_device: str) -> None:
    bound(lab, "disk", {"local": {"path": loop_device, "fsType": "ext4"}, "nodeAffinity": here(lab.node.name)})
    volumes = [{"name": "d", "persistentVolumeClaim": {"claimName": "disk"}}]
    container = {"volumeMounts": [mount("d", "/d")]}
    for name, script in (("first", "echo kept > /d/f; grep -o '/d ext4' /proc/mounts"), ("second", "cat /d/f")):
        uid = lab.create(
            name, ["/bin/sh", "-c", script], container=container, volumes=volumes, restartPolicy="Never"
        )  # fmt: skip
        lab.wait_phase(name, "Succeeded")
        lab.delete(name)
        lab.wait_gone(name)
        wait_unmounted(uid)
    lab.api.delete_persistent_volume(f"{lab.namespace}-disk")


def test_what_the_node_cannot_mount_is_told(lab: PodLab) -> None:
    volumes = [{"name": "s", "csi": {"driver": "none.example"}}, {"name": "n", "nfs": {"server": "s", "path": "/x"}}]
    lab.create("no", STAY, container={"volumeMounts": [mount("s", "/s"), mount("n", "/n")]}, volumes=volumes)
    lab.wait_event("no", "FailedMount", 'MountVolume.SetUp failed for volume "s" : kubernetes.io/csi: driver name none')
    lab.wait_event("no", "FailedMount", 'MountVolume.SetUp failed for volume "n" : no volume plugin matched: nfs')
    wait_for_message(lab, "no", "none.example not found")


def test_a_missing_host_path_becomes_a_directory(lab: PodLab, tmp_path: Path) -> None:
    volumes = [{"name": "h", "hostPath": {"path": str(tmp_path / "a" / "b")}}]
    lab.create("dir", STAY, container={"volumeMounts": [mount("h", "/h")]}, volumes=volumes)
    lab.wait_phase("dir", "Running")
    assert stat.S_IMODE(os.stat(tmp_path / "a" / "b").st_mode) == 0o755


def test_volumes_outlive_the_agent_and_not_the_pod(own_lab: PodLab, tmp_path: Path, loop_device: str) -> None:
    """Killed beside a running Pod, the agent takes its volumes over; a restarted container has them, as deleted."""
    lab = own_lab
    bound(lab, "disk", {"local": {"path": loop_device}, "nodeAffinity": here(lab.node.name)})
    volumes = [
        {"name": "h", "hostPath": {"path": str(tmp_path)}},
        {"name": "i", "image": {"reference": IMAGE, "pullPolicy": "IfNotPresent"}},
        {"name": "d", "persistentVolumeClaim": {"claimName": "disk"}},
    ]
    script = "ls /sh; echo x >> /d/sub/runs; until [ -e /h/go ]; do sleep 0.1; done; rm /h/go; exit 1"
    mounts = [mount("h", "/h"), mount("i", "/sh", subPath="bin/sh"), mount("d", "/d"), mount("d", "/s", subPath="sub")]
    uid = lab.create("p", ["/bin/sh", "-c", script], container={"volumeMounts": mounts}, volumes=volumes)
    lab.wait("p", "its run", lambda pod: pod.status.phase == "Running" and "/sh" in lab.logs("p"))
    before = sorted(mounted(uid))
    lab.node.stop(signal.SIGKILL)
    (tmp_path / "go").touch()  # it ends while nobody looks
    wait_until("the container has ended", lambda: not (tmp_path / "go").exists())
    lab.node.start()
    lab.wait("p", "its second run", lambda pod: restarts(pod) == 1 and main_status(pod).state.running is not None)
    assert sorted(mounted(uid)) == before
    lab.delete("p", grace=0)
    lab.wait_gone("p")
    wait_unmounted(uid)
    lab.api.delete_persistent_volume(f"{lab.namespace}-disk")
