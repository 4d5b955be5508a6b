"""Volumes against the real API server, under the Node authorizer, on real mounts."""

import asyncio
import base64
import json
import os
import socket

import pytest

from nodewright.kube.errors import Forbidden
from nodewright.kube.objects import Pod
from nodewright.kube.resources import CONFIGMAPS, PODS
from nodewright_agent.pods.volumes.errors import FailedMount
from nodewright_agent.pods.volumes.manager import VolumeManager
from nodewright_agent.runtime import mountinfo, syscalls
from support.volume_objects import config_map, eventually, mode, mounted, secret, set_up, text

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_cluster]


async def test_empty_dirs(manager, make_pod):
    pod = await make_pod([
        {"name": "disk", "emptyDir": {}},
        {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "2Mi"}},
    ], securityContext={"fsGroup": 1234})  # fmt: skip
    volumes = await set_up(manager, pod, allocatable={"memory": "1Gi"})
    assert mode(volumes["disk"]) == 0o2777
    assert os.stat(volumes["disk"]).st_gid == 1234
    (entry,) = mounted(volumes["memory"])
    assert entry.fstype == "tmpfs"
    assert mode(volumes["memory"]) == 0o3777
    with pytest.raises(OSError, match="No space"), open(volumes["memory"] / "big", "wb") as file:
        file.write(bytes(3 << 20))
    (volumes["disk"] / "data").write_text("kept")
    assert await manager.setup(pod) == volumes
    assert (volumes["disk"] / "data").read_text() == "kept"
    assert len(mounted(volumes["memory"])) == 1
    await manager.teardown(pod.metadata.uid)
    assert not mounted(volumes["memory"])
    assert not volumes["disk"].exists()
    await manager.teardown(pod.metadata.uid)


async def test_huge_pages(manager, make_pod):
    sizes = {"hugepages-2Mi": "2Mi", "cpu": "1", "memory": "1Mi"}
    pod = await make_pod([{"name": "v", "emptyDir": {"medium": "HugePages"}}, {"name": "w", "emptyDir": {}}])
    with pytest.raises(FailedMount, match="there is no resource request for such huge pages"):
        await set_up(manager, pod)
    pod.spec.containers[0].resources.limits.update(sizes)
    volumes = await set_up(manager, pod)
    (entry,) = mounted(volumes["v"])
    assert (entry.fstype, mode(volumes["v"])) == ("hugetlbfs", 0o777)
    assert "pagesize=2M" in entry.super_options


async def test_teardown_never_follows_links_or_deletes_through_mounts(manager, make_pod, tmp_path):
    """A container may leave anything in its emptyDir."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    pod = await make_pod([{"name": "v", "emptyDir": {}}], mounts=[{"name": "v", "mountPath": "/m", "subPath": "sub"}])
    volumes = await set_up(manager, pod)
    os.symlink(outside, volumes["v"] / "link")
    (volumes["v"] / "inner").mkdir()
    syscalls.mount(str(outside), str(volumes["v"] / "inner"), "", syscalls.MS_BIND)
    manager.mounts_for(pod, pod.spec.containers[0], volumes, {})
    await manager.teardown(pod.metadata.uid)
    assert (outside / "kept").read_text() == "x"
    assert not [e for e in mountinfo.read() if pod.metadata.uid in e.mount_point]
    assert manager.known() == []


async def test_config_map_and_secret_volumes_follow_their_objects(manager, make_pod, admin, namespace):
    await config_map(admin, namespace, "cm", {"a": "1", "b": "2"})
    await secret(admin, namespace, "s", {"key": b"\xff\x00"})
    pod = await make_pod([
        {"name": "cm", "configMap": {"name": "cm"}},
        {"name": "s", "secret": {"secretName": "s", "defaultMode": 0o400}},
        {"name": "item", "configMap": {"name": "cm", "items": [{"key": "a", "path": "x/y", "mode": 0o440}]}},
    ])  # fmt: skip
    volumes = await set_up(manager, pod)
    assert (volumes["cm"] / "a").read_text() == "1"
    assert (volumes["s"] / "key").read_bytes() == b"\xff\x00"
    assert mode(volumes["s"] / "key") == 0o400
    assert mounted(volumes["s"])[0].fstype == "tmpfs"
    assert mode(volumes["item"] / "x/y") == 0o440
    assert manager._host.objects.watching == {("configmap", namespace, "cm"), ("secret", namespace, "s")}
    await config_map(admin, namespace, "cm", {"a": "new"})
    await eventually(lambda: text(volumes["cm"] / "a") == "new" and text(volumes["item"] / "x/y") == "new")
    assert not (volumes["cm"] / "b").is_symlink()
    await secret(admin, namespace, "s", {"key": b"rotated"})
    await eventually(lambda: (volumes["s"] / "key").read_bytes() == b"rotated")
    await manager.teardown(pod.metadata.uid)
    assert manager._host.objects.watching == frozenset()


async def test_one_watch_serves_many_pods_until_the_last_goes(manager, make_pod, admin, namespace):
    await config_map(admin, namespace, "cm", {"a": "1"})
    pods = [await make_pod([{"name": "cm", "configMap": {"name": "cm"}}]) for _ in range(3)]
    volumes = [await set_up(manager, pod) for pod in pods]
    assert len(manager._host.objects.watching) == 1
    await manager.teardown(pods[0].metadata.uid)
    await config_map(admin, namespace, "cm", {"a": "2"})
    await eventually(lambda: text(volumes[1]["cm"] / "a") == text(volumes[2]["cm"] / "a") == "2")
    for pod in pods[1:]:
        await manager.teardown(pod.metadata.uid)
    assert not manager._host.objects.watching


async def test_a_hundred_quick_changes_end_at_the_last(manager, make_pod, admin, namespace):
    await config_map(admin, namespace, "cm", {"a": "start"})
    pod = await make_pod([{"name": "cm", "configMap": {"name": "cm"}}])
    volumes = await set_up(manager, pod)
    for i in range(100):
        await config_map(admin, namespace, "cm", {"a": str(i)})
    await eventually(lambda: text(volumes["cm"] / "a") == "99")


async def test_immutable_objects_need_no_watch(manager, make_pod, admin, namespace):
    await config_map(admin, namespace, "fixed", {"a": "1"}, immutable=True)
    pod = await make_pod([{"name": "cm", "configMap": {"name": "fixed"}}])
    await set_up(manager, pod)
    (watched,) = manager._host.objects._watched.values()
    await eventually(watched.task.done)


async def test_missing_objects_are_told_and_their_arrival_wakes(manager, make_pod, admin, namespace, reports):
    pod = await make_pod(
        [{"name": "cm", "configMap": {"name": "late"}}, {"name": "s", "secret": {"secretName": "gone"}}]
    )
    with pytest.raises(FailedMount) as caught:
        await set_up(manager, pod)
    assert caught.value.messages == [
        'MountVolume.SetUp failed for volume "cm" : configmap "late" not found',
        'MountVolume.SetUp failed for volume "s" : secret "gone" not found',
    ]
    await config_map(admin, namespace, "late", {"a": "1"})
    await eventually(lambda: ("wake", pod.metadata.uid) in reports)
    with pytest.raises(FailedMount, match=r'^MountVolume\.SetUp failed for volume "s" : secret "gone" not found$'):
        await manager.setup(pod)
    await secret(admin, namespace, "gone", {"k": b"v"})
    await eventually(lambda: reports.count(("wake", pod.metadata.uid)) >= 2)
    volumes = await manager.setup(pod)
    assert (volumes["s"] / "k").read_bytes() == b"v"


async def test_optional_objects_may_come_and_go(manager, make_pod, admin, namespace):
    pod = await make_pod([{"name": "cm", "configMap": {"name": "maybe", "optional": True}}])
    volumes = await set_up(manager, pod)
    assert os.listdir(volumes["cm"]) != ["a"]
    await config_map(admin, namespace, "maybe", {"a": "1"})
    await eventually(lambda: text(volumes["cm"] / "a") == "1")
    await admin.delete(CONFIGMAPS, "maybe", namespace)
    await eventually(lambda: not (volumes["cm"] / "a").is_symlink())
    await config_map(admin, namespace, "maybe", {"a": "again"})
    await eventually(lambda: text(volumes["cm"] / "a") == "again")


async def test_an_object_deleted_under_a_running_pod_leaves_its_content(manager, make_pod, admin, namespace, reports):
    await config_map(admin, namespace, "cm", {"a": "1"})
    pod = await make_pod([{"name": "cm", "configMap": {"name": "cm"}}])
    volumes = await set_up(manager, pod)
    await admin.delete(CONFIGMAPS, "cm", namespace)
    await eventually(lambda: 'MountVolume.SetUp failed for volume "cm" : configmap "cm" not found' in reports)
    assert text(volumes["cm"] / "a") == "1"
    await config_map(admin, namespace, "cm", {"a": "2"})
    await eventually(lambda: text(volumes["cm"] / "a") == "2")


async def test_the_node_may_not_read_what_no_pod_of_its_refers_to(agent, admin, namespace):
    await config_map(admin, namespace, "private", {"a": "1"})
    with pytest.raises(Forbidden):
        await agent.get(CONFIGMAPS, "private", namespace)


async def test_projected_volume_with_token(manager, make_pod, admin, namespace):
    await config_map(admin, namespace, "bundle", {"ca.crt": "PEM"})
    pod = await make_pod([{"name": "all", "projected": {"defaultMode": 0o444, "sources": [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
        {"configMap": {"name": "bundle", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}},
                                   {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
    ]}}], securityContext={"fsGroup": 4321}, serviceAccountName="default")  # fmt: skip
    volumes = await set_up(manager, pod)
    folder = volumes["all"]
    assert text(folder / "ca.crt") == "PEM"
    assert text(folder / "namespace") == namespace
    assert text(folder / "labels") == 'app="x"'
    token = text(folder / "token")
    claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    assert claims["kubernetes.io"]["pod"] == {"name": pod.metadata.name, "uid": pod.metadata.uid}
    assert mode(folder / "token") == 0o640
    assert os.stat(folder / "token").st_gid == 4321
    before = manager._host.tokens.last(pod, "", 3607)
    await manager.setup(pod)
    assert manager._host.tokens.last(pod, "", 3607) is before
    # a changed label shows without any restart
    body = {"metadata": {"labels": {"app": "y"}}}
    changed = await admin.patch(PODS, pod.metadata.name, body, namespace, type=Pod)
    manager.update(changed)
    await eventually(lambda: text(folder / "labels") == 'app="y"')
    assert text(folder / "token") == token


async def test_tokens_are_renewed_when_they_are_due(manager, make_pod):
    sources = [{"serviceAccountToken": {"path": "token", "expirationSeconds": 600}}]
    pod = await make_pod([{"name": "t", "projected": {"sources": sources}}], serviceAccountName="default")
    volumes = await set_up(manager, pod)
    first = text(volumes["t"] / "token")
    tokens = manager._host.tokens
    real = tokens._clock
    await asyncio.sleep(1.1)  # issue times are whole seconds: a token of the same second would be the same text
    due = tokens.last(pod, "", 600).renew_at
    tokens._clock = lambda: max(real(), due)
    (live,) = manager._pods[pod.metadata.uid]._live.values()
    live.refresh()
    await eventually(lambda: text(volumes["t"] / "token") != first)


async def test_volumes_of_an_earlier_agent_are_taken_over_and_removed(
    manager, agent, make_pod, admin, namespace, tmp_path
):
    await config_map(admin, namespace, "cm", {"a": "1"})
    pod = await make_pod([{"name": "cm", "configMap": {"name": "cm"}}, {"name": "e", "emptyDir": {"medium": "Memory"}}])
    volumes = await set_up(manager, pod)
    (volumes["e"] / "data").write_text("kept")
    await manager.close()
    await config_map(admin, namespace, "cm", {"a": "while away"})
    second = VolumeManager(agent, tmp_path / "state")
    assert second.known() == [pod.metadata.uid]
    assert await second.setup(pod) == volumes
    assert text(volumes["cm"] / "a") == "while away"
    assert (volumes["e"] / "data").read_text() == "kept"
    await second.close()
    third = VolumeManager(agent, tmp_path / "state")
    await third.teardown(pod.metadata.uid)
    assert third.known() == []
    assert not mounted(volumes["e"])


@pytest.mark.parametrize(
    ("kind", "prepare", "said"),
    [
        ("", None, None),
        ("Directory", "dir", None),
        ("Directory", None, "is not a directory"),
        ("Directory", "file", "is not a directory"),
        ("DirectoryOrCreate", None, None),
        ("DirectoryOrCreate", "file", "is not a directory"),
        ("File", "file", None),
        ("File", "dir", "is not a file"),
        ("FileOrCreate", None, None),
        ("Socket", "socket", None),
        ("Socket", "file", "is not a socket file"),
        ("CharDevice", "file", "is not a character device"),
        ("BlockDevice", None, "is not a block device"),
    ],
)
async def test_host_paths(manager, make_pod, tmp_path, kind, prepare, said):
    path = tmp_path / "h"
    if prepare == "dir":
        path.mkdir()
    elif prepare == "file":
        path.touch()
    elif prepare == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    pod = await make_pod([{"name": "h", "hostPath": {"path": str(path), "type": kind}}])
    if said is None:
        assert (await set_up(manager, pod))["h"] == path
        assert path.exists() or kind == ""
    else:
        with pytest.raises(FailedMount) as caught:
            await set_up(manager, pod)
        problem = f"hostPath type check failed: {path} {said}"
        assert caught.value.messages == [f'MountVolume.SetUp failed for volume "h" : {problem}']
    await manager.teardown(pod.metadata.uid)
    assert path.exists() == bool(prepare or (said is None and kind))


async def test_kinds_that_there_is_no_plugin_for_are_named(manager, make_pod):
    pod = await make_pod([{"name": "v", "nfs": {"server": "s", "path": "/"}}, {"name": "e", "emptyDir": {}}])
    with pytest.raises(FailedMount) as caught:
        await set_up(manager, pod)
    assert caught.value.messages == [
        'MountVolume.SetUp failed for volume "v" : no volume plugin matched: nfs volumes need a helper on the node, '
        "and no NFS client (mount.nfs) is driven"
    ]
